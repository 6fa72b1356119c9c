"""The pytest plugin: `pytest --numerics-target=mypkg.kernels:encode --numerics-dtype=fp8_e4m3`.

One test a law for each target, also where there are no test files; and the fixture `numerics_check`
for one's own tests.  A target is judged in a process of its own, as on the command line: what ends it, with
whatever status, ends no run of pytest.  pytest imports this module in every run on the machine, so it
installs beside the package and not inside it: nothing of `numerics` is imported before a target is named or
the fixture used.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from numerics.conform.checking import Check
    from numerics.conform.products.trial import ProductCheck
    from numerics.conform.verdict import Counterexample, Verdict

NOT_JUDGED = "not judged: "
CANNOT_BE = "it cannot be judged, as its first law says"
NOT_ELSEWHERE = "; --numerics-here judges what only this process can import"

_OPTIONS: dict[str, str] = {
    "dtype": "the format that the targets are judged by; one for all, or one a target; not of matmul",
    "kind": "encode (default), decode, round, pack, unpack, affine, quantize, fake_quantize or matmul; "
    "one for all, or one a target",
    "rounding": "the rounding mode; half_even by default",
    "overflow": "saturate or nonsaturate; the format's own by default",
    "scale-rule": "the scale rule of blocks, as for Block.encode; floor by default",
    "axis": "along which blocks lie; -1 by default",
    "tensor-scale": "of NVFP4: the scale of the whole tensor, 1 by default; amax where targets find it",
    "effort": "quick, default or high",
    "seed": "of the numbers that are drawn; 0 by default",
    "inputs": "the type of a target's values: float32 (default), bfloat16, float16 or float64",
    "scheme": "of affine and quantize: who shares a scale, as in per_token, 'per_group(32)' or 128x128",
    "draw": "of stochastic rounding: own, or a rule and bits as in a8",
    "least": "of scales that the target finds: one, none, 'amax 1e-12', 'scale 1e-7'",
    "scale-layout": "of blocks: cublas or cdna4, where scales lie in tiles",
    "array": "what a target takes: numpy (default) or torch",
    "a": "of matmul: float32, bfloat16, float16, a format, or a format and a scheme: 'int4 per_group(32)'",
    "b": "of matmul: the same",
    "accumulate": "of matmul: what it sums in; float32 by default",
    "out": "of matmul: the type of the result; float32 by default",
    "layout": "of matmul: nk (default), kn where b is turned, or both operands, as in bmk,bnk",
    "timeout": "seconds of a call, then a target hangs; 600 by default; not with here",
}
_FLAGS: dict[str, str] = {
    "contiguous": "targets take only contiguous arrays of one dimension",
    "whole-blocks": "targets take only lines that are whole blocks",
    "finite": "targets take neither NaN nor Inf",
    "packed": "of blocks: codes come as bytes",
    "one-thread": "targets are called by one thread alone",
    "fills": "targets are given arrays for their results last, and fill them",
    "strict-nan": "NaN must be the canonical code",
    "exhaustive": "all 2**32 float32 inputs",
    "bias": "of matmul: targets take a bias",
    "alpha": "of matmul: targets take alpha, which multiplies the product",
    "beta": "of matmul: targets take c and beta, and add beta * c",
    "nonempty": "of matmul: targets take no empty operands",
    "in-place": "of matmul: with fills and beta, the array of the result holds c",
    "here": "targets are judged in this process, which ends with them: for a debugger",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, in a group of their own."""
    group = parser.getgroup("numerics", "numerics: judging number-format kernels")
    group.addoption("--numerics-target", action="append", default=[], metavar="MODULE:FUNCTION",
                    help="a kernel to judge; may be repeated")  # fmt: skip
    for name, text in _OPTIONS.items():
        group.addoption(f"--numerics-{name}", action="append", default=[], help=text)
    for name, text in _FLAGS.items():
        group.addoption(f"--numerics-{name}", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Lets kernels be found in the current directory; refuses options of targets where none is named."""
    if not config.getoption("numerics_target"):
        given = [name for name in (*_OPTIONS, *_FLAGS) if config.getoption(f"numerics_{_python_name(name)}")]
        if given:
            raise pytest.UsageError(
                f"--numerics-{given[0]} needs a target, as in --numerics-target=mypkg.kernels:encode"
            )
    elif "" not in sys.path:
        sys.path.insert(0, "")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Before xdist's workers start, of which none can say what is wrong: the laws that they will find."""
    if session.config.getoption("dist", "no") != "no" and not hasattr(session.config, "workerinput"):
        list(_items(session))


@pytest.fixture(scope="session")
def numerics_check() -> Callable[..., Verdict]:
    """`numerics.conform.check`, which fails the test with the verdict's text where a kernel is wrong."""
    from numerics.conform.checking import check
    from numerics.formats.errors import NumericsError

    def judged(target: Any, dtype: Any, **options: Any) -> Verdict:
        __tracebackhide__ = True
        try:
            verdict = check(target, dtype, **options)
        except NumericsError as wrong:  # the place in the test is of use, those within the judge are not
            wrong.__traceback__ = None
            raise wrong from None
        if not verdict:
            pytest.fail(str(verdict), pytrace=False)
        return verdict

    return judged


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Beside the tests of files: the laws of the targets of the command line."""
    items += _items(session)


def _items(session: pytest.Session) -> Iterator[LawItem]:
    targets: list[str] = session.config.getoption("numerics_target")
    for place, target in enumerate(targets):
        options = _options(session.config, place, len(targets))
        suite = TargetSuite.from_parent(session, name=target, nodeid=target, options=options)
        yield from suite.collect()


def _options(config: pytest.Config, place: int, count: int) -> dict[str, Any]:
    """The options of one target: those given once are everybody's."""
    found: dict[str, Any] = {}
    for name in map(_python_name, _OPTIONS):
        given: list[str] = config.getoption(f"numerics_{name}")
        if len(given) not in (0, 1, count):
            raise pytest.UsageError(f"--numerics-{name} is given {len(given)} times for {count} targets")
        if given:
            found[name] = given[0] if len(given) == 1 else given[place]
    if "dtype" not in found and found.get("kind") != "matmul":
        raise pytest.UsageError("--numerics-target needs --numerics-dtype, as in --numerics-dtype=fp8_e4m3")
    for name in ("axis", "seed"):
        if name in found:
            found[name] = _integer(name, found[name])
    if "tensor_scale" in found and found["tensor_scale"] != "amax":
        found["tensor_scale"] = _number("tensor-scale", found["tensor_scale"])
    if "timeout" in found:
        found["timeout"] = _number("timeout", found["timeout"])
    return found | {name: True for name in map(_python_name, _FLAGS) if config.getoption(f"numerics_{name}")}


def _python_name(name: str) -> str:
    return name.replace("-", "_")


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise pytest.UsageError(f"--numerics-{name}={text} is not an integer") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise pytest.UsageError(f"--numerics-{name}={text} is no number") from None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says why laws were skipped, which pytest itself does with -rs alone."""
    found: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        why = report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
        if NOT_JUDGED in why:
            target, _, law = report.nodeid.rpartition("::")
            found.setdefault(f"{target}: {why.partition(NOT_JUDGED)[2]}", []).append(law)
    for why, laws in found.items():
        terminalreporter.write_line(f"skipped, since of {why}: {', '.join(laws)}")


class TargetSuite(pytest.Collector):
    """One target: judged once, reported law by law."""

    def __init__(self, *, options: dict[str, Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.here = options.pop("here", False)
        self.timeout = options.pop("timeout", None)
        self.options = options
        self.first = ""
        """The law that was asked first of a target that cannot be judged."""

    @cached_property
    def asked(self) -> Check | ProductCheck:
        """The target and its trials; raises UsageError where they cannot be."""
        from numerics.conform.checking import asked, seconds_of
        from numerics.conform.isolation.judging import imported
        from numerics.formats.errors import NumericsError

        if self.here and self.timeout is not None:
            raise pytest.UsageError("--numerics-timeout is not for --numerics-here: no hang can be ended")
        try:
            seconds = seconds_of(self.timeout, isolated=not self.here)
            if self.name.partition(":")[0] not in sys.modules:  # what ends a process would end this one
                imported(self.name, seconds)
            return asked(self.name, **self.options)
        except NumericsError as wrong:
            raise pytest.UsageError(str(wrong)) from wrong

    @cached_property
    def verdict(self) -> Verdict | str:
        """What the judge says, asked once; why the target cannot be judged, where it cannot."""
        from numerics.conform.checking import check
        from numerics.formats.errors import NumericsError

        try:
            if self.here:
                return self.asked.verdict()
            return check(self.name, isolated=True, timeout=self.timeout, **self.options)
        except NumericsError as wrong:
            return f"{wrong}{NOT_ELSEWHERE if 'cannot be imported' in str(wrong) else ''}"
        except Exception as fault:  # of ours: its places are of use, those of pytest are not
            told = "".join(traceback.format_exception(fault))
            return f"{type(fault).__name__}: {fault}; a fault of numerics\n{told}"

    def expect_judged(self, law: str) -> Verdict:
        """The verdict; where there is none, the law that is asked first ends in an error, others are skipped.

        That no device is there is nothing wrong with a target, and no test that has passed.
        """
        __tracebackhide__ = True
        if not isinstance(verdict := self.verdict, str):
            return verdict
        self.first = self.first or law
        if law == self.first:
            pytest.fail(verdict, pytrace=False)
        pytest.skip(f"{NOT_JUDGED}{CANNOT_BE}")

    def collect(self) -> Iterator[LawItem]:
        """One item a law; with --dist loadgroup one worker of xdist judges a target."""
        for law in self.asked.laws:
            item = LawItem.from_parent(self, name=law)
            if self.config.pluginmanager.has_plugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(self.name))
            yield item


class LawItem(pytest.Item):
    """One law on one target."""

    parent: TargetSuite
    judged: Verdict

    def setup(self) -> None:
        """Judges the target, if no other law has: what cannot be judged is an error, not a failure."""
        self.judged = self.parent.expect_judged(self.name)

    def runtest(self) -> None:
        """Fails with the verdict where the law is broken."""
        verdict = self.judged
        broken = [failure for failure in verdict.failures if failure.law == self.name]
        if broken:
            raise LawBroken(_text(verdict, broken[0]))
        if self.name not in verdict.laws:
            pytest.skip(f"{NOT_JUDGED}{verdict.failures[0].law} is broken, which comes before it")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The law and its counterexample, without a traceback."""
        if isinstance(excinfo.value, LawBroken):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[str, None, str]:
        """How the item is named in reports."""
        return self.parent.name, None, f"{self.parent.name}: {self.name}"


class LawBroken(Exception):
    """A target breaks a law."""


def _text(verdict: Verdict, broken: Counterexample) -> str:
    return str(verdict) if broken is verdict.failures[0] else str(broken)
