"""The Task Performer: takes up workitems that ask for this node's models, brings their inputs, and lets a job perform each (IHE AIW-I, 4.82 to 4.85).

Whose workitem it is does not matter here: one of this node's own worklist is claimed by giving it its job, in one transaction; one of another
manager has been claimed there before it comes to this thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from dicom_node.assemble.recognition import recognised
from dicom_node.assemble.selection import select
from dicom_node.config import Rule, Site
from dicom_node.domain import Cause, Job, Readiness, Retrieval, RetrievalState, Study, StudyState, Transient, Workitem, fault
from dicom_node.route import Routing, route
from dicom_node.serve.judging import with_keywords
from dicom_node.store import Change, Store, Topic, Watch
from dicom_node.worklist.ups import Manager, attributes
from dicom_node.worklist.ups.ours import Errand, can_bring, errand, receivers
from dicom_node.worklist.ups.reasons import EQUIPMENT, OF_CAUSE, REJECTED, WRONG_ENTRY, Code

_LOOK_EVERY_S = 2.0  # at a workitem whose inputs are on their way
_LOOK_AT_LEAST_EVERY_S, _PATIENCE = 30.0, 20  # the longer it has waited, the seldomer: hundreds of orders may wait a day for their images
_NOT_OURS_S = 86400.0  # before one that is for others is looked at again; a change of it is looked at at once

log = structlog.get_logger()


class Unperformable(Exception):
    """Raised when a workitem that asks for this node cannot be performed; with the coded reason."""

    def __init__(self, why: str, code: Code) -> None:
        super().__init__(why)
        self.code = code


class Performing(Watch):
    """The thread that takes up workitems."""

    def __init__(self, site: Site, store: Store, manager: Manager, clock: Callable[[], float]) -> None:
        super().__init__(store.bell, Topic.WORKITEMS, name="workitems", rest_s=_LOOK_EVERY_S)
        self._site = site
        self._store = store
        self._manager = manager
        self._clock = clock

    def failed(self, error: Exception) -> None:
        """Tell that workitems could not be looked at."""
        log.error("workitems could not be looked at", reason=fault(error))

    def take_turn(self) -> float:
        """Look at every workitem that is due, and return how long there is nothing to do if no bell rings."""
        now = self._clock()
        for item in self._store.workitems.waiting(now=now):
            self._look_at(item, now)
        due = self._store.workitems.next_due()
        return _LOOK_EVERY_S if due is None else min(max(due - self._clock(), 0.0), _LOOK_EVERY_S)

    def _look_at(self, item: Workitem, now: float) -> None:
        try:
            again_at = self._take_up(item, now)
        except Unperformable as error:
            self._give_up(item, str(error), error.code, now)
            return
        except Transient:  # the ledger is away, for every workitem: the next look is the retry
            raise
        except Exception as error:  # the outermost frame of one workitem: one that this program cannot deal with must not keep the others waiting
            log.error("workitem could not be taken up", workitem=item.uid, reason=fault(error))
            self._give_up(item, fault(error), EQUIPMENT, now)
            return
        if again_at is not None:
            self._store.workitems.put_off(item, until=again_at)

    def _give_up(self, item: Workitem, why: str, code: Code, now: float) -> None:
        """Cancel a workitem that cannot be performed, unless somebody else has taken it meanwhile."""

        def decided(found: Workitem) -> Change:
            if found.job is not None or found.has_ended or found.is_claimed is not item.is_claimed:
                return Change()
            return self._manager.gives_up(found, code, why, self._site.config.node.ae_title)

        self._store.workitems.change(item.uid, decided, now=now)
        log.warning("workitem given up", workitem=item.uid, study=item.study_instance_uid, reason=why)

    # ----------------------------------------------------------------------------------------------------------- one workitem

    def _take_up(self, item: Workitem, now: float) -> float | None:
        """Let a job perform a workitem; return when to look at it again, None when it is done with.

        Raises
        ------
        Unperformable: it asks for this node, and cannot be performed.
        """
        asked = errand(attributes.dataset_of(item.attributes), self._site.config)
        if isinstance(asked, str):
            if item.is_claimed:  # at another manager, before this node's models were changed: nobody else may perform it any more
                raise Unperformable(asked, REJECTED)
            return now + _NOT_OURS_S
        if asked.problem:
            raise Unperformable(asked.problem, OF_CAUSE[Cause.TYPES])
        if item.readiness is Readiness.INCOMPLETE:  # whoever asked says when it is not
            return now + _NOT_OURS_S
        if item.scheduled_at > now:
            return item.scheduled_at
        deliver = self._deliver(asked)
        uid = asked.study_instance_uid or self._study_of_order(asked)
        study = self._inputs(item, replace(asked, study_instance_uid=uid), now)
        if study is None:
            waited_s = now - max(item.created_at, item.scheduled_at)
            return now + min(max(waited_s / _PATIENCE, _LOOK_EVERY_S), _LOOK_AT_LEAST_EVERY_S)
        done = self._store.workitems.take_up(item.uid, self._job(item, asked, study, deliver, now), now=now)
        if done is not None:
            log.info("workitem taken up", workitem=item.uid, job=done.id, study=study.study_instance_uid)
        return None

    def _deliver(self, asked: Errand) -> tuple[str, ...]:
        """Return the names of the remotes that get the results: those that the workitem names, else those that rules with this model name."""
        config = self._site.config
        if asked.destinations is None:
            return tuple(dict.fromkeys(name for rule in config.rules if asked.model in rule.analyse for name in rule.deliver))
        known = receivers(config)
        for title in asked.destinations:
            if title not in known:
                raise Unperformable(f"its results are to go to {title}, which is no remote that may receive", REJECTED)
        return tuple(known[title] for title in asked.destinations)

    def _study_of_order(self, asked: Errand) -> str:
        """Return the study of an order, by its accession number; empty while there is none.

        Raises
        ------
        Unperformable: there are several.
        """
        found = list(self._store.holdings.find("STUDY", {"AccessionNumber": asked.accession_number}, limit=2))
        exact = [str(one["StudyInstanceUID"]) for one in found if str(one.get("AccessionNumber") or "").strip() == asked.accession_number]
        if len(exact) > 1:
            raise Unperformable("several studies have its accession number", WRONG_ENTRY)
        return exact[0] if exact else ""

    def _inputs(self, item: Workitem, asked: Errand, now: float) -> Study | None:
        """Return the study with what the workitem names of it; None while it is on its way.

        Raises
        ------
        Unperformable: it cannot be had.
        """
        uid = asked.study_instance_uid
        tried = self._tried(item, uid)  # before looking what is here: what a retrieval brings is here when it has ended
        study, state = self._store.studies.view(uid), self._store.studies.state(uid)
        if study is not None and asked.patient_id and {patient for patient, _ in study.patients} - {asked.patient_id}:
            raise Unperformable("its study is another patient's", WRONG_ENTRY)
        absent = self._store.notices.absent(uid, asked.named)
        if study is not None and study.instances and not absent and (asked.named or state is StudyState.COMPLETE):
            return _part(study, asked.series)
        if study is not None and state is StudyState.CONFLICT:
            raise Unperformable("the study is held: a person must look at it first", OF_CAUSE[Cause.FORMAT])
        if study is None or absent:
            self._fetch(item, asked, tried, now)
        return None

    def _tried(self, item: Workitem, study_instance_uid: str) -> Mapping[str, Retrieval]:
        """Return how a study was asked of remotes since the workitem came, by their names; nothing while it is not known which study."""
        if not study_instance_uid:
            return {}
        found = self._store.retrievals.list(study_instance_uid=study_instance_uid, limit=100)
        return {one.remote: one for one in found if one.requested_at >= item.created_at}

    def _fetch(self, item: Workitem, asked: Errand, tried: Mapping[str, Retrieval], now: float) -> None:
        """Ask for the inputs of whom the workitem names, once; give up when that failed, or when nobody brings them in time.

        Raises
        ------
        Unperformable: they cannot be had.
        """
        uid, config = asked.study_instance_uid, self._site.config
        remotes = [name for name, remote in config.remotes.items() if can_bring(remote, asked.retrieve_aes, asked.retrieve_urls)]
        if any(not one.state.has_ended for one in tried.values()):
            return
        untried = [name for name in remotes if uid and name not in tried]
        if untried:
            why = f"workitem {item.uid} asks for {asked.model}"
            self._store.retrievals.ask(untried[0], uid, who="node", why=why, now=now, wanted_for=uid)
            return
        if any(one.state is RetrievalState.COMPLETED for one in tried.values()) and asked.named:
            raise Unperformable("those who are said to have its inputs do not have all of them", OF_CAUSE[Cause.INCOMPLETE])
        if tried:
            raise Unperformable(f"its inputs could not be fetched: {next(iter(tried.values())).reason}", OF_CAUSE[Cause.INCOMPLETE])
        if now - max(item.created_at, item.scheduled_at) > config.worklist.wait_for_inputs_s:
            raise Unperformable(f"its inputs did not come within {config.worklist.wait_for_inputs_s:g} s", OF_CAUSE[Cause.INCOMPLETE])

    def _job(self, item: Workitem, asked: Errand, study: Study, deliver: tuple[str, ...], now: float) -> Job:
        """Return the job that performs a workitem.

        Raises
        ------
        Unperformable: the inputs do not suit the model, or are so many that it is not said which is meant.
        """
        rule = Rule(name="workitem", derived=True, analyse=(asked.model,), deliver=deliver, priority=item.priority)
        whole = with_keywords(study, self._store, self._site.models[asked.model].manifest.keywords)
        routing = route(whole, (rule,), self._site.models, select, recognised, now=now)
        if not routing.jobs:
            raise Unperformable(_why_not(routing), OF_CAUSE[Cause.TYPES])
        if len(routing.jobs) > 1:
            many = f"{len(routing.jobs)} of its inputs suit {asked.model}, each by itself: name one series, or one image"
            raise Unperformable(many, OF_CAUSE[Cause.TYPES])
        (job,) = routing.jobs
        who = item.manager or item.requester or "somebody"
        return replace(job, why=f"asked for by {who}; {job.why.partition('; ')[2]}", revision=max(study.revision, 1))


def _why_not(routing: Routing) -> str:
    return "; ".join(model.why for trace in routing.traces for model in trace.models) or "the study has no images"


def _part(study: Study, series: Mapping[str, tuple[str, ...]]) -> Study:
    """Return a study with those of its instances that are named: whole series where only these are."""
    if not series:
        return study
    named = {uid: frozenset(instances) for uid, instances in series.items()}

    def is_meant(of: str, sop_instance_uid: str) -> bool:
        return of in named and (not named[of] or sop_instance_uid in named[of])

    return replace(study, instances=tuple(one for one in study.instances if is_meant(one.series_instance_uid, one.sop_instance_uid)))
