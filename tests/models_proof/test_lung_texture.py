"""lung-texture on drawn textures of known place, alone and amid a real lung, and what it says of the real lung as it is."""

import tomllib
from functools import cache
from importlib import import_module

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from dicom_node import Findings, Unsuitable
from tests.models_proof import code, dice, sample, scanned, settled, volume

NOISE_HU = 25.0
BALL_MM = 22.0  # radius
PLACES = {4: (102, 276, 164), 3: (63, 320, 164), 2: (104, 264, 332), 1: (79, 208, 148)}  # deep in the lungs of the real chest


def part(name):
    """Return one of the files beside the model's `analysis.py`."""
    return import_module(f"{code('lung_texture').__name__}.{name}")


@cache
def chest():
    return scanned(sample("chest-ct"), "HPL")


def analysed(image, progress=lambda fraction, sentence: None) -> Findings:
    return settled("lung_texture", code("lung_texture").load(None, "cpu")(ct=image, progress=progress), image)


@cache
def found() -> Findings:
    return analysed(chest())


def beside(one, other, spacing_mm, seed):
    """Return two drawn textures side by side, 40 mm each, of the same mean; which is where; the noise that smoothing leaves."""
    textures, rng = part("textures"), np.random.default_rng(seed)
    shape = tuple(int(length / s) for length, s in zip((60, 80, 80), spacing_mm, strict=True))
    hu, right = (textures.drawn(kind, shape, spacing_mm, rng, NOISE_HU) for kind in (one, other))
    half = shape[2] // 2
    hu[..., half:] = right[..., half:]
    hu[..., :half] += right[..., half:].mean() - hu[..., :half].mean()
    truth = np.where(np.arange(shape[2]) < half, one, other) * np.ones(shape, int)
    grain = textures.noise(shape, spacing_mm, rng, NOISE_HU)
    return hu, truth, float(np.std([part("features").smoothed(plane, spacing_mm) for plane in grain]))


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.8, 0.8), (2.0, 0.7, 0.7), (2.5, 0.7, 0.7)])
def test_textures_of_equal_mean_are_told_apart_where_a_threshold_fails(spacing_mm):
    """Ground glass beside a net of lines: Dice at least 0.95 each; the best threshold on the local mean stays below 0.75."""
    hu, truth, noise_hu = beside(2, 3, spacing_mm, 20)
    patterns = code("lung_texture")._patterns(hu, np.ones(hu.shape, bool), spacing_mm, noise_hu, part("classes").learned())
    figures = [dice(patterns == kind, truth == kind) for kind in (2, 3)]
    local_hu = ndimage.gaussian_filter(hu, [part("features").WINDOW_MM / s for s in spacing_mm])
    bright = local_hu > threshold_otsu(local_hu)
    control = max(dice(mask, truth == 2) + dice(~mask, truth == 3) for mask in (bright, ~bright)) / 2
    print(f"slices of {spacing_mm[0]} mm: Dice {figures[0]:.3f}, {figures[1]:.3f}; Otsu on the local mean {control:.3f}")
    assert min(figures) >= 0.95 and control < 0.75


@pytest.mark.parametrize(("kind", "least"), [(0, 0.9), (1, 0.8), (2, 0.9), (3, 0.9), (4, 0.9)])
def test_a_drawn_texture_is_called_what_it_is(kind, least):
    """On average over four draws with other seeds than those of learning; between the holes of emphysema some lung is as it should be."""
    textures, spacing_mm, shares = part("textures"), (2.0, 0.7, 0.7), []
    for seed in range(30, 34):
        hu = textures.drawn(kind, (25, 70, 70), spacing_mm, np.random.default_rng(seed), NOISE_HU)
        patterns = code("lung_texture")._patterns(hu, np.ones(hu.shape, bool), spacing_mm, 8.0, part("classes").learned())
        shares.append(float((patterns == kind).mean()))
    print(f"{textures.NAMES[kind]}: {np.round(shares, 3)}")
    assert np.mean(shares) >= least


