"""How a message is acknowledged: original mode, MSA with AA, AE or AR, and what is wrong in ERR (HL7 v2.5.1 2.9.2, 2.14)."""

from hashlib import sha256

from dicom_node.domain import Unacceptable
from dicom_node.wire.hl7 import UTF_8, VERSION, Part, begun, escaped, joined, moment, segment, written

_TEXT = 250  # characters
_CONDITIONS = {  # HL7 table 0357
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    207: "Application internal error",
}
_OLD = ("2.1", "2.2", "2.3", "2.3.1", "2.4")  # their ERR has one field, and MSA says in words what is wrong


def acknowledgment(head: Part, problem: Unacceptable | None, application: str, now: float) -> bytes:
    """Return the answer to a message. application: who answers. It has of the message who sent it, its event and its control ID, and no more."""
    control_id, version = head.value(10)[:199], head.value(12)
    answered = {5: head.again(3), 6: head.again(4), 7: moment(now), 9: joined("ACK", head.value(9, 2)[:3], "ACK")}
    answered |= {3: escaped(application), 4: escaped(application), 12: version if version[:2] == "2." and len(version) <= 5 else VERSION}
    answered |= {
        10: sha256(f"{head.again(3)}\n{head.again(4)}\n{control_id}\n{now!r}".encode()).hexdigest()[:20],
        11: escaped(head.value(11)[:3]) or "P",
    }
    named = (answered[5], answered[6], control_id, answered[12], answered[11])
    made = begun("ACK", answered | ({} if all(map(str.isascii, named)) else {18: UTF_8}))
    old = version in _OLD
    words = escaped(str(problem)[:_TEXT]) if problem else ""
    made.add(segment("MSA", {1: problem.code if problem else "AA", 2: escaped(control_id), 3: words if old else ""}))
    if problem:
        made.add(segment("ERR", _old_error(problem) if old else _error(problem, words)))
    return written(made)


def _error(problem: Unacceptable, words: str) -> dict[int, str]:
    name, _, number = problem.field.partition("-")
    return {2: joined(name, "1", number), 3: joined(str(problem.condition), _CONDITIONS[problem.condition], "HL70357"), 4: "E", 8: words}


def _old_error(problem: Unacceptable) -> dict[int, str]:
    name, _, number = problem.field.partition("-")
    return {1: f"{joined(name, '1', number or '0')}^{problem.condition}&{_CONDITIONS[problem.condition]}&HL70357"}
