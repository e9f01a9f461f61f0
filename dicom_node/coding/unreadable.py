"""What reading bytes that are not what they claim to be raises."""

import struct
import zlib

from pydicom.errors import BytesLengthException, InvalidDicomError

# In pydicom, its decoders and here.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
