"""The application entity that requests an association of which the socket can be lent."""

import contextlib
import socket
import ssl
from typing import Any, cast

from pynetdicom import AE as ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from dicom_node.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.wire.association import Checkpoint, WokenDUL
from dicom_node.wire.sender import StoreSender


class Requestor(ApplicationEntity):
    """An application entity of this program that requests one association, and knows why its connection failed: pynetdicom only logs that.

    woken: whether the association waits for events instead of sleeping, and lends its socket.
    """

    _socket: "_Kept | _KeptTls | None" = None
    _sender: StoreSender | None = None

    def __init__(self, calling_ae: str, woken: bool = False) -> None:
        super().__init__(calling_ae)
        self._woken = woken
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME

    @property
    def error(self) -> OSError | None:
        """Why there is no connection, if there is none."""
        return self._socket.error if self._socket else None

    @property
    def tls_error(self) -> OSError | None:
        """What TLS has to tell of the connection, if anything: it failed in the handshake, or the peer sent an alert after its own side of that."""
        return self._socket.tls_error if isinstance(self._socket, _KeptTls) else None

    def sender(self, association: Association, timeout_s: float) -> StoreSender | None:
        """Return what sends objects over the association; None: pynetdicom does."""
        if self._sender is None and self._woken:
            self._sender = StoreSender(association, timeout_s)
        return self._sender

    def give_back(self) -> None:
        """Let the association have its socket again, if it was lent."""
        if self._sender is not None:
            self._sender.give_back()

    def _create_socket(self, association: Association, address: Any, tls_args: "tuple[ssl.SSLContext, str] | None") -> AssociationSocket:
        if self._woken:
            WokenDUL(association)  # in the place of the association's own, which has not started
        else:
            association._reactor_checkpoint = Checkpoint(association)
        transport = super()._create_socket(association, address, None)
        plain = transport.socket
        if tls_args is None:
            transport.socket = self._socket = _Kept(fileno=plain.detach())
        else:  # not yet connected: it shakes hands when it is
            context, server_name = tls_args
            context.sslsocket_class = _KeptTls
            transport.socket = self._socket = cast(_KeptTls, context.wrap_socket(plain, server_hostname=server_name))
        return transport


class _Keeping(socket.socket):
    """A socket that keeps the error of its connection, and is closed where pynetdicom gives up: after a shutdown that failed."""

    error: OSError | None = None

    def connect(self, address: Any) -> None:
        try:
            super().connect(address)
        except OSError as error:
            self.error = error
            raise

    def shutdown(self, how: int) -> None:
        try:
            super().shutdown(how)
        except OSError:
            self.close()
            raise


class _Kept(_Keeping):
    """Plain."""


class _KeptTls(_Keeping, ssl.SSLSocket):
    """Over TLS; it keeps what TLS says against the connection, too."""

    tls_error: OSError | None = None

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            self.tls_error = error
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                self.read(1)  # the alert that came before the connection was closed says why
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # the names are ssl's
        try:
            return super().read(len, buffer)
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLWantReadError):
                self.tls_error = self.tls_error or error
            raise
