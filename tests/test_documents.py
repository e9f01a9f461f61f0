"""The documents run: what they show loads, what they name exists, what the program can say of itself it has written."""

import re
import shlex
import shutil
import sqlite3
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from dicom_node.cli import app
from dicom_node.config import Condition, Manifest, NodeConfig, bundled, load_model, load_site
from dicom_node.config.node import Deliver, Hl7, ModelChoice, Node, Rule, Web, Work, Worklists
from dicom_node.config.remotes import Remote
from dicom_node.domain import DeliveryState, Discontinuation, NodeError, PeerUnavailable
from dicom_node.store import Store
from dicom_node.work import try_model
from tests import phantoms
from tests.contracts import arrange
from tests.documents import GENERATORS, ROOT, documents
from tests.documents.program import commands
from tests.documents.text import anchors, blocks, by_hand, inline_code, links, parts, rendered

DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in documents()}
OURS = [name for name in DOCUMENTS if name == "README.md" or name.startswith("docs/")]
each = pytest.mark.parametrize("name", DOCUMENTS)
STUDY = "1.2.826.0.1.3680043.8.498.20240105.4711"


def text(name: str) -> str:
    return DOCUMENTS[name].read_text()


# ----------------------------------------------------------------------------------------------------------------- drift


@pytest.mark.parametrize("name", [name for name, path in DOCUMENTS.items() if parts(path.read_text())])
def test_a_document_says_what_the_program_would_say_now(name: str) -> None:
    """`python -m tests.documents` writes the generated parts anew."""
    assert rendered(text(name), GENERATORS) == text(name), "run: python -m tests.documents"


def test_every_generated_part_stands_in_a_document() -> None:
    used = [part for name in DOCUMENTS for part in parts(text(name))]
    assert sorted(used) == sorted(GENERATORS)


# ------------------------------------------------------------------------------------------------------------- TOML


SECTIONS: Mapping[str, type[BaseModel]] = {"node": Node, "work": Work, "deliver": Deliver, "worklist": Worklists, "hl7": Hl7, "web": Web}
SHOWN = [(name, block) for name in DOCUMENTS for block in blocks(text(name), "toml")]


@pytest.mark.parametrize(("name", "block"), SHOWN, ids=[f"{name}:{block.line}" for name, block in SHOWN])
def test_every_configuration_that_is_shown_loads(name: str, block: Any, example: Path) -> None:
    """A site's file may be a part of one: models and remotes that it does not name are those of config/node.toml."""
    said = tomllib.loads(block.body)
    if set(said) <= set(NodeConfig.model_fields):
        (example / "node.toml").write_text(block.body)
        base = tomllib.loads((bundled("config") / "node.toml").read_text())
        more = {section: {k: v for k, v in base[section].items() if k not in said.get(section, {})} for section in ("models", "remotes")}
        load_site(example / "node.toml", **more)
    elif "network" in said:  # a classifier's description, which tests/models_proof/test_image_classifier.py packages
        assert set(said) - {"network", "image", "labels"} <= set(Manifest.model_fields)
    else:
        assert set(said) <= set(Manifest.model_fields), f"{name}:{block.line} is neither a node.toml nor a model.toml"
        (example / "model.toml").write_text(block.body)
        (example / "analysis.py").touch()
        load_model(example)


@pytest.mark.parametrize("name", ["default", "hospital", "research", "node"])
def test_every_example_of_a_site_loads(name: str) -> None:
    assert load_site(bundled("config") / f"{name}.toml").models


def test_config_node_toml_shows_every_key_with_its_default() -> None:
    """An undocumented key fails the build."""
    text = (ROOT / "config" / "node.toml").read_text()
    said = tomllib.loads(text)
    assert set(said) == set(NodeConfig.model_fields)
    for section, model in SECTIONS.items():
        shown = {key: getattr(model.model_validate(said[section]), key) for key in said[section]}
        assert shown == {key: field.default for key, field in model.model_fields.items() if field.default is not None}, section
        assert all(f"# {key} = " in text for key, field in model.model_fields.items() if field.default is None), section  # TOML has no word for none
    for model, shown in ((Remote, said["remotes"].values()), (ModelChoice, said["models"].values()), (Rule, said["rules"])):
        assert {key for one in shown for key in one} == set(model.model_fields)
    for key in ("storage_commitment", "associations", "timeout_s"):
        assert said["remotes"]["pacs"][key] == Remote.model_fields[key].default


def test_config_node_toml_shows_every_kind_of_condition() -> None:
    """A condition that only the program knows is of no use."""
    shown = (ROOT / "config" / "node.toml").read_text()
    assert [kind for kind in Condition.model_fields if not re.search(rf"\b{kind.removesuffix('s')}s?\b", shown)] == []


# -------------------------------------------------------------------------------------------------------------- commands


