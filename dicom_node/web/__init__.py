"""A person sees what the node does and why, a program speaks DICOMweb to it: both by HTTP, and neither keeps the receiver waiting.

It runs in a process of its own, which `serve` keeps. Other rooms reach it as values, in its `Context`.
"""

from dicom_node.web.app import build
from dicom_node.web.context import Context, Explanation, Kept, Tried
from dicom_node.web.running import run

__all__ = ["Context", "Explanation", "Kept", "Tried", "build", "run"]
