"""Triage: that a finding raises a study's place among those that wait, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.domain.jobs import Result
from dicom_node.domain.names import derived_uid
from dicom_node.domain.states import Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Raising:
    """One rule that the findings of one job meet. It raises a study once, whichever of the study's jobs meet it."""

    rule: str  # the name of an entry of [[triage]]
    study_instance_uid: str
    priority: Priority
    job_id: int
    algorithm: str  # name and version
    findings: Sequence[str]  # in words; no patient is named in them
    results: Sequence[Result] = ()  # what the job made, for the reader
    code: tuple[str, str, str] | None = None  # of the reader's step: value, scheme designator, meaning; none: there is to be no step
    jobs: bool = False  # whether waiting jobs of the study go first
    comments: bool = False  # whether its entries in Modality Worklist are answered with a comment

    @property
    def workitem_uid(self) -> str:
        """The UID of the reader's step: of one study and rule always the same."""
        return derived_uid("triage", self.study_instance_uid, self.rule)
