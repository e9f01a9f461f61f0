"""Judges each study when its time has come: is it whole on the evidence there is, and what do the rules make of it?"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from dicom_node.assemble.arrival import gathered
from dicom_node.assemble.completeness import Evidence, Policy, judge
from dicom_node.assemble.recognition import recognised
from dicom_node.assemble.rejection import notes_of, rejections
from dicom_node.assemble.selection import select
from dicom_node.config import Site
from dicom_node.domain import HEADER_KEYWORDS, Count, Header, NodeError, PerformedStep, Study, Transient, fault
from dicom_node.query.counting import Counting
from dicom_node.receive import Presence, read_keywords
from dicom_node.route import Routing, route
from dicom_node.store import Store, Topic, Watch

log = structlog.get_logger()

_LOOK_EVERY_S = 1.0  # for studies to judge, if no ring was heard
_FORESEE_S = 0.2  # before a study is due, it is decided what to make of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """Who knows of a study's arrival what the ledger does not: remotes that count, and the associations that are open."""

    counting: Counting | None = None
    presence: Presence | None = None


NOBODY = Witnesses()


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


def routing_of(site: Site, store: Store, study: Study, now: float, short: Sequence[str] = ()) -> Routing:
    """Ask every rule what to make of a study; short: which of its images are known to be missing."""
    if prior_of := _fetched_for(site, store, study):
        for_what = "for a workitem" if prior_of == study.study_instance_uid else f"as an earlier study of {prior_of}"
        return Routing(jobs=(), traces=(), short=tuple(short), unasked=f"it was fetched {for_what}; `retry` asks the rules")
    return ask_rules(site, with_keywords(study, store, site.keywords), now, short)


def ask_rules(site: Site, study: Study, now: float, short: Sequence[str] = ()) -> Routing:
    """Ask every rule what to make of a study that has all the keywords for which rules and models ask."""
    return route(study, site.config.rules, site.models, select, recognised, now=now, short=short)


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


class Judge(Watch):
    """The thread that judges each study when its time has come: it sleeps until then, and looks when the bell rings."""

    def __init__(self, site: Site, store: Store, clock: Callable[[], float], witnesses: Witnesses) -> None:
        super().__init__(store.bell, Topic.STUDIES, name="judge", rest_s=_LOOK_EVERY_S)
        self._site = site
        self._store = store
        self._clock = clock
        self._witnesses = witnesses
        self._foreseen: dict[str, Seen] = {}

    def failed(self, error: Exception) -> None:
        """Tell that no study could be judged."""
        log.error("studies could not be judged", reason=fault(error))

    def take_turn(self) -> float:
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
