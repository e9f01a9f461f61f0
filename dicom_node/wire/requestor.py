"""The application entity that requests an association of which the socket can be lent."""

import socket
from typing import Any

from pynetdicom import AE as ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from dicom_node.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.wire.association import WokenDUL
from dicom_node.wire.sender import StoreSender


class Requestor(ApplicationEntity):
    """An application entity of this program that requests one association, and knows why its connection failed: pynetdicom only logs that.

    woken: whether the association waits for events instead of sleeping, and lends its socket.
    """

    _socket: "_Kept | None" = None
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

    def sender(self, association: Association, timeout_s: float) -> StoreSender | None:
        """Return what sends objects over the association; None: pynetdicom does."""
        if self._sender is None and self._woken:
            self._sender = StoreSender(association, timeout_s)
        return self._sender

    def give_back(self) -> None:
        """Let the association have its socket again, if it was lent."""
        if self._sender is not None:
            self._sender.give_back()

    def _create_socket(self, association: Association, *args: Any) -> AssociationSocket:
        if self._woken:
            WokenDUL(association)  # in the place of the association's own, which has not started
        transport = super()._create_socket(association, *args)
        plain = transport.socket
        transport.socket = self._socket = _Kept(fileno=plain.detach())
        return transport


class _Kept(socket.socket):
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
