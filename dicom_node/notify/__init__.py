"""Who has to know is told, at least once: that something is wrong, that it is over, that something was found. What was found may raise a study.

What is to be told stands in the ledger before it is told. A trouble is told when it begins and when it ends, and not in between.
"""

from dicom_node.notify.raising import Raiser
from dicom_node.notify.sending import send_test
from dicom_node.notify.tellers import Tellers

__all__ = ["Raiser", "Tellers", "send_test"]