def lines(name: str) -> list[tuple[int, str]]:
    """Return what a document's shell blocks call of the program: number of the block, and the call."""
    found = []
    for number, block in enumerate(blocks(text(name), "sh")):
        for line in block.body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "dicom-node":
                found.append((number, shlex.join(words[1:])))
    return found


def parsed(call: str, *, in_prose: bool = False) -> str:
    """Parse a call as the program would, without doing it, and return its verb; prose may name the verb alone."""
    verb, *rest = shlex.split(call)
    assert verb in commands(), f"there is no verb {verb}"
    if rest or not in_prose:
        commands()[verb].make_context(verb, list(rest))
    return verb


@pytest.mark.parametrize("name", OURS)
def test_every_command_that_is_shown_exists_with_its_options(name: str) -> None:
    for _, call in lines(name):
        parsed(call)
    for code in inline_code(by_hand(text(name))):
        if code.startswith("dicom-node ") and not code.startswith("dicom-node --"):
            parsed(code.removeprefix("dicom-node "), in_prose=True)


def test_every_verb_is_shown_in_a_document() -> None:
    """An undocumented verb fails the build."""
    shown = {shlex.split(call)[0] for name in OURS for _, call in lines(name)}
    assert set(commands()) - shown == set()


NOT_RUN = {
    "serve",
    "work",
    "web",
    "demo",
    "simulate",
    "try",
    "export",
    "fetch",
    "notify",
}  # they serve, take long, or need real reports or archives; other tests run them


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site on which everything has happened that docs/operations.md speaks of."""
    folder = tmp_path_factory.mktemp("site")
    config = blocks(text("docs/operations.md"), "toml")[0].body
    for shown, here in (('host = "0.0.0.0"', "port = 0\ndisk_reserve_mb = 0"), ("/var/lib/dicom-node", "data"), ("10.0.4.10:104", "127.0.0.1:1")):
        assert shown in config
        config = config.replace(shown, here)
    (folder / "node.toml").write_text(config)
    phantoms.write(phantoms.series(), folder / "path" / "to" / "dicom")
    store = Store.open(folder / "data")
    arrange.finished(store, study=STUDY)
    for one in arrange.sending(store):
        store.deliveries.give_up(one, "sender-1", now=arrange.NOW, reason="pacs answered C000")
    arrange.waiting(store, study="1.2.3.2")
    store.jobs.fail(arrange.claimed(store), now=arrange.NOW, why="it raised", retry_at=None)
    arrange.waiting(store, study="1.2.3.3")
    store.close()
    return folder


def test_the_commands_about_people_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/web.md: each line in its order, a password as the pipe before it would give it."""
    monkeypatch.setenv("DICOM_NODE_STORAGE", str(tmp_path / "data"))
    for block in blocks(text("docs/web.md"), "sh"):
        for line in (line for line in block.body.splitlines() if "dicom-node people" in line):
            before, _, call = line.rpartition("dicom-node ")
            piped = shlex.split(before.rstrip("| "))[-1] if before else ""
            done = CliRunner().invoke(app, shlex.split(call), input=f"{piped}\n")
            assert done.exit_code == 0, (line, done.output, done.exception)
    store = Store.open(tmp_path / "data")
    assert {one.name: (one.role, one.tokens) for one in store.people.list(now=0.0)} == {
        "anna": ("admin", 0),
        "berta": ("operator", 0),
        "pacs-bridge": ("service", 0),
    }
    store.close()


RUN = sorted({number for number, call in lines("docs/operations.md") if shlex.split(call)[0] not in NOT_RUN})


