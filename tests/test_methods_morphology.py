"""Binary morphology in millimetres on masks whose answer is known."""

import numpy as np

from dicom_node.methods.coarse import Grid
from dicom_node.methods.morphology import closed, depth_mm, dilated, distance_mm, eroded, filled, largest, not_smaller, opened

GRID = Grid.of((3.0, 1.0, 2.0), (1, 1, 1))


def cuboid(*sides):
    mask = np.zeros((12, 20, 20), bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def test_distances_are_in_millimetres_along_each_axis():
    """From a single voxel: 3, 1 and 2 mm to its neighbours."""
    far = distance_mm(cuboid((5, 6), (9, 10), (9, 10)), GRID)
    assert (far[5, 9, 9], far[6, 9, 9], far[5, 10, 9], far[5, 9, 10]) == (0, 3, 1, 2)
    assert np.isinf(distance_mm(np.zeros((2, 3, 4), bool), GRID)).all()


def test_depth_begins_at_the_outermost_voxels():
    """Zero in them and outside, then growing inwards."""
    deep = depth_mm(cuboid((0, 12), (4, 14), (0, 20)), GRID)
    assert deep[5, 3:8, 10].tolist() == [0, 0, 1, 2, 3]


def test_closing_joins_and_opening_parts():
    """Two blocks 2 voxels apart; the edge of the array does not eat what touches it."""
    one, other = cuboid((0, 12), (0, 8), (0, 20)), cuboid((0, 12), (10, 20), (0, 20))
    assert closed(one | other, [2, 2, 0]).all()
    bridge = cuboid((0, 12), (0, 20), (9, 10))
    assert np.array_equal(opened(one | other | bridge, [1, 1, 0])[:, 8:10], np.zeros((12, 2, 20), bool))
    assert np.count_nonzero(dilated(cuboid((5, 6), (9, 10), (9, 10)), [1, 1, 1])) > 6


def test_erosion_takes_from_the_surface_and_not_from_the_array_s_edge():
    """One voxel in the plane, none along the body."""
    assert np.array_equal(eroded(cuboid((0, 12), (0, 8), (0, 20)), [1, 1, 0]), cuboid((0, 12), (0, 7), (0, 20)))


def test_pieces_are_chosen_by_their_size():
    """The largest; those of at least a volume; nothing where there is nothing."""
    large, small = cuboid((0, 12), (0, 8), (0, 20)), cuboid((0, 2), (12, 14), (0, 2))
    assert np.array_equal(largest(large | small), large)
    assert np.array_equal(not_smaller(large | small, GRID, 0.1), large)
    assert np.array_equal(not_smaller(large | small, GRID, 0.04), large | small)  # 8 voxels of 6 mm3
    assert not largest(large & small).any()


def test_holes_are_filled_slice_by_slice():
    """Also one that opens along the body."""
    ring = cuboid((0, 12), (2, 10), (2, 10)) & ~cuboid((0, 12), (4, 8), (4, 8))
    assert np.array_equal(filled(ring), cuboid((0, 12), (2, 10), (2, 10)))
