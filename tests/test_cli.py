"""Every verb, on a small store made in this process: what it says to a person, what it prints for a program, and how it fails.

A key that a listing prints as JSON is a contract: one that is missing or new here is a change that users see.
"""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.cli import act, app, demo, develop, fetch, look, notify, operate, people, readers
from dicom_node.config import load_site
from dicom_node.domain import AE, Job, JobState
from dicom_node.receive import Door, import_file
from dicom_node.serve import judge_due
from dicom_node.simulate.pacs import Pacs
from dicom_node.simulate.scanner import push
from dicom_node.store import Store
from tests import phantoms
from tests.contracts.arrange import LEASE_S, in_quarantine, result_of
from tests.orthanc import free_ports
from tests.verbs import Said, run
from tests.worklists import entry, write

FAKES = Path(__file__).parent / "models"
NOW = 1_700_000_000.0  # years ago
VERBS = {verb: function for module in (operate, people, notify, look, readers, act, fetch, develop, demo) for verb, function in module.VERBS.items()}
CONFIG = """
[node]
port = {port}
storage = "data"
complete_after_s = 0
disk_reserve_mb = 1
[remotes]
scanner = {{ ae = "SCANNER@127.0.0.1:104", may = ["send"] }}
pacs = {{ ae = "PACS@127.0.0.1:{nobody}", may = ["receive"] }}
archive = {{ ae = "ARCHIVE@127.0.0.1:{nobody}", may = ["receive"] }}
[models.good]
folder = "{models}/good"
[[rules]]
name = "chest CT"
when.BodyPartExamined = "CHEST"
analyse = ["good"]
deliver = ["pacs"]
"""

# What each kind of thing is printed with.
KEYS = {
    name: set(keys.split())
    for name, keys in {
        "result": "digest id job_id kind path problem series_instance_uid sop_class_uid sop_instance_uid study_instance_uid transfer_syntax_uid",
        "delivery": "attempts created_at destination id not_before reason result sent_at state status",
        "retrieval": (
            "attempts by_person deadline ended_at expected failed held holder id lease_until not_before reason remote requested_at state "
            "study_instance_uid wanted_for who why"
        ),
        "study": (
            "changes completed_at deliveries first_received_at instances jobs last_received_at look_at revision series state study_instance_uid why"
        ),
        "person": "created_at disabled has_password name role seen_at tokens",
        "event": "at detail id job_id kind study_instance_uid who why",
        "status": "deliveries destinations free_mb jobs quarantined reserve_mb retrievals stuck studies workers",
        "quarantined": "at id job_id path reason sop_instance_uid source study_instance_uid",
        "model": "build device device_uid folder name task version weights",
        "rule": "matched models objections rule",
        "tried": "chosen findings notes objects pictures problems seconds",
        "job": (
            "attempts cancel_requested cause created_at deliver device_uid discontinuation ended_at id identity inputs lease_until model "
            "model_version not_before note picture predecessor_id priority priors progress reason repeat revision short started_at state "
            "study_instance_uid why worker"
        ),
    }.items()
}


