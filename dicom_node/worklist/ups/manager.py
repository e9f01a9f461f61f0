"""The Task Manager: what DIMSE and HTTP ask of workitems, done once (PS3.4 CC.2; IHE AIW-I).

Who may ask is known by whoever is asked; what may be done is decided by `states` and `attributes`; it is done in the ledger, in one transaction
with what watchers are to be told.
"""

import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from pydicom import Dataset

from dicom_node.domain import (
    JobState,
    Priority,
    Raising,
    Refused,
    Rejected,
    ReportKind,
    Workitem,
    is_uid,
)
from dicom_node.store import Change
from dicom_node.worklist.attributes import INVALID_VALUE, NOT_AUTHORISED, needed
from dicom_node.worklist.ups.attributes import (
    CREATED_WITH_CHANGES,
    changed,
    codes_of,
    created,
    dataset_of,
    discontinue,
    hidden,
    model_of,
    moment,
    priority_of,
    readiness_of,
    start_of,
    study_of,
    unfinished,
)
from dicom_node.worklist.ups.ours import asked_model
from dicom_node.worklist.ups.presented import INPUTS, PERFORMED
from dicom_node.worklist.ups.reading import reading_step
from dicom_node.worklist.ups.reasons import UNSPECIFIED
from dicom_node.worklist.ups.states import (
    ALREADY_CANCELED,
    ALREADY_COMPLETED,
    NO_SUCH_WORKITEM,
    NOT_READY_TO_END,
    SUCCESS,
    Effect,
    Wish,
    decide,
    may_be_set,
)
from dicom_node.worklist.ups.watched import Watched, refused
from dicom_node.worklist.ups.wishes import analysis

_WARNINGS = frozenset({ALREADY_CANCELED, ALREADY_COMPLETED})
_REASON_CHARACTERS = 1024
# What a job that performs a step says of it, and nobody else: passed over in an N-SET, as what names the step is.
_OF_JOB = frozenset({"InputReadinessState", INPUTS, PERFORMED, "ProcedureStepProgressInformationSequence"})
_ASSIGNING = ("ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence", "HumanPerformerCodeSequence", "HumanPerformerOrganization")


