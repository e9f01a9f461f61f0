"""An instance on its way to the disk: gathered in pages of memory, and written past the page cache where the file system allows it.

What is received is flushed at once and read much later, so that a copy of it in the page cache only costs: the copying, finding the pages, and
giving them back. With O_DIRECT the disk takes the bytes from where the socket has put them. The end of a file, which fills no page, goes the
usual way, and so does all where a file system knows no O_DIRECT.
"""

import errno
import fcntl
import mmap
import os
import queue
from typing import Protocol

from blake3 import blake3

from dicom_node.domain import Transient
from dicom_node.store.places import instance_name

Bytes = bytes | bytearray | memoryview | mmap.mmap

PAGE_BYTES = mmap.PAGESIZE
DIRECT = getattr(os, "O_DIRECT", 0)  # Linux
BUFFER_BYTES = -(-576 * 1024 // PAGE_BYTES) * PAGE_BYTES  # a CT image of 512 × 512 in one piece, with a header of up to 60 KB
_HASH_BYTES = 1 << 17  # so much is hashed at once, while the rest still comes
_SPARE = 16  # buffers that are kept for later


class Buffers:
    """Pages of memory to gather instances in, used again: memory that was touched before is the cheapest there is."""

    def __init__(self) -> None:
        self._spare: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def take(self) -> memoryview:
        """Return a buffer whose content is anything."""
        try:
            return self._spare.get_nowait()
        except queue.Empty:
            return memoryview(mmap.mmap(-1, BUFFER_BYTES))

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back."""
        if self._spare.qsize() < _SPARE:
            self._spare.put(buffer)


class Roomy(Protocol):
    """Whatever takes bytes where it says that there is room."""

    def room(self, most_bytes: int, /) -> memoryview:
        """Return where the next bytes go: so many at most, and at least one."""

    def took(self, count: int, /) -> None:
        """Go on after so many bytes that were put there."""


def pour(data: Bytes, into: Roomy) -> None:
    """Copy bytes to where there is room for them."""
    left = memoryview(data)
    while left:
        place = into.room(len(left))
        place[:] = left[: len(place)]
        into.took(len(place))
        left = left[len(place) :]


class Home(Protocol):
    """Where a draft comes from, and what it asks of it."""

    buffers: Buffers

    def keep(self, waiting: str) -> None:
        """Keep an empty file for another instance."""


class Draft:
    """An instance being written: File Meta Information with room for a receipt, then the data set as it comes, then the receipt.

    The file tells by its receipt whether it is whole, so that rows which a power cut took are made again from the files.
    Bytes come by `write`, or without a copy: into what `room` gives, and then `took` says how many.

    head: what stands before the data set, with the receipt's room.
    """

    def __init__(self, home: Home, waiting: str, descriptor: int, head: bytes) -> None:
        self._home = home
        self.waiting = waiting  # its name in `incoming`
        self.descriptor = descriptor
        self._buffer = home.buffers.take()
        self._buffer[: len(head)] = head
        self._head_bytes = self._hashed = self._filled = len(head)
        self._at = 0  # where in the file the buffer's first byte goes
        self._first = b""  # the pages that the head is in, once they were written
        self._hash = blake3()

    @property
    def size_bytes(self) -> int:
        """How long the file is, or will be when what waits in memory was written."""
        return self._at + self._filled

    @property
    def digest(self) -> bytes:
        """The BLAKE3 of the data set as far as it has come."""
        self._hash_on()
        return self._hash.digest()

    def room(self, most_bytes: int) -> memoryview:
        """Return where the next bytes go: so many at most, and at least one.

        Raises
        ------
        Transient: the disk did not take those before.
        """
        if self._filled + most_bytes > BUFFER_BYTES:
            self._flush()
        return self._buffer[self._filled : self._filled + most_bytes]

    def took(self, count: int) -> None:
        """Go on after so many bytes that were put where `room` said."""
        self._filled += count
        if self._filled - self._hashed >= _HASH_BYTES:
            self._hash_on()

    def write(self, data: Bytes) -> None:
        """Copy bytes in.

        Raises
        ------
        Transient: the disk did not take it.
        """
        pour(data, self)

    def beginning(self, most_bytes: int) -> memoryview:
        """Return the first bytes of the data set, put into `room` or taken; nothing, once they have gone to the disk."""
        return self._buffer[self._head_bytes : self._head_bytes + (0 if self._at else most_bytes)]

    def data_set(self) -> memoryview:
        """Return all of the data set that has come; the memory is good until the next call of anything here.

        Raises
        ------
        Transient: the disk did not take it.
        """
        if not self._at:
            return self._buffer[self._head_bytes : self._filled]
        self.finish()
        return memoryview(mmap.mmap(self.descriptor, self.size_bytes, access=mmap.ACCESS_READ))[self._head_bytes :]

    def seal(self, receipt: bytes, receipt_at: int, study_instance_uid: str, *, received_at: float) -> str:
        """Write the rest and the receipt, flush the file, and return the name that it will have once its row is durable.

        Raises
        ------
        Transient: the disk did not take it.
        """
        end = receipt_at + len(receipt)
        if not self._at:
            self._buffer[receipt_at:end] = receipt
            self.finish()
        else:
            self.finish()
            self._buffer[: len(self._first)] = self._first
            self._buffer[receipt_at:end] = receipt
            self._put(self._buffer[: len(self._first)], 0)
        self.flush()
        self.close()
        return instance_name(self.waiting, study_instance_uid, received_at)

    def finish(self) -> None:
        """Write all that waits in memory.

        Raises
        ------
        Transient: the disk did not take it.
        """
        self._flush()
        if self._filled:
            self._put(self._buffer[: self._filled], self._at)

    def flush(self) -> None:
        """Make durable what was written.

        Raises
        ------
        Transient: the disk did not take it.
        """
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            raise declined("take a file", error) from error

    def drop(self) -> None:
        """Give the file back: it will hold something else."""
        if self.descriptor < 0:
            return
        try:
            os.ftruncate(self.descriptor, 0)
        except OSError:  # it is in nobody's way where it is; the next start's sweep removes it
            self.close()
        else:
            self.close()
            self._home.keep(self.waiting)

    def close(self) -> None:
        """Close the file; what waits in memory is forgotten."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            self._home.buffers.give(self._buffer)

    def _hash_on(self) -> None:
        if self._filled > self._hashed:
            self._hash.update(self._buffer[self._hashed : self._filled])
            self._hashed = self._filled

    def _flush(self) -> None:
        """Write the whole pages that have come; what is left of the last one moves to the front."""
        self._hash_on()
        whole = self._filled & -PAGE_BYTES
        if not whole:
            return
        self._put(self._buffer[:whole], self._at)
        if not self._at:
            self._first = bytes(self._buffer[: -(-self._head_bytes // PAGE_BYTES) * PAGE_BYTES])
        rest = self._filled - whole
        self._buffer[:rest] = self._buffer[whole : self._filled]
        self._at += whole
        self._filled = self._hashed = rest

    def _put(self, data: memoryview, at: int) -> None:
        try:
            while len(data):
                if len(data) % PAGE_BYTES or at % PAGE_BYTES:
                    self._use_cache()
                written = self._written(data, at)
                data, at = data[written:], at + written
        except OSError as error:
            raise declined("take a file", error) from error

    def _written(self, data: memoryview, at: int) -> int:
        try:
            return os.pwrite(self.descriptor, data, at)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._use_cache()  # the file system opens files for O_DIRECT, and then wants other pieces than these
            return os.pwrite(self.descriptor, data, at)

    def _use_cache(self) -> None:
        if DIRECT:
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, os.O_RDWR)


def declined(what: str, error: OSError) -> Transient:
    """Say that the disk did not do something."""
    return Transient(f"the disk did not {what}: {error.strerror}", hint="Free space in the storage folder, or look at the disk.")