@dataclass(frozen=True)
class House:
    """A site's configuration, and a store with a little of everything in it."""

    config: Path
    store: Store
    completed: Job  # its results wait for the PACS
    waiting: Job
    canceled: Job
    unmatched: str  # UID of a study that no rule meets
    dead: int  # number of a dead letter

    def verb(self, *words: object) -> Said:
        """Run a verb on this site."""
        return run(*words, "--config", self.config)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    config = tmp_path / "node.toml"
    port, nobody = free_ports(2)
    config.write_text(CONFIG.format(port=port, nobody=nobody, models=FAKES).replace('"data"', json.dumps(str(tmp_path / "data"))))
    site = load_site(config)
    store = Store.of(site.config.node)
    door = Door(store, site.config.node)
    for number, (name, body_part) in enumerate([("completed", "CHEST"), ("canceled", "CHEST"), ("waiting", "CHEST"), ("unmatched", "HAND")]):
        for path in phantoms.write(phantoms.series(phantoms.marked(value=2000), seed=name, BodyPartExamined=body_part), tmp_path / name):
            import_file(door, path, received_at=NOW + number)
    judge_due(site, store, NOW + 10)
    store.instances.quarantine(in_quarantine(store, b"no DICOM", at=NOW), at=NOW, source="SCANNER", reason="C001 Not parsable")
    jobs = {store.studies.view(one.study_instance_uid).first_received_at - NOW: one for one in store.jobs.list()}
    completed = store.jobs.claim("worker", ["good"], now=NOW + 11, lease_s=LEASE_S)
    assert store.jobs.complete(completed, [result_of(store, completed, kind) for kind in ("SEG", "SR")], now=NOW + 12, why="made SEG, SR")
    store.jobs.cancel(jobs[1].id, who="test", why="a person canceled it", now=NOW + 12)
    (sending,) = store.deliveries.claim("pacs", "sender", now=NOW + 13, lease_s=LEASE_S, limit=1)
    store.deliveries.give_up(sending, "sender", now=NOW + 14, reason="pacs answered C000", status=0xC000)
    store.retrievals.ask("archive", "1.2.3", who="test", why="a person asked for it", now=NOW)
    store.people.add("pump", "service", who="test", now=NOW)
    unmatched = next(row["study_instance_uid"] for row in store.studies.list() if not row["jobs"])
    yield House(config, store, store.jobs.get(completed.id), jobs[2], store.jobs.get(jobs[1].id), unmatched, sending.id)
    store.close()


def failed(said: Said) -> str:
    """See that a verb failed as it should, in one sentence and a hint, and return the sentence."""
    assert said.code == 1, said
    error, *rest = said.err.splitlines()
    assert error.startswith("error: ")
    assert [line.partition(":")[0] for line in rest] in ([], ["hint"])
    assert "Traceback" not in said.all
    return error.removeprefix("error: ")


# ---------------------------------------------------------------------------------------------------------------- all of them


