"""Which findings raise a study's place among those that wait to be read, and by which routes."""

from collections.abc import Collection
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dicom_node.config.notify import FindingWanted
from dicom_node.config.outputs import CodeValue
from dicom_node.domain import Priority

_OF_MODELS = "99DICOMNODE"  # the scheme of codes that ask for this node's models


class Triage(BaseModel):
    """Findings that raise a study's place, and where it is raised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    findings: tuple[FindingWanted, ...] = Field(min_length=1)  # any one of them
    priority: Literal["HIGH", "MEDIUM"] = "HIGH"
    workitem: CodeValue | None = None  # of the step that a reader finds on this node's worklist (UPS); none: there is none
    jobs: bool = False  # whether what still waits to be analysed of the study goes first
    worklist_comment: str = Field(default="", max_length=200)  # before the comments of its entries in Modality Worklist; empty: they stay as they are

    @property
    def rank(self) -> Priority:
        """The priority that it raises to."""
        return Priority[self.priority]

    @model_validator(mode="after")
    def _raises_something(self) -> Self:
        if self.workitem is None and not self.jobs and not self.worklist_comment:
            raise ValueError(f"triage '{self.name}' raises nothing: give it `workitem`, `jobs` or `worklist_comment`")
        return self


def objection(one: Triage, models: Collection[str], codes: Collection[tuple[str, str]], *, has_worklist: bool) -> str:
    """Return why a site cannot raise studies so, continuing "triage 'NAME' …"; empty: it can.

    codes: by which others ask for this node's models. has_worklist: whether it offers Modality Worklist.
    """
    unknown = next((wanted.model for wanted in one.findings if wanted.model and wanted.model not in models), "")
    if unknown:
        return f"asks for findings of '{unknown}', which is not among [models]: {', '.join(models) or 'none'}"
    if one.worklist_comment and not has_worklist:
        return "has a worklist_comment, but Modality Worklist is not offered: name worklist.folder"
    if one.workitem is not None and (one.workitem.scheme == _OF_MODELS or (one.workitem.value, one.workitem.scheme) in codes):
        return "has a workitem that asks for a model, not for a reader: give it a code of the site's own"
    return ""
