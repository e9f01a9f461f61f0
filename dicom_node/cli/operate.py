"""The verbs that run the node: check, serve, work, web."""

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.cli.page import ConfigOption, JsonOption, StorageOption, log_to_stderr, site_of, table, write
from dicom_node.domain import ConfigError, Refused, Transient

if TYPE_CHECKING:
    from dicom_node.config import Model, Site
    from dicom_node.store import Store
    from dicom_node.work import Worker

_BEHIND = 10  # by how much the web stands behind the process that receives, where they share processors (nice)
UntilOption = Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)]


def serve(
    config: ConfigOption = None,
    storage: StorageOption = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0: any free one.")] = None,
    only_receive: Annotated[bool, typer.Option("--only-receive", hidden=True)] = False,
) -> None:
    """Listen, decide, send; and keep the analysing process, and the receiving ones beside this, running."""
    from dicom_node.serve import Server, asking_archives
    from dicom_node.store import Store

    site = site_of(config, storage, host=host, port=port)
    log_to_stderr(logging.INFO)
    store = Store.of(site.config.node)
    stop = _stop_event()
    if only_receive:
        _receive_until(stop, site, store)
        return
    receive_command = ["serve", "--only-receive", *_options(config, storage), "--host", site.config.node.host]
    server = Server(
        site,
        store,
        work_command=_kept_command("work", config, storage),
        receive_command=receive_command,
        web_command=_kept_command("web", config, storage),
        count=asking_archives(site.config),
    )
    server.start()
    _spare_the_collector()
    if sys.stderr.isatty():
        node = site.config.node
        typer.echo(f"{node.ae_title}@{node.host}:{server.port} serves; results and ledger in {node.storage.resolve()}; stop with Ctrl-C", err=True)
    healthy = True
    while healthy and not stop.wait(1.0):
        healthy = server.healthy
    server.stop()
    store.close()
    raise typer.Exit(0 if healthy else 1)


def _spare_the_collector() -> None:
    """Let the garbage collector pass over what was made until now, some 100 MB that stay: each of its rounds would keep every association waiting."""
    gc.collect()
    gc.freeze()


def _receive_until(stop: threading.Event, site: "Site", store: "Store") -> None:
    """Be one of the processes that receive beside `serve`'s own, until that ends."""
    from dicom_node.serve import receiver

    threading.Thread(target=_wait_for_stdin, args=(stop,), daemon=True).start()
    receiving = receiver(site, store)
    receiving.start()
    _spare_the_collector()
    stop.wait()
    receiving.stop()
    store.close()


def work(config: ConfigOption = None, storage: StorageOption = None, until_stdin_closes: UntilOption = False) -> None:
    """Claim and perform jobs; `serve` starts one of these itself unless work.start is false."""
    from dicom_node.store import Store
    from dicom_node.work import Worker

    site = site_of(config, storage)
    log_to_stderr(logging.INFO)
    store = Store.of(site.config.node)
    worker = Worker(site, store)
    stop = _stop_event()
    if until_stdin_closes:
        threading.Thread(target=_wait_for_stdin, args=(stop,), daemon=True).start()
    threading.Thread(target=_stop_when, args=(stop, worker), daemon=True).start()
    worker.run()
    store.close()


def web(
    config: ConfigOption = None,
    storage: StorageOption = None,
    fetch_ohif: Annotated[bool, typer.Option("--fetch-ohif", help="Fetch the OHIF viewer by npm, by version and hash, and end.")] = False,
    ohif_package: Annotated[Path | None, typer.Option("--ohif-package", help="Take the OHIF viewer from its published file, and end.")] = None,
    until_stdin_closes: UntilOption = False,
) -> None:
    """Answer HTTP: DICOMweb, the dashboard, the viewer; `serve` starts one of these itself unless web.start is false."""
    if fetch_ohif or ohif_package:
        _fetch_ohif(site_of(config, storage), ohif_package)
        return
    from dicom_node.serve.web import context
    from dicom_node.store import Store
    from dicom_node.web import run

    site = site_of(config, storage)
    log_to_stderr(logging.INFO)
    store = Store.of(site.config.node)
    stop = _stop_event()
    if until_stdin_closes:
        os.nice(_BEHIND)
        threading.Thread(target=_wait_for_stdin, args=(stop,), daemon=True).start()
    try:
        ended = run(context(site, store), stop)
    finally:
        store.close()
    raise typer.Exit(0 if ended else 1)


def _fetch_ohif(site: "Site", package: Path | None) -> None:
    from dicom_node.web import ohif

    place = ohif.fetch(site.config.node.storage / "ohif", package=package, say=lambda said: typer.echo(said, err=True))
    typer.echo(f"OHIF is in {place}; the web of this node serves it at {ohif.PREFIX}", err=True)


