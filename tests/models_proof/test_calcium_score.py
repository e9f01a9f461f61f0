"""calcium-score on a drawn chest with rods of known density and area, and on a real chest CT (LIDC-IDRI-0001) with its contrast medium taken out."""

import math
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from dicom_node import Unsuitable
from dicom_node.config import objections
from tests.models_proof import code, model, sample, scanned, settled, volume

RODS_HU = {150: (0, -42), 250: (24, -38), 350: (36, -8), 600: (-12, -4)}  # and where in the heart: mm to the left and to the back
RADIUS_MM, LENGTH_MM = 4.0, 30.0
AREA_MM2 = math.pi * RADIUS_MM**2
STANDARD_MM = (3.0, 0.7, 0.7)  # slice, row, column
EXTENT_MM = (120.0, 224.0, 224.0)  # a scan of the heart: the chest is cut at its sides
BONES = (*range(25, 51), *range(69, 79), *range(92, 119))  # of the label map: vertebrae, arms, shoulders, ribs, breastbone, cartilage
HEART, LIVER = 51, 5  # of the label map

FULL = {"agatston": AREA_MM2 * LENGTH_MM / 3 * (1 + 2 + 3 + 4), "volume": 4 * AREA_MM2 * LENGTH_MM, "lesions": 4, "peak": 600}
FULL["mass"] = AREA_MM2 * LENGTH_MM / 1000 * sum(RODS_HU)


def analysed(image, progress=lambda fraction, sentence: None):
    return settled("calcium_score", code("calcium_score").load(None, "cpu")(ct=image, progress=progress), image)


def axes_of(spacing_mm, turn_rad):
    """Return an affine to the patient whose axes run to head, back and left, turned about the patient's left-right axis and then the long one."""
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turn @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])) * spacing_mm
    shape = tuple(round(e / s) for e, s in zip(EXTENT_MM, spacing_mm, strict=True))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine, shape


def drawn(spacing_mm=STANDARD_MM, turn_rad=0.0, rods=RODS_HU, blood_hu=45.0):
    """Return a chest in HU, and each voxel's place in the patient: body, lungs, heart, spine, breastbone, two ends of ribs, and rods along z."""
    affine, shape = axes_of(spacing_mm, turn_rad)
    z, y, x = (np.arange(n, dtype=np.float32).reshape(np.roll((-1, 1, 1), axis)) for axis, n in enumerate(shape))
    left, back, head = (affine[i, 0] * z + affine[i, 1] * y + affine[i, 2] * x + affine[i, 3] for i in range(3))
    hu = np.where((left / 165) ** 2 + (back / 115) ** 2 < 1, 45, -1000).astype(np.float32)
    for side in (-80, 80):
        hu[((left - side) / 60) ** 2 + (back / 85) ** 2 + (head / 110) ** 2 < 1] = -850
    hu[(left - 10) ** 2 + (back + 15) ** 2 + head**2 < 55**2] = blood_hu
    hu[np.hypot(left, back - 75) < 20] = 200  # spine
    hu[(abs(left) < 18) & (abs(back + 99) < 6)] = 300  # breastbone
    for place in ((45, -92, 0), (38, 76, 5)):  # ends of ribs: small, and joined to nothing
        hu[(left - place[0]) ** 2 + (back - place[1]) ** 2 + (head - place[2]) ** 2 < 6**2] = 400
    for rod_hu, (to_left, to_back) in rods.items():
        hu[(np.hypot(left - to_left, back - to_back) < RADIUS_MM) & (abs(head) < LENGTH_MM / 2)] = rod_hu
    return hu, affine


@cache
def standard():
    return analysed(volume(*drawn()))


def with_spots(*spots):
    """Return the drawn chest without rods but with blocks in its heart: slice, row, column, size of each, HU."""
    hu, affine = drawn(rods={})
    for place, size, spot_hu in spots:
        hu[tuple(slice(p, p + n) for p, n in zip(place, size, strict=True))] = spot_hu
    return volume(hu, affine)


def assert_scores(said, share):
    """Compare with what was drawn: areas, and so all sums, within a share; the count and the greatest value exactly."""
    for name in ("agatston", "volume", "mass"):
        assert said[name] == pytest.approx(FULL[name], rel=share), name
    assert (said["lesions"], said["peak"]) == (FULL["lesions"], FULL["peak"])


# ------------------------------------------------------------------------------------------------------ the drawn chest


