"""What the pool and a model's process say to each other: short JSON messages, and arrays in a file without a name.

Nothing is pickled: what a model returns is numbers and bytes, never something that runs in the node's own process.
The file lives in memory (or unlinked on disk, where the system has no memfd), so it is gone with the last process that holds it, however that ends.
"""

import json
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import Volume

MESSAGE_MAX_BYTES = 16 * 2**20
_ALIGN_BYTES = 64
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Received:
    """One message, and the file that came with it (-1: none); whoever receives it closes the file."""

    said: dict[str, Any]
    file: int = -1


def send(channel: socket.socket, said: Mapping[str, Any], file: int = -1) -> None:
    """Send one message, with an open file if there is one.

    Raises
    ------
    ValueError: the message is longer than MESSAGE_MAX_BYTES.
    OSError: the other side is gone.
    """
    body = json.dumps(said).encode()
    if len(body) > MESSAGE_MAX_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is longer than {MESSAGE_MAX_BYTES}")
    if file < 0:
        channel.sendall(_LENGTH.pack(len(body)))
    else:
        socket.send_fds(channel, [_LENGTH.pack(len(body))], [file])
    channel.sendall(body)


def receive(channel: socket.socket) -> Received:
    """Wait for one message.

    Raises
    ------
    EOFError: the other side is gone, or says what no message is.
    """
    try:
        head, files, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
    except OSError as error:  # reset: the other side went before it had read all
        raise EOFError("the channel broke off") from error
    file = files[0] if files else -1
    try:
        if len(head) < _LENGTH.size:
            raise EOFError
        (length,) = _LENGTH.unpack(head)
        if length > MESSAGE_MAX_BYTES:
            raise EOFError
        said = json.loads(_exactly(channel, length))
        if not isinstance(said, dict):
            raise EOFError
    except BaseException as error:
        if file >= 0:
            os.close(file)
        raise EOFError("the channel broke off") from error
    return Received(said, file)


def _exactly(channel: socket.socket, length: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < length:
        chunk = channel.recv(min(length - len(chunks), 2**18))
        if not chunk:
            raise EOFError
        chunks += chunk
    return bytes(chunks)


def pack(volumes: Mapping[str, Volume]) -> tuple[int, dict[str, Any]]:
    """Write volumes into a new file without a name; return it and what says how to read it. Whoever packs closes the file."""
    file = _nameless()
    described, end = {}, 0
    try:
        for name, volume in volumes.items():
            array = np.ascontiguousarray(volume.array)
            described[name] = {"shape": array.shape, "dtype": array.dtype.str, "offset": end, "affine": np.asarray(volume.affine).tolist()}
            _write(file, array, end)
            end += -(-array.nbytes // _ALIGN_BYTES) * _ALIGN_BYTES
        os.ftruncate(file, end)
    except BaseException:
        os.close(file)
        raise
    return file, described


def unpack_shared(file: int, described: Mapping[str, Any]) -> dict[str, Volume]:
    """Return the volumes as they lie in the file, without a copy; writing into them changes only this process's view."""
    size = os.fstat(file).st_size
    held = mmap.mmap(file, size, access=mmap.ACCESS_COPY) if size else b""
    volumes = {}
    for name, one in described.items():
        dtype, shape = np.dtype(one["dtype"]), tuple(one["shape"])
        array = np.frombuffer(held, dtype, count=int(np.prod(shape)), offset=one["offset"]).reshape(shape)
        volumes[name] = Volume(array, np.array(one["affine"]), coordinate_system="PATIENT")
    return volumes


def unpack_copied(file: int, one: Mapping[str, Any]) -> Volume:
    """Return one volume as a copy that the other process can no longer change, having believed nothing that it says of it.

    Raises
    ------
    ValueError: what the file is said to hold is no volume, or is not what it holds.
    """
    dtype, shape = np.dtype(one["dtype"]), tuple(int(n) for n in one["shape"])
    if dtype.kind not in "biuf" or len(shape) != 3 or min(shape) < 1:  # an object array would be made of pointers
        raise ValueError(f"{dtype} of shape {shape} is no volume")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > os.fstat(file).st_size:
        raise ValueError("the array is larger than its file")
    array: Any = np.empty(shape, dtype)
    rest, offset = memoryview(array).cast("B"), int(one["offset"])
    while rest:
        count = os.preadv(file, [rest], offset)
        if not count:
            raise ValueError("the file ended early")
        rest, offset = rest[count:], offset + count
    return Volume(array, np.array(one["affine"], dtype=float).reshape(4, 4), coordinate_system="PATIENT")


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("dicom-node", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as held:
        return os.dup(held.fileno())


def _write(file: int, array: Any, offset: int) -> None:
    rest = memoryview(array).cast("B") if array.size else memoryview(b"")
    while rest:
        count = os.pwrite(file, rest, offset)
        rest, offset = rest[count:], offset + count
