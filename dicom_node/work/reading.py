"""The inputs of one analysis put together, and how long each step of it took."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dicom_node.assemble.regions import assemble_regions
from dicom_node.assemble.volume import assemble
from dicom_node.config import Input
from dicom_node.domain import Assembled


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


def assembled(paths: Sequence[Path], wanted: Input, before: Mapping[str, Assembled]) -> Assembled:
    """Put one input together; regions lie on an image that was put together before."""
    return assemble(paths, wanted) if wanted.of is None else assemble_regions(paths, before[wanted.of])
