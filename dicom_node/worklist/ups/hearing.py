"""Takes what other Task Managers report to this node: UPS Event over DIMSE, as SCU (PS3.4 CC.2.4).

What was heard stands in the ledger before it is answered: a report may come to any of the processes that receive, and one of them asks the manager.
"""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from pynetdicom import evt

from dicom_node.config import NodeConfig
from dicom_node.domain import Refused, ReportKind, Transient, fault, is_uid
from dicom_node.store import Store
from dicom_node.wire import UNCOMPRESSED, Service
from dicom_node.worklist.attributes import INVALID_VALUE, NOT_AUTHORISED, PROCESSING_FAILURE
from dicom_node.worklist.ups.events import SOP_CLASS as EVENT

NO_SUCH_EVENT = 0x0113
_BYTES_MAX = 1 << 20  # of one report
_TOLD: Mapping[str, str] = {
    "state": "ProcedureStepState",
    "readiness": "InputReadinessState",
    "reason": "ReasonForCancellation",
    "status": "SCPStatus",
}

_log = structlog.get_logger()


class Hearing:
    """Takes reports of remotes whose worklist this node subscribes to."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._tellers = {remote.ae.title for remote in config.remotes.values() if remote.tasks == "triggered" and not remote.web_url}

    def services(self) -> tuple[Service, ...]:
        """Return what the node answers; managers propose the SCP role for themselves, or none, or both: all are agreed to (PS3.7 D.3.3.4)."""
        if not self._tellers:
            return ()
        handlers = ((evt.EVT_N_EVENT_REPORT, self._on_report),)
        return (Service(abstract_syntaxes=(EVENT,), handlers=handlers, transfer_syntaxes=UNCOMPRESSED, roles=(True, True)),)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        teller = str(event.assoc.requestor.ae_title).strip()
        try:
            self._take(event, teller)
            return 0x0000, None
        except Refused as error:
            _log.warning("tasks.report_refused", of=teller, status=f"{error.status:04X}", why=str(error))
            return error.status, None
        except Transient as error:
            _log.error("tasks.report_not_taken", of=teller, why=str(error))
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered; what is missed a search finds
            _log.error("tasks.report_not_taken", of=teller, why=fault(error))
        return PROCESSING_FAILURE, None

    def _take(self, event: evt.Event, teller: str) -> None:
        if teller not in self._tellers:
            raise Refused("this AE title is none whose worklist the node watches", status=NOT_AUTHORISED)
        uid, kind = str(event.request.AffectedSOPInstanceUID or ""), int(event.request.EventTypeID or 0)
        if not is_uid(uid):
            raise Refused("the step has no UID", status=INVALID_VALUE)
        if kind not in tuple(ReportKind):
            raise Refused("there is no such event", status=NO_SUCH_EVENT)
        self._store.subscriptions.hear(teller, uid, ReportKind(kind), _facts(event), now=self._clock())


def _facts(event: evt.Event) -> dict[str, Any]:
    """Return what a report says, as far as it matters here.

    Raises
    ------
    Refused: it cannot be read.
    """
    content = event.request.EventInformation
    if content is None:
        return {}
    if len(content.getbuffer()) > _BYTES_MAX:
        raise Refused(f"more than {_BYTES_MAX} bytes are not taken", status=INVALID_VALUE)
    try:
        said = event.event_information
        texts = {name: str(said.get(keyword) or "")[:1024] for name, keyword in _TOLD.items()}
    except Exception as error:  # whatever pydicom raises on bytes that anybody may send: they are no data set
        raise Refused("the report cannot be read", status=INVALID_VALUE) from error
    return {name: text for name, text in texts.items() if text}
