"""Networks that MONAI does not build without torchvision, from its blocks: a fully convolutional one, and the pyramid that detectors look at."""

from collections import OrderedDict
from collections.abc import Sequence

from monai.networks.blocks import Convolution
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.functional import interpolate

_LINEAR = {2: "bilinear", 3: "trilinear"}


def halvings(spatial_dims: int, in_channels: int, widths: Sequence[int]) -> nn.ModuleList:
    """Return one stage for each width: two convolutions, the second of which halves the grid."""
    stages = nn.ModuleList()
    for width in widths:
        first = Convolution(spatial_dims, in_channels, width, kernel_size=3, act="RELU")
        stages.append(nn.Sequential(first, Convolution(spatial_dims, width, width, strides=2, kernel_size=3, act="RELU")))
        in_channels = width
    return stages


def passed(stages: nn.ModuleList, image: Tensor) -> list[Tensor]:
    """Return what comes out of each stage, from fine to coarse."""
    maps = []
    for stage in stages:
        image = stage(image)
        maps.append(image)
    return maps


class FullyConvolutional(nn.Module):
    """FCN-8s: five halvings, and the scores of the last three added up from coarse to fine.

    After Long, Shelhamer and Darrell, CVPR 2015. In: (batch, channel, *grid). Out: (batch, class, *grid), before any softmax.
    """

    def __init__(self, *, spatial_dims: int, in_channels: int, out_channels: int, widths: Sequence[int] = (16, 32, 64, 96, 128)) -> None:
        super().__init__()
        self.mode = _LINEAR[spatial_dims]
        self.stages = halvings(spatial_dims, in_channels, widths)
        self.scores = nn.ModuleList(Conv[Conv.CONV, spatial_dims](width, out_channels, 1) for width in widths[-3:])

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores of each class on the image's own grid."""
        fine, middle, coarse = (score(one) for score, one in zip(self.scores, passed(self.stages, image)[-3:], strict=True))
        middle = middle + interpolate(coarse, middle.shape[2:], mode=self.mode)
        fine = fine + interpolate(middle, fine.shape[2:], mode=self.mode)
        return interpolate(fine, image.shape[2:], mode=self.mode)


class Pyramid(nn.Module):
    """Features on several grids, each with what the coarser ones saw: what a one-stage detector looks at.

    After Lin et al., CVPR 2017. strides: pixels of the image for one cell of each level; powers of two, each twice the one before.
    """

    def __init__(self, *, spatial_dims: int, in_channels: int, widths: Sequence[int], strides: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.stages = halvings(spatial_dims, in_channels, widths)
        if self.strides != tuple(2 ** (n + 1) for n in range(len(widths)))[-len(self.strides) :]:
            raise ValueError(f"strides {self.strides} are not the last of {len(widths)} halvings")
        self.merged = FeaturePyramidNetwork(spatial_dims, list(widths[-len(self.strides) :]), out_channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return a map of features for each stride, (batch, channel, *grid)."""
        maps = passed(self.stages, image)[-len(self.strides) :]
        return list(self.merged(OrderedDict((str(n), one) for n, one in enumerate(maps))).values())
