"""A one-stage detector with anchors, of the SSD family: each cell of each level says of a few boxes what is in them and how they lie wrong.

After Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, on a feature pyramid. MONAI lays the anchors and codes the boxes; its own
RetinaNet needs torchvision to be trained.
"""

from collections.abc import Sequence

import torch
from monai.apps.detection.utils.anchor_utils import AnchorGenerator
from monai.apps.detection.utils.box_coder import BoxCoder
from monai.data.box_utils import box_iou, clip_boxes_to_image
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from dicom_node.methods.boxes import Boxes, thinned
from dicom_node.methods.networks import Pyramid

SURE, DOUBTFUL = 0.5, 0.4  # an anchor with this overlap shows the object; with less than the second it shows none; between them it is left out
NEGATIVES = 3  # background anchors that count, for each that shows something: the hardest ones
SHARPNESS = (10.0, 5.0)  # of the box code: how much an error of place, and of size, weighs (SSD's variances 0.1 and 0.2)
MOST = 300  # candidates of an image before overlapping ones are thinned out

Raw = tuple[Tensor, Tensor, list[Tensor], tuple[int, ...]]


class AnchorDetector(nn.Module):
    """Finds boxes in images of 2 or 3 dimensions.

    sizes: for each level of the pyramid, the edges in voxels of its cubic anchors; the finest level comes first.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        sizes: Sequence[Sequence[int]],
        in_channels: int = 1,
        classes: int = 1,
        widths: Sequence[int] = (16, 32, 48, 64),
        channels: int = 32,
    ) -> None:
        super().__init__()
        strides = [2 ** (n + 1) for n in range(len(widths))][-len(sizes) :]
        self.pyramid = Pyramid(spatial_dims=spatial_dims, in_channels=in_channels, widths=widths, strides=strides, out_channels=channels)
        cube = 1.0 if spatial_dims == 2 else (1.0, 1.0)
        self.anchors = AnchorGenerator(sizes, [(cube,)] * len(sizes))
        self.coder = BoxCoder([SHARPNESS[0]] * spatial_dims + [SHARPNESS[1]] * spatial_dims)
        self.dims, self.outputs = spatial_dims, (classes + 1, 2 * spatial_dims)  # class 0 is the background
        convolution = Conv[Conv.CONV, spatial_dims]
        self.heads = nn.ModuleList(
            nn.ModuleList(convolution(channels, len(edges) * outputs, 3, padding=1) for outputs in self.outputs) for edges in sizes
        )

    def forward(self, images: Tensor) -> Raw:
        """Return, for images (batch, channel, *grid): scores (batch, anchor, class), codes (batch, anchor, 2 * dims), anchors, and the grid."""
        levels = self.pyramid(images)
        said = [
            [self._flat(head(level), n) for head, n in zip(heads, self.outputs, strict=True)] for level, heads in zip(levels, self.heads, strict=True)
        ]
        scores, codes = (torch.cat([level[kind] for level in said], dim=1) for kind in (0, 1))
        return scores, codes, self.anchors(images, levels), tuple(images.shape[2:])

    def _flat(self, said: Tensor, outputs: int) -> Tensor:
        """Return (batch, anchor, output) of (batch, anchor of the cell * output, *cell), in the order in which the anchors come."""
        return said.unflatten(1, (-1, outputs)).flatten(3).permute(0, 3, 1, 2).flatten(1, 2)

    def loss(self, raw: Raw, truth: Sequence[Boxes]) -> Tensor:
        """Return how far the answers are from the truth: what is in the anchors, and where; the background by its hardest anchors only."""
        scores, codes, anchors, _ = raw
        total = scores.new_zeros(())
        for one, code, lie, known in zip(scores, codes, anchors, truth, strict=True):
            wanted, of = _assigned(lie, known)
            each = cross_entropy(one, wanted.clamp(min=0), reduction="none")
            shows = wanted > 0
            count = int(shows.sum())
            background = each[wanted == 0]
            total = total + each[shows].sum() + background.topk(min(len(background), NEGATIVES * max(count, 1))).values.sum()
            if count:
                target = self.coder.encode_single(known.corners[of[shows]], lie[shows])
                total = total + smooth_l1_loss(code[shows], target, reduction="sum")
        return total / max(sum(len(known.labels) for known in truth), 1)

    @torch.no_grad()
    def detect(self, raw: Raw, *, score: float = 0.05, overlap: float = 0.2) -> list[Boxes]:
        """Return the boxes of each image with at least this score, without those that overlap a likelier one."""
        scores, codes, anchors, grid = raw
        found = []
        for likely, code, lie in zip(scores.softmax(-1)[..., 1:], codes, anchors, strict=True):
            best, order = likely.flatten().topk(min(likely.numel(), MOST))
            order = order[best >= score]
            corners = self.coder.decode_single(code[order // likely.shape[1]], lie[order // likely.shape[1]])
            corners, inside = clip_boxes_to_image(corners, grid, remove_empty=True)
            kept = Boxes(corners, (order % likely.shape[1])[inside], best[best >= score][inside])
            found.append(thinned(kept, overlap=overlap, most=100))
        return found


def _assigned(anchors: Tensor, known: Boxes) -> tuple[Tensor, Tensor]:
    """Return for each anchor its class (0: background, -1: left out of the loss) and the number of the box that it shows.

    Each box is shown by the anchor nearest to it, however little that is; so that none is forgotten.
    """
    wanted = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
    if not len(known.labels):
        return wanted, wanted
    overlaps = box_iou(known.corners, anchors)  # (box, anchor)
    best, of = overlaps.max(dim=0)
    wanted[best >= DOUBTFUL] = -1
    wanted[best >= SURE] = known.labels[of[best >= SURE]] + 1
    nearest = overlaps.argmax(dim=1)
    of[nearest] = torch.arange(len(known.labels), device=of.device)
    wanted[nearest] = known.labels + 1
    return wanted, of
