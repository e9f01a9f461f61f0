"""Unified Procedure Steps: the node's worklist of analyses, and whatever else others put on it (PS3.4 Annex CC; IHE AIW-I)."""

from dicom_node.worklist.ups.hearing import Hearing
from dicom_node.worklist.ups.manager import Manager
from dicom_node.worklist.ups.pulling import Pulling
from dicom_node.worklist.ups.reporting import Reporting
from dicom_node.worklist.ups.service import WorkitemService

__all__ = ["Hearing", "Manager", "Pulling", "Reporting", "WorkitemService"]
