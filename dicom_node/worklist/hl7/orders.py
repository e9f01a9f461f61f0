"""What a message orders: OMI^O23 and ORM^O01, as IHE Scheduled Workflow has them (RAD TF-2 4.4, 4.13), decided without a socket or the clock.

Each ORC with its OBR is an order. In OMI^O23 the study stands in IPC, in ORM^O01 in ZDS, an IHE segment, once for all of its orders.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dicom_node.domain import Asked, OrderAct, Priority, Unacceptable, is_uid
from dicom_node.wire.hl7 import (
    MISSING,
    NOT_IN_TABLE,
    UNKNOWN_EVENT,
    UNKNOWN_PROCESSING,
    UNKNOWN_TYPE,
    UNKNOWN_VERSION,
    WRONG_SEQUENCE,
    WRONG_VALUE,
    Part,
)

SEGMENTS = frozenset({"PID", "ORC", "TQ1", "OBR", "IPC", "ZDS"})  # that are read
_VERSIONS = frozenset({"2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2"})
_EVENTS = {"OMI": "O23", "ORM": "O01"}
_ACTS = {  # HL7 table 0119
    **dict.fromkeys(("NW",), OrderAct.NEW),
    **dict.fromkeys(("XO", "XX"), OrderAct.CHANGE),
    **dict.fromkeys(("CA", "OC", "DC", "OD"), OrderAct.CANCEL),
    **dict.fromkeys(("SC",), OrderAct.STATUS),
}
_PRIORITIES = {  # HL7 table 0485, and how it is written out; without one an order is routine
    **dict.fromkeys(("S", "STAT", "A", "ASAP"), Priority.HIGH),
    **dict.fromkeys(("R", "ROUTINE", ""), Priority.MEDIUM),
}
_MOST_ORDERS = 50
_ID, _TEXT, _REASON = 16, 64, 1024  # characters; DICOM's SH and LO
_PATIENT_TYPES = ("MR", "PI", "PT")  # HL7 table 0203: numbers by which a department knows a patient


@dataclass(slots=True)
class _Group:
    """The segments of one order."""

    orc: Part
    obr: Part | None = None
    timing: Part | None = None
    procedures: list[Part] = field(default_factory=list)  # IPC
    studies: list[Part] = field(default_factory=list)  # ZDS


def check(head: Part) -> None:
    """See that a message is one that is taken.

    Raises
    ------
    Unacceptable: its type, version or purpose is another, or it has no control ID.
    """
    kind, event, version, purpose = head.value(9), head.value(9, 2), head.value(12), head.value(11)
    if kind not in _EVENTS:
        raise Unacceptable("only OMI^O23 and ORM^O01 are taken", field="MSH-9", condition=UNKNOWN_TYPE, code="AR")
    if event != _EVENTS[kind]:
        raise Unacceptable(f"of {kind} only {kind}^{_EVENTS[kind]} is taken", field="MSH-9", condition=UNKNOWN_EVENT, code="AR")
    if version not in _VERSIONS:
        raise Unacceptable("this version of HL7 is not taken: 2.3 to 2.8 are", field="MSH-12", condition=UNKNOWN_VERSION, code="AR")
    if purpose not in ("P", ""):
        raise Unacceptable("only production messages (P) are taken", field="MSH-11", condition=UNKNOWN_PROCESSING, code="AR")
    control_id = head.value(10)
    if not control_id or len(control_id) > 199:
        raise Unacceptable("a message has a control ID of at most 199 characters", field="MSH-10", condition=MISSING)


def asked_in(head: Part, parts: Iterable[Part]) -> tuple[Asked, ...]:
    """Return what a message orders; orders that are one for the node, such as several steps of one procedure, are one.

    Raises
    ------
    Unacceptable: what an order must say is missing or wrong.
    """
    patients, groups = _grouped(parts)
    patient_id, issuer = _patient(patients)
    studies = [study for group in groups for study in group.studies]
    found: dict[str, Asked] = {}
    for group in groups:
        one = _asked(head, group, group.studies or studies, patient_id, issuer)
        if found.setdefault(one.key, one) != one:
            raise Unacceptable(
                "two orders of the message have one number and service, and say different things", field="ORC-2", condition=WRONG_VALUE
            )
    return tuple(found.values())


def _grouped(parts: Iterable[Part]) -> tuple[list[Part], list[_Group]]:
    patients: list[Part] = []
    groups: list[_Group] = []
    for part in parts:
        if part.name == "PID":
            patients.append(part)
        elif part.name == "ORC":
            groups.append(_Group(part))
        elif not groups:
            raise Unacceptable("it stands before the ORC to which it belongs", field=part.name, condition=WRONG_SEQUENCE)
        else:
            _put(groups[-1], part)
        if len(groups) > _MOST_ORDERS:
            raise Unacceptable(f"a message has at most {_MOST_ORDERS} orders", field="ORC", condition=WRONG_SEQUENCE)
    if not groups:
        raise Unacceptable("the message orders nothing", field="ORC", condition=WRONG_SEQUENCE)
    return patients, groups


def _put(group: _Group, part: Part) -> None:
    if part.name == "OBR":
        if group.obr is not None:
            raise Unacceptable("each OBR has an ORC of its own", field="OBR", condition=WRONG_SEQUENCE)
        group.obr = part
    elif part.name == "TQ1":
        group.timing = group.timing or part
    else:
        (group.procedures if part.name == "IPC" else group.studies).append(part)


def _patient(patients: Sequence[Part]) -> tuple[str, str]:
    """Return Patient ID and its issuer: of several the medical record number, else the first (PID-3)."""
    named = [_number(part) for part in patients]
    if not named or not named[0][0]:
        raise Unacceptable("the patient has no ID", field="PID-3", condition=MISSING)
    if len(set(named)) > 1:
        raise Unacceptable("the message is about more than one patient", field="PID", condition=WRONG_SEQUENCE)
    return named[0]


def _number(part: Part) -> tuple[str, str]:
    given = [number for number in range(min(part.repeats(3), 20)) if part.value(3, repetition=number)]
    chosen = next((number for number in given if part.value(3, 5, repetition=number) in _PATIENT_TYPES), given[0] if given else 0)
    issuer = part.value(3, 4, repetition=chosen) or part.value(3, 4, 2, repetition=chosen)
    return _fits(part.value(3, repetition=chosen), "PID-3", _TEXT), _fits(issuer, "PID-3", _TEXT)


# Longer than others, for it names each field of an order once.
def _asked(head: Part, group: _Group, studies: Sequence[Part], patient_id: str, issuer: str) -> Asked:
    orc, obr = group.orc, group.obr
    if obr is None:
        raise Unacceptable("an order has an OBR", field="OBR", condition=WRONG_SEQUENCE)
    control = orc.value(1)
    if control not in _ACTS:
        raise Unacceptable("this order control is not known here", field="ORC-1", condition=NOT_IN_TABLE)
    placer, filler = (_fits(orc.value(n) or obr.value(n), f"ORC-{n}", _TEXT) for n in (2, 3))
    if not placer and not filler:
        raise Unacceptable("an order has a placer or a filler order number", field="ORC-2", condition=MISSING)
    accession = _one([*(ipc.value(1) for ipc in group.procedures)], "IPC-1") or obr.value(18)
    study = _study(group.procedures, studies)
    if not study and not accession:
        raise Unacceptable("an order names its study: by IPC-3, by ZDS-1, or by an accession number", field="IPC-3", condition=MISSING)
    return Asked(
        control_id=head.value(10),
        message_type=f"{head.value(9)}^{head.value(9, 2)}",
        application=head.value(3) or head.value(3, 2),
        facility=head.value(4) or head.value(4, 2),
        act=_ACTS[control],
        order_control=control,
        order_status=_fits(orc.value(5), "ORC-5", _ID),
        placer_order_number=placer,
        filler_order_number=filler,
        accession_number=_fits(accession, "IPC-1" if group.procedures else "OBR-18", _ID),
        requested_procedure_id=_fits(_one([ipc.value(2) for ipc in group.procedures], "IPC-2") or obr.value(19), "IPC-2", _ID),
        study_instance_uid=study,
        patient_id=patient_id,
        issuer_of_patient_id=issuer,
        service=_service(obr),
        priority=_priority(group.timing, orc, obr),
        reason=_reason(obr),
    )


def _study(procedures: Sequence[Part], studies: Sequence[Part]) -> str:
    """Return the Study Instance UID; the first component is the UID in both segments (EI, RP)."""
    uid = _one([*(ipc.value(3) for ipc in procedures), *(zds.value(1) for zds in studies)], "IPC-3" if procedures else "ZDS-1")
    if uid and not is_uid(uid):
        raise Unacceptable("Study Instance UID is no UID", field="IPC-3" if procedures else "ZDS-1", condition=WRONG_VALUE)
    return uid


def _service(obr: Part) -> tuple[str, str, str]:
    """Return what is ordered: value, scheme, meaning; of the alternate code where there is no other."""
    first = 1 if obr.value(4) else 4
    value, meaning, scheme = (obr.value(4, first + n) for n in range(3))
    if not value:
        raise Unacceptable("an order says by a code what is to be done", field="OBR-4", condition=MISSING)
    return _fits(value, "OBR-4", _TEXT), _fits(scheme, "OBR-4", _ID), meaning.replace("\\", "/")[:_TEXT]


def _priority(timing: Part | None, orc: Part, obr: Part) -> Priority:
    """Return how urgent it is, by the first field that says so: TQ1-9, and before HL7 2.5 ORC-7, OBR-27 and OBR-5."""
    said = (timing.value(9) if timing else "", orc.value(7, 6), obr.value(27, 6), obr.value(5))
    return _PRIORITIES.get(next(filter(None, said), "").upper(), Priority.LOW)


def _reason(obr: Part) -> str:
    given = [obr.value(31, 2, repetition=number) or obr.value(31, repetition=number) for number in range(min(obr.repeats(31), 20))]
    return "; ".join(filter(None, given)).replace("\\", "/")[:_REASON]


def _one(values: Sequence[str], where: str) -> str:
    """Return the value that several segments say alike; empty where none says one."""
    said = set(filter(None, values))
    if len(said) > 1:
        raise Unacceptable("the segments of an order say different things", field=where, condition=WRONG_VALUE)
    return said.pop() if said else ""


def _fits(value: str, where: str, longest: int) -> str:
    """Return a value that fits into DICOM: half a number is none."""
    if len(value) > longest or "\\" in value:
        raise Unacceptable(f"the value does not fit into DICOM: at most {longest} characters, no backslash", field=where, condition=WRONG_VALUE)
    return value
