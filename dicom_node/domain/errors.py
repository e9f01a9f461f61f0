"""The tree of errors, divided by what somebody does about them; it is drawn in the room's docstring."""

import errno

from dicom_node.domain.states import Cause


class NodeError(Exception):
    """Something went wrong that somebody can act on; `hint` is the next thing to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(NodeError):
    """Raised while configuration is read: the place, the value and the rule it breaks are in the message."""


class Refused(NodeError):
    """Raised when a peer's request cannot be granted; `status` is the DIMSE status it is answered with (PS3.7 Annex C)."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Unsuitable(NodeError):
    """Raised by an analysis, or while its input is prepared, when the input does not suit; the message is shown to a person."""

    def __init__(self, message: str, *, hint: str = "", cause: Cause = Cause.TYPES) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class Transient(NodeError):
    """Raised when the same attempt may succeed later."""


class PeerUnavailable(Transient):
    """Raised when a remote application entity cannot be reached or does not answer in time."""


class Canceled(NodeError):
    """Raised in the course of a job when a person asked for it to stop."""


class Rejected(NodeError):
    """Raised when the same attempt would fail again: a person must look."""


class Unacceptable(Rejected):
    """Raised when a message of another system is not taken as it is.

    code: how it is acknowledged, AE for its content, AR for what it is (HL7 table 0008); condition: what is wrong (table 0357); field: where.
    """

    def __init__(self, message: str, *, field: str, condition: int, code: str = "AE", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field
        self.condition = condition
        self.code = code


class ModelFailed(NodeError):
    """Raised when a model's process raised, hung, overran its memory or died."""

    def __init__(self, message: str, *, hint: str = "", cause: Cause = Cause.EQUIPMENT) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


def fault(error: BaseException) -> str:
    """Return what to tell of an error: its sentence if it is one of this tree; else its kind and place, for its text may quote a header."""
    if isinstance(error, NodeError):
        return str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "an unknown place"
    return f"unexpected {type(error).__name__} at {place}; this is a fault of the program"


_RAN_OUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


def cause_of(error: BaseException) -> Cause:
    """Return what was in the way of a job that ends with an error; `Rejected` there means that images of its input are gone."""
    match error:
        case Unsuitable() | ModelFailed():
            return error.cause
        case Rejected():
            return Cause.INCOMPLETE
        case Transient() | MemoryError():  # no process, no room on the disk
            return Cause.RESOURCE
        case OSError(errno=number) if number in _RAN_OUT:
            return Cause.RESOURCE
    return Cause.EQUIPMENT
