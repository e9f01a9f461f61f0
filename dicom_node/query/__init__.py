"""Answers and asks: what the node holds, for peers that query and retrieve; what peers hold, for the node (PS3.4 Annex C)."""

from dicom_node.query.answers import Answer
from dicom_node.query.asking import count, find
from dicom_node.query.scp import Holdings, services

__all__ = ["Answer", "Holdings", "count", "find", "services"]
