"""Windows of CT, MR and radiographs: drawn patients of known values, real images, and DCMTK as a second renderer."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from highdicom import Volume
from pydicom import dcmread
from pydicom.pixels import apply_windowing

from dicom_node.assemble.volume import assemble
from dicom_node.domain import Unsuitable
from dicom_node.methods.windows import Convention, Histogram, around, ends, foreground, shown
from dicom_node.work import try_model
from tests import phantoms, projections
from tests.models_proof import code, model, published, sample, volume
from tests.peers import need
from tests.test_beside import pgm

SPACING_MM = (5.0, 2.0, 2.0)  # between slices, rows, columns
AFFINE = phantoms.affine(spacing_mm=SPACING_MM)
AIR, LUNG, FAT, SOFT, VESSEL, MARROW, CORTEX = -1000, -850, -100, 45, 230, 250, 1000
FLUID, WHITE, GREY, BLOOD, SKULL = 5, 28, 38, 70, 1100


def disc(rows, columns, center, radius):
    """Return the pixels of an ellipse (row, column): centre and radii in shares of the image."""
    down, across = np.mgrid[0:rows, 0:columns] / np.array([rows, columns])[:, None, None]
    return ((down - center[0]) / radius[0]) ** 2 + ((across - center[1]) / radius[1]) ** 2 <= 1


def noisy(plane, slices, sd):
    """Return so many slices of a plane with noise, whole Hounsfield units (slice, row, column)."""
    return np.rint(np.stack([plane] * slices) + np.random.default_rng(3).normal(0, sd, (slices, *plane.shape))).astype(np.int16)


def torso(slices=12, sd=10.0, lungs=True, vessel=VESSEL):
    """Return a drawn chest: fat about soft tissue, two lungs, a vessel with contrast agent, a vertebra of marrow and cortex."""
    plane = np.full((150, 190), AIR, float)
    plane[disc(150, 190, (0.5, 0.5), (0.42, 0.45))] = FAT
    plane[disc(150, 190, (0.5, 0.5), (0.37, 0.40))] = SOFT
    for side in (0.3, 0.7) if lungs else ():
        plane[disc(150, 190, (0.48, side), (0.25, 0.14))] = LUNG
    plane[disc(150, 190, (0.4, 0.5), (0.05, 0.04))] = vessel
    plane[disc(150, 190, (0.75, 0.5), (0.08, 0.07))] = CORTEX
    plane[disc(150, 190, (0.75, 0.5), (0.06, 0.05))] = MARROW
    return noisy(plane, slices, sd)


def head(slices=30, sd=4.0):
    """Return a drawn head: scalp, skull, and within it fluid about grey about white matter, with a little blood."""
    plane = np.full((120, 100), AIR, float)
    for value, size in ((FAT, 0.45), (SKULL, 0.42), (FLUID, 0.385), (GREY, 0.37), (WHITE, 0.27)):
        plane[disc(120, 100, (0.5, 0.5), (size, size))] = value
    plane[disc(120, 100, (0.5, 0.5), (0.08, 0.05))] = FLUID
    plane[disc(120, 100, (0.3, 0.5), (0.02, 0.03))] = BLOOD
    return noisy(plane, slices, sd)


def ct(hu):
    return volume(hu, AFFINE)


def windows_of(image, folder="smart_windows"):
    found = code(folder).analyse(image)
    return {name: None if one is None else one.window for name, one in found.presentations.items()}, found


# ------------------------------------------------------------------------------------------------------------ the formula


def test_a_window_is_shown_as_the_standard_says():
    """PS3.3 C.11.2.1.2, at its ends and in between; pydicom's own arithmetic agrees to a part in ten million."""
    values = np.arange(-2000, 2001)
    for window in ((40.0, 400.0), (-600.5, 1500.0), (0.0, 2.0)):
        center, width = window
        low, high = ends(window)
        assert (shown([low, low - 1], window) == 0).all() and (shown([high, high + 1], window) == 1).all()
        assert shown(center - 0.5, window) == 0.5
        image = phantoms.series(values[None, None].astype(np.int16), rescale=None, WindowCenter=center, WindowWidth=width, VOILUTFunction="LINEAR")[0]
        lowest, highest = -(2**15), 2**15 - 1
        assert np.abs((apply_windowing(values, image) - lowest) / (highest - lowest) - shown(values, window)).max() < 1e-7


