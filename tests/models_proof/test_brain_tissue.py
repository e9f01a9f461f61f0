"""brain-tissue on a drawn brain of known volumes, against the published tissue maps of MNI152, on Colin27, and on what is no T1."""

from functools import cache

import numpy as np
import pytest

from dicom_node import Findings, Unsuitable
from dicom_node.analyse.contract import on_grid
from dicom_node.config import weights_home
from dicom_node.domain import Transient
from dicom_node.methods import brain_tissue
from dicom_node.store.packages import Packaged, fetch
from tests.models_proof import code, dice, fetched, model, read, scanned, settled, volume
from tests.models_proof.drawn_brain import T1, drawn
from tests.peers import missing, need_file

TEMPLATES = "/usr/share/mricron/templates"
COARSE = {"spacing_mm": (2.0, 1.5, 1.7), "shape": (80, 124, 104)}
NILEARN = {"package": "nilearn==0.14.1", "package_sha256": "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a"}
MNI152 = {
    "t1": "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    "gm": "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
    "wm": "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
}


@cache
def analyse():
    return code("brain_tissue").load(model("brain_tissue").folder, "cpu", fetched("brain_tissue"))


def analysed(image, **more) -> Findings:
    return settled("brain_tissue", analyse()(mr=image, **more), image)


def measured(scan, brain) -> Findings:
    """Return what is found within a brain that is known; no network draws it."""
    return settled("brain_tissue", code("brain_tissue").measured(scan, brain), scan)


def volumes(findings):
    return np.array(list(findings.measurements["volume"].values()))


def mni152(name):
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    packaged = Packaged(**NILEARN, member=f"nilearn/datasets/data/{file}", sha256=MNI152[name])
    try:
        return read(fetch(packaged, weights_home() / "samples" / file))
    except Transient as error:
        return missing(str(error))


@cache
def colin():
    return read(need_file(f"{TEMPLATES}/ch2.nii.gz"))


@cache
def found_in_colin() -> tuple[Findings, list[tuple[float, str]]]:
    """Return what was found, and what was said on the way."""
    said: list[tuple[float, str]] = []
    return analysed(colin(), progress=lambda fraction, sentence: said.append((fraction, sentence))), said


# ---------------------------------------------------------------------------------------------------------- drawn brain


@pytest.mark.parametrize(
    ("noise", "shading", "tolerance"),
    [(0.0, 0.0, 0.01), (0.3, 0.2, 0.03), (0.5, 0.3, 0.06)],  # half the step from grey to white is more noise than any T1 that is read
)
def test_an_oblique_drawn_brain_has_its_volumes(noise, shading, tolerance):
    """Against 4/3 pi abc, on anisotropic voxels: 1 % where only voxels of two tissues err; the more noise, the more."""
    brain = drawn(noise=noise, shading=shading)
    off = volumes(measured(brain.scan, brain.brain)) / brain.true_ml - 1
    print(f"noise {noise}, shading {shading}: off by " + ", ".join(f"{100 * one:+.1f} %" for one in off))
    assert np.abs(off).max() < tolerance


def test_probabilities_add_up_and_measurements_follow_from_them():
    """The three add up to 1 within their rounding in the brain and to 0 outside; shares and parenchyma follow from the volumes."""
    brain = drawn(noise=0.3, **COARSE)
    findings = measured(brain.scan, brain.brain)
    total = findings.segments.array.sum(axis=-1, dtype=int)
    assert np.abs(total[brain.brain] - 255).max() <= 2 and not total[~brain.brain].any()
    fluid, grey, white = volumes(findings)
    assert findings.measurements["parenchyma"] == pytest.approx(grey + white)
    assert findings.measurements["parenchymal_share"] == pytest.approx(100 * (grey + white) / (fluid + grey + white))
    assert sum(findings.measurements["share"].values()) == pytest.approx(100)


def test_the_same_scan_in_another_order_has_the_same_tissues():
    """Volumes within 0.5 %, and each tissue where it was: the coarse grid of the shading begins at another end."""
    brain = drawn(noise=0.3, shading=0.2, **COARSE)
    turned = scanned(brain.scan, "RFP")
    mask = scanned(brain.scan.with_array(brain.brain), "RFP").array > 0
    first, again = measured(brain.scan, brain.brain), measured(turned, mask)
    assert volumes(again) == pytest.approx(volumes(first), rel=0.005)
    back, _ = on_grid(again.segments, brain.scan)
    assert all(dice(back[..., n] > 127, first.segments.array[..., n] > 127) > 0.99 for n in range(3))


def test_brightness_has_no_unit_and_missing_numbers_do_no_harm():
    """Scaled by 0.001, and not a number in one voxel of a thousand: volumes within 1 %."""
    brain = drawn(noise=0.2, **COARSE)
    altered = brain.scan.array * 0.001
    altered[np.random.default_rng(0).random(altered.shape) < 0.001] = np.nan
    assert volumes(measured(volume(altered, brain.scan.affine), brain.brain)) == pytest.approx(volumes(measured(brain.scan, brain.brain)), rel=0.01)


def test_slabs_bound_the_memory_and_change_nothing():
    """Slabs of 5 planes and of all planes: the same bytes."""
    brain = drawn(noise=0.3, **COARSE)
    whole = brain_tissue.tissues(brain.scan.array, brain.brain, brain.scan.spacing)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brain_tissue, "SLAB", 5)
        assert (brain_tissue.tissues(brain.scan.array, brain.brain, brain.scan.spacing)[1] == whole).mean() > 0.9999


# ----------------------------------------------------------------------------------------------------------- real heads


