"""People are told: once when it begins, once when it ends, at least once whatever happens, and of no patient unless the site wants it."""

import hmac
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.config import FindingWanted, Notify, Site, load_site
from dicom_node.domain import ConfigError, MessageState, PeerUnavailable, Trouble
from dicom_node.notify.decisions import Seen, failures, later_s, turns, wrong
from dicom_node.notify.findings import Said, meets
from dicom_node.notify.sending import SIGNATURE
from dicom_node.notify.tellers import Teller
from dicom_node.notify.wording import mailed
from dicom_node.store import Event, Store
from dicom_node.store.messages import Decision
from tests import certificates, phantoms
from tests.contracts.arrange import NOW, STUDY, claimed, finished, in_quarantine, sending, waiting
from tests.reported import Node
from tests.told import Mailed, Posted, mail_server, web_server
from tests.verbs import run

FAKES = Path(__file__).parent / "models"
ROOT = Path(__file__).parents[1]
WELL = Seen(now=NOW, up_s=1000, free_mb=10, reserve_mb=1, works_here=True, workers_alive=1, quarantined=0, destinations=(), sent={})
DOWN = {"name": "pacs", "failures": 3, "not_before": 0.0, "succeeded_at": NOW - 5000, "reason": "no route"}
ANYBODY = Notify(name="ops", to="http://127.0.0.1:1/")


@dataclass
class House:
    """A node, who is told, and a clock that is set by hand."""

    site: Site
    store: Store
    now: float = NOW

    def teller(self, number: int = 0) -> Teller:
        """Return who tells a recipient, as a process that starts now would have it."""
        return Teller(self.site.config, self.store, lambda: self.now, self.site.config.notify[number], threading.Event(), 0.0)


def house_of(folder: Path, told: str, **more: str) -> House:
    (folder / "node.toml").write_text(
        f"[node]\nstorage = {json.dumps(str(folder / 'data'))}\ndisk_reserve_mb = 0\n[work]\nstart = false\n"
        f"[deliver]\nbackoff_s = 5.0\npoll_s = 0.05\n{told}"
    )
    site = load_site(folder / "node.toml")
    return House(site, Store.of(site.config.node))


@pytest.fixture
def hook() -> Iterator[Posted]:
    with web_server() as kept:
        yield kept


@pytest.fixture
def house(tmp_path: Path, hook: Posted) -> Iterator[House]:
    """A node that posts to a web server, with a secret."""
    (tmp_path / "secret").write_text("very secret\n")
    told = f'[[notify]]\nname = "ops"\nto = "{hook.url}"\nsecret_file = {json.dumps(str(tmp_path / "secret"))}\ntimeout_s = 5.0\n'
    made = house_of(tmp_path, told)
    made.teller().decide()  # it reads the journal from here on
    yield made
    made.store.close()


def turn(teller: Teller) -> None:
    teller.decide()
    teller.tell()


def failed(store: Store, study: str = STUDY) -> int:
    """Let a job fail for good, and return its number."""
    waiting(store, study=study)
    job = claimed(store)
    assert store.jobs.fail(job, now=NOW, why="the model died", retry_at=None)
    return job.id


# -------------------------------------------------------------------------------------------------------------- deciding


@pytest.mark.parametrize(
    ("seen", "keys"),
    [
        (WELL, []),
        (replace(WELL, free_mb=0), ["disk"]),
        (replace(WELL, workers_alive=0), ["worker"]),
        (replace(WELL, workers_alive=0, up_s=5), []),
        (replace(WELL, workers_alive=0, works_here=False), []),
        (replace(WELL, quarantined=2), ["quarantine"]),
        (replace(WELL, sent={("pacs", "DEAD"): (3, NOW)}), ["delivery:pacs"]),
        (replace(WELL, destinations=[DOWN], sent={("pacs", "PENDING"): (1, NOW - 901)}), ["destination:pacs"]),
        (replace(WELL, destinations=[DOWN], sent={("pacs", "PENDING"): (1, NOW - 10)}), []),
        (replace(WELL, destinations=[DOWN]), []),
        (replace(WELL, destinations=[DOWN | {"failures": 0}], sent={("pacs", "PENDING"): (1, NOW - 901)}), []),
        (replace(WELL, destinations=[DOWN | {"succeeded_at": None}], sent={("pacs", "PENDING"): (1, NOW - 901)}), ["destination:pacs"]),
    ],
)
def test_what_is_wrong_is_a_decision(seen: Seen, keys: list[str]) -> None:
    """A destination is told of once something waits for it that long; a worker once it had the time to start."""
    assert [one.key for one in wrong(seen, ANYBODY)] == keys


