"""One association's visit: what it brings, whose turn it takes, and what it is answered."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import structlog
from pynetdicom.association import Association

from dicom_node.config import NodeConfig
from dicom_node.domain import Refused, Transient
from dicom_node.receive.door import NOWHERE, OUT_OF_RESOURCES, Arrival, Door
from dicom_node.receive.presence import Presence
from dicom_node.receive.series import SeriesReader
from dicom_node.receive.turnstile import Turnstile
from dicom_node.store import Recorded
from dicom_node.wire import StoreRequest

SUCCESS = 0x0000
NOT_AUTHORISED = 0x0124  # PS3.7 C.4.1

_LARGE_BYTES = 1 << 16  # from here on it matters how a file ends

_log = structlog.get_logger()


@dataclass(kw_only=True)
class Visit:
    """An association from its connection to its end."""

    association: Association
    config: NodeConfig
    door: Door
    presence: Presence
    turnstile: Turnstile
    clock: Callable[[], float]
    started: float = field(default_factory=time.monotonic)
    stored: int = 0
    identical: int = 0
    refused: int = 0
    headers: SeriesReader = field(default_factory=SeriesReader)
    expected_bytes: int | None = None  # of the next data set: as many as the last had, if that was large

    @cached_property
    def calling_ae(self) -> str:
        """The peer's title, once it has said it."""
        return self.association.requestor.ae_title.strip()

    @cached_property
    def address(self) -> str:
        """Where the peer is."""
        info = self.association.requestor.address_info
        return info.address if info else ""

    @cached_property
    def _sender(self) -> str:
        """Who takes turns."""
        return f"{self.calling_ae}@{self.address}"

    @cached_property
    def _may_send(self) -> bool:
        return self.config.may(self.calling_ae, "send")

    def begin(self, request: StoreRequest, transfer_syntax_uid: str) -> "Arriving":
        """Begin to take a data set."""
        if not self._may_send:
            return Arriving(self, None)
        arrival = self.door.open(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae=self.calling_ae,
            headers=self.headers,
            expected_bytes=self.expected_bytes,
        )
        return Arriving(self, arrival)

    def answered(self, arrival: Arrival | None) -> tuple[int, str]:
        """Make a data set durable and return status and comment of the answer (PS3.4 B.2.3)."""
        try:
            recorded = self._close(arrival)
        except Refused as refusal:
            self.refused += 1
            _log.warning("receive.refused", calling_ae=self.calling_ae, status=f"{refusal.status:04X}", reason=str(refusal), hint=refusal.hint)
            return refusal.status, str(refusal)
        except Exception as error:
            # The outermost frame of ours in an association's thread. It is this program that is at fault, not the data set: the sender is told
            # to try again (A700). The error's text might quote the data set, so it is not logged.
            self.refused += 1
            _log.error("receive.failed", calling_ae=self.calling_ae, status="A700", error=type(error).__name__, where=_where(error))
            return OUT_OF_RESOURCES, "Internal error"
        if recorded is Recorded.IDENTICAL:
            self.identical += 1
        else:
            self.stored += 1
        return SUCCESS, ""

    def _close(self, arrival: Arrival | None) -> Recorded:
        if arrival is None:
            hint = f'Add "send" to the `may` of the remote whose AE title is {self.calling_ae}.'
            raise Refused("Not authorised to send", status=NOT_AUTHORISED, hint=hint)
        received_at = self.clock()
        try:
            with self.turnstile.turn(self._sender, self.config.node.dimse_timeout_s):
                recorded = arrival.close(received_at)
        except Transient as error:
            raise Refused(f"Out of resources: {error}", status=OUT_OF_RESOURCES, hint=error.hint) from error
        finally:
            arrival.drop()
        self.presence.brings(id(self), arrival.study_instance_uid)
        self.expected_bytes = arrival.size_bytes if arrival.size_bytes >= _LARGE_BYTES else None
        return recorded

    def tell(self, how: str) -> None:
        """Log how it ended, and what it brought."""
        self.presence.leaves(id(self))
        _log.info(
            "receive.association",
            ended=how,
            calling_ae=self.calling_ae,
            address=self.address,
            stored=self.stored,
            identical=self.identical,
            refused=self.refused,
            seconds=round(time.monotonic() - self.started, 3),
        )


class Arriving:
    """A data set that comes in pieces on an association, and goes nowhere when its sender may not send."""

    __slots__ = ("_arrival", "_visit")

    def __init__(self, visit: Visit, arrival: Arrival | None) -> None:
        self._visit = visit
        self._arrival = arrival

    def room(self, most_bytes: int) -> memoryview:
        """Return where the next bytes go: so many at most, and at least one."""
        return NOWHERE[:most_bytes] if self._arrival is None else self._arrival.room(most_bytes)

    def took(self, count: int) -> None:
        """Go on after so many bytes that were put where `room` said."""
        if self._arrival is not None:
            self._arrival.took(count)

    def write(self, data: memoryview) -> None:
        """Take the next bytes by a copy."""
        if self._arrival is not None:
            self._arrival.write(data)

    def drop(self) -> None:
        """Forget it."""
        if self._arrival is not None:
            self._arrival.drop()

    def close(self) -> tuple[int, str]:
        """Make it durable, and return the status and comment to answer with."""
        return self._visit.answered(self._arrival)


def _where(error: BaseException) -> str:
    """Name the place an error was raised at, without its values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
