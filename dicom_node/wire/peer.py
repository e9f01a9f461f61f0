"""One association that this node requests: opened, used for C-STORE or C-ECHO, and, when it fails, a sentence that says what is wrong.

An object goes out by the node's own store path where its transfer syntax was accepted; by pynetdicom's where it is encoded anew, where the site
says so (`node.store_path`), and where pynetdicom is not one that the wire knows.

The first association sets two of pynetdicom's process-wide switches: files are sent as they lie on disk, without being decoded
(`STORE_SEND_CHUNKED_DATASET`, which concerns only data sets given as paths), and its per-message log handlers stay unbound (`LOG_HANDLER_LEVEL`).
"""

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from dicom_node.domain import AE, PeerUnavailable
from dicom_node.wire.association import is_known_library
from dicom_node.wire.credentials import Credentials, tls_ended, tls_failed
from dicom_node.wire.message import MoveOriginator
from dicom_node.wire.part10 import StoredFile
from dicom_node.wire.requestor import Requestor

CONNECT_TIMEOUT_S = 10.0
_MEDIUM = 0  # Priority (0000,0700)
_SLOWEST_BYTES_PER_S = 125_000  # a line of 1 Mbit/s: what the patience for a large object is reckoned with

_NONE = Credentials()

Context = tuple[str, str]  # SOP class UID, transfer syntax UID


class Stored(Protocol):
    """An object that lies on disk as a file, as the ledger names it: a received instance, or a result."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102 - the attribute's own name says it
    @property
    def sop_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def transfer_syntax_uid(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a peer answered to one object."""

    status: int
    comment: str = ""


def associate(
    to: AE,
    calling_ae: str,
    proposed: Sequence[Context],
    *,
    timeout_s: float,
    max_pdu_bytes: int = 131072,
    fast: bool = True,
    negotiated: Sequence[Any] = (),
    handlers: Sequence[evt.EventHandlerType] = (),
    credentials: Credentials = _NONE,
) -> Association:
    """Request an association (PS3.8 7.1) that proposes these contexts in their order; it may come back with none of them accepted, and ended.

    fast: whether objects are sent over it by the node's own store path, if this pynetdicom lets it.
    negotiated: extended negotiation items (PS3.7 D.3.3): role selection, user identity, SOP class extended negotiation.
    handlers: what is done with what the peer requests over it: C-STORE sub-operations of a C-GET, event reports.
    credentials: how the node shows who it is, as `guard.credentials` reads them; without, by its title alone, in clear.

    Raises
    ------
    PeerUnavailable: nobody listens, TLS failed, the request was rejected or aborted, or no answer came in time.
    """
    tls = credentials.tls
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True
    entity = Requestor(calling_ae, woken=fast and is_known_library())
    entity.connection_timeout = min(timeout_s, CONNECT_TIMEOUT_S)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in proposed]
    started = time.monotonic()
    try:
        association = entity.associate(
            to.host,
            to.port,
            contexts,
            to.title,
            max_pdu_bytes,
            ext_neg=[*negotiated, *([credentials.identity.item] if credentials.identity else [])],
            tls_args=(tls.context, tls.server_name) if tls else None,
            evt_handlers=[(evt.EVT_CONN_OPEN, _tune, [timeout_s]), *handlers],
        )
    except OSError as error:
        raise _unconnected(to, error) from error
    if tls is not None and entity.tls_error is not None and not association.is_established:
        raise tls_failed(to, tls, entity.tls_error)
    if entity.error is not None:
        raise _unconnected(to, entity.error)
    if not association.is_established and not (association.accepted_contexts or association.rejected_contexts):
        raise _unassociated(to, association, credentials, late=time.monotonic() - started >= timeout_s)
    return association


