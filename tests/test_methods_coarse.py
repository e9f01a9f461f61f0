"""The coarse grid: block means are those of the voxels, and a shape comes back to the scan's grid where it was."""

import numpy as np
import pytest

from dicom_node.methods.coarse import AIR_HU, METAL_HU, Grid, block_maxima, block_means, box, clean, smooth_slices, spread

SHAPE = (7, 10, 9)  # no multiple of the blocks
GRID = Grid.of((2.5, 0.7, 0.8), (2, 3, 4))


def values():
    return np.random.default_rng(0).uniform(-1000, 1000, SHAPE).astype(np.float32)


def blocks(array, reduce):
    """Return each block's value by plain slicing."""
    starts = [range(0, n, f) for n, f in zip(SHAPE, GRID.factors, strict=True)]
    return np.array([[[reduce(array[z : z + 2, y : y + 3, x : x + 4]) for x in starts[2]] for y in starts[1]] for z in starts[0]])


def test_a_grid_knows_its_spacing_and_its_lengths():
    """Blocks of 2 x 3 x 4 voxels of 2.5 x 0.7 x 0.8 mm."""
    assert GRID.spacing_mm == pytest.approx((5.0, 2.1, 3.2))
    assert GRID.ml == pytest.approx(5 * 2.1 * 3.2 / 1000)
    assert Grid.about((2.5, 0.7, 3.0), 2.0).factors == (1, 3, 1)
    assert (GRID.voxels(10.0, 0), GRID.voxels(1.0, 0)) == (2, 1)
    assert (GRID.radius(5.0), GRID.radius(5.0, flat=True)) == ([2, 2, 1], [2, 2, 0])


def test_blocks_hold_the_mean_and_the_maximum_of_their_voxels():
    """The last ones of a row are short and count only what they have."""
    assert block_means(values(), GRID) == pytest.approx(blocks(values(), np.mean), rel=1e-5)
    assert np.array_equal(block_maxima(values(), GRID), blocks(values(), np.max))


def test_what_is_no_number_counts_as_air():
    """And nothing is darker than air or brighter than metal."""
    assert clean(np.array([np.nan, -np.inf, -3000, 40, 1e6, np.inf])).tolist() == [AIR_HU, AIR_HU, AIR_HU, 40, METAL_HU, METAL_HU]


def test_a_mask_spread_lies_where_its_blocks_lie():
    """Whole, or any box of it that begins and ends within blocks."""
    coarse = np.random.default_rng(1).random((4, 4, 3)) > 0.5
    z, y, x = np.indices(SHAPE)
    whole = coarse[z // 2, y // 3, x // 4]
    for part in (tuple(slice(0, n) for n in SHAPE), (slice(1, 6), slice(2, 7), slice(5, 9)), (slice(3, 4), slice(0, 10), slice(0, 9))):
        assert np.array_equal(spread(coarse, GRID, part), whole[part])


def test_a_box_holds_the_mask_and_its_margin_and_nothing_lies_outside_the_array():
    """None about an empty mask; on the finer grid it ends with the scan."""
    mask = np.zeros((4, 4, 3), bool)
    assert box(mask) is None
    mask[1, 2, 2] = True
    assert box(mask) == (slice(1, 2), slice(2, 3), slice(2, 3))
    wide = box(mask, (1, 1, 1))
    assert wide == (slice(0, 3), slice(1, 4), slice(1, 3))
    assert GRID.fine(wide, SHAPE) == (slice(0, 6), slice(3, 10), slice(4, 9))


def test_an_interpolated_ball_is_rounder_than_its_blocks():
    """Closer to the ball that was drawn than its blocks are, slice by slice."""
    places = np.indices((40, 40, 40)) - 19.5
    ball = (places**2).sum(0) <= 15**2
    grid = Grid.of((1.0, 1.0, 1.0), (4, 4, 4))
    coarse = block_means(ball, grid) > 0.5
    smooth = np.stack(list(smooth_slices(coarse, grid, ball.shape)))
    square = spread(coarse, grid, tuple(slice(0, n) for n in ball.shape))
    assert np.count_nonzero(smooth ^ ball) < 0.8 * np.count_nonzero(square ^ ball)
