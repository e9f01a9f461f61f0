"""The rooms joined as values: what the node answers on its port, and what asks, takes and fetches for whom."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from dicom_node.assemble.selection import Selection, select
from dicom_node.config import Input, Model, NodeConfig, Site
from dicom_node.deliver import Reports
from dicom_node.domain import Job, Refused, RetrievalState, Series, Study
from dicom_node.guard import credentials
from dicom_node.query import Answer, count, find
from dicom_node.query import services as query_services
from dicom_node.query.counting import Ask
from dicom_node.query.retrieving import Take
from dicom_node.query.seeking import Seeking, Suits
from dicom_node.receive import Door, Promises, Receiver
from dicom_node.store import Store
from dicom_node.wire import Service
from dicom_node.worklist import Hearing, Manager, WorkitemService, Worklist

log = structlog.get_logger()


def receiver(site: Site, store: Store, clock: Callable[[], float] = time.time) -> Receiver:
    """Build what listens, with every room's services: here, and in the processes that receive beside this one."""
    return Receiver(site.config, store, clock=clock, services=services(site, store, clock))


def services(site: Site, store: Store, clock: Callable[[], float]) -> tuple[Service, ...]:
    """Return what the node answers beside C-STORE and C-ECHO."""
    return (
        *Reports(site.config, store, clock).services(),
        *Promises(site.config, store, clock).services(),
        *Worklist(site.config, store, clock, wanted=partial(_wanted, store, clock)).services(),
        *Hearing(site.config, store, clock).services(),
        *WorkitemService(site.config, managing(site, store, clock)).services(),
        *query_services(site.config, store, store.holdings, clock),
    )


def managing(site: Site, store: Store, clock: Callable[[], float]) -> Manager:
    """Return what manages the node's workitems, whoever asks by whatever transport."""
    return Manager(site.config, site.models, store, clock)


def _wanted(store: Store, clock: Callable[[], float], remote: str, study_instance_uid: str, why: str) -> None:
    """Ask for a study of a remote, for its own sake."""
    store.retrievals.ask(remote, study_instance_uid, who="node", why=why, now=clock())


def asking_archives(site_config: NodeConfig) -> Ask:
    """Return what asks a remote how many instances of a study it has (C-FIND)."""

    def counted(name: str, study_instance_uid: str) -> int | None:
        remote = site_config.remotes[name]
        return count(remote, site_config.node, study_instance_uid, credentials=credentials(site_config.node, remote))

    return counted


def without_ours(count: Ask, store: Store) -> Ask:
    """Return a count that leaves out what the node itself sent there."""

    def counted(remote: str, study_instance_uid: str) -> int | None:
        there = count(remote, study_instance_uid)
        return None if there is None else there - store.deliveries.there(study_instance_uid, remote)

    return counted


def taking(site_config: NodeConfig, store: Store, clock: Callable[[], float]) -> Take:
    """Return what makes objects durable that archives send over an association that the node asked for (C-GET): the same door as for C-STORE."""
    door = Door(store, site_config.node)

    def take(data_set: memoryview, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling_ae: str) -> tuple[int, str]:
        said = {"sop_class_uid": sop_class_uid, "sop_instance_uid": sop_instance_uid, "transfer_syntax_uid": transfer_syntax_uid}
        try:
            door.take(data_set, **said, calling_ae=calling_ae, received_at=clock())
        except Refused as refusal:
            log.warning("receive.refused", calling_ae=calling_ae, status=f"{refusal.status:04X}", reason=str(refusal), hint=refusal.hint)
            return refusal.status, str(refusal)
        return 0x0000, ""

    return take


def seeking(site: Site, store: Store, clock: Callable[[], float]) -> Seeking:
    """Return what finds the earlier studies that jobs wait for."""
    config = site.config

    def find_there(name: str, level: str, keys: Mapping[str, str]) -> tuple[Answer, ...]:
        remote = config.remotes[name]
        return find(remote, config.node, level, keys, credentials=credentials(config.node, remote))

    def fetch(job: Job, name: str, study_instance_uid: str) -> None:
        why = f"an earlier study for {job.model} of job {job.id}"
        of = job.study_instance_uid
        store.retrievals.ask(name, study_instance_uid, who="node", why=why, now=clock(), wanted_for=of, deadline=job.not_before)

    def fate(job: Job, study_instance_uid: str) -> str | None:
        wishes = store.retrievals.wanted_for(job.study_instance_uid)
        one = next((one for one in wishes if one.study_instance_uid == study_instance_uid), None)
        if one is None:
            return "its retrieval is not on record"
        if not one.state.has_ended:
            return None
        return "" if one.state is RetrievalState.COMPLETED else one.reason

    return Seeking(store, clock, find=find_there, fetch=fetch, fate=fate, suits=suiting(site.models, select))


def suiting(models: Mapping[str, Model], choose: Callable[[Sequence[Series], Input], Selection]) -> Suits:
    """Return what says which series of an earlier study a job's model takes, by the name of its input."""

    def suits(job: Job, study: Study) -> dict[str, tuple[int, ...]]:
        manifest = models[job.model].manifest
        taken = {name: choose(study.series, manifest.inputs[name]).series for name in manifest.priors}
        return {name: tuple(one.id for one in series.instances) for name, series in taken.items() if series is not None}

    return suits
