"""What a modality may say of a performed procedure step: decided here, without a socket, a row or the clock (PS3.4 Annex F)."""

from dataclasses import replace

from pydicom import Dataset

from dicom_node.domain import PerformedStep, Refused, StepState, is_uid
from dicom_node.worklist.attributes import (
    INVALID_VALUE,
    MISSING_ATTRIBUTE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    items,
    needed,
    needed_items,
    text,
    uid,
)

SOP_CLASS = "1.2.840.10008.3.1.2.3.3"

NO_LONGER_IN_PROGRESS = 0xA710  # an Error ID (0000,0903), PS3.4 F.7.2.2.3

_STUDIES_MAX = 16  # of one step; modalities group a few orders into one examination
_SERIES_MAX = 2_000
_INSTANCES_MAX = 100_000


class StepEnded(Refused):
    """Raised when a modality changes a step that has ended: the answer has an Error ID beside its status (PS3.4 F.7.2.2.3)."""


def begun(sop_instance_uid: str, attributes: Dataset) -> PerformedStep:
    """Return the step that an N-CREATE begins (PS3.4 F.7.2.1).

    Raises
    ------
    Refused: an attribute that a step must have is missing, empty or wrong.
    """
    if not is_uid(sop_instance_uid):
        raise Refused("Affected SOP Instance UID is no UID", status=INVALID_VALUE)
    if needed(attributes, "PerformedProcedureStepStatus") != StepState.IN_PROGRESS:
        raise Refused("a step begins IN PROGRESS", status=INVALID_VALUE)
    needed(attributes, "PerformedProcedureStepID")
    return PerformedStep(
        sop_instance_uid=sop_instance_uid,
        study_instance_uids=_studies(attributes),
        state=StepState.IN_PROGRESS,
        modality=needed(attributes, "Modality"),
        station=needed(attributes, "PerformedStationAETitle"),
        started=needed(attributes, "PerformedProcedureStepStartDate") + needed(attributes, "PerformedProcedureStepStartTime"),
        series=_series(attributes),
    )


def changed(step: PerformedStep, attributes: Dataset) -> PerformedStep:
    """Return the step as an N-SET leaves it; what the N-SET does not name stays (PS3.4 F.7.2.2).

    Raises
    ------
    StepEnded: the step has ended, and nothing of it changes any more.
    Refused: the state is none, or the step would end without saying what it made.
    """
    if step.has_ended:
        raise StepEnded("the step may no longer be updated", status=PROCESSING_FAILURE)
    said = text(attributes, "PerformedProcedureStepStatus")
    if said and said not in tuple(StepState):
        raise Refused("Performed Procedure Step Status is none that PS3.3 knows", status=INVALID_VALUE)
    state = StepState(said) if said else step.state
    series = _series(attributes) if "PerformedSeriesSequence" in attributes else step.series
    if state is StepState.COMPLETED and not series:
        raise Refused("a step that ends lists its series", status=MISSING_ATTRIBUTE)
    ended = text(attributes, "PerformedProcedureStepEndDate") + text(attributes, "PerformedProcedureStepEndTime")
    return replace(step, state=state, series=series, ended=ended or step.ended)


def _studies(attributes: Dataset) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(uid(item, "StudyInstanceUID") for item in needed_items(attributes, "ScheduledStepAttributesSequence")))
    if len(found) > _STUDIES_MAX:
        raise Refused(f"a step of more than {_STUDIES_MAX} studies is not kept", status=RESOURCE_LIMITATION)
    return found


def _series(attributes: Dataset) -> dict[str, tuple[str, ...]]:
    series: dict[str, dict[str, None]] = {}
    for item in items(attributes, "PerformedSeriesSequence") or ():
        instances = series.setdefault(uid(item, "SeriesInstanceUID"), {})
        for keyword in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence"):
            instances |= dict.fromkeys(uid(one, "ReferencedSOPInstanceUID") for one in items(item, keyword) or ())
    if len(series) > _SERIES_MAX or sum(map(len, series.values())) > _INSTANCES_MAX:
        raise Refused(f"more than {_SERIES_MAX} series or {_INSTANCES_MAX} instances of one step are not kept", status=RESOURCE_LIMITATION)
    return {key: tuple(instances) for key, instances in series.items()}
