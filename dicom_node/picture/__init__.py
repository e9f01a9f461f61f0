"""What a person should see of a result: its images with what was found drawn on them, and no patient's identity.

`summary` draws the findings of a job from what the job has at hand; `picture` draws a segmentation over its images, from files. Both say whose work
it is, and neither writes anything of a header but modality and geometry.
"""

from dicom_node.picture.canvas import BANNER
from dicom_node.picture.drawing import picture
from dicom_node.picture.sheet import summary

__all__ = ["BANNER", "picture", "summary"]
