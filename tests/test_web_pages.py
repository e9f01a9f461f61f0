"""The dashboard with no socket: every page on an empty node and on a full one, every act and its line in the journal, who may do what."""

import asyncio
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from dicom_node.config import load_site, rules_from, rules_text
from dicom_node.domain import ConfigError, DeliveryState, JobState, RetrievalState, StudyState, Transient
from dicom_node.receive import Door, import_file
from dicom_node.serve import judge_due, trying
from dicom_node.serve.web import context
from dicom_node.store import Listing, Step, Store
from dicom_node.web import build, dress
from dicom_node.web.access import Person, Role
from dicom_node.web.pages import events, front, markdown, models, showing
from tests import phantoms
from tests.contracts import arrange

HERE = Path(__file__).parent
NOW = arrange.NOW
EVIL = "<script>alert(1)</script>'\"&"
SITE = f"""
[remotes.pacs]
ae = "PACS@127.0.0.1:1"
may = ["receive", "send"]
timeout_s = 1.0
storage_commitment = true
[remotes.archive]
ae = "ARCHIVE@127.0.0.1:2"
may = ["receive", "send"]
retrieve = "move"
[models.good]
folder = "{HERE / "models" / "good"}"
[[rules]]
name = "chest <CT>"
when = {{ Modality = "CT", BodyPartExamined = {{ none = ["KNEE"] }} }}
analyse = ["good"]
deliver = ["pacs"]
"""
PAGES = ("/", "/studies", "/jobs", "/worklist", "/deliveries", "/retrievals", "/quarantine", "/models", "/rules", "/remotes", "/storage")
OF_GOOD = {"models": ("good",)}


class AsSomebody:
    """ASGI, behind the gate: each request comes from whom the test says."""

    def __init__(self, app: Any, house: "House") -> None:
        self.app, self.house = app, house

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["state"]["person"] = Person(name="dr. who", role=self.house.role)
        await self.app(scope, receive, send)


