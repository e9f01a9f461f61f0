"""A model that dies takes down only its own process.

`Pool` keeps one warm process for each model build and device, and watches it while it works: time, memory, cancellation.
What comes back is settled against the model's manifest: a mask on the input's own grid, numbers and answers that the manifest knows.
"""

from dicom_node.analyse.contract import settle
from dicom_node.analyse.pool import Pool
from dicom_node.analyse.weights import fetch_weights

__all__ = ["Pool", "fetch_weights", "settle"]
