"""Values as levels, which histogram and texture are made of: bins of a fixed size, or a fixed number of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class FixedSize:
    """Bins of one width from a lowest value on: for values that mean the same in every image, such as HU. What lies below has no level."""

    lowest: float
    width: float

    def levels(self, values: Array, mask: Array) -> Array:
        """Return the level of each voxel of the region, from 1, and 0 elsewhere."""
        bins = np.floor((values - self.lowest) / self.width) + 1
        return np.where(mask & (values >= self.lowest), bins, 0).astype(np.uint16)


@dataclass(frozen=True, slots=True)
class FixedNumber:
    """So many bins of one width between a region's least and greatest value: for values without a unit, such as those of MR."""

    count: int

    def levels(self, values: Array, mask: Array) -> Array:
        """Return the level of each voxel of the region, from 1 to `count`, and 0 elsewhere; all 1 where the values do not differ."""
        low, high = (float(values.min(where=mask, initial=np.inf)), float(values.max(where=mask, initial=-np.inf))) if mask.any() else (0.0, 0.0)
        bins = np.floor((values - low) * (self.count / (high - low))) + 1 if high > low else np.ones(values.shape)
        return np.where(mask, np.minimum(bins, self.count), 0).astype(np.uint16)


Binning = FixedSize | FixedNumber

CT_BINS = FixedSize(lowest=-1000, width=25)  # HU; what lies below belongs to a region's shape and not to its texture
RELATIVE_BINS = FixedNumber(32)  # where values have no unit
