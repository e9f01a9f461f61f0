"""brain-mr on Colin27 against its skull-stripped copy, and on a published T1; on altered copies, and on what is no head."""

from functools import cache

import numpy as np
import pytest
import torch

from dicom_node import Findings, Unsuitable
from tests.models_proof import code, dice, fetched, model, read, sample, scanned, settled, volume
from tests.peers import need_file

TEMPLATES = "/usr/share/mricron/templates"
AFFINE = np.array([[4.0, 0, 0, -128], [0, 4, 0, -128], [0, 0, 4, -128], [0, 0, 0, 1]])
SHAPE = (64, 64, 64)


@cache
def colin():
    return read(need_file(f"{TEMPLATES}/ch2.nii.gz"))


@cache
def published():
    return sample("head-mr")


@cache
def analyse(device="cpu"):
    return code("brain_mr").load(model("brain_mr").folder, device, fetched("brain_mr"))


def analysed(image, **more):
    return settled("brain_mr", analyse()(mr=image, **more), image)


@cache
def found(image) -> Findings:
    return analysed(image())


def declined(image, why):
    with pytest.raises(Unsuitable, match=why):
        analysed(image)


def test_colin27_has_its_volume_and_agrees_with_its_stripped_copy():
    """Within 3 % of 1956 mL; Dice at least 0.93 against ch2bet."""
    stripped = read(need_file(f"{TEMPLATES}/ch2bet.nii.gz")).array > 0
    agreement = dice(found(colin).segments.array > 0, stripped)
    print(f"{found(colin).measurements['volume']:.0f} mL, Dice {agreement:.4f} against ch2bet of {np.count_nonzero(stripped) / 1000:.0f} mL")
    assert found(colin).measurements["volume"] == pytest.approx(1956, rel=0.03)
    assert agreement >= 0.93


def test_the_published_t1_has_its_volume():
    """Within 1 % of 1776 mL, which deepbet's own program gives."""
    print(f"{found(published).measurements['volume']:.0f} mL")
    assert found(published).measurements["volume"] == pytest.approx(1776, rel=0.01)
    assert found(published).notes == ()


@pytest.mark.parametrize("orientation", ["FAL", "PHR"])  # axial slices from the head down, coronal slices
def test_the_same_head_scanned_otherwise_has_the_same_brain(orientation):
    """Same volume within 0.5 %, and the mask lies where it lay in the patient."""
    again = analysed(scanned(colin(), orientation))
    assert again.measurements["volume"] == pytest.approx(found(colin).measurements["volume"], rel=0.005)
    assert dice(scanned(again.segments, "RAH").array > 0, found(colin).segments.array > 0) > 0.999


@pytest.mark.parametrize("image", [colin, published])
def test_bfloat16_draws_the_same_brain(image):
    """Dice at least 0.995 against float32: the condition for `bf16` in the manifest."""
    with torch.autocast("cpu", torch.bfloat16):
        rough = analysed(image())
    agreement = dice(rough.segments.array > 0, found(image).segments.array > 0)
    print(f"Dice {agreement:.4f}")
    assert agreement >= 0.995


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: this machine has no CUDA device")
def test_cuda_draws_the_same_brain():
    """Dice at least 0.995 against the processor's."""
    mask = settled("brain_mr", analyse("cuda:0")(mr=colin()), colin()).segments.array
    assert dice(mask > 0, found(colin).segments.array > 0) >= 0.995


def test_brightness_has_no_unit_and_missing_numbers_do_no_harm():
    """Scaled by 1000 and shifted; not a number in one voxel of a thousand and infinity in one: the same brain."""
    altered = colin().array * 1000 - 5
    altered[np.random.default_rng(0).random(altered.shape) < 0.001] = np.nan
    altered[0, 0, 0] = np.inf
    again = analysed(volume(altered, colin().affine))
    assert dice(again.segments.array > 0, found(colin).segments.array > 0) > 0.99


def test_half_a_head_is_declined():
    """The lower half reaches a plausible volume by drawing what is no brain; its cut end gives it away."""
    head = scanned(published(), "HPR")
    declined(volume(head.array[:128], head.affine), "upper end")


def test_progress_only_grows():
    """From above 0 to below 1, each step with a sentence."""
    said = []
    with pytest.raises(Unsuitable):
        analysed(noise(), progress=lambda fraction, sentence: said.append((fraction, sentence)))
    fractions = [fraction for fraction, _ in said]
    assert len(said) >= 3 and fractions == sorted(fractions) and 0 < fractions[0] < fractions[-1] < 1


def noise():
    return volume(np.random.default_rng(0).normal(size=SHAPE), AFFINE / [[4 / 3], [4 / 3], [4 / 3], [1]])


@pytest.mark.parametrize("value", [0.0, -1000.0, np.nan])
def test_an_empty_volume_is_declined(value):
    """One value throughout, or no number at all."""
    declined(volume(np.full(SHAPE, value), AFFINE * [[0.5], [0.5], [0.5], [1]]), "empty")


def test_noise_is_no_brain():
    """Whatever the networks see in it has no brain's size or place."""
    declined(noise(), "brain")


def test_thick_slices_and_small_fields_are_declined():
    """Above 3 mm, and below 100 mm in a direction."""
    declined(volume(np.zeros(SHAPE), AFFINE), "4.0 mm apart")
    declined(volume(np.zeros(SHAPE), AFFINE / [[4], [4], [4], [1]]), "covers only 64 mm")
