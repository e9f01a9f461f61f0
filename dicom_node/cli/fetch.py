"""The verb that asks an archive what it has, and has the node fetch it."""

import contextlib
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.cli.page import ConfigOption, JsonOption, LimitOption, StorageOption, moment, person, plain, site_of, table, write
from dicom_node.domain import ConfigError, Retrieval, RetrievalState, is_uid

if TYPE_CHECKING:
    from dicom_node.config import Node, NodeConfig, Remote
    from dicom_node.store import Store

_LOOK_EVERY_S = 0.5
_CONNECT_S = 2.0
_ASKED = ("PatientID", "StudyDate", "StudyTime", "ModalitiesInStudy", "StudyDescription", "NumberOfStudyRelatedInstances")


def fetch(
    remote: Annotated[str, typer.Argument(help="The name of a remote with `retrieve`.")],
    study: Annotated[list[str] | None, typer.Option(help="A Study Instance UID; may be given several times.")] = None,
    patient_id: Annotated[str, typer.Option(help="The patient's ID.")] = "",
    issuer: Annotated[str, typer.Option(help="Who issued that ID.")] = "",
    accession: Annotated[str, typer.Option(help="The accession number.")] = "",
    study_date: Annotated[str, typer.Option(help="A day or a span of days: 20240131, 20240101-20240131, 20240101-.")] = "",
    modality: Annotated[str, typer.Option(help="A modality that the study has, such as CT.")] = "",
    get: Annotated[bool, typer.Option("--get", help="Have every study that is listed fetched by the node that serves.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With --get: wait until they are here, and fail if one cannot be had.")] = False,
    config: ConfigOption = None,
    storage: StorageOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List what an archive has, and have it fetched; who the patients are is shown to a person at a terminal alone."""
    from dicom_node.store import Store

    site = site_of(config, storage)
    to = _remote(site.config, remote)
    keys = {"StudyInstanceUID": "\\".join(_uids(study or ())), "PatientID": patient_id, "IssuerOfPatientID": issuer, "AccessionNumber": accession}
    keys |= {"StudyDate": study_date, "ModalitiesInStudy": modality}
    if not any(keys.values()):
        raise ConfigError("nothing was asked for", hint="Give --study, --patient-id, --accession, --study-date or --modality.")
    found = _found(site.config.node, to, keys, limit)
    store = Store.of(site.config.node)
    try:
        rows = [_row(one, store, remote) for one in found]
        asked = [_ask(store, remote, row["study_instance_uid"]) for row in rows] if get else []
        _show(rows, asked, as_json and not wait)
        if asked and not _is_served(site.config.node):
            typer.echo("nobody serves here: they are fetched once `dicom-node serve` runs", err=True)
        ended = _wait(store, asked) if wait else asked
    finally:
        store.close()
    if wait and as_json:
        write([plain(one) for one in ended])
    raise typer.Exit(1 if any(one.state in (RetrievalState.FAILED, RetrievalState.CANCELED) for one in ended) else 0)


def _remote(config: "NodeConfig", name: str) -> "Remote":
    to = config.remotes.get(name)
    if to is None or to.retrieve == "none":
        known = ", ".join(one for one, remote in config.remotes.items() if remote.retrieve != "none") or "none"
        raise ConfigError(f"'{name}' is not a remote that studies are fetched from: {known}", hint='Give it retrieve = "move", "get" or "web".')
    return to


def _uids(texts: Sequence[str]) -> Sequence[str]:
    for text in texts:
        if not is_uid(text):
            raise ConfigError(f"'{text}' is no Study Instance UID", hint="An archive is asked for the whole UID.")
    return texts


def _found(node: "Node", to: "Remote", keys: Mapping[str, str], limit: int) -> Sequence[Mapping[str, Any]]:
    from dicom_node.guard import credentials
    from dicom_node.query import find

    wanted = dict.fromkeys(_ASKED, "") | {keyword: value for keyword, value in keys.items() if value}
    return find(to, node, "STUDY", wanted, credentials=credentials(node, to), limit=limit)


def _row(found: Mapping[str, Any], store: "Store", remote: str) -> dict[str, Any]:
    """Return what is shown of a study; what begins with an underscore to a person alone."""
    uid = str(found["StudyInstanceUID"])
    last = next(iter(store.retrievals.list(remote=remote, study_instance_uid=uid, limit=1)), None)
    said = {keyword: _text(found.get(keyword)) for keyword in _ASKED}
    return {
        "_patient": said["PatientID"],
        "study_instance_uid": uid,
        "study_date": said["StudyDate"],
        "modalities": said["ModalitiesInStudy"],
        "description": said["StudyDescription"],
        "instances": said["NumberOfStudyRelatedInstances"],
        "here": len(store.retrievals.here(uid, results=False)),
        "retrieval": last.state if last is not None else "",
    }


def _text(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _ask(store: "Store", remote: str, uid: str) -> Retrieval:
    return store.retrievals.ask(remote, uid, who=person(), why="a person asked for it", now=time.time(), by_person=True)


def _show(rows: Sequence[Mapping[str, Any]], asked: Sequence[Retrieval], as_json: bool) -> None:
    numbers = {one.study_instance_uid: one.id for one in asked}
    if as_json:
        told = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
        write([row | {"asked": numbers.get(row["study_instance_uid"])} for row in told])
        return
    shows_patients = sys.stdout.isatty()
    columns = [*(["patient"] if shows_patients else []), "study", "date", "modalities", "description", "#instances", "#here", "retrieval"]
    cells = [[*([row["_patient"]] if shows_patients else []), *(value for key, value in row.items() if key != "_patient")] for row in rows]
    for one, row in zip(cells, rows, strict=True):
        number = numbers.get(row["study_instance_uid"])
        one[-1] = f"{number}: asked for" if number else one[-1]
    table("found", columns, cells)


def _is_served(node: "Node") -> bool:
    """Say whether somebody listens where the node would."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(node.host, node.host)  # noqa: S104 - compared, not listened on
    with contextlib.suppress(OSError):
        socket.create_connection((host, node.port), _CONNECT_S).close()
        return True
    return False


def _wait(store: "Store", asked: Sequence[Retrieval]) -> list[Retrieval]:
    """Wait for the end of retrievals, and show how far they are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[says]}"))
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        tasks = {one.id: progress.add_task(f"…{one.study_instance_uid[-12:]}", total=None, says="") for one in asked}
        while True:
            now = [store.retrievals.get(one.id) or one for one in asked]
            for one in now:
                progress.update(tasks[one.id], completed=one.held, total=one.expected, says=_says(one))
            if all(one.state.has_ended for one in now):
                break
            time.sleep(_LOOK_EVERY_S)
    for one in now:
        typer.echo(f"{one.study_instance_uid}: {one.state.lower()}" + (f": {one.reason}" if one.reason else f", {one.held} instances"), err=True)
    return now


def _says(one: Retrieval) -> str:
    if one.state is RetrievalState.WAITING and one.reason:
        return f"again at {moment(one.not_before)}: {one.reason}"
    return one.state.lower()


VERBS = {"fetch": fetch}
