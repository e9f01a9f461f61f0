"""lung-ct on a real chest CT (LIDC-IDRI-0001) against the lobes of its label map, on altered copies of it, and on a drawn chest."""

import time
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from dicom_node import Findings, Unsuitable
from tests.models_proof import code, dice, sample, scanned, settled, volume

LOBES = {1: (10, 11), 2: (12, 13, 14)}  # of the label map: left, right
TRACHEA = 16
SHAPE = (60, 80, 96)  # of the drawn chest: 4 mm, axes to head, back and left
AFFINE = np.array([[0, 0, 4, -192], [0, 4, 0, -160], [4, 0, 0, 0], [0, 0, 0, 1.0]])


@cache
def chest():
    """Return the real CT as a scanner gives it: axial slices from the feet to the head."""
    return scanned(sample("chest-ct"), "HPL")


@cache
def sparse():
    """Return the real CT with every second row and column: quicker to analyse where only a difference matters."""
    return volume(chest().array[:, ::2, ::2], chest().affine @ np.diag([1, 2, 2, 1]))


@cache
def labels():
    return scanned(sample("chest-ct-labels"), "HPL").array.astype(np.uint8)


def analysed(image, progress=lambda fraction, sentence: None):
    return settled("lung_ct", code("lung_ct").load(None, "cpu")(ct=image, progress=progress), image)


@cache
def found() -> Findings:
    return analysed(chest())


@cache
def sparsely_found() -> Findings:
    return analysed(sparse())


def ellipsoid(centre, radii):
    """Return a mask on the drawn chest's grid; centre and radii in voxels (slice, row, column)."""
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)) <= 1


def drawn(left=True, right=True, junction=False):
    """Return a chest of ellipsoids in HU: body, lungs, trachea, stomach with gas, a hollow table under the back; and its lungs by number."""
    body = np.broadcast_to(ellipsoid((30, 36, 48), (1e6, 26, 40)), SHAPE)
    lungs = np.zeros(SHAPE, np.uint8)
    for number, wanted, column in ((1, left, 66.0), (2, right, 30.0)):
        lungs[ellipsoid((30, 36, column), (22, 18, 13)) & wanted] = number
    if junction:
        lungs[(lungs == 0) & ellipsoid((30, 24, 48), (12, 3, 14))] = 1  # a bridge of lung in front of the heart, 48 mm across
    hu = np.where(body, 40, -1000).astype(np.float32)
    hu[lungs > 0] = -850
    hu[38:, 34:38, 46:50] = -1000  # trachea, from the shoulders down
    hu[2:8, 28:44, 58:76] = -1000  # gas in the stomach, under the left lung
    hu[:, 64:72, 10:86], hu[:, 65:71, 11:85] = 200, -900  # the table: a thin shell filled with foam
    return hu + np.random.default_rng(0).normal(0, 15, SHAPE).astype(np.float32), lungs


def test_lungs_agree_with_the_lobes_of_the_label_map():
    """Dice at least 0.97 for both lungs together and for each, volumes within 2 %; aim 0.98."""
    started = time.perf_counter()
    mask, truth = found().segments.array, labels()
    figures = {"both": dice((mask == 1) | (mask == 2), np.isin(truth, LOBES[1] + LOBES[2]))}
    figures |= {name: dice(mask == n, np.isin(truth, LOBES[n])) for name, n in (("left", 1), ("right", 2))}
    print(f"Dice {figures}; {found().measurements}; {time.perf_counter() - started:.1f} s with the reading of the files")
    assert min(figures.values()) >= 0.97
    truth_ml = np.count_nonzero(np.isin(truth, LOBES[1] + LOBES[2])) * chest().voxel_volume / 1000
    assert found().measurements["volume"] == pytest.approx(truth_ml, rel=0.02)


def test_trachea_and_main_bronchi_are_left_out():
    """Of what the label map calls trachea, less than 2 % is called lung."""
    trachea = labels() == TRACHEA
    assert np.count_nonzero(trachea & np.isin(found().segments.array, (1, 2))) < 0.02 * np.count_nonzero(trachea)


def test_measurements_are_those_of_the_voxels_in_the_mask():
    """Volume, mean, LAA-950, Perc15 and HAA recomputed from the image; HU beyond -1024 count as -1024."""
    hu = np.maximum(chest().array, -1024)[np.isin(found().segments.array, (1, 2))]
    said = found().measurements
    assert said["volume"] == pytest.approx(len(hu) * chest().voxel_volume / 1000)
    assert said["volume"] == pytest.approx(sum(said["volume_by_side"].values()))
    assert said["density"] == pytest.approx(hu.mean(), abs=0.5)
    assert said["laa950"] == pytest.approx(100 * (hu < -950).mean())
    assert said["perc15"] == pytest.approx(np.percentile(hu, 15), abs=1)
    assert said["haa"] == pytest.approx(100 * ((hu >= -600) & (hu <= -250)).mean())


