"""The listening process: builds the rooms that listen, send and decide, joins them, and owns nothing. It never reaches torch.

What arrives goes through `receive` into the ledger; the clock asks `assemble` whether a study is whole and `route` what to make of it;
`deliver` sends what the analysing process made. That process is started and kept alive from here.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import structlog

from dicom_node.assemble.arrival import gathered
from dicom_node.assemble.completeness import Evidence, Policy, judge
from dicom_node.assemble.recognition import recognised
from dicom_node.assemble.rejection import notes_of, rejections
from dicom_node.assemble.selection import Selection, select
from dicom_node.config import Input, Model, NodeConfig, Site
from dicom_node.deliver import Committer, Deliverer, Reports
from dicom_node.domain import HEADER_KEYWORDS, Count, Header, Job, NodeError, PerformedStep, Refused, RetrievalState, Series, Study, Transient, fault
from dicom_node.guard import credentials
from dicom_node.query import Answer, count, find
from dicom_node.query import services as query_services
from dicom_node.query.counting import Ask, Counting
from dicom_node.query.fetching import Fetching
from dicom_node.query.retrieving import Take
from dicom_node.query.seeking import Seeking, Suits
from dicom_node.receive import Door, Presence, Promises, Receiver, Reporter, read_keywords, recovered
from dicom_node.route import Routing, route
from dicom_node.schedule import Ticks, retire, take_back
from dicom_node.store import Store, Topic
from dicom_node.wire import Service
from dicom_node.worklist import Inquirer, Notifier, Worklist

log = structlog.get_logger()

_LOOK_EVERY_S = 1.0  # for studies to judge, if no ring was heard
_FORESEE_S = 0.2  # before a study is due, it is decided what to make of it
_TAKE_BACK_EVERY_S = 2.0
_RETIRE_EVERY_S = 600.0
_WORK_BACK_AFTER_S = 1.0
_GRACE_S = 10.0


class _Going(Protocol):
    """What goes on in threads of its own."""

    @property
    def alive(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Server:
    """The node as it listens."""

    def __init__(
        self,
        site: Site,
        store: Store,
        *,
        work_command: Sequence[str] = (),
        receive_command: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        count: Ask | None = None,
    ) -> None:
        """Build it; count: asks a remote how many instances of a study it has."""
        self._site = site
        self._store = store
        self._clock = clock
        self._receiver = receiver(site, store, clock)
        self._counting = Counting(_without_ours(count, store), clock) if count is not None else None
        self._fetching = Fetching(site.config, store, clock, taking(site.config, store, clock))
        self._going: tuple[_Going, ...] = (
            _Judge(site, store, clock, Witnesses(counting=self._counting, presence=self._receiver.presence)),
            Deliverer(site.config, store, clock=clock),
            Committer(site.config, store, clock),
            Reporter(site.config, store, clock),
            Notifier(site.config, store, clock),
            Inquirer(site.config, store, clock),
            self._fetching,
            *([seeking(site, store, clock)] if any(rule.priors for rule in site.config.rules) else []),
        )
        self._ticks = Ticks()
        self._work = _Kept("analysing", work_command) if work_command and site.config.work.start else None
        self._receive_command = receive_command
        self._receivers: list[_Kept] = []  # beside this process, on the same port

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._receiver.port

    @property
    def healthy(self) -> bool:
        """Whether every thread that has to go on goes on; when not, the process is better started anew, which loses nothing."""
        return all(one.alive for one in self._going)

    def start(self) -> None:
        """Put in order what a crash left, then listen, decide, send, and start the analysing process.

        Raises
        ------
        ConfigError: the port cannot be listened on.
        """
        moved, recorded, removed = self._store.instances.sweep(recovered)
        buried = self._store.studies.bury()
        taken = take_back(self._store, self._site.config.work, self._clock())
        log.info("swept", moved=moved, recorded=recorded, unacknowledged=removed, buried=buried, taken_back=taken)
        self._receiver.start()
        self._start_receivers()
        for one in self._going:
            one.start()
        if self._work is not None:
            self._work.start()
        self._ticks.every(_TAKE_BACK_EVERY_S, lambda: take_back(self._store, self._site.config.work, self._clock()), "leases")
        self._ticks.every(_RETIRE_EVERY_S, self._retire, "retention")
        self._ticks.start()
        node = self._site.config.node
        log.info(
            "serving", ae_title=node.ae_title, host=node.host, port=self.port, models=sorted(self._site.models), rules=len(self._site.config.rules)
        )

    def stop(self) -> None:
        """Take no more associations, let those under way finish, and end."""
        self._fetching.stop()  # before those who receive what it asked for
        for receiver in self._receivers:
            receiver.close()
        self._receiver.stop(_GRACE_S)
        for receiver in self._receivers:
            receiver.stop()
        if self._work is not None:
            self._work.stop()
        for one in self._going:
            if one is not self._fetching:
                one.stop()
        if self._counting is not None:
            self._counting.stop()
        self._ticks.stop()
        log.info("stopped")

    def _retire(self) -> None:
        config = self._site.config
        retire(self._store, config.node.retain_days, self._clock(), config.committing)

    def _start_receivers(self) -> None:
        """Start the processes that receive beside this one: the kernel shares connections out among those that listen on the port."""
        if self._receive_command:
            command = [*self._receive_command, "--port", str(self.port)]
            self._receivers = [_Kept("receiving", command) for _ in range(self._site.config.node.receivers - 1)]
        for receiver in self._receivers:
            receiver.start()


def receiver(site: Site, store: Store, clock: Callable[[], float] = time.time) -> Receiver:
    """Build what listens, with every room's services: here, and in the processes that receive beside this one."""
    return Receiver(site.config, store, clock=clock, services=services(site, store, clock))


