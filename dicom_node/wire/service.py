"""What a room answers on the associations that the node accepts: `receive` owns the port, and is given the services of the others as values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association

_COMMENT_CHARACTERS = 64  # of Error Comment (0000,0902)
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2")  # explicit, implicit, explicit big endian


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Presentation contexts that are accepted, and what is done with the messages on them.

    roles: whether the requestor's (SCU, SCP) role selection is agreed to (PS3.7 D.3.3.4); none: it is not answered.
    prepare: called with each accepted association before it starts, for what no pynetdicom event tells of.
    """

    abstract_syntaxes: tuple[str, ...]
    handlers: tuple[tuple[evt.InterventionEvent | evt.NotificationEvent, Callable[..., Any]], ...] = ()
    transfer_syntaxes: tuple[str, ...] = UNCOMPRESSED
    roles: tuple[bool, bool] | None = None
    prepare: Callable[[Association], None] | None = None


def status_of(status: int, comment: str = "") -> Dataset:
    """Return what a request is answered with: its status, and, where there is something to say, an Error Comment (PS3.7 Annex C)."""
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment.replace("\\", "/")[:_COMMENT_CHARACTERS]
    return answer
