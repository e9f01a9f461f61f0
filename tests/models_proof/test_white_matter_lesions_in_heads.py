"""white-matter-lesions as a whole, networks and DICOM too, on real T1 with a FLAIR made from maps of the tissues, with balls planted and without."""

from functools import cache

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from dicom_node.analyse.contract import on_grid
from dicom_node.work import try_model
from tests import phantoms
from tests.models_proof import code, dice, fetched, model, sample, scanned
from tests.models_proof.made_flair import SPACING_MM, balls, pair
from tests.models_proof.test_brain_tissue import mni152
from tests.models_proof.test_white_matter_lesions import ball_ml, motion

RADII_MM = (6.0, 5.0, 4.0, 3.0, 3.0, 2.5)
MOVED = motion((3, -2, 4), (3, -4, 2))
T1 = {"EchoTime": 2.5, "RepetitionTime": 1900, "MRAcquisitionType": "3D"}
FLAIR = {"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500, "ScanningSequence": ["SE", "IR"], "MRAcquisitionType": "2D"}


@cache
def head():
    """Return the real head MR with its tissues as brain-tissue tells them: no truth of the tissues, but of skull, scalp and folds."""
    t1 = scanned(sample("head-mr"), "RFP")
    found = code("brain_tissue").load(model("brain_tissue").folder, "cpu", fetched("brain_tissue"))(mr=t1)
    tissues, _ = on_grid(found.segments, t1)
    return t1, np.moveaxis(tissues, -1, 0) / np.float32(255)


@cache
def template():
    """Return MNI152, which has no skull, with its published tissue maps."""
    t1, grey, white = (scanned(mni152(name), "RFP") for name in ("t1", "gm", "wm"))
    grey, white = (one.array / np.float32(255) for one in (grey, white))
    return t1, np.stack([np.clip((t1.array > 0) - grey - white, 0, 1), grey, white])


def scan(of, radii_mm=RADII_MM):
    t1, shares = of()
    return pair(t1, shares, balls(t1, shares, radii_mm), MOVED)


def tried(heads, folder):
    """Return what the node makes of both series as DICOM: T1 sagittal, FLAIR axial."""
    series = ((heads.t1, "sagittal", T1), (heads.flair, "axial", FLAIR))
    files = []
    for number, (one, orientation, header) in enumerate(series, start=1):
        stored = np.rint(one.array * (4000 / one.array.max())).astype(np.int16)
        place = {"orientation": orientation, "spacing_mm": tuple(one.spacing), "origin_mm": tuple(one.affine[:3, 3])}
        images = phantoms.series(stored, modality="MR", rescale=None, number=number, **place, **header)
        files += phantoms.write(images, folder / str(number))
    return try_model(model("white_matter_lesions"), files, folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize("of", [head, template])
def test_balls_in_the_white_matter_of_a_real_head_are_found(of, tmp_path):
    """Six of 5 to 12 mm across, FLAIR of 3 mm, moved: each alone, no other, volume within 10 %, Dice 0.9; objects without an error of dciodvfy."""
    heads = scan(of)
    trial = tried(heads, tmp_path)
    said, true_ml = trial.findings.measurements, sum(ball_ml(radius) for radius in RADII_MM)
    mask, _ = on_grid(trial.findings.segments, heads.flair)
    print(f"{dict(said)}, true {true_ml:.2f} mL, Dice {dice(mask > 0, heads.lesions):.3f}, {trial.seconds}")
    planted, number = ndimage.label(heads.lesions, np.ones((3, 3, 3)))
    assert said["count"] == number == len(RADII_MM) and set(np.unique(planted[mask > 0])) >= set(range(1, number + 1))
    assert said["volume"] == pytest.approx(true_ml, rel=0.10)
    assert dice(mask > 0, heads.lesions) >= 0.9
    assert trial.problems == ()
    segmentation = next(dataset for dataset in map(dcmread, trial.objects) if dataset.Modality == "SEG")
    assert np.count_nonzero(segmentation.pixel_array) * np.prod(SPACING_MM) / 1000 == pytest.approx(said["volume"])


@pytest.mark.slow
def test_a_real_head_without_lesions_is_a_coded_negative(tmp_path):
    """No candidate at all, and a report that says "absent", without an error of dciodvfy."""
    trial = tried(scan(head, radii_mm=()), tmp_path)
    assert trial.findings.measurements["count"] == 0 and trial.findings.evaluations["lesions"] == "absent"
    assert trial.problems == ()
