"""Asks rules about studies that the node holds, and changes nothing: the rules of now, or rules that a person is still writing."""

from collections.abc import Mapping
from typing import Any

from dicom_node.assemble.completeness import judge
from dicom_node.assemble.recognition import recognised, warnings
from dicom_node.config import Site
from dicom_node.domain import RECOGNITION_KEYWORDS, Discontinuation, Job, NodeError, Study, fault
from dicom_node.serve.judging import NOBODY, ask_rules, evidence_of, policy_of, routing_of, with_keywords
from dicom_node.store import Store
from dicom_node.web import Explanation, Tried


def explained(site: Site, store: Store, study_instance_uid: str, now: float) -> Explanation | None:
    """Say for a study what each series is recognised as, which rules match, what would run, and for every no the reason."""
    study = store.studies.view(study_instance_uid)
    if study is None:
        return None
    study = with_keywords(study, store, site.keywords.union(RECOGNITION_KEYWORDS))
    routing = ask_rules(site, study, now, _short(site, store, study, now))
    warned = {series.series_instance_uid: warnings(recognised(series)) for series in study.series}
    return Explanation(
        why=routing.why,
        rules=routing.as_detail()["rules"],
        recognised=routing.recognised,
        warnings={uid: said for uid, said in warned.items() if said},
    )


def tried(edited: Site, store: Store, studies: int, now: float) -> tuple[Tried, ...]:
    """Say for the last studies what edited rules would make of them, beside what was made."""
    return tuple(_tried(edited, store, row, now) for row in store.studies.list(limit=studies))


def _tried(edited: Site, store: Store, row: Mapping[str, Any], now: float) -> Tried:
    uid, received_at = row["study_instance_uid"], row["last_received_at"]
    study = store.studies.view(uid)
    if study is None:
        return Tried(study_instance_uid=uid, received_at=received_at, why="", matching=(), problem="it is gone")
    try:
        routing = routing_of(edited, store, study, now, _short(edited, store, study, now))
    except (NodeError, LookupError, ValueError, TypeError, AttributeError) as error:  # a study that cannot be judged would be held
        return Tried(study_instance_uid=uid, received_at=received_at, why="", matching=(), problem=fault(error))
    made = {_key(job): job for job in reversed(store.jobs.list(study_instance_uid=uid, limit=1000)) if _stands(job)}
    would = {_key(job): job for job in routing.jobs}
    both = [(made[key], would[key]) for key in would if key in made]
    return Tried(
        study_instance_uid=uid,
        received_at=received_at,
        why=routing.why,
        matching=tuple(trace.rule for trace in routing.traces if trace.matched),
        same=tuple(was for was, will in both if _goes(was) == _goes(will)),
        more=tuple(job for key, job in would.items() if key not in made),
        less=tuple(job for key, job in made.items() if key not in would),
        moved=tuple((was, will) for was, will in both if _goes(was) != _goes(will)),
    )


def _short(site: Site, store: Store, study: Study, now: float) -> tuple[str, ...]:
    return tuple(judge(evidence_of(store, study, NOBODY), policy_of(site), now).short)


def _key(job: Job) -> tuple[str, frozenset[tuple[str, frozenset[int]]]]:
    """Return what an analysis is of, whatever the model's build."""
    return job.model, frozenset((name, frozenset(ids)) for name, ids in job.inputs.items())


def _stands(job: Job) -> bool:
    return job.discontinuation is not Discontinuation.SUPERSEDED


def _goes(job: Job) -> tuple[frozenset[str], int]:
    return frozenset(job.deliver), int(job.priority)
