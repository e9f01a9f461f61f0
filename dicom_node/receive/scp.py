"""The C-STORE and C-ECHO SCP (PS3.4 Annexes A and B): pynetdicom negotiates and speaks, the door decides.

While a `Receiver` listens, two switches of pynetdicom are set for the whole process, on purpose:

* `UNRESTRICTED_STORAGE_SERVICE`: as acceptor, take every storage SOP class, private and unknown ones too, in every transfer syntax. Of each
  presentation context the requestor's first transfer syntax is taken. It changes nothing for an association that this process requests.
* `LOG_HANDLER_LEVEL`: no handlers that write every message to a log; they cost time and may show what is in it.
"""

import contextlib
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from socketserver import BaseServer
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, proxy

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID, UID_dictionary
from pynetdicom import AE as ApplicationEntity
from pynetdicom import _config, evt, sop_class
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import Verification

from dicom_node.config import NodeConfig
from dicom_node.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, ConfigError
from dicom_node.guard import Certificate, Denial, Shown, denied, server_context
from dicom_node.receive.door import Door
from dicom_node.receive.presence import Presence
from dicom_node.receive.server import Handler, Server
from dicom_node.receive.store_path import StoreDUL, negotiate_window
from dicom_node.receive.turnstile import Turnstile
from dicom_node.receive.visit import Visit
from dicom_node.store import Store
from dicom_node.wire import Connection, Service, StoreRequest, is_known_library, judge_by_artim, status_of

_PDU_BYTES = 1 << 20  # no PDU longer than this is read: what the site agrees to is less, and a request to associate fits in
_AT_ONCE = 4  # data sets that are made durable at once: more gain next to nothing, and then senders would not take turns
_WINDOW = 8  # asynchronous operations of one association (PS3.7 D.3.3.3)
_DESCRIPTORS_EACH = 4  # of an association: its socket, its bell, its file; and some for the rest
_ABORT_S = 2.0  # so long an aborted association may take to say so to its peer

_log = structlog.get_logger()


_LISTENING: WeakSet["Receiver"] = WeakSet()


