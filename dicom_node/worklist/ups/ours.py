"""Which workitems this node performs: those that name one of its models, and no other station. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from pydicom import Dataset

from dicom_node.config import NodeConfig, Remote
from dicom_node.worklist.ups.attributes import codes_of, inputs_of, study_of
from dicom_node.worklist.ups.presented import OWN_SCHEME

_STATIONS = ("ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a workitem asks of this node."""

    model: str
    study_instance_uid: str  # empty where it names the order alone
    accession_number: str = field(repr=False)
    patient_id: str = field(repr=False)
    series: Mapping[str, tuple[str, ...]]  # series → instances, all where it names none; empty: the whole study
    retrieve_aes: tuple[str, ...]  # titles of those who are said to have the inputs
    retrieve_urls: tuple[str, ...]  # where they are said to be had by WADO-RS
    destinations: tuple[str, ...] | None  # titles of those who are to have the results; None: it does not say
    problem: str = ""  # why it cannot be performed here, though it asks for it

    @property
    def named(self) -> tuple[str, ...]:
        """The instances that it names."""
        return tuple(uid for instances in self.series.values() for uid in instances)


def errand(said: Dataset, config: NodeConfig) -> Errand | str:
    """Return what a workitem asks of this node, or why it is not for this node (IHE AIW-I 4.82.4.1.1)."""
    model = asked_model(said, config)
    if model is None:
        return "its Scheduled Workitem Code is none of this node's models"
    if elsewhere := for_others(said, config):
        return elsewhere
    inputs, study, accession = inputs_of(said), study_of(said), _accession(said)
    problem = "" if study or accession else "it does not name one study as its input"
    return Errand(
        model=model,
        study_instance_uid=study,
        accession_number=accession,
        patient_id=str(said.get("PatientID") or "").strip(),
        series=inputs.get(study, {}),
        retrieve_aes=_said_by_all(said, retrieve_aes),
        retrieve_urls=_said_by_all(said, retrieve_urls),
        destinations=destinations(said),
        problem=problem,
    )


def asked_model(said: Dataset, config: NodeConfig) -> str | None:
    """Return the model that a Scheduled Workitem Code names: by its own name, or by a code that the site gave it."""
    known = {(value, scheme): name for name, choice in config.models.items() for value, scheme in choice.workitem_codes}
    for value, scheme, _ in codes_of(said, "ScheduledWorkitemCodeSequence"):
        if scheme == OWN_SCHEME and value in config.models:
            return value
        if (value, scheme) in known:
            return known[value, scheme]
    return None


def for_others(said: Dataset, config: NodeConfig) -> str:
    """Return why a workitem is for somebody else: it names another station, or a person; empty: it is not."""
    stations = codes_of(said, _STATIONS[0])
    if stations and config.node.ae_title not in {value for value, _, _ in stations}:
        return "it names another station"
    if codes_of(said, _STATIONS[1]) and not stations:
        return "it names a class of stations"
    if said.get("ScheduledHumanPerformersSequence"):
        return "it names a person who is to perform it"
    return ""


def _accession(said: Dataset) -> str:
    """Return the accession number of a workitem's only request; empty where there is none, or several."""
    found = {str(item.get("AccessionNumber") or "").strip() for item in said.get("ReferencedRequestSequence") or ()}
    return found.pop() if len(found) == 1 else ""


def can_bring(remote: Remote, titles: Collection[str], urls: Collection[str]) -> bool:
    """Say whether a remote is among those who are said to have something, and studies are fetched from it.

    titles: of AEs (0008,0054). urls: of WADO-RS (0008,1190). No URL of a workitem is ever asked: it only says which remote is meant.
    """
    return remote.retrieve != "none" and (
        remote.ae.title in titles or (bool(remote.web_url) and any(is_beneath(one, remote.web_url) for one in urls))
    )


def is_beneath(url: str, root: str) -> bool:
    """Say whether a URL is of the studies of DICOMweb services: the same scheme, host and port, and a path below theirs."""
    try:
        one, top = urlsplit(url), urlsplit(root)
        same = one.scheme == top.scheme and _host(one) == _host(top)
    except ValueError:
        return False
    steps = one.path.split("/")
    return same and "@" not in one.netloc and ".." not in steps and one.path.startswith(f"{top.path.rstrip('/')}/studies/")


def _host(url: SplitResult) -> tuple[str, int | None]:
    return (url.hostname or "").rstrip("."), url.port or {"http": 80, "https": 443}.get(url.scheme)


def retrieve_aes(item: Dataset) -> tuple[str, ...]:
    """Return the titles of those who are said to have an input."""
    return _values(item, "DICOMRetrievalSequence", "RetrieveAETitle")


def retrieve_urls(item: Dataset) -> tuple[str, ...]:
    """Return where an input is said to be had by WADO-RS."""
    return _values(item, "WADORSRetrievalSequence", "RetrieveURL")


def _values(item: Dataset, sequence: str, keyword: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(way.get(keyword) or "").strip() for way in item.get(sequence) or () if way.get(keyword)))


def _said_by_all(said: Dataset, of: Callable[[Dataset], tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for item in said.get("InputInformationSequence") or () for one in of(item)))


def destinations(said: Dataset) -> tuple[str, ...] | None:
    """Return the titles of those who are to have the results; None: it does not say."""
    items: Sequence[Dataset] = said.get("OutputDestinationSequence") or ()
    if not items:
        return None
    ways = [way for item in items for way in item.get("DICOMStorageSequence") or (Dataset(),)]
    return tuple(dict.fromkeys(str(way.get("DestinationAE") or "").strip() or "a place that is no application entity" for way in ways))


def receivers(config: NodeConfig) -> dict[str, str]:
    """Return the names of the remotes to which this node sends, by their titles."""
    return {remote.ae.title: name for name, remote in config.remotes.items() if "receive" in remote.may}
