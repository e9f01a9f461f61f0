"""white-matter-lesions on drawn brains with lesions of known size, on FLAIR that was moved, and on what has none; no real FLAIR was at hand."""

from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dicom_node import Findings, Unsuitable
from dicom_node.analyse.contract import settle
from tests.models_proof import code, dice, model, volume
from tests.models_proof.drawn_brain import FLAIR, LESION, T1, drawn

GRID = {"spacing_mm": (2.0, 1.5, 1.5), "shape": (76, 123, 101)}  # of the FLAIR, the T1 and their heads' middles alike
FINE = {"spacing_mm": (1.2, 1.2, 1.2), "shape": (126, 154, 126)}  # of the FLAIR, for what is small
THICK = {"spacing_mm": (5.0, 1.0, 1.0), "shape": (32, 185, 150)}
LARGE, MIDDLE, SMALL = ((34.0, 10.0, 12.0), 9.0), ((-36.0, -20.0, 5.0), 5.0), ((-10.0, 45.0, 8.0), 3.0)  # middle (mm) and radius
LESIONS = (LARGE, MIDDLE, SMALL)


def ball_ml(radius_mm):
    return 4 / 3 * np.pi * radius_mm**3 / 1000


def motion(turn_deg, shift_mm):
    """Return a rigid motion about the head's middle."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix(), shift_mm
    return matrix


@cache
def t1(lesions=LESIONS, noise=0.1, shading=0.0):
    return drawn(**GRID, lesions=lesions, lesion=LESION["t1"], noise=noise, shading=shading)


def flair(lesions=LESIONS, **more):
    scan = {"brightness": FLAIR, "lesions": lesions, "lesion": LESION["flair"], "noise": 0.1, "seed": 1}
    return drawn(**GRID | {"orientation": "axial"} | scan | more)


def found(on_flair, on_t1) -> Findings:
    findings = code("white_matter_lesions").measured(on_flair.scan, on_t1.scan, on_t1.brain)
    return settle(findings, model("white_matter_lesions").manifest, {"flair": on_flair.scan, "t1": on_t1.scan})


def mask(findings):
    return findings.segments.array > 0


# ------------------------------------------------------------------------------------------- what is there is found


@pytest.mark.parametrize(
    ("noise", "shading", "tolerance", "agreement"),
    [(0.02, 0.0, 0.10, 0.9), (0.3, 0.2, 0.10, 0.85)],
)
def test_three_lesions_have_their_number_and_volume(noise, shading, tolerance, agreement):
    """Balls of 3.1, 0.5 and 0.1 mL, on FLAIR axial, on T1 oblique: number exact, volume within 10 %, Dice, share of the white matter."""
    on_flair = flair(noise=noise, shading=shading)
    said = found(on_flair, t1(noise=noise / 2, shading=-shading))
    true_ml = sum(ball_ml(radius) for _, radius in LESIONS)
    print(f"noise {noise}: {said.measurements}, true {true_ml:.2f} mL, Dice {dice(mask(said), on_flair.lesions):.3f}")
    assert said.evaluations["lesions"] == "present" and said.measurements["count"] == 3
    assert said.measurements["volume"] == pytest.approx(true_ml, rel=tolerance)
    assert said.measurements["largest"] == pytest.approx(ball_ml(LARGE[1]), rel=tolerance)
    assert said.measurements["share"] == pytest.approx(100 * true_ml / on_flair.true_ml[2], rel=0.15)
    assert dice(mask(said), on_flair.lesions) >= agreement


@pytest.mark.parametrize("brightness", [600.0, 1000.0])
def test_volume_does_not_depend_on_how_bright_a_lesion_is(brightness):
    """The edge lies at half of the lesion's own brightness: a fifth brighter than grey matter or twice, within 10 %."""
    said = found(flair((LARGE,), lesion=brightness), t1((LARGE,)))
    print(f"{brightness}: {said.measurements['volume']:.2f} of {ball_ml(LARGE[1]):.2f} mL")
    assert said.measurements["volume"] == pytest.approx(ball_ml(LARGE[1]), rel=0.10)


