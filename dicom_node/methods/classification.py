"""A network that classifies a whole image: what it is told of itself, the image as it knows it, and what it says.

The same code prepares images for training and in an analysis, so that a network meets no image made otherwise than those it learnt from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # noqa: S403 - the error only: nothing is unpickled but tensors
from typing import Annotated, Any, Self

import monai.networks.nets
import numpy as np
import torch
from monai.visualize import GradCAM
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dicom_node.domain import Unsuitable

Image = NDArray[np.float32]

_FLAT = 1e-6  # standard deviation below which an image shows nothing


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Part):
    """A class of monai.networks.nets with its arguments, and the layer whose activations are mapped."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    layer: str

    @property
    def dims(self) -> int:
        """2 for a single image, 3 for a volume."""
        return int(self.arguments.get("spatial_dims", 3))

    def build(self) -> nn.Module:
        """Return the network, untaught.

        Raises
        ------
        ValueError: MONAI has no such network, or it does not take these arguments, or has no such layer.
        """
        kind = getattr(monai.networks.nets, self.name, None)
        if not isinstance(kind, type) or not issubclass(kind, nn.Module):
            raise ValueError(f"'{self.name}' is no network of monai.networks.nets")
        try:
            network = kind(**self.arguments)
        except TypeError as error:
            raise ValueError(f"{self.name} does not take these arguments: {error}") from error
        if self.layer not in dict(network.named_modules()):
            raise ValueError(f"{self.name} has no layer '{self.layer}'")
        return network


class Preparation(_Part):
    """How an image is made ready: brightness, then the grid.

    window: values that become 0 and 1; without it, the percentiles of each image. size: of the network's grid, about the image's middle.
    spacing_mm: of that grid; without it the whole image fits in. mean, sd: taken off, and divided by, at the end.
    """

    size: tuple[int, ...] = Field(min_length=2, max_length=3)
    spacing_mm: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (1.0, 99.0)
    mean: float = 0.0
    sd: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.spacing_mm is not None and len(self.spacing_mm) != len(self.size):
            raise ValueError(f"spacing_mm has {len(self.spacing_mm)} numbers, size {len(self.size)}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window {self.window} does not rise")
        return self


class Label(_Part):
    """One question that the network answers: its name, the temperature of its score, and from which probability the answer is yes."""

    name: str = Field(pattern="^[a-z][a-z0-9_]{0,15}$")
    temperature: float = Field(default=1.0, gt=0)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    validation: str = ""  # on what both were chosen, and what came out


class Description(_Part):
    """All that a classifier is told of itself, in the file `classifier.toml` beside its weights."""

    network: Network
    image: Preparation
    labels: tuple[Label, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.network.dims != len(self.image.size):
            raise ValueError(f"the network has {self.network.dims} dimensions, the image's size {len(self.image.size)}")
        if len({label.name for label in self.labels}) < len(self.labels):
            raise ValueError("two labels have one name")
        return self


# --------------------------------------------------------------------------------------------------------- the image


@dataclass(frozen=True, slots=True)
class Taken:
    """An image as it was taken: the volume with its axes to the patient's, and what the network is given."""

    grid: Any  # highdicom.Volume
    shape: tuple[int, ...]  # of the grid, without the slice of a single image
    spacing_mm: tuple[float, ...]
    ready: Tensor


def taken(image: Any, said: Description, device: str = "cpu") -> Taken:
    """Turn a volume's axes to the patient's head, back and left, leave a single image as it is, and make it ready.

    image: a Volume (slice, row, column) in patient coordinates (LPS); of a single image, with one slice.

    Raises
    ------
    Unsuitable: it is a single image where the network looks at volumes, the other way about, or all of it is equally bright.
    """
    single, dims = image.array.shape[0] == 1, said.network.dims
    if single is not (dims == 2):
        wanted, given = ("volumes", "a single image") if single else ("single images", "a volume")
        raise Unsuitable(f"The network looks at {wanted}, and this is {given}.", hint="Let a rule choose what it was taught on.")
    grid = image if single else image.to_patient_orientation("HPL")
    array = grid.array[0] if single else grid.array
    spacing_mm = tuple(float(mm) for mm in grid.spacing)[-dims:]
    ready = prepared(array, spacing_mm, said.image, device)
    if float(ready.std()) < _FLAT:
        raise Unsuitable("The image is empty: all of it is equally bright.", hint="Send an image of the kind that the network was taught on.")
    return Taken(grid, tuple(array.shape), spacing_mm, ready)


def prepared(array: Any, spacing_mm: Sequence[float], how: Preparation, device: str = "cpu") -> Tensor:
    """Return an image as the network takes it, (1, 1, *size): smoothed as far as its grid is coarser, 0 in the window where nothing was scanned."""
    image = torch.nan_to_num(torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device))
    low, high = how.window or _limits(image, how.percentiles)
    image = image.sub(low).div_(max(high - low, 1e-6)).clamp_(0, 1)
    for axis, one in enumerate(_axes(image.shape, spacing_mm, how)):
        image = torch.movedim(torch.tensordot(one.to(device), image, dims=([1], [axis])), 0, axis)
    return image.sub_(how.mean).div_(how.sd)[None, None]


