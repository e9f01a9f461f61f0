"""What the worklist room answers on the node's port: the N-CREATE and N-SET of performed procedure steps (PS3.4 Annex F)."""

from collections.abc import Callable
from functools import partial

import structlog
from pydicom import Dataset
from pynetdicom import evt

from dicom_node.config import NodeConfig
from dicom_node.domain import Refused, Transient, derived_uid, fault
from dicom_node.store import Store
from dicom_node.wire import Service
from dicom_node.worklist import mpps

_COMMENT_CHARACTERS = 64  # of Error Comment (0000,0902)

_log = structlog.get_logger()

_Answer = tuple[Dataset, Dataset | None]  # status, and attributes


class Worklist:
    """Takes what modalities say of their steps, from who may `worklist`."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float]) -> None:
        self._config = config
        self._store = store
        self._clock = clock

    def services(self) -> tuple[Service, ...]:
        """Return what the node answers of this room."""
        handlers = ((evt.EVT_N_CREATE, partial(self._answer, self._create)), (evt.EVT_N_SET, partial(self._answer, self._set)))
        return (Service(abstract_syntaxes=(mpps.SOP_CLASS,), handlers=handlers),)

    def _answer(self, act: Callable[[evt.Event, str], Dataset], event: evt.Event) -> _Answer:
        calling_ae = str(event.assoc.requestor.ae_title).strip()
        try:
            if not self._config.may(calling_ae, "worklist"):
                raise Refused("this AE title may not worklist here", status=mpps.NOT_AUTHORISED)
            return _status(0x0000), act(event, calling_ae)
        except mpps.StepEnded as error:
            status = _status(error.status, str(error))
            status.ErrorID = mpps.NO_LONGER_IN_PROGRESS
        except Refused as error:
            status = _status(error.status, str(error))
        except Transient as error:  # the ledger is away: the modality may say it again
            status = _status(mpps.RESOURCE_LIMITATION, "the ledger does not answer; try again later")
            _log.warning("worklist.ledger_failed", why=str(error))
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered
            status = _status(mpps.PROCESSING_FAILURE, "the request could not be processed")
            _log.error("worklist.failed", reason=fault(error))
        _log.info("worklist.refused", calling_ae=calling_ae, status=f"{status.Status:04X}", why=str(status.ErrorComment))
        return status, None

    def _create(self, event: evt.Event, calling_ae: str) -> Dataset:
        attributes = event.attribute_list
        # PS3.7 10.1.5.1.4: the performer gives the UID where the request has none; the same step gets the same one, so that a retry is a duplicate
        named = event.request.AffectedSOPInstanceUID
        identifiers = (str(attributes.get(keyword, "")) for keyword in ("PerformedProcedureStepID", "PerformedProcedureStepStartDate"))
        uid = str(named) if named else derived_uid("performed step", calling_ae, *identifiers, attributes.get("PerformedProcedureStepStartTime", ""))
        step = mpps.begun(uid, attributes)
        if not self._store.steps.begin(step, calling_ae, now=self._clock()):
            raise Refused("this step was created already", status=mpps.DUPLICATE)
        _log.info("worklist.step_begun", step=uid, studies=step.study_instance_uids, calling_ae=calling_ae)
        answer = Dataset()
        if not named:
            answer.AffectedSOPInstanceUID = uid
        return answer

    def _set(self, event: evt.Event, calling_ae: str) -> Dataset:
        uid, attributes = str(event.request.RequestedSOPInstanceUID), event.modification_list
        step = self._store.steps.change(uid, lambda found: mpps.changed(found, attributes), calling_ae, now=self._clock())
        if step is None:
            raise Refused("no such step", status=mpps.NO_SUCH_INSTANCE)
        _log.info("worklist.step_changed", step=uid, state=step.state, instances=len(step.expected), calling_ae=calling_ae)
        return Dataset()


def _status(status: int, comment: str = "") -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:_COMMENT_CHARACTERS]
    return answer