def test_rods_have_the_score_volume_and_mass_that_were_drawn():
    """Four weights, 3 mm slices: within 2 %, as circles of 4 mm are drawn in pixels of 0.7 mm; spine, breastbone and ribs count nothing."""
    print(f"drawn {FULL}; said {standard().measurements}")
    assert_scores(standard().measurements, 0.02)


def test_thin_slices_give_the_same_score_and_are_called_not_standard():
    """1.5 mm: twice the slices, each counted half; the note names the spacing."""
    result = analysed(volume(*drawn((1.5, 0.7, 0.7))))
    assert_scores(result.measurements, 0.02)
    assert any("Not standard: slices every 1.50 mm" in note for note in result.notes)
    assert not any("Not standard" in note for note in standard().notes)


def test_unequal_pixels_give_the_same_score():
    """Rows 0.6 mm and columns 0.9 mm apart, slices of 2.5 mm: within 3 %."""
    assert_scores(analysed(volume(*drawn((2.5, 0.6, 0.9)))).measurements, 0.03)


def test_an_oblique_scan_has_nearly_the_same_score():
    """Slices tilted by 0.2 rad and turned by as much: within 3 %; a lesion's area grows as its length shrinks."""
    assert_scores(analysed(volume(*drawn(turn_rad=0.2))).measurements, 0.03)


@pytest.mark.parametrize("orientation", ["FAR", "AHR", "RFP"])  # upside down and back to front, coronal slices, sagittal slices
def test_the_same_patient_stored_otherwise_has_the_same_score(orientation):
    """The very same figures, and the mask lies where it lay in the patient."""
    again = analysed(scanned(volume(*drawn()), orientation))
    assert again.measurements == pytest.approx(standard().measurements)
    assert (scanned(again.segments, "HPL").array == standard().segments.array).all()


def test_a_chest_without_calcification_scores_0():
    """Spine, breastbone and ends of ribs are in it and count nothing: an empty segment, 0 and no greatest value; the region is still reported."""
    result = analysed(volume(*drawn(rods={})))
    assert {n: result.measurements[n] for n in ("agatston", "volume", "mass", "lesions", "peak")} == {
        "agatston": 0.0,
        "volume": 0.0,
        "mass": 0.0,
        "lesions": 0.0,
        "peak": None,
    }
    assert not (result.segments.array == 1).any() and result.measurements["region"] > 250


def test_what_is_below_130_hu_or_1_mm2_is_not_counted():
    """129 HU of any size, and two pixels of 0.49 mm2; of three pixels, and of 130 HU, each is counted."""
    inside = (20, 130, 170)
    assert analysed(with_spots((inside, (3, 9, 9), 129))).measurements["agatston"] == 0
    assert analysed(with_spots((inside, (3, 1, 2), 900))).measurements["agatston"] == 0
    assert analysed(with_spots((inside, (1, 1, 3), 130))).measurements["agatston"] == pytest.approx(3 * 0.49)


def test_weight_is_that_of_the_greatest_value_in_each_slice():
    """A lesion of three slices with peaks of 199, 200 and 400 HU weighs 1, 2 and 4; pixels that touch by a corner are one lesion."""
    place = (20, 130, 170)
    spots = [((place[0] + k, *place[1:]), (1, 4, 4), 150) for k in range(3)]
    spots += [((place[0] + k, place[1] + 4, place[2] + 4), (1, 1, 1), peak) for k, peak in enumerate((199, 200, 400))]
    said = analysed(with_spots(*spots)).measurements
    assert said["agatston"] == pytest.approx(17 * 0.49 * (1 + 2 + 4))
    assert said["lesions"] == 1


def test_two_lesions_in_one_slice_are_weighed_each_by_itself():
    """Not by the brightest of the slice."""
    said = analysed(with_spots(((20, 130, 160), (1, 5, 5), 150), ((20, 130, 180), (1, 5, 5), 450))).measurements
    assert said["agatston"] == pytest.approx(25 * 0.49 * (1 + 4)) and said["lesions"] == 2


def test_calcium_joined_to_the_spine_is_bone():
    """A spur that grows out of the vertebra towards the heart counts nothing."""
    spur = ((15, 176, 156), (4, 62, 6), 300)  # from 12 to 55 mm behind the middle: into the spine's front
    assert analysed(with_spots(spur)).measurements["agatston"] == 0


