"""What a room answers on the associations that the node accepts: `receive` owns the port, and is given the services of the others as values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association

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
