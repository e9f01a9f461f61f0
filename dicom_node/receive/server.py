"""The listening socket: connections become associations, each with its TLS handshake in its own thread, and no more than there is room for."""

import contextlib
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.guard import Reloading

_log = structlog.get_logger()


class Server(ThreadedAssociationServer):
    """Accepts connections.

    tls: the context by which they are wrapped, as the site's files are now; none: plain.
    timeout_s: for the handshake.
    prepare: is given each association before it starts, and its socket.
    shares_port: whether other processes of the node listen on the same port.
    """

    request_queue_size = 256  # connections that wait to be accepted; the default of 5 makes a burst of senders wait for TCP to try again
    daemon_threads = True

    def __init__(
        self,
        *args: Any,
        tls: Reloading[ssl.SSLContext] | None,
        timeout_s: float,
        prepare: Callable[[Association, socket.socket], None],
        shares_port: bool,
        **kwargs: Any,
    ) -> None:
        self.tls = tls
        self.timeout_s = timeout_s
        self.prepare = prepare
        self._shares_port = shares_port
        super().__init__(*args, **kwargs)

    def server_bind(self) -> None:
        """Bind, together with the node's other receiving processes if there are any."""
        if self._shares_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Say whether there is room: who comes when all places are taken is rejected by an answer, and closed without one when too many come."""
        return len(self.active_associations) < 2 * self.ae.maximum_associations

    def service_actions(self) -> None:
        """Collect no garbage: pynetdicom does so every 15 s, and with every 60th connection, and nobody is served meanwhile.

        The interpreter does it by itself, when there is something to gain. No association keeps a descriptor or a data set until then.
        """

    def shutdown_request(self, request: Any) -> None:
        """Shut a connection whose association has ended, for reading too: a thread may be waiting in the middle of a PDU for the rest of it."""
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a connection that did not become an association; of one that failed to show who it is as a Security Alert (PS3.15 A.5.3.11)."""
        error = sys.exc_info()[1]
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            _log.warning("receive.security_alert", address=client_address[0], reason=f"TLS: {_said(error)}")
            return
        _log.warning("receive.no_association", address=client_address[0], error=type(error).__name__)


class Handler(RequestHandler):
    """Makes an association of a connection."""

    server: Server
    request: socket.socket

    def handle(self) -> None:
        """Shake hands if TLS is spoken, and go on as pynetdicom does."""
        if self.server.tls is not None:
            self.request.settimeout(self.server.timeout_s)
            self.request = self.server.tls.now().wrap_socket(self.request, server_side=True)
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        self.server.prepare(association, self.request)
        return association


def _said(error: ssl.SSLError) -> str:
    """Return why OpenSSL refused a handshake; a certificate's own text is not in it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    return (error.reason or type(error).__name__).replace("_", " ").lower()
