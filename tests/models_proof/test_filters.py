"""The filters of radiomics on what they are defined by: an impulse, a blob, waves, steps; and within an image."""

import numpy as np
import pytest

from dicom_node.methods.radiomics import CT_BINS, features, filters

ANY = (1.5, 0.8, 0.7)


def test_the_mean_filter_spreads_an_impulse_over_its_box():
    """One voxel of 1: 1/n in each of the n voxels of the box of 5 mm about it, 3 x 7 x 7 voxels here, and 0 elsewhere."""
    impulse = np.zeros((9, 15, 15), np.float32)
    impulse[4, 7, 7] = 1
    found = filters.mean(impulse, ANY, 5.0)
    assert np.count_nonzero(found > 1e-7) == 3 * 7 * 7 and found[3:6, 4:11, 4:11] == pytest.approx(1 / (3 * 7 * 7), rel=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.5, 0.8, 0.7)])
def test_the_laplacian_of_gaussian_of_a_blob_is_what_calculus_says(spacing_mm):
    """A Gaussian blob of standard deviation s, smoothed with t, is one of u = sqrt(s2 + t2), whose Laplacian is (r2/u4 - 3/u2) times itself."""
    shape = [2 * round(20 / s) + 1 for s in spacing_mm]
    far2 = sum(one**2 for one in np.ix_(*((np.arange(n) - n // 2) * s for n, s in zip(shape, spacing_mm, strict=True))))
    s, t = 3.0, 4.0
    found = filters.laplacian_of_gaussian(np.exp(-far2 / (2 * s**2)).astype(np.float32), spacing_mm, t)
    u = np.hypot(s, t)
    expected = (s / u) ** 3 * (far2 / u**4 - 3 / u**2) * np.exp(-far2 / (2 * u**2))
    inside = far2 < 10**2
    assert found[inside] == pytest.approx(expected[inside], abs=0.01 * np.abs(expected).max())


def test_the_gabor_filter_answers_its_own_wave_and_no_other():
    """A wave of 8 mm across a slice gives its amplitude over the four directions' mean; one of 3 mm, and an even image, give nothing."""
    x = np.arange(80) * 0.7
    waves = {length: np.broadcast_to(100 * np.cos(2 * np.pi * x / length), (2, 80, 80)).astype(np.float32) for length in (8.0, 3.0)}
    middle = (slice(None), slice(30, 50), slice(30, 50))
    own, other = (filters.gabor(wave, (1.5, 0.8, 0.7), 8.0, filters.GABOR_SIGMA_MM)[middle] for wave in waves.values())
    assert own == pytest.approx(50 / 4, rel=0.1) and own.std() < 1 and other.max() < 0.05 * own.min()
    assert np.abs(filters.gabor(np.full((2, 80, 80), 700, np.float32), (1.5, 0.8, 0.7), 8.0, filters.GABOR_SIGMA_MM)).max() < 1e-2


def test_the_energy_of_laws_is_what_its_kernels_give_by_hand():
    """A step of 1 across one axis: E5 sees it on four places with 1, 3, 3, 1 over sqrt(10), L5 and E5 along it with 16/sqrt(70) and 0."""
    step = np.zeros((40, 40, 40), np.float32)
    step[..., 20:] = 1
    assert np.abs(filters.laws_energy(step)).max() < 1e-5  # each orientation has an E5 along the step
    corner = np.zeros((40, 40, 40), np.float32)
    corner[:, 20:, 20:] = 1
    per_plane = (16 / np.sqrt(70)) * (8 / np.sqrt(10)) ** 2 / 3  # of one in three orientations
    assert filters.laws_energy(corner)[20, 20, 20] == pytest.approx(per_plane * 15 / 15**3, rel=1e-4)


def test_filters_see_what_lies_beyond_the_region():
    """A region in an image has the responses of the whole image within it, whatever was cut away beyond their reach."""
    values = np.random.default_rng(8).normal(0, 100, (60, 90, 100)).astype(np.float32)
    box = slice(28, 32), slice(40, 48), slice(45, 56)
    mask = np.ones([one.stop - one.start for one in box], bool)
    found = features(values, mask, box, ANY, CT_BINS)
    for name, response in filters.responses(values, ANY):
        x = response[box].astype(float)
        got = [found[f"filter_{name}_{what}"] for what in ("mean", "deviation", "minimum", "maximum")]
        assert got == pytest.approx([x.mean(), x.std(), x.min(), x.max()], rel=1e-3, abs=1e-2)
