"""A finding as an HL7 v2 result: ORU^R01, preliminary, with the words that it was made by an algorithm (HL7 v2.5.1 7.3.1).

It goes to the one system that the site names, which knows the patient: it is the one message that must name whose result it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from dicom_node.domain import Message, Order, Rejected, Term
from dicom_node.wire.hl7 import UTF_8, NotHl7, begun, escaped, head_of, joined, moment, parts_of, segment, written

_REPORT = ("126000", "DCM", "Imaging Measurement Report")  # what it is, where the order does not say what was asked for
_STUDY = ("110180", "DCM", "Study Instance UID")
_FINDING = ("121071", "DCM", "Finding")
_COMMENT = ("121106", "DCM", "Comment")
UNVERIFIED = "UNVERIFIED: made by an algorithm, for research use; not for diagnosis"
_TAKEN = frozenset({"AA", "CA"})
_PRELIMINARY, _ABNORMAL = "P", "A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """What is said of the patient and the study of a result; it is read when it is sent, and kept nowhere."""

    header: Mapping[str, Any]
    order: Order | None = None
    is_test: bool = False


def result(one: Message, whose: Whose, *, node: str, application: str, facility: str, now: float) -> bytes:
    """Return the message. application, facility: who gets it. The same message has the same control ID at every attempt."""
    facts, at = one.facts, float(one.facts.get("at") or now)
    head = {3: escaped(node), 4: escaped(node), 5: escaped(application), 6: escaped(facility), 7: moment(now), 9: "ORU^R01^ORU_R01"}
    made = begun("ORU_R01", head | {10: control_id(one), 11: "T" if whose.is_test else "P", 18: UTF_8})
    of_patient = made.add_group("ORU_R01_PATIENT_RESULT")
    of_patient.add_group("ORU_R01_PATIENT").add(segment("PID", _patient(whose.header)))
    of_order = of_patient.add_group("ORU_R01_ORDER_OBSERVATION")
    requested = _request(whose, at)
    of_order.add(segment("ORC", {1: "RE", 2: requested[2], 3: requested[3]}))
    of_order.add(segment("OBR", requested))
    for number, fields in enumerate(_observations(facts, requested[7], at), 1):
        of_order.add_group("ORU_R01_OBSERVATION").add(segment("OBX", {1: str(number), **fields}))
    return written(made)


def control_id(one: Message) -> str:
    """Return how the other side knows what it was told: MSH-10, at most 20 characters."""
    return one.key[:20]


def refusal(answered: bytes, one: Message) -> str:
    """Say why an answer does not take a message; "" when it does.

    Raises
    ------
    Rejected: what came is no answer to it.
    """
    try:
        msa = next(parts_of(answered, head_of(answered), {"MSA"}), None)
    except (NotHl7, Rejected) as error:
        raise Rejected("what was answered is no acknowledgment", hint="Look at the other side's log.") from error
    if msa is None or msa.value(2) != control_id(one):
        raise Rejected("what was answered is no acknowledgment of this message", hint="Look at the other side's log.")
    code = msa.value(1)
    return "" if code in _TAKEN else f"answered {code[:2] if code.isalpha() else 'no code'}"


def _patient(header: Mapping[str, Any]) -> dict[int, str]:
    """Return PID: who it is, by what the images say."""
    said = {key: _text(header.get(key)) for key in ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")}
    family, given, middle, prefix, suffix = (said["PatientName"].partition("=")[0].split("^") + [""] * 5)[:5]
    fields = {1: "1", 3: joined(said["PatientID"], "", "", said["IssuerOfPatientID"]), 5: joined(family, given, middle, suffix, prefix)}
    return fields | {7: escaped(said["PatientBirthDate"]), 8: escaped(said["PatientSex"])}


def _request(whose: Whose, at: float) -> dict[int, str]:
    """Return OBR: of which order the result is; without an order it is known by the accession number."""
    order = whose.order
    accession = (order.accession_number if order else "") or _text(whose.header.get("AccessionNumber"))
    code = order.requested_procedure_code if order and order.requested_procedure_code else _REPORT
    fields = {1: "1", 2: escaped(order.placer_order_number) if order else "", 3: escaped((order.filler_order_number if order else "") or accession)}
    fields |= {
        4: _coded(code),
        7: _taken_at(whose.header) or moment(at),
        18: escaped(accession),
        19: escaped(order.requested_procedure_id) if order else "",
    }
    return fields | {22: moment(at), 25: _PRELIMINARY}


def _taken_at(header: Mapping[str, Any]) -> str:
    """Return when the study was taken, as far as it says so."""
    day, clock = _text(header.get("StudyDate")), _text(header.get("StudyTime")).partition(".")[0]
    return (day + (clock if re.fullmatch(r"(\d\d){2,3}", clock) else "")) if re.fullmatch(r"\d{8}", day) else ""


def _observations(facts: Mapping[str, Any], taken_at: str, at: float) -> list[dict[int, str]]:
    """Return OBX: what it is, whose study, what was found in words, and each finding coded."""
    uid, says = str(facts.get("study_instance_uid") or ""), str(facts.get("says") or "")
    found = [{2: "TX", 3: _coded(_COMMENT), 5: escaped(UNVERIFIED)}]
    found += [{2: "ST", 3: _coded(_STUDY), 5: escaped(uid)}] if uid else []
    found += [{2: "TX", 3: _coded(_FINDING), 4: "0", 5: escaped(says), 8: _ABNORMAL}]
    found += [_finding(one, number) for number, one in enumerate(facts.get("findings") or (), 1)]
    method = joined("", str(facts.get("model") or ""))
    return [{**one, 11: _PRELIMINARY, 14: taken_at, 17: method, 19: moment(at)} for one in found]


def _finding(one: Mapping[str, Any], number: int) -> dict[int, str]:
    concept, other = (_term(one.get(key)) for key in ("code", "of"))
    fields = {3: _coded(concept), 4: str(number), 8: _ABNORMAL}  # the site wants to be told of it
    if one.get("value") is not None:
        return fields | {2: "NM", 5: format(Decimal(repr(float(one["value"]))), "f"), 6: _coded(other)}
    return fields | {2: "CWE", 5: _coded(other)}


def _coded(term: Term) -> str:
    value, scheme, meaning = term
    return joined(value, meaning, scheme)


def _term(given: Sequence[str] | None) -> Term:
    value, scheme, meaning = given or ("", "", "")
    return value, scheme, meaning


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
