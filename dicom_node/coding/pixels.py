"""The coded frames of one image, decoded into the values that were coded, as its header describes them (PS3.3 C.7.6.3)."""

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.uid import UID, RLELossless

from dicom_node.coding.decoders import DECODERS, Coded
from dicom_node.coding.frames import PLUGINS, fits
from dicom_node.domain import Unsuitable

OFFSETS, LENGTHS = 0x7FE00001, 0x7FE00002  # of coded frames (PS3.3 C.7.6.3.1.8)
PHOTOMETRIC, PLANAR, FRAMES = 0x00280004, 0x00280006, 0x00280008
SAMPLES, ROWS, COLUMNS, ALLOCATED, STORED, SIGNED = 0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103
KEPT = frozenset({PHOTOMETRIC, PLANAR, FRAMES, SAMPLES, ROWS, COLUMNS, ALLOCATED, STORED, SIGNED})  # what decoding asks of a header
UNREADABLE = (EOFError, LookupError, OverflowError, RuntimeError, TypeError, ValueError, struct.error, zlib.error)  # what reading nonsense raises

_MOST_BYTES = 0xFFFFFFFE  # of a value
_FRAME_BYTES = 1 << 30  # of one decoded frame at most
_CODED_MOST, _CODED_BESIDES_BYTES = 8, 1 << 20  # bytes of a sample, and of what is beside them, that a coded frame has at most
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_RCT", "YBR_ICT"})

Kept = dict[int, bytes]  # values of the data set at hand, little endian, and of those around it
Take = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Coded frames, and what their header says of them."""

    transfer_syntax_uid: str
    number: int
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    signed: int
    photometric: str
    by_plane: bool
    offsets: tuple[bytes, bytes] | None

    @classmethod
    def of(cls, kept: Mapping[int, bytes], transfer_syntax_uid: str) -> "Frames":
        """Return what a header says, if that is something that can be decoded.

        Raises
        ------
        ValueError: it is not.
        """
        rows, columns, samples, allocated, stored = (_number(kept, tag) for tag in (ROWS, COLUMNS, SAMPLES, ALLOCATED, STORED))
        count, photometric = kept.get(FRAMES, b"").strip(b" \0") or b"1", kept.get(PHOTOMETRIC, b"").strip(b" \0").decode("ascii")
        number = int(count) if count.isdigit() else 0
        if allocated not in (8, 16, 32) or not 0 < stored <= allocated or samples not in (1, 3) or min(rows, columns, number) < 1:
            raise ValueError("pixels of a kind that is not decoded here")
        if samples == 3 and photometric not in _COLOURS:
            raise ValueError("pixels in a colour space that is not decoded here")
        offsets = kept.get(OFFSETS, b""), kept.get(LENGTHS, b"")
        made = cls(
            transfer_syntax_uid=transfer_syntax_uid,
            number=number,
            rows=rows,
            columns=columns,
            samples=samples,
            allocated=allocated,
            stored=stored,
            signed=any(kept.get(SIGNED, b"")),
            photometric=photometric,
            by_plane=samples > 1 and any(kept.get(PLANAR, b"")),
            offsets=offsets if all(offsets) else None,
        )
        if made.frame_bytes > _FRAME_BYTES or number * made.frame_bytes >= _MOST_BYTES:
            raise ValueError("more pixels than one element takes without compression")
        return made

    @property
    def frame_bytes(self) -> int:
        """Of a decoded frame."""
        return self.rows * self.columns * self.samples * self.allocated // 8

    def write(self, file: BinaryIO, size_bytes: int, out: int, at: int) -> None:
        """Decode the fragments that a file is at, and write frame after frame to a descriptor from a position on.

        Raises
        ------
        Unsuitable, ValueError: they cannot be decoded, or are not as many as the header says.
        """
        written: set[int] = set()

        def put(index: int, data: memoryview) -> None:
            done = 0
            while done < len(data):
                done += os.pwrite(out, data[done:], at + index * self.frame_bytes + done)
            written.add(index)

        self._decode(generate_frames(file, number_of_frames=self.number, extended_offsets=self.offsets), self.number, size_bytes, put)
        if len(written) != self.number:
            raise ValueError(f"{self.number - len(written)} of its frames are missing")

    def values(self, coded: Sequence[bytes]) -> list[bytes]:
        """Return some frames decoded.

        Raises
        ------
        Unsuitable: one of them cannot be.
        """
        found: dict[int, bytes] = {}
        self._decode(coded, len(coded), max(map(len, coded), default=0), lambda index, data: found.__setitem__(index, bytes(data)))
        return [found[index] for index in range(len(coded))]

    def _decode(self, coded: Iterable[bytes], count: int, size_bytes: int, put: Callable[[int, memoryview], None]) -> None:
        coded_bytes = min(size_bytes, _CODED_MOST * self.rows * self.columns * self.samples + _CODED_BESIDES_BYTES)
        room_bytes = max(self.frame_bytes, self.rows * self.columns * self.samples * 4)
        DECODERS.decode(self._each(coded, count, put), count=count, frame_bytes=room_bytes, coded_bytes=coded_bytes)

    def _each(self, coded: Iterable[bytes], count: int, put: Callable[[int, memoryview], None]) -> Iterator[Coded]:
        refused = Unsuitable(f"its pixels cannot be decoded ({UID(self.transfer_syntax_uid).name})")
        try:
            for index, data in enumerate(coded):
                if index >= count:
                    raise ValueError("more frames than its header says")
                fits(data, self.transfer_syntax_uid, self.rows, self.columns, self.allocated // 8)
                yield Coded(
                    data=data,
                    rows=self.rows,
                    columns=self.columns,
                    samples=self.samples,
                    transfer_syntax_uid=self.transfer_syntax_uid,
                    plugins=PLUGINS[self.transfer_syntax_uid],
                    options=self._options(),
                    refused=refused,
                    take=partial(self._take, partial(put, index), refused),
                )
        except UNREADABLE as error:
            raise refused from error

    def _take(self, put: Take, refused: Unsuitable, stored: np.ndarray[Any, Any]) -> None:
        """Hand on the values of a frame."""
        if stored.dtype.itemsize * 8 > self.allocated:
            raise refused
        values = stored.transpose(2, 0, 1) if self.by_plane else stored
        put(np.ascontiguousarray(values, f"<{'i' if self.signed else 'u'}{self.allocated // 8}").data.cast("B"))

    def _options(self) -> dict[str, Any]:
        """Return what pydicom's decoders ask of a header, for one frame; the values are wanted as they were coded, in their own colour space."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "number_of_frames": 1,
            "samples_per_pixel": self.samples,
            "bits_allocated": self.allocated,
            "bits_stored": self.stored,
            "pixel_representation": int(self.signed),
            "photometric_interpretation": self.photometric,
            "pixel_keyword": "PixelData",
            "raw": True,
            "correct_unused_bits": False,
            **({} if self.samples == 1 else {"planar_configuration": int(self.transfer_syntax_uid == RLELossless)}),
        }


def _number(kept: Mapping[int, bytes], tag: int) -> int:
    value = kept.get(tag, b"")
    if len(value) != 2:
        raise ValueError("an image without a description of its pixels")
    return int.from_bytes(value, "little")