class House:
    """A node, and somebody before its pages."""

    def __init__(self, folder: Path, site: str = "") -> None:
        if site:
            (folder / "node.toml").write_text(site)
        said = {"storage": folder / "data", "disk_reserve_mb": 0, "complete_after_s": 0}
        self.site = load_site(folder / "node.toml" if site else None, node=said)
        self.store = Store.of(self.site.config.node)
        self.now = NOW
        self.role = Role.ADMIN
        app = build(context(self.site, self.store, lambda: self.now))
        app.user_middleware.append(Middleware(AsSomebody, house=self))
        self.client = TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False)

    def close(self) -> None:
        """Close all."""
        self.client.close()
        self.store.close()

    def get(self, path: str, status: int = 200) -> str:
        """Return a page."""
        answer = self.client.get(path)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.text

    def post(self, path: str, status: int = 303, **form: Any) -> Any:
        """Send a form, with the token that the pages have."""
        token = re.search(r'name="csrf_token" value="([^"]*)"', self.get("/"))[1]
        answer = self.client.post(path, data={"csrf_token": token} | form)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer

    def says(self, answer: Any) -> str:
        """Return what the page says to which an act leads."""
        return re.search(r'class="flash" role="status">([^<]*)<', self.get(answer.headers["location"]))[1]

    def receive(self, folder: Path, seed: str, at: float = NOW, **header: Any) -> str:
        """Take a study in, and judge it by the rules; return its UID."""
        made = phantoms.series(seed=seed, **header)
        door = Door(self.store, self.site.config.node)
        for path in phantoms.write(made, folder / seed):
            import_file(door, path, received_at=at)
        judge_due(self.site, self.store, at + 10)
        return str(made[0].StudyInstanceUID)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[House]:
    """A node to which nothing came."""
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[House]:
    """A node with something of everything, to act on."""
    house = with_everything(tmp_path)
    yield house
    house.close()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The same, for those who only look."""
    house = with_everything(tmp_path_factory.mktemp("seen"))
    yield house
    house.close()


def with_everything(folder: Path) -> House:
    """Return a node whose jobs are 1 (done), 2 (runs) and 3 (waits)."""
    house = House(folder, SITE)
    store = house.store
    arrange.waiting(store, study="1.2.3.2", **OF_GOOD)
    done = arrange.claimed(store, **OF_GOOD)
    assert store.jobs.complete(done, [arrange.result_of(store, done, kind) for kind in ("SEG", "SR")], now=NOW + 5, why=EVIL)
    first, second = store.deliveries.claim("pacs", "sender", now=NOW + 5, lease_s=30)
    store.deliveries.give_up(first, "sender", now=NOW, reason=EVIL, status=0xA700)
    store.deliveries.sent(second, "sender", now=NOW, status=0)
    arrange.waiting(store, study="1.2.3.3", **OF_GOOD)
    store.jobs.beat(arrange.claimed(store, **OF_GOOD), now=NOW, lease_s=30, progress=0.4, note=EVIL)
    arrange.waiting(store, study="1.2.3.4", **OF_GOOD)
    arrange.arrive(
        store, study="1.2.3.1", PatientName=EVIL, StudyDescription=EVIL, AccessionNumber="ACC-1", StudyDate="20240105", SeriesDescription=EVIL
    )
    arrange.arrive(store, study="1.2.3.5")
    store.studies.hold(store.studies.view("1.2.3.5"), why="its instances name 2 patients", now=NOW)
    store.retrievals.ask("archive", "1.2.3.9", who="dr. who", why=EVIL, now=NOW)
    store.jobs.seen("worker <1>", ["good"], started_at=NOW, now=NOW)
    store.instances.quarantine(arrange.in_quarantine(store, b"x"), at=NOW, source="CT", reason=EVIL)
    return house


class Links(HTMLParser):
    """The links, forms and live regions of a page; and that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.labels: set[str] = set()
        self.fields: list[dict[str, Any]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        said = dict(attrs)
        self.links += [said[key] for key in ("href", "src") if said.get(key)]
        self.forms += [(said["action"], said["method"])] if tag == "form" else []
        self.ids += [said["id"]] if said.get("id") else []
        self.labels |= {said["for"]} if tag == "label" and said.get("for") else set()
        self.fields += [said] if tag in ("input", "select", "textarea") and said.get("type") not in ("hidden", "checkbox") else []
        assert not any(key.startswith("on") or key == "style" for key in said), f"{tag} {said}: no inline script or style"
        if tag not in ("meta", "link", "input", "br", "img", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open}"
        self.open.pop()


def crawl(house: House, starts: tuple[str, ...] = ("/",)) -> dict[str, str]:
    """Follow every link from some pages on; every one resolves. Return the pages by their addresses."""
    pages: dict[str, str] = {}
    waiting = list(starts)
    while waiting:
        address = waiting.pop()
        if address in pages or len(pages) > 400:
            continue
        answer = house.client.get(address)
        assert answer.status_code in (200, 303), f"{address}: {answer.status_code}"
        pages[address] = answer.text if "html" in answer.headers.get("content-type", "") else ""
        found = Links(pages[address])
        waiting += [urljoin(address, one) for one in found.links if not one.startswith("#")]
        waiting += [action for action, method in found.forms if method == "get"]
    return pages


# ------------------------------------------------------------------------------------------------------------------ looking


def test_every_page_of_an_empty_node_is_there_and_every_link_on_it(empty: House) -> None:
    pages = crawl(empty)
    assert set(PAGES) <= set(pages)
    assert "Nothing is stuck." in pages["/"]


def test_every_page_of_a_full_node_is_there_and_every_link_on_it(seen: House) -> None:
    pages = crawl(seen, ("/", "/studies/1.2.3.2", "/jobs/1", "/jobs/2", "/jobs/3", "/rules?study=1.2.3.2"))
    assert {"/studies/1.2.3.1", "/jobs/1", "/models/good", "/deliveries?state=DEAD&destination=pacs", "/studies/1.2.3.1/purge"} <= set(pages)


def test_every_page_can_be_used_by_those_who_do_not_see_it(seen: House) -> None:
    """WCAG 2.1: a title, one heading, a language, names of fields, ids that occur once; what is opened is closed (Links)."""
    for address, text in crawl(seen).items():
        if not text:
            continue
        found = Links(text)
        assert len(set(found.ids)) == len(found.ids), f"{address}: {sorted(found.ids)}"
        assert text.count("<h1") == 1 and '<html lang="en"' in text and "<title>" in text, address
        unnamed = [one for one in found.fields if one.get("id") not in found.labels and "aria-label" not in one]
        assert unnamed == [], f"{address}: {unnamed}"


def test_nothing_that_a_peer_said_becomes_markup(seen: House) -> None:
    """Names, descriptions and reasons are text, wherever they are shown."""
    pages = crawl(seen)
    assert [address for address, text in pages.items() if "<script>alert" in text or "alert(1)</script>" in text] == []
    shown = [address for address, text in pages.items() if "&lt;script&gt;alert(1)&lt;/script&gt;" in text]
    assert {"/", "/studies", "/studies/1.2.3.1", "/jobs/1", "/jobs/2", "/quarantine", "/retrievals", "/deliveries"} <= set(shown)


def test_a_page_is_not_kept_by_anybody(seen: House) -> None:
    """It may name a patient."""
    assert {seen.client.get(path).headers["cache-control"] for path in PAGES} == {"no-store"}


def test_no_patient_is_named_in_an_address_or_a_title(seen: House) -> None:
    pages = crawl(seen)
    assert "MARKED" in pages["/studies/1.2.3.1"]
    assert [address for address in pages if "MARKED" in address] == []
    assert [text for text in pages.values() if "MARKED" in text.partition("</title>")[0]] == []


def test_the_funnel_counts_and_links_to_what_it_counts(seen: House) -> None:
    said = {one.step: (one.reached, one.waiting) for one in seen.store.overview.funnel(NOW - 1, ("pacs",))}
    assert said == {
        Step.RECEIVED: (5, 2),  # one is open, one is held
        Step.COMPLETE: (3, 0),
        Step.MATCHED: (3, 1),
        Step.RUNNING: (2, 2),  # one runs, of one a result could not be sent
        Step.DELIVERED: (1, 1),  # one result is there, not committed
        Step.COMMITTED: (0, 0),
    }
    for step, (reached, waiting) in said.items():
        for query, number in (("", reached), ("&waiting=1", waiting)):
            text = seen.get(f"/studies?received=today&step={step.value}{query}")
            assert f">{number} {'study' if number == 1 else 'studies'}</h2>" in text, (step, query)


def test_what_came_yesterday_is_not_of_today(full: House) -> None:
    full.now += 2 * 86400
    assert {one.reached for one in full.store.overview.funnel(front.today(full.now))} == {0}
    assert "2 d ago" in full.get("/"), "what is stuck stays to be seen"


def test_studies_are_found_by_what_does_not_name_anybody(seen: House) -> None:
    seen.get("/studies")
    for query, uids in {
        "text=3.2": {"1.2.3.2"},
        "text=ACC-1": {"1.2.3.1"},
        "text=ACC*": {"1.2.3.1"},
        "text=%25": set(),
        "from=2024-01-01&to=2024-01-31": {"1.2.3.1"},
        "from=2024-01-06": set(),
        "state=CONFLICT": {"1.2.3.5"},
        "model=good": {"1.2.3.2", "1.2.3.3", "1.2.3.4"},
        "state=nonsense&from=x&step=y&page=-3": {f"1.2.3.{n}" for n in range(1, 6)},
    }.items():
        assert set(re.findall(r'href="/studies/([\d.]+)"', seen.get(f"/studies?{query}"))) == uids, query


def test_a_patient_is_searched_for_in_the_body_of_a_request(seen: House) -> None:
    """No address names a patient; whoever may see the pages may search."""
    text = seen.post("/studies", 200, patient_id="MARKED").text
    assert len(re.findall(r'href="/studies/[\d.]+"', text)) == 5 and "data-live" not in text.partition('id="list"')[2].partition("<h2")[0]
    assert "1.2.3.2" not in seen.post("/studies", 200, patient_name="Nobody*").text
    assert "neither a patient" in seen.post("/studies", 409).text
    seen.client.get("/studies?patient_id=MARKED").raise_for_status()


def test_lists_go_page_by_page(empty: House) -> None:
    for number in range(showing.PAGE_ROWS + 1):
        arrange.arrive(empty.store, study=f"1.2.4.{number}", at=NOW + number)
    first, second = empty.get("/studies"), empty.get("/studies?page=2")
    assert 'rel="next"' in first and 'rel="prev"' not in first and "page=2" in first
    assert 'rel="prev"' in second and 'rel="next"' not in second
    assert len(re.findall(r'href="/studies/1\.', second)) == 1
    assert "None." in empty.get("/studies?page=99999999")


@pytest.mark.parametrize(("typed", "leads"), [("1.2.3.2", "/studies/1.2.3.2"), ("3.2", "/studies/1.2.3.2"), ("1", "/jobs/1")])
def test_the_search_finds_a_study_or_a_job(seen: House, typed: str, leads: str) -> None:
    assert seen.client.get("/find", params={"q": typed}).headers["location"] == leads


@pytest.mark.parametrize("typed", ["", "ACC-1", EVIL, "9" * 300, "1.2.3"])
def test_the_search_lists_what_it_cannot_tell_apart(seen: House, typed: str) -> None:
    to = seen.client.get("/find", params={"q": typed}).headers["location"]
    assert to.startswith("/studies")
    seen.get(to)


def test_a_study_tells_its_walk(seen: House) -> None:
    text = seen.get("/studies/1.2.3.2")
    for said in ("first instance", "scheduled", "claimed", "completed", "delivery dead: SEG to pacs", "worker-1", "+s"):
        assert said in text
    assert 'href="/jobs/1"' in text and "A700" in text


@pytest.mark.parametrize(
    "path", ["/studies/1.2.99", "/studies/nonsense", "/jobs/99", "/jobs/x", "/jobs/99999999999999999999", "/models/none", "/rules?study=77"]
)
def test_what_is_not_there_is_said_to_be_missing(seen: House, path: str) -> None:
    assert "This did not work" in seen.get(path, 404)


def test_it_looks_as_its_reader_wants(seen: House) -> None:
    """The choice is kept in a cookie; where it leads back to is a page of this node."""
    assert 'data-theme="auto"' in seen.get("/")
    assert seen.post("/theme", theme="dark", to="/jobs").headers["location"] == "/jobs"
    assert 'data-theme="dark"' in seen.get("/")
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example"):
        assert seen.post("/theme", theme="odd", to=elsewhere).headers["location"] == "/"


def test_what_dresses_the_pages_is_our_own_and_small(empty: House) -> None:
    for name in ("pages.css", "live.js", "icon.svg"):
        assert empty.client.get(dress.address(name)).status_code == 200
    assert empty.client.get("/static/..%2fapp.py").status_code == 404
    assert "//" not in empty.client.get("/static/pages.css").text.replace("http://www.w3.org", ""), "nothing is loaded from elsewhere"


# ------------------------------------------------------------------------------------------------------------------- acting


def test_a_job_is_canceled_and_run_again(full: House) -> None:
    assert full.says(full.post("/jobs/3/cancel")) == "It is canceled."
    assert full.says(full.post("/jobs/2/cancel")) == "It is asked to stop."
    assert arrange.last(full.store, "canceled (stopped)", "1.2.3.4") == ("dr. who", "a person canceled it")
    assert "it has ended" in full.post("/jobs/1/cancel", 409).text
    made = full.post("/jobs/1/again")
    assert made.headers["location"] == "/jobs/4" and full.store.jobs.get(4).predecessor_id == 1
    assert arrange.last(full.store, "asked for", "1.2.3.2")[0] == "dr. who"
    assert "it has not ended" in full.post("/jobs/4/again", 409).text


def test_a_jobs_results_are_sent_to_one_more_remote(full: House) -> None:
    assert full.says(full.post("/jobs/1/send", destination="archive")) == "2 results are queued for archive."
    assert arrange.last(full.store, "queued", "1.2.3.2") == ("dr. who", "2 results to archive")
    assert "may receive" in full.post("/jobs/1/send", 409, destination="nobody").text


def test_dead_letters_are_replayed_and_canceled(full: House) -> None:
    """One, those that are chosen, all of a destination."""
    dead = full.store.deliveries.list(state=DeliveryState.DEAD)[0]
    full.post("/deliveries/cancel", one=dead.id)
    assert arrange.last(full.store, "delivery canceled", "1.2.3.2")[0] == "dr. who"
    assert full.says(full.post("/deliveries/replay", one=dead.id, state="DEAD")) == "1 deliveries are due again."
    assert arrange.last(full.store, "delivery pending", "1.2.3.2") == ("dr. who", "a person asked for it again")
    both = [one.id for one in full.store.deliveries.list()]
    assert full.says(full.post("/deliveries/replay", delivery=both)) == "1 deliveries are due again.", "the other is due already"
    for one in full.store.deliveries.claim("pacs", "sender", now=NOW + 60, lease_s=30):
        full.store.deliveries.give_up(one, "sender", now=NOW, reason="no")
    assert "Replay all dead letters to pacs" in full.get("/deliveries")
    assert full.says(full.post("/deliveries/replay", of="pacs")) == "2 deliveries are due again."
    assert "no delivery was chosen" in full.post("/deliveries/replay", 409).text
    assert "no number" in full.post("/deliveries/cancel", 409, one="x").text


def test_a_study_is_judged_again(full: House) -> None:
    assert full.says(full.post("/studies/1.2.3.5/judge")) == "It is judged again by the rules of now."
    assert full.store.overview.entry("1.2.3.5")["state"] == StudyState.OPEN
    assert arrange.last(full.store, "reopened", "1.2.3.5")[0] == "dr. who"


def test_a_study_is_removed_once_that_is_confirmed(full: House) -> None:
    assert "not confirmed" in full.post("/studies/1.2.3.1/purge", 409).text
    assert "removed" in full.says(full.post("/studies/1.2.3.1/purge", confirmed="yes"))
    assert full.store.studies.view("1.2.3.1") is None
    assert arrange.last(full.store, "purged", "1.2.3.1") == ("dr. who", "a person asked for it")
    assert "no longer here" in full.get("/studies/1.2.3.1"), "what happened to it is still told"


def test_a_study_is_fetched_and_its_retrieval_canceled(full: House) -> None:
    made = full.post("/retrievals", remote="archive", study="1.2.77")
    assert full.says(made) == "Retrieval 2 asks archive for it."
    assert full.store.retrievals.get(2).by_person and full.store.retrievals.get(2).who == "dr. who"
    full.post("/retrievals/2/cancel")
    assert full.store.retrievals.get(2).state is RetrievalState.CANCELED
    assert arrange.last(full.store, "retrieval canceled", "1.2.77")[0] == "dr. who"
    assert "not a remote" in full.post("/retrievals", 409, remote="pacs", study="1.2.77").text
    assert "no Study Instance UID" in full.post("/retrievals", 409, remote="archive", study="1.2.*").text


def test_a_remote_is_asked_whether_it_answers(full: House) -> None:
    """By the same probe as `dicom-node check`; nobody listens there."""
    text = full.post("/remotes/pacs/echo", 200).text
    assert "takes no connection" in text and "fails" in text
    assert full.says(full.post("/remotes/pacs/try")) == "What waits for pacs is tried at once."
    assert [one.who for one in full.store.journal.of_study("") if one.kind == "try now"] == ["dr. who"]
    full.post("/remotes/nobody/echo", 409)


VIEWERS_FORMS = {"/theme", "/studies", "/deliveries/replay", "/rules/dry-run", "/jobs/1/feedback"}


def test_acts_are_for_those_who_may(full: House) -> None:
    """Looking for viewers, acting for operators, removing for administrators; pages offer what may be done."""
    acts = ("/jobs/3/cancel", "/jobs/1/again", "/jobs/1/send", "/deliveries/replay", "/deliveries/cancel", "/studies/1.2.3.5/judge")
    acts += ("/retrievals", "/retrievals/1/cancel", "/remotes/pacs/echo", "/remotes/pacs/try", "/rules/dry-run")
    full.role = Role.VIEWER
    assert {full.client.post(path).status_code for path in (*acts, "/studies/1.2.3.1/purge")} == {403}
    for text in crawl(full, ("/", "/jobs/1", "/jobs/3", "/studies/1.2.3.5")).values():
        assert {action for action, method in Links(text).forms if method == "post"} <= VIEWERS_FORMS
    full.role = Role.OPERATOR
    assert full.client.post("/studies/1.2.3.1/purge").status_code == full.client.get("/studies/1.2.3.1/purge").status_code == 403
    full.role = Role.NOBODY
    assert {full.client.get(path).status_code for path in (*PAGES, "/events", "/find", "/studies/1.2.3.1")} == {401}


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"x" * 600_000, "application/x-www-form-urlencoded", 413),
        (b"{}", "application/json", 415),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
    ],
)
def test_a_form_is_read_within_bounds(full: House, data: bytes, kind: str, status: int) -> None:
    answer = full.client.post("/jobs/3/cancel", content=data, headers={"content-type": kind})
    assert answer.status_code in (status, 403) and full.store.jobs.get(3).state is JobState.SCHEDULED


