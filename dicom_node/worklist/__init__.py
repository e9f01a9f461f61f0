"""Orders, workitems and performed steps: Modality Worklist, UPS, MPPS, Instance Availability Notification (PS3.4 Annexes K, CC, F, R)."""

from dicom_node.worklist.folder import Folder
from dicom_node.worklist.inquirer import Inquirer
from dicom_node.worklist.notifier import Notifier
from dicom_node.worklist.service import Worklist
from dicom_node.worklist.ups import Hearing, Manager, Pulling, Reporting, WorkitemService

__all__ = ["Folder", "Hearing", "Inquirer", "Manager", "Notifier", "Pulling", "Reporting", "WorkitemService", "Worklist"]
