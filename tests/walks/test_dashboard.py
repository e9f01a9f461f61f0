"""The dashboard in a real browser, before a node that serves: a study is watched as it walks, and a person acts."""

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicom_node.domain import DeliveryState, JobState
from dicom_node.simulate.pacs import Pacs
from tests import phantoms
from tests.browsers import chromium, opened
from tests.orthanc import free_ports
from tests.walks.node import Node, serving, wait_for

HERE = Path(__file__).parent
PAGES = (
    "/",
    "/studies",
    "/jobs",
    "/worklist",
    "/deliveries",
    "/retrievals",
    "/quarantine",
    "/models",
    "/models/waits",
    "/rules",
    "/remotes",
    "/storage",
)
STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'"

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@dataclass(frozen=True)
class House:
    """A node, its address in a browser, and the browser."""

    node: Node
    at: str
    browser: Any

    def send(self, folder: Path, seed: str) -> str:
        """Send a small study, and return its UID."""
        made = phantoms.series(seed=seed)
        self.node.send(phantoms.write(made, folder))
        return str(made[0].StudyInstanceUID)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One node, one PACS, one remote that is not there, one browser; no patient is named in its log afterwards."""
    folder = tmp_path_factory.mktemp("house")
    port, http, nowhere = free_ports(3)
    with Pacs(folder / "pacs", ae_title="PACS") as pacs, chromium() as browser:
        remotes = {
            "scanner": {"ae": "SCANNER@127.0.0.1:104", "may": ["send"]},
            "pacs": {"ae": str(pacs.ae), "may": ["receive"]},
            "nowhere": {"ae": f"NOWHERE@127.0.0.1:{nowhere}", "may": ["receive"]},
        }
        rules = [{"name": "CT waits", "when": {"Modality": "CT"}, "analyse": ["waits"], "deliver": ["pacs"]}]
        web = {"start": True, "port": http}
        with serving(folder, remotes=remotes, rules=rules, models={"waits": HERE / "models" / "waits"}, port=port, web=web) as node:
            wait_for(lambda: answers(http), says=lambda: node.log[-2000:])
            yield House(node, f"http://127.0.0.1:{http}", browser)
        assert [mark for mark in ("Marked", "MARKED", "19500102") if mark in node.log] == []


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5) as answer:
            return json.loads(answer.read()) == {"status": "live"}
    except OSError:
        return False


def hears(page: Any) -> None:
    """Wait until a page listens, and mark it: a page that is loaded anew has no mark."""
    page.wait_for_selector("#heard:not([hidden])", state="visible")
    page.evaluate("window.marked = true")


def is_same(page: Any) -> bool:
    return bool(page.evaluate("window.marked === true"))


def reached(page: Any, step: str) -> int:
    return int(re.sub(r"\D", "", page.locator(f".funnel li:has(.what:text-is('{step}')) .number").inner_text()))


def test_a_study_is_watched_as_it_walks(house: House, tmp_path: Path) -> None:
    """The first page and the study's own change without being loaded again: received, judged, running, delivered."""
    with opened(house.browser, house.at) as page:
        hears(page)
        before = reached(page, "received")
        house.node.gate(shut=True)
        uid = house.send(tmp_path, "walks")
        page.wait_for_function(f"() => +document.querySelector('.funnel .number').lastChild.textContent === {before + 1}")
        page.wait_for_selector(f"#latest a[href='/studies/{uid}']")
        page.click(f"#latest a[href='/studies/{uid}']")
        hears(page)
        page.wait_for_selector("#jobs tr:has(progress) td:has-text('waits at the gate')")
        assert "IN PROGRESS" in page.inner_text("#jobs") and "claimed" in page.inner_text("#walk")
        house.node.gate(shut=False)
        page.wait_for_selector("#walk td:text-is('delivery sent: SR to pacs')")
        assert is_same(page) and "COMPLETED" in page.inner_text("#jobs") and "SEG" in page.inner_text("#results")
        assert "CT waits" in page.inner_text("#routing")
    with opened(house.browser, house.at) as page:
        assert reached(page, "delivered") == before + 1


def test_a_job_is_canceled_by_a_person(house: House, tmp_path: Path) -> None:
    house.node.gate(shut=True)
    uid = house.send(tmp_path, "canceled")
    (job,) = wait_for(lambda: [one for one in house.node.jobs(uid) if one.state is JobState.IN_PROGRESS])
    with opened(house.browser, f"{house.at}/jobs/{job.id}") as page:
        page.click("#cancel")
        assert "asked to stop" in page.inner_text(".flash")
        page.wait_for_selector("#facts .state.canceled")
        assert "stopped" in page.inner_text("#facts") and page.is_visible("#again")
    house.node.gate(shut=False)
    assert [event.who for event in house.node.store.journal.of_study(uid) if event.kind == "cancel requested"] == ["local"]