# -------------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/jobs/1/cancel", 405), ("GET", "/studies/1.2.3.1/purge", 403)]
)
def test_who_may_not_is_told_so_by_a_page(empty: House, method: str, path: str, status: int) -> None:
    """Programs are answered in JSON; nobody whom the node does not know sees a page."""
    empty.role = Role.VIEWER
    html = empty.client.request(method, path, headers={"accept": "text/html"})
    assert (html.status_code, "This did not work" in html.text, "<nav" in html.text) == (status, True, True)
    assert empty.client.request(method, path).headers["content-type"] == "application/json"
    assert empty.client.get("/api/v1/nothing", headers={"accept": "text/html"}).headers["content-type"] == "application/json"
    empty.role = Role.NOBODY
    assert "<nav" not in empty.client.request(method, path, headers={"accept": "text/html"}).text


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, str, str]]:
    """A node with two real studies that its rule was asked about: a chest, which got a job, and a knee, which did not."""
    folder = tmp_path_factory.mktemp("judged")
    house = House(folder, SITE)
    chest = house.receive(folder, "chest", NOW)
    knee = house.receive(folder, "knee", NOW + 100, BodyPartExamined="KNEE")
    house.now = NOW + 200
    yield house, chest, knee
    house.close()


def test_rules_explain_themselves_for_a_study(judged: tuple[House, str, str]) -> None:
    """As `dicom-node explain` does."""
    house, chest, knee = judged
    assert "good runs" in house.get(f"/rules?study={chest}")
    text = house.get(f"/rules?study={knee[-20:]}")
    assert "BodyPartExamined is KNEE, which is excluded" in text and "no rule matches this study" in text