def test_a_spine_without_lime_is_still_bone():
    """Vertebrae of 80 HU in a shell of 1.5 mm, parted by discs, before dense arches, as in osteoporosis: the shells count nothing."""
    hu, affine = drawn(rods={})
    z, y, x = np.ogrid[tuple(slice(n) for n in hu.shape)]
    left, back, disc = x * 0.7 + affine[0, 3], y * 0.7 + affine[1, 3], z % 10 >= 8
    radius = np.hypot(left, back - 75)
    hu[np.broadcast_to(radius < 20, hu.shape)] = 80
    hu[(radius < 20) & (radius > 18.5) & ~disc] = 300
    hu[np.broadcast_to((abs(left) < 8) & (abs(back - 102) < 8), hu.shape)] = 300
    assert analysed(volume(hu, affine)).measurements["agatston"] == 0


def test_a_round_field_of_view_gives_the_same_score():
    """Padding of -2048 outside a circle that cuts both lungs."""
    hu, affine = drawn()
    rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
    hu[:, np.hypot(rows - hu.shape[1] / 2, columns - hu.shape[2] / 2) > hu.shape[1] / 2 - 4] = -2048
    assert_scores(analysed(volume(hu, affine)).measurements, 0.02)


def test_every_report_says_that_it_is_no_coronary_score_and_that_the_mass_is_not_calibrated():
    """Also where nothing was found; the label says so, too."""
    for result in (standard(), analysed(volume(*drawn(rods={})))):
        assert any("not a coronary calcium score" in note for note in result.notes)
        assert any("not calibrated" in note for note in result.notes)
    assert "not coronary" in model("calcium_score").manifest.segments[0].label


@pytest.mark.parametrize(("sigma_hu", "noted"), [(12, False), (35, True)])
def test_noise_above_the_standard_is_noted(sigma_hu, noted):
    """20 HU is the limit; below it no voxel of 45 HU becomes calcium."""
    hu, affine = drawn(rods={})
    result = analysed(volume(hu + np.random.default_rng(0).normal(0, sigma_hu, hu.shape), affine))
    assert any("Not standard: noise" in note for note in result.notes) == noted
    assert noted or result.measurements["agatston"] == 0


def test_metal_is_noted():
    """It counts, and the note says so."""
    assert any("metal" in note for note in analysed(with_spots(((20, 130, 170), (2, 4, 4), 2500))).notes)


def test_progress_only_grows():
    """From above 0 to below 1, each step with a sentence."""
    said = []
    analysed(volume(*drawn()), lambda fraction, sentence: said.append((fraction, sentence)))
    fractions = [fraction for fraction, _ in said]
    assert len(said) >= 4 and fractions == sorted(fractions) and 0 < fractions[0] < fractions[-1] < 1
    assert all(sentence for _, sentence in said)


# ---------------------------------------------------------------------------------------------------------- it declines


@pytest.mark.parametrize(
    ("agent", "suits"), [(None, True), ("", True), ("NONE", True), ("no", True), ("Contrast agent", False), ("Iohexol 350", False)]
)
def test_a_header_that_names_a_contrast_agent_is_declined(agent, suits):
    """Missing, empty or a word for none suits."""
    when = model("calcium_score").manifest.inputs["ct"].when
    assert (not objections(when, {"Modality": "CT", "ContrastBolusAgent": agent})) == suits


def test_contrast_medium_that_the_header_does_not_name_is_declined():
    """Blood of 150 HU in the heart."""
    with pytest.raises(Unsuitable, match="contrast medium"):
        analysed(volume(*drawn(blood_hu=150.0)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda hu: hu * 0 - 1000, "empty"),
        (lambda hu: hu * np.nan, "empty"),
        (lambda hu: hu * 0, "No heart"),
        (lambda hu: np.where(hu < -400, 0, hu), "No heart"),
        (lambda hu: np.where(np.arange(hu.shape[2]) < 160, np.maximum(hu, 0), hu), "No right lung"),
        (lambda hu: np.where(np.arange(hu.shape[2]) > 160, np.maximum(hu, 0), hu), "No left lung"),
        (lambda hu: np.minimum(hu, 60), "No spine"),
        (lambda hu: hu + 1024, "No heart"),
        (lambda hu: hu[:20], "cannot hold the heart"),
    ],
    ids=["only air", "no numbers", "one value", "no lungs", "no right lung", "no left lung", "no bone", "not HU", "too short"],
)
def test_what_is_no_chest_is_declined_in_a_sentence(change, why):
    """Unsuitable, and no other exception."""
    hu, affine = drawn((3.0, 1.4, 0.7))
    with pytest.raises(Unsuitable, match=why):
        analysed(volume(change(hu), affine))


