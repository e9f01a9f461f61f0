"""What another manager is told of a step that this node performs for it: data sets for its N-SET, and when. Pure."""

from collections.abc import Collection, Mapping, Sequence

from pydicom import Dataset
from pydicom.charset import convert_encodings

from dicom_node.domain import DeliveryState, Job, JobState, Result, Workitem
from dicom_node.worklist.ups.attributes import codes_of, dataset_of, discontinue, moment
from dicom_node.worklist.ups.events import progressed
from dicom_node.worklist.ups.presented import PERFORMED, Evidence, Station, performed, progress_of
from dicom_node.worklist.ups.reasons import UNSPECIFIED

PROGRESS = "ProcedureStepProgressInformationSequence"
_REASONS = "ProcedureStepDiscontinuationReasonCodeSequence"
_STORED = (DeliveryState.SENT, DeliveryState.COMMITTED)
_GIVEN_UP = (DeliveryState.DEAD, DeliveryState.CANCELED)
_TEXT = 1024  # characters of an ST

Whereabouts = Sequence[tuple[Result, Mapping[str, DeliveryState]]]


def progress(item: Workitem, station: Station) -> Dataset:
    """Return how far a claimed step is: per cent, a sentence, and where a person can look."""
    job = item.job
    if job is not None and item.state is not JobState.SCHEDULED:
        said = Dataset()
        said.ProcedureStepProgressInformationSequence = progress_of(job, item.state, station)
    else:
        note = "it waits for its turn" if job is not None else item.reason or "its inputs are being fetched"
        contact = f"{station.contact_url}{job.id}" if job is not None and station.contact_url else ""
        said = progressed({"progress": 0.0, "note": note, "contact_uri": contact})
    return _worded(said, item)


def canceled(item: Workitem, station: Station, now: float) -> Dataset:
    """Return what must be said before a step is canceled: when and why, in words and as a code (PS3.4 Table CC.2.5-3)."""
    said = Dataset()
    if item.job is not None:
        setattr(said, PROGRESS, progress_of(item.job, JobState.CANCELED, station))
    else:
        kept = (dataset_of(item.attributes).get(PROGRESS) or [Dataset()])[0]
        at, code = str(kept.get("ProcedureStepCancellationDateTime") or moment(now)), next(iter(codes_of(kept, _REASONS)), UNSPECIFIED)
        setattr(said, PROGRESS, [discontinue(Dataset(), item.reason[:_TEXT], code, at)])
    said[PROGRESS].value[0].ProcedureStepProgressDescription = str(said[PROGRESS].value[0].get("ReasonForCancellation") or "")[:_TEXT]
    return _worded(said, item)


def completed(item: Workitem, job: Job, station: Station, made: Whereabouts, titles: Mapping[str, str]) -> Dataset:
    """Return what must be said before a step is completed: who did what, when, and every object that came of it with where it is.

    titles: of the remotes, by their names.
    """
    scheduled = dataset_of(item.attributes)
    outputs = [(one, [titles[name] for name, state in to.items() if state in _STORED and name in titles]) for one, to in made]
    said = Dataset()
    setattr(said, PROGRESS, progress_of(job, JobState.COMPLETED, station))
    setattr(said, PERFORMED, performed(scheduled, job, station, Evidence(outputs=outputs)))
    return _worded(said, item)


def awaited(made: Whereabouts, wanted: Collection[str]) -> bool:
    """Say whether results are still on their way: to the destinations that the step names, to all of the job's where it names none."""
    states = [state for one, to in made if not one.problem for name, state in to.items() if not wanted or name in wanted]
    return any(state not in (*_STORED, *_GIVEN_UP) for state in states)


def _worded(said: Dataset, item: Workitem) -> Dataset:
    """Return what is said in the character set of the step, for an N-SET leaves its other texts as they are; what that lacks becomes "?"."""
    named = dataset_of(item.attributes).get("SpecificCharacterSet")
    texts = [element for element in said.iterall() if isinstance(element.value, str) and not element.value.isascii()]
    if not texts:
        return said
    said.SpecificCharacterSet = named or "ISO_IR 192"  # a step that names none has nothing but ASCII in it, which is the same in UTF-8
    codecs = convert_encodings(said.SpecificCharacterSet)
    codec = codecs[0] if len(codecs) == 1 else "ascii"
    for element in texts:
        element.value = element.value.encode(codec, "replace").decode(codec)
    return said
