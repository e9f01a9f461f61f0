"""denoise on the Shepp-Logan phantom, on flat and stepped objects of known noise, on a published CT, and on what it cannot be asked of."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from pydicom import dcmread

from dicom_node import Unsuitable
from dicom_node.methods.noise import noise_sd, tissue, variance
from dicom_node.work import try_model
from tests import phantoms
from tests.models_proof import code, model, sample, settled, volume

AFFINE = np.diag([2.5, 0.7, 0.7, 1.0])
OBLIQUE = phantoms.affine("oblique", (3.0, 0.9, 0.5))
NOISE = 0.08

# Intensity, half axes, centre, angle in degrees: Shepp and Logan 1974, with Toft's contrasts.
ELLIPSES = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
)
LEAST_DB = {"nlm": 34.3, "tv": 35.8, "diffusion": 33.3, "wavelet": 29.4, "median": 28.6, "gaussian": 25.1, "mean": 24.7}  # half a dB of slack


def analysed(image):
    return settled("denoise", code("denoise").analyse(image), image)


def shepp_logan(size=400):
    down, right = np.mgrid[1 : -1 : size * 1j, -1 : 1 : size * 1j]
    found = np.zeros((size, size), np.float32)
    for intensity, a, b, x, y, degrees in ELLIPSES:
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        along, across = (right - x) * cos + (down - y) * sin, (down - y) * cos - (right - x) * sin
        found[(along / a) ** 2 + (across / b) ** 2 <= 1] += intensity
    return found


@cache
def noisy():
    return (shepp_logan() + np.random.default_rng(0).normal(0, NOISE, (400, 400))).astype(np.float32)


def psnr(image):
    return -10 * np.log10(np.mean((image - shepp_logan()) ** 2))


def square(*, inside=40.0, outside=-1000.0, noise=0.0, slices=4, size=96, affine=AFFINE, seed=0):
    """Return a square of tissue in air, of even noise, in slices that each have noise of their own."""
    array = np.full((slices, size, size), outside)
    array[:, size // 8 : -size // 8, size // 8 : -size // 8] = inside
    return volume(array + np.random.default_rng(seed).normal(0, noise, array.shape) if noise else array, affine)


@pytest.mark.parametrize("method", LEAST_DB)
def test_each_method_takes_noise_from_the_shepp_logan_phantom(method):
    """PSNR against the phantom without noise; half a decibel below what was measured."""
    sd = noise_sd(variance(noisy()), tissue(noisy()))
    found = psnr(code("denoise").METHODS[method](noisy(), sd))
    print(f"{method}: {found:.2f} dB, noisy {psnr(noisy()):.2f} dB, noise measured {sd:.4f}")
    assert psnr(noisy()) == pytest.approx(21.9, abs=0.1)
    assert found >= LEAST_DB[method]


@pytest.mark.parametrize("rows", [5, 16, 64])
def test_non_local_means_is_the_weighted_mean_of_its_formula(rows, monkeypatch):
    """Pixel by pixel, to a thousandth of the noise, however many rows are worked on at once; the image is mirrored at its edges."""
    denoise, sd, plane = code("denoise"), 20.0, square(noise=20.0, slices=1, size=24).array[0]
    monkeypatch.setattr(denoise, "ROWS", rows)
    reach, edge = denoise.SEARCH // 2, denoise.PATCH // 2
    windows = sliding_window_view(np.pad(plane.astype(np.float64), reach + edge, mode="reflect"), (denoise.PATCH, denoise.PATCH))
    total, weight = np.zeros(plane.shape), np.zeros(plane.shape)
    for down, right in np.ndindex(denoise.SEARCH, denoise.SEARCH):
        here, there = windows[reach:-reach, reach:-reach], windows[down : down + len(plane), right : right + len(plane)]
        unlike = np.square(here - there).mean(axis=(2, 3))
        like = np.exp(-np.maximum(unlike - 2 * sd**2, 0) / (denoise.LIKE * sd) ** 2)
        total, weight = total + like * there[..., edge, edge], weight + like
    assert np.abs(denoise.METHODS["nlm"](plane, sd) - total / weight).max() < sd / 1000


def test_every_method_of_the_table_is_proven_and_one_of_them_is_used():
    assert set(code("denoise").METHODS) == set(LEAST_DB)
    assert code("denoise").METHOD == "nlm"


def test_the_mean_of_nine_leaves_a_third_of_the_noise():
    """1 / sqrt(9), within 2 %: the plainest case has a theory."""
    white = np.random.default_rng(1).normal(0, 1, (400, 400)).astype(np.float32)
    assert code("denoise").METHODS["mean"](white, 1.0)[2:-2, 2:-2].std() == pytest.approx(1 / 3, rel=0.02)


@pytest.mark.parametrize("sd", [2.0, 15.0, 60.0])
def test_the_noise_is_measured_as_it_was_made(sd):
    """Within 5 %, over a range of thirty."""
    found = analysed(square(noise=sd))
    assert found.measurements["noise_before"] == pytest.approx(sd, rel=0.05)
    assert found.measurements["reduction"] == pytest.approx(100 * (1 - found.measurements["noise_after"] / found.measurements["noise_before"]))
    assert found.measurements["reduction"] > 60


@pytest.mark.parametrize("method", LEAST_DB)
def test_the_mean_of_tissue_stays_what_it_was(method):
    """Within a tenth of the noise: less noise must not be another density."""
    image = square(noise=20.0, slices=1)
    inner = np.s_[24:-24, 24:-24]
    after = code("denoise").METHODS[method](image.array[0], 20.0)
    assert after.dtype == np.float32 and after.shape == image.array[0].shape
    assert after[inner].mean() == pytest.approx(image.array[0][inner].mean(), abs=2.0)


@pytest.mark.parametrize("method", ["nlm", "tv", "diffusion", "median"])
def test_an_edge_stays_where_it_was(method):
    """Half of a step of ten noise SD lies within half a pixel of where it lay; both sides keep their level two pixels away."""
    plane = np.zeros((96, 96), np.float32)
    plane[:, 48:] = 200
    after = code("denoise").METHODS[method](plane + np.random.default_rng(2).normal(0, 20, plane.shape).astype(np.float32), 20.0).mean(0)
    assert np.interp(100, after[44:52], np.arange(44, 52)) == pytest.approx(47.5, abs=0.5)
    assert after[45] == pytest.approx(0, abs=15) and after[50] == pytest.approx(200, abs=15)


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.001, 5.0)])
def test_a_unit_makes_no_difference(scale, shift):
    """MR has arbitrary ones: the same image in another unit is the same image, within a hundredth of the noise."""
    image = square(inside=1000.0, outside=20.0, noise=30.0, slices=2)
    plain, other = analysed(image), analysed(volume(image.array * scale + shift, AFFINE))
    assert np.abs((other.images["denoised"].array - shift) / scale - plain.images["denoised"].array).max() < 0.3
    assert other.measurements["reduction"] == pytest.approx(plain.measurements["reduction"], abs=0.5)


def test_slices_are_treated_alone_in_any_orientation_and_order():
    """In the plane of the scan, whatever it is: turned over, the derived images are those of the same slices."""
    image = square(noise=15.0, slices=6, affine=OBLIQUE)
    image.array[3] += 500  # a slice unlike its neighbours
    there = analysed(image).images["denoised"]
    turned = image.flip_spatial([0])
    again = analysed(volume(turned.array, turned.affine)).images["denoised"]
    assert np.abs(again.array[::-1] - there.array).max() < 0.01
    assert there.array[3].mean() - there.array[2].mean() == pytest.approx(500, abs=5)


def test_a_single_slice_will_do():
    assert analysed(square(noise=15.0, slices=1)).measurements["reduction"] > 60


def test_what_is_no_number_does_no_harm():
    """It counts as 0; the rest of the slice is treated as ever."""
    image = square(noise=15.0, outside=0.0, inside=1000.0)
    image.array[1, 0, :5] = np.nan
    assert np.isfinite(analysed(image).images["denoised"].array).all()


def test_progress_only_grows():
    said = []
    code("denoise").analyse(square(noise=15.0), lambda fraction, sentence: said.append(fraction))
    assert said == sorted(said) and 0 < said[0] < said[-1] < 1


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (lambda: volume(np.full((3, 64, 64), 7.0), AFFINE), "all its pixels are alike"),
        (lambda: volume(np.random.default_rng(0).normal(size=(3, 64, 12)), AFFINE), "64 x 12 pixels"),
        (square, "No noise was found"),
    ],
)
def test_what_has_no_noise_is_declined(image, why):
    with pytest.raises(Unsuitable, match=why):
        analysed(image())


def test_a_published_ct_has_less_noise_and_the_same_means():
    """Three slices of LIDC-IDRI-0001: noise falls by more than half; no mean of a block of 16 x 16 pixels of tissue moves by 10 HU."""
    ct = sample("chest-ct")
    middle = ct.to_patient_orientation("FPL")
    some = volume(middle.array[60:63], middle.affine)
    found = analysed(some)
    print({name: round(value, 2) for name, value in found.measurements.items()})
    assert 5 < found.measurements["noise_before"] < 40 and found.measurements["reduction"] > 50
    blocks = [a.array[:, :512, :512].reshape(3, 32, 16, 32, 16) for a in (some, found.images["denoised"])]
    flat = blocks[0].std(axis=(2, 4)) < 30
    means = [one.mean(axis=(2, 4))[flat] for one in blocks]
    assert np.count_nonzero(flat) > 100
    assert np.abs(means[0] - means[1]).max() < 10


def test_the_series_that_comes_out_is_valid_and_lies_on_its_source(tmp_path: Path):
    """As DICOM: eight images, one report, no error of dciodvfy; less noise in what is stored."""
    array = np.full((8, 64, 64), 24, np.int16)
    array[:, 8:-8, 8:-8] = 1064
    array += np.rint(np.random.default_rng(3).normal(0, 12, array.shape)).astype(np.int16)
    files = phantoms.write(phantoms.series(array, orientation="oblique"), tmp_path / "in")
    trial = try_model(model("denoise"), files, tmp_path / "out")
    assert trial.problems == ()
    images = [dcmread(path) for path in trial.objects[:-1]]
    assert {image.ImageType[3] for image in images} == {"DENOISED"} and len(images) == 8
    assert images[0].pixel_array[16:-16, 16:-16].std() < 6 and trial.findings.measurements["noise_before"] == pytest.approx(12, rel=0.05)