@pytest.mark.parametrize("block", RUN)
def test_the_commands_for_the_administrator_do_what_they_say(block: int, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is run on a site of its own, in the order of its lines."""
    folder = shutil.copytree(site, tmp_path / "site")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DICOM_NODE_CONFIG", "node.toml")
    for call in (call for number, call in lines("docs/operations.md") if number == block):
        words = shlex.split(call)
        if words[0] in NOT_RUN or "--fetch" in words or words[-1].endswith(":104"):
            continue
        done = CliRunner().invoke(app, words)
        if words[0] == "echo":
            assert isinstance(done.exception, PeerUnavailable)  # nobody listens, and it says so
        else:
            assert done.exit_code == (1 if words[0] == "check" else 0), (call, done.output, done.exception)
            assert not isinstance(done.exception, NodeError)


def test_the_back_up_that_is_shown_can_be_opened(site: Path, tmp_path: Path) -> None:
    statement = re.search(r'ledger\.sqlite "(VACUUM INTO .*)"', text("docs/operations.md"))
    assert statement
    with sqlite3.connect(site / "data" / "ledger.sqlite") as ledger:
        ledger.execute(statement[1].replace("/backup", str(tmp_path)))
    ledger.close()
    store = Store.open(tmp_path)
    assert store.studies.find(STUDY) == (STUDY,)
    store.close()


# ------------------------------------------------------------------------------------------------------------ the example


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of docs/models.md, beside which other files may be written."""
    for language in ("toml", "python"):
        for block in blocks(text("docs/models.md"), language):
            if named := re.match(r"# ((?:bone_ct|smooth_ct|bright_spots)/\S+)\n", block.body):
                (tmp_path / named[1]).parent.mkdir(exist_ok=True)
                (tmp_path / named[1]).write_text(block.body)
    return tmp_path


def test_the_example_of_a_model_runs(example: Path, tmp_path: Path) -> None:
    """docs/models.md: a block of 24 voxels as dense as bone is found, measured, and said in valid DICOM."""
    files = phantoms.write(phantoms.series(phantoms.marked(value=2024)), tmp_path / "in")
    trial = try_model(load_model(example / "bone_ct"), files, tmp_path / "out")
    assert trial.problems == ()
    assert [path.name for path in trial.objects] == ["1-seg.dcm", "2-sr.dcm"]
    assert trial.findings.measurements == {"volume": pytest.approx(24 * 2.5 * 0.8 * 0.7 / 1000), "density": pytest.approx(1000.0)}
    assert trial.findings.evaluations == {"metal": "absent"}


def test_the_example_of_a_model_that_finds_nothing_still_reports(example: Path, tmp_path: Path) -> None:
    """A negative result is a result: a report, and no segmentation without frames."""
    trial = try_model(load_model(example / "bone_ct"), phantoms.write(phantoms.series(), tmp_path / "in"), tmp_path / "out")
    assert trial.problems == ()
    assert [path.name for path in trial.objects] == ["1-sr.dcm"]
    assert trial.findings.notes == ("No voxel is as dense as bone.",)


def test_the_example_of_a_model_that_makes_images_runs(example: Path, tmp_path: Path) -> None:
    """docs/models.md: as many images as there were, and a report."""
    trial = try_model(load_model(example / "smooth_ct"), phantoms.write(phantoms.series(), tmp_path / "in"), tmp_path / "out")
    assert trial.problems == ()
    assert [path.name for path in trial.objects] == [*(f"{number}-der.dcm" for number in range(1, 9)), "9-sr.dcm"]


def test_the_example_of_a_model_that_points_at_what_it_finds_runs(example: Path, tmp_path: Path) -> None:
    stored = phantoms.marked()
    stored[:, 10:12, 10:12] = stored[2, 3:5, 3:5] = 1024 + 500
    files = phantoms.write(phantoms.series(stored), tmp_path / "in")
    trial = try_model(load_model(example / "bright_spots"), files, tmp_path / "out")
    assert trial.problems == ()
    assert [path.name for path in trial.objects] == ["1-seg.dcm", "2-pm.dcm", "3-pr.dcm", "4-ko.dcm", "5-sr.dcm"]
    assert set(trial.findings.measurements["volume"]) == {1, 2}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OURS)
def test_every_python_that_is_shown_compiles(name: str) -> None:
    for block in blocks(text(name), "python"):
        compile(block.body, f"{name}:{block.line}", "exec")


# ----------------------------------------------------------------------------------------------------- links and words


@each
def test_every_link_leads_somewhere(name: str) -> None:
    for link in links(text(name)):
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        place = (DOCUMENTS[name].parent / target).resolve() if target else DOCUMENTS[name]
        assert place.exists(), link
        assert not anchor or anchor in anchors(place.read_text()), link


@each
def test_every_file_that_is_named_exists(name: str) -> None:
    """Of this project: what stands in backquotes and begins with one of its folders."""
    begins = ("dicom_node/", "tests/", "docs/", "models/", "config/", "deploy/")
    named = [code for code in inline_code(by_hand(text(name))) if code.startswith(begins) and " " not in code]
    assert [code for code in named if not (ROOT / code.partition("::")[0]).exists()] == []


@each
def test_no_document_names_a_place_on_somebodys_machine(name: str) -> None:
    found = re.findall(r"(?:^|[\s\"'`(=])((?:/work|/tmp|/root|/home|/Users)/\S*|(?:\.\./|/)?shared/\S*)", text(name))
    assert found == []


@pytest.mark.parametrize("name", OURS)
def test_no_line_of_prose_is_too_long_to_read(name: str) -> None:
    prose = [re.sub(r"\]\([^)]*\)", "]", line) for line in by_hand(text(name)).splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in prose if len(line) > 160] == []


def test_every_state_and_ending_is_explained_to_the_administrator() -> None:
    """A state that a listing may show is a word somebody has to look up."""
    shown = text("docs/operations.md") + text("docs/glossary.md")
    assert [word for word in (*Discontinuation, *DeliveryState) if word.value not in shown] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_that_a_document_names_exists(path: Path) -> None:
    """What a document calls a proof is one."""
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text()):
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
