"""Whoever waits for a decoder or a disk keeps nobody else waiting: pages and health are answered from other threads."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import RLELossless

from dicom_node.coding.decoders import DECODERS
from dicom_node.serve.web import context
from dicom_node.web import Context, Kept, build
from tests import phantoms
from tests.reported import Node
from tests.walks.webs import payload

MANY = 60  # more than there are threads of the pool
PATIENCE_S = 60
MARKER = Path(__file__).parent / "walks" / "models" / "marker"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Context, Dataset]]:
    """A node that holds one coded image."""
    image = phantoms.series(np.zeros((2, 16, 16), np.int16), seed="aside")[0]
    image.compress(RLELossless, generate_instance_uid=False)
    node = Node(tmp_path, {"marker": MARKER})
    node.receive([image])
    yield context(node.site, node.store), image
    node.close()


async def _meanwhile(web: Context, asked: list[tuple[str, str, dict[str, str], bytes]], go_on: threading.Event) -> list[int]:
    """Ask for something many times, and while nothing of it goes on for health and a page; return the statuses of what was asked for many times."""
    transport = httpx2.ASGITransport(app=build(web))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", timeout=None) as client:
        waiting = [asyncio.ensure_future(client.request(method, path, headers=headers, content=body)) for method, path, headers, body in asked * MANY]
        try:
            await asyncio.sleep(0.5)
            for path in ("/health/live", "/studies"):
                answer = await asyncio.wait_for(client.get(path), PATIENCE_S)
                assert answer.status_code == 200
            assert not any(one.done() for one in waiting)
        finally:
            go_on.set()
        return [one.status_code for one in await asyncio.gather(*waiting)]


@pytest.mark.parametrize(("resource", "accept"), [("rendered", "image/png"), ("frames/1", "application/octet-stream")])
def test_who_waits_for_the_decoders_keeps_nobody_waiting(held: tuple[Context, Dataset], resource: str, accept: str) -> None:
    """A frame that lets its decoder hang is given up after minutes; until then the node is seen to live."""
    web, image = held
    path = f"/dicom-web/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}/{resource}"
    go_on, begun = threading.Event(), threading.Event()

    def hang() -> None:
        with DECODERS._lock:
            begun.set()
            go_on.wait(PATIENCE_S * 2)

    thread = threading.Thread(target=hang)
    thread.start()
    begun.wait(PATIENCE_S)
    assert asyncio.run(_meanwhile(web, [("GET", path, {"Accept": accept}, b"")], go_on)) == [200] * MANY
    thread.join()


def test_who_waits_for_the_disk_keeps_nobody_waiting(held: tuple[Context, Dataset]) -> None:
    """Files wait for their turn as long as those of C-STORE do."""
    web, _ = held
    go_on = threading.Event()

    class Slow:
        def write(self, data: bytes | memoryview, /) -> None:
            pass

        def close(self) -> Kept:
            go_on.wait(PATIENCE_S * 2)
            return Kept(sop_class_uid="1.2", sop_instance_uid="1.3", study_instance_uid="1.4", series_instance_uid="1.5")

        def drop(self) -> None:
            pass

    node = web.site.config.node.model_copy(update={"max_associations": MANY})
    site = replace(web.site, config=web.site.config.model_copy(update={"node": node}))
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b-1'}
    asked = [("POST", "/dicom-web/studies", headers, payload([b"x" * 200]))]
    assert asyncio.run(_meanwhile(replace(web, site=site, bring=lambda *_: Slow()), asked, go_on)) == [200] * MANY