def accepted(association: Association) -> frozenset[Context]:
    """Return the contexts that the peer accepted."""
    return frozenset((str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in association.accepted_contexts)


def refused(association: Association) -> Mapping[Context, int]:
    """Return the contexts that the peer did not accept, with its result by PS3.8 Table 9-18."""
    return {(str(cx.abstract_syntax), str(cx.transfer_syntax[0])): int(cx.result or 0) for cx in association.rejected_contexts}


def patience_s(size_bytes: int, timeout_s: float) -> float:
    """Return how long to wait for the answer to an object: the peer's time-out, and the time that its bytes take on a slow line."""
    return timeout_s + size_bytes / _SLOWEST_BYTES_PER_S


def store(
    association: Association,
    path: Path,
    what: Stored,
    syntax: str,
    *,
    message_id: int,
    timeout_s: float,
    originator: MoveOriginator | None = None,
) -> Answer | None:
    """Send one object by C-STORE (PS3.7 9.1.1) and return the answer; None when there was none: the association is then at its end.

    In its own transfer syntax the file's bytes go out as they are; in another the data set is encoded anew, each time the same way.

    originator: of the C-MOVE request that this is a sub-operation of.

    Raises
    ------
    ValueError: the file cannot be encoded in this transfer syntax, or is not what its row says.
    """
    with StoredFile(path) as file:
        if file.meta.names != (what.sop_class_uid, what.sop_instance_uid, what.transfer_syntax_uid):
            raise ValueError("its file meta information is not what the ledger says")
        patience = patience_s(file.size, timeout_s)
        sender = association.ae.sender(association, timeout_s) if syntax == what.transfer_syntax_uid else None
        if sender is not None:
            said = sender.send(file, message_id=message_id, patience_s=patience, originator=originator)
            return None if said is None else Answer(status=said.status, comment=said.comment)
    association.ae.give_back()
    association.dimse_timeout = patience
    return _store_by_library(association, path if syntax == what.transfer_syntax_uid else _encoded_as(path, syntax), message_id, originator)


def _encoded_as(path: Path, syntax: str) -> Dataset:
    """Return a data set that pynetdicom encodes in another transfer syntax: the accepted one, or deflated, if it is told that."""
    dataset = dcmread(path)
    if syntax == DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _store_by_library(association: Association, what: Path | Dataset, message_id: int, originator: MoveOriginator | None) -> Answer | None:
    of = (originator.ae_title, originator.message_id) if originator else (None, None)
    try:
        status = association.send_c_store(what, msg_id=message_id, priority=_MEDIUM, originator_aet=of[0], originator_id=of[1])
    except RuntimeError:  # the peer ended the association since the last object
        return None
    if "Status" not in status:
        return None
    return Answer(status=int(status.Status), comment=str(status.get("ErrorComment", "")))


def echo(to: AE, calling_ae: str, *, timeout_s: float = 10.0, credentials: Credentials = _NONE) -> float:
    """Ask a peer whether it is there (C-ECHO, PS3.4 Annex A) and return how many seconds association and answer took.

    Raises
    ------
    PeerUnavailable: no association, or no success; the message says which, the hint what to do.
    """
    started = time.monotonic()
    association = associate(to, calling_ae, [(str(Verification), "1.2.840.10008.1.2")], timeout_s=timeout_s, credentials=credentials)
    if not association.is_established:
        raise PeerUnavailable(f"{to} did not accept Verification", hint="It is a DICOM application that does not answer C-ECHO: look at its own log.")
    try:
        echo_over(to, association)
    finally:
        close(association)
    return time.monotonic() - started


def echo_over(to: AE, association: Association) -> None:
    """Ask for C-ECHO over an association that has accepted Verification.

    Raises
    ------
    PeerUnavailable: no answer, or no success.
    """
    try:
        status = association.send_c_echo()
    except RuntimeError:  # the peer has ended the association
        status = Dataset()
    if "Status" not in status:
        raise PeerUnavailable(f"{to} accepted the association but did not answer C-ECHO", hint="Look at the peer's own log.")
    if status.Status != 0:
        raise PeerUnavailable(f"{to} answered C-ECHO with {status.Status:04X}", hint="Look at the peer's own log.")


def close(association: Association) -> None:
    """Release an association; nothing happens when it has ended."""
    association.ae.give_back()
    if association.is_established:
        association.release()


def cut(association: Association) -> None:
    """End the connection under an association at once, so that whoever waits for an answer on it hears that there is none."""
    transport = association.dul.socket
    if transport is not None and transport.socket is not None:
        with contextlib.suppress(OSError):
            transport.socket.shutdown(socket.SHUT_RDWR)


def _tune(event: evt.Event, timeout_s: float) -> None:
    """Send each packet at once (header and body of a PDU are written apart), and never wait for ever for a peer that has stopped reading."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.socket.settimeout(timeout_s)


def _unconnected(to: AE, error: OSError) -> PeerUnavailable:
    if isinstance(error, TimeoutError):
        return PeerUnavailable(f"{to} does not answer: timed out", hint="Is the host up and the address right, and does a firewall stand between?")
    if isinstance(error, ConnectionRefusedError):
        return PeerUnavailable(f"{to} refuses the connection: nobody listens on port {to.port}", hint="Start the peer, or correct the port.")
    if isinstance(error, socket.gaierror):
        return PeerUnavailable(f"{to} cannot be found: the host name is not known", hint="Correct the host name, or look at the name service.")
    return PeerUnavailable(f"{to} cannot be reached: {error.strerror or error}", hint="Look at the network between, and at the peer's own log.")


def _unassociated(to: AE, association: Association, credentials: Credentials, *, late: bool) -> PeerUnavailable:
    said = association.acceptor.primitive
    calling_ae = association.requestor.ae_title
    if said is not None and said.result in (1, 2):
        why, hint = rejection(said.result_source, said.diagnostic)
        return PeerUnavailable(f"{to} rejected the association of {calling_ae}: {why}", hint=hint)
    if late:
        return PeerUnavailable(
            f"{to} took the connection but did not answer the association request: timed out", hint="Is it DICOM that listens there?"
        )
    if credentials.tls is not None:
        return tls_ended(to, credentials.tls)
    return PeerUnavailable(f"{to} ended the association of {calling_ae} before answering it", hint="Look at the peer's own log.")


_REJECTIONS: Mapping[tuple[int, int], tuple[str, str]] = {  # PS3.8 Table 9-21: (source, reason) -> what it says, what to do
    (1, 1): ("no reason given", "Look at the peer's own log: it usually lacks an entry for this node."),
    (1, 2): ("application context not supported", "Is it a DICOM application that listens there?"),
    (1, 3): ("it does not know the calling AE title", "Have the peer's administrator enter this node's AE title and address."),
    (1, 7): ("it does not go by the called AE title", "Correct the title before the @ of this remote; titles are case-sensitive."),
    (2, 1): ("no reason given", "Look at the peer's own log."),
    (2, 2): ("protocol version not supported", "Is it a DICOM application that listens there?"),
    (3, 1): ("temporary congestion", "It is tried again."),
    (3, 2): ("its limit of associations is reached", "Lower `associations` of this remote, or have the peer's limit raised."),
}


def rejection(source: int | None, reason: int | None) -> tuple[str, str]:
    """Return what an A-ASSOCIATE-RJ says and what to do about it (PS3.8 Table 9-21)."""
    return _REJECTIONS.get((source or 0, reason or 0), (f"source {source}, reason {reason}", "Look at the peer's own log."))
