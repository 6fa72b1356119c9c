"""What every test shares: the executors under test, and inputs that matter."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton: it looks once

import hypothesis
import numpy as np
import pytest

import numerics as nx
from numerics.formats import dispatch

sys.path.append(str(Path(__file__).parents[1]))  # for bench; last, so that the installed wheel is tested

ROOT = Path(__file__).parents[1]


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


if stale():
    pytest.exit(
        f"the installed numerics is not this checkout ({len(stale())} modules differ, {stale()[0]} among "
        "them): `make .venv/.installed`, or `python -m pytest` for the checkout itself", returncode=4,
    )  # fmt: skip

hypothesis.settings.register_profile("house", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("house")

LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))
HOUR = 3600.0  # a proof's limit; where all of them are asked for, a day's


def pytest_collection_modifyitems(items) -> None:
    """pyproject.toml limits every test; proofs take longer."""
    for item in items:
        if LONG or item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.timeout(24 * HOUR if LONG else HOUR))


dispatch.register("interpreter", "tests.helpers.interpreted")
_NEEDS = {"ipu": ("onnx", "onnxruntime"), "interpreter": ("torch", "triton")}
EXECUTORS = tuple(
    name for name in ("array", "cpu", "ipu", "interpreter") if all(map(find_spec, _NEEDS.get(name, ())))
)
"""All that must equal `reference`, bit for bit; `interpreter`: the GPU's kernels, without a GPU."""

ELEMENTS = [d for d in nx.dtypes() if d.kind != "block"]
DECLARED = [
    nx.float_format(4, 3, subnormals=False, name="e4m3_flushed"),
    nx.float_format(5, 0, specials="none", name="e5m0"),
    nx.float_format(5, 3, signed=False, name="ue5m3"),
    nx.float_format(4, 3, signed=False, specials="fn", subnormals=False, name="ue4m3_flushed"),
    nx.float_format(2, 5, bias=3, specials="fnuz", name="e2m5fnuz"),
    nx.float_format(8, 5, name="e8m5"),
    nx.float_format(6, 0, signed=False, subnormals=False, has_zero=False, specials="fn", name="e6m0"),
]
BLOCKS = [d for d in nx.dtypes() if d.kind == "block"]
DECLARED_BLOCKS = [
    nx.block_format(block=24, element="fp4"),
    nx.block_format(block=300, element="int4"),
    nx.block_format(block=128, element="fp8_e5m2"),
    nx.block_format(block=16, element="fp8_e4m3fnuz"),
    nx.block_format(block=16, mantissa=5, sub_block=4),
    nx.block_format(block=12, mantissa=3, sub_block=3),
    nx.block_format(block=6, mantissa=2, sub_block=2),
    nx.block_format(block=16, element="fp6_e2m3", scale="fp8_e5m2"),
]


def pytest_configure(config):
    """Unsigned formats are tried on numbers of either sign; what that says has tests of its own."""
    config.addinivalue_line("filterwarnings", "ignore:.*negative and become:numerics.NumericsWarning")


@pytest.fixture(params=EXECUTORS)
def executor(request):
    """Runs the test on each executor."""
    with nx.use(request.param):
        yield request.param


@pytest.fixture(params=("array", "cpu"))
def host_executor(request):
    """Runs the test on each of the host's own executors; tests/laws tries the others."""
    with nx.use(request.param):
        yield request.param


def edges(seed: int = 0, random: int = 4000) -> np.ndarray:
    """float32 inputs that matter: every exponent with fractions around ties, specials, random bits."""
    rng = np.random.default_rng(seed)
    fractions = [0, 1, 2, 0x400000, 0x3FFFFF, 0x400001, 0x7FFFFF, 0x7FFFFE]
    fractions += [(k << shift) + d for shift in (18, 20) for k in (1, 2, 3, 5, 7) for d in (-1, 0, 1)]
    exponents = np.arange(256, dtype=np.uint32)[:, None] << np.uint32(23)
    grid = (exponents | np.array(fractions, np.uint32) & np.uint32(0x7FFFFF)).ravel()
    near = (rng.standard_normal(random) * np.exp2(rng.integers(-20, 20, random))).astype(np.float32)
    bits = rng.integers(0, 1 << 32, random, dtype=np.uint64).astype(np.uint32)
    magnitudes = np.concatenate([grid, near.view(np.uint32), bits])
    return np.concatenate([magnitudes, magnitudes ^ np.uint32(1 << 31)]).view(np.float32)


def each_executor():
    """The executors in turn, each chosen in its turn; for tests whose judge is slow and needed once."""
    for name in EXECUTORS:
        with nx.use(name):
            yield name


def assert_same_bits(came, due, inputs=None, on="") -> None:
    """Equal bit for bit; NaN by class (docs/formats.md §2).  on: which executor, for the message."""
    came, due = np.asarray(came), np.asarray(due)
    assert came.shape == due.shape
    assert came.dtype == due.dtype
    if came.dtype.kind == "f" or came.dtype.name == "bfloat16":
        unsigned = f"u{came.dtype.itemsize}"
        nan = np.isnan(came.astype(np.float64)), np.isnan(due.astype(np.float64))
        wrong = (nan[0] != nan[1]) | (~nan[0] & (came.view(unsigned) != due.view(unsigned)))
    else:
        wrong = came != due
    if wrong.any():
        at = np.argwhere(wrong)[0]
        place = tuple(at)
        source = "" if inputs is None else f" for {np.asarray(inputs)[place]!r}"
        on = f"on {on}: " if on else ""
        found = f"{came[place]!r}, not {due[place]!r}{source}"
        raise AssertionError(f"{on}{wrong.sum()} differ; at {place}: {found}")
