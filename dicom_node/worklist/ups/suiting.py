"""Which steps of another manager's worklist this node claims (IHE AIW-I 4.82.4.1.1): decided without I/O.

What it asks of the node is read by `ours`, as of the node's own worklist. One that could not be finished here is never claimed: it stays for others.
"""

from collections.abc import Callable, Iterable, Mapping

from pydicom import Dataset

from dicom_node.config import NodeConfig
from dicom_node.domain import JobState, Readiness, Refused
from dicom_node.worklist.attributes import text
from dicom_node.worklist.ups.attributes import inputs_of, priority_of, start_of
from dicom_node.worklist.ups.ours import can_bring, errand, receivers, retrieve_aes, retrieve_urls
from dicom_node.worklist.ups.presented import INPUTS, OWN_SCHEME

Coded = tuple[str, str]  # value and scheme designator of a code
Held = Callable[[str], frozenset[str]]  # of a study: the SOP Instance UIDs that are here


def codes(config: NodeConfig) -> tuple[Coded, ...]:
    """Return the workitem codes by which this node is asked for its models."""
    own = [(name, OWN_SCHEME) for name in config.models]
    return tuple(dict.fromkeys([*own, *(code for model in config.models.values() for code in model.workitem_codes)]))


def declined(said: Dataset, config: NodeConfig, held: Held, now: float) -> str:
    """Return why this node does not claim a step, in words that name nobody; empty: it claims it."""
    try:
        return _not_now(said, now) or _not_here(said, config) or _absent(said, config, held)
    except Refused as error:
        return str(error)


def _not_now(said: Dataset, now: float) -> str:
    if text(said, "ProcedureStepState") != JobState.SCHEDULED:
        return "it is not scheduled"
    if text(said, "InputReadinessState") != Readiness.READY:
        return "its inputs are not ready"
    priority_of(said)
    return "it is to begin later" if start_of(said) > now else ""


def _not_here(said: Dataset, config: NodeConfig) -> str:
    asked = errand(said, config)
    if isinstance(asked, str):
        return asked
    if said.get("ScheduledStationGeographicLocationCodeSequence"):
        return "it names a place"
    if set(asked.destinations or ()) - receivers(config).keys():
        return "its results are to go elsewhere: to no remote with `receive`"
    return asked.problem


def _absent(said: Dataset, config: NodeConfig, held: Held) -> str:
    """Return what keeps the node from having the inputs."""
    if not inputs_of(said):
        return "it names no inputs"
    for item in said.get(INPUTS) or ():
        if str(item.get("TypeOfInstances") or "DICOM") != "DICOM":
            return "an input is no DICOM object"
        titles, urls = retrieve_aes(item), retrieve_urls(item)
        if not any(can_bring(remote, titles, urls) for remote in config.remotes.values()) and not _is_here(item, held):
            return "an input is to be had from no remote with `retrieve`"
    return ""


def _is_here(item: Dataset, held: Held) -> bool:
    named = {str(one.get("ReferencedSOPInstanceUID") or "") for one in item.get("ReferencedSOPSequence") or ()}
    here = held(str(item.get("StudyInstanceUID") or "")) if named else frozenset()
    return bool(named) and named <= here


def rank(said: Dataset) -> tuple[int, str]:
    """Return the place of a step among those that wait: HIGH first, then by its start."""
    try:
        named = text(said, "ScheduledProcedureStepPriority"), text(said, "ScheduledProcedureStepStartDateTime")
    except Refused:
        named = "", ""
    return {"HIGH": 0, "MEDIUM": 1, "LOW": 2}.get(named[0], 3), named[1]


def may_be_new(facts: Mapping[str, object]) -> bool:
    """Say whether what was reported is of a step that could be claimed; what is not told may be so."""
    state, readiness = facts.get("state", JobState.SCHEDULED), facts.get("readiness", Readiness.READY)
    return state == JobState.SCHEDULED and readiness == Readiness.READY


def uids(found: Iterable[Dataset]) -> list[str]:
    """Return the steps of a worklist in the order in which they are claimed."""
    return [str(one.SOPInstanceUID) for one in sorted(found, key=rank)]
