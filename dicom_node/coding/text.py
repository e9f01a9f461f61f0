"""Text as data sets hold it, in whatever character sets (PS3.3 C.12.1.1.2); decoding never fails, a wrong declaration costs signs, not the text."""

import re
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_FRAGMENT = re.compile(rb"[^\x1b]+|\x1b[^\x1b]*")
_PYTHON_STRIPS_ESCAPE = frozenset({"iso2022_jp", "iso2022_jp_2"})


def cleaned(text: str) -> str:
    """Return a value without its padding and without control characters."""
    text = text.rstrip("\0 ")  # the padding of nearly every value
    return (text if text.isprintable() else _CONTROL.sub(" ", text.replace("\0", ""))).strip()


@lru_cache(64)
def charsets_of(raw: bytes) -> tuple[str, ...]:
    """Return the codec of each value of Specific Character Set; an empty text for what is undeclared or unknown (PS3.3 C.12.1.1.2)."""
    terms = [cleaned(term).upper() for term in raw.decode("latin-1").split("\\")]
    terms = [re.sub(r"^ISO.?2022.?IR.?(\d+)$", r"ISO 2022 IR \1", re.sub(r"^ISO.?IR.?(\d+)$", r"ISO_IR \1", term)) for term in terms]
    terms = [{"UTF-8": "ISO_IR 192", "UTF8": "ISO_IR 192"}.get(term, term) for term in terms]
    return tuple("" if term in ("", "ISO_IR 6", "ISO 2022 IR 6") else python_encoding.get(term, "") for term in terms)


def decoded(raw: bytes, charsets: tuple[str, ...]) -> str:
    """Return a text, by the codecs of `charsets_of`; several values are still together."""
    first = charsets[0] if charsets else ""
    if b"\x1b" not in raw:
        return _plain(raw, first)
    return "".join(_escaped(part, first) if part[0] == 0x1B else _plain(part, first) for part in _FRAGMENT.findall(raw))


def _plain(raw: bytes, encoding: str) -> str:
    """Decode without code extensions; where no character set was declared, UTF-8 if it is that, else Latin-1."""
    try:
        return raw.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        return raw.decode(encoding or "latin-1", errors="replace")


def _escaped(part: bytes, first: str) -> str:
    """Decode what follows an escape sequence (PS3.5 §6.1.2.5), whether or not the character set announced it."""
    size = 4 if part[:3] in (b"\x1b$(", b"\x1b$)") else 3
    encoding = CODES_TO_ENCODINGS.get(part[:size], first)
    return part.decode(encoding, errors="replace") if encoding in _PYTHON_STRIPS_ESCAPE else _plain(part[size:], encoding)
