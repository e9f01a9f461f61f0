"""Which findings raise a study's place: a pure decision over what a job's reports say and what the site wants."""

from collections.abc import Sequence

from dicom_node.config import Triage
from dicom_node.domain import REJECTION, Raising, Result
from dicom_node.notify.findings import Said
from dicom_node.store import Event

FRESH_S = 7 * 86400.0  # what was found longer ago raises nothing: it has been read, or nobody waits for it any more
_MOST = 10  # findings that are told one by one


def raising(rule: Triage, event: Event, met: Sequence[Said], results: Sequence[Result], algorithm: str, now: float) -> Raising | None:
    """Return what a rule raises by the end of a job; None when it does not.

    event: that the job is completed. met: what its reports say that the rule asks for. results: all that it made.
    """
    if not met or event.kind != "completed" or event.job_id is None or now - event.at > FRESH_S:
        return None
    told = list(dict.fromkeys(one.words for one in met))
    more = [f"and {len(told) - _MOST} more"] if len(told) > _MOST else []
    return Raising(
        rule=rule.name,
        study_instance_uid=event.study_instance_uid,
        priority=rule.rank,
        job_id=event.job_id,
        algorithm=algorithm,
        findings=(*told[:_MOST], *more),
        results=tuple(one for one in results if not one.problem and one.kind != REJECTION),
        code=(rule.workitem.value, rule.workitem.scheme, rule.workitem.meaning) if rule.workitem is not None else None,
        jobs=rule.jobs,
        comments=bool(rule.worklist_comment),
    )
