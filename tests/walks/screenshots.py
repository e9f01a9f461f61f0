"""Draws the pictures of the dashboard for the documents: `python -m tests.walks.screenshots`, with invented patients and drawn images."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from dicom_node.config import Site, load_site
from dicom_node.domain import DeliveryState, Job
from dicom_node.receive import Door, import_file
from dicom_node.serve import judge_due
from dicom_node.store import Store
from tests import phantoms
from tests.browsers import chromium, opened
from tests.contracts import arrange
from tests.orthanc import free_ports
from tests.walks.node import ROOT, wait_for

FIGURES = ROOT / "docs" / "figures"
MOST_BYTES = 200_000
SITE = """
[node]
ae_title = "CTNODE"
complete_after_s = 0
disk_reserve_mb = 1
storage = {storage}
[web]
port = {port}
[remotes.pacs]
ae = "PACS@127.0.0.1:11115"
may = ["send", "receive"]
storage_commitment = true
[remotes.research]
ae = "RESEARCH@127.0.0.1:11116"
may = ["receive"]
[models.lung-ct]
folder = "models/lung_ct"
[models.brain-mr]
folder = "models/brain_mr"
[[rules]]
name = "chest CT gets lung volumes"
when = {{ Modality = "CT" }}
recognised = {{ body_part = ["chest"] }}
analyse = ["lung-ct"]
deliver = ["pacs"]
[[rules]]
name = "head MR gets a brain volume"
when = {{ Modality = "MR", BodyPartExamined = {{ contains = "HEAD" }} }}
analyse = ["brain-mr"]
deliver = ["pacs", "research"]
"""
STUDIES = (  # seconds ago, modality, body part, description, patient
    (5400, "CT", "CHEST", "CT chest, follow-up", "Example^Ada"),
    (4200, "MR", "HEAD", "MR head, T1", "Example^Ben"),
    (3100, "CT", "ABDOMEN", "CT abdomen", "Example^Cleo"),
    (2400, "CT", "CHEST", "CT chest, low dose", "Example^Dan"),
    (1500, "CT", "CHEST", "CT chest", "Example^Eve"),
    (700, "CT", "CHEST", "CT chest, contrast", "Example^Finn"),
    (240, "MR", "HEAD", "MR head, T1", "Example^Gus"),
    (40, "CT", "CHEST", "CT chest", "Example^Hana"),
)


def fill(folder: Path, site: Site, store: Store, now: float) -> list[str]:
    """Let studies come and be judged, their jobs be done as far as a picture wants, and their results be sent; return the studies' UIDs."""
    door, uids = Door(store, site.config.node), []
    for number, (before_s, modality, part, description, patient) in enumerate(STUDIES):
        header = {"BodyPartExamined": part, "StudyDescription": description, "PatientName": patient, "PatientID": f"EX-{number:04}"}
        header |= {
            "AccessionNumber": f"A{2400 + number}",
            "StudyDate": time.strftime("%Y%m%d", time.localtime(now)),
            "SeriesDescription": description,
        }
        images = phantoms.series(phantoms.marked((48, 24, 20)), seed=f"shown {number}", modality=modality, **header)
        for path in phantoms.write(images, folder / str(number)):
            import_file(door, path, received_at=now - before_s)
        uids.append(str(images[0].StudyInstanceUID))
        if before_s > 100:
            judge_due(site, store, now - before_s + 4)
            work(store, site, now - before_s + 6, ends=before_s > 300)
    store.jobs.seen("ct-server:4711", list(site.models), started_at=now - 86400, now=now)
    return uids


def work(store: Store, site: Site, at: float, *, ends: bool) -> None:
    """Do what waits: results are made and sent, but for one that is refused."""
    while job := store.jobs.claim("ct-server:4711", list(site.models), now=at, lease_s=1e6):
        if not ends:
            store.jobs.beat(job, now=at, lease_s=1e6, progress=0.62, note="segmenting")
            return
        done = at + 9.4 + job.id
        assert store.jobs.complete(job, [arrange.result_of(store, job, kind) for kind in ("SEG", "SR")], now=done, why="made SEG and SR")
        send(store, job, done + 0.4)


def send(store: Store, job: Job, at: float) -> None:
    for name in job.deliver:
        for one in store.deliveries.claim(name, "sender", now=at, lease_s=1e6):
            if one.result.kind == "SEG" and job.id == 3:
                store.deliveries.give_up(one, "sender", now=at, reason="refused: out of resources (A700), 20 times", status=0xA700)
            else:
                store.deliveries.sent(one, "sender", now=at + 0.2, status=0)
        store.deliveries.reached(name, now=at + 0.2)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Run the web over such a node; give its address and the studies' UIDs."""
    (port,) = free_ports(1)
    config = folder / "node.toml"
    config.write_text(SITE.format(storage=json.dumps(str(folder / "data")), port=port))
    site = load_site(config)
    store = Store.of(site.config.node)
    uids = fill(folder, site, store, time.time())
    assert store.deliveries.list(state=DeliveryState.DEAD)
    store.close()
    process = subprocess.Popen([sys.executable, "-m", "dicom_node", "web", "--config", str(config)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        from tests.walks.test_dashboard import answers

        wait_for(lambda: answers(port))
        yield f"http://127.0.0.1:{port}", uids
    finally:
        process.terminate()
        process.wait(60)


def draw(page: Any, name: str) -> None:
    """Save what a page shows, in few colours."""
    path = FIGURES / name
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size <= MOST_BYTES, f"{name} has {path.stat().st_size} bytes"
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def main() -> None:
    """Draw them all."""
    size = {"width": 1280, "height": 820}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (at, uids), chromium() as browser:
        with opened(browser, at, viewport=size) as page:
            draw(page, "dashboard.png")
        with opened(browser, f"{at}/studies/{uids[0]}", viewport=size) as page:
            draw(page, "study.png")
        with opened(browser, f"{at}/rules", viewport=size) as page:
            page.fill("#rules", page.input_value("#rules").replace('"CT"', '{ any = ["CT", "MR"] }').replace('["pacs"]', '["pacs", "research"]'))
            page.click(".editor button")
            page.locator("#dry-h").scroll_into_view_if_needed()
            page.evaluate("document.getElementById('dry-h').scrollIntoView()")
            draw(page, "rules.png")


if __name__ == "__main__":
    main()
