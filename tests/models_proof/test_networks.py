"""Networks that are taught here, in seconds, on drawn lesions among look-alikes: what each finds, against a threshold or against the truth."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from monai.data.box_utils import box_iou
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from skimage.filters import threshold_otsu

from dicom_node.methods.anchors import AnchorDetector
from dicom_node.methods.boxes import Boxes, agreement, thinned, true_boxes
from dicom_node.methods.centres import CentreDetector
from dicom_node.methods.networks import FullyConvolutional, Pyramid
from dicom_node.methods.training import fit
from tests.models_proof import dice
from tests.models_proof.drawn_lesions import drawn, scaled, several

FLAT, DEEP = (64, 64), (24, 32, 32)
BATCH = 8
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@pytest.fixture(autouse=True)
def _on_one_thread():
    """So that the same sums are made everywhere, and no thread waits for another that a neighbour holds up."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def there(device: str) -> str:
    """Return the device, or skip this test where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no accelerator here")
    return device


@cache
def taught_on(shape):
    return several(1, 300, shape)


@cache
def judged_on(shape):
    return several(2, 60, shape)


def images(drawings, device: str) -> torch.Tensor:
    return torch.from_numpy(scaled(drawings)).to(device)


def boxes(drawings, device: str) -> list[Boxes]:
    return [true_boxes(torch.from_numpy(one.boxes).to(device)) for one in drawings]


def batches(count: int) -> Callable[[], np.ndarray]:
    rng = np.random.default_rng(0)
    return lambda: rng.choice(count, BATCH, replace=False)


# ------------------------------------------------------------------------------------------------------------ segmentation


def segmented(network, shape, device, steps, rate) -> float:
    """Teach a network and return its Dice over images that it has not seen."""
    network, drawings, pick = network.to(there(device)), taught_on(shape), batches(len(taught_on(shape)))
    seen, truth = images(drawings, device), torch.from_numpy(np.stack([one.lesion for one in drawings])[:, None]).float().to(device)
    measure = DiceCELoss(sigmoid=True, batch=True)

    def loss(step: int) -> torch.Tensor:
        chosen = pick()
        return measure(network(seen[chosen]), truth[chosen])

    fit(network, loss, steps=steps, rate=rate)
    with torch.no_grad():
        found = (network(images(judged_on(shape), device))[:, 0] > 0).cpu().numpy()
    return dice(found, np.stack([one.lesion for one in judged_on(shape)]))


def by_threshold(shape) -> float:
    """Return the Dice of Otsu's threshold on the same images: it cannot tell a ball from a tube."""
    drawings = judged_on(shape)
    bright = np.stack([one.image > threshold_otsu(one.image) for one in drawings])
    return dice(bright, np.stack([one.lesion for one in drawings]))


@pytest.mark.slow
@devices
def test_a_u_net_tells_lesions_from_tubes(device):
    """MONAI's: Dice at least 0.70 where a threshold has less than 0.4."""
    network = BasicUNet(2, 1, 1, features=(8, 8, 16, 32, 32, 8))
    found, control = segmented(network, FLAT, device, steps=200, rate=5e-3), by_threshold(FLAT)
    print(f"U-Net: Dice {found:.3f}; threshold {control:.3f}")
    assert found >= 0.70 and control < 0.40


@pytest.mark.slow
@devices
def test_a_fully_convolutional_network_tells_lesions_from_tubes(device):
    """FCN-8s: Dice at least 0.60 where a threshold has less than 0.4; its finest scores are 8 pixels wide."""
    network = FullyConvolutional(spatial_dims=2, in_channels=1, out_channels=1, widths=(12, 24, 32, 48, 64))
    found, control = segmented(network, FLAT, device, steps=300, rate=5e-3), by_threshold(FLAT)
    print(f"FCN-8s: Dice {found:.3f}; threshold {control:.3f}")
    assert found >= 0.60 and control < 0.40


def test_a_fully_convolutional_network_answers_on_the_images_own_grid():
    """Also where it cannot be halved evenly, in the plane and in space."""
    for shape in ((50, 37), (35, 40, 33)):
        network = FullyConvolutional(spatial_dims=len(shape), in_channels=2, out_channels=3, widths=(4, 4, 4, 4, 4)).eval()
        assert network(torch.zeros(1, 2, *shape)).shape == (1, 3, *shape)


