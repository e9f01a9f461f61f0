"""What to propose, what an answer means, when to try again: decided here, without a socket, a file or the clock."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.domain import Delivery, Result
from dicom_node.wire import Context

MAX_CONTEXTS = 128  # of one association: odd identifiers from 1 to 255 (PS3.8 9.3.2.2)
PROBE_AT_LEAST_EVERY_S = 300.0  # an unreachable destination is tried so often: the results of a morning are not to wait for a day's back-off
_MAX_DOUBLINGS = 64
_JITTER = 0.25

_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # which pydicom 3.0 knows no name of

# ---------------------------------------------------------------------------------------------------------------- when


def backoff_s(attempt: int, first_s: float, max_s: float, key: object = "") -> float:
    """Return how long to wait after the attempt of this number, from 1: doubling up to `max_s`, less a part that the key chooses.

    The part is up to a quarter, and the same for the same key and attempt: a herd of deliveries spreads, and a test can foretell it.
    """
    whole = min(max_s, first_s * 2.0 ** min(max(attempt - 1, 0), _MAX_DOUBLINGS))
    chosen = int.from_bytes(sha256(f"{key} {attempt}".encode()).digest()[:4]) / 2**32
    return whole * (1.0 - _JITTER * chosen)


# ------------------------------------------------------------------------------------------------------ what to propose


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Deliveries that fit into one association, and the presentation contexts to propose for them."""

    deliveries: tuple[Delivery, ...]
    contexts: tuple[Context, ...]


def contexts(result: Result, *, deflate: bool = False) -> tuple[Context, ...]:
    """Return the presentation contexts proposed for a result: one for its own transfer syntax, one for Implicit VR Little Endian.

    Every uncompressed object is offered in the default transfer syntax too (PS3.5 10.1), in a context of its own, so that the peer can accept
    both and our bytes go out as they lie on disk.

    deflate: whether the peer is to get it deflated (PS3.5 A.5) if it can; this is offered first.
    """
    syntaxes = [result.transfer_syntax_uid]
    if _convertible(result):
        syntaxes = [*([str(DeflatedExplicitVRLittleEndian)] if deflate else []), *syntaxes, str(ImplicitVRLittleEndian)]
    return tuple((result.sop_class_uid, syntax) for syntax in dict.fromkeys(syntaxes))


def shares(deliveries: Sequence[Delivery], most: int = MAX_CONTEXTS, *, deflate: bool = False) -> Iterator[Share]:
    """Part deliveries, in their order, so that none needs more presentation contexts than one association may propose (PS3.8 9.3.2.2)."""
    members: list[Delivery] = []
    proposed: dict[Context, None] = {}
    for one in deliveries:
        more = dict.fromkeys(contexts(one.result, deflate=deflate))
        if members and len(proposed | more) > most:
            yield Share(deliveries=tuple(members), contexts=tuple(proposed))
            members, proposed = [], {}
        members.append(one)
        proposed |= more
    if members:
        yield Share(deliveries=tuple(members), contexts=tuple(proposed))


def choose(result: Result, accepted: Iterable[Context]) -> str | None:
    """Return the transfer syntax to send a result in: deflated if the peer was offered that and accepted it, else its own, else the default one."""
    taken = set(accepted)
    return next((syntax for sop_class, syntax in contexts(result, deflate=True) if (sop_class, syntax) in taken), None)


def not_accepted(destination: str, result: Result, refused: Mapping[Context, int]) -> str:
    """Return the sentence for a peer that accepted no presentation context of a result.

    refused: proposed context -> its result by PS3.8 Table 9-18, in which 4 is a transfer syntax that the peer cannot read.
    """
    name = class_name(result.sop_class_uid)
    proposed = [context for context in contexts(result, deflate=True) if context in refused]
    if any(refused.get(context) == 4 for context in proposed):
        tried = " nor in ".join(UID(syntax).name for _, syntax in proposed)
        return f"{destination} accepts {name}, but not in {tried}; ask its administrator to allow one of them, or deliver to another"
    return f"{destination} did not accept {name}: it cannot store this kind of object; ask its administrator to allow it, or deliver to another"