def test_who_wants_to_know_of_one_thing_is_not_told_of_another() -> None:
    assert wrong(replace(WELL, free_mb=0, quarantined=1), ANYBODY.model_copy(update={"about": ("quarantine",)}))[0].key == "quarantine"


def test_a_trouble_is_told_when_it_begins_and_when_it_ends() -> None:
    """Law: as long as it lasts nothing more is told, and the next one of its kind has another key."""
    found = wrong(replace(WELL, free_mb=0), ANYBODY)
    messages, began, ended = turns("ops", found, (), NOW)
    assert ([one.facts["what"] for one in messages], len(began), ended) == (["began"], 1, [])
    assert turns("ops", found, began, NOW + 5) == ([], [], [])
    over, none, keys = turns("ops", (), began, NOW + 9)
    assert ([one.facts["what"] for one in over], none, keys) == (["ended"], [], ["disk"])
    again, _, _ = turns("ops", found, (), NOW + 20)
    assert len({one.key for one in (*messages, *over, *again)}) == 3


def test_of_many_failures_at_once_the_first_are_told_and_the_number_of_the_rest() -> None:
    events = [Event(at=NOW, study_instance_uid=STUDY, job_id=n, kind="canceled (failed)", who="w", why="died", id=n) for n in range(1, 30)]
    told = failures("ops", [*events, replace(events[0], kind="canceled (stopped)")], NOW)
    assert len(told) == 11 and told[-1].facts["says"].startswith("19 more jobs failed")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"concept": "Volume", "min": 10.0}, True),
        ({"concept": "volume", "max": 10.0}, False),
        ({"concept": "118565006", "min": 10.0, "max": 12.5}, True),
        ({"concept": "Volume", "model": "other"}, False),
        ({"concept": "Diameter"}, False),
        ({"concept": "Volume", "answer": "Present"}, False),
    ],
)
def test_a_number_meets_what_is_wanted(wanted: dict, found: bool) -> None:
    """By name or code, within bounds, of a model."""
    said = Said(names=frozenset({"volume", "118565006"}), concept="Volume", value=12.5, unit="ml")
    assert meets(said, FindingWanted(**wanted), "lung-ct") is found


def test_an_answer_meets_what_is_wanted() -> None:
    said = Said(names=frozenset({"nodule"}), concept="Nodule", answers=frozenset({"present", "373573001"}), answer="Present")
    assert meets(said, FindingWanted(concept="Nodule", answer="PRESENT"), "m") and meets(said, FindingWanted(concept="nodule"), "m")
    assert not meets(said, FindingWanted(concept="Nodule", answer="Absent"), "m") and not meets(said, FindingWanted(concept="Nodule", min=1), "m")


def test_waits_double_and_end() -> None:
    deliver = load_site(None).config.deliver
    assert [later_s(n, deliver) for n in (1, 2, 3, 99)] == [5.0, 10.0, 20.0, 3600.0]


