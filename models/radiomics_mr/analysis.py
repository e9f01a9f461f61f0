"""What a region of an MR or PET is like in numbers: shape, histogram and texture as the IBSI defines them, in 32 bins, and filters."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dicom_node import Findings
from dicom_node.methods.radiomics import RELATIVE_BINS, describe


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return partial(describe, binning=RELATIVE_BINS)
