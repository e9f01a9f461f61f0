"""The threads that tell: one for each recipient, so that one that is slow keeps nobody waiting."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import structlog

from dicom_node.config import NodeConfig, Notify
from dicom_node.domain import ConfigError, Message, NodeError, PeerUnavailable, Rejected, Result, fault
from dicom_node.notify.decisions import BURST_S, Seen, failures, later_s, message, turns, wrong
from dicom_node.notify.findings import Said, found_in
from dicom_node.notify.results import Whose
from dicom_node.notify.sending import send
from dicom_node.store import Event, Store
from dicom_node.store.messages import Decision
from dicom_node.store.telling import workers

_LOOK_EVERY_S = 15.0  # at what is wrong for a while
_MARGIN_S = 60.0  # beyond a time-out: what is not on record as told by then is told again
_GIVE_UP_S = 3 * 86400.0
_MOST_FINDINGS = 20  # of one report

_log = structlog.get_logger()


class Tellers:
    """Tells every recipient of [[notify]]."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float] = time.time, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._stopping = threading.Event()
        self._tellers = [Teller(config, store, clock, one, self._stopping, look_every_s) for one in config.notify]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start telling."""
        self._threads = [threading.Thread(target=one.run, name=f"telling {one.name}", daemon=True) for one in self._tellers]
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 5.0) -> None:
        """End; what is being told when the patience ends is told again."""
        self._stopping.set()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def alive(self) -> bool:
        """Whether every thread that was started still runs."""
        return all(thread.is_alive() for thread in self._threads)


class Teller:
    """Tells one recipient."""

    def __init__(
        self, config: NodeConfig, store: Store, clock: Callable[[], float], to: Notify, stopping: threading.Event, look_every_s: float
    ) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._to = to
        self._stopping = stopping
        self._look_every_s = look_every_s
        self._began = clock()
        self._looked_at = float("-inf")
        self._not_before = 0.0
        self._failures = 0  # in a row, to reach it
        self._reader = f"notify {sha256(to.name.encode()).hexdigest()[:24]}"
        self.name = to.name

    def run(self) -> None:
        """Tell until the node stops."""
        while not self._stopping.is_set():
            try:
                self.decide()
                self.tell()
            except Exception as error:  # the outermost loop of this thread: what is to be told stands in the ledger, and is looked at again
                _log.error("notify.failed", to=self.name, why=fault(error))
            self._stopping.wait(self._config.deliver.poll_s)

    def decide(self) -> None:
        """Put into the ledger what is to be told of all that has happened since the last look.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        now = self._clock()
        after, events = self._store.messages.news(self._reader)
        messages = failures(self.name, events, now) if "job" in self._to.about else []
        messages += self._findings(events, now) if self._to.findings else []
        more, began, ended = self._turns(now)
        if events or more:
            upto = events[-1].id if events else after
            decided = Decision(messages=(*messages, *more), began=tuple(began), ended=tuple(ended), after=after, upto=upto)
            if not self._store.messages.decide(self.name, self._reader, decided, now=now):
                self._looked_at = float("-inf")  # another process was first

    def tell(self) -> None:
        """Tell all that is due.

        Raises
        ------
        Transient: the ledger does not answer.
        """
        while not self._stopping.is_set() and self._clock() >= self._not_before:
            one = self._store.messages.claim(self.name, now=self._clock(), lease_s=self._to.timeout_s + self._config.mail.timeout_s + _MARGIN_S)
            if one is None or not self._tell(one):
                return

    def _tell(self, one: Message) -> bool:
        """Tell one message; say whether the recipient was reached."""
        try:
            send(one, self._to, self._config, now=self._clock(), patient=self._patient(one), whose=self._whose(one))
        except (PeerUnavailable, Rejected, ConfigError) as error:
            self._failed(one, error)
            return not isinstance(error, PeerUnavailable)
        self._failures, self._not_before = 0, 0.0
        if self._store.messages.told(one, now=self._clock()):
            _log.info("notify.told", to=self.name, about=one.about, key=one.key)
        return True

    def _failed(self, one: Message, error: NodeError) -> None:
        now, why = self._clock(), str(error)
        _log.warning("notify.not_told", to=self.name, about=one.about, why=why, attempt=one.attempts + 1)
        if isinstance(error, PeerUnavailable):
            self._failures += 1
            self._not_before = now + later_s(self._failures, self._config.deliver)
        if now - one.created_at > _GIVE_UP_S:
            self._store.messages.drop(one, now=now, reason=f"{why}; it was tried {one.attempts + 1} times")
        else:
            self._store.messages.put_off(one, until=now + later_s(one.attempts + 1, self._config.deliver), reason=why)

    # ------------------------------------------------------------------------------------------------------------ looking

    def _turns(self, now: float) -> tuple[list[Message], list[Any], list[str]]:
        if 0 <= now - self._looked_at < self._look_every_s:
            return [], [], []
        self._looked_at = now
        return turns(self.name, wrong(self._seen(now), self._to), self._store.messages.troubles(self.name), now)

    def _seen(self, now: float) -> Seen:
        store, backlog = self._store, self._store.backlog
        sent = {(group.labels[1], group.labels[0]): (group.number, group.oldest) for group in backlog.deliveries()}
        return Seen(
            now=now,
            up_s=now - self._began,
            free_mb=store.archive.free_mb(),
            reserve_mb=self._config.node.disk_reserve_mb,
            works_here=self._config.work.start,
            workers_alive=sum(bool(one["alive"]) for one in workers(store, now)),
            quarantined=backlog.quarantined(since=now - BURST_S),
            destinations=backlog.destinations(),
            sent=sent,
        )

    def _findings(self, events: Sequence[Event], now: float) -> list[Message]:
        found: list[Message] = []
        for event in events:
            if event.kind == "completed" and event.job_id is not None:
                found += self._of_report(event, event.job_id, now)
        return found

    def _of_report(self, event: Event, job_id: int, now: float) -> Iterator[Message]:
        """Give what a job's report says that the recipient wants to be told of."""
        model, left = str((event.detail or {}).get("model", "")), _MOST_FINDINGS
        facts = {"what": "happened", "at": event.at, "job_id": job_id, "model": model, "study_instance_uid": event.study_instance_uid}
        for result in (one for one in self._store.jobs.results(job_id) if one.kind == "SR" and not one.problem):
            met = self._met(result, model)[:left]
            left -= len(met)
            key = f"finding {result.sop_instance_uid}"
            if self._to.is_hl7:
                yield from [message(self.name, "finding", key, facts | _together(model, met), now)] if met else []
                continue
            for number, said in enumerate(met):
                more = {"concept": said.concept, "value": said.value, "unit": said.unit, "answer": said.answer}
                yield message(self.name, "finding", f"{key} {number}", facts | {"says": f"{model} found: {said.words}", **more}, now)

    def _met(self, result: Result, model: str) -> Sequence[Said]:
        found = found_in(self._store.archive.path(result.path), self._to.findings, model)
        if found is None:  # a file that was damaged: what else there is to tell does not wait for it
            _log.warning("notify.report_unreadable", to=self.name, job=result.job_id)
        return found or ()

    def _whose(self, one: Message) -> Whose | None:
        """Return of whom and of which order a result by HL7 v2 is; None when the study is not here any more."""
        uid = str(one.facts.get("study_instance_uid") or "")
        study = self._store.studies.view(uid) if uid and self._to.is_hl7 else None
        if study is None or not study.instances:
            return None
        return Whose(header=study.instances[0].header, order=self._store.orders.of_study(uid))

    def _patient(self, one: Message) -> Mapping[str, str] | None:
        """Return who the patient is, where the site wants that told; it is read when it is told, and kept nowhere."""
        uid = str(one.facts.get("study_instance_uid") or "")
        study = self._store.studies.view(uid) if uid and self._to.patient_identity else None
        if study is None or not study.instances:
            return None
        header = study.instances[0].header
        return {"id": str(header.get("PatientID") or ""), "name": str(header.get("PatientName") or "")}


def _together(model: str, met: Sequence[Said]) -> dict[str, Any]:
    """Return all findings of a report as they stand in one result."""
    findings = [{"code": list(said.terms[0]), "of": list(said.terms[1]), "value": said.value} for said in met]
    return {"says": f"{model} found: {'; '.join(said.words for said in met)}", "findings": findings}
