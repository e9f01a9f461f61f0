"""What to propose for the C-STORE sub-operations of a retrieval, how each is encoded, and how they add up; no I/O (PS3.4 C.4.2)."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydicom.uid import UID

from dicom_node.coding.transcode import PLAIN, SOURCES
from dicom_node.wire import Context

MAX_CONTEXTS = 128  # of one association: odd identifiers from 1 to 255 (PS3.8 9.3.2.2)
SUCCESS, PENDING, CANCELLED, SOME_FAILED, NONE_DONE = 0x0000, 0xFF00, 0xFE00, 0xB000, 0xA702  # PS3.4 Tables C.4-2 and C.4-3

_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})  # PS3.7 Annex C; and B000 to BFFF


class Held(Protocol):
    """An instance that the node holds."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102 - the attribute's own name says it
    @property
    def sop_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def transfer_syntax_uid(self) -> str: ...  # noqa: D102
    @property
    def study_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one sub-operation."""

    of: Held
    status: int | None  # of the C-STORE response; none: there was none
    why: str = ""  # it failed

    @property
    def warns(self) -> bool:
        """Whether it was stored with a warning."""
        return self.status is not None and (self.status in _WARNINGS or self.status >> 12 == 0xB)


@dataclass(slots=True)
class Tally:
    """How the sub-operations of one retrieval stand."""

    remaining: int
    completed: int = 0
    warning: int = 0
    failed: list[Outcome] = field(default_factory=list)

    def count(self, one: Outcome) -> None:
        """Count a sub-operation that has ended."""
        self.remaining -= 1
        if one.status == SUCCESS:
            self.completed += 1
        elif one.warns:
            self.warning += 1
        else:
            self.failed.append(one)

    def counters(self, *, pending: bool) -> tuple[int | None, ...]:
        """Return remaining, completed, failed and warning; the first only while some remain to be done (PS3.7 9.1.4.1.7)."""
        return (self.remaining if pending else None, self.completed, len(self.failed), self.warning)

    def final(self) -> int:
        """Return the status of the last response."""
        if self.failed and not self.completed and not self.warning:
            return NONE_DONE
        return SOME_FAILED if self.failed or self.warning else SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Instances that fit into one association, and the presentation contexts to propose for them."""

    instances: tuple[Held, ...]
    contexts: tuple[Context, ...]


def contexts(one: Held) -> tuple[Context, ...]:
    """Return the contexts proposed for an instance: its own transfer syntax first, then the uncompressed ones unless some of it was lost."""
    others = PLAIN if one.transfer_syntax_uid in SOURCES else ()
    return tuple((one.sop_class_uid, syntax) for syntax in dict.fromkeys((one.transfer_syntax_uid, *others)))


def shares(instances: Sequence[Held], most: int = MAX_CONTEXTS) -> Iterator[Share]:
    """Part instances, in their order, so that none needs more presentation contexts than one association may propose (PS3.8 9.3.2.2)."""
    members: list[Held] = []
    proposed: dict[Context, None] = {}
    for one in instances:
        more = dict.fromkeys(contexts(one))
        if members and len(proposed | more) > most:
            yield Share(instances=tuple(members), contexts=tuple(proposed))
            members, proposed = [], {}
        members.append(one)
        proposed |= more
    if members:
        yield Share(instances=tuple(members), contexts=tuple(proposed))


def choose(one: Held, accepted: Collection[Context]) -> str | None:
    """Return the transfer syntax to send an instance in: its own if the peer accepted that, else one that changes no value of it."""
    return next((syntax for sop_class, syntax in contexts(one) if (sop_class, syntax) in accepted), None)


def not_accepted(one: Held) -> str:
    """Return the sentence for a peer that accepted no presentation context of an instance."""
    tried = " nor in ".join(UID(syntax).name for _, syntax in contexts(one))
    lossy = "" if one.transfer_syntax_uid in SOURCES else "; what is not known to be without loss is sent as it is or not at all"
    return f"{UID(one.sop_class_uid).name} was not accepted in {tried}{lossy}"
