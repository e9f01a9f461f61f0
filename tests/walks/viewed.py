"""A node with one drawn study, its web as a process of its own, and a real browser that looks at it."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright
from pydicom import Dataset

from tests import phantoms
from tests.orthanc import free_ports
from tests.reported import Node
from tests.walks.node import PATIENCE_S, ROOT, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
MARKER = (slice(6, 14), slice(40, 70), slice(80, 100))  # what the model marks: slices, rows, columns


def drawn_chest() -> np.ndarray:
    """Return stored values (slice, row, column) of a body with two lungs of air, and the marker beside one of them."""
    slices, rows, columns = np.indices((20, 128, 128)) - np.array([10, 64, 64]).reshape(3, 1, 1, 1)
    noise = np.random.default_rng(1).integers(-12, 12, slices.shape)
    values = np.full(slices.shape, 24)  # -1000 HU
    values[(columns / 58) ** 2 + (rows / 44) ** 2 < 1] = 420  # -604 HU
    for centre in (-26, 26):
        values[((columns - centre) / 20) ** 2 + (rows / 32) ** 2 + (slices / 12) ** 2 < 1] = 160
    values = values + noise
    values[MARKER] = 1084  # 60 HU
    return values.astype(np.int16)


@contextlib.contextmanager
def web_of(folder: Path, *, works: bool = True, ohif: Path | None = None, images: Sequence[Dataset] = ()) -> Iterator[tuple[str, str]]:
    """Serve a node that holds the drawn study, analysed or not, or other images; give its address and the study's UID."""
    node = Node(folder, {"marker": Path(__file__).parent / "models" / "marker"})
    study = node.receive(images or phantoms.series(drawn_chest(), spacing_mm=(3.0, 1.2, 1.0), SeriesDescription="Drawn chest"))
    if works:
        node.work()
    storage = node.site.config.node.storage
    node.close()
    if ohif is not None:
        (storage / "ohif").symlink_to(ohif)
    (port,) = free_ports(1)
    with node.config.open("a") as file:
        file.write(f"\n[web]\nport = {port}\n")
    command = [sys.executable, "-m", "dicom_node", "web", "--config", str(node.config)]
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _lives(address), says=lambda: (folder / "web.log").read_text()[-4000:])
        yield address, study
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def _lives(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a screen and without a graphics card."""
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no Chromium on this machine")
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()
