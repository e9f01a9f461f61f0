"""Answers and asks: what the node holds, for peers that query and retrieve; what peers hold, for the node (PS3.4 Annex C)."""

from dicom_node.query.answers import Answer
from dicom_node.query.scp import Holdings, services
from dicom_node.query.scu import count, find

__all__ = ["Answer", "Holdings", "count", "find", "services"]
