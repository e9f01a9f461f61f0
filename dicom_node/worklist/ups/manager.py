"""The Task Manager: what DIMSE and HTTP ask of workitems, done once (PS3.4 CC.2; IHE AIW-I).

Who may ask is known by whoever is asked; what may be done is decided by `states` and `attributes`; it is done in the ledger, in one transaction
with what watchers are to be told.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag

from dicom_node.config import Model, NodeConfig
from dicom_node.domain import (
    FILTERED_SUBSCRIPTION,
    GLOBAL_SUBSCRIPTION,
    Channel,
    JobState,
    Raising,
    Refused,
    ReportKind,
    Subscription,
    Workitem,
    is_ae_title,
    is_uid,
)
from dicom_node.store import Change, Store
from dicom_node.worklist.attributes import INVALID_VALUE, MISSING_ATTRIBUTE, NOT_AUTHORISED, RESOURCE_LIMITATION, needed
from dicom_node.worklist.ups import search
from dicom_node.worklist.ups.attributes import (
    CREATED_WITH_CHANGES,
    changed,
    coded,
    codes_of,
    created,
    dataset_of,
    hidden,
    model_of,
    priority_of,
    readiness_of,
    start_of,
    study_of,
    unfinished,
)
from dicom_node.worklist.ups.ours import asked_model
from dicom_node.worklist.ups.presented import INPUTS, Evidence, Station, presented
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

_WARNINGS = frozenset({ALREADY_CANCELED, ALREADY_COMPLETED})
_PAGE = 200
_REASON_CHARACTERS = 1024
_TAKEN_BACK, _GIVEN_UP = "it was asked to be canceled", "its performer gave it up"
_SUBSCRIPTIONS_MAX = 1_000  # to worklists, of all receivers
_ASSIGNING = ("ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence", "HumanPerformerCodeSequence", "HumanPerformerOrganization")

_SAYS: Mapping[int, str] = {
    0x0111: "there is such a step already",
    0xC300: "the step may no longer be updated",
    0xC301: "the Transaction UID is missing, or is not the one that the step was claimed with",
    0xC302: "the step is in progress already",
    0xC303: "the state may become SCHEDULED by N-CREATE alone",
    0xC304: "the step does not say what its final state requires",
    0xC307: "there is no such step",
    0xC310: "the step is not in progress",
    0xC311: "the step is completed",
}


class Manager:
    """The workitems of this node."""

    def __init__(self, config: NodeConfig, models: Mapping[str, Model], store: Store, clock: Callable[[], float]) -> None:
        self._config = config
        self._models = models
        self._store = store
        self._clock = clock
        web = config.worklist.address.rstrip("/")
        self.station = Station(
            ae_title=config.node.ae_title,
            worklist_label=config.worklist.label,
            retrieve_url=f"{web}/dicom-web" if web else "",
            contact_url=f"{web}/jobs/" if web else "",
        )

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
            raise _refused(decide(Wish.CREATE, JobState.SCHEDULED).status)
        return given, CREATED_WITH_CHANGES if is_changed else SUCCESS

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
            patient_id=str(kept.get("PatientID") or ""),
            requester=requester,
            readiness=readiness_of(kept),
            scheduled_at=start_of(kept),
        )
        return item, is_changed

    def get(self, uid: str, wanted: Sequence[int] = ()) -> Dataset:
        """Return a step; wanted: tags of the attributes that are asked for, all where there are none (PS3.4 CC.2.7).

        Raises
        ------
        Refused: there is none (C307).
        """
        whole = hidden(self._presented([self._found(uid)], with_inputs=not wanted or _INPUT_TAG in wanted)[0])
        if not wanted:
            return whole
        asked = Dataset()
        asked.update({tag: whole[tag] for tag in wanted if tag in whole})
        if "SpecificCharacterSet" in whole:
            asked.SpecificCharacterSet = whole.SpecificCharacterSet
        return asked

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
                raise _refused(status)
            before = dataset_of(item.attributes)
            after = changed(before, said, self._clock())
            return Change(
                attributes=model_of(after),
                priority=priority_of(said) if "ScheduledProcedureStepPriority" in said else None,
                readiness=readiness_of(said) if "InputReadinessState" in said else None,
                reports=_reports_of(item, said),
                study_instance_uid=study_of(after),
                values={"scheduled_at": start_of(said)} if "ScheduledProcedureStepStartDateTime" in said else {},
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
                raise _refused(status)
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
        why = ""
        if to is JobState.CANCELED:
            progress = held.ProcedureStepProgressInformationSequence[0]
            why = str(progress.get("ReasonForCancellation") or _GIVEN_UP)[:_REASON_CHARACTERS]
            facts |= {"reason": why, "code": codes_of(progress, "ProcedureStepDiscontinuationReasonCodeSequence")[0]}
        return Change(
            state=to,
            attributes=model_of(held),
            reason=why,
            reports=[(ReportKind.STATE, facts)],
            who=who,
            why="it was completed" if to is JobState.COMPLETED else _GIVEN_UP,
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
                raise _refused(status)
            why = reason or _TAKEN_BACK
            if outcome.effect is Effect.CANCEL_UNCLAIMED:
                return self.stops(item, code, why, who)
            if item.job is not None:
                return self.stops(item, code, why, who)
            told = (ReportKind.CANCEL_REQUESTED, {"requester": who, "reason": reason, "code": code, **contact})
            return Change(reports=[told], who=who, why="its performer is asked to cancel it")

        self._change(uid, decided)
        return status

    def stops(self, item: Workitem, code: tuple[str, str, str], why: str, who: str) -> Change:
        """Return how a step that waits, or that a job of this node performs, is canceled: with its job, unless others want that too."""
        given_up = replace(self.gives_up(item, code, why, who), why=_TAKEN_BACK)  # the journal quotes nobody: what others write may name a patient
        if item.job is None:
            return given_up
        if any(other.uid != item.uid and other.ended_at is None for other in self._store.workitems.of_job(item.job.id)):
            alone = {"job_id": None, "state": JobState.CANCELED, "ended_at": None if item.manager else self._clock()}
            return replace(given_up, values=alone)
        return Change(reports=_begun(item), cancel=why, who=who)

    def gives_up(self, item: Workitem, code: tuple[str, str, str], why: str, who: str) -> Change:
        """Return how a step that no job performs is canceled: with its reason, and through IN PROGRESS where nobody had claimed it."""
        held = dataset_of(item.attributes)
        progress = list(held.get("ProcedureStepProgressInformationSequence") or []) or [Dataset()]
        held.ProcedureStepProgressInformationSequence = progress
        progress[0].ReasonForCancellation = why
        progress[0].ProcedureStepDiscontinuationReasonCodeSequence = [coded(*code)]
        unfinished(held, JobState.CANCELED, self._clock())  # fills in when
        ended = (ReportKind.STATE, {"state": JobState.CANCELED, "readiness": item.readiness, "reason": why, "code": code})
        return Change(state=JobState.CANCELED, attributes=model_of(held), reason=why, reports=[*_begun(item), ended], who=who, why=why)

    def _change(self, uid: str, decided: Callable[[Workitem], Change]) -> None:
        def of_ours(item: Workitem) -> Change:
            if item.manager:
                raise _refused(NO_SUCH_WORKITEM)
            return decided(item)

        if not is_uid(uid) or self._store.workitems.change(uid, of_ours, now=self._clock()) is None:
            raise _refused(NO_SUCH_WORKITEM)

    def _found(self, uid: str) -> Workitem:
        item = self._store.workitems.get(uid) if is_uid(uid) else None
        if item is None or item.manager:  # another manager's is to be asked for there
            raise _refused(NO_SUCH_WORKITEM)
        return item

    # ------------------------------------------------------------------------------------------------------------ the worklist

    def find(self, keys: Dataset) -> Iterator[tuple[Dataset, bool]]:
        """Yield what is asked for of every step that matches, and whether all keys are supported (PS3.4 CC.2.8).

        A data set without any key matches nothing.

        Raises
        ------
        Refused: the keys cannot be read.
        """
        asked = search.asked(keys)
        if asked is None:
            return
        for _, whole in self._matching(asked):
            yield asked.answer(whole)

    def matching(self, keys: Dataset) -> Iterator[Dataset]:
        """Yield every step that matches, whole."""
        asked = search.asked(keys)
        if asked is not None:
            for _, whole in self._matching(asked):
                yield whole

    def _matching(self, asked: search.Asked) -> Iterator[tuple[Workitem, Dataset]]:
        after = 0
        while page := self._store.workitems.page(*asked.conditions, after=after, limit=_PAGE):
            after = page[-1][0]
            items = [item for _, item in page]
            for item, whole in zip(items, map(hidden, self._presented(items, with_inputs=asked.with_inputs)), strict=True):
                if asked.matches(whole):
                    yield item, whole

    def _presented(self, items: Sequence[Workitem], *, with_inputs: bool = True) -> list[Dataset]:
        """Return steps as others see them; with_inputs: with every instance of their inputs, of which there may be thousands."""
        if not with_inputs:
            items = [replace(item, attributes={tag: said for tag, said in item.attributes.items() if tag != _INPUTS_KEY}) for item in items]
        ids: dict[str, list[int]] = {item.uid: [i for of in item.job.inputs.values() for i in of] for item in items if item.job is not None}
        wanted = {i for of in ids.values() for i in (of if with_inputs else of[:1])}
        instances = {one.id: one for one in self._store.instances.by_ids(sorted(wanted))} if wanted else {}
        shown = []
        for item in items:
            inputs = [instances[i] for i in ids.get(item.uid, ()) if i in instances]
            header = inputs[0].header if inputs else {}
            outputs = self._outputs(item.uid) if item.job is not None and item.job.state is JobState.COMPLETED else ()
            evidence = Evidence(header=header, inputs=inputs if with_inputs else (), outputs=outputs)
            shown.append(presented(item, self.station, evidence, self._models))
        return shown

    def _outputs(self, uid: str) -> list[tuple[Any, list[str]]]:
        remotes = self._config.remotes
        made = self._store.workitems.outputs(uid)
        return [(one, [remotes[name].ae.title for name in names if name in remotes]) for one, names in made]

    # ------------------------------------------------------------------------------------------------------------ subscribers

    def subscribe(self, uid: str, receiver: str, *, channel: Channel, deletion_lock: bool = False, keys: Dataset | None = None) -> int:
        """Let an AE be told of a step, of all, or of all that match (PS3.4 CC.2.3); return the status.

        Raises
        ------
        Refused: there is no such step, or the receiver is no AE title.
        """
        if not is_ae_title(receiver):
            raise Refused("ReceivingAE is no AE title", status=INVALID_VALUE)
        is_filtered = uid == FILTERED_SUBSCRIPTION
        if is_filtered and (keys is None or search.asked(keys) is None):
            raise Refused("a filtered subscription has keys", status=MISSING_ATTRIBUTE)
        is_worklist = is_filtered or uid == GLOBAL_SUBSCRIPTION
        if is_worklist and len(self._store.subscriptions.list(uid=uid)) >= _SUBSCRIPTIONS_MAX:
            raise Refused("too many subscribe to the worklist", status=RESOURCE_LIMITATION)
        now = self._clock()
        wanted = Subscription(
            receiver=receiver,
            channel=channel,
            workitem_uid=uid,
            deletion_lock=deletion_lock,
            keys=model_of(keys) if is_filtered and keys is not None else {},
            created_at=now,
        )
        if not is_worklist:
            self._found(uid)
        self._store.subscriptions.subscribe(wanted, now=now)
        asked = search.asked(keys) if is_filtered and keys is not None else None
        meant = [item.uid for item, _ in self._matching(asked)] if asked is not None else []
        for start in range(0, len(meant), _PAGE):
            self._store.subscriptions.match(wanted, meant[start : start + _PAGE], now=now)
        return SUCCESS

    def unsubscribe(self, uid: str, receiver: str) -> None:
        """End a subscription; of the worklist: every one of the receiver's (PS3.4 CC.2.3.3)."""
        if uid not in (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION):
            self._found(uid)
        self._store.subscriptions.unsubscribe(receiver, uid)

    def suspend(self, uid: str, receiver: str) -> None:
        """Subscribe an AE to no further steps; what it is told of it goes on being told of.

        Raises
        ------
        Refused: it is not the worklist that is named (C314).
        """
        if uid not in (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION):
            raise Refused("only a subscription to the worklist is suspended", status=0xC314)
        self._store.subscriptions.suspend(receiver)

    def compare(self) -> int:
        """Compare new steps with the filters of those who watch only some; return how many steps were compared."""
        new = self._store.subscriptions.to_compare()
        filters = [(one, search.asked(dataset_of(one.keys))) for one in self._store.subscriptions.list(uid=FILTERED_SUBSCRIPTION)] if new else []
        for _, uid in new:
            item = self._store.workitems.get(uid)
            if item is None or item.manager:
                continue
            whole = hidden(self._presented([item])[0])
            for one, asked in filters:
                if asked is not None and asked.matches(whole):
                    self._store.subscriptions.match(one, [uid], now=self._clock())
        self._store.subscriptions.told([key for key, _ in new])
        return len(new)


_INPUT_TAG = Tag(INPUTS)
_INPUTS_KEY = f"{_INPUT_TAG:08X}"  # as the DICOM JSON Model writes it


def _label(said: Dataset) -> str:
    """Return how a step is called, as the journal may tell it: a label may name a patient, a code does not."""
    codes = codes_of(said, "ScheduledWorkitemCodeSequence")
    return codes[0][2] or codes[0][0] if codes else "a workitem"


def _begun(item: Workitem) -> list[tuple[ReportKind, dict[str, Any]]]:
    """Return what watchers are told before the end of a step: that it was begun, where nobody had; its table goes through IN PROGRESS."""
    return [] if item.is_claimed else [(ReportKind.STATE, {"state": JobState.IN_PROGRESS, "readiness": item.readiness})]


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


def _refused(status: int) -> Refused:
    return Refused(_SAYS.get(status, "it cannot be done"), status=status)
