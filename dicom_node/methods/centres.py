"""A one-stage detector without anchors: a map of where the middles of things are, and at each middle how large the thing is.

After Zhou, Wang and Kraehenbuehl, Objects as Points, 2019. One look at the image, one answer for each cell, as in YOLO, but no anchors
and no thinning out: a middle is where the map has a peak.
"""

from collections.abc import Sequence

import torch
from monai.data.box_utils import clip_boxes_to_image
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.functional import l1_loss, logsigmoid, max_pool2d, max_pool3d

from dicom_node.methods.boxes import Boxes
from dicom_node.methods.networks import Pyramid

RARE = -4.6  # logit of the score with which training begins: nearly nowhere is a middle, 0.01
SPREAD = 6.0  # a middle's peak has a standard deviation of the object's size over this
NARROW = 0.6  # but not less than so many cells
MOST = 100  # peaks of an image
_PEAKS = {2: max_pool2d, 3: max_pool3d}

Raw = tuple[Tensor, Tensor]


class CentreDetector(nn.Module):
    """Finds boxes in images of 2 or 3 dimensions; a cell of the answer is `stride` voxels wide."""

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int = 1,
        classes: int = 1,
        widths: Sequence[int] = (16, 32, 48, 64),
        channels: int = 32,
        stride: int = 4,
    ) -> None:
        super().__init__()
        strides = [2 ** (n + 1) for n in range(len(widths)) if 2 ** (n + 1) >= stride]
        self.pyramid = Pyramid(spatial_dims=spatial_dims, in_channels=in_channels, widths=widths, strides=strides, out_channels=channels)
        self.dims, self.classes, self.stride = spatial_dims, classes, stride
        self.shared = Convolution(spatial_dims, channels, channels, kernel_size=3, act="RELU")
        self.answers = Conv[Conv.CONV, spatial_dims](channels, classes + 2 * spatial_dims, 1)
        nn.init.constant_(self.answers.bias[:classes], RARE)

    def forward(self, images: Tensor) -> Raw:
        """Return, for images (batch, channel, *grid), logits of middles (batch, class, *cell) and shapes (batch, 2 * dims, *cell).

        A shape is where in its cell the middle lies, then the logarithm of the size, both in cells.
        """
        said = self.answers(self.shared(self.pyramid(images)[0]))
        return said[:, : self.classes], said[:, self.classes :]

    def loss(self, raw: Raw, truth: Sequence[Boxes]) -> Tensor:
        """Return how far the answers are from the truth: the map by a focal loss, the shapes at the true middles by their distance."""
        logits, shapes = raw
        wanted = torch.stack([self._peaks(known, logits.shape[2:]) for known in truth])
        total = _focal(logits, wanted)
        for shape, known in zip(shapes, truth, strict=True):
            if len(known.labels):
                middle, size = self._middles(known)
                cell = _cell(middle, logits.shape[2:])
                target = torch.cat([middle - cell, size.log()], dim=1)
                total = total + l1_loss(shape[(slice(None), *cell.T)].T, target, reduction="sum") / self.dims
        return total / max(sum(len(known.labels) for known in truth), 1)

    def _middles(self, known: Boxes) -> tuple[Tensor, Tensor]:
        """Return where the middles of boxes are and how large the boxes, in cells (box, axis)."""
        low, high = known.corners.split(self.dims, dim=1)
        return (low + high) / 2 / self.stride, (high - low) / self.stride

    def _peaks(self, known: Boxes, grid: Sequence[int]) -> Tensor:
        """Return the map that is wanted (class, *cell): 1 in the cell of each middle, falling off about it."""
        wanted = known.corners.new_zeros((self.classes, *grid))
        places = torch.stack(torch.meshgrid(*(torch.arange(n, device=wanted.device) for n in grid), indexing="ij"), dim=-1)
        middle, size = self._middles(known)
        for label, cell, deviation in zip(known.labels, _cell(middle, grid), (size / SPREAD).clamp(min=NARROW), strict=True):
            peak = (-(((places - cell) / deviation) ** 2).sum(-1) / 2).exp()
            wanted[label] = torch.maximum(wanted[label], peak)
        return wanted

    @torch.no_grad()
    def detect(self, raw: Raw, grid: Sequence[int], *, score: float = 0.05) -> list[Boxes]:
        """Return the boxes of each image with at least this score, from the likeliest on; grid: the image's, in voxels."""
        logits, shapes = raw
        peaks = logits.sigmoid() * (_PEAKS[self.dims](logits, 3, stride=1, padding=1) == logits)
        return [self._boxes(peak, shape, grid, score) for peak, shape in zip(peaks, shapes, strict=True)]

    def _boxes(self, peaks: Tensor, shapes: Tensor, grid: Sequence[int], score: float) -> Boxes:
        best, order = peaks.flatten().topk(min(peaks.numel(), MOST))
        best, order = best[best >= score], order[best >= score]
        label, *cell = torch.unravel_index(order, peaks.shape)
        shape = shapes[(slice(None), *cell)].T  # (box, 2 * dims)
        middle = (torch.stack(cell, dim=1) + shape[:, : self.dims]) * self.stride
        half = shape[:, self.dims :].clamp(max=8).exp() * self.stride / 2
        corners, inside = clip_boxes_to_image(torch.cat([middle - half, middle + half], dim=1), tuple(grid), remove_empty=True)
        return Boxes(corners, label[inside], best[inside])


def _cell(middle: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the cell that each middle lies in (box, axis)."""
    return torch.minimum(middle.floor().long().clamp(min=0), torch.tensor(grid, device=middle.device) - 1)


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the focal loss of a map whose peaks are 1 and whose slopes count less the nearer they are to a peak (alpha 2, beta 4)."""
    likely = logits.sigmoid()
    peak = wanted == 1
    missed = -((1 - likely) ** 2) * logsigmoid(logits)
    invented = -((1 - wanted) ** 4) * likely**2 * logsigmoid(-logits)
    return torch.where(peak, missed, invented).sum()
