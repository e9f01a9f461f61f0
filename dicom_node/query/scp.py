"""The Query/Retrieve SCP (PS3.4 Annex C): C-FIND, C-MOVE and C-GET of the Patient Root and Study Root information models.

pynetdicom negotiates; the requests are taken before it serves them, because it would decode every object that it sends. Objects go out as they lie
on disk; one whose transfer syntax the peer does not accept is decoded only where that changes no value of it, and fails with its reason else.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE

from dicom_node.config import NodeConfig, Remote
from dicom_node.domain import AE, NodeError, PeerUnavailable, Unsuitable, fault
from dicom_node.guard import credentials
from dicom_node.query import identifier
from dicom_node.query.conversion import Ready, ready
from dicom_node.query.identifier import PATIENT_ROOT, STUDY_ROOT, Encoding, Query, Refusal
from dicom_node.query.replies import Replies
from dicom_node.query.suboperations import CANCELLED, PENDING, SUCCESS, Held, Outcome, Share, Tally, choose, not_accepted, shares
from dicom_node.store import Event, Level, Store
from dicom_node.wire import Broken, MoveOriginator, Service, StoredFile, StoreSender, WokenDUL, peer

_MODELS: Mapping[str, tuple[type[Any], int, tuple[Level, ...]]] = {  # SOP class -> request, Command Field of its responses, levels (PS3.4 C.6)
    "1.2.840.10008.5.1.4.1.2.1.1": (C_FIND, 0x8020, PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.1": (C_FIND, 0x8020, STUDY_ROOT),
    "1.2.840.10008.5.1.4.1.2.1.2": (C_MOVE, 0x8021, PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.2": (C_MOVE, 0x8021, STUDY_ROOT),
    "1.2.840.10008.5.1.4.1.2.1.3": (C_GET, 0x8010, PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.3": (C_GET, 0x8010, STUDY_ROOT),
}
_NOT_AUTHORISED, _UNKNOWN_DESTINATION, _UNABLE = 0x0124, 0xA801, 0xC001
_UNSUPPORTED_KEYS = 0xFF01
_LOST_AT_MOST = 3  # associations that the destination of one C-MOVE ends, before what is left fails
_NO_ANSWER = "no answer: the association ended"
_LOOK_EVERY_S = 0.2  # while a place is waited for
_MESSAGES = 0xFFFF  # a Message ID has two bytes

_log = structlog.get_logger()


class Holdings(Protocol):
    """What the node holds, as it is asked for."""

    def find(self, level: str, keys: Mapping[str, str], limit: int | None = None) -> Iterator[Mapping[str, Any]]:
        """Give of each match the value of every key that was asked for and is supported."""

    def files(self, level: str, keys: Mapping[str, str]) -> tuple[Held, ...]:
        """Return the instances of what matches, each with its UIDs and its place in the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One request, and who made it."""

    replies: Replies
    encoding: Encoding
    levels: tuple[Level, ...]
    identifier: bytes
    calling_ae: str
    relational: bool
    destination: str = ""


def services(config: NodeConfig, store: Store, holdings: Holdings, clock: Callable[[], float]) -> tuple[Service, ...]:
    """Return what the node answers to those who may query, and to those who may move.

    Raises
    ------
    ConfigError: a certificate or a passcode that a destination is called with cannot be read.
    """
    places = {}
    for remote in config.remotes.values():
        if "receive" in remote.may:
            credentials(config.node, remote)
            places[remote.ae] = threading.BoundedSemaphore(remote.associations)
    room = _Room(config=config, store=store, holdings=holdings, clock=clock, places=places)
    handlers = ((evt.EVT_SOP_EXTENDED, _agree),)
    return (Service(abstract_syntaxes=tuple(_MODELS), handlers=handlers, prepare=room.prepare),)


def _agree(event: evt.Event) -> dict[str, bytes]:
    """Agree to relational queries and retrievals where they are proposed, and to nothing else (PS3.4 C.5)."""
    return {uid: said[:1] + bytes(len(said) - 1) for uid, said in event.app_info.items() if uid in _MODELS and said}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    config: NodeConfig
    store: Store
    holdings: Holdings
    clock: Callable[[], float]
    places: Mapping[AE, threading.BoundedSemaphore]  # of each destination, as many as it lets the node associate at once

    def prepare(self, association: Association) -> None:
        """Take an association's Query/Retrieve requests before pynetdicom serves them."""
        association._serve_request = partial(self._serve, association, association._serve_request)

    def _serve(self, association: Association, otherwise: Callable[[Any, int], None], message: Any, context_id: int) -> None:
        """Serve a request in the association's own thread; what is not ours is pynetdicom's."""
        context = association._accepted_cx.get(context_id)
        model = _MODELS.get(str(context.abstract_syntax)) if context is not None else None
        if context is None or model is None or not isinstance(message, model[0]) or not message.is_valid_request or association._sent_release:
            otherwise(message, context_id)
            return
        association.dimse.cancel_req = {}  # of requests before this one
        association._is_paused = True  # this thread is the reactor: who sends a sub-operation need not wait for it
        try:
            self._answer(self._asked(association, message, context, model))
        except Broken:
            association.abort()
        finally:
            association._is_paused = False
            association.dimse.cancel_req = {}

    def _asked(self, association: Association, message: Any, context: Any, model: tuple[type[Any], int, tuple[Level, ...]]) -> _Asked:
        sop_class = str(context.abstract_syntax)
        return _Asked(
            replies=Replies(
                association=association,
                kind=model[1],
                context_id=int(context.context_id),
                sop_class_uid=sop_class,
                message_id=int(message.MessageID),
                timeout_s=self.config.node.network_timeout_s,
            ),
            encoding=Encoding.of(str(context.transfer_syntax[0])),
            levels=model[2],
            identifier=message.Identifier.getvalue() if message.Identifier else b"",
            calling_ae=association.requestor.ae_title.strip(),
            relational=association.requestor.sop_class_extended.get(sop_class, b"")[:1] == b"\x01",
            destination=str(getattr(message, "MoveDestination", None) or "").strip(),
        )

    def _answer(self, asked: _Asked) -> None:
        finds = asked.replies.kind == _MODELS["1.2.840.10008.5.1.4.1.2.2.1"][1]
        try:
            refusal = self._refused(asked, finds) or (self._find(asked) if finds else self._retrieve(asked))
        except Broken:
            raise
        except Exception as error:  # the outermost frame of a request: what this program or its ledger cannot do must not end the association
            _log.error("query.failed", calling_ae=asked.calling_ae, reason=fault(error))
            refusal = Refusal(status=_UNABLE, why=str(error) if isinstance(error, NodeError) else "it could not be carried out")
        if refusal is not None:
            _log.warning("query.refused", calling_ae=asked.calling_ae, status=f"{refusal.status:04X}", why=refusal.why)
            asked.replies.say(refusal.status, comment=refusal.why)

    def _refused(self, asked: _Asked, finds: bool) -> Refusal | None:
        if self.config.may(asked.calling_ae, "query" if finds else "move"):
            return None
        return Refusal(status=_NOT_AUTHORISED, why="this AE may not query" if finds else "this AE may not retrieve")

    # ----------------------------------------------------------------------------------------------------------- C-FIND

    def _find(self, asked: _Asked) -> Refusal | None:
        dataset = identifier.read(asked.identifier, asked.encoding)
        query = dataset if isinstance(dataset, Refusal) else identifier.query(dataset, asked.levels, relational=asked.relational)
        if isinstance(query, Refusal):
            return query
        started, matches, status = self.clock(), 0, SUCCESS
        for found in self.holdings.find(query.level, query.keys):
            if asked.replies.cancelled or asked.replies.gone:
                status = CANCELLED
                break
            data, supported = identifier.response(query, found, self.config.node.ae_title, asked.encoding)
            asked.replies.gather(PENDING if supported else _UNSUPPORTED_KEYS, data)
            matches += 1
        asked.replies.say(status)
        took = round(self.clock() - started, 3)
        _log.info("query.answered", calling_ae=asked.calling_ae, asks_for=query.level, matches=matches, status=f"{status:04X}", seconds=took)
        return None

    # ------------------------------------------------------------------------------------------------- C-MOVE and C-GET

    def _retrieve(self, asked: _Asked) -> Refusal | None:
        moves = asked.replies.kind == _MODELS["1.2.840.10008.5.1.4.1.2.2.2"][1]
        remote = self._destination(asked.destination) if moves else None
        if moves and remote is None:
            return Refusal(status=_UNKNOWN_DESTINATION, why="no remote of this title may receive")
        dataset = identifier.read(asked.identifier, asked.encoding)
        query = dataset if isinstance(dataset, Refusal) else identifier.retrieval(dataset, asked.levels, relational=asked.relational)
        if isinstance(query, Refusal):
            return query
        instances: tuple[Held, ...] = self.holdings.files(query.level, query.keys)
        outcomes = self._moved(asked, remote, instances) if remote is not None else self._got(asked, instances)
        self._carry_out(asked, query, outcomes, instances)
        return None

    def _destination(self, title: str) -> Remote | None:
        return next((remote for remote in self.config.remotes.values() if remote.ae.title == title and "receive" in remote.may), None)

    def _carry_out(self, asked: _Asked, query: Query, outcomes: Iterator[Outcome], instances: tuple[Held, ...]) -> None:
        """Carry the sub-operations out one by one, telling the peer how they stand, until all are done or it cancels."""
        tally, status = Tally(remaining=len(instances)), None
        try:
            with self._repeating(asked, tally):
                for one in outcomes:
                    tally.count(one)
                    if asked.replies.gone:
                        raise Broken("the peer has gone")
                    if tally.remaining and asked.replies.cancelled:
                        status = CANCELLED
                        break
                    if tally.remaining:
                        asked.replies.tell(tally.counters(pending=True))
        finally:
            outcomes.close()  # type: ignore[attr-defined]  # it is a generator: its association is released here
            self._tell(asked, query, tally, instances)
        final = status if status is not None else CANCELLED if tally.remaining else tally.final()
        data = identifier.failed_list((one.of.sop_instance_uid for one in tally.failed), asked.encoding) if tally.failed else b""
        asked.replies.say(final, data, counters=tally.counters(pending=final == CANCELLED))

    def _repeating(self, asked: _Asked, tally: Tally) -> contextlib.AbstractContextManager[None]:
        """Tell the peer how things stand during long sub-operations, but where that could come between the parts of an object."""
        if asked.destination or isinstance(asked.replies.association.dul, WokenDUL):
            return asked.replies.repeating(tally.counters(pending=True))
        return contextlib.nullcontext()

    def _moved(self, asked: _Asked, remote: Remote, instances: tuple[Held, ...]) -> Iterator[Outcome]:
        """Send instances to another application entity, as many associations one after the other as their presentation contexts need.

        While others are being sent to it over as many associations as it allows, these wait; whoever asked may cancel that.
        """
        place = self.places[remote.ae]
        while not place.acquire(timeout=_LOOK_EVERY_S):
            if asked.replies.cancelled or asked.replies.gone:
                return
        try:
            yield from self._shares_sent(asked, remote, instances)
        finally:
            place.release()

    def _shares_sent(self, asked: _Asked, remote: Remote, instances: tuple[Held, ...]) -> Iterator[Outcome]:
        """Send share after share; where the destination ends an association, what is behind that object goes over another one, some times."""
        lost = 0
        for share in shares(instances):
            left = share.instances
            while left:
                done = yield from self._over_one(asked, remote, share, left, lost < _LOST_AT_MOST)
                left, lost = left[done:], lost + (done < len(left))

    def _over_one(self, asked: _Asked, remote: Remote, share: Share, left: tuple[Held, ...], again: bool) -> Generator[Outcome, None, int]:
        """Send instances over one association, until it ends, and return how many were; again: whether others may be left to another one."""
        node, originator = self.config.node, MoveOriginator(ae_title=asked.calling_ae, message_id=asked.replies.message_id)
        try:
            association = peer.associate(
                remote.ae,
                node.ae_title,
                share.contexts,
                timeout_s=remote.timeout_s,
                max_pdu_bytes=node.max_pdu_bytes,
                fast=node.store_path == "fast",
                credentials=credentials(node, remote),
            )
        except PeerUnavailable as error:
            yield from (Outcome(of=one, status=None, why=str(error)) for one in left)
            return len(left)
        try:
            store, accepted = partial(_store, association, remote, originator), peer.accepted(association)
            for number, one in enumerate(left):
                started = time.monotonic()
                outcome = self._sent(one, accepted, store, number)
                again = again and time.monotonic() - started < remote.timeout_s / 2  # who is silent once would be so again
                yield outcome
                if again and outcome.why == _NO_ANSWER:
                    return number + 1
            return len(left)
        finally:
            peer.close(association)

    def _got(self, asked: _Asked, instances: tuple[Held, ...]) -> Iterator[Outcome]:
        """Send instances over the association that asks for them (PS3.4 C.4.3.1)."""
        association = asked.replies.association
        timeout_s = self.config.node.dimse_timeout_s
        sender = StoreSender(association, timeout_s) if isinstance(association.dul, WokenDUL) else None
        accepted = frozenset((str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in association.accepted_contexts if cx.as_scu)
        give = partial(_give, association, sender, timeout_s)
        try:
            yield from (self._sent(one, accepted, give, number) for number, one in enumerate(instances))
        finally:
            if sender is not None:
                sender.give_back()

    def _sent(self, one: Held, accepted: frozenset[peer.Context], send: Callable[[Ready, int], int | None], number: int) -> Outcome:
        """Carry out one sub-operation: in the instance's own transfer syntax or, where the peer does not take that, in one that loses nothing."""
        syntax = choose(one, accepted)
        if syntax is None:
            return Outcome(of=one, status=None, why=not_accepted(one))
        archive = self.store.archive
        if syntax != one.transfer_syntax_uid and archive.free_mb() < self.config.node.disk_reserve_mb:
            return Outcome(of=one, status=None, why="the disk is below its reserve, so that nothing is decoded")
        try:
            with ready(one, archive.path(one.path), syntax, archive.root) as what:
                status = send(what, number % _MESSAGES + 1)
        except Unsuitable as error:
            return Outcome(of=one, status=None, why=f"it was not accepted as it lies, and {error}")
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
            return Outcome(of=one, status=None, why=f"the file on disk cannot be sent: {why}")
        return _answered(one, status)

    def _tell(self, asked: _Asked, query: Query, tally: Tally, instances: tuple[Held, ...]) -> None:
        """Tell the log, and the journal of each study, what was retrieved by whom, and what failed why."""
        to = asked.destination or asked.calling_ae
        counts = {"completed": tally.completed, "warning": tally.warning, "failed": len(tally.failed), "remaining": tally.remaining}
        _log.info("query.retrieved", calling_ae=asked.calling_ae, to=to, asks_for=query.level, **counts)
        for one in tally.failed[:20]:
            _log.warning("query.not_sent", to=to, study=one.of.study_instance_uid, instance=one.of.sop_instance_uid, why=one.why)
        for study in dict.fromkeys(one.study_instance_uid for one in instances):
            failed = {one.of.sop_instance_uid: one.why for one in tally.failed if one.of.study_instance_uid == study}
            why = f"retrieved by {asked.calling_ae}, to {to}" + (f"; {len(failed)} instances failed" if failed else "")
            detail = {"counts": counts, "failed": dict(list(failed.items())[:100])}
            self.store.journal.write(Event(at=self.clock(), study_instance_uid=study, kind="retrieved", who=asked.calling_ae, why=why, detail=detail))


def _store(association: Association, remote: Remote, originator: MoveOriginator, what: Ready, number: int) -> int | None:
    """Send one object to a destination, and return the status of the answer; None: there was none."""
    said = peer.store(association, what.place, what, what.transfer_syntax_uid, message_id=number, timeout_s=remote.timeout_s, originator=originator)
    return None if said is None else said.status


def _give(association: Association, sender: StoreSender | None, timeout_s: float, what: Ready, number: int) -> int | None:
    """Send one object over the association that asked for it, and return the status of the answer; None: there was none."""
    if sender is None:
        _config.STORE_SEND_CHUNKED_DATASET = True  # as it lies in the file, and never as a whole in memory
        try:
            status = association.send_c_store(what.place, msg_id=number)
        except RuntimeError:  # the peer ended the association since the last object
            return None
        return int(status.Status) if "Status" in status else None
    with StoredFile(what.place) as file:
        said = sender.send(file, message_id=number, patience_s=peer.patience_s(file.size, timeout_s))
    return None if said is None else said.status


def _answered(one: Held, status: int | None) -> Outcome:
    outcome = Outcome(of=one, status=status)
    if status == SUCCESS or outcome.warns:
        return outcome
    return Outcome(of=one, status=status, why=_NO_ANSWER if status is None else f"refused with {status:04X}")
