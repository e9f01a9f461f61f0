"""The listening process: builds the rooms that listen, send and decide, joins them, and owns nothing. It never reaches torch."""

from dicom_node.serve.joining import asking_archives, receiver, services, suiting, taking
from dicom_node.serve.judging import Witnesses, ask_rules, foresee, judge_due, with_keywords
from dicom_node.serve.server import Server

__all__ = [
    "Server",
    "Witnesses",
    "ask_rules",
    "asking_archives",
    "foresee",
    "judge_due",
    "receiver",
    "services",
    "suiting",
    "taking",
    "with_keywords",
]
