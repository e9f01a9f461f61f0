"""The verbs that look: status, studies, jobs, deliveries, retrievals, show, models, export."""

import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.cli.inline import show_inline
from dicom_node.cli.page import (
    ConfigOption,
    JsonOption,
    LimitOption,
    StorageOption,
    ago,
    is_job,
    moment,
    one_study,
    plain,
    site_of,
    step,
    table,
    write,
)
from dicom_node.domain import DeliveryState, Job, JobState, RetrievalState
from dicom_node.domain.words import answers, counted, says, state_of, took

if TYPE_CHECKING:
    from dicom_node.store import Store


def status(config: ConfigOption = None, storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Show how the node is doing: what waits, what is stuck, who works, who is reached."""
    from dicom_node.store.telling import status as told

    site = site_of(config, storage)
    store = _store(site)
    now = time.time()
    facts = told(store, site.config, now)
    store.close()
    if as_json:
        write(facts)
    else:
        _show_status(facts, now)


def _show_status(facts: Mapping[str, Any], now: float) -> None:
    rows = [("studies", counted(facts["studies"])), ("jobs", counted(facts["jobs"]))]
    rows += [(f"deliveries to {name}", counted(states)) for name, states in facts["deliveries"].items()]
    rows += [(f"retrievals from {name}", counted(states)) for name, states in facts["retrievals"].items()]
    rows += [("quarantine", facts["quarantined"]), ("disk", f"{facts['free_mb']} MB free, reserve {facts['reserve_mb']} MB")]
    table("status", ("what", "how many"), rows)
    workers = [(one["name"], "alive" if one["alive"] else "silent", ago(one["seen_at"], now), ", ".join(one["models"])) for one in facts["workers"]]
    table("workers", ("worker", "", "seen", "models"), workers, empty="none: `dicom-node serve` starts one")
    doing = [
        (one["name"], "waits until " + moment(one["not_before"]) if one["failures"] else "ok", ago(one["succeeded_at"], now), one["reason"])
        for one in facts["destinations"]
    ]
    if doing:
        table("destinations", ("destination", "", "last success", "last problem"), doing)
    if facts["stuck"]:
        table("stuck", ("what", "since", "why"), [(one["what"], ago(one["since"], now), one["why"]) for one in facts["stuck"]])


def studies(config: ConfigOption = None, storage: StorageOption = None, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List studies, most recent first."""
    store = _store(site_of(config, storage))
    rows = store.studies.list(limit=limit)
    store.close()
    if as_json:
        write(rows)
        return
    shown = [
        (
            r["study_instance_uid"],
            r["state"],
            r["revision"],
            r["series"],
            r["instances"],
            moment(r["last_received_at"]),
            counted(r["jobs"]),
            counted(r["deliveries"]),
        )
        for r in rows
    ]
    table("studies", ("study", "state", "#rev.", "#series", "#instances", "last received", "jobs", "deliveries"), shown)


def jobs(
    config: ConfigOption = None,
    storage: StorageOption = None,
    limit: LimitOption = 50,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    store = _store(site_of(config, storage))
    found = store.jobs.list(limit=limit, state=state)
    store.close()
    if as_json:
        write([plain(job) for job in found])
        return
    shown = [(j.id, j.model, state_of(j), j.priority.name, j.attempts, moment(j.created_at), took(j), says(j)) for j in found]
    table("jobs", ("#job", "model", "state", "priority", "#attempts", "created", "#took", "says"), shown)


def deliveries(
    config: ConfigOption = None,
    storage: StorageOption = None,
    limit: LimitOption = 50,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    destination: Annotated[str, typer.Option(help="Only those to this remote.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List deliveries, newest first."""
    store = _store(site_of(config, storage))
    found = store.deliveries.list(limit=limit, state=state, name=destination)
    store.close()
    if as_json:
        write([plain(one) for one in found])
        return
    shown = [
        (d.id, d.result.job_id, d.result.kind, d.destination, d.state, d.attempts, moment(d.sent_at), _status(d.status), d.reason) for d in found
    ]
    table("deliveries", ("#delivery", "#job", "kind", "to", "state", "#attempts", "sent", "status", "says"), shown)


def retrievals(
    config: ConfigOption = None,
    storage: StorageOption = None,
    limit: LimitOption = 50,
    state: Annotated[RetrievalState | None, typer.Option(help="Only those in this state.")] = None,
    remote: Annotated[str, typer.Option(help="Only those from this remote.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List what was to be fetched from archives, newest first."""
    store = _store(site_of(config, storage))
    found = store.retrievals.list(limit=limit, state=state, remote=remote)
    store.close()
    if as_json:
        write([plain(one) for one in found])
        return
    shown = [
        (r.id, r.remote, r.study_instance_uid, r.state, f"{r.held}/{'?' if r.expected is None else r.expected}", r.attempts, r.who, r.reason)
        for r in found
    ]
    table("retrievals", ("#retrieval", "from", "study", "state", "#here", "#attempts", "who", "says"), shown)


def show(
    what: Annotated[str, typer.Argument(help="A study's UID or the end of it, a job's number, or 'quarantine'.")],
    config: ConfigOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a study's walk, step by step with times and reasons; or a job; or what is in quarantine."""
    store = _store(site_of(config, storage))
    try:
        if what == "quarantine":
            _show_quarantine(store, as_json)
        elif is_job(store, what):
            _show_job(store, int(what), as_json)
        else:
            _show_study(store, one_study(store.studies.find(what), what), as_json)
    finally:
        store.close()


def _show_quarantine(store: "Store", as_json: bool) -> None:
    rows = store.instances.quarantined()
    if as_json:
        write(rows)
    else:
        table("quarantine", ("#", "at", "from", "reason", "file"), [(r["id"], moment(r["at"]), r["source"], r["reason"], r["path"]) for r in rows])


def _show_job(store: "Store", job_id: int, as_json: bool) -> None:
    from dicom_node.store.telling import job_told

    if as_json:
        write(job_told(store, job_id))
        return
    job = store.jobs.get(job_id)
    results, sent, told = store.jobs.results(job_id), store.deliveries.list(job_id=job_id), store.announcements.list(job_id=job_id)
    said = store.feedback.of_job(job_id)
    table(f"job {job.id}", ("", ""), [fact for fact in _facts(store, job) if fact[1] not in ("", None)])
    if job.picture:
        show_inline(store.archive.path(job.picture))
    table("results", ("kind", "SOP Instance UID", "file", "problem"), [(r.kind, r.sop_instance_uid, r.path, r.problem) for r in results])
    table(
        "deliveries",
        ("#", "kind", "to", "state", "status", "says"),
        [(d.id, d.result.kind, d.destination, d.state, _status(d.status), d.reason) for d in sent],
    )
    if told:
        table("notifications", ("to", "of what is at", "state", "says"), [(one.remote, one.holder, one.state, one.reason) for one in told])
    if said:
        spoken = [(moment(o.at), o.verdict, o.display_name, o.verification or "", o.reason) for o in said]
        table("what readers say", ("at", "verdict", "who", "verified report", "says"), spoken)


def _facts(store: "Store", job: Job) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("model", f"{job.model} {job.model_version}"),
        ("study", job.study_instance_uid),
        ("state", state_of(job)),
        ("priority", job.priority.name),
    ]
    facts += [
        ("why", job.why),
        ("attempts", job.attempts),
        ("progress", f"{job.progress:.0%} {job.note}"),
        ("reason", job.reason),
        ("took", took(job)),
    ]
    facts += [("earlier studies", job.priors.why or job.priors.state)] if job.priors else []
    facts += [("replaces job", job.predecessor_id)] if job.predecessor_id else []
    facts += [("picture", store.archive.path(job.picture))] if job.picture else []
    return facts


def _show_study(store: "Store", uid: str, as_json: bool) -> None:
    from dicom_node.store.telling import study_told

    if as_json:
        write(study_told(store, uid))
        return
    study, events = store.studies.view(uid), store.journal.of_study(uid)
    if study is not None:
        held = [
            (s.header.get("SeriesNumber", ""), s.header.get("Modality", ""), s.header.get("SeriesDescription", ""), len(s.instances))
            for s in study.series
        ]
        table(f"study {uid}", ("#series", "modality", "description", "#instances"), held)
    start = events[0].at if events else 0.0
    table(
        "its walk",
        ("at", "#+s", "step", "#job", "who", "why"),
        [(moment(e.at), f"{e.at - start:.2f}", step(e), e.job_id or "", e.who, e.why) for e in events],
    )
    for event in events:
        if event.kind == "complete" and event.detail and event.detail.get("rules"):
            _show_routing(event.detail["rules"], f"how the rules answered, revision {event.detail.get('revision')}")


def _show_routing(rules: Any, title: str) -> None:
    table(title, ("rule", "series", "answer", "why"), answers(rules), empty="there are no rules")


def models(
    config: ConfigOption = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch the weights that are missing, by package name and hash.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models; with --fetch, fetch the weights they lack."""
    from dicom_node.config import models_told

    site = site_of(config, None)
    if fetch:
        from dicom_node.analyse import fetch_weights

        for model in site.models.values():
            fetch_weights(model, lambda said: typer.echo(said, err=True))
    rows = models_told(site)
    if as_json:
        write(rows)
    else:
        shown = [(r["name"], r["version"], r["build"][:12], r["device"], r["weights"], r["task"]) for r in rows]
        table("models", ("model", "version", "build", "device", "weights", "task"), shown)


def export(
    measurements: Annotated[Path, typer.Option("--measurements", help="The table to write: FILE.parquet or FILE.csv.")],
    study: Annotated[str, typer.Option(help="Only of this study: its UID or the end of it.")] = "",
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Only of jobs that ended since, in this machine's time.")] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Also what others called the regions they drew: free text, it may name somebody.")] = False,
    config: ConfigOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every number of the node's reports into one table, with its codes and units, without the patients' identities."""
    from rich.console import Console

    from dicom_node.export import export_measurements

    site = site_of(config, storage)
    store = _store(site)
    known = {name for name, one in site.models.items() if labels or one.manifest.regions is None}
    which = {"model": model, "since": since.timestamp() if since else 0.0}
    try:
        if study:
            which["study_instance_uid"] = one_study(store.studies.find(study), study)
        with Console(stderr=True).status("reading reports") as status:
            shown = (lambda count: status.update(f"{count} reports read")) if sys.stderr.isatty() else (lambda count: None)
            done = export_measurements(store, measurements, own_labels=known, say=shown, **which)
    finally:
        store.close()
    if as_json:
        write(plain(done))
    else:
        said = f"{done.rows} numbers of {done.reports} reports written to {done.file}"
        typer.echo(said + (f"; {done.replaced} reports that were replaced are left out" if done.replaced else ""))
    for job_id in done.unreadable:
        typer.echo(f"the report of job {job_id} cannot be read", err=True)
    raise typer.Exit(1 if done.unreadable else 0)


def _store(site: Any) -> "Store":
    from dicom_node.store import Store

    return Store.of(site.config.node)


def _status(status: int | None) -> str:
    return "" if status is None else f"{status:04X}"


VERBS = {
    "status": status,
    "studies": studies,
    "jobs": jobs,
    "deliveries": deliveries,
    "retrievals": retrievals,
    "show": show,
    "models": models,
    "export": export,
}