def test_a_window_around_values_leaves_a_tenth_beside_them_within_its_convention():
    """From -100 to 100: black at -120, white at 120; and nothing that readers would take for a fault."""
    assert ends(around(-100, 100)) == (-120, 120)
    assert around(-100, 100, Convention(center=(20, 100), width=(300, 500))) == (20, 300)
    assert around(7, 7) == (7.5, 2)


def test_peaks_and_valleys_of_a_histogram():
    """Two heaps, each a triangle of 90 HU to either side: rarest where they meet, about -30."""
    values = np.concatenate([np.repeat(np.arange(-90, 91), 91 - np.abs(np.arange(-90, 91))) + at for at in (-100, 40)])
    histogram = Histogram.of(values, -1024, 3072, 3.0)
    assert (histogram.peak(-140, -60), histogram.peak(0, 120)) == (-100, 40)
    assert abs(histogram.valley(-100, 40) + 30) <= 25 and histogram.count(-30) < histogram.count(40) / 2


def test_air_is_what_is_dark_and_reaches_the_edge():
    """A dark hole within is the patient's."""
    plane = np.zeros((9, 9))
    plane[2:7, 2:7] = 10
    plane[4, 4] = 0
    assert foreground(plane, 5).sum() == 25


# ------------------------------------------------------------------------------------------------- computed tomography


def test_each_window_of_a_chest_shows_its_tissues_and_no_other_is_made():
    """The exact criterion: true values are neither black nor white, and far enough apart to be told apart."""
    made, found = windows_of(ct(torso()))
    assert {name for name, window in made.items() if window} == {"lung", "soft_tissue", "bone"}
    assert found.notes == ("Not in these images, and no window made for it: brain, stroke, subdural.",)
    for name, values, apart in (
        ("lung", (LUNG, SOFT), 0.5),
        ("soft_tissue", (FAT, SOFT), 0.25),
        ("soft_tissue", (SOFT, VESSEL), 0.25),
        ("bone", (SOFT, MARROW), 0.1),
        ("bone", (MARROW, CORTEX), 0.4),
    ):
        dark, bright = shown(values, made[name])
        assert 0 < dark < bright < 1 and bright - dark >= apart, (name, values, made[name])


def test_each_window_of_a_head_shows_its_tissues_and_there_is_none_for_a_lung():
    """Grey and white matter, 10 HU apart, are an eighth of the grey levels apart for the brain and a quarter for stroke."""
    made, _ = windows_of(ct(head()))
    assert {name for name, window in made.items() if window} == {"soft_tissue", "bone", "brain", "stroke", "subdural"}
    for name, values, apart in (
        ("brain", (FLUID, WHITE), 0.15),
        ("brain", (WHITE, GREY), 0.08),
        ("stroke", (WHITE, GREY), 0.2),
        ("subdural", (GREY, BLOOD), 0.1),
        ("bone", (GREY, SKULL), 0.5),
    ):
        dark, bright = shown(values, made[name])
        assert 0 < dark < bright < 1 and bright - dark >= apart, (name, values, made[name])
    assert 0 < shown(BLOOD, made["brain"]) <= 1


def test_windows_are_what_readers_expect_whatever_is_in_the_images():
    """Metal, noise and a patient of one tissue: every window stays within its convention, and the plausible range says the same."""
    metal = torso()
    metal[3:6, 60:75, 90:100] = 3071
    uniform = noisy(np.where(disc(150, 190, (0.5, 0.5), (0.4, 0.4)), 20.0, AIR), 8, 5)
    for image in (metal, uniform, torso(sd=40.0), torso(lungs=False)):
        made, found = windows_of(ct(image))
        for name, window in made.items():
            for key, value in zip(("center", "width"), window or (), strict=bool(window)):
                low, high = model("smart_windows").manifest.measurements[f"{name}_{key}"].plausible
                assert low <= value <= high and found.measurements[f"{name}_{key}"] == value
    assert windows_of(ct(torso(lungs=False)))[0]["lung"] is None