def test_the_airways_hold_what_the_label_map_calls_trachea():
    """Nine tenths of it; they go on into large bronchi, which it leaves out, so that Dice says less."""
    trachea, air = labels() == TRACHEA, found().segments.array == 3
    said = {name: value for name, value in found().measurements.items() if "airway" in name or "trachea" in name}
    print(f"recall {np.count_nonzero(air & trachea) / np.count_nonzero(trachea):.3f}, Dice {dice(air, trachea):.3f}; {said}")
    assert np.count_nonzero(air & trachea) > 0.9 * np.count_nonzero(trachea)
    assert 100 < said["trachea_narrowest"] <= said["trachea_area"] < 300


def test_shares_of_thirds_weighed_by_their_volumes_are_the_whole_lungs():
    """The planes are drawn here anew, where a third and two thirds of both lungs' voxels lie below; each third holds a third to within a slice."""
    said, segments = found().measurements, found().segments.array
    voxels = np.array([np.count_nonzero(segments == side, axis=(1, 2)) for side in (1, 2)])  # (side, slice)
    both = voxels.sum(0)
    third = np.searchsorted([1 / 3, 2 / 3], (np.cumsum(both) - both / 2) / both.sum())
    of_third = np.array([voxels[:, third == number].sum(1) for number in range(3)])  # (third, side)
    assert of_third.sum(1) == pytest.approx([both.sum() / 3] * 3, abs=float(both.max()))
    for side in (1, 2):
        for what in ("laa950", "haa"):
            shares = [said[f"{name}_{what}"][side] for name in ("lower", "middle", "upper")]
            assert np.average(shares, weights=of_third[:, side - 1]) == pytest.approx(said[f"{what}_by_side"][side])


def test_the_upper_third_is_the_one_at_the_head():
    """Emphysema drawn into the apex is found there and nowhere else, whichever way the slices run."""
    hu, truth = drawn()
    hu[38:][truth[38:] > 0] = -980
    for image in (volume(hu, AFFINE), scanned(volume(hu, AFFINE), "FAR")):
        said = analysed(image).measurements
        assert said["upper_laa950"][1] > 70 and said["lower_laa950"] == {1: 0.0, 2: 0.0}


def test_the_drawn_trachea_has_its_width():
    """16 x 16 mm."""
    said = analysed(volume(drawn()[0], AFFINE)).measurements
    assert (said["trachea_area"], said["trachea_narrowest"]) == pytest.approx((256, 256)) and said["airway_volume"] == pytest.approx(22.528)


@pytest.mark.parametrize("orientation", ["FAR", "AHR", "RFP"])  # upside down and back to front, coronal slices, sagittal slices
def test_the_same_patient_scanned_otherwise_has_the_same_lungs(orientation):
    """Same volume within 0.5 %, and the mask lies where it lay in the patient."""
    image = scanned(chest(), orientation)
    again = analysed(image)
    assert again.measurements["volume"] == pytest.approx(found().measurements["volume"], rel=0.005)
    assert dice(scanned(again.segments, "HPL").array > 0, found().segments.array > 0) > 0.999


def test_an_oblique_scan_has_the_same_volume():
    """The gantry's axes turned by 0.2 rad against the patient, resampled: within 0.5 % of the same samples unturned."""
    cos, sin = np.cos(0.2), np.sin(0.2)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    middle = np.array(sparse().array.shape) / 2 - 0.5
    turned = ndimage.affine_transform(sparse().array, turn, middle - turn @ middle, order=1, cval=-1000)
    again = analysed(volume(turned, sparse().affine))
    assert again.measurements["volume"] == pytest.approx(sparsely_found().measurements["volume"], rel=0.005)


def test_slices_of_5_mm_give_nearly_the_same_volume():
    """Within 1 %."""
    pairs = chest().array[:-1].reshape(-1, 2, *chest().array.shape[1:])
    thick = volume(pairs.mean(1), chest().affine @ np.diag([2, 1, 1, 1]))
    assert analysed(thick).measurements["volume"] == pytest.approx(found().measurements["volume"], rel=0.01)


@pytest.mark.parametrize("shift_hu", [-100, 200])
def test_emphysema_and_fibrosis_do_not_change_the_outline(shift_hu):
    """Parenchyma 100 HU darker or 200 HU brighter: Dice against the lobes stays at 0.97 or more."""
    lobes = np.isin(labels(), LOBES[1] + LOBES[2])[:, ::2, ::2]
    hu = sparse().array + shift_hu * (lobes & (sparse().array < -700))
    assert dice(analysed(volume(hu, sparse().affine)).segments.array > 0, lobes) >= 0.97