def test_a_template_cannot_reach_the_program(tmp_path: Path) -> None:
    """jinja2's sandbox; a line break in a subject ends no header."""
    for text in ("{{ ''.__class__.__mro__ }}", "{{ unknown.thing }}", "{% broken"):
        (tmp_path / "body").write_text(text)
        with pytest.raises(ConfigError):
            mailed({"says": "x", "about": "disk", "node": "N", "research_use": ""}, None, tmp_path / "body")
    (tmp_path / "subject").write_text("{{ says }}\r\nBcc: nobody\n")
    assert mailed({"says": "x", "about": "disk", "node": "N", "research_use": ""}, tmp_path / "subject", None)[0] == "x Bcc: nobody"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ('to = "ftp://host/"', "posted to"),
        ('to = "nobody"', "mail address"),
        ('to = "a@b.example"', r"mail\.host"),
        ('to = "http://host/"\npatient_identity = true', "https alone"),
        ('to = "https://host/"\nfindings = [{ concept = "Volume", answer = "x", min = 1.0 }]', "number"),
    ],
)
def test_a_recipient_that_cannot_be_told_is_said_at_once(tmp_path: Path, told: str, says: str) -> None:
    (tmp_path / "node.toml").write_text(f'[[notify]]\nname = "ops"\n{told}\n')
    with pytest.raises(ConfigError, match=says):
        load_site(tmp_path / "node.toml")


# --------------------------------------------------------------------------------------------------------------- posting


def test_a_failed_job_is_posted_with_a_signature(house: House, hook: Posted) -> None:
    """HMAC-SHA256 over the time and the body; who takes it twice knows that by the key. The same is not posted twice."""
    job_id = failed(house.store)
    teller = house.teller()
    for _ in range(3):
        turn(teller)
    ((headers, body),) = hook.posts
    at, _, mac = headers[SIGNATURE].partition(",v1=")
    assert hmac.new(b"very secret", f"{at[2:]}.".encode() + body, sha256).hexdigest() == mac
    said = json.loads(body)
    assert (said["about"], said["job_id"], said["node"], said["id"]) == ("job", job_id, "DICOM_NODE", headers["Idempotency-Key"])
    assert "the model died" in said["says"] and b"MARKED" not in body
    (one,) = house.store.messages.list()
    assert (one.state, one.attempts) == (MessageState.TOLD, 1)
    assert house.store.journal.of_study(STUDY)[-1].kind == "told"


def test_troubles_are_posted_once_and_so_is_their_end(house: House, hook: Posted) -> None:
    """Dead letters, quarantine, a destination that is away: each when it begins, and when it is over."""
    finished(house.store, kinds=("SEG", "SR"))
    (dead, *_) = sending(house.store, limit=1)
    house.store.deliveries.give_up(dead, "sender-1", now=NOW, reason="C000")
    house.store.deliveries.unreachable("pacs", until=NOW, reason="no route")
    house.store.instances.quarantine(in_quarantine(house.store, b"no DICOM", at=NOW), at=NOW, source="SCANNER", reason="C001")
    house.now = NOW + 1000
    teller = house.teller()
    for _ in range(3):
        turn(teller)
    assert sorted((one["about"], one["what"]) for one in hook.said) == [("delivery", "began"), ("destination", "began"), ("quarantine", "began")]
    house.store.deliveries.replay(who="test", now=NOW, name="pacs")
    house.store.deliveries.reached("pacs", now=house.now)
    house.now += 4000
    turn(house.teller())  # another process knows what was told
    assert sorted(one["about"] for one in hook.said if one["what"] == "ended") == ["delivery", "destination", "quarantine"]
    assert len(hook.posts) == 6


def test_what_is_refused_is_posted_again_under_the_same_key(house: House, hook: Posted) -> None:
    """After 5 s, then 10 s; in the end it is taken."""
    failed(house.store)
    hook.answers += [500, 302]
    for wait_s in (0, 4, 1, 9, 1):
        house.now += wait_s
        turn(house.teller())
    assert len(hook.posts) == 3 and len({headers["Idempotency-Key"] for headers, _ in hook.posts}) == 1
    assert house.store.messages.list()[0].state is MessageState.TOLD


def test_who_is_away_for_days_is_given_up(house: House, hook: Posted) -> None:
    """What is not told is on record."""
    failed(house.store)
    hook.answers += [500, 500]
    turn(house.teller())
    house.now += 4 * 86400
    turn(house.teller())
    (one,) = house.store.messages.list()
    assert one.state is MessageState.DROPPED and "tried 2 times" in one.reason
    assert house.store.journal.of_study(STUDY)[-1].kind == "not told"


