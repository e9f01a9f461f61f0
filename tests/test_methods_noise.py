"""Noise is measured as it was made, whatever lies about it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dicom_node.methods.noise import FEW, WINDOW, noise_sd, tissue, variance


def plane(sd, *, level=1000.0, side=128, seed=0):
    """Return noisy tissue in air, with a step and a few lines in it (row, column)."""
    made = np.zeros((side, side))
    made[10:-10, 10:-10] = level
    made[10:-10, 70:] += 0.2 * level
    made[40:44, 10:-10] += 0.3 * level
    return (made + np.random.default_rng(seed).normal(0, sd, made.shape)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(sd=st.floats(0.5, 40), seed=st.integers(0, 1000))
def test_noise_is_measured_between_edges(sd, seed):
    """Within a tenth, of a slice of which windows on edges are a third."""
    image = plane(sd, seed=seed)
    assert noise_sd(variance(image), tissue(image)) == pytest.approx(sd, rel=0.1)


@settings(deadline=None, max_examples=20)
@given(scale=st.sampled_from([1e-3, 7.0, 1e4]), seed=st.integers(0, 1000))
def test_the_unit_makes_no_difference(scale, seed):
    image = plane(10, seed=seed)
    other = (scale * image.astype(np.float64)).astype(np.float32)
    assert noise_sd(variance(other), tissue(other)) == pytest.approx(scale * noise_sd(variance(image), tissue(image)), rel=1e-3)


def test_a_variance_is_that_of_its_window():
    """Beside numpy's, of a level ten thousand times as high as the noise."""
    image = plane(1, level=0) + np.float32(1e4)
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (WINDOW, WINDOW)).var(axis=(2, 3))
    assert variance(image)[3:-3, 3:-3] == pytest.approx(windows, rel=1e-6)


def test_tissue_is_what_a_whole_window_of_brighter_pixels_lies_in():
    """As erosion says it; beyond the edge of the image there is none."""
    image = plane(100)
    image[:20] += 3000  # up to the edge
    window = np.ones((WINDOW, WINDOW), bool)
    assert np.array_equal(tissue(image), ndimage.binary_erosion(image > image.mean(), window))
    assert tissue(image).any() and not tissue(image)[:3].any()


def test_of_few_windows_no_noise_is_told_and_of_even_ones_none():
    image = np.zeros((40, 40), np.float32)
    few, many = np.zeros((2, 40, 40), bool)
    few.flat[: FEW - 1], many.flat[:FEW] = True, True
    assert np.isnan(noise_sd(variance(image), few))
    assert noise_sd(variance(image), many) == 0
