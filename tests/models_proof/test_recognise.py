"""recognise on two real CT and a real MR, and on drawn bodies: by pixels and geometry alone."""

import time

import numpy as np
import pytest

from dicom_node import Unsuitable
from dicom_node.methods.lettering import letters_in_line
from tests.models_proof import code, sample, scanned, settled, volume
from tests.test_looking import MM, chest, head, lettered, mr_head

AFFINE = np.diag([MM, MM, MM, 1.0])[[2, 1, 0, 3]]  # (slice, row, column) to x, y, z


def answers(image):
    findings = settled("recognise", code("recognise").load(None, "cpu")(image=image), image)
    return findings.evaluations, findings.notes


@pytest.mark.parametrize(("name", "expected"), [("chest-ct", ("CT", "chest")), ("head-ct", ("CT", "head"))])
def test_real_ct_is_recognised_without_a_header(name, expected):
    image = scanned(sample(name), "HPL")
    started = time.perf_counter()
    found, notes = answers(image)
    print(f"{found} {notes} in {time.perf_counter() - started:.2f} s")
    assert (found["modality"], found["body_part"]) == expected
    assert (found["plane"], found["annotation"]) == ("axial", "none")


@pytest.mark.parametrize(("orientation", "plane"), [("HPL", "axial"), ("PHL", "coronal"), ("LHP", "sagittal")])
def test_the_same_head_cut_otherwise_is_the_same_head(orientation, plane):
    found, _ = answers(scanned(sample("head-ct"), orientation))
    assert (found["body_part"], found["plane"]) == ("head", plane)


def test_a_real_mr_is_no_ct():
    found, _ = answers(scanned(sample("head-mr"), "RFP"))
    assert (found["modality"], found["plane"]) == ("MR", "sagittal")
    assert found["body_part"] in ("head", "unknown"), "its size alone is known"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chest-ct", "head-mr", "head-ct"])
def test_no_letters_are_found_where_there_are_none(name):
    planes = scanned(sample(name), "HPL").array
    found = [index for index, plane in enumerate(planes) if letters_in_line(plane)]
    print(f"{name}: letters in {len(found)} of {len(planes)} slices")
    assert found == []


@pytest.mark.parametrize(
    ("array", "expected"), [(head(), ("CT", "head", "none")), (chest()[::2], ("CT", "unknown", "none")), (mr_head(12, 550), ("MR", "head", "none"))]
)
def test_drawn_bodies_are_recognised_or_left_open(array, expected):
    """A chest of half the length is left open: it may be a heart."""
    found, _ = answers(volume(array, AFFINE))
    assert (found["modality"], found["body_part"], found["annotation"]) == expected


def test_text_in_the_pixels_is_present():
    array = np.stack([lettered(plane, 10, 1500.0) for plane in head(5)])
    found, notes = answers(volume(array, AFFINE))
    assert found["annotation"] == "burned-in" and any("letters stand in lines" in note for note in notes)


@pytest.mark.parametrize("value", [0.0, -1000.0])
def test_empty_images_are_declined(value):
    with pytest.raises(Unsuitable, match="all pixels"):
        answers(volume(np.full((12, 32, 32), value), AFFINE))
