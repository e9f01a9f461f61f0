"""What a region of a CT is like in numbers: shape, histogram and texture as the IBSI defines them, in bins of 25 HU, and filters."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dicom_node import Findings
from dicom_node.methods.radiomics import CT_BINS, describe


def load(folder: Path, device: str) -> Callable[..., Findings]:
    """Return the analysis; it needs neither files nor an accelerator."""
    return partial(describe, binning=CT_BINS)
