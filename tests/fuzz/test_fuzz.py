"""A slice of the fuzzer: a few cases of every target, the same every time; and proof that it finds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.fuzz.judge import Hunt, Worker
from tests.fuzz.robots import ROBOTS
from tests.fuzz.targets import TARGETS
from tests.fuzz.words import NAMESPACE

SECONDS = 1.0  # of each target
CASES = 100


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with Worker(tmp_path_factory.mktemp("fuzz"), limit=60.0) as made:
        yield made


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(worker, name):
    finds = []
    hunt = Hunt(name, TARGETS[name](), worker, most=CASES)
    hunt.go(SECONDS, finds.append)
    assert hunt.counts["cases"] > 0
    assert not finds, "\n".join(f"{find.key}\n{find.code}" for find in finds)


def test_on_a_loaded_machine_no_case_was_run(worker):
    """Hypothesis takes its time to make the first one."""
    from hypothesis import strategies as st

    hunt = Hunt("late", st.just("pass").map(lambda code: time.sleep(0.02) or code), worker, most=1)
    hunt.go(0.01, lambda find: None)
    assert hunt.counts["cases"] == 1


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("import os\nos.abort()", "SIGABRT beneath"),
        ("import ctypes\nctypes.string_at(0)", "SIGSEGV beneath"),
        ("x = array('float32', (3,))\nx[0] = 7", "what was given has changed"),
        ("import os\nos._exit(3)", "exit code 3 beneath"),
    ],
)
def test_what_is_wrong_is_found(worker, code, key):
    assert worker.run(code).key.startswith(key)
    assert worker.run("used(nx.fp4.encode([1.0]))").key is None, "the next case has a worker again"


def test_a_hang_is_found_and_told_where(tmp_path):
    with Worker(tmp_path, limit=0.5) as worker:
        found = worker.run("import time\ntime.sleep(30)")
    assert found.key.startswith("takes more than 2 s"), "it has longer when it is run again"
    assert "most recent call first" in found.detail


def test_on_a_loaded_machine_a_slow_case_counted_as_a_hang(tmp_path):
    """Its stack was long, too: what said that it took too long was cut off, and it counted as a crash."""
    with Worker(tmp_path, limit=0.5) as worker:
        deep = "import time\ndef f(n):\n    f(n - 1) if n else time.sleep({})\nf(200)"
        assert worker.run(deep.format(1.0)).key is None
        assert worker.run(deep.format(30)).key.startswith("takes more than 2 s")


def test_a_name_that_a_case_itself_makes_up_is_no_find(worker):
    assert worker.run("nx.observe.MinMax('int8').decode()").key is None
    beneath = """
class Broken(nx.observe.MinMax):
    @property
    def scale(self):
        return self.gone
Broken('int8').scale"""
    assert worker.run(beneath).key == "AttributeError beneath numerics.observe.base:__getattr__"


@pytest.mark.parametrize("code", [
    "q = nx.quantize(torch.ones(4), 'int8')\nq.requires_grad_()\nq.add_(1)",
    "q = nx.quantize(torch.ones(4), 'int8')\nq.requires_grad_()\nq[:2].add_(1)",
])  # fmt: skip
def test_what_torch_says_of_leaves_was_a_find(worker, code):
    """It says so of every tensor; of one without a gradient the package says what is wrong."""
    assert worker.run(code).key is None
    assert worker.run(code.replace("q.requires_grad_()", "")).refused


def test_what_python_refuses_is_no_find(worker):
    for code in ("nx.fp4.encode()", "1 / 0", "nx.fp4.encode([1.0], rounding='x')"):
        found = worker.run(code)
        assert (found.key, found.refused) == (None, True)


def test_the_words_of_a_case_are_there():
    assert {"array", "tensor", "used", "agree", "like", "forged"} <= NAMESPACE.keys()


def test_a_find_is_kept_as_a_script(worker, tmp_path):
    from hypothesis import strategies as st

    finds = []
    crash = st.integers(0, 1000).map(lambda k: f"import os\nif {k} > 10: os.abort()")
    Hunt("crash", crash, worker, most=60).go(20.0, finds.append)
    (find,) = finds
    assert find.code.endswith("if 11 > 10: os.abort()"), "as small as it can be"
    script = find.write(tmp_path)
    assert worker.run(Path(script).read_text(encoding="utf-8")).key == find.key


@pytest.mark.turns(6)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork and no signals here")
@pytest.mark.parametrize(("name", "count"), [("interrupts", 3), ("forks", 3), ("kills", 2)])
def test_robots_break_nothing(name, count):
    assert not list(ROBOTS[name](count, 1))