def services(site: Site, store: Store, clock: Callable[[], float]) -> tuple[Service, ...]:
    """Return what the node answers beside C-STORE and C-ECHO."""
    return (
        *Reports(site.config, store, clock).services(),
        *Promises(site.config, store, clock).services(),
        *Worklist(site.config, store, clock, wanted=partial(_wanted, store, clock)).services(),
        *query_services(site.config, store, store.holdings, clock),
    )


def asking_archives(site_config: NodeConfig) -> Ask:
    """Return what asks a remote how many instances of a study it has (C-FIND)."""

    def counted(name: str, study_instance_uid: str) -> int | None:
        remote = site_config.remotes[name]
        return count(remote, site_config.node, study_instance_uid, credentials=credentials(site_config.node, remote))

    return counted


def taking(site_config: NodeConfig, store: Store, clock: Callable[[], float]) -> Take:
    """Return what makes objects durable that archives send over an association that the node asked for (C-GET): the same door as for C-STORE."""
    door = Door(store, site_config.node)

    def take(data_set: memoryview, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling_ae: str) -> tuple[int, str]:
        said = {"sop_class_uid": sop_class_uid, "sop_instance_uid": sop_instance_uid, "transfer_syntax_uid": transfer_syntax_uid}
        try:
            door.take(data_set, **said, calling_ae=calling_ae, received_at=clock())
        except Refused as refusal:
            log.warning("receive.refused", calling_ae=calling_ae, status=f"{refusal.status:04X}", reason=str(refusal), hint=refusal.hint)
            return refusal.status, str(refusal)
        return 0x0000, ""

    return take