@pytest.mark.parametrize("radius_mm", [2.0, 3.0, 4.0])
def test_the_smallest_that_is_found(radius_mm):
    """A ball of 4 mm across is found on voxels of 1.2 mm; its volume within 35 %, of 6 and 8 mm within 20 %."""
    lesion = ((LARGE[0], radius_mm),)
    said = found(flair(lesion, **FINE), t1(lesion))
    print(f"radius {radius_mm} mm: {said.measurements['volume']:.3f} of {ball_ml(radius_mm):.3f} mL")
    assert said.measurements["count"] == 1
    assert said.measurements["volume"] == pytest.approx(ball_ml(radius_mm), rel=0.35 if radius_mm < 3 else 0.2)


def test_thick_slices_of_the_flair_do():
    """5 mm, axial: the large lesion is found, within 20 %."""
    said = found(flair((LARGE,), **THICK), t1((LARGE,)))
    print(said.measurements)
    assert said.measurements["count"] == 1
    assert said.measurements["volume"] == pytest.approx(ball_ml(LARGE[1]), rel=0.2)


@pytest.mark.parametrize(("turn_deg", "shift_mm"), [((3, -2, 4), (3, -4, 2)), ((0, 8, -5), (-9, 6, 10))])
def test_a_head_that_moved_between_the_series_is_brought_back(turn_deg, shift_mm):
    """By 5 to 15 mm and up to 9 degrees: the same lesions as if it had lain still, within 10 %."""
    on_flair = flair(moved=motion(turn_deg, shift_mm))
    said = found(on_flair, t1())
    print(said.measurements, f"Dice {dice(mask(said), on_flair.lesions):.3f}")
    assert said.measurements["count"] == 3
    assert said.measurements["volume"] == pytest.approx(sum(ball_ml(radius) for _, radius in LESIONS), rel=0.10)
    assert dice(mask(said), on_flair.lesions) >= 0.85


# --------------------------------------------------------------------------------------------- what is none is not found


@pytest.mark.parametrize(("noise", "shading"), [(0.05, 0.0), (0.3, 0.2), (0.5, 0.3)])
def test_a_brain_without_lesions_is_a_coded_negative(noise, shading):
    """No mask, no volume, and the answer is "absent", at half the step from grey to white as noise too."""
    said = found(flair((), noise=noise, shading=shading), t1((), noise=noise / 2))
    assert said.evaluations["lesions"] == "absent" and not mask(said).any()
    assert [said.measurements[name] for name in ("count", "volume", "largest", "share")] == [0, 0, 0, 0]


def test_what_is_bright_in_the_cortex_is_none():
    """A ball of 6 mm across in grey matter, as bright as a lesion: no white matter about it."""
    said = found(flair((((0.0, -76.0, 0.0), 3.0),)), t1(()))
    assert said.evaluations["lesions"] == "absent"


# ------------------------------------------------------------------------------------------------------- it declines


def test_a_second_series_that_is_no_flair_is_declined():
    """A T1 in its place, and a T2: fluid is not the darkest, or white matter the brightest."""
    for brightness in (T1, T1[::-1]):
        with pytest.raises(Unsuitable, match="no FLAIR"):
            found(flair((), brightness=brightness), t1(()))


def test_a_flair_of_half_the_head_is_declined():
    """What was not seen cannot be called healthy."""
    whole = flair(())
    half = volume(whole.scan.array[: len(whole.scan.array) // 2], whole.scan.affine)
    with pytest.raises(Unsuitable, match="of the brain"):
        code("white_matter_lesions").measured(half, (on := t1(())).scan, on.brain)


def test_tissues_and_brain_are_those_of_brain_tissue():
    """The same weights by hash, the same limit of the slices."""
    assert model("white_matter_lesions").manifest.weights == model("brain_tissue").manifest.weights
    assert code("white_matter_lesions").THICK_MM == code("brain_tissue").THICK_MM