def test_an_edited_rule_is_tried_on_the_last_studies_and_changes_nothing(judged: tuple[House, str, str]) -> None:
    house, _, _ = judged
    before = house.store.overview.pulse()
    text = house.post("/rules/dry-run", 200, rules=rules_text(house.site.config.rules), studies="20").text
    assert "Of 2 studies 0 differ. Jobs: 0 more, 0 fewer, 0 otherwise, 1 the same." in text
    edited = rules_text(house.site.config.rules).replace("KNEE", "HEAD").replace('["pacs"]', '["archive"]')
    text = house.post("/rules/dry-run", 200, rules=edited, studies="20").text
    assert "Of 2 studies 2 differ. Jobs: 1 more, 0 fewer, 1 otherwise, 0 the same." in text
    assert "to archive instead of pacs" in text
    assert "Of 2 studies 1 differ. Jobs: 0 more, 1 fewer" in house.post("/rules/dry-run", 200, rules="", studies="20").text
    assert "Of 1 studies" in house.post("/rules/dry-run", 200, rules="", studies="1").text
    assert house.store.overview.pulse() == before and len(house.store.jobs.list()) == 1


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('[[rules]]\nname = "a"\nanalyse = [', "line 3"),
        ('[[rules]]\nname = "a"\nanalyse = ["none"]', "line 2: rule 'a' analyses with 'none'"),
        ('\n[[rules]]\nname = "a"\nanalyse = ["good"]\nwhen = { Modalty = "CT" }', "line 5: when: 'Modalty' is not a DICOM keyword"),
        ('[[rules]]\nname = "a"\nanalyse = ["good"]\n\n[[rules]]\nname = "b"\nanalyze = ["good"]', "line 7: analyze: there is no such key"),
        ('[[rules]]\nname = "a"\nanalyse = ["good"]\n[node]\nport = 1', "line 4: 'node' is no rule"),
        ("rules = 3", "rules"),
        ("x" * 100_001, "longer than"),
        ("a = " + "[" * 5000, "nested"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told_with_its_line(judged: tuple[House, str, str], rules: str, said: str) -> None:
    text = judged[0].post("/rules/dry-run", 400, rules=rules, studies="5").text
    assert said in unescape(text), re.search(r'id="problem">(.*?)</p>', text)
    with pytest.raises(ConfigError):
        rules_from(rules, judged[0].site.config)


def test_a_rule_that_would_look_for_ever_is_ended(judged: tuple[House, str, str]) -> None:
    """An expression that backtracks stops the process in which it runs: that is not the web's."""
    rules = '[[rules]]\nname = "a"\nanalyse = ["good"]\nwhen = { SeriesInstanceUID = { matches = "([0-9.]+)+x" } }'
    with pytest.raises(ConfigError, match="not done with 5 studies"):
        trying.tried_apart(judged[0].site, rules, 5, NOW, limit_s=4.0)
    with trying._turn, pytest.raises(Transient, match="somebody else"):
        trying.tried_apart(judged[0].site, rules, 5, NOW)


def test_rules_are_written_as_they_are_read() -> None:
    """Of the rules that come with the program, and of every key."""
    site = load_site(None)
    assert rules_from(rules_text(site.config.rules), site.config) == site.config
    site = load_site(Path(HERE.parent / "config" / "hospital.toml"))
    assert rules_from(rules_text(site.config.rules), site.config) == site.config


# --------------------------------------------------------------------------------------------------------------- its parts


def test_a_card_is_shown_without_its_markup_and_nothing_of_it_runs() -> None:
    text = f"# A {EVIL}\n\nBold **x<y** and `a<b`, [here](javascript:alert).\n\n| a | b |\n|---|---|\n| {EVIL} | 2 |\n\n"
    text += "- one\n  more\n- two\n\n```\n<b>\n```\n"
    html = markdown.as_html(text)
    assert "<script" not in html and "href" not in html
    for part in (
        "<h2>A &lt;script",
        "<strong>x&lt;y</strong>",
        "<code>a&lt;b</code>",
        '<th scope="col">a</th>',
        "<li>one more</li>",
        "<pre>&lt;b&gt;</pre>",
    ):
        assert part in html


def test_every_card_of_the_program_can_be_shown() -> None:
    for folder in sorted((HERE.parent / "models").iterdir()):
        if (folder / "README.md").is_file():
            Links(str(models.card(folder)))
            assert "<h2>" in models.card(folder)


@pytest.mark.parametrize(("seconds", "median", "p95"), [((), None, None), ((1.0,), 1.0, 1.0), (tuple(map(float, range(1, 101))), 50.0, 95.0)])
def test_times_are_told_by_rank(seconds: tuple[float, ...], median: float | None, p95: float | None) -> None:
    assert (models.share(seconds, 0.5), models.share(seconds, 0.95)) == (median, p95)


def test_names_dates_and_sizes_are_written_for_people() -> None:
    assert showing.person_name("Doe^Jane^^Dr=ドウ") == "Doe, Jane  Dr"
    assert (showing.dicom_date("20240105"), showing.dicom_date("2024"), showing.in_bytes(1536), showing.in_bytes(3)) == (
        "2024-01-05",
        "2024",
        "1.5 KB",
        "3 B",
    )


def test_an_event_comes_when_something_changes_and_readers_are_counted(empty: House) -> None:
    """At first, and after a change; readers beyond the bound are refused; the thread ends with the last of them."""

    async def reading() -> None:
        news = events.News(empty.store)
        key, heard = news.join(asyncio.get_running_loop())
        await asyncio.wait_for(heard.wait(), 30)
        heard.clear()
        arrange.waiting(empty.store, study="1.2.3.1")
        await asyncio.wait_for(heard.wait(), 30)
        lines = events.told(heard)
        assert [await anext(lines), await anext(lines)] == ["retry: 2000\n\n", "event: changed\ndata: 1\n\n"]
        others = [news.join(asyncio.get_running_loop()) for _ in range(events._MOST_READERS)]
        assert others[-1] is None and None not in others[:-1]
        for one in (key, *(other[0] for other in others[:-1])):
            news.leave(one)
        thread = news._thread
        while thread is not None and thread.is_alive():
            await asyncio.sleep(0.01)

    asyncio.run(reading())


def test_listings_are_told_apart_by_committing(seen: House) -> None:
    """A result that is there waits for a commitment only where one is asked for."""
    wanted = Listing(step=Step.DELIVERED, waiting=True)
    assert (seen.store.overview.count(wanted, ("pacs",)), seen.store.overview.count(wanted, ())) == (1, 0)
