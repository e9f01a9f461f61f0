"""enhance on edges of known width, in noise of known strength, on a published CT, and on what it cannot be asked of."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from dicom_node import Unsuitable
from dicom_node.assemble.volume import assemble
from dicom_node.methods.noise import noise_sd, tissue, variance
from dicom_node.work import try_model
from tests import phantoms, projections
from tests.models_proof import code, model, published, sample, settled, volume

AFFINE = np.diag([2.5, 0.7, 0.7, 1.0])
OBLIQUE = phantoms.affine("oblique", (3.0, 0.9, 0.5))
STEP, BLUR = 1000.0, 3.0  # of the edge, in its unit and in pixels


def analysed(image):
    return settled("enhance", code("enhance").analyse(image), image)


def edge(sd=0.0, seed=0):
    """Return a blurred step from 0 to 1000 (row, column) with noise."""
    plane = np.zeros((128, 128))
    plane[:, 64:] = STEP
    blurred = ndimage.gaussian_filter(plane, (0, BLUR))
    return (blurred + np.random.default_rng(seed).normal(0, sd, plane.shape) if sd else blurred).astype(np.float32)


def width(plane):
    """Return how many pixels lie between 10 and 90 % of the step."""
    profile = (plane.mean(0) - plane[:, :40].mean()) / (plane[:, -40:].mean() - plane[:, :40].mean())
    places = np.arange(56, 73)
    return float(np.diff(np.interp([0.1, 0.9], profile[places], places))[0])


def enhanced(plane, method="adaptive"):
    return code("enhance").METHODS[method](plane, noise_sd(variance(plane), tissue(plane)))


def block(*, noise=15.0, slices=3, affine=AFFINE):
    """Return a block of tissue in air with a pattern of lines in it."""
    array = np.full((slices, 96, 96), -1000.0)
    array[:, 12:-12, 12:-12] = 40
    array[:, 30:40, 20:76:6] = 240
    return volume(array + np.random.default_rng(0).normal(0, noise, array.shape), affine)


@pytest.mark.parametrize("method", ["adaptive", "unsharp"])
def test_a_blurred_edge_becomes_narrower_without_a_halo(method):
    """From 7.75 to 5.4 pixels; the overshoot stays below 3 % of the step."""
    assert width(edge()) == pytest.approx(2 * 1.2816 * BLUR, rel=0.02)  # a Gaussian's
    after = enhanced(edge(), method)
    print(f"{method}: {width(edge()):.2f} -> {width(after):.2f} pixels, overshoot {100 * (after.max() / STEP - 1):.1f} %")
    assert width(after) < 5.57
    assert after.min() > -0.03 * STEP and after.max() < 1.03 * STEP


def test_an_edge_in_noise_is_sharpened_and_the_noise_is_not():
    """What tells the adaptive factor from the plain one: 1.0 against 2.0."""
    noisy = edge(sd=20.0)
    gain = {method: enhanced(noisy, method)[:, 100:].std() / noisy[:, 100:].std() for method in ("adaptive", "unsharp")}
    print(f"noise {gain}, width {width(enhanced(noisy)):.2f}")
    assert gain["adaptive"] == pytest.approx(1.0, abs=0.03)
    assert gain["unsharp"] > 1.7
    assert width(enhanced(noisy)) < 5.7


def test_nothing_is_cut_off_at_a_fixed_value():
    """A dense rod above everything else stays as dense, or denser by its rim of at most a tenth of what its neighbourhood spans."""
    image = block()
    image.array[:, 60:70, 60:70] = 3000
    after = analysed(image).images["enhanced"]
    span = float(np.ptp(image.array))
    assert 3000 <= after.array[:, 62:68, 62:68].mean() < 3000 + 0.1 * span
    assert image.array.min() - 0.1 * span <= after.array.min() and after.array.max() <= image.array.max() + 0.1 * span


def test_a_factor_of_one_changes_nothing_and_one_below_smooths():
    """The formula itself: I = a I + (1 - a) background."""
    plane = edge(sd=20.0)
    assert np.abs(code("enhance")._sharpened(plane, 1.0) - plane).max() < 1e-3
    assert code("enhance")._sharpened(plane, 0.0)[:, 100:].std() < 0.3 * plane[:, 100:].std()


def test_equalisation_gives_a_faint_pattern_contrast_and_keeps_the_order():
    """Two levels close together are drawn apart, by less than twice; the slice stays within its range; brighter stays brighter."""
    narrow = np.where(np.indices((128, 128)).sum(0) % 8 < 4, 500, 520).astype(np.float32)
    narrow[:4], narrow[-4:] = 0, 1000
    after = enhanced(narrow, "equalised")
    assert after.min() >= narrow.min() and after.max() <= narrow.max()
    bright, dark = (after[40:80, 40:80][narrow[40:80, 40:80] == level] for level in (520, 500))
    assert 1.2 * 20 < bright.mean() - dark.mean() < 2 * 20 and bright.min() > dark.max()


def test_every_method_of_the_table_is_proven_and_one_of_them_is_used():
    assert set(code("enhance").METHODS) == {"adaptive", "unsharp", "equalised"}
    assert code("enhance").METHOD == "adaptive"


@pytest.mark.parametrize("method", ["adaptive", "unsharp", "equalised"])
def test_the_whole_of_even_tissue_keeps_its_level(method):
    """The mean of a slice without structure moves by less than a tenth of its noise; equalisation keeps it within the noise."""
    plane = np.random.default_rng(1).normal(100, 10, (128, 128)).astype(np.float32)
    after = enhanced(plane, method)
    assert after.dtype == np.float32
    assert after.mean() == pytest.approx(plane.mean(), abs=10 if method == "equalised" else 1)


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.001, 5.0)])
def test_a_unit_makes_no_difference(scale, shift):
    """MR has arbitrary ones: the same image in another unit is the same image, within a hundredth of the noise."""
    plain, other = analysed(block()), analysed(volume(block().array * scale + shift, AFFINE))
    assert np.abs((other.images["enhanced"].array - shift) / scale - plain.images["enhanced"].array).max() < 0.5
    assert other.measurements["edge_gain"] == pytest.approx(plain.measurements["edge_gain"], abs=0.5)


def test_slices_are_treated_alone_in_any_order():
    """Turned over, the derived images are those of the same slices."""
    image = block(affine=OBLIQUE)
    image.array[1] += 500
    turned = image.flip_spatial([0])
    there, again = analysed(image).images["enhanced"], analysed(volume(turned.array, turned.affine)).images["enhanced"]
    assert np.abs(again.array[::-1] - there.array).max() < 0.01


def test_a_slice_without_noise_or_with_holes_does_no_harm():
    """No noise: everything is structure. No number: it counts as 0."""
    image = block(noise=0.0)
    image.array[1, 0, :5] = np.nan
    found = analysed(image)
    assert np.isfinite(found.images["enhanced"].array).all()
    assert found.measurements["noise_gain"] == pytest.approx(0, abs=1)


def test_progress_only_grows():
    said = []
    code("enhance").analyse(block(), lambda fraction, sentence: said.append(fraction))
    assert said == sorted(said) and 0 < said[0] < said[-1] < 1


@pytest.mark.parametrize(("shape", "why"), [((3, 64, 64), "all its pixels are alike"), ((3, 64, 31), "64 x 31 pixels")])
def test_what_holds_no_detail_is_declined(shape, why):
    with pytest.raises(Unsuitable, match=why):
        analysed(volume(np.full(shape, 7.0), AFFINE))


def test_a_published_ct_has_steeper_edges_and_no_more_noise():
    """Three slices of LIDC-IDRI-0001: edges at least 25 % steeper, noise within 5 % of what it was."""
    ct = sample("chest-ct").to_patient_orientation("FPL")
    found = analysed(volume(ct.array[60:63], ct.affine)).measurements
    print({name: round(value, 1) for name, value in found.items()})
    assert found["edge_gain"] > 25 and abs(found["noise_gain"]) < 5


def test_the_series_that_comes_out_is_valid_and_lies_on_its_source(tmp_path: Path):
    """As DICOM: images and a report without an error of dciodvfy."""
    array = np.full((4, 64, 64), 24, np.int16)
    array[:, 8:-8, 8:-8] = 1064
    array += np.rint(np.random.default_rng(3).normal(0, 12, array.shape)).astype(np.int16)
    files = phantoms.write(phantoms.series(array, modality="MR", orientation="oblique", rescale=None), tmp_path / "in")
    trial = try_model(model("enhance"), files, tmp_path / "out")
    assert trial.problems == ()
    images = [dcmread(path) for path in trial.objects[:-1]]
    assert {image.ImageType[3] for image in images} == {"ENHANCED"} and len(images) == 4
    assert [code.CodeValue for code in images[0].DerivationCodeSequence] == ["113086", "113089"]


def test_a_published_radiograph_has_steeper_edges_and_no_more_noise():
    """A chest radiograph (CR, MONOCHROME1; NEMA compression sample RG1): its middle, in the sense in which it is seen."""
    image = assemble([published("chest-cr")], model("enhance").manifest.inputs["images"]).volume
    found = analysed(volume(image.array[:, 600:1400, 500:1300], np.eye(4))).measurements
    print({name: round(value, 1) for name, value in found.items()})
    assert found["edge_gain"] > 25 and found["noise_gain"] < 5


@pytest.mark.parametrize("kind", ["CR", "DX", "MG"])
def test_a_radiograph_comes_out_as_one_of_its_kind(kind, tmp_path: Path):
    """As DICOM: one image of its class and polarity, and a report, valid."""
    array = np.full((64, 64), 1000, np.uint16)
    array[8:-8, 8:-8] = 2500
    array = (array + np.rint(np.random.default_rng(3).normal(0, 12, array.shape))).astype(np.uint16)
    source = projections.image(
        kind, 4095 - array, PhotometricInterpretation="MONOCHROME1", **({} if kind == "CR" else {"PresentationLUTShape": "INVERSE"})
    )
    trial = try_model(model("enhance"), phantoms.write([source], tmp_path / "in"), tmp_path / "out")
    assert trial.problems == () and len(trial.objects) == 2
    image = dcmread(trial.objects[0])
    assert (image.SOPClassUID, image.PhotometricInterpretation, image.ImageType[3]) == (source.SOPClassUID, "MONOCHROME1", "ENHANCED")
    assert np.abs(image.pixel_array.astype(int) - source.pixel_array)[20:-20, 20:-20].max() < 100
