"""The analysing process: builds assemble, analyse and report, joins them, and owns nothing.

`Worker` takes jobs from the ledger; `try_model` runs one model on files, without a ledger.
"""

from dicom_node.work.trial import Trial, try_model
from dicom_node.work.worker import Worker

__all__ = ["Trial", "Worker", "try_model"]
