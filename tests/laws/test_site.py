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


@pytest.mark.parametrize("name", PAGES)
def test_the_site_opens_without_errors_and_asks_for_nothing_elsewhere(home, chromium, name):
    page, wrong = chromium.new_page(viewport={"width": 375, "height": 800}), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda asked: wrong.append(asked.url))
    page.on("request", lambda asked: None if asked.url.startswith(home)
            or asked.url.startswith(("data:", "blob:")) else wrong.append(asked.url))  # fmt: skip
    page.goto(home + name)
    assert page.locator("h1").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert wrong == []
    page.close()


EVERY = sorted(
    [f"/{p.relative_to(ROOT / 'docs').with_suffix('').as_posix()}/".replace("/index/", "/")
     for p in (ROOT / "docs").rglob("*.md")] + ["/reference/"]
)  # fmt: skip


@pytest.mark.turns(18)
@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1200, "dark")])
@pytest.mark.parametrize("name", EVERY)
def test_axe_finds_nothing_that_keeps_people_out(home, chromium, name, width, scheme):
    """Links were told by their colour alone, code was too pale, parts that Material makes had no names.

    Five pages were looked at; of the others three had tables with a heading that said nothing.
    """
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        assert page.goto(home + name).ok
        result = axe.Axe().run(page)
        assert result.violations_count == 0, result.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        page.close()


def test_every_column_of_a_table_has_a_heading():
    """Who hears a table, and does not see it, was told nothing of its first column."""
    heading = re.compile(r"^(\|.*\|)\n\|[ :|-]+\|$", re.M)
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    found = [(page, line) for page in pages for line in heading.findall(page.read_text(encoding="utf-8"))]
    assert len(found) > 50
    assert [str(page) for page, line in found if re.search(r"\|\s*\|", line)] == []


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_):
        pass