def test_mni152_agrees_with_its_published_tissue_maps():
    """Dice at least 0.875 for fluid, 0.94 for grey and for white matter, where each is the likeliest, within the published brain."""
    t1, grey, white = (mni152(name) for name in ("t1", "gm", "wm"))
    brain = t1.array > 0
    published = np.stack([np.clip(255 - grey.array - white.array, 0, 255), grey.array, white.array])
    found = np.moveaxis(measured(t1, brain).segments.array, -1, 0)
    agreement = [dice((found.argmax(0) == n) & brain, (published.argmax(0) == n) & brain) for n in range(3)]
    ml = [float(one.sum()) / 255000 for one in (*(published * brain), *found.astype(float))]
    print("Dice fluid {:.3f}, grey {:.3f}, white {:.3f}".format(*agreement), "published and found mL " + ", ".join(f"{one:.0f}" for one in ml))
    assert agreement[0] >= 0.875 and min(agreement[1:]) >= 0.94


def test_colin27_has_its_volumes():
    """Within 2 % of what was measured when this was written: a change of the method does not pass unseen."""
    findings, _ = found_in_colin()
    print(dict(findings.measurements))
    assert volumes(findings) == pytest.approx([297, 957, 703], rel=0.02)


def test_colin27_scanned_otherwise_and_moved_by_half_a_millimetre_has_the_same_tissues():
    """Coronal slices from the back, moved by linear interpolation, which at half a voxel blurs most: fluid, the thinnest, within 8 %, else 3 %."""
    moved = colin().array
    for axis in range(3):
        moved = (moved + np.roll(moved, -1, axis)) / 2
    again = analysed(scanned(volume(moved, colin().affine), "PFR"))
    change = 100 * (volumes(again) / volumes(found_in_colin()[0]) - 1)
    parenchyma = 100 * (again.measurements["parenchyma"] / found_in_colin()[0].measurements["parenchyma"] - 1)
    print("change in % " + ", ".join(f"{one:+.1f}" for one in (*change, parenchyma)))
    assert abs(change[0]) < 8 and np.abs(change[1:]).max() < 3 and abs(parenchyma) < 1


def test_white_matter_tracts_of_an_atlas_are_white_in_colin27():
    """Corpus callosum, corona radiata and capsules of the JHU atlas, which was not drawn on this head: probability of white above 0.8 on average."""
    atlas, _ = on_grid(read(need_file(f"{TEMPLATES}/JHU-WhiteMatter-labels-1mm.nii.gz")), colin())
    inside = found_in_colin()[0].segments.array[atlas > 0] / 255
    print("fluid {:.3f}, grey {:.3f}, white {:.3f}".format(*inside.mean(axis=0)))
    assert inside.mean(axis=0)[2] > 0.8


# -------------------------------------------------------------------------------------------------------- it declines


@pytest.mark.parametrize(
    "brightness",
    [T1[::-1], (300.0, 900.0, 600.0), (900.0, 700.0, 500.0), (600.0, 900.0, 300.0)],
    ids=["T2", "FLAIR", "proton density", "fluid between"],
)
def test_other_contrasts_than_t1_are_declined(brightness):
    """White matter lies deepest and fluid outside: where the brightest tissue is another, it is no T1."""
    brain = drawn(brightness=brightness, noise=0.1, **COARSE)
    with pytest.raises(Unsuitable, match="no T1-weighted"):
        measured(brain.scan, brain.brain)


@pytest.mark.parametrize("brightness", [(300.0, 600.0, 605.0), (300.0, 300.0, 300.0)])
def test_tissues_that_look_alike_are_declined(brightness):
    """Grey as bright as white, or all alike, under noise."""
    brain = drawn(brightness=brightness, **COARSE)
    noisy = brain.scan.array + np.random.default_rng(0).normal(size=brain.brain.shape, scale=30)
    with pytest.raises(Unsuitable):
        measured(volume(noisy, brain.scan.affine), brain.brain)


def test_one_brightness_and_no_brain_are_declined():
    """Nothing to tell apart, and nothing to measure."""
    brain = drawn(**COARSE)
    with pytest.raises(Unsuitable, match="equally bright throughout"):
        measured(brain.scan.with_array(np.full(brain.brain.shape, 7, np.float32)), brain.brain)
    with pytest.raises(Unsuitable, match="No brain"):
        measured(brain.scan, np.zeros_like(brain.brain))


def test_thick_slices_and_what_brain_mr_declines_are_declined():
    """Above 2.5 mm by itself; an empty volume by the rules of brain-mr, which has them from its own file."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for matrix, why in ((affine, "3.0 mm apart"), (affine * [[0.8], [0.8], [0.8], [1]], "volume is empty")):
        with pytest.raises(Unsuitable, match=why):
            analysed(volume(np.zeros((64, 64, 64)), matrix))


def test_the_brain_is_drawn_by_brain_mr_with_its_weights():
    """The mask of the same head is the same in both models; the same weights by hash."""
    drawn_by_brain_mr = code("brain_mr").load(model("brain_mr").folder, "cpu", fetched("brain_mr"))(mr=colin()).segments
    mask, _ = on_grid(drawn_by_brain_mr, colin())
    assert (mask == (found_in_colin()[0].segments.array.sum(axis=-1, dtype=int) > 0)).all()
    assert model("brain_tissue").manifest.weights == model("brain_mr").manifest.weights


def test_progress_only_grows():
    """From above 0 to below 1, each step with a sentence."""
    said = found_in_colin()[1]
    fractions = [fraction for fraction, _ in said]
    assert len(said) > 5 and fractions == sorted(fractions) and 0 < fractions[0] < fractions[-1] < 1
    assert all(sentence for _, sentence in said)
