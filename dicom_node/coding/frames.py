"""Which of pydicom's plug-ins decodes a transfer syntax, which ones lose nothing, and whether a coded frame is as large as its header says."""

import struct

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

# Transfer syntax -> pydicom's plug-ins for it, best first; none of them is under the GPL.
PLUGINS: dict[str, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow", "gdcm"),
    JPEGExtended12Bit: ("pillow", "gdcm"),
    JPEGLossless: ("gdcm",),
    JPEGLosslessSV1: ("gdcm",),
    JPEGLSLossless: ("pyjpegls", "gdcm"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    JPEG2000: ("pylibjpeg", "gdcm"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    RLELossless: ("pylibjpeg", "pydicom"),
}

# Those whose frames, decoded, are what was coded. Of JPEG 2000 and HTJ2K the general ones are not: what is in them may have lost something.
LOSSLESS = frozenset(
    map(str, (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL, RLELossless)),
)

_END_OF_IMAGE = b"\xff\xd9"
_RLE_EXPANDS = 64  # at most: two bytes become 128 (PS3.5 G.3.1)


def fits(coded: bytes, transfer_syntax_uid: str, rows: int, columns: int, pixel_bytes: int) -> None:
    """Refuse a frame whose own idea of its size differs from the header's: a decoder would set memory aside for it.

    Raises
    ------
    ValueError, LookupError, struct.error: it does.
    """
    if transfer_syntax_uid == RLELossless:
        if len(coded) * _RLE_EXPANDS < rows * columns * pixel_bytes:
            raise ValueError("too few bytes")
        return
    if _coded_size(coded) != (rows, columns):
        raise ValueError("coded in another size than the header says")
    # CharLS reads on past the end of a JPEG-LS stream that lacks its end marker, through whatever memory follows.
    if transfer_syntax_uid in (JPEGLSLossless, JPEGLSNearLossless) and not coded.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise ValueError("cut short")


def _coded_size(coded: bytes) -> tuple[int, int]:
    """Return (rows, columns) from a JPEG or JPEG-LS frame header (ISO 10918-1 B.2.2) or a JPEG 2000 SIZ segment (ISO 15444-1 A.5.1)."""
    siz = coded.find(b"\xff\x4f\xff\x51", 0, 1024)
    if siz >= 0:
        columns, rows, left, top = struct.unpack_from(">4I", coded, siz + 8)
        return rows - top, columns - left
    at = 2
    while coded[at] == 0xFF:
        marker, length = coded[at + 1], struct.unpack_from(">H", coded, at + 2)[0]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", coded, at + 5)
            return rows, columns
        at += 2 + length
    raise ValueError("no frame header")
