"""The verb demo: a scanner, this node and a PACS on one machine, two real studies, and a look at what arrives.

The node is a process of its own, started as a site would start it. Everything shown at the end is read from what the PACS received and from the
node's journal, never from the inside of a model.
"""

import contextlib
import html
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.cli.page import log_to_stderr, moment, step, table
from dicom_node.domain import AE, ConfigError, DeliveryState, JobState, PeerUnavailable, Transient

if TYPE_CHECKING:
    from dicom_node.simulate.pacs import Pacs
    from dicom_node.store import Event, Store

STUDIES = {"chest-ct": "chest CT (LIDC-IDRI-0001)", "head-mr": "head T1 MR (OpenNeuro ds000031)"}
_QUIET_S = 1.0
_MARK = ".dicom-node-demo"  # a folder that may be cleared


@dataclass(slots=True)
class Walk:
    """One study on its way."""

    name: str
    files: tuple[Path, ...]
    study_instance_uid: str
    events: tuple["Event", ...] = ()
    delivered: tuple[Path, ...] = ()
    pictures: tuple[Path, ...] = ()
    findings: tuple[Any, ...] = ()
    faults: list[str] = field(default_factory=list)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder for everything the demonstration makes.")] = Path("demo-out"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the node serving afterwards, with its pages to look at.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long it may take, downloads aside.")] = 300.0,
) -> None:
    """Push a real chest CT and a real head MR through the node into a simulated PACS, and show what arrives."""
    from dicom_node.config import load_site
    from dicom_node.simulate.pacs import Pacs
    from dicom_node.store import Store

    log_to_stderr(logging.WARNING)
    _clear(out)
    config = _prepare(out)
    with Pacs(out / "pacs", ae_title="PACS") as pacs:
        config.write_text(_site(config, pacs.ae))
        site = load_site(config)
        node = AE(site.config.node.ae_title, "127.0.0.1", site.config.node.port)
        with _serving(config, out / "node.log", node):
            store = Store.of(site.config.node)
            walks = _push(node, out)
            _follow(store, walks, timeout_s)
            for walk in walks:
                _gather(store, pacs, walk, out)
            _show(walks, out)
            store.close()
            page = _page(walks, out)
            if keep:
                _leave_serving(page, node, config, site.config.web.port)
    faults = [f"{walk.name}: {fault}" for walk in walks for fault in walk.faults]
    for fault in faults:
        typer.echo(f"FAILED  {fault}", err=True)
    raise typer.Exit(1 if faults else 0)


# ------------------------------------------------------------------------------------------------------------ preparation


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise ConfigError(f"{out} holds something that the demonstration did not make", hint="Give another folder with --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()


def _prepare(out: Path) -> Path:
    """Fetch what is published elsewhere: the models' weights and the sample studies, each by hash."""
    from rich.console import Console

    from dicom_node.analyse import fetch_weights
    from dicom_node.config import load_site
    from dicom_node.simulate.samples import sample_files

    with Console().status("looking for weights and sample studies") as status:
        for model in load_site().models.values():
            fetch_weights(model, status.update)
        for name in STUDIES:
            sample_files(name, say=status.update)
    return out / "node.toml"


def _site(config: Path, pacs: AE) -> str:
    """Write the site's configuration: the built-in one, with a scanner that may send and a PACS that receives."""
    from dicom_node.config import bundled

    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, web_port = one.getsockname()[1], other.getsockname()[1]
    rules = (bundled("config") / "default.toml").read_text().split("\n", 1)[1]
    rules = rules.replace("\nanalyse = ", '\ndeliver = ["pacs"]\nanalyse = ')
    node = f'[node]\nport = {port}\nstorage = "{(config.parent / "data").resolve()}"\ncomplete_after_s = {_QUIET_S}\ndisk_reserve_mb = 256\n'
    remotes = f'[remotes]\nscanner = {{ ae = "SCANNER@127.0.0.1:104", may = ["send"] }}\npacs = {{ ae = "{pacs}", may = ["receive"] }}\n'
    return f"# The demonstration's node: made by `dicom-node demo`.\n{node}\n[web]\nport = {web_port}\n\n{remotes}\n{rules}"


@contextlib.contextmanager
def _serving(config: Path, log: Path, node: AE) -> Iterator[None]:
    """Run `dicom-node serve` as a site would, until the block ends."""
    from dicom_node.simulate.scanner import echo

    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "dicom_node", "serve", "--config", str(config)], stderr=file)
    try:
        for _ in range(200):
            with contextlib.suppress(PeerUnavailable):
                echo(node)
                break
            if process.poll() is not None:
                raise Transient(f"the node ended at once with code {process.returncode}", hint=f"Read {log}.")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


