"""The verbs that act: retry, cancel, send, import, purge."""

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.cli.page import ConfigOption, StorageOption, is_job, log_to_stderr, one_study, person, site_of
from dicom_node.domain import ConfigError, Refused

if TYPE_CHECKING:
    from dicom_node.config import Site
    from dicom_node.store import Store

DeliveryOption = Annotated[bool, typer.Option("--delivery", help="The number is a delivery's, not a job's.")]


def retry(
    what: Annotated[str | None, typer.Argument(help="A job's number, with --delivery a delivery's; or a study's UID or the end of it.")] = None,
    delivery: DeliveryOption = False,
    destination: Annotated[str | None, typer.Option(help="Replay every dead letter to this remote.")] = None,
    config: ConfigOption = None,
    storage: StorageOption = None,
) -> None:
    """Run a job again (a new attempt, whose results name their predecessors), judge a study again by the rules of now, or replay dead letters."""
    from dicom_node.store import Store

    site = site_of(config, storage)
    store = Store.of(site.config.node)
    now = time.time()
    try:
        if what is None and destination is None:
            raise ConfigError("nothing to retry was named", hint="Give a job's number, a study, --delivery N, or --destination NAME.")
        if what is not None and not delivery:
            typer.echo(_run_again(site, store, int(what), now) if is_job(store, what) else _judge_again(store, what, now))
            return
        if what is not None and not what.isdecimal():
            raise ConfigError(f"'{what}' is not a delivery's number", hint="dicom-node deliveries lists them.")
        count = store.deliveries.replay(who=person(), now=now, delivery_id=int(what) if what else None, name=destination)
        for name in [destination] if destination else site.config.remotes:
            store.deliveries.try_now(name)
        typer.echo(f"{count} deliveries are due again")
    finally:
        store.close()


def _run_again(site: "Site", store: "Store", number: int, now: float) -> str:
    from dicom_node.store.repeating import run_again

    made = run_again(store, site, number, who=person(), now=now)
    return f"job {made.id} runs {made.model} {made.model_version} again after job {number}"


def _judge_again(store: "Store", what: str, now: float) -> str:
    uid = one_study(store.studies.find(what), what)
    store.studies.reopen(uid, who=person(), why="a person asked for it to be judged again", now=now)
    return f"study {uid} is judged again by the rules of now"


def cancel(
    number: int,
    delivery: DeliveryOption = False,
    retrieval: Annotated[bool, typer.Option("--retrieval", help="The number is a retrieval's, not a job's.")] = False,
    config: ConfigOption = None,
    storage: StorageOption = None,
) -> None:
    """Cancel a job that waits or runs, a delivery that waits, or a retrieval that waits or runs."""
    from dicom_node.store import Store

    store = Store.of(site_of(config, storage).config.node)
    try:
        if delivery:
            store.deliveries.cancel(number, who=person(), now=time.time())
            typer.echo(f"delivery {number} is canceled")
        elif retrieval:
            store.retrievals.cancel(number, who=person(), now=time.time())
            typer.echo(f"retrieval {number} is canceled")
        else:
            state = store.jobs.cancel(number, who=person(), why="a person canceled it", now=time.time())
            typer.echo(f"job {number} is {state}" if state == "CANCELED" else f"job {number} is asked to stop")
    finally:
        store.close()


def send(job: int, destination: str, config: ConfigOption = None, storage: StorageOption = None) -> None:
    """Send a job's results to one more remote."""
    from dicom_node.store import Store

    site = site_of(config, storage)
    remote = site.config.remotes.get(destination)
    if remote is None or "receive" not in remote.may:
        raise ConfigError(f"'{destination}' is not a remote that may receive", hint='Name it in [remotes] with may = ["receive"].')
    store = Store.of(site.config.node)
    try:
        store.jobs.get(job)
        count = store.deliveries.send(job, destination, who=person(), now=time.time())
        typer.echo(f"{count} results are queued for {destination}")
    finally:
        store.close()


def import_(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")], config: ConfigOption = None, storage: StorageOption = None
) -> None:
    """Take DICOM files in, through the same door as C-STORE."""
    from rich.console import Console
    from rich.progress import track

    from dicom_node.receive import Door, import_file
    from dicom_node.store import Store

    log_to_stderr(logging.WARNING)
    site = site_of(config, storage)
    store = Store.of(site.config.node)
    door = Door(store, site.config.node)
    files = [file for path in paths for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])]
    outcomes: dict[str, int] = {}
    try:
        for file in track(files, description="importing", transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty()):
            try:
                outcome = import_file(door, file, received_at=time.time()).value
            except Refused as error:
                outcome = "refused"
                typer.echo(f"{file.name}: {error}", err=True)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    finally:
        store.close()
    typer.echo(", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()) or "no files")
    raise typer.Exit(1 if outcomes.get("refused") else 0)


def purge(
    study: Annotated[str | None, typer.Argument(help="A study's UID or the end of it.")] = None,
    older_than_days: Annotated[float | None, typer.Option(help="Every finished and delivered study that is older.")] = None,
    config: ConfigOption = None,
    storage: StorageOption = None,
) -> None:
    """Remove studies from the node: their instances, results and rows."""
    from dicom_node.schedule import retire
    from dicom_node.store import Store

    log_to_stderr(logging.WARNING)
    store = Store.of(site_of(config, storage).config.node)
    try:
        if study is not None:
            uid = one_study(store.studies.find(study), study)
            typer.echo(f"{store.studies.purge(uid, who=person(), why='a person asked for it')} files removed")
        elif older_than_days is not None:
            typer.echo(f"{retire(store, older_than_days, time.time())} studies removed")
        else:
            raise ConfigError("nothing to purge was named", hint="Give a study's UID or --older-than-days N.")
    finally:
        store.close()


VERBS = {"retry": retry, "cancel": cancel, "send": send, "import": import_, "purge": purge}