def test_a_process_that_is_killed_between_decision_and_sending_loses_nothing(house: House, hook: Posted) -> None:
    """kill -9 while the post is under way: the message stands in the ledger, and the next process tells it, under its key."""
    failed(house.store)
    hook.answers.append(None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.told", str(house.site.config.node.storage.parent / "node.toml")], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        assert hook.going_on.wait(60)
    finally:
        process.kill()
        process.wait()
    assert hook.posts == [] and house.store.messages.list()[0].state is MessageState.PENDING
    key = house.store.messages.list()[0].key
    house.now = time.time() + 3600
    turn(house.teller())
    assert [headers["Idempotency-Key"] for headers, _ in hook.posts] == [key]


def test_two_processes_that_look_at_the_same_tell_it_once(house: House, hook: Posted) -> None:
    failed(house.store)
    tellers = [house.teller(), house.teller()]
    threads = [threading.Thread(target=turn, args=(one,)) for one in tellers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turn(tellers[0])
    assert len(hook.posts) == 1


def test_a_finding_is_posted(tmp_path: Path, hook: Posted) -> None:
    """A job's report says what somebody wants to know: number, unit, study; no patient."""
    node = Node(tmp_path, {"good": FAKES / "good"})
    told = f'[[notify]]\nname = "ops"\nto = "{hook.url}"\nabout = []\nfindings = [{{ concept = "Volume", min = 0.0 }}]\n'
    node.config.write_text(node.config.read_text() + told)
    house = House(load_site(node.config), node.store)
    house.teller().decide()
    uid = node.receive(phantoms.series(phantoms.marked(value=2000), seed="told", BodyPartExamined="CHEST", PatientName="MARKED^NAME"))
    assert [job.state for job in node.work()] == ["COMPLETED"]
    house.now = time.time()
    for _ in range(2):
        turn(house.teller())
    assert hook.said and {(one["about"], one["study_instance_uid"], one["model"]) for one in hook.said} == {("finding", uid, "good")}
    assert all(one["value"] >= 0 and one["unit"] for one in hook.said) and b"MARKED" not in b"".join(body for _, body in hook.posts)
    assert len({one["id"] for one in hook.said}) == len(hook.said)
    node.close()


# --------------------------------------------------------------------------------------------------------------- mailing


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Return who signed the mail server's certificate, and the server's side of TLS."""
    folder = tmp_path_factory.mktemp("mail")
    by = certificates.authority(folder, "authority")
    pair = certificates.signed(by, folder, "mail")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return by.certificate, context


def mail_house(folder: Path, server: Mailed, authorities: Path | None, *, security: str = "starttls", more: str = "") -> House:
    (folder / "password").write_text("secret\n")
    trusted = f"authorities = {json.dumps(str(authorities))}\n" if authorities else ""
    login = f'user = "node"\npassword_file = {json.dumps(str(folder / "password"))}\n' if security != "none" else ""
    mail = f'[mail]\nhost = "localhost"\nport = {server.port}\nsecurity = "{security}"\nsender = "node@hospital.example"\n{trusted}{login}'
    made = house_of(folder, f'{mail}[[notify]]\nname = "ops"\nto = "ops@hospital.example"\n{more}')
    made.teller().decide()
    return made


def test_a_failed_job_is_mailed_over_tls(tmp_path: Path, authority: tuple[Path, ssl.SSLContext]) -> None:
    """STARTTLS before the password and the letter; a letter that is refused for now is sent again."""
    with mail_server(authority[1]) as server:
        house = mail_house(tmp_path, server, authority[0])
        failed(house.store)
        server.refuses = 1
        turn(house.teller())
        house.now += 6
        turn(house.teller())
        house.store.close()
    (mail,) = server.mails
    assert "Subject: DICOM_NODE: job" in mail and "the model died" in mail and "Research use only" in mail and "MARKED" not in mail
    assert {"tls AUTH", "tls DATA"} <= set(server.seen) and "DATA" not in server.seen


def test_a_patient_is_named_where_the_site_wants_that(tmp_path: Path) -> None:
    """By the site's own words."""
    (tmp_path / "body.txt").write_text("Look at {{ patient.id }}: {{ says }}")
    more = f"patient_identity = true\nbody = {json.dumps(str(tmp_path / 'body.txt'))}\n"
    with mail_server() as server:
        house = mail_house(tmp_path, server, None, security="none", more=more)
        failed(house.store)
        turn(house.teller())
        assert "MARKED" not in str(house.store.messages.list()), "the ledger's message names nobody"
        house.store.close()
    assert "Look at MARKED: job" in server.mails[0]


def test_a_server_that_is_not_who_it_says_is_sent_nothing(tmp_path: Path, authority: tuple[Path, ssl.SSLContext]) -> None:
    """A certificate that nobody known has signed: no password goes there."""
    with mail_server(authority[1]) as server:
        house = mail_house(tmp_path, server, None)
        failed(house.store)
        turn(house.teller())
        (one,) = house.store.messages.list()
        house.store.close()
    assert (one.state, server.mails) == (MessageState.PENDING, []) and "tls AUTH" not in server.seen


def test_a_test_message_is_sent_by_a_verb(house: House, hook: Posted) -> None:
    """And a person is told what is wrong."""
    config = house.site.config.node.storage.parent / "node.toml"
    said = run("notify", "--test", "ops", "--config", config)
    assert (said.code, hook.said[0]["about"]) == (0, "test"), said.err
    hook.answers.append(403)
    assert run("notify", "--test", "ops", "--config", config).code != 0
    assert run("notify", "--test", "nobody", "--config", config).code != 0


def test_who_does_not_listen_is_tried_later_and_keeps_nobody_waiting(house: House, free_port: int) -> None:
    """After a failure to reach it nothing is tried before its time."""
    away = house.site.config.notify[0].model_copy(update={"to": f"http://127.0.0.1:{free_port}/"})
    teller = Teller(house.site.config, house.store, lambda: house.now, away, threading.Event(), 0.0)
    for number in range(3):
        failed(house.store, f"{STUDY}.{number}")
    turn(teller)
    assert sorted(one.attempts for one in house.store.messages.list()) == [0, 0, 1]
    assert issubclass(PeerUnavailable, Exception)


def test_two_processes_that_see_the_same_trouble_tell_it_once(house: House, hook: Posted) -> None:
    """Each finds it at another moment; what one of them has decided holds, when it begins and when it ends."""
    disk = Trouble(about="disk", key="disk", says="full")
    for found in ([disk], []):
        known = house.store.messages.troubles("ops")
        decided = []
        for now in (NOW, NOW + 0.3):
            messages, began, ended = turns("ops", found, known, now)
            one = Decision(messages=tuple(messages), began=tuple(began), ended=tuple(ended))
            decided.append(house.store.messages.decide("ops", "reader", one, now=now))
        assert decided == [True, False]
    assert len(house.store.messages.list()) == 2


def test_a_report_that_was_damaged_keeps_nothing_else_from_being_told(tmp_path: Path, hook: Posted) -> None:
    """It is logged; what happened after it is told."""
    told = f'[[notify]]\nname = "ops"\nto = "{hook.url}"\nfindings = [{{ concept = "Volume" }}]\n'
    house = house_of(tmp_path, told)
    teller = house.teller()
    teller.decide()
    finished(house.store, kinds=("SR",))
    (result,) = house.store.jobs.results(1)
    whole = phantoms.series()[0]
    number = Dataset()
    number.ValueType, number.MeasuredValueSequence = "NUM", [Dataset()]  # its value is lost
    whole.ContentSequence = [number]
    whole.save_as(house.store.archive.path(result.path), enforce_file_format=True)
    failed(house.store, study="1.2.3.77")
    turn(teller)
    assert [json.loads(body)["about"] for _, body in hook.posts] == ["job"]
    house.store.close()


def test_a_clock_that_is_put_back_keeps_nobody_from_looking(house: House) -> None:
    teller = house.teller()
    teller._look_every_s = 15.0
    house.now = NOW + 86400
    teller.decide()
    house.now = NOW
    teller.decide()
    assert teller._looked_at == NOW
