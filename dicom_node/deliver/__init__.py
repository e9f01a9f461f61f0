"""Delivered means the archive has said so.

Results go to their destinations by C-STORE (PS3.4 Annex B): the bytes that lie on disk, whole or not at all, again and again until the
destination says that it has them or a person must look. What to do is decided in `decisions`, without I/O; `deliverer` joins that with the
ledger and, through `wire.peer`, with the destination.
"""

from dicom_node.deliver.decisions import Share, Verdict, backoff_s, contexts, shares, verdict
from dicom_node.deliver.deliverer import Deliverer

__all__ = ["Deliverer", "Share", "Verdict", "backoff_s", "contexts", "shares", "verdict"]
