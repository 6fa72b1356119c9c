"""The site: built without a warning, with everything that is public, asking for nothing elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

import numerics as nx
from tests.helpers.browser import browser
from tests.helpers.children import LIMIT

ROOT = Path(__file__).parents[2]


def hook():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "site" / "reference.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("material", reason="mkdocs-material is not installed: make site installs it")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert found.returncode == 0, found.stderr
    return out


def test_every_page_of_the_documentation_is_on_the_site(built):
    pages = {p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 15
    for page in pages:
        made = built / page.parent / (page.stem if page.stem != "index" else "") / "index.html"
        assert made.exists(), page


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")} <= named


def test_the_reference_has_every_public_name(built):
    text = (built / "reference" / "index.html").read_text(encoding="utf-8")
    missing = [name for name in nx.__all__ if f"nx.{name}" not in text and not name.startswith("__")]
    assert missing == []


def test_every_public_name_has_an_example():
    """A class, a function or a module: its docstring shows a call that is run."""
    lacking = []
    for name, thing in hook().names():
        if not (callable(thing) or isinstance(thing, ModuleType)) or isinstance(thing, nx.Dtype):
            continue  # formats and constants
        methods = vars(thing).values() if isinstance(thing, type) else ()
        texts = [thing.__doc__ or "", *(getattr(method, "__doc__", None) or "" for method in methods)]
        if not any(">>>" in text for text in texts):
            lacking.append(name)
    assert lacking == []


PAGES = ("/", "/tutorials/model/", "/reference/", "/gallery/")


@pytest.fixture(scope="module")
def home(built):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_site_opens_without_errors_and_asks_for_nothing_elsewhere(home):
    with browser() as found:
        for name in PAGES:
            page, wrong = found.new_page(viewport={"width": 375, "height": 800}), []
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            page.on("requestfailed", lambda asked, wrong=wrong: wrong.append(asked.url))
            page.on("request", lambda asked, wrong=wrong: None if asked.url.startswith(home)
                    or asked.url.startswith(("data:", "blob:")) else wrong.append(asked.url))  # fmt: skip
            page.goto(home + name)
            assert page.locator("h1").first.inner_text()
            assert page.evaluate("document.documentElement.scrollWidth") <= 375
            assert wrong == []
            page.close()


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1200, "dark")])
def test_axe_finds_nothing_that_keeps_people_out(home, width, scheme):
    """Links were told by their colour alone, code was too pale, parts that Material makes had no names."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    with browser() as found:
        for name in ("/", "/tutorials/model/", "/gallery/", "/threads/", "/qat/"):
            page = found.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.goto(home + name)
            result = axe.Axe().run(page)
            assert result.violations_count == 0, result.generate_report()
            page.close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_):
        pass