def test_the_verbs_are_those_of_the_design() -> None:
    """Operate, look, act, develop: nothing is missing, and nothing is there that nobody knows of."""
    named = "check serve work web people notify status studies jobs deliveries retrievals show models agreement export retry "
    named += "cancel fetch send import purge try train train-images package explain echo simulate demo"
    assert set(VERBS) == set(named.split())
    assert {command.name for command in app.registered_commands} == set(VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    """Its first sentence is its docstring's, and every option says what it does."""
    said = run(verb, "--help")
    assert said.code == 0
    assert " ".join(str(VERBS[verb].__doc__).split())[:40] in " ".join(said.out.split())


def test_the_program_runs_as_a_program() -> None:
    """Once as a process of its own: help, version, and an error that ends with 1."""
    done = subprocess.run([sys.executable, "-m", "dicom_node", "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("dicom-node 0.")
    command = [sys.executable, "-m", "dicom_node", "status", "-c", "nowhere.toml"]
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "error: nowhere.toml cannot be read: No such file or directory\nhint: Give the path of a file that exists.\n"


@pytest.fixture
def stumbling() -> Iterator[None]:
    """Add a verb with a fault of its own."""

    @app.command("stumble")
    def stumble() -> None:
        raise ValueError("Marked^Patient")

    yield
    app.registered_commands.pop()


def test_an_error_that_nobody_foresaw_is_told_without_its_text(stumbling: None) -> None:
    """Its text may quote a header; with --debug a developer gets all of it."""
    assert failed(run("stumble")).startswith("unexpected ValueError at test_cli.py:")
    assert "Marked" not in run("stumble").all
    with pytest.raises(ValueError, match="Marked"):
        run("--debug", "stumble")


def test_what_the_system_refuses_is_told_with_its_path(house: House, tmp_path: Path) -> None:
    """A file where a folder belongs is nobody's fault but the caller's."""
    (tmp_path / "taken").touch()
    said = run("try", FAKES / "good", tmp_path / "waiting", "-o", tmp_path / "taken")
    assert failed(said) == f"{tmp_path / 'taken'}: File exists"
    assert house.store.jobs.counts()["COMPLETED"] == 1


# --------------------------------------------------------------------------------------------------------------------- look


@pytest.mark.parametrize(
    ("verb", "keys", "count"),
    [
        ("studies", KEYS["study"], 4),
        ("jobs", KEYS["job"], 3),
        ("deliveries", KEYS["delivery"], 2),
        ("retrievals", KEYS["retrieval"], 1),
        ("models", KEYS["model"], 1),
        ("people", KEYS["person"], 1),
    ],
)
def test_a_listing_prints_the_same_keys_always(house: House, verb: str, keys: set[str], count: int) -> None:
    """As JSON for a program, and as a table for a person."""
    rows = house.verb(verb, "--json").json
    assert [set(row) for row in rows] == [keys] * count
    said = house.verb(verb)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == verb
    assert len(said.out.splitlines()) >= count + 2


def test_status_tells_what_waits_and_what_is_stuck(house: House) -> None:
    """The dead letter and the job that nobody claimed stand there with their reasons."""
    status = house.verb("status", "--json").json
    assert set(status) == KEYS["status"]
    assert (status["studies"], status["jobs"]) == ({"COMPLETE": 4}, {"CANCELED": 1, "COMPLETED": 1, "SCHEDULED": 1})
    assert (status["deliveries"], status["quarantined"]) == ({"pacs": {"DEAD": 1, "PENDING": 1}}, 1)
    assert [one["why"] for one in status["stuck"] if "delivery" in one["what"]] == ["pacs answered C000"]
    assert all(set(one) == {"what", "since", "why"} for one in status["stuck"])
    assert status["retrievals"] == {"archive": {"WAITING": 1}}
    assert "1 DEAD, 1 PENDING" in house.verb("status").out


def test_jobs_and_deliveries_are_listed_by_state(house: House) -> None:
    """And a number limits either."""
    assert [job["id"] for job in house.verb("jobs", "--state", "CANCELED", "--json").json] == [house.canceled.id]
    assert [one["id"] for one in house.verb("deliveries", "--state", "DEAD", "--json").json] == [house.dead]
    assert house.verb("deliveries", "--destination", "archive", "--json").json == []
    assert len(house.verb("jobs", "-n", "2", "--json").json) == 2
    assert house.verb("deliveries", "--destination", "archive").out == "deliveries: nothing\n"


def test_show_tells_of_a_study_a_job_and_the_quarantine(house: House) -> None:
    """A study by the end of its UID, a job by its number."""
    uid = house.completed.study_instance_uid
    study = house.verb("show", uid[-12:], "--json").json
    assert set(study) == {"study_instance_uid", "series", "events", "jobs"}
    assert [set(event) for event in study["events"]] == [KEYS["event"]] * len(study["events"])
    assert [event["kind"] for event in study["events"]][:4] == ["first instance", "complete", "scheduled", "claimed"]
    job = house.verb("show", house.completed.id, "--json").json
    assert (set(job), set(job["job"])) == ({"job", "results", "deliveries", "notifications", "feedback"}, KEYS["job"])
    assert [set(one) for one in job["results"]] == [KEYS["result"], KEYS["result"]]
    assert [set(one) for one in job["deliveries"]] == [KEYS["delivery"], KEYS["delivery"]]
    (row,) = house.verb("show", "quarantine", "--json").json
    assert (set(row), row["reason"]) == (KEYS["quarantined"], "C001 Not parsable")
    assert f"study {uid}" in house.verb("show", uid).out
    assert "made SEG, SR" in house.verb("show", house.completed.id).out
    assert "C001 Not parsable" in house.verb("show", "quarantine").out


def test_show_says_what_is_not_there(house: House) -> None:
    """A UID's end that nobody has, one that several have, and a job that never was."""
    assert failed(house.verb("show", "12345678901")) == "no study's UID is or ends with '12345678901'"
    assert failed(house.verb("show", "")) == "4 studies end with ''"
    assert failed(house.verb("show", "99")) == "there is no job 99"


# ---------------------------------------------------------------------------------------------------------------------- act


def test_retry_runs_a_job_again(house: House) -> None:
    """A new job of the same inputs, which names the old one; one that has not ended is not repeated."""
    said = house.verb("retry", house.canceled.id)
    again = house.store.jobs.list()[0]
    assert said.out == f"job {again.id} runs good 1.0.0 again after job {house.canceled.id}\n"
    assert (again.state, again.predecessor_id) == (JobState.SCHEDULED, house.canceled.id)
    assert failed(house.verb("retry", house.waiting.id)) == f"job {house.waiting.id} is SCHEDULED: it has not ended"
    assert failed(house.verb("retry")) == "nothing to retry was named"


def test_retry_has_a_study_judged_again(house: House) -> None:
    """By the rules of now, by the UID or its end; what ran already does not run again."""
    uid = house.unmatched
    assert house.verb("retry", uid[-12:]).out == f"study {uid} is judged again by the rules of now\n"
    assert house.store.studies.due(time.time()) == (uid,)
    house.config.write_text(house.config.read_text().replace('"CHEST"', '"HAND"'))
    assert judge_due(load_site(house.config), house.store, time.time()) == 1
    (job,) = house.store.jobs.list(study_instance_uid=uid)
    assert job.state is JobState.SCHEDULED
    assert failed(house.verb("retry", "no.such.study")) == "no study's UID is or ends with 'no.such.study'"
    assert failed(house.verb("retry", 99)) == "there is no job 99"


def test_retry_replays_dead_letters(house: House) -> None:
    """One by its number, or all of a destination."""
    assert house.verb("retry", "--delivery", house.dead).out == "1 deliveries are due again\n"
    assert house.verb("retry", "--destination", "pacs").out == "0 deliveries are due again\n"
    assert {one.state for one in house.store.deliveries.list()} == {"PENDING"}


def test_cancel_ends_a_job_or_a_delivery_that_waits(house: House) -> None:
    """And says why it cannot when it has ended."""
    assert house.verb("cancel", house.waiting.id).out == f"job {house.waiting.id} is CANCELED\n"
    assert failed(house.verb("cancel", house.waiting.id)).startswith(f"job {house.waiting.id} is CANCELED")
    assert house.verb("cancel", house.dead, "--delivery").out == f"delivery {house.dead} is canceled\n"
    assert failed(house.verb("cancel", 99, "--delivery")) == "delivery 99 does not wait, or does not exist"


def test_send_queues_results_for_one_more_remote(house: House) -> None:
    """Once; and only for a remote that may receive."""
    assert house.verb("send", house.completed.id, "archive").out == "2 results are queued for archive\n"
    assert house.verb("send", house.completed.id, "archive").out == "0 results are queued for archive\n"
    assert failed(house.verb("send", house.completed.id, "scanner")) == "'scanner' is not a remote that may receive"
    assert failed(house.verb("send", 99, "archive")) == "there is no job 99"


def test_fetch_says_what_it_cannot_do(house: House) -> None:
    """A remote that nothing is fetched from, a UID that is none, and a question for everything."""
    assert "'pacs' is not a remote that studies are fetched from: none" in failed(house.verb("fetch", "pacs", "--study", "1.2.3"))
    house.config.write_text(house.config.read_text().replace('may = ["receive"] }', 'may = ["receive"], retrieve = "get" }'))
    assert failed(house.verb("fetch", "pacs", "--study", "3.x")) == "'3.x' is no Study Instance UID"
    assert failed(house.verb("fetch", "pacs")) == "nothing was asked for"
    assert "refuses the connection" in failed(house.verb("fetch", "pacs", "--patient-id", "P1"))


def test_cancel_ends_a_retrieval(house: House) -> None:
    """Once."""
    (one,) = house.store.retrievals.list()
    assert house.verb("cancel", one.id, "--retrieval").out == f"retrieval {one.id} is canceled\n"
    assert failed(house.verb("cancel", one.id, "--retrieval")) == f"retrieval {one.id} has ended, or does not exist"


def test_people_are_added_with_a_password_that_no_argument_holds(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the standard input, since every user of a machine sees the arguments."""
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert house.verb("people", "add", "anna", "--role", "viewer").out == "anna is added as viewer\n"
    kept = house.store.people.password("anna")
    assert kept.startswith("$argon2id$") and "horse" not in kept
    assert house.verb("people", "role", "anna", "--role", "admin").out == "anna is admin now\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("another horse battery\n"))
    assert house.verb("people", "password", "anna").out == "anna has another password, and is logged out everywhere\n"
    assert house.verb("people", "disable", "anna").out == "anna is disabled\n"
    assert house.store.people.password("anna") == ""
    assert house.verb("people", "enable", "anna").out == "anna is enabled\n"
    assert house.verb("people", "logout", "anna").out == "0 sessions of anna are ended\n"
    assert {one["name"]: one["role"] for one in house.verb("people", "--json").json} == {"anna": "admin", "pump": "service"}


def test_a_service_has_a_token_that_is_shown_once(house: House) -> None:
    """On the standard output nothing but the token, for a script."""
    token = house.verb("people", "token", "pump", "--scope", "dicomweb.read", "--days", 2).out.strip()
    assert house.store.people.bearer(token, now=time.time()).scopes == {"dicomweb.read"}  # type: ignore[union-attr]
    assert house.store.people.bearer(token, now=time.time() + 3 * 86400) is None
    assert house.verb("people", "revoke", "pump").out == "1 tokens of pump are revoked\n"
    assert failed(house.verb("people", "token", "pump")).startswith("a token has one or more of the scopes")


def test_people_says_what_it_cannot_do(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert failed(house.verb("people", "add", "anna", "--role", "viewer")) == "a password has 12 to 256 characters"
    assert failed(house.verb("people", "add")) == "nobody to add was named"
    assert failed(house.verb("people", "role", "berta", "--role", "viewer")) == "nobody has that name"
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert failed(house.verb("people", "add", "berta")).startswith("there is no such role")


def test_import_takes_files_in_once(house: House, tmp_path: Path) -> None:
    """Files and folders; what is no DICOM is refused, named and told by the exit code."""
    phantoms.write(phantoms.series(seed="imported"), tmp_path / "cd" / "deep")
    assert house.verb("import", tmp_path / "cd").out == "8 new\n"
    assert house.verb("import", tmp_path / "cd").out == "8 identical\n"
    (tmp_path / "letter.txt").write_text("Dear colleague,")
    said = house.verb("import", tmp_path / "letter.txt")
    assert (said.code, said.out) == (1, "1 refused\n")
    assert said.err == "letter.txt: Not a DICOM file\n"


def test_purge_removes_a_study_or_all_that_are_old(house: House) -> None:
    """What is unfinished is not removed for its age."""
    assert house.verb("purge", house.unmatched).out == "8 files removed\n"
    assert house.store.studies.view(house.unmatched) is None
    assert house.verb("purge", "--older-than-days", "1").out == "1 studies removed\n"  # of the others, one waits and one has a dead letter
    assert {row["study_instance_uid"] for row in house.store.studies.list()} == {one.study_instance_uid for one in (house.completed, house.waiting)}
    assert failed(house.verb("purge")) == "nothing to purge was named"


# ------------------------------------------------------------------------------------------------------------------ develop


def test_explain_tells_of_every_rule(house: House, tmp_path: Path) -> None:
    """For a study in the ledger and for a folder of files alike, with a reason for each no."""
    here = house.verb("explain", house.unmatched, "--json").json
    folder = house.verb("explain", tmp_path / "unmatched", "--json").json
    assert set(here) == {"study_instance_uid", "why", "recognised", "rules", "warnings"}
    assert here == folder
    (rule,) = here["rules"]
    assert (set(rule), list(rule["objections"].values())) == (KEYS["rule"], [["BodyPartExamined is HAND, not CHEST"]])
    runs = house.verb("explain", house.waiting.study_instance_uid)
    assert "good runs" in runs.out
    (tmp_path / "empty").mkdir()
    assert failed(house.verb("explain", tmp_path / "empty")) == "none of 0 files is a DICOM object of a study"


def test_try_runs_a_model_on_a_folder(house: House, tmp_path: Path) -> None:
    """No server and no ledger: the findings printed, SEG and SR and a picture written."""
    said = run("try", FAKES / "good", tmp_path / "waiting", "-o", tmp_path / "out", "--json")
    assert (said.code, set(said.json)) == (0, KEYS["tried"]), said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1-seg.dcm", "2-sr.dcm", "picture.png"]
    assert said.json["problems"] == []
    assert [set(one) for one in said.json["findings"]] == [{"what", "of", "value", "unit"}]
    assert failed(run("try", FAKES / "declines", tmp_path / "waiting", "-o", tmp_path / "out")) == "The spleen is not in the image."
    assert "no series suits input 'ct' of good" in failed(run("try", FAKES / "good", mr(tmp_path), "-o", tmp_path / "out"))
    assert house.store.jobs.counts()["COMPLETED"] == 1


def test_try_names_what_was_found_and_shows_it_in_the_models_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole first, then candidate by candidate; the picture's window is that of the model's presentation."""
    phantoms.write(phantoms.series(), tmp_path / "in")
    shown = []
    monkeypatch.setattr("dicom_node.picture.picture", lambda sources, seg, into, window: shown.append(window) or into)
    said = run("try", FAKES / "points", tmp_path / "in", "-o", tmp_path / "out", "--json")
    assert [(row["what"], row["of"]) for row in said.json["findings"]] == [("Candidates", "Lung"), ("Volume", "Candidate 1")], said.err
    assert shown == [(40, 400)]


def mr(folder: Path) -> Path:
    phantoms.write(phantoms.series(modality="MR"), folder / "mr")
    return folder / "mr"


def test_echo_says_who_answers_and_who_does_not(house: House, tmp_path: Path) -> None:
    """By a remote's name or by its address."""
    with Pacs(tmp_path / "pacs") as pacs:
        assert set(house.verb("echo", pacs.ae, "--json").json) == {"ae", "seconds"}
        assert house.verb("echo", pacs.ae).out.startswith(f"{pacs.ae} answered in ")
    assert "refuses the connection" in failed(house.verb("echo", "archive"))
    assert failed(house.verb("echo", "nobody")).startswith("'nobody' is neither a remote's name nor an address")


def test_simulate_says_what_it_cannot_be(tmp_path: Path) -> None:
    """A scanner with nobody to send to, and a study that is no sample."""
    nobody = AE("NOBODY", "127.0.0.1", free_ports(1)[0])
    assert failed(run("simulate", "scanner", "--to", "here")) == "--to: 'here' is not TITLE@host:port"
    assert run("simulate", "scanner", "--study", "left-foot", "--to", nobody).code == 2
    assert run("simulate", "printer").code == 2


def test_a_simulated_pacs_receives_until_it_is_interrupted(tmp_path: Path) -> None:
    """As a process of its own; Ctrl-C is how it ends, and is no error."""
    ae = AE("PACS", "127.0.0.1", free_ports(1)[0])
    command = [sys.executable, "-m", "dicom_node", "simulate", "pacs", "--port", str(ae.port), "--folder", str(tmp_path / "pacs")]
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore Ctrl-C
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, inherited)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{ae} receives into {tmp_path / 'pacs'}; stop with Ctrl-C\n"
        assert push(phantoms.write(phantoms.series(), tmp_path / "out"), ae).sent == 8
        assert len(list((tmp_path / "pacs").rglob("*.dcm"))) == 8
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err.strip()) == (130, "")
    finally:
        process.kill()
        process.wait()


# ------------------------------------------------------------------------------------------------------------------ operate


def test_check_names_what_is_wrong_and_what_to_do(house: House) -> None:
    """The remotes do not answer here: two rows fail, each with a hint, and so does the verb."""
    said = house.verb("check", "--json")
    assert said.code == 1
    assert [set(row) for row in said.json] == [{"what", "ok", "says", "hint"}] * len(said.json)
    found = {row["what"]: row for row in said.json}
    assert {what for what, row in found.items() if not row["ok"]} == {"remote pacs", "remote archive"}
    assert all(row["hint"] for row in found.values() if not row["ok"])
    assert {"storage", "model good", "remote scanner", "remote pacs: name"} <= set(found)
    assert "FAILS" in house.verb("check").out


def test_check_counts_the_entries_of_a_worklist(tmp_path: Path) -> None:
    """Or says that the folder is not there."""
    write(tmp_path / "lists", "a", entry())
    for folder, says in (("lists", "1 entry"), ("none", "cannot be read")):
        config = tmp_path / f"{folder}.toml"
        storage = f"[node]\nport = 0\nstorage = {json.dumps(str(tmp_path / 'data'))}\n"
        config.write_text(f"{storage}[worklist]\nfolder = {json.dumps(str(tmp_path / folder))}\n")
        rows = {row["what"]: row for row in run("check", "--json", "--config", config).json}
        assert says in rows["worklist"]["says"]
        assert rows["worklist"]["ok"] is (folder == "lists")
