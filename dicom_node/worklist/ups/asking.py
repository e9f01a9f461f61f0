"""What this node asks of another Task Manager, whatever the transport; and over DIMSE (PS3.4 CC.2, as SCU).

An answer is one of few verdicts: what each transport says is brought to them here, so that nobody else asks how it was said.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from pydicom import Dataset
from pynetdicom import _config
from pynetdicom.association import Association

from dicom_node.config import NodeConfig, Remote
from dicom_node.domain import GLOBAL_SUBSCRIPTION, JobState, PeerUnavailable, Readiness, Rejected, is_uid
from dicom_node.guard import credentials
from dicom_node.wire import UNCOMPRESSED, peer
from dicom_node.worklist.ups.attributes import SOP_CLASS as PUSH
from dicom_node.worklist.ups.service import CHANGE_STATE, PULL, SUBSCRIBE, WATCH
from dicom_node.worklist.ups.suiting import Coded

ANSWERS_MAX = 2_000  # of one search: the rest is found by the next one
# What is asked of each step by a search, beside what must match; all of a step is asked for by itself.
RETURNED = (
    *("SOPClassUID", "SOPInstanceUID", "ScheduledProcedureStepPriority", "ScheduledProcedureStepStartDateTime"),
    "ScheduledProcedureStepModificationDateTime",
)


class Verdict(Enum):
    """What a manager's answer comes to."""

    DONE = "done"  # or it was so already
    NOT_OURS = "not ours"  # the Transaction UID is not the one of the claim
    GONE = "gone"  # it knows no such step
    REFUSED = "refused"  # for another reason: how the step stands has to be looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A verdict, and what the manager said, which names nobody."""

    verdict: Verdict
    said: str = ""


class ForeignManager(Protocol):
    """Another Task Manager. It is reached when it is first asked, until `close`.

    Every method but `close` and `cut` raises PeerUnavailable where no answer comes.
    """

    @property
    def listens(self) -> bool:
        """Whether what it reports still comes here, once it was subscribed to."""

    def search(self, codes: Iterable[Coded]) -> tuple[Dataset, ...]:
        """Return the steps that wait with their inputs ready, for any of these workitem codes, as far as the manager compares that."""

    def get(self, uid: str) -> Dataset | None:
        """Return a step; None where there is none."""

    def update(self, uid: str, transaction_uid: str, said: Dataset) -> Answer:
        """Change what a claimed step says."""

    def change_state(self, uid: str, transaction_uid: str, to: JobState) -> Answer:
        """Claim a step, complete it, or cancel it."""

    def subscribe(self) -> None:
        """Have all events reported to this node.

        Raises
        ------
        Rejected: it does not do that.
        """

    def close(self) -> None:
        """End the connection, if there is one."""

    def cut(self) -> None:
        """End it from another thread, so that whoever waits for an answer stops waiting; and hear no more."""


_VERDICTS: Mapping[int, Verdict] = {
    **dict.fromkeys((0x0000, 0x0001, 0xB301, 0xB304, 0xB305, 0xB306), Verdict.DONE),
    0xC301: Verdict.NOT_OURS,
    0xC307: Verdict.GONE,
    0x0112: Verdict.GONE,
}
_CANCELED, _PENDING = 0xFE00, (0xFF00, 0xFF01)