def seeking(site: Site, store: Store, clock: Callable[[], float]) -> Seeking:
    """Return what finds the earlier studies that jobs wait for."""
    config = site.config

    def find_there(name: str, level: str, keys: Mapping[str, str]) -> tuple[Answer, ...]:
        remote = config.remotes[name]
        return find(remote, config.node, level, keys, credentials=credentials(config.node, remote))

    def fetch(job: Job, name: str, study_instance_uid: str) -> None:
        why = f"an earlier study for {job.model} of job {job.id}"
        of = job.study_instance_uid
        store.retrievals.ask(name, study_instance_uid, who="node", why=why, now=clock(), wanted_for=of, deadline=job.not_before)

    def fate(job: Job, study_instance_uid: str) -> str | None:
        wishes = store.retrievals.wanted_for(job.study_instance_uid)
        one = next((one for one in wishes if one.study_instance_uid == study_instance_uid), None)
        if one is None:
            return "its retrieval is not on record"
        if not one.state.has_ended:
            return None
        return "" if one.state is RetrievalState.COMPLETED else one.reason

    return Seeking(store, clock, find=find_there, fetch=fetch, fate=fate, suits=suiting(site.models, select))


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """Who knows of a study's arrival what the ledger does not: remotes that count, and the associations that are open."""

    counting: Counting | None = None
    presence: Presence | None = None


NOBODY = Witnesses()


def _wanted(store: Store, clock: Callable[[], float], remote: str, study_instance_uid: str, why: str) -> None:
    """Ask for a study of a remote, for its own sake."""
    store.retrievals.ask(remote, study_instance_uid, who="node", why=why, now=clock())


@dataclass(frozen=True, slots=True)
class Seen:
    """A study as it was seen, and what every rule made of it."""

    study: Study
    routing: Routing


def judge_due(site: Site, store: Store, now: float, foreseen: dict[str, Seen] | None = None, witnesses: Witnesses = NOBODY) -> int:
    """Judge every study whose time has come: complete with its jobs, held, or looked at again later; return how many were judged complete.

    What was foreseen of a study is believed, once, if it has not changed since, which the ledger checks.
    """
    known = {} if foreseen is None else foreseen
    return sum(_judge(site, store, uid, now, known.pop(uid, None), witnesses) for uid in store.studies.due(now))


def _judge(site: Site, store: Store, study_instance_uid: str, now: float, foreseen: Seen | None, witnesses: Witnesses) -> bool:
    study = foreseen.study if foreseen else store.studies.view(study_instance_uid)
    if study is None:
        return False
    try:
        rejected = reject(store, study, now)
        study = (store.studies.view(study_instance_uid) or study) if rejected else study
        return judge_one(site, store, study, now, None if rejected or foreseen is None else foreseen.routing, witnesses)
    except Transient:  # the ledger is away, for every study: the next look is the retry
        raise
    except Exception as error:  # the outermost frame of judging: a study that this program cannot deal with must not keep the others waiting
        store.studies.hold(study, why=f"it could not be judged: {fault(error)}", now=now)
        log.error("study held", study=study.study_instance_uid, reason=fault(error))
        return False


def judge_one(site: Site, store: Store, study: Study, now: float, routing: Routing | None = None, witnesses: Witnesses = NOBODY) -> bool:
    """Judge one study on the evidence there is; return whether it is complete now. `routing`: where that has been asked for already."""
    verdict = judge(evidence_of(store, study, witnesses), policy_of(site), now)
    if not verdict.complete:
        if witnesses.counting is not None:
            witnesses.counting.ask(study.study_instance_uid, verdict.ask)
        store.studies.look_again(study.study_instance_uid, verdict.look_again_at or now + _LOOK_EVERY_S)
        return False
    if len(study.patients) > 1:
        store.studies.hold(
            study, why=f"its instances name {len(study.patients)} patients; no analysis runs until it is put right at the source", now=now
        )
        log.warning("study held", study=study.study_instance_uid, patients=len(study.patients))
        return False
    if routing is None or routing.short != verdict.short:
        routing = routing_of(site, store, study, now, verdict.short)
    jobs = store.studies.complete(
        study,
        why=verdict.why,
        jobs=[replace(job, created_at=now) for job in routing.jobs],
        detail=routing.as_detail() | {"routing": routing.why},
        now=now,
        max_reruns=site.config.node.max_reruns,
        late=routing.late,
    )
    if jobs is not None:
        log.info("study complete", study=study.study_instance_uid, why=verdict.why, jobs=[job.id for job in jobs], routing=routing.why)
    return jobs is not None


