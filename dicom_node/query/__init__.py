"""Answers and asks: what the node holds, for peers that query and retrieve; what peers hold, for the node (PS3.4 Annex C)."""

from dicom_node.query.scp import Holdings, services

__all__ = ["Holdings", "services"]
