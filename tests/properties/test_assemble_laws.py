"""Laws of assembling: any order of arrival gives the same; any geometry is highdicom's; no bytes whatever cost more than a sentence."""

import tempfile
from functools import cache
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.assemble import Evidence, Policy, judge
from dicom_node.assemble.volume import assemble
from dicom_node.config import Input
from dicom_node.domain import Unsuitable
from tests import phantoms

ANY = Input()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A series of everything at once: two phases, a localizer, copies, images without number."""
    early = phantoms.series(phantoms.marked((5, 6, 4), (1, 1, 0)), modality="MR", orientation="oblique", AcquisitionNumber=1)
    for_uid = early[0].FrameOfReferenceUID
    late = phantoms.series(
        phantoms.marked((5, 6, 4), (2, 2, 0)), modality="MR", orientation="oblique", seed="late", AcquisitionNumber=2, FrameOfReferenceUID=for_uid
    )
    scout = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)), modality="MR", seed="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for image in (*early[::2], *late[1::2]):
        del image.InstanceNumber
    return phantoms.write([*early, *late, *scout, early[0]], tmp_path_factory.mktemp("mixed"))


@given(st.permutations(range(12)))
@settings(max_examples=40, deadline=None)
def test_any_order_of_arrival_gives_the_same_volume_sources_and_notes(mixed, order):
    first, again = assemble(mixed, ANY), assemble([mixed[index] for index in order], ANY)
    assert np.array_equal(first.volume.array, again.volume.array)
    assert np.array_equal(first.volume.affine, again.volume.affine)
    assert [source.SOPInstanceUID for source in first.sources] == [source.SOPInstanceUID for source in again.sources]
    assert first.notes == again.notes


@given(
    turn=st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1),
    spacing_mm=st.tuples(st.floats(0.3, 10), st.floats(0.2, 3), st.floats(0.2, 3)),
    origin_mm=st.tuples(*[st.floats(-800, 800)] * 3),
    order=st.permutations(range(4)),
)
@settings(max_examples=30, deadline=None)
def test_every_geometry_is_exactly_highdicoms(turn, spacing_mm, origin_mm, order):
    w, x, y, z = np.array(turn) / np.linalg.norm(turn)
    cosines = [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w), 2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)]
    images = phantoms.series(phantoms.marked((4, 5, 6), (1, 1, 1)), orientation=cosines, spacing_mm=spacing_mm, origin_mm=origin_mm)
    with tempfile.TemporaryDirectory() as folder:
        assembled = assemble(phantoms.write([images[index] for index in order], Path(folder)), Input(units="HU"))
    expected = hd.get_volume_from_series(images, apply_modality_transform=True)
    assert np.array_equal(assembled.volume.affine, expected.affine)
    assert np.array_equal(assembled.volume.array, expected.array.astype(np.float32))


@cache
def sound():
    """Return the bytes of small files, each of another encoding."""
    single, multi = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0))), [phantoms.enhanced(phantoms.marked((3, 6, 4), (0, 0, 0)))]
    with tempfile.TemporaryDirectory() as folder:
        made = [phantoms.write(images, Path(folder) / str(len(images[0])))[0].read_bytes() for images in (single, multi)]
        for images in (single, multi):
            images[0].compress("1.2.840.10008.1.2.4.80", encoding_plugin="pyjpegls", generate_instance_uid=False)
            made.append(phantoms.write(images, Path(folder) / "JPEG-LS")[0].read_bytes())
    return made


@given(data=st.data())
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_file_gives_a_volume_or_a_sentence_and_nothing_else(data):
    content = bytearray(sound()[data.draw(st.integers(0, 3))])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(132, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(132, len(content))))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.dcm"
        path.write_bytes(content)
        try:
            assembled = assemble([path], Input(units="HU"))
        except Unsuitable as refused:
            assert folder not in str(refused)
        else:
            assert assembled.volume.array.dtype == np.float32


@given(
    arrivals=st.lists(st.floats(0, 1e4), min_size=1, max_size=20).map(sorted),
    patience_s=st.floats(0, 1e3),
    asked=st.floats(0, 2e4),
)
def test_a_study_is_never_whole_before_its_quiet_period_and_always_at_the_time_it_was_told(arrivals, patience_s, asked):
    evidence = Evidence(instances=len(arrivals), first_received_at=arrivals[0], last_received_at=arrivals[-1])
    verdict = judge(evidence, Policy(complete_after_s=patience_s), asked)
    assert verdict.complete == (asked >= arrivals[-1] + patience_s)
    if not verdict.complete:
        assert verdict.look_again_at is not None
        assert judge(evidence, Policy(complete_after_s=patience_s), verdict.look_again_at).complete
