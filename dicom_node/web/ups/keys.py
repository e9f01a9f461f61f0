"""What a search of the worklist asks for, read from its address, and what a filtered subscription means (PS3.18 11.9, 11.10). Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_node.web.dicomweb.criteria import Malformed, not_matched, path_of, read

MOST_RESULTS = 1_000  # of one answer: who wants more asks for the next page
INPUTS = "InputInformationSequence"  # which name thousands of instances: told where they are asked for

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_PAIR = re.compile(r",(?=[A-Za-z0-9.]{1,256}=)")  # a comma divides pairs; within a pair it divides UIDs
_ALWAYS = frozenset(  # PS3.4 Table CC.2.5-3, return keys of types 1 and 2, but the inputs
    {
        *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "ScheduledProcedureStepPriority", "ProcedureStepLabel"),
        *("ScheduledProcedureStepModificationDateTime", "WorklistLabel", "ScheduledProcedureStepStartDateTime", "ExpectedCompletionDateTime"),
        *("InputReadinessState", "ScheduledWorkitemCodeSequence", "ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence"),
        *("ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence", "ScheduledHumanPerformersSequence"),
        *("CommentsOnTheScheduledProcedureStep", "StudyInstanceUID", "OutputDestinationSequence", "PatientName", "PatientID"),
        *("IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AdmissionID", "ReferencedRequestSequence"),
        *("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search of the worklist."""

    keys: Dataset
    told: frozenset[str] | None  # keywords that are told of; None: all
    limit: int
    offset: int
    warnings: tuple[str, ...]

    def told_of(self, found: Dataset) -> Dataset:
        """Return what is told of a step."""
        if self.told is None:
            return found
        told = Dataset()
        told.update({element.tag: element for element in found if element.keyword in self.told})
        return told


def search(parameters: Sequence[tuple[str, str]]) -> Search:
    """Read a search.

    Raises
    ------
    Malformed: it is none.
    """
    said = read(parameters)
    keys, ignored = _keys(said.attributes)
    included = {path_of(name)[0] for name in said.included if name not in ("", "all")}
    is_all = "all" in said.included
    if (is_all or INPUTS in included) and INPUTS not in keys:
        setattr(keys, INPUTS, [])
    if "ProcedureStepState" not in keys:
        keys.ProcedureStepState = ""  # an address without keys means every step; a data set without any would mean none (PS3.4 CC.2.8.3.1)
    return Search(
        keys=keys,
        told=None if is_all else _ALWAYS | included | {element.keyword for element in keys},
        limit=min(said.limit, MOST_RESULTS),
        offset=said.offset,
        warnings=(*said.warnings, *((not_matched(ignored),) if ignored else ())),
    )


def filter_of(texts: Sequence[str]) -> Dataset:
    """Return what a filtered subscription means: attributes and their values, as `A=1,B=2`.

    Raises
    ------
    Malformed: it is none.
    """
    pairs = [pair.partition("=") for text in texts for pair in _PAIR.split(text) if pair]
    keys, ignored = _keys([(path_of(name.strip()), value) for name, _, value in pairs])
    if ignored or not len(keys):
        raise Malformed("a filter names attributes that can be matched, with their values")
    try:
        return Dataset.from_json(keys.to_json_dict())  # as the ledger keeps it
    except Exception as error:  # whatever pydicom raises of values that anybody may ask for
        raise Malformed("a filter has a value that is none of its kind") from error


def _keys(attributes: Sequence[tuple[list[str], str]]) -> tuple[Dataset, list[str]]:
    """Return a data set of keys, and the names of those that are not matched."""
    keys, ignored = Dataset(), list[str]()
    for path, value in attributes:
        if any(tag_for_keyword(one) is None for one in path):
            ignored.append(".".join(path))
        elif path != ["TransactionUID"]:  # neither matched nor told of (PS3.4 CC.2.8.1)
            _put(keys, path, value)
    return keys, ignored


def _put(keys: Dataset, path: Sequence[str], value: str) -> None:
    for keyword in path[:-1]:
        if dictionary_VR(keyword) != "SQ":
            raise Malformed(f"{keyword} is no sequence")
        if not keys.get(keyword):
            setattr(keys, keyword, [Dataset()])
        keys = keys[keyword].value[0]
    keyword = path[-1]
    vr = dictionary_VR(keyword).partition(" ")[0]
    if (vr == "SQ" and value) or vr in _BINARY:
        raise Malformed(f"{keyword} has a value that is not matched")
    if vr == "SQ":
        if keyword not in keys:
            setattr(keys, keyword, [])
        return
    if vr == "UI":
        value = value.replace(",", "\\")
    if keyword in keys and keys[keyword].value != (value or None):
        raise Malformed(f"{keyword} is asked for twice")
    try:
        keys[keyword] = DataElement(keyword, vr, value or None, validation_mode=config.IGNORE)
    except Exception as error:  # whatever pydicom raises of a value that anybody may ask for
        raise Malformed(f"{keyword} has a value that is none of its kind") from error
