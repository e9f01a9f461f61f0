"""Queries by pynetdicom, one after another over one association."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom import AE as ApplicationEntity
from pynetdicom.association import Association

from dicom_node.domain import AE

FIND = {"P": "1.2.840.10008.5.1.4.1.2.1.1", "S": "1.2.840.10008.5.1.4.1.2.2.1"}  # Patient Root and Study Root


@contextmanager
def asking(whom: AE) -> Iterator[Association]:
    """Associate to ask; what is asked goes out at once, though it is written in two pieces.

    The association's reactor rests all the while: between two questions pynetdicom lets it turn, and then it may take the first response.
    """
    entity = ApplicationEntity("ASKER")
    for sop_class in FIND.values():
        entity.add_requested_context(sop_class, "1.2.840.10008.1.2.1")
    association = entity.associate(whom.host, whom.port, ae_title=whom.title)
    assert association.is_established
    association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    resting = threading.Event()
    resume, resting.set = resting.set, lambda: None  # type: ignore[method-assign]
    association._reactor_checkpoint = resting
    time.sleep(0.1)  # it looks every millisecond
    try:
        yield association
    finally:
        resting.set = resume  # type: ignore[method-assign]
        association.release()
