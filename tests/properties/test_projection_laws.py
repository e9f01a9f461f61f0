"""Whatever the file: an image that hangs together, or a sentence that declines it; and a radiograph is the same whichever way it is stored."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from dicom_node.assemble.volume import assemble
from dicom_node.config import Input
from dicom_node.domain import Unsuitable
from tests import phantoms, projections

BRIGHT = Input(kind="projection", photometric="MONOCHROME2", allow_derived=True)
COLOURED = ("SC_ybr_full_422_uncompressed.dcm", "SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_small_odd.dcm")


@cache
def files() -> tuple[bytes, ...]:
    """Return some projection images as files: radiographs of both polarities, and colour in several codings."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = phantoms.write([projections.image("CR"), projections.image("DX", PhotometricInterpretation="MONOCHROME1")], Path(folder))
        return (*(path.read_bytes() for path in drawn), *(Path(get_testdata_file(name)).read_bytes() for name in COLOURED))


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, len(COLOURED) + 1),
    changes=st.lists(st.tuples(st.integers(132, 4000), st.integers(0, 255)), max_size=8),
    keep=st.integers(1, 10),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_file_is_an_image_or_is_declined(which, changes, keep):
    """Nothing else comes out of it: neither an error of a library nor a value that is no number."""
    data = bytearray(files()[which])
    for at, value in changes:
        data[at % len(data)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.dcm"
        path.write_bytes(data if keep > 1 else data[: len(data) // 2])
        try:
            found = assemble([path], BRIGHT)
        except Unsuitable as error:
            assert str(error) and folder not in str(error)
        else:
            assert found.volume.array.shape[0] == 1 and np.isfinite(found.volume.array).all()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(8, 16),
    st.integers(0, 2**31),
    st.floats(0.25, 4).map(lambda slope: round(slope, 3)),
    st.integers(-1000, 1000),
)
def test_both_polarities_of_one_radiograph_are_one_image(bits, seed, slope, intercept):
    """PS3.3 C.7.6.3.1.2: stored the other way round it is as bright, for any bits and any rescale."""
    stored = np.random.default_rng(seed).integers(0, 2**bits, (4, 6)).astype(np.uint16)
    rescale = {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
    seen = []
    for photometric, array in (("MONOCHROME2", stored), ("MONOCHROME1", (2**bits - 1 - stored).astype(np.uint16))):
        image = projections.image("CR", array, bits=bits, PhotometricInterpretation=photometric, **rescale)
        with tempfile.TemporaryDirectory() as folder:
            seen.append(assemble(phantoms.write([image], Path(folder)), BRIGHT).volume.array)
    assert np.allclose(*seen, rtol=1e-6, atol=0.05)
