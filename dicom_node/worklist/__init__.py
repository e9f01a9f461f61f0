"""Orders and performed steps: Modality Worklist, Modality Performed Procedure Step, Instance Availability Notification (PS3.4 Annexes K, F, R)."""

from dicom_node.worklist.folder import Folder
from dicom_node.worklist.inquirer import Inquirer
from dicom_node.worklist.notifier import Notifier
from dicom_node.worklist.service import Worklist

__all__ = ["Folder", "Inquirer", "Notifier", "Worklist"]
