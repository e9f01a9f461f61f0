"""What the pool and a model's process say to each other: short JSON messages, and arrays in a file without a name.

Nothing is pickled: what a model returns is numbers and bytes, never something that runs in the node's own process.
The file lives in memory (or unlinked on disk, where the system has no memfd), so it is gone with the last process that holds it, however that ends.
"""

import json
import mmap
import operator
import os
import socket
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import Volume

from dicom_node.domain import FRACTION_MAX, SEGMENT_AXIS, Mark, Presentation

SEGMENTS, IMAGE, MAP = "segments", "image ", "map "  # names of the volumes that come with an answer: the mask, and before each other's own name
MESSAGE_MAX_BYTES = 16 * 2**20
_ALIGN_BYTES = 64
_ROUNDING = 1e-5  # how far resampling leaves 0 and 1 behind; half a step of 255 is two hundred times that
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


def shown(presentation: Presentation | None) -> dict[str, Any] | None:
    """Return a presentation as JSON carries it.

    Raises
    ------
    TypeError, ValueError, AttributeError: it holds something else than numbers and texts.
    """
    if presentation is None:
        return None
    marks = [
        [operator.index(mark.slice), mark.kind, [[float(row), float(column)] for row, column in mark.points], mark.text]
        for mark in presentation.marks
    ]
    center_width = None if presentation.window is None else [float(value) for value in presentation.window]
    return {"window": center_width, "marks": marks}


def seen(said: Mapping[str, Any] | None) -> Presentation | None:
    """Return what `shown` made of a presentation.

    Raises
    ------
    TypeError, ValueError, KeyError: it made something else.
    """
    if said is None:
        return None
    marks = tuple(
        Mark(slice=index, kind=kind, points=tuple((row, column) for row, column in points), text=text) for index, kind, points, text in said["marks"]
    )
    window = said["window"]
    return Presentation(window=None if window is None else (window[0], window[1]), marks=marks)


def pack(volumes: Mapping[str, Volume]) -> tuple[int, dict[str, Any]]:
    """Write volumes into a new file without a name; return it and what says how to read it. Whoever packs closes the file.

    Fractions of several segments (slice, row, column, segment) lie there segment after segment.
    """
    file = _nameless()
    described, end = {}, 0
    try:
        for name, volume in volumes.items():
            by_segment = volume.number_of_channel_dimensions > 0
            array = np.ascontiguousarray(np.moveaxis(volume.array, -1, 0) if by_segment else volume.array)
            described[name] = {"shape": array.shape, "dtype": array.dtype.str, "offset": end, "affine": np.asarray(volume.affine).tolist()}
            described[name] |= {"segments": volume.get_channel_values(SEGMENT_AXIS)} if by_segment else {}
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
        numbers = one.get("segments")
        channels = {SEGMENT_AXIS: numbers} if numbers else None
        array = np.moveaxis(array, 0, -1) if numbers else array
        volumes[name] = Volume(array, np.array(one["affine"]), coordinate_system="PATIENT", channels=channels)
    return volumes


def unpack_copied(file: int, one: Mapping[str, Any]) -> Volume:
    """Return one volume as a copy that the other process can no longer change, having believed nothing that it says of it.

    Raises
    ------
    ValueError: what the file is said to hold is no volume, or is not what it holds.
    """
    dtype, shape = np.dtype(one["dtype"]), tuple(int(n) for n in one["shape"])
    numbers = [int(n) for n in one.get("segments", ())]
    if dtype.kind not in "biuf" or len(shape) != (4 if numbers else 3) or min(shape) < 1:  # an object array would be made of pointers
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
    affine = np.array(one["affine"], dtype=float).reshape(4, 4)
    if not numbers:
        return Volume(array, affine, coordinate_system="PATIENT")
    return Volume(np.moveaxis(array, 0, -1), affine, coordinate_system="PATIENT", channels={SEGMENT_AXIS: numbers})


def fractions(values: Any) -> Any:
    """Return values from 0 to 1 as bytes, rounded, 1.0 being 255; bytes are taken as they are.

    values: (slice, row, column) or (slice, row, column, segment). Gone through slice by slice, so that no second array of floating point
    numbers is needed; in memory the bytes lie segment after segment, as `pack` writes them.

    Raises
    ------
    ValueError: they are of another type, or one is not from 0 to 1; the text continues "the model …".
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f":
        raise ValueError(f"gave segments of type {values.dtype}, not values from 0 to 1, nor uint8 from 0 to 255")
    by_segment = values.reshape(*values.shape[:3], -1)
    rounded = np.empty((by_segment.shape[3], *values.shape[:3]), np.uint8)
    for index, segment in np.ndindex(len(by_segment), len(rounded)):
        plane = by_segment[index, :, :, segment]
        low, high = plane.min(), plane.max()
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # of NaN neither holds
            raise ValueError(f"gave segments that hold {high if low >= -_ROUNDING else low:g}, not values from 0 to 1")
        rounded[segment, index] = np.rint(plane * np.float32(FRACTION_MAX))
    return np.moveaxis(rounded, 0, -1).reshape(values.shape)


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
