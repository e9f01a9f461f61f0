"""Which representation a client gets of those that a resource has (PS3.18 8.7): what it accepts is read and compared, and nothing is served.

What of an Accept header cannot be read is accepted by nobody; a client that says nothing, though it should (PS3.18 8.4.1.1), gets the default.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.domain import is_uid

ANY = "*"  # of a transfer syntax: as the object is stored (PS3.18 8.7.3.5.2)

_MOST = 64  # alternatives that are looked at
_MULTIPART = "multipart/related"
_NAME = re.compile(r"[!#$&^_.+a-z0-9-]{1,64}/[!#$&^_.+a-z0-9-]{1,64}|\*/\*|[a-z0-9-]{1,64}/\*")
_QUALITY = re.compile(r"[01]|[01]?\.[0-9]{1,9}|[01]\.")
_MEMBER = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')  # a comma within quotes divides nothing
_PARAMETER = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaType:
    """A media type: of the whole payload, or of each part of multipart/related."""

    name: str  # type/subtype, in small letters
    multipart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """One alternative of what a client accepts (RFC 9110 12.5.1)."""

    name: str  # as of `MediaType`, or with * for what is not said
    multipart: bool | None = None  # None: either
    transfer_syntax_uid: str = ""  # empty: not said; or `ANY`
    quality: float = 1.0

    @property
    def width(self) -> int:
        """How little it says: 0 for a media type, more for those with *."""
        return self.name.count("*")

    def means(self, offer: MediaType) -> bool:
        """Say whether it is an alternative for a representation."""
        major, _, minor = self.name.partition("/")
        same = self.name in ("*/*", offer.name) or (minor == "*" and offer.name.startswith(f"{major}/"))
        return same and self.multipart in (None, offer.multipart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A representation that the client accepts, and the transfer syntax that it wants it in: empty for the default, `ANY` for any."""

    media_type: MediaType
    transfer_syntax_uid: str = ""


def negotiate(header: str | None, query: str | None, offers: Sequence[MediaType]) -> MediaType | None:
    """Return the best of what is offered, its default first; None when nothing of it is acceptable (406).

    header: of all Accept headers, joined by commas. query: the parameter `accept`, which takes its place (PS3.18 8.3.3.1).
    """
    return next((one.media_type for one in choices(header, query, offers)), None)


def choices(header: str | None, query: str | None, offers: Sequence[MediaType]) -> tuple[Choice, ...]:
    """Return every representation that is acceptable, the best first, as of `negotiate`; one may come in several transfer syntaxes."""
    accepted = ranges(header if query is None else query.replace(" ", "+") if "+" not in query else query)
    found = []
    for place, offer in enumerate(offers):
        meaning = [(order, one) for order, one in enumerate(accepted) if one.means(offer)]
        narrowest = min((one.width for _, one in meaning), default=0)  # what names it says how good it is (RFC 9110 12.5.1)
        found += [(-one.quality, order, place, offer, one) for order, one in meaning if one.width == narrowest and one.quality > 0]
    found.sort(key=lambda one: one[:3])
    return tuple(dict.fromkeys(Choice(media_type=offer, transfer_syntax_uid=one.transfer_syntax_uid) for *_, offer, one in found))


def ranges(text: str | None) -> tuple[Range, ...]:
    """Read what a client accepts; everything, where it does not say."""
    if text is None or not text.strip():
        return (Range(name="*/*"),)
    members = _MEMBER.findall(text)[:_MOST]
    return tuple(one for one in map(_range, members) if one is not None)


def _range(member: str) -> Range | None:
    """Read one alternative; None for what cannot be read."""
    name, *rest = (part.strip() for part in _PARAMETER.findall(member))
    said = {key.strip().lower(): _unquoted(value.strip()) for key, is_said, value in (one.partition("=") for one in rest) if is_said}
    name, syntax, quality = name.lower(), said.get("transfer-syntax", ""), said.get("q", "1")
    multipart: bool | None = False
    if name in (_MULTIPART, "multipart/*"):
        name, multipart = said.get("type", "*/*").lower() or "*/*", True
    elif name == "*/*":
        multipart = None
    if not _NAME.fullmatch(name) or not _QUALITY.fullmatch(quality) or (syntax not in ("", ANY) and not is_uid(syntax)):
        return None
    return Range(name=name, multipart=multipart, transfer_syntax_uid=syntax, quality=min(float(quality), 1.0))


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
