"""Brings the steps that this node performs for another manager to their end there, each from its row in the ledger.

A row is written before its step is claimed, with the Transaction UID that the claim is made with, and again after a crash: so a step is neither
claimed twice nor forgotten. All that is told is told again until the manager has answered, and telling it twice does no harm (PS3.4 CC.2.6). What
a refusal means is decided by how the step stands at the manager, not by how it was worded.
"""

from collections.abc import Callable

import structlog
from pydicom import Dataset

from dicom_node.config import NodeConfig
from dicom_node.domain import JobState, Rejected, Workitem
from dicom_node.store import Change, Store
from dicom_node.worklist.ups.accounting import awaited, canceled, completed, progress
from dicom_node.worklist.ups.asking import Answer, ForeignManager, Verdict
from dicom_node.worklist.ups.attributes import dataset_of
from dicom_node.worklist.ups.manager import Manager
from dicom_node.worklist.ups.ours import destinations, receivers
from dicom_node.worklist.ups.reasons import UNSPECIFIED
from dicom_node.worklist.waits import later_s

PROGRESS_EVERY_S = 10.0  # at most so often a manager is told how far one step is
STORED_WITHIN_S = 3600.0  # after a job's end, or after the step came to a job that had ended: then it is completed, with what is stored by then

_ENDED = (JobState.COMPLETED, JobState.CANCELED)
_log = structlog.get_logger()


