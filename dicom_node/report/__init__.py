"""The same findings give the same objects, valid by the standard.

`build` says findings in DICOM: a Segmentation, derived images, parametric maps, presentation states, key objects and a Comprehensive 3D SR (TID
1500); `rejection` rejects earlier results that these replace, `verified` says that a person verified a report. `encode` writes an object as a DICOM
file, and `check` lets an independent program look for what the standard forbids, before anything leaves. No clock and no dice here: every date is
the run's or the reader's, every UID is derived from the run's identity, so that a retry writes the same bytes. `warm` spares the first report of a
process a wait.
"""

from dicom_node.report.build import build
from dicom_node.report.check import check
from dicom_node.report.encode import encode
from dicom_node.report.regions import reading, settled
from dicom_node.report.rejection import rejection
from dicom_node.report.run import Draft, Run
from dicom_node.report.verified import Observer, verified
from dicom_node.report.warm import warm

__all__ = ["Draft", "Observer", "Run", "build", "check", "encode", "reading", "rejection", "settled", "verified", "warm"]
