"""The shape features of radiomics on bodies whose answer is known, and against loops over pairs of voxels."""

import numpy as np
import pytest

from dicom_node.methods.radiomics.shape import ellipsoid_mm2, shape_of, values_in_place

ANY = (1.5, 0.8, 0.7)


def test_axes_are_those_of_the_ellipsoid_however_it_lies():
    """Of a solid ellipsoid with half axes a, b, c the axes with its moments are 4/√5 of them (the variance along a is a²/5): within 1 % on voxels."""
    half_mm = np.array([18.0, 12.0, 8.0])
    turned, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    place = np.stack([(index - (n - 1) / 2) * s for index, n, s in zip(np.indices((29, 56, 64)), (29, 56, 64), ANY, strict=True)], -1)
    found = shape_of(((place @ turned / half_mm) ** 2).sum(-1) < 1, ANY)
    assert [found[f"{name}_axis"] for name in ("major", "minor", "least")] == pytest.approx(4 / np.sqrt(5) * half_mm, rel=0.01)
    assert found["elongation"] == pytest.approx(12 / 18, rel=0.01) and found["flatness"] == pytest.approx(8 / 18, rel=0.01)


def test_the_centre_shifts_as_far_as_the_weights_say():
    """Two voxels 0.8 mm apart with 100 and 300 HU: the centre moves by a quarter of that towards the heavier."""
    both = np.ones((1, 2, 1), bool)
    assert values_in_place(np.array([[[100], [300]]]), both, both, ANY, 1.0)["centre_shift"] == pytest.approx(0.2)


def test_measures_of_all_pairs_are_what_summing_over_the_pairs_gives():
    """Moran's I and Geary's C of a random region with holes on unequal voxels, by loops as the IBSI writes them."""
    rng = np.random.default_rng(6)
    values, mask = rng.normal(50, 20, (3, 4, 5)), rng.random((3, 4, 5)) < 0.7
    x, place = values[mask], np.argwhere(mask) * ANY
    weight = np.array([[0 if i == j else 1 / np.linalg.norm(place[i] - place[j]) for j in range(x.size)] for i in range(x.size)])
    apart = x - x.mean()
    moran = x.size / weight.sum() * (weight * np.outer(apart, apart)).sum() / (apart**2).sum()
    geary = (x.size - 1) / (2 * weight.sum()) * (weight * np.subtract.outer(x, x) ** 2).sum() / (apart**2).sum()
    found = values_in_place(values, mask, mask, ANY, 1.0)
    assert (found["moran_i"], found["geary_c"]) == pytest.approx((moran, geary), rel=1e-4)


def test_a_ball_is_round_but_for_the_steps_of_its_voxels():
    """A ball of 20 mm: volume within 1 %, its diameter to a voxel, and its surface an eighth too large, since a mesh of voxels has steps. Where its
    axes are equal the area of the ellipsoid is the ball's."""
    place = np.stack(np.meshgrid(*(np.arange(-r, r + 1) * s for r, s in zip((16, 28, 32), ANY, strict=True)), indexing="ij"), -1)
    found = shape_of((place**2).sum(-1) < 20**2, ANY)
    assert 0.88 < found["sphericity"] < 0.9 and found["hull_volume_density"] > 0.95
    assert found["maximum_diameter"] == pytest.approx(40, abs=1.5) and found["mesh_volume"] == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
    assert ellipsoid_mm2(3.0, 3.0, 3.0) == pytest.approx(36 * np.pi)