class Receiver:
    """Listens where the site's configuration says, and answers."""

    def __init__(self, site_config: NodeConfig, store: Store, clock: Callable[[], float] = time.time, *, services: Sequence[Service] = ()) -> None:
        self._config = site_config
        self._services = tuple(services)  # of other rooms, on the same port
        self._door = Door(store, site_config.node)
        self._clock = clock
        self.presence = Presence(clock)
        self._tls = server_context(site_config.node.tls) if site_config.node.tls else None
        self._fast = site_config.node.store_path == "fast" and is_known_library()
        self._turnstile = Turnstile(_AT_ONCE)
        self._window: ThreadPoolExecutor | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._visits: WeakKeyDictionary[Association, Visit] = WeakKeyDictionary()

    @property
    def port(self) -> int:
        """The port it listens on, or would: the configured one, unless that is 0 and it is listening."""
        return int(self._server.server_address[1]) if self._server else self._config.node.port

    @property
    def is_fast(self) -> bool:
        """Whether C-STORE goes past pynetdicom: as the site wishes, where the library is one that this is known of."""
        return self._fast

    def start(self) -> None:
        """Listen, and answer in threads of its own.

        Raises
        ------
        ConfigError: the address cannot be listened on.
        """
        _config.LOG_HANDLER_LEVEL = "none"
        node = self._config.node
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._on_connection),
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_CONN_CLOSE, _on_close),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_RELEASED, self._on_end, ["released"]),
            (evt.EVT_ABORTED, self._on_end, ["aborted"]),
            (evt.EVT_REJECTED, self._on_end, ["rejected"]),
            *_joined(self._services),
        ]
        server = partial(Server, tls=self._tls, timeout_s=node.network_timeout_s, prepare=self._prepare, shares_port=node.receivers > 1)
        self._window = ThreadPoolExecutor(_WINDOW, thread_name_prefix="window")  # it has threads when an association negotiates a window
        _allow_descriptors(_DESCRIPTORS_EACH * node.max_associations)
        try:
            self._server = self._entity().make_server((node.host, node.port), evt_handlers=handlers, server_class=server, request_handler=Handler)
        except OSError as error:
            place = f"{node.host}:{node.port}"
            hint = "Another program may listen there already: choose another node.port, or stop it."
            raise ConfigError(f"node.host and node.port: {place} cannot be listened on: {error.strerror}", hint=hint) from error
        _LISTENING.add(self)
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.25}, name="receiver", daemon=True)
        self._thread.start()
        path = "fast" if self._fast else "stock"
        _log.info("receive.listening", ae_title=node.ae_title, host=node.host, port=self.port, path=path, tls=self._tls is not None)

    def stop(self, grace_s: float = 10.0) -> None:
        """Accept no more, let running associations end by themselves for so long, then abort them; return when none is left."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        BaseServer.shutdown(server)  # pynetdicom's own wants to know the server from its `start_server`
        server.server_close()
        self._thread.join()
        until = time.monotonic() + grace_s
        for association in server.active_associations:
            association.join(max(0.0, until - time.monotonic()))
        left = server.active_associations
        for association in left:
            threading.Thread(target=_abort, args=(association,), daemon=True).start()
        until = time.monotonic() + _ABORT_S
        for association in left:
            association.join(max(0.0, until - time.monotonic()))
            _cut(association)
            association.join()  # what it is storing it stores: `Door.take` ends by itself
            association.dul.join(_ABORT_S)
        if self._window is not None:
            self._window.shutdown()
        _LISTENING.discard(self)
        _config.UNRESTRICTED_STORAGE_SERVICE = bool(_LISTENING)
        _log.info("receive.stopped", aborted=len(left))

    def _entity(self) -> ApplicationEntity:
        node = self._config.node
        entity = ApplicationEntity(node.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = node.max_pdu_bytes
        entity.maximum_associations = -(-node.max_associations // node.receivers)
        entity.acse_timeout = node.acse_timeout_s
        entity.dimse_timeout = node.dimse_timeout_s
        entity.network_timeout = node.network_timeout_s
        entity.require_called_aet = node.check_called_ae
        entity.require_calling_aet = self._known()
        entity.add_supported_context(Verification)
        for service in self._services:
            scu_role, scp_role = service.roles or (None, None)
            for abstract_syntax in service.abstract_syntaxes:
                entity.add_supported_context(abstract_syntax, list(service.transfer_syntaxes), scu_role, scp_role)
        return entity

    def _known(self) -> list[str]:
        """Return the titles that may associate; none: all may. The title that is nobody's keeps the list from being empty by accident."""
        if self._config.may("\0", "send"):  # no remote has this title: so everybody may
            return []
        known = {remote.ae.title for remote in self._config.remotes.values() if remote.may or remote.tasks == "triggered"}
        return sorted(known) or ["NOBODY MAY CALL"]

    def _prepare(self, association: Association, connected: socket.socket) -> None:
        """Begin an association's visit and, on the fast path, give it the upper layer that stores."""
        visit = self._visits[association] = self._visit(association)
        node, transport = self._config.node, association.dul.socket
        if self._fast and self._window is not None and transport is not None:
            connection = Connection(connected, node.network_timeout_s)
            transport.recv = partial(_whole, connection)
            StoreDUL(association, visit.begin, connection, self._window)
            negotiate_window(association, _WINDOW)
        if is_known_library():
            judge_by_artim(association)
        for service in self._services:
            if service.prepare is not None:
                service.prepare(association)

    def _on_connection(self, event: evt.Event) -> None:
        """Give up on a peer whose PDU is endless, in length or in time: pynetdicom would take it and wait for ever."""
        transport = event.assoc.dul.socket
        if not self._fast and transport is not None and transport.socket is not None:
            transport.recv = partial(_receive, transport.recv)
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.socket.settimeout(self._config.node.network_timeout_s)

    def _on_request(self, event: evt.Event) -> None:
        """Abort a request that is none, and reject one whose caller does not show that it is who it says; the others are pynetdicom's."""
        association = event.assoc
        if not _is_whole(association):
            association.acse.send_ap_abort(0x06)  # invalid PDU parameter value
            association.kill()
            return
        calling_ae = association.requestor.primitive.calling_ae_title.strip()
        try:
            denial = denied(self._config.remotes.values(), calling_ae, _shown(association))
        except ConfigError as error:
            _log.error("receive.no_passcode", calling_ae=calling_ae, reason=str(error), hint=error.hint)
            denial = Denial(why="what it must show cannot be read")
        if denial is not None:
            address = association.requestor.address_info.address if association.requestor.address_info else ""
            _log.warning("receive.security_alert", calling_ae=calling_ae, address=address, reason=denial.why)
            association.acse.send_reject(denial.result, denial.source, denial.reason)
            evt.trigger(association, evt.EVT_REJECTED, {})
            association.kill()
            return
        _confirm(association)

    def _on_store(self, event: evt.Event) -> Dataset | int:
        """Answer a C-STORE request that pynetdicom received."""
        request = event.request
        said = StoreRequest(
            message_id=request.MessageID, sop_class_uid=str(request.AffectedSOPClassUID), sop_instance_uid=str(request.AffectedSOPInstanceUID)
        )
        arriving = (self._visits.get(event.assoc) or self._visit(event.assoc)).begin(said, str(event.context.transfer_syntax))
        arriving.write(request.DataSet.getbuffer())
        status, comment = arriving.close()
        return status_of(status, comment) if comment else status

    def _visit(self, association: Association) -> Visit:
        return Visit(
            association=proxy(association),
            config=self._config,
            door=self._door,
            presence=self.presence,
            turnstile=self._turnstile,
            clock=self._clock,
        )

    def _on_end(self, event: evt.Event, how: str) -> None:
        visit = self._visits.pop(event.assoc, None)
        if visit is not None:  # else it was told of already
            visit.tell(how)


