"""Tries what the node needs of a peer, step by step, and says of each what is wrong and what to do.

The connection is tried without DICOM first, then TLS, then one association that proposes everything that the site's configuration wants of the
peer. Nothing is stored, queried or moved.
"""

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.association import Association

from dicom_node.config import Node, Remote, Tls, WebTls
from dicom_node.domain import ConfigError, PeerUnavailable
from dicom_node.guard.certificate import certificate_in, days_left
from dicom_node.guard.credentials import credentials
from dicom_node.guard.web import WebLine
from dicom_node.wire import ClientTls, Credentials
from dicom_node.wire.credentials import tls_failed
from dicom_node.wire.peer import accepted, associate, close, echo_over

_LONGEST_S = 10.0  # that one step waits
_SOON_DAYS = 30  # before its end a certificate is told of
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_VERIFICATION = "1.2.840.10008.1.1"
_NO_STUDY = "2.25.0"
_ANSWER_BYTES = 1 << 20

_SEG, _LABELMAP, _SR = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.88.34"
_OTHER_RESULTS: Mapping[str, str] = {
    "Parametric Map": "1.2.840.10008.5.1.4.1.1.30",
    "Grayscale Softcopy Presentation State": "1.2.840.10008.5.1.4.1.1.11.1",
    "Key Object Selection": "1.2.840.10008.5.1.4.1.1.88.59",
}
_FIND, _MOVE, _GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"  # Study Root
_COMMITMENT, _WORKLIST, _AVAILABILITY = "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.31", "1.2.840.10008.5.1.4.33"

_WATCH, _PULL = "1.2.840.10008.5.1.4.34.6.2", "1.2.840.10008.5.1.4.34.6.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one step found. hint: what to do, if anything."""

    what: str
    ok: bool
    says: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A SOP class that is wanted of a peer. must: whether the node cannot do what it is configured for without it."""

    what: str
    sop_class_uid: str
    must: bool
    hint: str


def wishes(remote: Remote) -> tuple[Wish, ...]:
    """Return what the site's configuration wants of a peer."""
    found = []
    if "receive" in remote.may:
        seg = ("Label Map Segmentation", _LABELMAP) if remote.segmentation == "LABELMAP" else ("Segmentation", _SEG)
        stored = "Have its storage enabled there"
        found += [_wish(f"storage of {name}", uid, f"{stored}.") for name, uid in (seg, ("Comprehensive 3D SR", _SR))]
        for name, uid in _OTHER_RESULTS.items():
            found.append(Wish(what=f"storage of {name}", sop_class_uid=uid, must=False, hint=f"{stored} if a model of a rule makes it."))
    if remote.retrieve not in ("none", "web"):
        found.append(_wish("C-FIND", _FIND, "Have Study Root Query/Retrieve - FIND enabled there for this node, or set retrieve to none."))
        which = ("C-MOVE", _MOVE) if remote.retrieve == "move" else ("C-GET", _GET)
        found.append(_wish(*which, "Have it enabled there for this node, or set `retrieve` to the other way."))
    if remote.storage_commitment:
        found.append(_wish("storage commitment", _COMMITMENT, "Have it enabled there for this node, or set storage_commitment = false."))
    if remote.orders:
        found.append(_wish("Modality Worklist", _WORKLIST, "Have it enabled there for this node, or set orders = false."))
    if remote.notify:
        found.append(_wish("Instance Availability Notification", _AVAILABILITY, "Have it enabled there for this node, or set notify = false."))
    if remote.tasks != "none" and not remote.web_url:
        found.append(_wish("UPS Pull", _PULL, 'Have it enabled there for this node, or set tasks = "none".'))
    if remote.tasks == "triggered" and not remote.web_url:
        hint = "Have it enabled there, so that the node is told of what is new; without it the worklist is looked through all the same."
        found.append(Wish(what="UPS Watch", sop_class_uid=_WATCH, must=False, hint=hint))
    return tuple(found)


def _wish(what: str, sop_class_uid: str, hint: str) -> Wish:
    return Wish(what=what, sop_class_uid=sop_class_uid, must=True, hint=hint)


def probe_node(tls: Tls, now: float) -> Finding:
    """Say how long the node's own certificate is still valid."""
    return _own("TLS certificate of the node", tls.certificate, "Renew node.tls.certificate; it is read anew by itself.", now)


def probe_web(tls: WebTls, now: float) -> Finding:
    """Say the same of the certificate that the web shows."""
    return _own("TLS certificate of the web", tls.certificate, "Renew web.tls.certificate; it is read anew by itself.", now)


def _own(what: str, certificate: Path, renew: str, now: float) -> Finding:
    try:
        return _validity(what, certificate_in(certificate), now, renew)
    except (ConfigError, ValueError) as error:
        return Finding(what=what, ok=False, says=str(error), hint=getattr(error, "hint", "Name a PEM file."))


def probe(name: str, remote: Remote, node: Node, now: float) -> Iterator[Finding]:
    """Try a remote, and end at the first step without which the next has no sense."""
    wanted = wishes(remote)
    if remote.retrieve == "web":
        yield _search(name, remote)
    if not wanted and remote.retrieve != "web":
        yield Finding(what=f"remote {name}", ok=True, says=f"{remote.ae}: only calls us; not tried")
    if not wanted:
        return
    try:
        ours = credentials(node, remote)
        yield from _reach(name, remote, ours, now)
        yield from _associate(name, remote, node, ours, wanted)
    except (ConfigError, PeerUnavailable) as error:
        yield Finding(what=f"remote {name}", ok=False, says=str(error), hint=error.hint)