@cache
def with_balls():
    """Return the real chest with a ball of each pattern in its lungs, and which is where."""
    hu, rng, spacing_mm = chest().array.copy(), np.random.default_rng(11), tuple(map(float, chest().spacing))
    truth = np.zeros(hu.shape, np.uint8)
    for kind, centre in PLACES.items():
        reach = [int(BALL_MM / s) + 1 for s in spacing_mm]
        where = tuple(slice(c - r, c + r + 1) for c, r in zip(centre, reach, strict=True))
        axes = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
        ball = sum((axis * s) ** 2 for axis, s in zip(axes, spacing_mm, strict=True)) <= BALL_MM**2
        hu[where][ball] = part("textures").drawn(kind, ball.shape, spacing_mm, rng, 15.0)[ball]
        truth[where][ball] = kind
    return volume(hu, chest().affine), truth


@pytest.mark.slow
def test_patterns_drawn_into_a_real_lung_are_found_there():
    """Each is the commonest answer inside its own ball; Dice, rims and all, at least 0.9; of emphysema, whose spaces reach beyond the rim, 0.79."""
    image, truth = with_balls()
    result, before = analysed(image).segments.array, found().segments.array
    figures, answers = {}, {}
    for kind in PLACES:
        figures[kind] = dice((result == kind) & ((before != kind) | (truth > 0)), truth == kind)
        answers[kind] = np.bincount(result[truth == kind], minlength=5) / np.count_nonzero(truth == kind)
    print({part("textures").NAMES[kind]: (round(figure, 3), answers[kind].round(3).tolist()) for kind, figure in figures.items()})
    assert all(answers[kind].argmax() == kind for kind in PLACES)
    assert figures.pop(1) >= 0.79 and min(figures.values()) >= 0.9


@pytest.mark.slow
def test_the_real_chest_is_mostly_normal():
    """A scan that its readers noted for a nodule: no pattern of inflammation, some low attenuation; a plausibility, for want of a truth."""
    said = found().measurements
    print({name: said[name] for name in ("normal", "share", "share_upper", "share_middle", "share_lower", "lung_volume")})
    assert said["normal"] > 90 and said["share"][2] < 1 and said["share"][3] < 2 and said["share"][4] < 1
    assert said["normal"] + sum(said["share"].values()) == pytest.approx(100)
    assert said["lung_volume"] == pytest.approx(3728, rel=0.01)


@pytest.mark.slow
def test_the_committed_classes_are_what_learning_gives():
    """The same seed, the same table."""
    again = part("learn").learn()

    for name, one in tomllib.loads(again).items():
        committed = part("classes").learned()[name]
        assert one["prior"] == committed["prior"]
        assert one["mean"] == pytest.approx(committed["mean"], rel=1e-3, abs=1e-3)
        assert np.array(one["covariance"]) == pytest.approx(np.array(committed["covariance"]), rel=1e-2, abs=1e-3)


def test_thick_slices_and_loud_images_are_declined():
    """Lines of 1 to 2 mm are not to be seen there."""
    with pytest.raises(Unsuitable, match="texture is lost"):
        analysed(volume(np.full((40, 64, 64), -1000), np.array([[0, 0, 1.5, 0], [0, 1.5, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1.0]])))
    with pytest.raises(Unsuitable, match="cannot be told from fine lines"):
        code("lung_texture")._check_noise(31.0)
    assert code("lung_texture")._check_noise(None) and not code("lung_texture")._check_noise(10.0)


def test_where_two_patterns_meet_there_is_hardly_a_third():
    """Ground glass beside normal lung: a net of lines in less than a hundredth of both, and each keeps its place."""
    hu, _, noise_hu = beside(0, 2, (2.0, 0.7, 0.7), 40)
    half = hu.shape[2] // 2
    hu[..., :half] -= 300  # normal lung again
    patterns = code("lung_texture")._patterns(hu, np.ones(hu.shape, bool), (2.0, 0.7, 0.7), noise_hu, part("classes").learned())
    print(f"third: {np.mean(~np.isin(patterns, (0, 2))):.4f}")
    assert np.mean(~np.isin(patterns, (0, 2))) < 0.01 and dice(patterns == 2, np.arange(hu.shape[2]) >= half + np.zeros(hu.shape)) > 0.95