# -------------------------------------------------------------------------------------------------------------- the walk


def _push(node: AE, out: Path) -> list[Walk]:
    from pydicom import dcmread
    from rich.progress import Progress

    from dicom_node.simulate.samples import sample_files
    from dicom_node.simulate.scanner import push

    typer.echo(f"The node serves as {node}; the scanner sends two studies.")
    walks = []
    with Progress() as bar:
        for name, title in STUDIES.items():
            files = sample_files(name)
            task = bar.add_task(f"C-STORE {title}", total=len(files))
            pushed = push(files, node, on_progress=lambda done, _of, task=task: bar.update(task, completed=done))  # type: ignore[misc]
            walk = Walk(name=name, files=files, study_instance_uid=str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID))
            if pushed.sent < len(files):
                walk.faults.append(f"{len(files) - pushed.sent} of {len(files)} images were not acknowledged")
            walks.append(walk)
    return walks


def _follow(store: "Store", walks: Sequence[Walk], timeout_s: float) -> None:
    """Show each study's progress until its results are delivered, or nothing more will happen."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.fields[title]}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    deadline = time.monotonic() + timeout_s
    with Progress(*columns) as bar:
        tasks = {walk.name: bar.add_task("received", total=1.0, title=STUDIES[walk.name]) for walk in walks}
        waiting = list(walks)
        while waiting and time.monotonic() < deadline:
            for walk in list(waiting):
                done, says, ended = _state(store, walk.study_instance_uid)
                bar.update(tasks[walk.name], completed=done, description=says)
                if ended:
                    waiting.remove(walk)
            time.sleep(0.1)
    for walk in waiting:
        walk.faults.append(f"not finished after {timeout_s:.0f} s")


def _state(store: "Store", study_instance_uid: str) -> tuple[float, str, bool]:
    """Return how far a study is, in words, and whether nothing more will happen to it."""
    jobs = store.jobs.list(study_instance_uid=study_instance_uid)
    if not jobs:
        completed = any(event.kind == "complete" for event in store.journal.of_study(study_instance_uid))
        return 0.0, "no analysis" if completed else "waiting for the study to be complete", completed
    job = jobs[0]
    if job.state is JobState.CANCELED:
        return 1.0, f"canceled: {job.reason}", True
    if job.state is not JobState.COMPLETED:
        return 0.1 + 0.8 * job.progress, job.note or str(job.state), False
    deliveries = store.deliveries.list(study_instance_uid=study_instance_uid)
    sent = [one for one in deliveries if one.state is DeliveryState.SENT]
    ended = all(one.state in (DeliveryState.SENT, DeliveryState.DEAD) for one in deliveries)
    return 0.9 + 0.1 * len(sent) / max(len(deliveries), 1), f"{len(sent)} of {len(deliveries)} objects delivered", ended


def _gather(store: "Store", pacs: "Pacs", walk: Walk, out: Path) -> None:
    """Collect what the PACS holds of a study, check it once more, and read it as a viewer would."""
    from dicom_node.picture import picture
    from dicom_node.report import check
    from dicom_node.simulate.reading import findings

    walk.events = store.journal.of_study(walk.study_instance_uid)
    kept = [one for one in pacs.instances().values() if one.study_instance_uid == walk.study_instance_uid]
    walk.delivered = tuple(one.path for one in sorted(kept, key=lambda one: one.sop_class_uid))
    by_class = {one.sop_class_uid: one.path for one in kept}
    seg, sr = by_class.get("1.2.840.10008.5.1.4.1.1.66.4"), by_class.get("1.2.840.10008.5.1.4.1.1.88.34")
    for path in walk.delivered:
        walk.faults += [f"{path.name} is not valid: {problem}" for problem in check(path)]
    if seg is None or sr is None:
        walk.faults.append(f"the PACS holds {len(kept)} objects, but not a segmentation and a report")
        return
    walk.findings = tuple(findings(sr))
    walk.pictures = (picture(walk.files, seg, out / f"{walk.name}.png"),)


# --------------------------------------------------------------------------------------------------------------- the end


def _show(walks: Sequence[Walk], out: Path) -> None:
    for walk in walks:
        typer.echo()
        table(f"the walk of the {STUDIES[walk.name]}", ("step", "#at", "outcome"), _steps(walk))
        measured = [(one.site or one.label, one.label, _number(one.value), one.unit) for one in walk.findings]
        table("measured (research use; unverified)", ("where", "what", "#value", "unit"), measured)
    typer.echo()
    files = [(STUDIES[walk.name], path) for walk in walks for path in (*walk.delivered, *walk.pictures)]
    table("delivered objects and pictures", ("study", "file"), files)
    typer.echo(f"everything is in {out.resolve()}; the page is {out.resolve() / 'index.html'}")


def _steps(walk: Walk) -> list[tuple[str, str, str]]:
    start = walk.events[0].at if walk.events else 0.0
    return [(step(event), f"{event.at - start:.2f} s", event.why) for event in walk.events]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _page(walks: Sequence[Walk], out: Path) -> Path:
    """Write the same as one page without scripts, with the pictures."""
    parts = []
    for walk in walks:
        rows = _rows(("step", "at", "outcome"), _steps(walk))
        measured = _rows(
            ("where", "what", "value", "unit"), [(one.site or one.label, one.label, _number(one.value), one.unit) for one in walk.findings]
        )
        pictures = "".join(f'<img src="{html.escape(path.name)}" alt="segmentation over the images">' for path in walk.pictures)
        links = "".join(f'<li><a href="{html.escape(p.relative_to(out).as_posix())}">{html.escape(p.name)}</a></li>' for p in walk.delivered)
        title = html.escape(STUDIES[walk.name])
        parts.append(
            f"<section><h2>{title}</h2>{pictures}<h3>Measured</h3>{measured}<h3>Its walk</h3>{rows}<h3>Delivered</h3><ul>{links}</ul></section>"
        )
    page = out / "index.html"
    page.write_text(_PAGE.replace("{body}", "".join(parts)).replace("{made}", moment(time.time())))
    return page


def _rows(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _leave_serving(page: Path, node: AE, config: Path, web_port: int) -> None:
    typer.echo()
    typer.echo(f"The node goes on serving: look at  http://127.0.0.1:{web_port}/  and at {page.resolve()}")
    typer.echo(f"send to it:            dicom-node simulate scanner --to {node} --run 2")
    typer.echo(f"ask it:                dicom-node status --config {config}")
    typer.echo("stop with Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>dicom-node: what arrived</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; border-radius: .5rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top }
.note { padding: .5rem 1rem; border-left: .3rem solid #d90; background: #d901 }
</style>
<h1>What arrived in the PACS</h1>
<p class="note">Research use only; not for diagnosis. Made by algorithms, verified by nobody. {made}</p>
{body}
<p>Images: LIDC-IDRI-0001, The Cancer Imaging Archive, CC BY 3.0, doi:10.7937/K9/TCIA.2015.LO9QL9SX; OpenNeuro ds000031.</p>
</html>
"""

VERBS: Mapping[str, Any] = {"demo": demo}