def laid_back(values: Any, shape: Sequence[int], spacing_mm: Sequence[float], how: Preparation) -> Image:
    """Return values on the network's grid as an image of this shape and spacing has them: linear between, 0 outside."""
    image = torch.as_tensor(values, dtype=torch.float32)
    steps = _steps(shape, spacing_mm, how)
    for axis, (size, length, step) in enumerate(zip(how.size, shape, steps, strict=True)):
        image = torch.movedim(torch.tensordot(_between(length, size, 1 / step), image, dims=([1], [axis])), 0, axis)
    return np.asarray(image.contiguous().numpy())


def _limits(image: Tensor, percentiles: tuple[float, float]) -> tuple[float, float]:
    few = image.flatten()[:: max(1, image.numel() // 1_000_000)]  # torch takes quantiles of 16 million at most
    low, high = (float(few.quantile(one / 100)) for one in percentiles)
    return low, high


def _steps(shape: Sequence[int], spacing_mm: Sequence[float], how: Preparation) -> list[float]:
    """Return how many voxels of the image one cell of the network's grid is wide, along each axis."""
    wide = max(length * mm / size for length, mm, size in zip(shape, spacing_mm, how.size, strict=True))
    cells = how.spacing_mm or (wide,) * len(how.size)
    return [cell / mm for cell, mm in zip(cells, spacing_mm, strict=True)]


def _axes(shape: Sequence[int], spacing_mm: Sequence[float], how: Preparation) -> list[Tensor]:
    return [_between(size, length, step) for size, length, step in zip(how.size, shape, _steps(shape, spacing_mm, how), strict=True)]


def _between(cells: int, length: int, step: float) -> Tensor:
    """Return the weights (cell, sample) of linear interpolation between samples at cells `step` samples apart, both about one middle.

    Where cells are wider than samples the kernel is as wide as a cell, so that nothing between them is passed over.
    """
    places = (torch.arange(cells, dtype=torch.float64) - (cells - 1) / 2) * step + (length - 1) / 2
    far = (places[:, None] - torch.arange(length, dtype=torch.float64)).abs() / max(step, 1.0)
    return ((1 - far).clamp(min=0) / max(step, 1.0)).float()


# ------------------------------------------------------------------------------------------------------- the network


class Classifier:
    """A network with its weights on a device, and what it is told of itself."""

    def __init__(self, said: Description, weights: Path | Mapping[str, Tensor], device: str = "cpu") -> None:
        """Build the network and give it its weights, a state dictionary or a file that torch saved one in; no code in it is run.

        Raises
        ------
        ValueError: the weights are not those of the network, or it does not have one output for each label.
        """
        self.said, self.device = said, device
        network = said.network.build()
        try:
            network.load_state_dict(torch.load(weights, map_location=device, weights_only=True) if isinstance(weights, Path) else weights)
        except (RuntimeError, TypeError, EOFError, UnpicklingError) as error:
            raise ValueError(f"the weights are not those of this network: {str(error).splitlines()[0]}") from error
        self.network = network.to(device).eval()
        self._mapping = GradCAM(nn_module=self.network, target_layers=said.network.layer)
        outputs = self.logits(torch.zeros(1, 1, *said.image.size, device=device)).shape[1:]
        if outputs != (len(said.labels),):
            raise ValueError(f"the network has outputs {tuple(outputs)} for {len(said.labels)} labels")

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the score of each label, (image, label), before temperature and logistic function."""
        return self.network(images)

    def probabilities(self, image: Tensor) -> dict[str, float]:
        """Return how likely each label is for one prepared image."""
        scores = self.logits(image)[0].double().cpu()
        return {label.name: float((score / label.temperature).sigmoid()) for label, score in zip(self.said.labels, scores, strict=True)}

    def activation(self, image: Tensor, number: int) -> Image:
        """Return where one prepared image speaks for a label, on the network's grid: gradient-weighted class activation, its greatest being 1.

        After Selvaraju et al., ICCV 2017. Nothing speaks for it: 0 everywhere.
        """
        with torch.enable_grad():
            coarse = self._mapping.compute_map(image, class_idx=number).detach()
        mode = "bilinear" if coarse.ndim == 4 else "trilinear"
        fine = nn.functional.interpolate(coarse.float(), image.shape[2:], mode=mode)[0, 0].cpu()
        return np.asarray((fine / max(float(fine.max()), 1e-12)).numpy())
