"""Which steps of another manager's worklist this node takes (IHE AIW-I 4.82.4.1.1): decided without I/O, from what a step says and what the site set.

A step that is not this node's, or that it could not finish, is never claimed: it stays for others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydicom import Dataset

from dicom_node.config import NodeConfig
from dicom_node.domain import JobState, Readiness, Refused
from dicom_node.worklist.attributes import text
from dicom_node.worklist.ups.attributes import codes_of, inputs_of, priority_of, start_of
from dicom_node.worklist.ups.presented import INPUTS, OWN_SCHEME

Coded = tuple[str, str]  # value and scheme designator of a code
Held = Callable[[str], frozenset[str]]  # of a study: the SOP Instance UIDs that are here

_ELSEWHERE: Mapping[str, str] = {
    "ScheduledStationClassCodeSequence": "a class of stations",
    "ScheduledStationGeographicLocationCodeSequence": "a place",
    "ScheduledHumanPerformersSequence": "a person",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What this node can take on."""

    ae_title: str
    codes: Mapping[Coded, str]  # -> the model that it means
    retrieves: Mapping[str, str]  # AE title -> the remote from which studies are fetched
    stores: Mapping[str, str]  # AE title -> the remote that may receive results

    @classmethod
    def of(cls, config: NodeConfig) -> "Abilities":
        """Return what a site's configuration lets the node take on."""
        own = {(name, OWN_SCHEME): name for name in config.models}
        mapped = {code: name for name, model in config.models.items() for code in model.workitem_codes}
        return cls(
            ae_title=config.node.ae_title,
            codes=own | mapped,
            retrieves={remote.ae.title: name for name, remote in config.remotes.items() if remote.retrieve != "none"},
            stores={remote.ae.title: name for name, remote in config.remotes.items() if "receive" in remote.may},
        )


def model_for(said: Dataset, able: Abilities) -> str:
    """Return the model that a step asks for; empty where it asks for none of this node's."""
    named = (able.codes.get((value, scheme), "") for value, scheme, _ in codes_of(said, "ScheduledWorkitemCodeSequence"))
    return next((model for model in named if model), "")


def destinations(said: Dataset, able: Abilities) -> tuple[str, ...]:
    """Return the remotes at which a step wants its results stored; this node itself is not among them.

    Raises
    ------
    Refused: it names a place to which this node does not send.
    """
    found: list[str] = []
    for item in said.get("OutputDestinationSequence") or ():
        ways = item.get("DICOMStorageSequence") or ()
        if not ways:
            raise Refused("its results are to go elsewhere than to an application entity", status=0)
        for way in ways:
            title = str(way.get("DestinationAE") or "").strip()
            if title in able.stores:
                found.append(able.stores[title])
            elif title != able.ae_title:
                raise Refused("its results are to go to an application entity that is no remote with `receive`", status=0)
    return tuple(dict.fromkeys(found))


def sources(item: Dataset, able: Abilities) -> tuple[str, ...]:
    """Return the remotes from which an item of the inputs can be fetched, by its retrieval sequence."""
    titles = (str(way.get("RetrieveAETitle") or "").strip() for way in item.get("DICOMRetrievalSequence") or ())
    return tuple(dict.fromkeys(able.retrieves[title] for title in titles if title in able.retrieves))


def declined(said: Dataset, able: Abilities, held: Held) -> str:
    """Return why this node does not claim a step, in words that name nobody; empty: it claims it."""
    try:
        if text(said, "ProcedureStepState") != JobState.SCHEDULED:
            return "it is not scheduled"
        if text(said, "InputReadinessState") != Readiness.READY:
            return "its inputs are not ready"
        priority_of(said)
        start_of(said)
        return _for_others(said, able) or _unreachable(said, able, held)
    except Refused as error:
        return str(error)


def _for_others(said: Dataset, able: Abilities) -> str:
    if not model_for(said, able):
        return "its workitem code is that of no model here"
    stations = {value for value, _, _ in codes_of(said, "ScheduledStationNameCodeSequence")}
    if stations and able.ae_title not in stations:
        return "it is for another station"
    return next((f"it is for {what}" for keyword, what in _ELSEWHERE.items() if said.get(keyword)), "")


def _unreachable(said: Dataset, able: Abilities, held: Held) -> str:
    """Return what keeps the node from having the inputs, or from storing the outputs, where they are to be."""
    destinations(said, able)
    items = said.get(INPUTS) or ()
    if not inputs_of(said):
        return "it names no inputs"
    for item in items:
        if str(item.get("TypeOfInstances") or "DICOM") != "DICOM":
            return "an input is no DICOM object"
        if not sources(item, able) and not _is_here(item, held):
            return "an input is to be had from no remote with `retrieve`"
    return ""


def _is_here(item: Dataset, held: Held) -> bool:
    named = {str(one.get("ReferencedSOPInstanceUID") or "") for one in item.get("ReferencedSOPSequence") or ()}
    here = held(str(item.get("StudyInstanceUID") or "")) if named else frozenset()
    return bool(named) and named <= here
