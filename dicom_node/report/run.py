"""What every object of one run has in common: its identity, its moment, its model."""

import re
import time
from dataclasses import dataclass

from pydicom import Dataset

from dicom_node.config import Encoding, Model
from dicom_node.domain import Order, Reference, derived_uid

_UTC_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")  # PS3.3 C.12.1.1.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One analysis of one set of inputs, as its results name it."""

    identity: str  # the job's: UIDs are derived from it
    made_at: float  # seconds since the epoch: the only moment that results carry
    model: Model
    predecessors: tuple[Reference, ...] = ()  # results that these replace
    station: str = ""  # where it ran: Station Name and the observer's physical location
    encoding: Encoding = "BINARY"  # of the segmentation, where its segments are no fractions
    order: Order | None = None  # that the study was made for, as a worklist tells of it
    utc_offset: str = ""  # of the dates where the images name none, such as +0100; empty: this machine's

    @property
    def segmentation_type(self) -> str:
        """How the segmentation is encoded (0062,0001): fractions always as such, for no label says them, whatever the destinations take."""
        return "FRACTIONAL" if self.model.manifest.fractional else self.encoding

    def uid(self, role: str, index: int = 1) -> str:
        """Return the UID of one part of this run's results: the same role and index, the same UID (PS3.5 B.2)."""
        return derived_uid(self.identity, role, index)

    def moment(self, offset: str = "") -> tuple[str, str]:
        """Return the run's date and time (VR DA and TM) at an offset from UTC, written as PS3.3 C.12.1.1.8 does; without one, its own."""
        return moment(self.made_at, offset if _UTC_OFFSET.fullmatch(offset) else self.utc_offset)


def moment(at: float, offset: str = "") -> tuple[str, str]:
    """Return a moment's date and time (VR DA and TM) at an offset from UTC, written as PS3.3 C.12.1.1.8 does; without one, this machine's."""
    whole = int(at // 1)
    if _UTC_OFFSET.fullmatch(offset):
        seconds = (int(offset[1:3]) * 60 + int(offset[3:])) * 60
        local = time.gmtime(whole - seconds if offset[0] == "-" else whole + seconds)
    else:
        local = time.localtime(whole)
    return time.strftime("%Y%m%d", local), time.strftime("%H%M%S", local)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One object that is ready to be written, checked and sent."""

    # "SEG", "DER" (one image of a derived series), "PM", "PR", "KO", "SR", "REJ" (earlier results rejected), "VSR" (a report that a person verified)
    kind: str
    dataset: Dataset