# --------------------------------------------------------------------------------------------------------------- detection


def detected(network, find, shape, device, steps, rate):
    """Teach a detector and return how it agrees with the truth on images that it has not seen."""
    drawings, pick = taught_on(shape), batches(len(taught_on(shape)))
    seen, truth = images(drawings, there(device)), boxes(drawings, device)

    def loss(step: int) -> torch.Tensor:
        chosen = pick()
        return network.loss(network(seen[chosen]), [truth[n] for n in chosen])

    fit(network, loss, steps=steps, rate=rate)
    with torch.no_grad():
        found = find(network(images(judged_on(shape), device)))
    result = agreement(found, boxes(judged_on(shape), device), score=0.3)
    at = f"at a score of 0.3 sensitivity {result.sensitivity:.3f}, false {result.false_per_image:.2f} an image"
    lesions = sum(len(one.boxes) for one in judged_on(shape))
    print(f"{type(network).__name__}: average precision {result.average_precision:.3f}; {at}; {lesions} lesions")
    return result


@pytest.mark.slow
@devices
def test_a_detector_with_anchors_finds_lesions_among_tubes(device):
    """SSD family, two levels: average precision at least 0.75, sensitivity 0.7 at fewer than 0.6 false boxes an image."""
    network = AnchorDetector(spatial_dims=2, sizes=((7, 9), (11, 15)), widths=(12, 24, 32)).to(there(device))
    result = detected(network, network.detect, FLAT, device, steps=300, rate=5e-3)
    assert result.average_precision >= 0.75 and result.sensitivity >= 0.7 and result.false_per_image < 0.6


@pytest.mark.slow
@devices
def test_a_detector_without_anchors_finds_lesions_among_tubes(device):
    """Middles and sizes: average precision at least 0.75, sensitivity 0.7 at fewer than 0.6 false boxes an image."""
    network = CentreDetector(spatial_dims=2, widths=(12, 24, 32)).to(there(device))
    result = detected(network, lambda raw: network.detect(raw, FLAT), FLAT, device, steps=300, rate=5e-3)
    assert result.average_precision >= 0.75 and result.sensitivity >= 0.7 and result.false_per_image < 0.6


def known(shape):
    """Return boxes of two classes in an image of this shape, none at the edge."""
    dims = len(shape)
    corners = torch.tensor([[4.0, 9.5, 6.0][:dims] + [12.0, 16.0, 15.5][:dims], [16.0, 18.0, 17.0][:dims] + [23.0, 30.0, 28.0][:dims]])
    return true_boxes(corners, torch.tensor([1, 0]))


@pytest.mark.parametrize("shape", [FLAT, DEEP], ids=["plane", "space"])
def test_middles_that_are_said_as_they_are_wanted_give_the_boxes_back(shape):
    """What the loss asks for, read as an answer, is the truth; the loss of that answer is least."""
    network, truth = CentreDetector(spatial_dims=len(shape), classes=2, widths=(4, 4)), known(shape)
    logits, shapes = network(torch.zeros(1, 1, *shape))
    wanted = network._peaks(truth, logits.shape[2:])[None]
    middle, size = network._middles(truth)
    ideal = torch.zeros_like(shapes)
    ideal[(0, slice(None), *middle.floor().long().T)] = torch.cat([middle - middle.floor(), size.log()], dim=1).T
    raw = (torch.where(wanted == 1, 8.0, -8.0), ideal)
    found = network.detect(raw, shape, score=0.5)[0]
    order = found.labels.argsort(descending=True)
    assert torch.allclose(found.corners[order], truth.corners, atol=1e-3) and found.labels[order].tolist() == [1, 0]
    assert network.loss(raw, [truth]) < 0.01 < network.loss((logits, shapes), [truth])


