"""A real Chromium, driven by playwright; whatever a page complains of in its console fails the test that opened it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.peers import missing, need

PATIENCE_MS = 60_000  # the machine may be loaded: nothing here is a measurement


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser (playwright's `Browser`)."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed")
    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, address: str, *, may_fail: bool = False, **how: Any) -> Iterator[Any]:
    """Give a page in a context of its own; how: of playwright's `new_context`. may_fail: whether the console may tell of lost connections."""
    context = browser.new_context(**how)
    context.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        page.goto(address)
        yield page
    finally:
        context.close()
    assert may_fail or complaints == [], complaints
