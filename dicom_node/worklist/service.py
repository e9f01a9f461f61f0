"""What the worklist room answers on the node's port: worklists, performed steps and notifications of availability (PS3.4 Annexes K, F and R)."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import structlog
from pydicom import Dataset
from pynetdicom import _config, evt

from dicom_node.config import NodeConfig
from dicom_node.domain import Notification, Refused, Transient, derived_uid, fault
from dicom_node.store import Store
from dicom_node.wire import Service, status_of
from dicom_node.worklist import ian, mpps, mwl
from dicom_node.worklist.attributes import DUPLICATE, NO_SUCH_INSTANCE, NOT_AUTHORISED, PROCESSING_FAILURE, RESOURCE_LIMITATION
from dicom_node.worklist.folder import Folder

_IDENTIFIER_BYTES = 1 << 16

_log = structlog.get_logger()

_Answer = tuple[Dataset, Dataset | None]  # status, and attributes
Wanted = Callable[[str, str, str], None]  # the name of a remote, a Study Instance UID, and why the study is to be fetched from there


class Worklist:
    """Gives modalities their worklist, takes what they say of their steps, and what archives say that they have, of who may `worklist`."""

    def __init__(self, config: NodeConfig, store: Store, clock: Callable[[], float], *, wanted: Wanted | None = None) -> None:
        """Build it; wanted: asks for a study to be fetched, once or more often, since a notification says that a remote has what the node lacks."""
        self._config = config
        self._store = store
        self._clock = clock
        self._wanted = wanted
        self._folder = Folder(config.worklist.folder) if config.worklist.folder is not None else None

    def services(self) -> tuple[Service, ...]:
        """Return what the node answers of this room."""
        handlers = ((evt.EVT_N_CREATE, partial(self._answer, self._create)), (evt.EVT_N_SET, partial(self._answer, self._set)))
        taken = Service(abstract_syntaxes=(mpps.SOP_CLASS, ian.SOP_CLASS), handlers=handlers)
        if self._folder is None:
            return (taken,)
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # they name patients
        find = partial(self._find, self._folder)
        return (taken, Service(abstract_syntaxes=(mwl.SOP_CLASS,), handlers=((evt.EVT_C_FIND, find),)))

    def _answer(self, act: Callable[[evt.Event, str], Dataset], event: evt.Event) -> _Answer:
        calling_ae = str(event.assoc.requestor.ae_title).strip()
        try:
            if not self._config.may(calling_ae, "worklist"):
                raise Refused("this AE title may not worklist here", status=NOT_AUTHORISED)
            return status_of(0x0000), act(event, calling_ae)
        except mpps.StepEnded as error:
            status = status_of(error.status, str(error))
            status.ErrorID = mpps.NO_LONGER_IN_PROGRESS
        except Refused as error:
            status = status_of(error.status, str(error))
        except Transient as error:  # the ledger is away: the modality may say it again
            status = status_of(RESOURCE_LIMITATION, "the ledger does not answer; try again later")
            _log.warning("worklist.ledger_failed", why=str(error))
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered
            status = status_of(PROCESSING_FAILURE, "the request could not be processed")
            _log.error("worklist.failed", reason=fault(error))
        _log.info("worklist.refused", calling_ae=calling_ae, status=f"{status.Status:04X}", why=str(status.ErrorComment))
        return status, None

    # ------------------------------------------------------------------------------------------------------- worklists

    def _find(self, folder: Folder, event: evt.Event) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        """Answer a C-FIND, each match by itself, and end when the modality cancels (PS3.4 K.4.1)."""
        calling_ae = str(event.assoc.requestor.ae_title).strip()
        try:
            if not self._config.may(calling_ae, "worklist"):
                raise Refused("this AE title may not worklist here", status=NOT_AUTHORISED)
            yield from self._matches(folder, event, calling_ae)
            return
        except Refused as error:
            status = status_of(error.status, str(error))
        except Exception as error:  # the outermost frame of a request: whatever a peer sends is answered
            status = status_of(mwl.UNABLE, "the request could not be processed")
            _log.error("worklist.failed", reason=fault(error))
        _log.info("worklist.refused", calling_ae=calling_ae, status=f"{status.Status:04X}", why=str(status.ErrorComment))
        yield status, None

    def _matches(self, folder: Folder, event: evt.Event, calling_ae: str) -> Iterator[tuple[int, Dataset | None]]:
        identifier = event.request.Identifier
        if identifier is None or identifier.getbuffer().nbytes > _IDENTIFIER_BYTES:
            raise Refused("the identifier is missing, or too long", status=mwl.DOES_NOT_FIT)
        try:
            keys = event.identifier
        except Exception as error:  # whatever pydicom raises on bytes that anybody may send: they are no data set
            raise Refused("the identifier cannot be read", status=mwl.DOES_NOT_FIT) from error
        asked, matches = mwl.asked(keys), 0
        for entry in self._entries(folder, asked):
            if event.is_cancelled:
                _log.info("worklist.cancelled", calling_ae=calling_ae, matches=matches)
                yield mwl.CANCELLED, None
                return
            if asked.matches(entry.attributes):
                answer, whole = asked.answer(entry)
                matches += 1
                yield (mwl.PENDING if whole else mwl.UNSUPPORTED_KEYS), answer
        _log.info("worklist.answered", calling_ae=calling_ae, matches=matches)
        yield 0x0000, None

    def _entries(self, folder: Folder, asked: mwl.Asked) -> Iterable[mwl.Entry]:
        """Give the entries, those of raised studies as the site wants them to read; the files are never written."""
        found = folder.entries()
        rules = {rule.name: rule for rule in self._config.triage if rule.worklist_comment}
        if not rules or not asked.is_of_place:
            yield from found
            return
        for entry, names in zip(found, self._store.triage.raised([mwl.order_of(entry) for entry in found]), strict=True):
            by = [rules[name] for name in names if name in rules]
            yield mwl.raised(entry, [rule.worklist_comment for rule in by], max(rule.rank for rule in by)) if by else entry

    # -------------------------------------------------------------------------------- performed steps and notifications

    def _create(self, event: evt.Event, calling_ae: str) -> Dataset:
        """Create what a request names; the performer gives the UID where it names none (PS3.7 10.1.5.1.4)."""
        named = event.request.AffectedSOPInstanceUID
        take = self._notice if event.request.AffectedSOPClassUID == ian.SOP_CLASS else self._begin
        uid = take(str(named) if named else "", event.attribute_list, calling_ae)
        answer = Dataset()
        if not named:
            answer.AffectedSOPInstanceUID = uid
        return answer

    def _begin(self, named: str, attributes: Dataset, calling_ae: str) -> str:
        # The same step gets the same UID, so that a retry is a duplicate.
        identifiers = (str(attributes.get(keyword, "")) for keyword in ("PerformedProcedureStepID", "PerformedProcedureStepStartDate"))
        uid = named or derived_uid("performed step", calling_ae, *identifiers, attributes.get("PerformedProcedureStepStartTime", ""))
        step = mpps.begun(uid, attributes)
        if not self._store.steps.begin(step, calling_ae, now=self._clock()):
            raise Refused("this step was created already", status=DUPLICATE)
        _log.info("worklist.step_begun", step=uid, studies=step.study_instance_uids, calling_ae=calling_ae)
        return uid

    def _notice(self, named: str, attributes: Dataset, calling_ae: str) -> str:
        now = self._clock()
        uid = named or derived_uid("notification", calling_ae, now, attributes.get("StudyInstanceUID", ""))
        said = ian.noticed(uid, attributes)
        is_new = self._store.notices.record(said, calling_ae, now=now)
        self._fetch(said, calling_ae)  # of a duplicate too: the node may have died before it asked
        if not is_new:
            raise Refused("this notification was created already", status=DUPLICATE)
        _log.info("worklist.noticed", study=said.study_instance_uid, instances=len(said.instances), calling_ae=calling_ae)
        return uid

    def _fetch(self, said: Notification, calling_ae: str) -> None:
        if self._wanted is None or not any(remote.fetch_notified for remote in self._config.remotes.values()):
            return
        absent = self._store.notices.absent(said.study_instance_uid, [one.sop_instance_uid for one in said.instances])
        for name, number in ian.sources(said, absent, self._config.remotes).items():
            self._wanted(name, said.study_instance_uid, f"{calling_ae} notifies that {name} has {number} instances that are not here")

    def _set(self, event: evt.Event, calling_ae: str) -> Dataset:
        uid, attributes = str(event.request.RequestedSOPInstanceUID), event.modification_list
        step = self._store.steps.change(uid, lambda found: mpps.changed(found, attributes), calling_ae, now=self._clock())
        if step is None:
            raise Refused("no such step", status=NO_SUCH_INSTANCE)
        _log.info("worklist.step_changed", step=uid, state=step.state, instances=len(step.expected), calling_ae=calling_ae)
        return Dataset()
