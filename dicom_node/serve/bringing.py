"""A DICOM file that comes by HTTP goes in by the same door as C-STORE."""

from collections.abc import Callable

import structlog

from dicom_node.config import Site
from dicom_node.domain import Refused, Transient, fault
from dicom_node.receive import Door, FileArrival, Turnstile
from dicom_node.store import Store
from dicom_node.web import Kept

_OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1
_AT_ONCE = 4  # files that are made durable at once, as of C-STORE

log = structlog.get_logger()


def bringing(site: Site, store: Store, clock: Callable[[], float]) -> Callable[[str, str], "Brought"]:
    """Return what takes DICOM files in pieces: by the same door as C-STORE."""
    node = site.config.node
    door, turnstile = Door(store, node), Turnstile(_AT_ONCE)

    def bring(calling_ae: str, study_instance_uid: str) -> Brought:
        file = FileArrival(door, calling_ae=calling_ae, study_instance_uid=study_instance_uid)
        return Brought(file, turnstile, calling_ae, node.dimse_timeout_s, clock)

    return bring


class Brought:
    """A file that comes by HTTP: made durable in its sender's turn."""

    def __init__(self, file: FileArrival, turnstile: Turnstile, calling_ae: str, timeout_s: float, clock: Callable[[], float]) -> None:
        self._file = file
        self._turnstile = turnstile
        self._calling_ae = calling_ae
        self._timeout_s = timeout_s
        self._clock = clock

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._file.write(data)

    def close(self) -> Kept:
        """Make it durable, and return what became of it."""
        status, why = 0, ""
        try:
            with self._turnstile.turn(self._calling_ae, self._timeout_s):
                self._file.close(self._clock())
        except Refused as refusal:
            status, why = refusal.status, str(refusal)
            log.warning("receive.refused", calling_ae=self._calling_ae, status=f"{status:04X}", reason=why, hint=refusal.hint)
        except Transient as error:
            status, why = _OUT_OF_RESOURCES, f"Out of resources: {error}"
        except Exception as error:  # the outermost frame of a file: this program is at fault, and its sender is to try again
            status, why = _OUT_OF_RESOURCES, "Internal error"
            log.error("receive.failed", calling_ae=self._calling_ae, status=f"{status:04X}", reason=fault(error))
        finally:
            self._file.drop()
        said = self._file.header
        uids = (str(said.get(keyword) or "") for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))
        sop_class_uid, sop_instance_uid, study, series = uids
        return Kept(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            study_instance_uid=study,
            series_instance_uid=series,
            status=status,
            why=why,
        )

    def drop(self) -> None:
        """Forget it: who brings it has gone."""
        self._file.drop()
