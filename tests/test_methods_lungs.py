"""The lungs of a drawn chest, as every model that needs them gets them; the real chest is in tests/models_proof/test_lung_ct.py."""

import numpy as np
import pytest

from dicom_node.domain import Unsuitable
from dicom_node.methods import body
from dicom_node.methods.airways import lumen, trachea, trachea_mm2
from dicom_node.methods.lungs import LEFT, RIGHT, air_hu, check_ends, find, is_gas, thirds
from tests.models_proof.test_lung_ct import SHAPE, drawn

SPACING_MM = (4.0, 4.0, 4.0)


def test_both_lungs_and_the_air_in_the_trachea_are_found():
    """LEFT lies where the columns run to; what is called airway is air of the trachea."""
    hu, truth = drawn()
    lungs = find(hu, SPACING_MM)
    for side in (LEFT, RIGHT):
        assert np.count_nonzero(lungs.segments == side) == pytest.approx(np.count_nonzero(truth == side), rel=0.04)
    assert np.nonzero(lungs.segments == LEFT)[2].mean() > np.nonzero(lungs.segments == RIGHT)[2].mean()
    assert lungs.grid.factors == (1, 1, 1) and lungs.notes == check_ends(lungs.segments) == ()
    assert len(air_hu(hu, lungs)) and air_hu(hu, lungs).mean() == pytest.approx(-1000, abs=15)


def test_progress_is_that_of_the_search_alone():
    """From above 0 to below 1."""
    said = []
    find(drawn()[0], SPACING_MM, lambda fraction, sentence: said.append(fraction))
    assert said == sorted(said) and 0 < said[0] < said[-1] < 1


def test_the_body_is_found_without_the_table():
    """With what it encloses; nothing but air is declined with the caller's wish."""
    hu, _ = drawn()
    whole = body.whole(hu, "Send a chest.")
    assert whole[30, 36, 48] and whole[30, 36, 30] and not whole[:, 64:].any() and not whole[:, :8].any()
    with pytest.raises(Unsuitable, match="empty") as declined:
        body.solid(np.full(SHAPE, -1000, np.float32), "Send a chest.")
    assert declined.value.hint == "Send a chest."


def test_gas_has_no_vessels():
    """Emphysema has: its densest twentieth is not air."""
    gas, lung = np.full(100, -990, np.float32), np.full(100, -990, np.float32)
    lung[:10] = -700
    assert is_gas(gas) and not is_gas(lung)


def test_thirds_have_equal_volumes():
    """Of both lungs together, to within a slice; an empty mask has none."""
    _, truth = drawn()
    of_slice, voxels = thirds(truth), np.count_nonzero(truth, axis=(1, 2))
    assert (np.diff(of_slice) >= 0).all() and set(of_slice.tolist()) == {0, 1, 2}
    assert [voxels[of_slice == third].sum() for third in range(3)] == pytest.approx([voxels.sum() / 3] * 3, abs=int(voxels.max()))
    with pytest.raises(Unsuitable, match="No lungs"):
        thirds(np.zeros_like(truth))


def forked(lean=0.0):
    """Return a trachea of 200 mm2 that leans by so many mm for each mm and parts 40 mm above its lower end, and its spacing: 2, 0.5, 0.5 mm."""
    z, y, x = np.ogrid[0:70:1, 0:120, 0:240]
    radius = np.sqrt(200 / np.pi) / 0.5
    up = 2.0 * (z - 20) / 0.5  # in columns above the carina
    trunk = (z >= 20) & ((y - 40 - lean * up) ** 2 / (1 + lean**2) + (x - 120) ** 2 <= radius**2)
    bronchi = (z < 20) & ((y - 40) ** 2 + (abs(x - 120) - 0.8 * radius + 0.4 * up) ** 2 <= (0.7 * radius) ** 2)
    return trunk | bronchi, (2.0, 0.5, 0.5)


@pytest.mark.parametrize("lean", [0.0, 0.15, 0.3])
def test_the_trachea_ends_at_the_carina_and_is_measured_across_its_axis(lean):
    """200 mm2 within 1 %, however it leans; what lies above the given slice is the neck."""
    air, spacing_mm = forked(lean)
    assert trachea(air)[0] == 20 and trachea(air)[-1] == 69
    areas_mm2 = trachea_mm2(air, spacing_mm, 60)
    assert areas_mm2 == pytest.approx(200, rel=0.02) and areas_mm2.mean() == pytest.approx(200, rel=0.01)
    air[40] &= np.indices(air.shape[1:])[1] < 120  # half of it closed
    assert trachea_mm2(air, spacing_mm, 60).min() == pytest.approx(100, rel=0.1)
    assert trachea_mm2(air, spacing_mm, 35).min() > 190


def test_the_lumen_ends_half_way_to_the_wall():
    """All voxels of the drawn trachea, none of the lungs, and none where there is no airway."""
    hu, truth = drawn()
    air = lumen(hu, find(hu, SPACING_MM))
    assert np.array_equal(np.argwhere(air).min(0), (38, 34, 46)) and np.count_nonzero(air) == 22 * 4 * 4 and not (air & (truth > 0)).any()
    hu[38:, 34:38, 46:50] = 40
    assert not lumen(hu, find(hu, SPACING_MM)).any()
