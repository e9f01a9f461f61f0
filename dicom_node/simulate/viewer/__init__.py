"""What a reader would see: `picture` draws a segmentation over its images, `findings` lists what a structured report says."""

from dicom_node.simulate.viewer.drawing import BANNER, picture
from dicom_node.simulate.viewer.reading import Finding, findings

__all__ = ["BANNER", "Finding", "findings", "picture"]
