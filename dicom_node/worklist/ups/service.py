"""Workitems over DIMSE: four of the five SOP classes as SCP; events go out by `reporting` (PS3.4 Annex CC).

The SOP class of every workitem is UPS Push, whatever class an association negotiated: what may be asked is told by the context a request came by.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import structlog
from pydicom import Dataset
from pynetdicom import _config, evt

from dicom_node.config import NodeConfig
from dicom_node.config.remotes import May
from dicom_node.domain import Channel, Refused, Transient, fault
from dicom_node.wire import Service, status_of
from dicom_node.worklist.attributes import INVALID_VALUE, NOT_AUTHORISED, PROCESSING_FAILURE, RESOURCE_LIMITATION, needed
from dicom_node.worklist.ups.attributes import SOP_CLASS as PUSH
from dicom_node.worklist.ups.manager import Manager
from dicom_node.worklist.ups.search import DOES_NOT_FIT

WATCH, PULL, QUERY = (f"1.2.840.10008.5.1.4.34.6.{last}" for last in (2, 3, 5))

CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = range(1, 6)  # action types (PS3.4 CC.2.1 to CC.2.3)

# Which classes have which services (PS3.4 Tables CC.2-1 to CC.2-5).
CREATES, SETS, GETS, FINDS = {PUSH}, {PULL}, {PUSH, WATCH, PULL}, {WATCH, PULL, QUERY}
ACTIONS: Mapping[int, frozenset[str]] = {
    CHANGE_STATE: frozenset({PULL}),
    REQUEST_CANCEL: frozenset({PUSH, WATCH}),
    **dict.fromkeys((SUBSCRIBE, UNSUBSCRIBE, SUSPEND), frozenset({WATCH})),
}

NO_SUCH_CLASS, NO_SUCH_ACTION, UNRECOGNISED = 0x0118, 0x0123, 0x0211
UNKNOWN_RECEIVER = 0xC308
PENDING, UNSUPPORTED_KEYS, CANCELLED, UNABLE = 0xFF00, 0xFF01, 0xFE00, 0xC001

OUT_OF_RESOURCES = 0xA700
_OF_FIND: Mapping[int, int] = {NOT_AUTHORISED: UNABLE, INVALID_VALUE: UNABLE, RESOURCE_LIMITATION: OUT_OF_RESOURCES}  # PS3.4 Table CC.2.8-4

_BYTES_MAX = 4 << 20  # of the data set of one request
_READERS: tuple[May, ...] = ("watch", "request", "perform")

_log = structlog.get_logger()

_Answer = tuple[Dataset, Dataset | None]


class WorkitemService:
    """Answers what requesters, watchers and performers ask."""

    def __init__(self, config: NodeConfig, manager: Manager) -> None:
        self._config = config
        self._manager = manager

    def services(self) -> tuple[Service, ...]:
        """Return what the node answers of workitems; nothing where nobody may ask."""
        if not any({*_READERS} & remote.may for remote in self._config.remotes.values()):
            return ()
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # they name patients
        handlers = (
            (evt.EVT_N_CREATE, partial(self._answer, self._create)),
            (evt.EVT_N_SET, partial(self._answer, self._set)),
            (evt.EVT_N_GET, partial(self._answer, self._get)),
            (evt.EVT_N_ACTION, partial(self._answer, self._act)),
            (evt.EVT_C_FIND, self._find),
        )
        return (Service(abstract_syntaxes=(PUSH, WATCH, PULL, QUERY), handlers=handlers),)

    # ---------------------------------------------------------------------------------------------------------- answers

    def _answer(self, act: Callable[[evt.Event, str], tuple[int, Dataset | None]], event: evt.Event) -> _Answer:
        calling_ae = _calling(event)
        try:
            status, said = act(event, calling_ae)
            answer = status_of(status)
            if status != 0x0000 and said is not None and "AffectedSOPInstanceUID" in said:
                answer.AffectedSOPInstanceUID, said = said.AffectedSOPInstanceUID, None  # pynetdicom takes it from there with success alone
            return answer, said
        except Refused as error:
            answer = status_of(error.status, str(error))
        except Transient as error:  # the ledger is away: it may be asked again
            answer = status_of(RESOURCE_LIMITATION, "the ledger does not answer; try again later")
            _log.warning("workitems.ledger_failed", why=str(error))
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered
            answer = status_of(PROCESSING_FAILURE, "the request could not be processed")
            _log.error("workitems.failed", reason=fault(error))
        _log.info("workitems.refused", calling_ae=calling_ae, status=f"{answer.Status:04X}", why=str(answer.ErrorComment))
        return answer, None

    def _create(self, event: evt.Event, calling_ae: str) -> tuple[int, Dataset | None]:
        self._demand(calling_ae, "request")
        _expect(event, CREATES, str(event.request.AffectedSOPClassUID or ""))
        named = str(event.request.AffectedSOPInstanceUID or "")
        uid, status = self._manager.create(_read(event, "attribute_list", "AttributeList"), uid=named, requester=calling_ae)
        _log.info("workitems.created", workitem=uid, calling_ae=calling_ae)
        answer = Dataset()
        if not named:
            answer.AffectedSOPInstanceUID = uid
        return status, answer

    def _get(self, event: evt.Event, calling_ae: str) -> tuple[int, Dataset | None]:
        self._demand(calling_ae, *_READERS)
        _expect(event, GETS, str(event.request.RequestedSOPClassUID or ""))
        named = event.attribute_identifiers or []
        return 0x0000, self._manager.get(str(event.request.RequestedSOPInstanceUID), [int(tag) for tag in named])

    def _set(self, event: evt.Event, calling_ae: str) -> tuple[int, Dataset | None]:
        self._demand(calling_ae, "perform")
        _expect(event, SETS, str(event.request.RequestedSOPClassUID or ""))
        uid = str(event.request.RequestedSOPInstanceUID)
        return self._manager.set(uid, _read(event, "modification_list", "ModificationList"), who=calling_ae), None

    def _act(self, event: evt.Event, calling_ae: str) -> tuple[int, Dataset | None]:
        request = event.request
        if str(request.RequestedSOPClassUID or "") != PUSH:
            raise Refused("the SOP class of every step is UPS Push", status=NO_SUCH_CLASS)
        action = int(request.ActionTypeID or 0)
        if _context(event) not in ACTIONS.get(action, frozenset()):
            raise Refused("this SOP class has no such action", status=NO_SUCH_ACTION)
        uid, said = str(request.RequestedSOPInstanceUID), _read(event, "action_information", "ActionInformation")
        if action == CHANGE_STATE:
            self._demand(calling_ae, "perform")
            return self._manager.change_state(uid, said, who=calling_ae), None
        if action == REQUEST_CANCEL:
            self._demand(calling_ae, "request", "watch")
            return self._manager.ask_to_cancel(uid, said, who=calling_ae), None
        self._demand(calling_ae, "watch")
        return self._subscribing(action, uid, said), None

    def _subscribing(self, action: int, uid: str, said: Dataset) -> int:
        receiver = needed(said, "ReceivingAE")
        if action == UNSUBSCRIBE:
            self._manager.unsubscribe(uid, receiver)
            return 0x0000
        if action == SUSPEND:
            self._manager.suspend(uid, receiver)
            return 0x0000
        if receiver not in {remote.ae.title for remote in self._config.remotes.values() if "watch" in remote.may}:
            raise Refused("ReceivingAE is none that may watch here", status=UNKNOWN_RECEIVER)
        lock = needed(said, "DeletionLock")
        if lock not in ("TRUE", "FALSE"):
            raise Refused("DeletionLock is neither TRUE nor FALSE", status=INVALID_VALUE)
        keys = Dataset()
        keys.update({element.tag: element for element in said if element.keyword not in ("ReceivingAE", "DeletionLock")})
        return self._manager.subscribe(uid, receiver, channel=Channel.DIMSE, deletion_lock=lock == "TRUE", keys=keys)

    def _find(self, event: evt.Event) -> Iterator[tuple[Dataset | int, Dataset | None]]:
        """Answer a C-FIND, each match by itself, and end when it is canceled (PS3.4 CC.2.8)."""
        calling_ae = _calling(event)
        try:
            self._demand(calling_ae, *_READERS)
            if _context(event) not in FINDS:
                raise Refused("this SOP class has no C-FIND", status=DOES_NOT_FIT)
            for answer, is_whole in self._manager.find(_read(event, "identifier", "Identifier")):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                yield (PENDING if is_whole else UNSUPPORTED_KEYS), answer
            return
        except Refused as error:
            status = status_of(_OF_FIND.get(error.status, error.status), str(error))
        except Transient:
            status = status_of(OUT_OF_RESOURCES, "the ledger does not answer; try again later")
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered
            status = status_of(UNABLE, "the request could not be processed")
            _log.error("workitems.failed", reason=fault(error))
        _log.info("workitems.refused", calling_ae=calling_ae, status=f"{status.Status:04X}", why=str(status.ErrorComment))
        yield status, None

    def _demand(self, calling_ae: str, *rights: May) -> None:
        if not any(self._config.may(calling_ae, one) for one in rights):
            raise Refused(f"this AE title may not {' or '.join(rights)} here", status=NOT_AUTHORISED)


def _expect(event: evt.Event, contexts: set[str], sop_class_uid: str) -> None:
    if sop_class_uid != PUSH:
        raise Refused("the SOP class of every step is UPS Push", status=NO_SUCH_CLASS)
    if _context(event) not in contexts:
        raise Refused("this SOP class has no such service", status=UNRECOGNISED)


def _read(event: evt.Event, name: str, carried: str) -> Dataset:
    """Return the data set of a request, every value of it read.

    Raises
    ------
    Refused: it is too long, or cannot be read.
    """
    content = getattr(event.request, carried)
    if content is None:
        return Dataset()
    if len(content.getbuffer()) > _BYTES_MAX:
        raise Refused(f"more than {_BYTES_MAX} bytes are not taken", status=RESOURCE_LIMITATION)
    try:
        said: Dataset = getattr(event, name)
        said.decode()
        for element in said.iterall():
            _ = element.value
        return said
    except Exception as error:  # whatever pydicom raises on bytes that anybody may send: they are no data set
        raise Refused("the data set cannot be read", status=INVALID_VALUE) from error


def _context(event: evt.Event) -> str:
    return str(event.context.abstract_syntax)


def _calling(event: evt.Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()
