"""A job that a person has run again, whether by a verb, a page or the API."""

from typing import TYPE_CHECKING

from dicom_node.config import Site
from dicom_node.domain import Job, Rejected

if TYPE_CHECKING:
    from dicom_node.store import Store


def run_again(store: "Store", site: Site, job_id: int, *, who: str, now: float) -> Job:
    """Make a new job of the same inputs, with the model's present build; its results name the earlier ones as predecessors.

    Raises
    ------
    Rejected: there is no such job, or its model is not configured any more.
    """
    old = store.jobs.get(job_id)
    model = site.models.get(old.model)
    if model is None:
        raise Rejected(f"model {old.model} of job {job_id} is not configured any more", hint="Add it to [models].")
    return store.jobs.again(job_id, who=who, now=now, device_uid=model.device_uid, model_version=model.manifest.version)
