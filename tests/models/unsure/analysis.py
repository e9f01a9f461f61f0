"""It says how sure it is; an image whose first voxel is the number of a fault makes it commit that fault."""

import numpy as np

from dicom_node import Findings

BOTH = {"ReferencedSegmentNumber": [1, 2]}

FAULTS = {
    1: lambda v: v.with_array(np.where(v.array == 1, np.nan, v.array)),
    2: lambda v: v.with_array(v.array - 0.1),
    3: lambda v: v.with_array(v.array * 2),
    4: lambda v: v.with_array(np.where(v.array == 1, np.inf, v.array)),
    5: lambda v: v.with_array((v.array * 255).astype(np.int16)),
    6: lambda v: v.with_array(v.array[..., 0]),
    7: lambda v: v.with_array(v.array, {"ReferencedSegmentNumber": [2, 1]}),
    8: lambda v: v.with_array(v.array, {"OpticalPathIdentifier": ["1", "2"]}),
    9: lambda v: v.array,
}


def load(folder, device):
    def analyse(ct):
        low, high = ct.array.min(), ct.array.max()
        liver = (ct.array - low) / (high - low)
        values = ct.with_array(np.moveaxis(np.stack([liver, liver / 4]), 0, -1), BOTH)  # (slice, row, column, segment)
        fault = FAULTS.get(int(ct.array[0, 0, 0]))
        return Findings(segments=fault(values) if fault else values.flip_spatial([0, 2]).pad([(0, 0), (1, 2), (0, 0)]))

    return analyse