def test_a_dead_letter_is_replayed_by_a_person(house: House, tmp_path: Path) -> None:
    house.node.gate(shut=False)
    (job,) = house.node.settled(house.send(tmp_path, "replayed"))
    store = house.node.store
    store.deliveries.send(job.id, "nowhere", who="test", now=0.0)
    wait_for(lambda: store.deliveries.destination("nowhere").failures)
    found = wait_for(lambda: store.deliveries.claim("nowhere", "test", now=2e9, lease_s=1e9))
    for one in found:
        assert store.deliveries.give_up(one, "test", now=1.0, reason="the destination refused it")
    with opened(house.browser, f"{house.at}/deliveries?state=DEAD") as page:
        page.check(f"#choose-{found[0].id}")
        page.click("#replay-chosen")
        assert "1 deliveries are due again" in page.inner_text(".flash")
    again = [one for one in store.deliveries.list(job_id=job.id) if one.id == found[0].id]
    assert again[0].state is not DeliveryState.DEAD


def test_an_edited_rule_is_tried(house: House, tmp_path: Path) -> None:
    house.node.gate(shut=False)
    house.node.settled(house.send(tmp_path, "tried"))
    jobs = len(house.node.store.jobs.list())
    with opened(house.browser, f"{house.at}/rules", may_fail=True) as page:
        text = page.input_value("#rules")
        assert 'name = "CT waits"' in text
        page.fill("#rules", text.replace('"CT"', '"MR"'))
        page.click(".editor button")
        page.wait_for_selector("#answer")
        assert "0 the same" in page.inner_text("#answer") and "−" in page.inner_text(".differs")
        page.fill("#rules", text.replace("Modality", "Modalty"))
        page.click(".editor button")
        assert "line 3: when: 'Modalty' is not a DICOM keyword" in page.inner_text("#problem")
    assert len(house.node.store.jobs.list()) == jobs


def test_every_page_fits_a_telephone_and_keeps_to_a_strict_policy(house: House, tmp_path: Path) -> None:
    """390 CSS pixels wide nothing but tables scrolls sideways; no inline script or style is asked for (Content Security Policy)."""
    house.node.gate(shut=False)
    uid = house.send(tmp_path, "phone")
    (job,) = house.node.settled(uid)
    with opened(house.browser, house.at, viewport={"width": 390, "height": 844}, color_scheme="dark") as page:
        page.route(lambda url: "/events" not in url and "/static/" not in url, strictly)
        for path in (*PAGES, f"/studies/{uid}", f"/jobs/{job.id}", f"/rules?study={uid}", f"/studies/{uid}/purge"):
            page.goto(house.at + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 22, 26)", path


def strictly(route: Any) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": STRICT})


def test_it_is_light_or_dark_as_its_reader_says(house: House) -> None:
    with opened(house.browser, house.at, color_scheme="light") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(ground) == "rgb(245, 247, 248)"
        page.select_option("#theme", "dark")
        page.wait_for_selector("html[data-theme=dark] #theme option[selected]:text-is('dark')", state="attached")
        assert page.evaluate(ground) == "rgb(15, 22, 26)"
        page.goto(house.at + "/jobs")
        assert page.evaluate(ground) == "rgb(15, 22, 26)"


def test_it_works_without_a_script_and_with_keys_alone(house: House) -> None:
    """Links and forms; the first key leads past the navigation."""
    with opened(house.browser, house.at + "/jobs", java_script_enabled=False) as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.select_option("#state", "COMPLETED")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs?state=COMPLETED*")
        page.fill("#q", "no such thing")
        page.keyboard.press("Enter")
        page.wait_for_url("**/studies?text=no+such+thing")
        assert "0 studies" in page.inner_text("#list")


def test_a_page_is_kept_fresh_after_the_web_was_killed(house: House, tmp_path: Path) -> None:
    """`serve` starts it again, and the browser opens the stream of events anew."""
    with opened(house.browser, house.at, may_fail=True) as page:
        hears(page)
        os.kill(web_process(house.node.process.pid), signal.SIGKILL)
        page.wait_for_selector("#heard", state="hidden")
        page.wait_for_selector("#heard:not([hidden])", state="visible")
        uid = house.send(tmp_path, "after")
        page.wait_for_selector(f"#latest a[href='/studies/{uid}']")
        assert is_same(page)
        house.node.settled(uid)


def web_process(parent: int) -> int:
    """Return the process that answers HTTP, among the children of `serve`."""
    children = [child for task in Path(f"/proc/{parent}/task").iterdir() for child in (task / "children").read_text().split()]
    return next(int(one) for one in children if b"\0web\0" in Path(f"/proc/{one}/cmdline").read_bytes())
