"""Delivered means the archive has said so.

Results go to their destinations by C-STORE (PS3.4 Annex B): the bytes that lie on disk, whole or not at all, again and again until the
destination says that it has them or a person must look. Where the site wants it, the destination is then asked to commit itself to keep them
(Annex J). What to do is decided in `decisions` and `commitment`, without I/O; `deliverer` and `committer` join that with the ledger and,
through `wire.peer`, with the destination.
"""

from dicom_node.deliver.committer import Committer, Reports
from dicom_node.deliver.decisions import Share, Verdict, backoff_s, contexts, shares, verdict
from dicom_node.deliver.deliverer import Deliverer

__all__ = ["Committer", "Deliverer", "Reports", "Share", "Verdict", "backoff_s", "contexts", "shares", "verdict"]