def test_thick_slices_are_declined():
    """Above 5 mm."""
    with pytest.raises(Unsuitable, match=r"6\.0 mm apart"):
        analysed(volume(*drawn((6.0, 1.4, 1.4))))


def test_values_that_are_no_numbers_do_no_harm():
    """Not a number and infinity in single voxels outside of the heart."""
    hu, affine = drawn()
    places = np.random.default_rng(1).integers(0, hu[:, :40].size, 40)
    hu[:, :40].flat[places[:20]], hu[:, :40].flat[places[20:]] = np.nan, np.inf
    assert analysed(volume(hu, affine)).measurements["agatston"] == pytest.approx(standard().measurements["agatston"], rel=1e-3)


# ------------------------------------------------------------------------------------------------------ the real chest


@cache
def chest():
    """Return the real CT as a scanner gives it: axial slices from the feet to the head."""
    return scanned(sample("chest-ct"), "HPL")


@cache
def labels():
    return scanned(sample("chest-ct-labels"), "HPL").array.astype(np.uint8)


@cache
def without_contrast():
    """Return the real CT in HU, with all that is brighter than 60 HU and no bone set to blood of 45 HU with noise of 12."""
    bone = ndimage.binary_dilation(np.isin(labels(), BONES), iterations=3)
    hu = chest().array.copy()
    bright = (hu > 60) & ~bone
    hu[bright] = np.random.default_rng(0).normal(45, 12, np.count_nonzero(bright))
    return hu


@cache
def with_calcium():
    """Return the same with four blocks of 24 pixels in the labelled heart, one for each weight, and their Agatston score."""
    hu = without_contrast().copy()
    for spot_hu, k, share in ((160, 58, 0.2), (260, 63, 0.4), (360, 68, 0.6), (700, 73, 0.8)):
        rows, columns = np.nonzero(ndimage.binary_erosion(labels()[k] == HEART, iterations=8))
        row, column = (int(places[int(share * len(rows))]) for places in (rows, columns))
        hu[k, row - 2 : row + 2, column - 3 : column + 3] = spot_hu
    return hu, 24 * float(np.prod(chest().spacing)) / 3 * (1 + 2 + 3 + 4)


def test_the_real_chest_is_declined_for_its_contrast_medium():
    """By its pixels: the volume carries no header."""
    with pytest.raises(Unsuitable, match="contrast medium"):
        analysed(chest())


def test_the_real_chest_scores_0_once_its_contrast_medium_is_taken_out():
    """Ribs, breastbone, spine, cartilage and the table are as they were, and none of them counts."""
    assert analysed(volume(without_contrast(), chest().affine)).measurements["agatston"] == 0


def test_the_real_chest_scores_what_was_drawn_into_its_heart():
    """Four blocks: exactly; nine tenths of the labelled heart are searched, and not a voxel of labelled bone."""
    hu, score = with_calcium()
    result = analysed(volume(hu, chest().affine))
    searched, heart = result.segments.array > 0, labels() == HEART
    share, of_bone = (np.count_nonzero(searched & mask) / np.count_nonzero(mask) for mask in (heart, np.isin(labels(), BONES)))
    liver = np.count_nonzero(searched & (labels() == LIVER)) / np.count_nonzero(searched)
    print(f"searched: {result.measurements['region']:.0f} mL, {share:.3f} of the heart, {of_bone} of bone; {liver:.3f} of it is liver; {score:.1f}")
    assert result.measurements["agatston"] == pytest.approx(score) and result.measurements["lesions"] == 4
    assert share > 0.9 and of_bone == 0


def test_a_field_of_view_about_the_heart_alone_gives_the_same_score():
    """225 mm wide and 140 mm high, as calcium scans are: the chest wall is cut on both sides."""
    hu, score = with_calcium()
    first = chest().affine @ np.array([44, 90, 110, 1])
    affine = chest().affine.copy()
    affine[:3, 3] = first[:3]
    result = analysed(volume(hu[44:100, 90:410, 110:430], affine))
    assert result.measurements["agatston"] == pytest.approx(score) and result.measurements["lesions"] == 4