class Mirror:
    """The rows of one manager's steps."""

    def __init__(self, name: str, config: NodeConfig, ours: Manager, store: Store, theirs: ForeignManager, clock: Callable[[], float]) -> None:
        """Join them; ours: this node's own manager, for how it names itself and gives up."""
        self._name = name
        self._config = config
        self._ours = ours
        self._store = store
        self._theirs = theirs
        self._clock = clock
        self._told: dict[str, tuple[str, float]] = {}  # of a step: what was told of its progress last, and when
        self._waits: dict[str, tuple[int, float]] = {}  # of a step: refusals in a row, and until when it is left alone

    def items(self) -> tuple[Workitem, ...]:
        """Return the steps that have not been brought to their end."""
        items = tuple(item for item, _ in self._store.workitems.mirrored() if item.manager == self._name)
        uids = {item.uid for item in items}
        for kept in (self._told, self._waits):
            for uid in kept.keys() - uids:
                del kept[uid]
        return items

    def tell(self, item: Workitem) -> None:
        """Do for one step what is to be done next, if anything.

        Raises
        ------
        PeerUnavailable: the manager does not answer.
        """
        now, job = self._clock(), item.job
        if self._waits.get(item.uid, (0, 0.0))[1] > now:
            return
        if job is None and item.state is JobState.SCHEDULED:
            self.claim(item)
        elif item.state is JobState.CANCELED:
            self._end(item, JobState.CANCELED, canceled(item, self._ours.station, now))
        elif item.state is not JobState.COMPLETED:
            self._tell_progress(item, now)
        elif job is not None and not (now < max(job.ended_at or now, item.changed_at) + STORED_WITHIN_S and self._is_awaited(item)):
            titles = {name: remote.ae.title for name, remote in self._config.remotes.items()}
            made = self._store.workitems.whereabouts(item.uid)
            self._end(item, JobState.COMPLETED, completed(item, job, self._ours.station, made, titles))

    def claim(self, item: Workitem) -> None:
        """Claim a step with the Transaction UID that its row holds.

        Raises
        ------
        PeerUnavailable: no answer came; it is claimed again, with the same Transaction UID.
        """
        answer = self._theirs.change_state(item.uid, item.transaction_uid, JobState.IN_PROGRESS)
        if answer.verdict is Verdict.DONE or self._is_claimed_by_us(item, answer):
            self._claimed(item)

    def check(self, item: Workitem) -> None:
        """Look whether a claimed step is still in progress at its manager, and stop where it is not.

        Raises
        ------
        PeerUnavailable: the manager does not answer.
        """
        if item.state in _ENDED or (item.job is None and item.state is JobState.SCHEDULED):
            return
        state = self._state_there(item.uid)
        if state is not JobState.IN_PROGRESS and state is not JobState.SCHEDULED:
            self._over(item, state)

    def stop(self, uid: str, why: str) -> None:
        """Stop performing a step, because its manager asks for it or has ended it; a job that others want too goes on for them."""
        found = self._store.workitems.get(uid)
        if found is None or found.manager != self._name:
            return

        def decide(item: Workitem) -> Change:
            if item.has_ended or (item.job is None and not item.is_claimed):
                return Change()
            return self._ours.stops(item, UNSPECIFIED, why, self._name)

        try:
            self._store.workitems.change(uid, decide, now=self._clock())
            _log.info("tasks.stopped", of=self._name, workitem=uid)
        except Rejected:  # the job has just ended: that is what its manager is told
            return

    # ------------------------------------------------------------------------------------------------------------ one claim

    def _is_claimed_by_us(self, item: Workitem, answer: Answer) -> bool:
        """Say whether a claim that was not answered with success holds: it was made before, and the answer was lost."""
        state = self._state_there(item.uid)
        if state is None or state in _ENDED:
            self._settle(item, f"it was {state.lower() if state else 'removed'} at {self._name} before it was claimed")
            return False
        if state is JobState.SCHEDULED:
            self._refused(item, "a claim", answer)
            return False
        proof = self._theirs.update(item.uid, item.transaction_uid, progress(item, self._ours.station))
        if proof.verdict is Verdict.DONE:
            return True
        if proof.verdict is Verdict.REFUSED:
            self._refused(item, "a claim", proof)
        else:
            self._settle(item, "another performer has claimed it")
        return False

    def _claimed(self, item: Workitem) -> None:
        def decide(row: Workitem) -> Change:
            if row.job is not None or row.state is not JobState.SCHEDULED or row.ended_at is not None:
                return Change()
            title = self._config.node.ae_title
            return Change(state=JobState.IN_PROGRESS, performer=title, who=self._name, why=f"it was claimed at {self._name}")

        self._store.workitems.change(item.uid, decide, now=self._clock())
        self._waits.pop(item.uid, None)
        _log.info("tasks.claimed", of=self._name, workitem=item.uid, study=item.study_instance_uid)

    # ---------------------------------------------------------------------------------------------------------- what is told

    def _tell_progress(self, item: Workitem, now: float) -> None:
        said = progress(item, self._ours.station)
        text, (before, at) = said.to_json(), self._told.get(item.uid, ("", float("-inf")))
        if text == before or now < at + PROGRESS_EVERY_S:
            return
        answer = self._theirs.update(item.uid, item.transaction_uid, said)
        if answer.verdict is Verdict.DONE:
            self._told[item.uid] = text, now
            self._waits.pop(item.uid, None)
        else:
            self._resolve(item, None, answer)

    def _is_awaited(self, item: Workitem) -> bool:
        known = receivers(self._config)  # of now: one that was taken away since the claim gets nothing any more
        wanted = [known[title] for title in destinations(dataset_of(item.attributes)) or () if title in known]
        return awaited(self._store.workitems.whereabouts(item.uid), wanted)

    def _end(self, item: Workitem, to: JobState, said: Dataset) -> None:
        answer = self._theirs.update(item.uid, item.transaction_uid, said)
        if answer.verdict is Verdict.DONE:
            answer = self._theirs.change_state(item.uid, item.transaction_uid, to)
        if answer.verdict is Verdict.DONE:
            self._settle(item, "")
        else:
            self._resolve(item, to, answer)

    def _resolve(self, item: Workitem, to: JobState | None, answer: Answer) -> None:
        """Find out what a refusal means: the step has ended there, in the state that was to be told or in another, or it is asked again later."""
        state = self._state_there(item.uid)
        if to is not None and state is to:
            self._settle(item, "")  # it was told before, and the answer was lost
        elif answer.verdict is Verdict.NOT_OURS or state is not JobState.IN_PROGRESS:
            self._over(item, state)
        else:
            self._refused(item, "what it was told", answer)

    def _over(self, item: Workitem, state: JobState | None) -> None:
        """Stop, and ask no more: the step is somebody else's, or has ended, at its manager."""
        how = f"was {state.lower()}" if state in _ENDED and state else "is another performer's" if state else "is no longer there"
        why = f"the step {how} at {self._name}"
        self.stop(item.uid, why)
        self._settle(item, why)

    def _refused(self, item: Workitem, what: str, answer: Answer) -> None:
        times = self._waits.get(item.uid, (0, 0.0))[0] + 1
        self._waits[item.uid] = times, self._clock() + later_s(times, self._config.deliver)
        _log.warning("tasks.refused", of=self._name, workitem=item.uid, what=what, answer=answer.said, attempt=times)
        if times >= self._config.deliver.attempts:
            self.stop(item.uid, f"{self._name} refused {what}")
            self._settle(item, f"{self._name} answered {what} with {answer.said}; it was tried {times} times")

    def _settle(self, item: Workitem, reason: str) -> None:
        self._store.workitems.settle(item.uid, now=self._clock(), reason=reason)
        _log.info("tasks.settled", of=self._name, workitem=item.uid, state=item.state, why=reason)

    def _state_there(self, uid: str) -> JobState | None:
        said = self._theirs.get(uid)
        named = str(said.get("ProcedureStepState") or "") if said is not None else ""
        return JobState(named) if named in tuple(JobState) else None
