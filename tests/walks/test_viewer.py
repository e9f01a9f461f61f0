"""What a reader sees in a real browser: the built-in viewer, with and without script, and OHIF."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from dicom_node.domain import NodeError
from dicom_node.web import ohif
from tests.phantoms import localizer
from tests.walks.node import wait_for
from tests.walks.viewed import browser, web_of

__all__ = ["browser"]

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The web of a node with the drawn study, its SEG and SR."""
    with web_of(tmp_path_factory.mktemp("analysed")) as found:
        yield found


def opened(browser: Browser, address: str, *, script: bool = True) -> Page:
    page = browser.new_context(java_script_enabled=script, viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    return page


def pixels(page: Page, selector: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")).astype(int)


def colourful(picture: np.ndarray) -> np.ndarray:
    """Say which pixels are no grey; the words in the upper corner are in colour."""
    found = picture.max(axis=2) - picture.min(axis=2) > 24
    found[:40] = False
    return found


def shown(page: Page, index: int) -> None:
    expect(page.locator(f'#stage[data-shown="{index}"]')).to_be_attached(timeout=PATIENCE_MS)


# ------------------------------------------------------------------------------------------------------------- built in


def test_the_letters_are_those_of_the_slice_that_is_shown(browser: Browser, tmp_path: Path) -> None:
    """PS3.3 C.7.6.1.1.1: a localizer has planes that cross in one series, and who goes through it must not read the sides of another one."""
    with web_of(tmp_path, works=False, images=localizer("walked")) as (address, study):
        page = opened(browser, f"{address}/view/{study}?slice=1")
        shown(page, 0)
        seen = []
        for index in range(4):
            shown(page, index)
            seen.append(("".join(page.locator(".view-edge").all_inner_texts()), page.locator("#stage").get_attribute("viewBox").split()[3][:4]))
            page.keyboard.press("ArrowDown")
        assert sorted(seen) == sorted([("RALP", "27.4")] * 2 + [("RHLF", "21.4")] * 2)


def test_a_segment_lies_on_its_slices_and_goes_when_it_is_taken_away(browser: Browser, analysed: tuple[str, str]) -> None:
    """The colour is on the marker's slice where the marker is, and neither without the segment nor on another slice."""
    address, study = analysed
    page = opened(browser, f"{address}/view/{study}?slice=10")  # the tenth from the head: index 10 of the phantom
    shown(page, 9)
    stage = colourful(pixels(page, "#stage"))
    at = np.argwhere(stage)
    assert len(at) > 1000
    height, width = stage.shape
    scale = min(width / 128, height / (128 * 1.2))
    left, top = (width - 128 * scale) / 2, (height - 128 * 1.2 * scale) / 2
    middle = (np.median(at, axis=0) - [top, left]) / [scale * 1.2, scale]
    assert np.abs(middle - [55, 90]).max() < 2  # rows 40-70, columns 80-100
    page.locator('input[name="hide"]').uncheck()
    expect(page.locator(".view-overlay[href]")).to_have_count(0)
    assert np.count_nonzero(colourful(pixels(page, "#stage"))) < 50
    page.locator('input[name="hide"]').check()
    expect(page.locator(".view-overlay[href]")).to_have_count(1)
    page.keyboard.press("Home")
    shown(page, 0)
    assert np.count_nonzero(colourful(pixels(page, "#stage"))) < 50


def test_keys_wheel_and_slider_go_through_the_slices(browser: Browser, analysed: tuple[str, str]) -> None:
    """Each shows another slice; the address follows."""
    address, study = analysed
    page = opened(browser, f"{address}/view/{study}?slice=5")
    shown(page, 4)
    page.keyboard.press("ArrowDown")
    shown(page, 5)
    page.locator("#stage").hover()
    page.mouse.wheel(0, 120)
    shown(page, 8)
    page.locator("#slider").fill("12")
    shown(page, 11)
    page.locator("#before").click()
    shown(page, 10)
    assert "slice=11" in page.url


def test_windows_change_what_is_seen(browser: Browser, analysed: tuple[str, str]) -> None:
    """A preset makes lungs visible that soft tissue leaves black; a mouse that is dragged changes it on."""
    address, study = analysed
    page = opened(browser, f"{address}/view/{study}?slice=2&window=soft")
    shown(page, 1)
    dark = pixels(page, "#stage").mean()
    page.get_by_role("link", name="Lung").click()
    expect(page.locator("#window")).to_have_text("C -600  W 1500")
    page.wait_for_function("() => document.querySelector('.view-image').getAttribute('href').includes('-600')")
    assert pixels(page, "#stage").mean() > dark + 10
    box = page.locator("#stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 200, steps=4)
    page.mouse.up()
    expect(page.locator("#window")).to_have_text("C -600  W 1800")


def test_a_measurement_leads_to_its_slice(browser: Browser, analysed: tuple[str, str]) -> None:
    """The report by TID 1500 is listed with name, value, unit and site, and marked."""
    address, study = analysed
    page = opened(browser, f"{address}/view/{study}?slice=1")
    shown(page, 0)
    row = page.locator(".view-measured tr", has_text="Volume").first
    expect(row).to_contain_text("17.2800 mL")  # 8 x 30 x 20 voxels of 3 x 1.2 x 1 mm
    expect(page.locator(".view-measured caption")).to_contain_text("AI · research use · unverified")
    row.get_by_role("link").click()
    shown(page, 10)


def test_without_script_every_link_shows_a_slice(browser: Browser, analysed: tuple[str, str]) -> None:
    """Links and a form; the segment is there, and goes when it is hidden."""
    address, study = analysed
    page = opened(browser, f"{address}/view/{study}?slice=9", script=False)
    page.locator("#after").click()
    expect(page.locator("#place")).to_have_text("10 / 20")
    assert np.count_nonzero(colourful(pixels(page, "#stage"))) > 1000
    page.locator('input[name="hide"]').check()
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#place")).to_have_text("10 / 20")
    assert np.count_nonzero(colourful(pixels(page, "#stage"))) < 50


def test_nothing_is_asked_of_anybody_else_and_nothing_fails(browser: Browser, analysed: tuple[str, str], tmp_path: Path) -> None:
    """No request leaves the node, the content security policy stops nothing, and every answer is good."""
    address, study = analysed
    page = browser.new_context().new_page()
    asked, said = [], []
    page.on("response", lambda answer: asked.append((answer.url, answer.status)))
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{address}/view/{study}")
    expect(page.locator("#stage[data-shown]")).to_be_attached(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")
    assert [one for one in asked if not one[0].startswith(address)] == []
    assert [one for one in asked if one[1] >= 400 and not one[0].endswith("/favicon.ico")] == []  # which browsers ask for by themselves
    assert [one for one in said if "404" not in one] == []


# ----------------------------------------------------------------------------------------------------------------- OHIF


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OHIF as it is published; without npm, or where that reaches nothing, these tests say so and are skipped."""
    folder = tmp_path_factory.mktemp("ohif")
    try:
        ohif.fetch(folder)
    except NodeError as error:
        if os.environ.get("CI") == "true" and shutil.which("npm"):
            pytest.fail(f"OHIF cannot be fetched: {error}")
        pytest.skip(f"OHIF is NOT tested: {error}")
    return folder


def in_ohif(page: Page, address: str, study: str) -> None:
    """Open a study, and wait for its images."""
    page.goto(f"{address}/ohif/viewer?StudyInstanceUIDs={study}")
    page.get_by_text("Confirm and hide").click(timeout=PATIENCE_MS)  # the notice of investigational use
    page.get_by_text("Skip all").click(timeout=PATIENCE_MS)  # the tour
    expect(page.get_by_text("Drawn chest").first).to_be_visible(timeout=PATIENCE_MS)


def yellow(page: Page) -> int:
    """Count the pixels in the segment's colour where the images are."""
    shot = page.screenshot(clip={"x": 300, "y": 100, "width": 900, "height": 640})
    red, green, blue = np.moveaxis(np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int), 2, 0)
    return int(np.count_nonzero((red > 180) & (green > 150) & (blue < 0.7 * red)))


def test_ohif_shows_the_segmentation_over_its_images(browser: Browser, fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The SEG is opened from the list of series and lies on its slice; before, the same slice has none of its colour. Nobody else is asked."""
    with web_of(tmp_path_factory.mktemp("in-ohif"), ohif=fetched) as (address, study):
        page = opened(browser, "about:blank")
        asked: list[tuple[str, int]] = []
        page.on("response", lambda answer: asked.append((answer.url.removeprefix("blob:"), answer.status)))
        in_ohif(page, address, study)
        expect(page.get_by_text("(1/20)")).to_be_visible(timeout=PATIENCE_MS)
        page.mouse.move(760, 400)
        for number in range(2, 8):
            page.mouse.wheel(0, 100)
            expect(page.get_by_text(f"({number}/20)")).to_be_visible(timeout=PATIENCE_MS)
        page.wait_for_load_state("networkidle")
        control = yellow(page)
        page.get_by_text("marker AI research use").first.dblclick()
        page.get_by_role("button", name="Yes").click(timeout=PATIENCE_MS)
        wait_for(lambda: yellow(page) > control + 3000, says=lambda: f"{yellow(page)} pixels, {control} without")
        expect(page.get_by_text("(7/20)")).to_be_visible(timeout=PATIENCE_MS)
        assert [one for one in asked if not one[0].startswith((address, "data:")) or one[1] >= 400] == []
    assert control < 100