class Manager(Watched):
    """The workitems of this node, for whoever may create and change them, too."""

    def model_of(self, said: Dataset) -> str | None:
        """Return the model of this node that a step asks for, by its Scheduled Workitem Code; None: it asks for none."""
        return asked_model(said, self._config)

    # --------------------------------------------------------------------------------------------------------- one workitem

    def create(self, said: Dataset, *, uid: str = "", requester: str) -> tuple[str, int]:
        """Create a step, and return its UID with the status: success, or B300 where something was filled in (PS3.4 CC.2.5).

        uid: empty where the requester leaves it to this node. requester: who asks, for the record.

        Raises
        ------
        Refused: it is there already (0111), or does not say what it must.
        """
        if uid and not is_uid(uid):
            raise Refused("Affected SOP Instance UID is no UID", status=INVALID_VALUE)
        now, given = self._clock(), uid or f"2.25.{uuid.uuid4().int}"
        item, is_changed = self._drafted(said, given, requester, now)
        if not self._store.workitems.create(item, now=now, why=f"{requester} asks for '{_label(said)}'"):
            raise refused(decide(Wish.CREATE, JobState.SCHEDULED).status)
        return given, CREATED_WITH_CHANGES if is_changed else SUCCESS

    def ask_for(self, model: str, study_instance_uid: str, priority: Priority, *, requester: str) -> str:
        """Create the step that asks this node for an analysis of a study that is here, and return its UID.

        Raises
        ------
        Rejected: there is no such model, or nothing of the study is here.
        Refused: the study is larger than a step may name.
        """
        known = self._models.get(model)
        if known is None:
            raise Rejected("that is not a model that the site runs", hint="Name it in [models].")
        study = self._store.studies.view(study_instance_uid)
        if study is None or not study.instances:
            raise Rejected("nothing of that study is here", hint="Fetch it, or send it.")
        uid, _ = self.create(analysis(study, model, known, self.station, priority, self._clock()), requester=requester)
        return uid

    def reading(self, raised: Raising) -> Workitem:
        """Return the step by which a reader finds a study that was raised; whoever raises it puts it on the worklist.

        Raises
        ------
        Rejected: the job that found something is gone.
        """
        now, job = self._clock(), self._store.jobs.get(raised.job_id)
        images = self._store.instances.by_ids([i for of in job.inputs.values() for i in of][:1])
        titles = [self._config.remotes[name].ae.title for name in job.deliver if name in self._config.remotes]
        order = self._store.orders.of_study(raised.study_instance_uid)
        said = reading_step(raised, images[0].header if images else {}, order, self.station, titles, now)
        return self._drafted(said, raised.workitem_uid, "", now)[0]

    def _drafted(self, said: Dataset, uid: str, requester: str, now: float) -> tuple[Workitem, bool]:
        """Return a new step as it is kept, and whether anything was filled in or left out.

        Raises
        ------
        Refused: it does not say what it must.
        """
        kept, is_changed = created(said, uid_given=uid, now=now, worklist_label=self._config.worklist.label)
        item = Workitem(
            uid=uid,
            state=JobState.SCHEDULED,
            priority=priority_of(kept),
            attributes=model_of(kept),
            study_instance_uid=study_of(kept),
            requester=requester,
            readiness=readiness_of(kept),
            scheduled_at=start_of(kept),
        )
        return item, is_changed

    def set(self, uid: str, said: Dataset, *, who: str) -> int:
        """Change what a step says, as N-SET does (PS3.4 CC.2.6); said: with the Transaction UID of the claim, once there is one.

        Raises
        ------
        Refused: there is none, it has ended, the Transaction UID is wrong, or a value is.
        """
        given = str(said.get("TransactionUID") or "")

        def decided(item: Workitem) -> Change:
            status = may_be_set(item.state, given=given, held=item.key)
            if status != SUCCESS:
                raise refused(status)
            new = said if item.job is None else _without(said, _OF_JOB)
            after = changed(dataset_of(item.attributes), new, self._clock())
            return Change(
                attributes=model_of(after),
                priority=priority_of(new) if "ScheduledProcedureStepPriority" in new else None,
                readiness=readiness_of(new) if "InputReadinessState" in new else None,
                reports=_reports_of(item, new),
                study_instance_uid=study_of(after),
                values={"scheduled_at": start_of(new)} if "ScheduledProcedureStepStartDateTime" in new else {},
                who=who,
            )

        self._change(uid, decided)
        return SUCCESS

    def change_state(self, uid: str, said: Dataset, *, who: str) -> int:
        """Change a step's state, as the first action does (PS3.4 CC.2.1); said: the state, and the Transaction UID.

        Raises
        ------
        Refused: the table of states says no, what the state requires is missing, or this node performs the step itself.
        """
        to, given = needed(said, "ProcedureStepState"), str(said.get("TransactionUID") or "")
        if to not in tuple(JobState):
            raise Refused("ProcedureStepState is none that a step has", status=INVALID_VALUE)
        if given and not is_uid(given):
            raise Refused("TransactionUID is no UID", status=INVALID_VALUE)
        status = SUCCESS

        def decided(item: Workitem) -> Change:
            nonlocal status
            outcome = decide(Wish(to), item.state, given=given, held=item.key)
            status = outcome.status
            if outcome.effect is Effect.NONE:
                if status in _WARNINGS:
                    return Change()
                raise refused(status)
            if outcome.effect is Effect.CLAIM:
                if item.job is not None:
                    raise Refused("this node performs the step itself", status=NOT_AUTHORISED)
                return Change(
                    state=JobState.IN_PROGRESS,
                    transaction_uid=given,
                    performer=who,
                    reports=[(ReportKind.STATE, {"state": JobState.IN_PROGRESS, "readiness": item.readiness})],
                    who=who,
                    why="it was claimed",
                )
            return self._ended(item, JobState(to), who)

        self._change(uid, decided)
        return status

    def _ended(self, item: Workitem, to: JobState, who: str) -> Change:
        now, held = self._clock(), dataset_of(item.attributes)
        missing = unfinished(held, to, now)
        if missing:
            raise Refused(f"{', '.join(missing)}: missing", status=NOT_READY_TO_END)
        facts: dict[str, Any] = {"state": to, "readiness": item.readiness}
        why = "it was completed"
        if to is JobState.CANCELED:
            progress = held.ProcedureStepProgressInformationSequence[0]
            code = codes_of(progress, "ProcedureStepDiscontinuationReasonCodeSequence")[0]
            facts |= {"reason": str(progress.get("ReasonForCancellation") or "")[:_REASON_CHARACTERS], "code": code}
            why = f"its performer gave it up ({code[0]}, {code[1]})"  # its own words may name a patient
        return Change(
            state=to,
            attributes=model_of(held),
            reason=facts.get("reason", ""),
            reports=[(ReportKind.STATE, facts)],
            who=who,
            why=why,
        )

    def ask_to_cancel(self, uid: str, said: Dataset, *, who: str) -> int:
        """Ask for a step to be canceled (PS3.4 CC.2.2): at once while it waits; else its performer is told, and decides.

        Raises
        ------
        Refused: there is none, or it is completed.
        """
        model_of(said)  # what cannot be kept is refused
        reason = str(said.get("ReasonForCancellation") or "").strip()[:_REASON_CHARACTERS]
        given = codes_of(said, "ProcedureStepDiscontinuationReasonCodeSequence")
        code = given[0] if given and all(given[0][:2]) else UNSPECIFIED
        contact = {"contact_uri": str(said.get("ContactURI") or ""), "contact_name": str(said.get("ContactDisplayName") or "")}
        status = SUCCESS

        def decided(item: Workitem) -> Change:
            nonlocal status
            outcome = decide(Wish.ASK_TO_CANCEL, item.state)
            status = outcome.status
            if outcome.effect is Effect.NONE:
                if status in _WARNINGS:
                    return Change()
                raise refused(status)
            if outcome.effect is Effect.CANCEL_UNCLAIMED or item.job is not None:
                return self.stops(item, code, reason, who)
            told = (ReportKind.CANCEL_REQUESTED, {"requester": who, "reason": reason, "code": code, **contact})
            return Change(reports=[told], who=who, why=_wish(who, code))

        self._change(uid, decided)
        return status

    def stops(self, item: Workitem, code: tuple[str, str, str], why: str, who: str) -> Change:
        """Return how a step that waits, or that a job of this node performs, is canceled: with its job, unless others want that too.

        why: in the words of who asked; they stay in the step, for they may name a patient: the journal and the job have who asked, and the code.
        """
        asked = _wish(who, code)
        given_up = replace(self.gives_up(item, code, why or asked, who), why=asked)
        if item.job is None:
            return given_up
        if any(other.uid != item.uid and other.ended_at is None for other in self._store.workitems.of_job(item.job.id)):
            alone = {"job_id": None, "state": JobState.CANCELED, "ended_at": None if item.manager else self._clock()}
            return replace(given_up, values=alone)
        return Change(reports=_begun(item), cancel=asked, who=who)

    def gives_up(self, item: Workitem, code: tuple[str, str, str], why: str, who: str) -> Change:
        """Return how a step that no job performs is canceled: with its reason, and through IN PROGRESS where nobody had claimed it."""
        held = dataset_of(item.attributes)
        progress = list(held.get("ProcedureStepProgressInformationSequence") or []) or [Dataset()]
        held.ProcedureStepProgressInformationSequence = progress
        discontinue(progress[0], why, code, str(progress[0].get("ProcedureStepCancellationDateTime") or moment(self._clock())))
        if not why.isascii():
            held.SpecificCharacterSet = "ISO_IR 192"  # it was said in another one than the step, perhaps
        ended = (ReportKind.STATE, {"state": JobState.CANCELED, "readiness": item.readiness, "reason": why, "code": code})
        return Change(state=JobState.CANCELED, attributes=model_of(held), reason=why, reports=[*_begun(item), ended], who=who, why=why)

    def _change(self, uid: str, decided: Callable[[Workitem], Change]) -> None:
        def of_ours(item: Workitem) -> Change:
            if item.manager:
                raise refused(NO_SUCH_WORKITEM)
            return decided(item)

        if not is_uid(uid) or self._store.workitems.change(uid, of_ours, now=self._clock()) is None:
            raise refused(NO_SUCH_WORKITEM)