@pytest.mark.parametrize("shape", [FLAT, DEEP], ids=["plane", "space"])
def test_anchors_that_are_said_as_they_are_wanted_give_the_boxes_back(shape):
    """Each box is shown by an anchor, however badly they fit; its code read back is the box."""
    network, truth = AnchorDetector(spatial_dims=len(shape), classes=2, sizes=((6,), (10,)), widths=(4, 4)), known(shape)
    scores, codes, anchors, grid = network(torch.zeros(1, 1, *shape))
    nearest = anchors_of(truth, anchors[0])
    ideal, said = torch.zeros_like(scores), torch.zeros_like(codes)
    ideal[0, :, 0] = 9.0
    for n, anchor in enumerate(nearest):
        ideal[0, anchor, :] = torch.eye(3)[truth.labels[n] + 1] * 9
        said[0, anchor] = network.coder.encode_single(truth.corners[n : n + 1], anchors[0][anchor : anchor + 1])[0]
    found = network.detect((ideal, said, anchors, grid), score=0.5)[0]
    order = found.labels.argsort(descending=True)
    assert torch.allclose(found.corners[order], truth.corners, atol=1e-3) and found.labels[order].tolist() == [1, 0]


def anchors_of(truth, anchors):
    return [int(n) for n in box_iou(truth.corners, anchors).argmax(dim=1)]


@pytest.mark.parametrize("kind", [AnchorDetector, CentreDetector])
def test_detectors_learn_in_space_too(kind):
    """Three volumes by heart: the loss falls to less than a third in 40 steps, one of them without any lesion."""
    rng = np.random.default_rng(5)
    drawings = [drawn(rng, DEEP, lesions=count) for count in (0, 1, 2)]
    more = {"sizes": ((8, 12),)} if kind is AnchorDetector else {"stride": 4}
    network = kind(spatial_dims=3, widths=(6, 12), **more)
    seen, truth = images(drawings, "cpu"), boxes(drawings, "cpu")
    losses = fit(network, lambda step: network.loss(network(seen), truth), steps=40, rate=1e-2)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) / 3


def test_the_same_seed_teaches_the_same_network():
    """Byte for byte, on a processor."""
    taught = []
    for _ in range(2):
        torch.manual_seed(3)
        network = CentreDetector(spatial_dims=2, widths=(4, 8))
        seen, truth = images(judged_on(FLAT)[:4], "cpu"), boxes(judged_on(FLAT)[:4], "cpu")
        fit(network, lambda step, network=network, seen=seen, truth=truth: network.loss(network(seen), truth), steps=5)
        taught.append(torch.cat([one.flatten() for one in network.state_dict().values()]))
    assert torch.equal(*taught)


# ------------------------------------------------------------------------------------------------------------------- boxes


def test_of_boxes_that_overlap_the_likeliest_stays():
    """By class; the rest is thinned out."""
    corners = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [30, 30, 40, 40]])
    kept = thinned(Boxes(corners, torch.tensor([0, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.7, 0.2])), overlap=0.3, most=10)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7, 0.2])
    assert len(kept.above(0.5).labels) == 2


def test_agreement_counts_each_true_box_once():
    """Three true boxes in two images: one found twice, one found, one missed, and one invented."""
    true = [true_boxes(torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])), true_boxes(torch.tensor([[5.0, 5, 9, 9]]))]
    found = [
        Boxes(torch.tensor([[0.0, 0, 10, 9], [1, 0, 10, 10], [20, 20, 30, 29]]), torch.zeros(3).long(), torch.tensor([0.9, 0.8, 0.7])),
        Boxes(torch.tensor([[40.0, 40, 44, 44]]), torch.zeros(1).long(), torch.tensor([0.2])),
    ]
    at_half, at_all = (agreement(found, true, score=score) for score in (0.5, 0.1))
    assert (at_half.sensitivity, at_half.false_per_image) == (pytest.approx(2 / 3), pytest.approx(0.5))
    assert (at_all.sensitivity, at_all.false_per_image) == (pytest.approx(2 / 3), pytest.approx(1.0))
    assert at_all.average_precision == pytest.approx((34 + 33 * 2 / 3) / 101, abs=0.02)  # precision 1 up to a third, 2 of 3 up to two thirds


def test_a_pyramid_has_the_strides_that_are_asked_for():
    """And refuses others than the last of its halvings."""
    levels = Pyramid(spatial_dims=2, in_channels=1, widths=(4, 4, 4), strides=(4, 8), out_channels=6)(torch.zeros(1, 1, 32, 48))
    assert [level.shape[1:] for level in levels] == [(6, 8, 12), (6, 4, 6)]
    with pytest.raises(ValueError, match="are not the last of 3 halvings"):
        Pyramid(spatial_dims=2, in_channels=1, widths=(4, 4, 4), strides=(2, 4), out_channels=6)
