"""The pages for those who do not see them, see little, or use no mouse: axe-core finds nothing to complain of, in light and dark, wide and narrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import axe
from tests.browsers import PATIENCE_MS, chromium
from tests.walks.screenshots import served
from tests.walks.viewed import web_of

PAGES = (
    "/",
    "/studies",
    "/jobs",
    "/jobs/1",
    "/worklist",
    "/deliveries",
    "/retrievals",
    "/quarantine",
    "/models",
    "/models/lung-ct",
    "/rules",
    "/remotes",
)
MORE = ("/storage", "/jobs/99", "/login", "/api/")

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe.fetched(tmp_path_factory.mktemp("axe"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def looked(browser: Any, script: str, addresses: list[str], **how: Any) -> dict[str, list[str]]:
    """Return what is wrong, by address."""
    context = browser.new_context(bypass_csp=True, **how)  # axe is no script of ours
    context.set_default_timeout(PATIENCE_MS)
    page, found = context.new_page(), {}
    for address in addresses:
        page.goto(address)
        if wrong := axe.violations(page, script):
            found[address] = wrong
    context.close()
    return found


def test_nothing_on_the_dashboard_keeps_anybody_out(browser: Any, script: str, tmp_path: Path) -> None:
    """WCAG 2.2 A and AA, as far as a program can tell."""
    with served(tmp_path) as (at, uids):
        pages = [at + path for path in (*PAGES, *MORE, f"/studies/{uids[0]}", f"/studies/{uids[0]}/purge", f"/rules?study={uids[0]}")]
        assert looked(browser, script, pages, color_scheme="light", viewport={"width": 1280, "height": 820}) == {}
        assert looked(browser, script, pages, color_scheme="dark", viewport={"width": 390, "height": 820}) == {}


def test_nothing_in_the_viewer_keeps_anybody_out(browser: Any, script: str, tmp_path: Path) -> None:
    """The images themselves need eyes; all that stands about them does not."""
    with web_of(tmp_path) as (at, study):
        assert looked(browser, script, [f"{at}/view/{study}"], viewport={"width": 1280, "height": 820}) == {}
