"""The inputs of one analysis put together, and how long each step of it took."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dicom_node.assemble.looking import checked
from dicom_node.assemble.regions import assemble_regions
from dicom_node.assemble.volume import assemble
from dicom_node.config import Manifest
from dicom_node.domain import Assembled, Job, Unsuitable


class Steps:
    """How long each step of a job took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def end(self, step: str) -> None:
        """End a step; the next begins."""
        now = time.perf_counter()
        self.seconds[step], self._since = round(now - self._since, 3), now

    def __str__(self) -> str:
        return ", ".join(f"{step} {seconds:.2f} s" for step, seconds in self.seconds.items())


def assembled(manifest: Manifest, files: Callable[[str], Sequence[Path]], notes: Sequence[str] = ()) -> dict[str, Assembled]:
    """Put a model's inputs together, each of its files, in the manifest's order: regions lie on an image that comes before them.

    files: of an input; none where it takes a series of an earlier study and there is none: it is left out then. An earlier series that cannot be
    put together is left out as well, and a note says why.
    notes: what is known of the study, each a sentence; the first input carries it, for job and report.

    Raises
    ------
    Unsuitable: the files make no such volume, or its headers and pixels together show something else than the model asks for.
    """
    inputs: dict[str, Assembled] = {}
    said = [*notes]
    for name, wanted in manifest.inputs.items():
        try:
            if paths := files(name):
                inputs[name] = assemble_regions(paths, inputs[wanted.of]) if wanted.of else checked(assemble(paths, wanted), wanted)
        except Unsuitable as error:
            if not wanted.prior:
                raise
            said.append(f"The earlier series cannot be used: {error}.")
    first = next(iter(inputs))
    inputs[first] = replace(inputs[first], notes=(*inputs[first].notes, *said))
    return inputs


def known_of(job: Job) -> tuple[str, ...]:
    """Return what is to be said of a job's study beside its images, each a sentence."""
    said = [f"When the study was judged, images were known to be missing: {job.short}."] if job.short else []
    return (*said, job.priors.told) if job.priors else tuple(said)