_OF_NEGOTIATION = (evt.EVT_ASYNC_OPS, evt.EVT_SOP_COMMON, evt.EVT_SOP_EXTENDED, evt.EVT_USER_ID)  # there is no presentation context yet


def _joined(services: Sequence[Service]) -> list[evt.EventHandlerType]:
    """Return the handlers of all services: of requests each answers those on its own presentation contexts; the rest they hear as they asked."""
    joined: list[evt.EventHandlerType] = []
    answering: dict[evt.InterventionEvent, dict[str, Callable[..., Any]]] = {}
    for service in services:
        for event, handler in service.handlers:
            if isinstance(event, evt.InterventionEvent) and event not in _OF_NEGOTIATION:
                answering.setdefault(event, {}).update(dict.fromkeys(service.abstract_syntaxes, handler))
            else:
                joined.append((event, handler))
    return [*joined, *((event, _chosen, [by_syntax]) for event, by_syntax in answering.items())]


def _chosen(event: evt.Event, by_syntax: Mapping[str, Callable[..., Any]]) -> Any:
    return by_syntax[str(event.context.abstract_syntax)](event)


def _allow_descriptors(needed: int) -> None:
    """Raise this process' limit of open files as far as it may be, up to what the associations take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _whole(connection: Connection, size_bytes: int) -> bytearray:
    """Read for pynetdicom what comes before an association is established: in one piece, and in time."""
    read = bytearray(_bounded(size_bytes))
    connection.read(memoryview(read))
    return read


def _receive(receive: Callable[[int], bytearray], size_bytes: int) -> bytearray:
    return receive(_bounded(size_bytes))


def _bounded(size_bytes: int) -> int:
    if size_bytes > _PDU_BYTES:
        raise ConnectionAbortedError(f"a PDU of {size_bytes} bytes was announced")  # pynetdicom closes the connection
    return size_bytes


def _name_what_is_not_storage() -> None:
    """Let pynetdicom know every standard SOP class that is no storage: what it has no name for, it would accept as storage.

    Its name for Modality Worklist, for one, is not the dictionary's (PS3.6 Table A-1).
    """
    for uid, (name, kind, _, _, keyword) in UID_dictionary.items():
        if kind == "SOP Class" and "Storage" not in name and keyword and not hasattr(sop_class, keyword):
            setattr(sop_class, keyword, UID(uid))


_name_what_is_not_storage()


def _is_whole(association: Association) -> bool:
    """Say whether each proposed context has an abstract and a transfer syntax (PS3.8 9.3.2.2): negotiating another would end pynetdicom's thread."""
    proposed = association.requestor.primitive.presentation_context_definition_list
    return all(context.abstract_syntax and context.transfer_syntax for context in proposed)


def _shown(association: Association) -> Shown:
    """Return what a caller has shown of who it is: its certificate, and its user identity (PS3.7 D.3.3.7)."""
    transport, item = association.dul.socket, association.requestor.user_identity
    line = transport.socket if transport is not None else None
    certificate = Certificate.of(line) if isinstance(line, ssl.SSLSocket) else None
    if item is None:
        return Shown(certificate=certificate)
    passcode = item.secondary_field or b""
    return Shown(certificate=certificate, identity_type=int(item.user_identity_type or 0), name=item.primary_field or b"", passcode=passcode)


def _confirm(association: Association) -> None:
    """Say that a user identity is taken, if that is asked for (PS3.7 D.3.3.7.2): pynetdicom does so for types 3 to 5 alone."""
    item = association.requestor.user_identity
    if item is not None and item.positive_response_requested and item.user_identity_type in (1, 2):
        answer = UserIdentityNegotiation()
        answer.server_response = b""
        association.acceptor.add_negotiation_item(answer)


def _on_close(event: evt.Event) -> None:
    """Free the place of a connection that ended without a request, which pynetdicom would hold until the time-out: health checks are many."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)  # what waits for a request takes this as its time-out


def _abort(association: Association) -> None:
    if association.requestor.primitive is None:
        _cut(association)  # it has not asked for anything: there is nothing to abort (PS3.8 9.2.2)
    else:
        association.abort()  # only says so to the peer while a request is being served
        association.kill()


def _cut(association: Association) -> None:
    """Shut an association's socket: its thread may be waiting there for a peer that has fallen silent in the middle of a PDU."""
    transport = association.dul.socket
    if association.is_alive() and transport is not None and transport.socket is not None:
        with contextlib.suppress(OSError):
            transport.socket.shutdown(socket.SHUT_RDWR)
