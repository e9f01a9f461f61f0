"""Reports that readers accepted, written again as verified: beside the analyses, and whatever stops it, each exactly once."""

import contextlib
from collections.abc import Callable

import structlog
from pydicom import dcmread

from dicom_node.config import Site
from dicom_node.domain import NodeError, Transient, Verification, fault
from dicom_node.report import Observer, verified
from dicom_node.store import Store, Topic, Watch
from dicom_node.work.writing import write_draft

log = structlog.get_logger()

_LEASE_S = 180.0  # a report is written in a second; the check of it may take a minute
_AGAIN_AFTER_S = 30.0
_ATTEMPTS = 20


class Verifying(Watch):
    """Writes verified reports until it is stopped; what is to be written stands in the ledger."""

    def __init__(self, site: Site, store: Store, who: str, clock: Callable[[], float]) -> None:
        super().__init__(store.bell, Topic.FEEDBACK, name="verifying", rest_s=site.config.work.poll_s)
        self._site = site
        self._store = store
        self._who = who
        self._clock = clock

    def take_turn(self) -> float:
        """Write the next verified report, and look at once for another."""
        return 0.0 if self.once() else self._site.config.work.poll_s

    def failed(self, error: Exception) -> None:
        """Tell of it."""
        log.error("no report verified", reason=fault(error))

    def once(self) -> bool:
        """Write the next verified report; say whether there was one."""
        held = self._store.feedback.claim(self._who, now=self._clock(), lease_s=_LEASE_S)
        if held is None:
            return False
        try:
            self._write(held)
        except Exception as error:  # whatever it was belongs on record, with what the reader said
            self._record_failure(held, error)
        return True

    def _write(self, held: Verification) -> None:
        report = dcmread(self._store.archive.path(held.report.path))
        organization = self._site.config.feedback.organization or self._site.config.node.ae_title
        draft = verified(report, Observer(name=held.observer, organization=organization, at=held.at))
        made = write_draft(
            self._store.archive,
            draft,
            job_id=held.job_id,
            identity=held.identity,
            name=f"{held.id}-{draft.kind}",
            study_instance_uid=held.report.study_instance_uid,
            made_at=held.at,
        )
        if made.problem:
            self._store.archive.remove(made.path)
            self._store.feedback.fail(held, now=self._clock(), reason=f"it is not valid DICOM: {made.problem}")
            log.error("no report verified", reason=made.problem, job=held.job_id)
        elif self._store.feedback.written(held, made, now=self._clock()):
            log.info("report verified", job=held.job_id)
        elif not self._store.jobs.exists(held.job_id):
            self._store.archive.remove(made.path)  # its study was removed meanwhile: nobody else has it on record, and nobody would remove it later

    def _record_failure(self, held: Verification, error: Exception) -> None:
        now, why = self._clock(), fault(error)
        log.error("no report verified", reason=why, job=held.job_id)
        with contextlib.suppress(Transient):  # the ledger is away: it is due again when its lease ends
            if held.attempts < _ATTEMPTS and (isinstance(error, Transient) or not isinstance(error, NodeError | FileNotFoundError)):
                self._store.feedback.put_off(held, until=now + _AGAIN_AFTER_S * held.attempts, reason=why)
            else:
                self._store.feedback.fail(held, now=now, reason=why)