def _label(said: Dataset) -> str:
    """Return how a step is called, as the journal may tell it: a label may name a patient, a code does not."""
    codes = codes_of(said, "ScheduledWorkitemCodeSequence")
    return codes[0][2] or codes[0][0] if codes else "a workitem"


def _without(said: Dataset, keywords: Collection[str]) -> Dataset:
    kept = Dataset()
    kept.update({element.tag: element for element in said if element.keyword not in keywords})
    return kept


def _begun(item: Workitem) -> list[tuple[ReportKind, dict[str, Any]]]:
    """Return what watchers are told before the end of a step: that it was begun, where nobody had; its table goes through IN PROGRESS."""
    return [] if item.is_claimed else [(ReportKind.STATE, {"state": JobState.IN_PROGRESS, "readiness": item.readiness})]


def _wish(who: str, code: tuple[str, str, str]) -> str:
    return f"{who} asked for it to be canceled ({code[0]}, {code[1]})"


def _reports_of(item: Workitem, said: Dataset) -> list[tuple[ReportKind, dict[str, Any]]]:
    """Return what watchers are told of an N-SET: progress, readiness, and who is to perform it."""
    reports: list[tuple[ReportKind, dict[str, Any]]] = []
    if "InputReadinessState" in said and readiness_of(said) is not item.readiness:
        reports.append((ReportKind.STATE, {"state": item.state, "readiness": readiness_of(said)}))
    for progress in list(said.get("ProcedureStepProgressInformationSequence") or [])[:1]:
        contacts = progress.get("ProcedureStepCommunicationsURISequence") or []
        facts = {"progress": _fraction(progress), "note": text_of(progress, "ProcedureStepProgressDescription")}
        uri = str(contacts[0].get("ContactURI") or "") if contacts else ""
        reports.append((ReportKind.PROGRESS, facts | ({"contact_uri": uri} if uri else {})))
    assigned = Dataset()
    assigned.update({element.tag: element for element in said if element.keyword in _ASSIGNING})
    if len(assigned):
        reports.append((ReportKind.ASSIGNED, {"attributes": model_of(hidden(assigned))}))
    return reports


def text_of(item: Dataset, keyword: str) -> str:
    """Return a text of an item, not longer than a report takes."""
    return str(item.get(keyword) or "")[:_REASON_CHARACTERS]


def _fraction(progress: Dataset) -> float:
    try:
        return min(max(float(progress.get("ProcedureStepProgress") or 0) / 100, 0.0), 1.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
