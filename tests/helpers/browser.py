"""A headless Chromium, where there is one: pages are opened in it, without network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser() -> Iterator[Any]:
    """Playwright's browser; the test is skipped with the reason where one of the two is missing."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium here ({', '.join(NAMES)}): apt-get install chromium-headless-shell")
    with api.sync_playwright() as made:
        opened = made.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def opened(found: Any, path: Any, width: int = 1200) -> Iterator[Any]:
    """A page in a window of that width; any error, any message and any request elsewhere fails the test."""
    page, wrong = found.new_page(viewport={"width": width, "height": 900}), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith("file:") else wrong.append(asked.url))
    page.set_default_timeout(20_000)  # milliseconds
    page.goto(f"file://{path}")
    try:
        yield page
    finally:
        page.close()
    assert wrong == []
