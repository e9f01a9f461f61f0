"""Orders, workitems and performed steps: Modality Worklist, UPS, MPPS, Instance Availability Notification (PS3.4 Annexes K, CC, F, R)."""

from dicom_node.worklist.folder import Folder
from dicom_node.worklist.inquirer import Inquirer
from dicom_node.worklist.notifier import Notifier
from dicom_node.worklist.service import Worklist
from dicom_node.worklist.ups import Manager, Reporting, WorkitemService

__all__ = ["Folder", "Inquirer", "Manager", "Notifier", "Reporting", "WorkitemService", "Worklist"]