def reject(store: Store, study: Study, now: float) -> int:
    """Hide what rejection notes of a study name; return how many instances were not hidden yet.

    It is done at every judgement, so that a note counts for what came after it, too.
    """
    notes = notes_of(study)
    hidden = 0
    for one in rejections(study, zip(notes, store.instances.bring(notes), strict=True)) if notes else ():
        number = store.studies.hide(study, one.instances, who=one.who, why=f"a rejection note names them: {one.why}", now=now)
        if number:
            log.info("instances rejected", study=study.study_instance_uid, instances=number, why=one.why)
        hidden += number
    return hidden


def foresee(site: Site, store: Store, until: float, before: Mapping[str, Seen], now: float, witnesses: Witnesses = NOBODY) -> dict[str, Seen]:
    """See the studies that come due until then, and ask every rule, while their quiet period runs out; `before`: what was foreseen already."""
    coming: dict[str, Seen] = {}
    for uid in store.studies.due(until):
        study = None if uid in before else store.studies.view(uid)
        if uid in before:
            coming[uid] = before[uid]
        elif study is not None and (verdict := judge(evidence_of(store, study, witnesses), policy_of(site), until)).complete:
            with contextlib.suppress(LookupError, ValueError, TypeError, AttributeError, NodeError):  # what it is will be told when it is judged
                coming[uid] = Seen(study, routing_of(site, store, study, now, verdict.short))
        elif study is not None and not verdict.ask:  # something came since: it is not to be judged when it was thought to be
            store.studies.look_again(uid, verdict.look_again_at or until)
    return coming


def policy_of(site: Site) -> Policy:
    """Return how patient the site is."""
    asked = site.config.complete
    return Policy(
        complete_after_s=site.config.node.complete_after_s,
        wait_at_most_s=asked.wait_at_most_s,
        early_after_s=asked.early_after_s,
        ask=frozenset(asked.ask),
    )


def evidence_of(store: Store, study: Study, witnesses: Witnesses) -> Evidence:
    """Return all that is known of a study's arrival."""
    uid = study.study_instance_uid
    counting, presence = witnesses.counting, witnesses.presence
    return gathered(
        study,
        steps=_steps_of(store, uid),
        notices=store.notices.of_study(uid),
        counts=(*_counts_of_retrievals(store, uid), *(counting.of(uid) if counting is not None else ())),
        ended_at=presence.ended_at(uid) if presence is not None else 0.0,
    )


def _steps_of(store: Store, study_instance_uid: str) -> tuple[PerformedStep, ...]:
    """Return a study's performed procedure steps; of one that made several studies nobody says which images are this study's."""
    return tuple(step if len(step.study_instance_uids) == 1 else replace(step, series={}) for step in store.steps.of_study(study_instance_uid))


def _counts_of_retrievals(store: Store, study_instance_uid: str) -> tuple[Count, ...]:
    """Return how many instances the remotes say they have that the study is being fetched from: until then it is known not to be whole."""
    under_way = (one for one in store.retrievals.list(study_instance_uid=study_instance_uid) if not one.state.has_ended)
    return tuple(
        Count(source=one.remote, at=one.requested_at, instances=one.expected - store.deliveries.there(study_instance_uid, one.remote))
        for one in under_way
        if one.expected is not None
    )


def _without_ours(count: Ask, store: Store) -> Ask:
    """Return a count that leaves out what the node itself sent there."""

    def counted(remote: str, study_instance_uid: str) -> int | None:
        there = count(remote, study_instance_uid)
        return None if there is None else there - store.deliveries.there(study_instance_uid, remote)

    return counted


def routing_of(site: Site, store: Store, study: Study, now: float, short: Sequence[str] = ()) -> Routing:
    """Ask every rule what to make of a study; short: which of its images are known to be missing."""
    if prior_of := _fetched_for(site, store, study):
        return Routing(jobs=(), traces=(), short=tuple(short), unasked=f"it was fetched as an earlier study of {prior_of}; `retry` asks the rules")
    asked = with_keywords(study, store, site.keywords)
    return route(asked, site.config.rules, site.models, select, recognised, now=now, short=short)