def test_a_window_follows_the_patient():
    """With contrast agent in the vessels the soft tissue's window is wider and higher than without."""
    (before, narrow), (after, wide) = (windows_of(ct(torso(vessel=value)))[0]["soft_tissue"] for value in (SOFT, VESSEL))
    assert after > before + 5 and wide > narrow + 10


@pytest.mark.parametrize("orientation", ["axial", "coronal", "oblique"])
def test_the_same_patient_gets_the_same_windows_from_either_end(orientation):
    image = Volume(torso().astype(np.float32), phantoms.affine(orientation, SPACING_MM), coordinate_system="PATIENT")
    turned = image.flip_spatial([0, 2])
    assert windows_of(image)[0] == windows_of(volume(turned.array, turned.affine))[0]


def test_images_without_a_patient_are_declined():
    with pytest.raises(Unsuitable, match="There is no patient in the images"):
        windows_of(ct(np.full((6, 100, 100), -1000.0)))


def test_a_published_ct_is_seen_better_than_in_its_own_windows():
    """LIDC-IDRI-0001 through its header's windows (40/400, -600/1500) and ours: contrast of a tissue, and what of it is black or white."""
    image, labels = sample("chest-ct"), sample("chest-ct-labels")
    made, _ = windows_of(image)
    is_lung = (labels.array >= 10) & (labels.array <= 14)  # the five lobes
    tissues = {"lung": image.array[is_lung], "soft_tissue": image.array[(labels.array > 0) & ~is_lung & (image.array < 350)]}
    for name, header in (("lung", (-600, 1500)), ("soft_tissue", (40, 400))):
        ours, theirs = (shown(tissues[name], window) for window in (made[name], header))
        lost = [100 * float(np.mean((one == 0) | (one == 1))) for one in (ours, theirs)]
        print(name, made[name], "contrast", round(100 * ours.std(), 1), round(100 * theirs.std(), 1), "black or white %", np.round(lost, 2))
        assert lost[0] <= max(lost[1], 1.5)
    assert shown(tissues["lung"], made["lung"]).std() > 1.2 * shown(tissues["lung"], (-600, 1500)).std()


def test_a_published_head_has_the_windows_of_a_head():
    """The CT of a head and neck: grey and white matter in the middle of the brain's windows, and none for a lung."""
    made, _ = windows_of(sample("head-ct").to_patient_orientation("FPL"))
    print(made)
    assert made["lung"] is None and all(made[name] for name in ("brain", "stroke", "subdural", "bone"))
    assert 0.3 < shown(34, made["brain"]) < 0.7 and 0.3 < shown(34, made["stroke"]) < 0.7


# ------------------------------------------------------------------------------------------------------- MR and radiographs


def patient_in_air(rows=128, columns=96, scale=1.0, shift=0.0):
    """Return a slice of an MR image: noisy air, a body whose values run from 200 to 800, evenly."""
    rng = np.random.default_rng(5)
    plane = np.abs(rng.normal(0, 10, (rows, columns)))
    body = disc(rows, columns, (0.5, 0.5), (0.4, 0.35))
    plane[body] = rng.uniform(200, 800, int(body.sum()))
    return (plane * scale + shift)[None]


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.01, 0.0), (40.0, -500.0)])
def test_percentiles_are_the_patients_and_not_the_airs(scale, shift):
    """Exact: half a per cent of the evenly spread 200 to 800 is below 203 and above 797, a twentieth below 230 and above 770; in any unit."""
    made, _ = windows_of(volume(patient_in_air(scale=scale, shift=shift), np.eye(4)), "contrast_window")
    for name, (low, high) in (("full", (203, 797)), ("detail", (230, 770))):
        if scale < 0.1:
            assert made[name][0] == pytest.approx(500 * scale + 0.5, abs=0.5)
        else:
            assert (np.array(ends(made[name])) - shift) / scale == pytest.approx((low, high), abs=6)


def test_padding_and_shutters_are_no_patient():
    """A black border of 0 and a white one of 4095, a tenth of the image each."""
    plane = patient_in_air()[0] + 20
    plane[:13], plane[-13:] = 0, 4095
    made, _ = windows_of(volume(plane[None], np.eye(4)), "contrast_window")
    assert ends(made["full"]) == pytest.approx((203 + 20, 797 + 20), abs=8)


def test_images_that_are_all_alike_are_declined():
    with pytest.raises(Unsuitable, match="All pixels are alike"):
        windows_of(volume(np.full((2, 64, 64), 7.0), np.eye(4)), "contrast_window")


