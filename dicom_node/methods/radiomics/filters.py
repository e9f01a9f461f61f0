"""A bank of linear filters, F(x) = sum of w(u) I(x + u), and what their responses are like within a region.

Mean, Laplacian of Gaussian, Laws and Gabor as the second part of the IBSI describes them. Widths are in mm, but for the kernels of Laws, which are
defined in voxels.
"""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import oaconvolve

Array = NDArray[Any]
Features = dict[str, float]
Spacing = tuple[float, ...]
Box = tuple[slice, ...]

MEAN_MM = 5.0  # the side of the box whose mean is taken
LOG_MM = (2.0, 4.0)  # standard deviations
GABOR_MM = 8.0  # wavelength
GABOR_SIGMA_MM = 0.56 * GABOR_MM  # a bandwidth of one octave
ORIENTATIONS = 4  # of the wave in a slice, over half a turn
LEVEL = np.array([1, 4, 6, 4, 1]) / np.sqrt(70)  # Laws' L5 and E5 have a norm of 1 (IBSI)
EDGE = np.array([-1, -2, 0, 2, 1]) / np.sqrt(10)
ENERGY_VOXELS = 7  # so far about a voxel the responses of Laws' kernels are averaged
REACH_SIGMA = 4.0  # beyond so many standard deviations a Gaussian is nothing
_REACH_MM = REACH_SIGMA * max(*LOG_MM, GABOR_SIGMA_MM)
_REACH_VOXELS = ENERGY_VOXELS + len(EDGE)


def filtered(values: Array, inner: Box, counted: Array, spacing_mm: Spacing) -> Features:
    """Return mean, standard deviation, minimum and maximum of each filter's response on a region.

    values: a region's surroundings (slice, row, column). inner: where in them its box lies. counted: the region's voxels in that box.
    """
    found: dict[str, Any] = {}
    for name, response in responses(values, spacing_mm):
        x = response[inner][counted].astype(np.float64)
        found |= {f"{name}_mean": x.mean(), f"{name}_deviation": x.std(), f"{name}_minimum": x.min(), f"{name}_maximum": x.max()}
    return {name: float(value) for name, value in found.items()}


def surroundings(box: Box, spacing_mm: Spacing) -> tuple[Box, Box]:
    """Return the box within the filters' reach of a box, and where that box lies in it."""
    reach = [max(int(np.ceil(_REACH_MM / s)), _REACH_VOXELS) for s in spacing_mm]
    start = [max(0, one.start - r) for one, r in zip(box, reach, strict=True)]
    about = tuple(slice(low, one.stop + r) for low, one, r in zip(start, box, reach, strict=True))
    return about, tuple(slice(one.start - low, one.stop - low) for low, one in zip(start, box, strict=True))


def responses(values: Array, spacing_mm: Spacing) -> Iterator[tuple[str, Array]]:
    """Give the response of each filter; beyond its edge the image is taken to be its own mirror."""
    yield "mean5", mean(values, spacing_mm, MEAN_MM)
    for sigma_mm in LOG_MM:
        yield f"log{sigma_mm:g}", laplacian_of_gaussian(values, spacing_mm, sigma_mm)
    yield "gabor8", gabor(values, spacing_mm, GABOR_MM, GABOR_SIGMA_MM)
    yield "laws", laws_energy(values)


def mean(values: Array, spacing_mm: Spacing, side_mm: float) -> Array:
    """Return the mean over a box whose sides are the odd numbers of voxels next to a length."""
    return ndimage.uniform_filter(values, [2 * round((side_mm / s - 1) / 2) + 1 if s < side_mm else 1 for s in spacing_mm], mode="mirror")


def laplacian_of_gaussian(values: Array, spacing_mm: Spacing, sigma_mm: float) -> Array:
    """Return the sum of the second derivatives of the smoothed image along the patient's axes, per mm2."""
    sigmas = [sigma_mm / s for s in spacing_mm]
    total = np.zeros(values.shape, np.float32)
    for axis, s in enumerate(spacing_mm):
        order = [2 if one == axis else 0 for one in range(3)]
        total += ndimage.gaussian_filter(values, sigmas, order, mode="mirror", truncate=REACH_SIGMA) / s**2
    return total


def gabor(values: Array, spacing_mm: Spacing, wavelength_mm: float, sigma_mm: float) -> Array:
    """Return the modulus of the response to a wave under a round Gaussian, slice by slice, averaged over its orientations."""
    reach = [int(np.ceil(3 * sigma_mm / s)) for s in spacing_mm[1:]]
    y, x = np.meshgrid(*(np.arange(-r, r + 1) * s for r, s in zip(reach, spacing_mm[1:], strict=True)), indexing="ij")
    window = np.exp(-(x**2 + y**2) / (2 * sigma_mm**2))
    window /= window.sum()
    padded = np.pad(values, [(0, 0), *((r, r) for r in reach)], mode="reflect" if min(values.shape[1:]) > max(reach) else "edge")
    total = np.zeros(values.shape, np.float32)
    for angle in np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
        wave = window * np.exp(2j * np.pi / wavelength_mm * (x * np.cos(angle) + y * np.sin(angle)))
        kernel = (wave - window * wave.sum()).astype(np.complex64)  # nothing where the image does not change
        for index, plane in enumerate(padded):
            total[index] += np.abs(oaconvolve(plane, kernel, mode="valid")) / ORIENTATIONS
    return total


def laws_energy(values: Array) -> Array:
    """Return the energy of Laws' L5E5E5 in all orientations: the size of its responses, averaged over them and about each voxel."""
    turned = set(permutations(("level", "edge", "edge")))
    kernels = {"level": LEVEL.astype(np.float32), "edge": EDGE.astype(np.float32)}
    total = np.zeros(values.shape, np.float32)
    for along in sorted(turned):
        response = values
        for axis, name in enumerate(along):
            response = ndimage.correlate1d(response, kernels[name], axis, mode="mirror")
        total += np.abs(response) / len(turned)
    return ndimage.uniform_filter(total, 2 * ENERGY_VOXELS + 1, mode="mirror")