def class_name(sop_class_uid: str) -> str:
    """Return the name of a SOP class as PS3.6 has it."""
    return "Label Map Segmentation Storage" if sop_class_uid == _LABEL_MAP else UID(sop_class_uid).name


def _convertible(result: Result) -> bool:
    return result.transfer_syntax_uid in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


# ------------------------------------------------------------------------------------------------- what an answer means


class Verdict(StrEnum):
    """What becomes of a delivery by the status of its C-STORE response."""

    SENT = "sent"
    SENT_WITH_WARNING = "sent-with-warning"  # the destination has it, and said something that is kept
    LATER = "later"  # the same object may be taken another time
    DEAD = "dead"  # the same object would be refused again: a person must look


# PS3.7 Annex C and PS3.4 Table B.2-1. Where the first byte decides, the table has it with two zeros.
_MEANINGS: Mapping[int, tuple[str, Verdict]] = {
    0x0000: ("success", Verdict.SENT),
    0x0001: ("requested optional attributes are not supported", Verdict.SENT_WITH_WARNING),
    0x0105: ("no such attribute", Verdict.DEAD),
    0x0106: ("invalid attribute value", Verdict.DEAD),
    0x0107: ("attribute list error", Verdict.SENT_WITH_WARNING),
    0x0110: ("processing failure", Verdict.LATER),
    0x0111: ("duplicate SOP instance: it has this object already", Verdict.SENT_WITH_WARNING),  # UIDs are derived: the same UID is the same object
    0x0112: ("no such SOP instance", Verdict.DEAD),
    0x0115: ("invalid argument value", Verdict.DEAD),
    0x0116: ("attribute value out of range", Verdict.SENT_WITH_WARNING),
    0x0117: ("invalid SOP instance", Verdict.DEAD),
    0x0118: ("no such SOP class", Verdict.DEAD),
    0x0119: ("class and instance conflict", Verdict.DEAD),
    0x0120: ("missing attribute", Verdict.DEAD),
    0x0121: ("missing attribute value", Verdict.DEAD),
    0x0122: ("SOP class not supported", Verdict.DEAD),
    0x0124: ("not authorised", Verdict.DEAD),
    0x0211: ("unrecognised operation", Verdict.DEAD),
    0x0212: ("mistyped argument", Verdict.DEAD),
    0x0213: ("resource limitation", Verdict.LATER),
    0xA700: ("out of resources", Verdict.LATER),
    0xA800: ("SOP class not supported", Verdict.DEAD),
    0xA900: ("data set does not match SOP class", Verdict.DEAD),
    0xB000: ("coercion of data elements", Verdict.SENT_WITH_WARNING),
    0xB006: ("elements discarded", Verdict.SENT_WITH_WARNING),
    0xB007: ("data set does not match SOP class", Verdict.SENT_WITH_WARNING),
}
_MEANING_OF_FAMILY: Mapping[int, tuple[str, Verdict]] = {
    0xB: ("warning", Verdict.SENT_WITH_WARNING),
    0xC: ("cannot understand", Verdict.DEAD),
}
_UNKNOWN = ("a status that PS3.4 does not give C-STORE", Verdict.LATER)  # it counts, so that it ends


def verdict(status: int) -> Verdict:
    """Return what becomes of a delivery by the status of its C-STORE response (PS3.4 Table B.2-1, PS3.7 9.1.1.1.9 and Annex C)."""
    return _meaning(status)[1]


def answer(destination: str, status: int, comment: str = "") -> str:
    """Return the sentence that is kept of a response: the status, what it means, and the peer's own Error Comment (0000,0902)."""
    said = printable(comment)
    return f"{destination} answered {status:04X} ({_meaning(status)[0]})" + (f': "{said}"' if said else "")


def printable(comment: str) -> str:
    """Return a peer's comment as one line of at most 64 printable characters (an LO, PS3.5 6.2)."""
    return "".join(character if character.isprintable() else " " for character in comment).strip()[:64]


def _meaning(status: int) -> tuple[str, Verdict]:
    family = status & 0xFF00 if status >> 12 == 0xA else status
    return _MEANINGS.get(status) or _MEANINGS.get(family) or _MEANING_OF_FAMILY.get(status >> 12, _UNKNOWN)