def _search(name: str, remote: Remote) -> Finding:
    """Search its studies over HTTP, for one that nobody has."""
    what = f"remote {name}: QIDO-RS"
    try:
        line = WebLine(remote.web_url, remote, min(remote.timeout_s, _LONGEST_S))
        status, _, _ = line.ask("GET", f"/studies?StudyInstanceUID={_NO_STUDY}", accept="application/dicom+json", most_bytes=_ANSWER_BYTES)
        line.close()
    except (ConfigError, PeerUnavailable) as error:
        return Finding(what=what, ok=False, says=str(error), hint=error.hint)
    is_taken = status in (200, 204, 206)
    hint = "" if is_taken else "Correct `web_url`, and have the node allowed to search and retrieve there; its token is in `web_token_file`."
    return Finding(what=what, ok=is_taken, says=f"{remote.web_url} answered {status}", hint=hint)


def _reach(name: str, remote: Remote, ours: Credentials, now: float) -> Iterator[Finding]:
    """Look its host up, connect, and shake hands.

    Raises
    ------
    PeerUnavailable: one of them failed.
    """
    to, patience_s = remote.ae, min(remote.timeout_s, _LONGEST_S)
    try:
        found = socket.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    except OSError as error:
        hint = "Correct the host name, or look at the name service."
        raise PeerUnavailable(f"{to} cannot be found: the host name is not known", hint=hint) from error
    yield Finding(what=f"remote {name}: name", ok=True, says=f"{to.host} is {', '.join(sorted({str(one[4][0]) for one in found}))}")
    started = time.monotonic()
    try:
        line = socket.create_connection((to.host, to.port), patience_s)
    except OSError as error:
        why = "timed out" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        hint = "Is the peer up, the address right, and does a firewall stand between?"
        raise PeerUnavailable(f"{to} takes no connection: {why}", hint=hint) from error
    with line:
        ms = (time.monotonic() - started) * 1000
        yield Finding(what=f"remote {name}: connection", ok=True, says=f"{to.host}:{to.port} is connected to in {ms:.0f} ms")
        if ours.tls is not None:
            yield from _shake_hands(name, remote, line, ours.tls, now)


def _shake_hands(name: str, remote: Remote, line: socket.socket, tls: ClientTls, now: float) -> Iterator[Finding]:
    try:
        with tls.context.wrap_socket(line, server_hostname=tls.server_name) as wrapped:
            version, cipher, der = wrapped.version(), wrapped.cipher(), wrapped.getpeercert(binary_form=True) or b""
    except OSError as error:
        raise tls_failed(remote.ae, tls, error) from error
    yield Finding(what=f"remote {name}: TLS", ok=True, says=f"{version}, {cipher[0] if cipher else 'no cipher'}")
    yield _validity(f"remote {name}: certificate", der, now, "Have it renewed there.")


def _validity(what: str, der: bytes, now: float, renew: str) -> Finding:
    days = days_left(der, now)
    says = f"valid for another {days} days" if days >= 0 else f"expired {-days} days ago"
    return Finding(what=what, ok=days >= 0, says=says, hint=renew if days < _SOON_DAYS else "")


def _associate(name: str, remote: Remote, node: Node, ours: Credentials, wanted: tuple[Wish, ...]) -> Iterator[Finding]:
    """Associate with all that is wanted, and ask for an echo.

    Raises
    ------
    PeerUnavailable: there is no association, or no echo.
    """
    classes = [_VERIFICATION, *(wish.sop_class_uid for wish in wanted)]
    contexts = [(uid, syntax) for uid in classes for syntax in (_EXPLICIT, _IMPLICIT)]
    started = time.monotonic()
    association = associate(remote.ae, node.ae_title, contexts, timeout_s=min(remote.timeout_s, _LONGEST_S), fast=False, credentials=ours)
    try:
        took_ms = (time.monotonic() - started) * 1000
        yield Finding(what=f"remote {name}: association", ok=True, says=f"{remote.ae} took {took_ms:.0f} ms to answer {node.ae_title}")
        taken = {uid for uid, _ in accepted(association)}
        yield _echo(name, remote, association, _VERIFICATION in taken)
        for wish in wanted:
            is_taken = wish.sop_class_uid in taken
            says = "accepted" if is_taken else "not accepted"
            yield Finding(what=f"remote {name}: {wish.what}", ok=is_taken or not wish.must, says=says, hint="" if is_taken else wish.hint)
    finally:
        close(association)


def _echo(name: str, remote: Remote, association: Association, is_taken: bool) -> Finding:
    what = f"remote {name}: C-ECHO"
    if not is_taken:
        return Finding(
            what=what, ok=False, says="Verification is not accepted", hint="It is a DICOM application that does not answer C-ECHO: look at its log."
        )
    started = time.monotonic()
    try:
        echo_over(remote.ae, association)
    except PeerUnavailable as error:
        return Finding(what=what, ok=False, says=str(error), hint=error.hint)
    return Finding(what=what, ok=True, says=f"answered in {(time.monotonic() - started) * 1000:.0f} ms")