def check(config: ConfigOption = None, storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Try everything the node needs, and say what is wrong and what to do."""
    log_to_stderr(logging.WARNING)
    site = site_of(config, storage)
    rows = [*_check_storage(site), *_check_port(site), *_check_models(site), *_check_worklist(site), *_check_web(site), *_check_remotes(site)]
    if as_json:
        write([{"what": what, "ok": ok, "says": says, "hint": hint} for what, ok, says, hint in rows])
    else:
        shown = [(what, "ok" if ok else "FAILS", says, hint) for what, ok, says, hint in rows]
        table("checked", ("what", "", "says", "what to do"), shown)
    raise typer.Exit(0 if all(ok for _, ok, _, _ in rows) else 1)


Row = tuple[str, bool, str, str]


def _check_storage(site: "Site") -> list[Row]:
    from dicom_node.store import Store

    node = site.config.node
    try:
        store = Store.of(node)
    except (ConfigError, OSError) as error:
        return [("storage", False, str(error), "Give a folder that this user may write to.")]
    free_mb = store.archive.free_mb()
    store.close()
    enough = free_mb > node.disk_reserve_mb
    says = f"{store.archive.root}: {free_mb} MB free, reserve {node.disk_reserve_mb} MB"
    return [("storage", enough, says, "" if enough else "Free space: below the reserve every C-STORE is answered A700.")]


def _check_port(site: "Site") -> list[Row]:
    node = site.config.node
    what = f"port {node.port}"
    with socket.socket(socket.AF_INET6 if ":" in node.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((node.host, node.port))
        except OSError as error:
            return [(what, False, f"{node.host}:{node.port}: {error.strerror}", "Another program, or this node, listens there already.")]
    return [(what, True, f"{node.host}:{node.port} is free", "")]


def _check_models(site: "Site") -> list[Row]:
    return [_check_model(model, name in site.config.asked) for name, model in site.models.items()]


def _check_model(model: "Model", asked_for: bool) -> Row:
    """Say whether a model has its weights; one that the site has yet to fill may be empty as long as no rule asks for it."""
    missing, what = model.missing_weights, f"model {model.name}"
    if not missing:
        return what, True, f"version {model.manifest.version}, build {model.build[:12]}", ""
    says = f"weights missing: {', '.join(w.file for w in missing)}"
    if all(w.local for w in missing):
        return what, not asked_for, says, "The model's card says how a site makes them."
    return what, False, says, "dicom-node models --fetch"


def _check_worklist(site: "Site") -> list[Row]:
    from dicom_node.worklist import Folder

    place = site.config.worklist.folder
    if place is None:
        return []
    try:
        entries = Folder(place).entries()
    except Refused:
        return [("worklist", False, f"{place} cannot be read", "Correct worklist.folder, or let this user read it.")]
    return [("worklist", True, f"{place}: {len(entries)} {'entry' if len(entries) == 1 else 'entries'}", "")]


def _check_web(site: "Site") -> list[Row]:
    """Try what people and programs need to say who they are; on loopback with nobody known they need nothing."""
    from dicom_node.guard import probe_web
    from dicom_node.store import Store
    from dicom_node.web.access.provider import Provider

    web, rows = site.config.web, []
    if web.tls is not None:
        found = probe_web(web.tls, time.time())
        rows.append((found.what, found.ok, found.says, found.hint))
    if web.oidc is not None:
        try:
            rows.append(("identity provider", True, f"{web.oidc.issuer}: {Provider(web.oidc, time.time).reach()} keys", ""))
        except (ConfigError, Transient) as error:
            rows.append(("identity provider", False, str(error), error.hint))
    elif not web.on_loopback:
        store = Store.of(site.config.node)
        known = store.people.any()
        store.close()
        rows.append(("people", known, "" if known else "nobody could log in", "" if known else "dicom-node people add NAME --role admin"))
    return rows


def _check_remotes(site: "Site") -> list[Row]:
    from dicom_node.guard import probe, probe_node

    node, now = site.config.node, time.time()
    found = [probe_node(node.tls, now)] if node.tls is not None else []
    for name, remote in site.config.remotes.items():
        found += probe(name, remote, node, now)
    return [(one.what, one.ok, one.says, one.hint) for one in found]


def _kept_command(verb: str, config: Path | None, storage: Path | None) -> list[str]:
    return [verb, "--until-stdin-closes", *_options(config, storage)]


def _options(config: Path | None, storage: Path | None) -> list[str]:
    return [*(["--config", str(config)] if config else []), *(["--storage", str(storage)] if storage else [])]


def _stop_event() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _stop_when(stop: threading.Event, worker: "Worker") -> None:
    stop.wait()
    worker.stop()


def _wait_for_stdin(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # past its buffer, whose lock a process that ends would want
        pass
    stop.set()


VERBS = {"check": check, "serve": serve, "work": work, "web": web}
