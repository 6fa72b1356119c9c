"""What holds for every test: what is installed is this checkout, how long it may take, and its executors."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from zlib import crc32

if "NUMERICS_TEST_DEVICE" not in os.environ:  # "cuda": the laws on the GPU that is there, tests/helpers
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton: it looks once
os.environ.pop("COLUMNS", None)  # what examples print is 80 wide, whoever begins them
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two workers share the cores: torch's threads would spin
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background: tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.append(str(Path(__file__).parents[1]))  # for bench and tests; last: the installed wheel is tested

import hypothesis
import pytest

import numerics as nx
from numerics.backends.reference.executor import ReferenceExecutor
from tests.helpers import asked_again  # noqa: F401 - what the judge asks is kept
from tests.helpers.executors import EXACT, EXECUTORS, HOST_EXECUTORS, LONG, QUICK

gc.disable()  # while tests are collected: nearly all that is made then stays
ROOT = Path(__file__).parents[1]
collect_ignore = [] if os.environ.get("NUMERICS_TEST_ADAPTERS") else ["adapters"]  # `make adapters`


def stale() -> list[str]:
    """Modules of the numerics under test that differ from this checkout, or that only one of both has."""
    package = Path(nx.__file__).parent
    if package == ROOT / "numerics":  # `python -m pytest` tests the checkout itself
        return []
    homes = {name: ROOT / name for name in ("formats", "backends")}

    def source(module: Path) -> Path:
        top, *rest = module.parts
        return homes[top].joinpath(*rest) if top in homes else ROOT / "numerics" / module

    installed = {file.relative_to(package) for file in package.rglob("*.py")}
    here = {file.relative_to(ROOT / "numerics") for file in (ROOT / "numerics").rglob("*.py")}
    here |= {file.relative_to(ROOT) for home in homes.values() for file in home.rglob("*.py")}
    here = {module for module in here if module.parts[:2] != ("conform", "plugin")}  # beside the package
    both = installed & here
    differ = {module for module in both if (package / module).read_bytes() != source(module).read_bytes()}
    return sorted(map(str, differ | (installed ^ here)))


if differing := stale():
    pytest.exit(
        f"the installed numerics is not this checkout ({len(differing)} modules differ, {differing[0]} among "
        "them): `make .venv/.installed`, or `python -m pytest` for the checkout itself", returncode=4,
    )  # fmt: skip

hypothesis.settings.register_profile("house", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window, for the tests of one file."""
    from tests.helpers.browser import browser

    with browser() as found:
        yield found


HOUR = 3600.0  # a proof's limit; where all of them are asked for, a day's


LONGEST = (  # seconds each, in one piece: who began them last would leave the other workers idle
    "test_a_type_is_wrong_or_a_public_name_was_any",
    "test_the_gpu_script_runs", "test_every_kernel_compiles_for_gpus_that_are_not_here",
    "test_the_source_as_it_is_equals_the_judge",
    "test_a_commit_is_measured_beside_another", "test_one_wrong_input_of_all_is_found", "test_two_ranks",
    "test_libraries_that_are_here_say_the_same",
    "test_generic_x86_gives_the_same_bits",
)  # fmt: skip


TURNS = 10


def resting(items) -> set:
    """What waits for `make verify`: tests marked `long`, and nine of ten cases of those marked `turns`.

    `turns(9)`: eight of nine, and so on.  Tests of fewer cases than that are each other's, in each file.
    Cases take turns by a hash of their names, not by their place: each format meets each option somewhere.
    """
    found = {item for item in items if item.get_closest_marker("long")}
    cases = defaultdict(list)
    for item in items:
        if mark := item.get_closest_marker("turns"):
            (turns,) = mark.args or (TURNS,)
            cases[item.path, getattr(item, "originalname", item.name), turns].append(item)
    taking = defaultdict(list)
    for (path, name, turns), group in cases.items():
        taking[path, name if len(group) >= turns else None, turns] += group
    for (_, _, turns), group in taking.items():
        group.sort(key=lambda item: crc32(item.name.encode()))
        found.update(group[-(-len(group) // turns) :])
    return found


def pytest_collection_modifyitems(config, items) -> None:
    """pyproject.toml limits every test; proofs take longer.  The longest tests are begun first.

    Whoever names a test, or a word of its name, gets it whole.
    """
    named = any("::" in argument for argument in config.args) or (config.option.keyword and not QUICK)
    if not (LONG or named):
        waiting = resting(items)
        config.hook.pytest_deselected(items=[*waiting])
        items[:] = [item for item in items if item not in waiting]
    for item in items:
        if LONG or item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.timeout(24 * HOUR if LONG else HOUR))
    items.sort(key=lambda item: getattr(item, "originalname", item.name) not in LONGEST)


def pytest_collection_finish(session) -> None:
    """Tests and what they import stay: whoever collects garbage need not look through them each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(params=EXECUTORS)
def executor(request):
    """Runs the test on each executor."""
    with nx.use(request.param):
        yield request.param


@pytest.fixture(params=HOST_EXECUTORS)
def host_executor(request):
    """Runs the test on each of the host's own executors; tests/laws tries the others."""
    with nx.use(request.param):
        yield request.param


@pytest.fixture
def exact_judge(monkeypatch):
    """The reference itself, which neither looks up nor remembers: for tests of it, and of what looks up."""
    for name, method in EXACT.items():
        monkeypatch.setattr(ReferenceExecutor, name, method)


@pytest.fixture
def decoded_products():
    """Torch multiplies the decoded values, so that a frozen model has the bits of the one it was made of."""
    with nx.decoded_products():
        yield
