"""What is done with a message: it is read, each of its orders is handed on, and the acknowledgment says what came of it."""

from collections.abc import Callable

import structlog

from dicom_node.domain import Asked, NodeError, Transient, Unacceptable, fault
from dicom_node.wire.hl7 import FAILED, NotHl7, Part, head_of, parts_of
from dicom_node.worklist.hl7.answers import acknowledgment
from dicom_node.worklist.hl7.orders import SEGMENTS, asked_in, check

# Does what is asked and returns the UID of what came of it, such as a workitem; the same for the same order, however often it is asked.
# Raises Unacceptable, Refused or Rejected where it cannot be done, Transient where it can be tried again.
Request = Callable[[Asked], str]

_log = structlog.get_logger()


def answer(data: bytes, request: Request, application: str, now: float) -> bytes | None:
    """Return the answer to a message; None for what has no head that could be answered."""
    try:
        head = head_of(data)
    except NotHl7 as error:
        _log.warning("hl7.not_hl7", why=str(error), size_bytes=len(data))
        return None
    problem = _problem(data, head, request)
    if problem is not None:
        _log.warning("hl7.refused", code=problem.code, field=problem.field, condition=problem.condition, why=str(problem), hint=problem.hint)
    return acknowledgment(head, problem, application, now)


def _problem(data: bytes, head: Part, request: Request) -> Unacceptable | None:
    """Do what a message asks; return what keeps it from being done."""
    try:
        check(head)
        for one in asked_in(head, parts_of(data, head, SEGMENTS)):
            made = request(one)
            _log.info("hl7.taken", message=one.message_type, act=one.act, order=one.key, study=one.study_instance_uid, made=made)
    except Unacceptable as error:
        return error
    except Transient as error:
        return Unacceptable(f"{error}; send it again later", field="ORC", condition=FAILED, code="AR", hint=error.hint)
    except NodeError as error:
        return Unacceptable(str(error), field="ORC", condition=FAILED, hint=error.hint)
    except Exception as error:  # the outermost frame of a message: whatever a peer sends is answered
        _log.error("hl7.failed", why=fault(error))
        return Unacceptable("the message could not be processed", field="MSH", condition=FAILED, code="AR")
    return None