def test_a_published_mr_is_seen_better_than_over_all_its_values():
    """ds000031: through the window of its darkest and brightest, and through ours: contrast of the brain's slices, and what is lost."""
    image = sample("head-mr")
    made, _ = windows_of(image, "contrast_window")
    middle = image.array[:, image.array.shape[1] // 2]
    seen = middle[middle > 40]
    ours, whole = shown(seen, made["full"]), shown(seen, (image.array.max() / 2, image.array.max()))
    print(
        made,
        "contrast",
        round(100 * ours.std(), 1),
        round(100 * whole.std(), 1),
        "black or white %",
        round(100 * np.mean((ours == 0) | (ours == 1)), 2),
    )
    assert ours.std() > 1.5 * whole.std() and np.mean((ours == 0) | (ours == 1)) < 0.02


@pytest.mark.parametrize(("name", "gain"), [("chest-cr", 1.4), ("leg-cr", 1.2)])
def test_published_radiographs_are_seen_better_than_in_their_own_windows(name, gain):
    """Two of MONOCHROME1, through the header's window and ours: contrast of what is not the air at the edge, and what of it is lost."""
    header = dcmread(published(name), stop_before_pixels=True)
    found = assemble([published(name)], model("contrast_window").manifest.inputs["images"])
    made, _ = windows_of(found.volume, "contrast_window")
    own = (found.turned - float(header.WindowCenter) + 1, float(header.WindowWidth))
    seen = code("contrast_window").patient(found.volume.array[:, ::8, ::8])
    ours, theirs = shown(seen, made["full"]), shown(seen, own)
    lost = [round(100 * float(np.mean((one == 0) | (one == 1))), 2) for one in (ours, theirs)]
    print(name, made, "contrast", round(100 * ours.std(), 1), round(100 * theirs.std(), 1), "black or white %", lost)
    assert ours.std() > gain * theirs.std() and lost[0] < 2


# ------------------------------------------------------------------------------------------------------------------- DICOM


def rendered(state, image, folder):
    """Return what DCMTK shows of an image through a presentation state (row, column), 0 to 255."""
    subprocess.run([need("dcmp2pgm"), "-p", str(state), str(image), str(folder / "shown.pgm")], check=True, capture_output=True)
    return pgm(folder / "shown.pgm")


def test_dcmtk_shows_a_ct_through_each_window(tmp_path: Path):
    """From files to files: three states and a report, valid; each pixel as the formula says, within a grey level. The report says the numbers."""
    hu = torso(slices=6)
    files = phantoms.write(phantoms.series((hu + 1024).astype(np.int16), spacing_mm=SPACING_MM, BodyPartExamined="CHEST"), tmp_path / "in")
    trial = try_model(model("smart_windows"), files, tmp_path / "out")
    assert trial.problems == () and len(trial.objects) == 4
    states = [dcmread(path) for path in trial.objects[:-1]]
    assert [state.ContentLabel for state in states] == ["LUNG", "SOFT TISSUE", "BONE"]
    made = {name: one.window for name, one in trial.findings.presentations.items() if one}
    for path, window in zip(trial.objects[:-1], made.values(), strict=True):
        assert np.abs(rendered(path, files[2], tmp_path) - 255 * shown(hu[2], window)).max() <= 1.0
    said = str(dcmread(trial.objects[-1]))
    assert "Center of the lung window" in said and "brain window" not in said


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_dcmtk_shows_a_radiograph_through_its_window(photometric, tmp_path: Path):
    """Whichever way it is stored, the patient is bright where he is dense."""
    plane = np.rint(patient_in_air()[0] * 4).astype(np.uint16)
    stored = plane if photometric == "MONOCHROME2" else 4095 - plane
    files = phantoms.write([projections.image("CR", stored.astype(np.uint16), PhotometricInterpretation=photometric)], tmp_path / "in")
    trial = try_model(model("contrast_window"), files, tmp_path / "out")
    assert trial.problems == () and len(trial.objects) == 3
    window = trial.findings.presentations["full"].window
    assert np.abs(rendered(trial.objects[0], files[0], tmp_path) - 255 * shown(plane, window)).max() <= 1.0
