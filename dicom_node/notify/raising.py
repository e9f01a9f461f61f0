"""The thread that raises studies: it reads the journal on, and what it decides is done in the commit that moves on, so it is done once."""

import threading
import time
from collections.abc import Callable
from hashlib import sha256

import structlog

from dicom_node.config import NodeConfig, Triage
from dicom_node.domain import Raising, Refused, Rejected, Workitem, fault
from dicom_node.notify.findings import Said, found_in
from dicom_node.notify.triage import FRESH_S, raising
from dicom_node.store import Event, Store, Topic

_log = structlog.get_logger()

Step = Callable[[Raising], Workitem]  # the reader's step for what is raised; of another room, given by whoever joins them


class Raiser:
    """Raises the studies in which something was found that [[triage]] asks for; a rule that is new, what is found once this is built."""

    def __init__(self, config: NodeConfig, store: Store, step: Step, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._store = store
        self._step = step
        self._clock = clock
        self._stopping = threading.Event()
        self._listener = store.bell.listen(Topic.DELIVERIES)  # it rings when a job is completed
        self._thread = threading.Thread(target=self._run, name="triage", daemon=True)
        for rule in config.triage:  # a new rule begins here, before anything more is completed
            store.triage.news(_reader(rule), limit=0)

    def start(self) -> None:
        """Start raising."""
        self._thread.start()

    def stop(self, patience_s: float = 5.0) -> None:
        """End; what is not done by then is done when the node is back."""
        self._stopping.set()
        self._listener.wake()
        self._thread.join(patience_s)
        self._listener.close()

    @property
    def alive(self) -> bool:
        """Whether the thread that was started still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except Exception as error:  # the outermost loop of this thread: what was found stands in the journal, and is looked at again
                _log.error("triage.failed", why=fault(error))
            self._listener.wait(self._config.deliver.poll_s)

    def turn(self) -> None:
        """Look at all that has been completed since the last turn, for each rule.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        for rule in self._config.triage:
            while self._look(rule):
                pass

    def _look(self, rule: Triage) -> bool:
        """Look at the next events for one rule; say whether there were any."""
        reader = _reader(rule)
        after, events = self._store.triage.news(reader)
        if not events:
            return False
        found = [one for event in events if (one := self._raising(rule, event)) is not None]
        wanted = [(one, self._step_of(one)) for one in found]
        for one in self._store.triage.act(reader, wanted, after=after, upto=events[-1].id, now=self._clock()):
            _log.info("triage.raised", study=one.study_instance_uid, job=one.job_id, rule=one.rule, priority=one.priority.name)
        return True

    def _step_of(self, one: Raising) -> Workitem | None:
        if one.code is None:
            return None
        try:
            return self._step(one)
        except Refused as error:  # one that the worklist does not take must not keep the others waiting
            _log.error("triage.no_step", study=one.study_instance_uid, job=one.job_id, rule=one.rule, why=str(error))
            return None

    def _raising(self, rule: Triage, event: Event) -> Raising | None:
        now = self._clock()
        if event.kind != "completed" or event.job_id is None or now - event.at > FRESH_S:
            return None
        try:
            job = self._store.jobs.get(event.job_id)
        except Rejected:  # it was purged meanwhile, with its study
            return None
        results = self._store.jobs.results(event.job_id)
        said: list[Said] = []
        for one in (one for one in results if one.kind == "SR" and not one.problem):
            found = found_in(self._store.archive.path(one.path), rule.findings, job.model)
            if found is None:  # damaged: the others do not wait for it
                _log.warning("triage.report_unreadable", rule=rule.name, job=one.job_id)
            said += found or ()
        return raising(rule, event, said, results, f"{job.model} {job.model_version}", now)


def _reader(rule: Triage) -> str:
    return f"triage {sha256(rule.name.encode()).hexdigest()[:24]}"