class DimseManager:
    """One that is asked over DIMSE: UPS Pull, and UPS Watch for the subscription."""

    listens = True  # it associates for each report

    def __init__(self, name: str, config: NodeConfig) -> None:
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # they name patients
        self._name = name
        self._config = config
        self._association: Association | None = None
        self._message_id = 0

    @property
    def _remote(self) -> Remote:
        return self._config.remotes[self._name]

    def search(self, codes: Iterable[Coded]) -> tuple[Dataset, ...]:
        """Ask once for each code: no key says "one of these" of a code."""
        found: dict[str, Dataset] = {}
        for value, scheme in codes:
            for one in self._find(keys(value, scheme)):
                found.setdefault(str(one.get("SOPInstanceUID") or ""), one)
        return tuple(one for uid, one in found.items() if is_uid(uid))

    def get(self, uid: str) -> Dataset | None:
        """Ask for all that the step says (N-GET)."""
        status, said = self._say("send_n_get", [], PUSH, uid, meta_uid=PULL)
        if _VERDICTS.get(status) is Verdict.GONE:
            return None
        if said is None:
            raise PeerUnavailable(f"{self._name} answered {status:04X} when it was asked for a step", hint="Look at its own log.")
        return readable(said, self._name, is_encoded=True)

    def update(self, uid: str, transaction_uid: str, said: Dataset) -> Answer:
        """Ask for it by N-SET."""
        changed = Dataset()
        changed.update(said)
        changed.TransactionUID = transaction_uid
        return _answer(self._say("send_n_set", changed, PUSH, uid, meta_uid=PULL)[0])

    def change_state(self, uid: str, transaction_uid: str, to: JobState) -> Answer:
        """Ask for it by N-ACTION."""
        said = Dataset()
        said.ProcedureStepState, said.TransactionUID = to.value, transaction_uid
        return _answer(self._say("send_n_action", said, CHANGE_STATE, PUSH, uid, meta_uid=PULL)[0])

    def subscribe(self) -> None:
        """Ask for all events, without a lock."""
        if WATCH not in self._accepted():
            raise Rejected(f"{self._name} does not accept UPS Watch", hint='Have it allowed there for this node, or set tasks = "pull".')
        said = Dataset()
        said.ReceivingAE, said.DeletionLock = self._config.node.ae_title, "FALSE"
        status, _ = self._say("send_n_action", said, SUBSCRIBE, PUSH, GLOBAL_SUBSCRIPTION, meta_uid=WATCH)
        if _VERDICTS.get(status) is not Verdict.DONE:
            hint = "C308: it does not know this node as a receiver. Look at its own log."
            raise Rejected(f"{self._name} answered a subscription with {status:04X}", hint=hint)

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None:
            peer.close(association)

    def cut(self) -> None:
        """Cut it."""
        association = self._association
        if association is not None:
            peer.cut(association)

    # ------------------------------------------------------------------------------------------------------- the association

    def _associated(self) -> Association:
        if self._association is not None and self._association.is_established:
            return self._association
        self.close()
        node, remote = self._config.node, self._remote
        association = peer.associate(
            remote.ae,
            node.ae_title,
            [(sop_class, syntax) for sop_class in (PULL, WATCH) for syntax in UNCOMPRESSED[:2]],
            timeout_s=remote.timeout_s,
            max_pdu_bytes=node.max_pdu_bytes,
            fast=False,
            credentials=credentials(node, remote),
        )
        self._association, self._message_id = association, 0
        if PULL not in self._accepted():
            self.close()
            hint = 'Have it allowed there for this node, or set tasks = "none".'
            raise PeerUnavailable(f"{self._name} does not accept UPS Pull", hint=hint)
        return association

    def _accepted(self) -> set[str]:
        association = self._association or self._associated()
        return {str(context.abstract_syntax) for context in association.accepted_contexts}

    def _say(self, method: str, *what: Any, meta_uid: str) -> tuple[int, Dataset | None]:
        """Ask, and return the status with the data set of the answer.

        Raises
        ------
        PeerUnavailable: there is none.
        """
        association = self._associated()
        self._message_id = self._message_id % 65535 + 1
        try:
            status, said = getattr(association, method)(*what, msg_id=self._message_id, meta_uid=meta_uid)
        except RuntimeError:  # the peer has ended the association
            status, said = Dataset(), None
        if "Status" not in status:
            raise PeerUnavailable(f"{self._name} did not answer", hint="Look at its own log.")
        return int(status.Status), said

    def _find(self, identifier: Dataset) -> Iterator[Dataset]:
        """Yield the answers to one question; all must have come within the remote's time-out.

        Raises
        ------
        PeerUnavailable: they have not, or it refuses.
        """
        association = self._associated()
        self._message_id = number = self._message_id % 65535 + 1
        until, final, answers = time.monotonic() + self._remote.timeout_s, None, 0
        for final, answer in _responses(association, identifier, number):
            answers += answer is not None
            if time.monotonic() > until:
                peer.cut(association)
                raise PeerUnavailable(f"{self._name} did not finish its answer in time", hint="Look at its own log.")
            if answers == ANSWERS_MAX:
                with contextlib.suppress(RuntimeError):  # the peer has ended the association, which the next response tells
                    association.send_c_cancel(number, query_model=PULL)
            if answer is not None and final in _PENDING and answers <= ANSWERS_MAX:
                yield readable(answer, self._name, is_encoded=True)
        if final not in (0x0000, _CANCELED):
            what = "did not answer" if final is None else f"answered {final:04X}"
            raise PeerUnavailable(f"{self._name} {what} when it was asked for its worklist", hint="Look at its own log.")


def keys(value: str, scheme: str) -> Dataset:
    """Return the keys of a search for steps that wait, their inputs ready, with this workitem code (IHE AIW-I 4.81.4.1.2)."""
    said = Dataset()
    for keyword in RETURNED:
        setattr(said, keyword, "")
    said.ProcedureStepState, said.InputReadinessState = JobState.SCHEDULED.value, Readiness.READY.value
    wanted = Dataset()
    wanted.CodeValue, wanted.CodingSchemeDesignator = value, scheme
    said.ScheduledWorkitemCodeSequence = [wanted]
    said.ScheduledStationNameCodeSequence = []
    return said


def readable(said: Dataset, name: str, *, is_encoded: bool = False) -> Dataset:
    """Return a data set every value of which can be read; is_encoded: its texts are still bytes, as DIMSE carries them.

    Raises
    ------
    PeerUnavailable: it cannot: the manager has to be looked at.
    """
    try:
        if is_encoded:
            said.decode()
        for element in said.iterall():
            _ = element.value
    except Exception as error:  # whatever pydicom raises on bytes that anybody may send: they are no data set
        raise PeerUnavailable(f"{name} answered with what cannot be read", hint="Its maker has to look.") from error
    return said


def _answer(status: int) -> Answer:
    return Answer(verdict=_VERDICTS.get(status, Verdict.REFUSED), said=f"{status:04X}")


def _responses(association: Association, identifier: Dataset, number: int) -> Iterator[tuple[int | None, Dataset | None]]:
    """Give the status and the data set of each response to a C-FIND; the status is None where the association ended."""
    try:
        for status, answer in association.send_c_find(identifier, PULL, msg_id=number):
            yield (int(status.Status) if "Status" in status else None), answer
    except RuntimeError:  # the peer has ended the association
        yield None, None
