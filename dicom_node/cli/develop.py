"""The verbs for those who develop and test: try, train, train-images, package, explain, echo, simulate."""

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dicom_node.cli.look import _show_routing
from dicom_node.cli.page import ConfigOption, JsonOption, StorageOption, log_to_stderr, one_study, plain, site_of, table, write
from dicom_node.domain import AE, ConfigError, Rejected, Unsuitable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.config import Model, Site
    from dicom_node.domain import Findings, Progress, Series, Study
    from dicom_node.methods.recognition import Recognised
    from dicom_node.work import Trial


def try_(
    model: Annotated[Path, typer.Argument(help="A model's folder.")],
    folder: Annotated[Path, typer.Argument(help="A folder with the study's DICOM files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where SEG, SR, derived images and the picture are written.")] = Path("out"),
    device: Annotated[str, typer.Option(help="cpu, or cuda:0 and so on.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Run a model on a folder of DICOM files: no server, no ledger; writes SEG, SR and derived images and prints the findings."""
    from dicom_node.config import load_model
    from dicom_node.picture import picture
    from dicom_node.work import try_model

    log_to_stderr(logging.WARNING)
    chosen = load_model(model)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with _progress() as say:
        trial = try_model(chosen, files, out, device=device, say=say)
    seg = next((path for path in trial.objects if path.name.endswith("seg.dcm")), None)
    pictures = [picture(trial.sources, seg, out / "picture.png", _window(trial))] if seg else []
    rows = _measured(trial.model, trial.findings)
    if as_json:
        said = {"chosen": trial.chosen, "findings": rows, "notes": trial.findings.notes, "objects": trial.objects, "pictures": pictures}
        write(plain(said | {"problems": trial.problems, "seconds": trial.seconds}))
    else:
        _show_trial(trial, f"findings of {chosen.name} {chosen.manifest.version}", rows, pictures)
    for problem in trial.problems:
        typer.echo(f"NOT VALID: {problem}", err=True)
    raise typer.Exit(1 if trial.problems else 0)


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Give what shows how far a long step has come."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda done, what: bar.update(task, completed=done, description=what)


def _show_trial(trial: "Trial", title: str, rows: list[dict[str, Any]], pictures: list[Path]) -> None:
    for name, why in trial.chosen.items():
        typer.echo(f"{name}: {why}")
    table(f"{title} (research use; unverified)", ("what", "of", "#value", "unit"), [tuple(row.values()) for row in rows])
    for note in trial.findings.notes:
        typer.echo(f"note: {note}")
    table("written", ("file", "#files"), _together([*trial.objects, *pictures]))
    typer.echo("took " + ", ".join(f"{step} {seconds:.2f} s" for step, seconds in trial.seconds.items()))


def _together(paths: list[Path]) -> list[tuple[str, int]]:
    """Return one row for each file, and one for all images of derived series."""
    rows = []
    for is_derived, some in groupby(paths, key=lambda path: path.name.endswith("-der.dcm")):
        files = list(some)
        rows += [(f"{files[0]} to {files[-1].name}", len(files))] if is_derived and len(files) > 1 else [(str(path), 1) for path in files]
    return rows


def _window(trial: "Trial") -> tuple[float, float] | None:
    """Return the window, center and width, in which the model wants the images of its first input to be seen; None: it names none."""
    manifest = trial.model.manifest
    of_first = [name for name, one in manifest.presentations.items() if manifest.input_of(one) == next(iter(manifest.inputs))]
    shown = [one for name in of_first if (one := trial.findings.presentations.get(name))]
    return next((one.window for one in shown if one.window), None)


def _measured(model: "Model", findings: "Findings") -> list[dict[str, Any]]:
    """Return what was measured and answered as rows: of the whole first, then segment by segment.

    model: its manifest as it reads for these findings.
    """
    manifest = model.manifest
    labels = {segment.number: segment.label for segment in manifest.segments}
    numbered = []
    for name, said in manifest.measurements.items():
        value = findings.measurements[name]
        values = value if isinstance(value, Mapping) else {next(iter(said.on), 0): value}
        for number, one in values.items():
            of = ", ".join(filter(None, (labels.get(number), said.site.meaning if said.site else None)))
            what = said.concept.meaning + (f" ({said.derivation.meaning})" if said.derivation else "")
            row = {"what": what, "of": of, "value": None if one is None else round(one, said.digits or None), "unit": said.unit.value}
            numbered.append((number, row))
    rows: list[dict[str, Any]] = [row for _, row in sorted(numbered, key=lambda pair: pair[0])]
    for name, answer in findings.evaluations.items():
        asked = manifest.evaluations[name]
        of = asked.site.meaning if asked.site else ""
        rows.append({"what": asked.concept.meaning, "of": of, "value": asked.answers[answer].meaning, "unit": ""})
    return rows


def train(
    table_: Annotated[Path, typer.Argument(metavar="TABLE", help="Features of regions: what `dicom-node export --model radiomics` wrote.")],
    labels: Annotated[Path, typer.Option(help="A table: `label`, columns that name regions as TABLE does, `patient` if one has several studies.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's folder, to be made; its name is the model's.")],
    kind: Annotated[Literal["logistic", "bayes", "network"], typer.Option(help="The classifier.")] = "logistic",
    positive: Annotated[str, typer.Option(help="The label whose probability is given; none: the last in alphabetical order.")] = "",
    version: Annotated[str, typer.Option(help="The version that results name.")] = "1.0.0",
    as_json: JsonOption = False,
) -> None:
    """Train a classifier on a table of features and labels, judge it on patients it has not seen, and write it as a model's folder."""
    from dicom_node.config import bundled, load_model
    from dicom_node.export import read_table
    from dicom_node.learn.folder import write_model
    from dicom_node.learn.samples import samples_of
    from dicom_node.learn.trained import learn

    manifests = {name: load_model(bundled("models") / name.replace("-", "_")).manifest for name in ("radiomics", "radiomics-mr")}
    trained = learn(kind, samples_of(read_table(table_), read_table(labels), manifests, positive=positive))
    command = f"dicom-node train {table_.name} --labels {labels.name} --kind {kind}"
    write_model(out, out.name.replace("_", "-"), trained, manifests, version=version, command=command)
    if as_json:
        samples = {"unlabelled": trained.samples.unlabelled, "trained_on": trained.trained_on, "tested_on": trained.tested_on}
        write(samples | {"folder": str(out), "positive": trained.samples.positive, "figures": trained.figures})
        return
    where = f"{trained.tested_on[0]} regions of {trained.tested_on[1]} patients that it has not seen"
    table(f"{out.name} on {where}", ("figure", "#value"), [(name.replace("_", " "), f"{value:.3f}") for name, value in trained.figures.items()])
    typer.echo(f"trained on {trained.trained_on[0]} regions of {trained.trained_on[1]} patients; written to {out}")


def package(
    description: Annotated[Path, typer.Argument(help="What the network is told of itself, and what its labels mean: a TOML file.")],
    network: Annotated[Path, typer.Argument(help="Its weights: a state dictionary that torch saved.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's folder that is written.")],
) -> None:
    """Make a model's folder of an image classifier that was taught elsewhere, and say how a site names it."""
    from dicom_node.learn.network import description_of
    from dicom_node.learn.network import package as made_of

    _tell(made_of(description_of(description), network, out))


def train_images(
    description: Annotated[Path, typer.Argument(help="What the network is told of itself, and what its labels mean: a TOML file.")],
    cases: Annotated[Path, typer.Argument(help="A CSV table: folder, patient, and for each label a column of yes and no.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's folder that is written.")],
    steps: Annotated[int, typer.Option(min=1, help="How often the network sees eight cases.")] = 1000,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 0.003,
    device: Annotated[str, typer.Option(help="cpu, or cuda:0 and so on.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train an image classifier on folders of DICOM files, judge it on patients it has not met, and write it as a model's folder."""
    from dicom_node.work.cases import teach_on

    log_to_stderr(logging.WARNING)
    with _progress() as say:
        model, figures = teach_on(description, cases, out, steps=steps, rate=rate, device=device, say=say)
    if as_json:
        write({"folder": str(out), "name": model.name, "build": model.build, "figures": figures})
        return
    shown = [(label, figure, f"{value:.3f}") for label, each in figures.items() for figure, value in each.items()]
    table(f"{model.name} on patients that were kept back", ("label", "figure", "#value"), shown)
    _tell(model)


def _tell(model: "Model") -> None:
    typer.echo(f"{model.folder} holds {model.name} {model.manifest.version}, build {model.build[:12]}: {model.manifest.task}")
    typer.echo(f'To use it: [models.{model.name}] folder = "{model.folder}" in the configuration, and a rule that asks for it.')


def explain(
    what: Annotated[str, typer.Argument(help="A study's UID or the end of it, or a folder of DICOM files.")],
    config: ConfigOption = None,
    storage: StorageOption = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Recognise by a few images of each series, too, not by headers alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say for a study, or a folder, what each series is recognised as, which rules match, what would run, and for every no the reason."""
    from dicom_node.serve import ask_rules

    site = site_of(config, storage)
    study, files = _found(site, what, with_files=pixels)
    routing = ask_rules(site, study, time.time())
    shown = _recognised(study, files)
    if as_json:
        write({"study_instance_uid": study.study_instance_uid, "why": routing.why, **routing.as_detail(), **shown})
        return
    held = [(s.series_instance_uid[-12:], s.header.get("SeriesNumber", ""), s.header.get("Modality", ""), len(s.instances)) for s in study.series]
    table(f"study {study.study_instance_uid}", ("series", "#number", "modality", "#instances"), held)
    rows = [(uid[-12:], facet, sentence) for uid, facets in shown["recognised"].items() for facet, sentence in facets.items()]
    table("what each series is recognised as", ("series", "facet", "answer and evidence"), rows, empty="nothing")
    for uid, said in shown["warnings"].items():
        typer.echo(f"warning: series {uid[-12:]}: {'; '.join(said)}")
    _show_routing(routing.as_detail()["rules"], "how the rules answer")
    typer.echo(routing.why)


def _found(site: "Site", what: str, *, with_files: bool) -> tuple["Study", dict[str, list[Path]]]:
    """Return a study in a folder or on the node, with all that rules and recognising ask for; and where the files of its series are, if asked."""
    from dicom_node.domain import RECOGNITION_KEYWORDS
    from dicom_node.receive import study_of
    from dicom_node.serve import with_keywords
    from dicom_node.store import Store

    keywords = site.keywords.union(RECOGNITION_KEYWORDS)
    if Path(what).is_dir():
        study = study_of([path for path in sorted(Path(what).rglob("*")) if path.is_file()], keywords)
        files = {series.series_instance_uid: [Path(one.path) for one in series.instances] for series in study.series}
        return study, files if with_files else {}
    store = Store.of(site.config.node)
    try:
        found = store.studies.view(one_study(store.studies.find(what), what))
        if found is None:
            raise Rejected(f"the study {what} is gone", hint="Send it again.")
        study = with_keywords(found, store, keywords)
        return study, {series.series_instance_uid: store.instances.bring(series.instances) for series in study.series if with_files}
    finally:
        store.close()


def _recognised(study: "Study", files: dict[str, list[Path]]) -> dict[str, dict[str, Any]]:
    """Return what each series is recognised as and what is to be warned of: by its headers, and by its pixels where files are given."""
    from dicom_node.assemble.recognition import recognised, warnings

    found = {}
    for series in study.series:
        uid = series.series_instance_uid
        found[uid] = recognised(series) if uid not in files else _looked(series, files[uid])
    warned = {uid: warnings(one) for uid, one in found.items()}
    return {"recognised": {uid: one.as_detail() for uid, one in found.items()}, "warnings": {uid: list(said) for uid, said in warned.items() if said}}


def _looked(series: "Series", files: list[Path]) -> "Recognised":
    from dicom_node.assemble.looking import look
    from dicom_node.assemble.recognition import recognised

    try:
        return look(series, files)
    except Unsuitable as error:
        typer.echo(f"series {series.series_instance_uid[-12:]}: {error}", err=True)
        return recognised(series)


def echo(
    remote: Annotated[str, typer.Argument(help="A remote's name, or TITLE@host:port.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send C-ECHO to a remote, and say what is wrong when it does not answer."""
    from dicom_node.guard import credentials
    from dicom_node.wire import Credentials, peer

    log_to_stderr(logging.WARNING)
    site = site_of(config, None)
    known = site.config.remotes.get(remote)
    try:
        ae = known.ae if known else AE.parse(remote)
    except ValueError as error:
        raise ConfigError(
            f"'{remote}' is neither a remote's name nor an address: {error}", hint=f"Remotes: {', '.join(site.config.remotes) or 'none'}."
        ) from error
    node = site.config.node
    seconds = peer.echo(ae, node.ae_title, timeout_s=10.0, credentials=credentials(node, known) if known else Credentials())
    if as_json:
        write({"ae": str(ae), "seconds": seconds})
    else:
        typer.echo(f"{ae} answered in {seconds * 1000:.0f} ms")


def simulate(
    what: Annotated[Literal["scanner", "pacs"], typer.Argument(help="scanner: send a sample study; pacs: receive and keep.")],
    to: Annotated[str, typer.Option(help="scanner: where to, TITLE@host:port.")] = "DICOM_NODE@127.0.0.1:11112",
    study: Annotated[Literal["chest-ct", "head-mr"], typer.Option(help="scanner: which sample study.")] = "chest-ct",
    run: Annotated[str, typer.Option(help="scanner: a new name makes a new study; the same name sends the same one again.")] = "1",
    ae: Annotated[str, typer.Option(help="The AE title that it has.")] = "",
    port: Annotated[int, typer.Option(help="pacs: the port it listens on.")] = 11113,
    folder: Annotated[Path, typer.Option(help="pacs: where it keeps what it received.")] = Path("simulated-pacs"),
) -> None:
    """Be a scanner that sends a sample study, or a PACS that receives."""
    log_to_stderr(logging.WARNING)
    if what == "scanner":
        _scan(_address(to), study, run, ae or "SCANNER")
    else:
        _keep(folder, ae or "PACS", port)


def _address(text: str) -> AE:
    try:
        return AE.parse(text)
    except ValueError as error:
        raise ConfigError(f"--to: {error}", hint="Write it like DICOM_NODE@127.0.0.1:11112.") from error


def _scan(to: AE, study: str, run: str, title: str) -> None:
    from dicom_node.simulate.samples import sample_files
    from dicom_node.simulate.scanner import push

    files = sample_files(study, run=run, say=lambda said: typer.echo(said, err=True))
    pushed = push(files, to, calling_ae=title)
    typer.echo(f"sent {pushed.sent} of {len(files)} instances to {to} in {pushed.seconds:.1f} s")
    raise typer.Exit(0 if pushed.sent == len(files) else 1)


def _keep(folder: Path, title: str, port: int) -> None:
    from dicom_node.simulate.pacs import Pacs

    with Pacs(folder, ae_title=title, port=port) as pacs:
        typer.echo(f"{pacs.ae} receives into {folder}; stop with Ctrl-C")
        count = -1
        while True:
            held = len(pacs.instances())
            if held != count:
                typer.echo(f"{held} instances")
                count = held
            time.sleep(1.0)


VERBS = {
    "try": try_,
    "train": train,
    "train-images": train_images,
    "package": package,
    "explain": explain,
    "echo": echo,
    "simulate": simulate,
}