def test_a_chest_cut_in_half_is_declined_and_a_cut_apex_is_noted():
    """A lower bound is called so; half a lung is no lung volume."""
    with pytest.raises(Unsuitable, match="only a part of the chest"):
        analysed(volume(sparse().array[70:], sparse().affine))
    cut = analysed(volume(sparse().array[:120], sparse().affine))
    assert any("highest slice" in note and "lower bound" in note for note in cut.notes)


def test_a_field_of_view_that_cuts_the_lungs_is_noted():
    """The volume is then a lower bound."""
    cut = analysed(volume(sparse().array[:, 50:200, 50:200], sparse().affine))
    assert any("edge of the image" in note for note in cut.notes)


def test_noise_is_noted():
    """Noise of 80 HU, as of a sharp kernel at low dose, multiplies LAA-950; the outline stays."""
    again = analysed(volume(sparse().array + np.random.default_rng(0).normal(0, 80, sparse().array.shape), sparse().affine))
    assert any("noisy" in note for note in again.notes) and not sparsely_found().notes
    assert again.measurements["volume"] == pytest.approx(sparsely_found().measurements["volume"], rel=0.01)


# ------------------------------------------------------------------------------------------------------ the drawn chest


@pytest.mark.parametrize("junction", [False, True])
def test_a_drawn_chest_is_measured_without_table_gas_and_trachea(junction):
    """Each lung within 4 % of what was drawn, also where both touch; left is where the patient's left is."""
    hu, truth = drawn(junction=junction)
    result = analysed(volume(hu, AFFINE))
    for number, name in ((1, "left"), (2, "right")):
        bridge = 0.12 if junction else 0.04  # the bridge is shared out between both
        assert result.measurements["volume_by_side"][number] == pytest.approx(np.count_nonzero(truth == number) * 0.064, rel=bridge), name
    assert result.measurements["volume"] == pytest.approx(np.count_nonzero(truth) * 0.064, rel=0.04)
    assert result.measurements["density"] == pytest.approx(-850, abs=8)


def test_a_single_lung_is_measured_and_the_other_said_to_be_missing():
    """The missing side has a volume of 0 and no density."""
    hu, truth = drawn(left=False)
    result = analysed(volume(hu, AFFINE))
    assert result.measurements["volume_by_side"] == {1: 0.0, 2: pytest.approx(np.count_nonzero(truth) * 0.064, rel=0.04)}
    assert result.measurements["density_by_side"][1] is None and result.measurements["density_by_side"][2] < -600
    assert "No left lung was found: only the other one is measured." in result.notes


def test_progress_only_grows():
    """From above 0 to below 1, each step with a sentence."""
    said = []
    analysed(volume(drawn()[0], AFFINE), lambda fraction, sentence: said.append((fraction, sentence)))
    fractions = [fraction for fraction, _ in said]
    assert len(said) >= 4 and fractions == sorted(fractions) and 0 < fractions[0] < fractions[-1] < 1
    assert all(sentence for _, sentence in said)


def test_values_that_are_no_numbers_do_no_harm():
    """Not a number and infinity in single voxels."""
    hu = drawn()[0]
    clean = analysed(volume(hu, AFFINE)).measurements["volume"]
    places = np.random.default_rng(1).integers(0, hu.size, 40)
    hu.flat[places[:20]], hu.flat[places[20:]] = np.nan, np.inf
    assert analysed(volume(hu, AFFINE)).measurements["volume"] == pytest.approx(clean, rel=0.01)


@pytest.mark.parametrize(
    ("hu", "why"),
    [
        (np.full(SHAPE, -1000), "empty"),
        (np.full(SHAPE, np.nan), "empty"),
        (np.zeros(SHAPE), "No lungs"),
        (np.where(ellipsoid((30, 36, 48), (25, 25, 25)), 40, -1000), "No lungs"),
        (drawn(left=False, right=False)[0], "No lungs"),
        (drawn()[0] + 1024, "No lungs"),  # not in HU
        (drawn()[0][:15], "cannot hold both lungs"),
        (drawn()[0][:, :5], "cannot hold both lungs"),
    ],
    ids=["only air", "no numbers", "one value", "a ball", "no lungs", "not HU", "too short", "a few rows"],
)
def test_what_is_no_chest_is_declined_in_a_sentence(hu, why):
    """Unsuitable, and no other exception."""
    with pytest.raises(Unsuitable, match=why):
        analysed(volume(hu, AFFINE))


def test_thick_slices_are_declined():
    """Above 5 mm."""
    with pytest.raises(Unsuitable, match="6.0 mm apart"):
        analysed(volume(drawn()[0], AFFINE @ np.diag([1.5, 1, 1, 1])))
