"""The words and numbers that we add to an object, in characters that the study's character set can hold."""

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from highdicom.sr import CodedConcept
from pydantic import BaseModel
from pydicom import Dataset

from dicom_node.config import Code, Manifest

_SPELLED = str.maketrans(
    {
        "\N{MICRO SIGN}": "u",
        "\N{GREEK SMALL LETTER MU}": "u",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{MIDDLE DOT}": ".",
        "\N{DEGREE SIGN}": " deg",
        "\N{PLUS-MINUS SIGN}": "+/-",
        "\N{LATIN SMALL LETTER SHARP S}": "ss",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    }
)


@dataclass(frozen=True, slots=True)
class Words:
    """Puts our texts into the study's character set, which an object copies from its source and which therefore is not ours to choose.

    In UTF-8 a text stays as it is; in anything else it is spelled in ASCII, which every character set of PS3.3 C.12.1.1.2 contains.
    """

    unicode: bool

    @classmethod
    def of(cls, source: Dataset) -> "Words":
        """Choose by the Specific Character Set of a source image."""
        return cls(source.get("SpecificCharacterSet") == "ISO_IR 192")

    def say(self, text: str, limit: int | None = None) -> str:
        """Return a text without control characters and backslashes (PS3.5 §6.1.3), at most `limit` characters long."""
        text = unicodedata.normalize("NFC", text)
        if not self.unicode:
            folded = unicodedata.normalize("NFKD", text.translate(_SPELLED))
            text = "".join(c if c.isascii() else "?" for c in folded if not unicodedata.combining(c))
        text = " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in text.replace("\\", "/")).split())
        return text if limit is None or len(text) <= limit else text[: limit - 3].rstrip() + "..."

    def concept(self, code: Code) -> CodedConcept:
        """Return a coded term as an item of a code sequence (PS3.3 §8.8)."""
        return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=self.say(code.meaning, 64))


def rounded(value: float, digits: int) -> float:
    """Return a number rounded to so many decimals, half to even on its decimal spelling, never minus zero."""
    quantum = Decimal(1).scaleb(-digits)
    return float(Decimal(repr(float(value))).quantize(quantum, ROUND_HALF_EVEN)) + 0.0 if abs(value) < 1e15 else float(value)


def spelled(value: float, digits: int) -> str:
    """Return a number as a person reads it: with as many decimals as it was rounded to."""
    return f"{rounded(value, digits):.{digits}f}" if math.isfinite(value) else "not a number"


def private_schemes(manifest: Manifest, words: Words) -> list[Dataset]:
    """Return the declarations (0008,0110) of the local coding schemes that a model uses (PS3.3 C.12.1, PS3.16 §8)."""
    declared = []
    for designator in sorted({code.scheme for code in _codes(manifest) if code.private}):
        item = Dataset()
        item.CodingSchemeDesignator = designator
        item.CodingSchemeName = f"Local terms of {manifest.name}"
        item.CodingSchemeVersion = words.say(manifest.version, 16)
        item.CodingSchemeResponsibleOrganization = words.say(manifest.manufacturer)
        declared.append(item)
    return declared


def _codes(part: Any) -> Iterable[Code]:
    if isinstance(part, Code):
        yield part
    elif isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from _codes(getattr(part, name))
    elif isinstance(part, dict):
        for value in part.values():
            yield from _codes(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _codes(value)
