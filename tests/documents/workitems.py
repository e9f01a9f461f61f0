"""What the conformance statement says of workitems, asked of the tables that the node itself goes by."""

from pydicom.uid import UID

from dicom_node.worklist.ups import service
from dicom_node.worklist.ups.states import TABLE, Effect, Outcome, Wish
from tests.documents.text import table

_DOES = {
    Effect.CREATE: "created",
    Effect.CLAIM: "claimed",
    Effect.COMPLETE: "completed, if [what that requires](worklists.md#workitems-over-dimse) is there, else C304",
    Effect.CANCEL: "canceled, if what that requires is there, else C304",
    Effect.CANCEL_UNCLAIMED: "IN PROGRESS, then CANCELED; both are reported",
    Effect.TELL_PERFORMER: "its performer is told, and decides",
}
_ASKED = {
    Wish.CREATE: "N-CREATE",
    Wish.CLAIM: "state IN PROGRESS",
    Wish.UNDO: "state SCHEDULED",
    Wish.COMPLETE: "state COMPLETED",
    Wish.CANCEL: "state CANCELED",
    Wish.ASK_TO_CANCEL: "request cancel",
}
_UNKEYED = (Wish.CREATE, Wish.ASK_TO_CANCEL)


def states() -> str:
    """What becomes of each request in each state."""
    rows = []
    for (wish, is_right), cells in TABLE.items():
        key = "" if wish in _UNKEYED else "right" if is_right else "absent or wrong"
        rows.append((_ASKED[wish], key, *(_cell(one) for one in cells.values())))
    return table(("request", "Transaction UID", "no such step", "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"), rows)


def _cell(one: Outcome) -> str:
    return f"{one.status:04X}: {_DOES[one.effect]}" if one.effect in _DOES else f"{one.status:04X}"


def services() -> str:
    """Which class has which service."""
    actions = {
        service.CHANGE_STATE: "1, change state",
        service.REQUEST_CANCEL: "2, request cancel",
        service.SUBSCRIBE: "3, subscribe",
        service.UNSUBSCRIBE: "4, unsubscribe",
        service.SUSPEND: "5, suspend",
    }
    rows = []
    for uid in (service.PUSH, service.WATCH, service.PULL, service.QUERY):
        named = [name for name, classes in (("N-CREATE", service.CREATES), ("N-GET", service.GETS), ("N-SET", service.SETS)) if uid in classes]
        acted = [said for number, said in actions.items() if uid in service.ACTIONS[number]]
        named += [f"N-ACTION {', '.join(acted)}"] if acted else []
        named += ["C-FIND"] if uid in service.FINDS else []
        rows.append((UID(uid).name, f"`{uid}`", "; ".join(named)))
    return table(("SOP class", "UID", "services as SCP"), rows)