def _fetched_for(site: Site, store: Store, study: Study) -> str:
    """Return for which study this one was fetched, if that alone brought it here; once it was judged, a person or a later image asks the rules."""
    if study.revision:
        return ""
    wishes = store.retrievals.list(study_instance_uid=study.study_instance_uid, limit=100)
    titles = {site.config.remotes[one.remote].ae.title for one in wishes if one.remote in site.config.remotes}
    if any(not one.wanted_for or one.by_person for one in wishes) or not {one.calling_ae for one in study.instances} <= titles:
        return ""
    return ", ".join(dict.fromkeys(uid for one in wishes for uid in one.wanted_for))


def with_keywords(study: Study, store: Store, asked: frozenset[str]) -> Study:
    """Add to each series those keywords that the ledger does not keep, read from its first instance's file."""
    keywords = asked - set(HEADER_KEYWORDS)
    if not keywords:
        return study
    more: dict[str, Header] = {}
    for series in study.series:
        (path,) = store.instances.bring(series.instances[:1])
        more[series.series_instance_uid] = read_keywords(path, keywords)
    return replace(study, more=more)


def suiting(models: Mapping[str, Model], choose: Callable[[Sequence[Series], Input], Selection]) -> Suits:
    """Return what says which series of an earlier study a job's model takes, by the name of its input."""

    def suits(job: Job, study: Study) -> dict[str, tuple[int, ...]]:
        manifest = models[job.model].manifest
        taken = {name: choose(study.series, manifest.inputs[name]).series for name in manifest.priors}
        return {name: tuple(one.id for one in series.instances) for name, series in taken.items() if series is not None}

    return suits


class _Judge:
    """The thread that judges each study when its time has come: it sleeps until then, and looks when the bell rings."""

    def __init__(self, site: Site, store: Store, clock: Callable[[], float], witnesses: Witnesses) -> None:
        self._site = site
        self._store = store
        self._clock = clock
        self._witnesses = witnesses
        self._foreseen: dict[str, Seen] = {}
        self._listener = store.bell.listen(Topic.STUDIES)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._listener.wake()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            rest_s = _LOOK_EVERY_S
            try:
                rest_s = self._turn()
            except Exception as error:  # the outermost loop of this thread: what is to be judged stands in the ledger, and is looked at again
                log.error("studies could not be judged", reason=fault(error))
            self._listener.wait(rest_s)

    def _turn(self) -> float:
        """Judge what is due, look ahead, and return how long there is nothing to do if no bell rings."""
        now, due = self._clock(), self._store.studies.next_due()
        if due is not None and now < due <= now + _FORESEE_S:
            self._foreseen = foresee(self._site, self._store, now + _FORESEE_S, self._foreseen, now, self._witnesses)
            now, due = self._clock(), self._store.studies.next_due()
        if due is None:
            return _LOOK_EVERY_S
        if due <= now:
            judge_due(self._site, self._store, now, self._foreseen, self._witnesses)
            return 0.0
        ahead_s = due - now
        return min(ahead_s if ahead_s <= _FORESEE_S else ahead_s - _FORESEE_S, _LOOK_EVERY_S)


class _Kept:
    """A process that is started again when it ends, and that ends when this one does: its standard input closes."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        self._command = list(command)
        self._process: subprocess.Popen[Any] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        self._spawn()
        self._thread.start()

    def close(self) -> None:
        """Ask it to end, and go on."""
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.close()
        process = self._process
        if process is not None:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join()

    def _spawn(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "dicom_node", *self._command], stdin=subprocess.PIPE)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            code = self._process.wait() if self._process is not None else None
            if self._stopping.wait(_WORK_BACK_AFTER_S):
                return
            log.error(f"the {self._name} process ended and is started again", code=code)
            try:
                self._spawn()
            except OSError as error:
                self._process = None
                log.error(f"the {self._name} process cannot be started; it is tried again", reason=error.strerror)
