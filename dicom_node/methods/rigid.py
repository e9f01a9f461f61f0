"""Two images of one head brought together by a rigid motion, whatever their contrasts (Mattes mutual information)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

BINS = 48  # of the joint histogram
SHRINK, SMOOTH_MM = (4, 2, 1), (4.0, 2.0, 0.0)  # of the three levels
SAMPLED = (0.5, 0.2, 0.05)  # of the fixed image's voxels, on each level
STEP, SMALLEST, ROUNDS = 2.0, 0.005, 60  # mm at the head's surface, and steps on each level
SEED = 1


@dataclass(frozen=True, slots=True)
class Motion:
    """A rigid motion from places on the fixed image to places on the moving one, in mm."""

    transform: Any  # sitk.Euler3DTransform
    shift_mm: float  # how far the centre of what was registered moves
    turn_deg: float


def itk(array: NDArray[Any], affine: Any) -> Any:
    """Return an array (slice, row, column) as an image of SimpleITK; affine: from its indices to the patient's millimetres (LPS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    columns = np.asarray(affine, float)[:3, 2::-1]  # steps along column, row, slice: the order of SimpleITK
    spacing_mm = np.linalg.norm(columns, axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(np.asarray(affine, float)[:3, 3].tolist())
    image.SetDirection((columns / spacing_mm).ravel().tolist())
    return image


def rigid(fixed: Any, moving: Any, within: Any) -> Motion:
    """Return the motion that makes two images of SimpleITK tell most of one another.

    within: a mask on the fixed image's grid; what lies outside of it counts for nothing. The start is no motion.
    """
    middle = _middle(within)
    start = sitk.Euler3DTransform()
    start.SetCenter(middle)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(within)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel(SAMPLED, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(SHRINK)
    method.SetSmoothingSigmasPerLevel(SMOOTH_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerAsRegularStepGradientDescent(STEP, SMALLEST, ROUNDS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(sitk.Cast(fixed, sitk.sitkFloat32), sitk.Cast(moving, sitk.sitkFloat32))
    moved = np.subtract(start.TransformPoint(middle), middle)
    turn = np.array(start.GetMatrix()).reshape(3, 3)
    return Motion(start, float(np.linalg.norm(moved)), float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))))


def resampled(image: Any, onto: Any, transform: Any) -> NDArray[np.float32]:
    """Return an image of SimpleITK on another's grid, by linear interpolation, 0 where it does not reach: (slice, row, column)."""
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(image, onto, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)))


def _middle(within: Any) -> tuple[float, ...]:
    where = sitk.LabelShapeStatisticsImageFilter()
    where.Execute(within)
    return tuple(where.GetCentroid(1))
