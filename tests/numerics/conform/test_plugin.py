"""The pytest plugin and the command: in real processes, as users run them."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

import numerics as nx
from numerics.cli.conform import conform_command
from tests.helpers.children import LIMIT

pytest_plugins = ["pytester"]
INSTALLED = "numerics" in importlib.metadata.entry_points(group="pytest11").names
PLUGIN = () if INSTALLED else ("-p", "_numerics_pytest")
KERNELS = """
import numpy as np
import numerics as nx
def right(x): return nx.fp8_e4m3.encode(x)
def wrong(x): return nx.fp8_e4m3.encode(x, rounding="half_away")
def blocks(x): return nx.mxfp4.encode(x, scale_rule="ceil")
def decode(c): return nx.fp8_e4m3.decode(c)
def nowhere(x): raise RuntimeError("no GPU")
def narrow(x):
    assert x.flags.c_contiguous and x.shape[-1] % 32 == 0 and np.isfinite(x).all()
    return nx.mxfp4.encode(x)
number = 3
"""


@pytest.fixture(scope="module")
def imported():
    """All that a check imports: pytester takes back what is imported within it, and Numba bears it once."""
    for d in (nx.fp8_e4m3, nx.mxfp4):
        assert nx.conform.check(d.encode, d)


@pytest.fixture
def project(pytester, imported):
    pytester.makepyfile(kernels=KERNELS)

    def run(*arguments, process=False):
        options = (*PLUGIN, "-p", "no:cacheprovider", *arguments)
        if process:
            return pytester.runpytest_subprocess(*options, timeout=LIMIT)
        return pytester.runpytest_inprocess(*options)

    return run


@pytest.mark.turns
def test_one_item_a_law_without_any_test_file(project):
    result = project("--numerics-target=kernels:right", "--numerics-dtype=fp8_e4m3", "-v", process=True)
    result.assert_outcomes(passed=21)
    result.stdout.fnmatch_lines(["kernels:right::ties PASSED*"])


@pytest.mark.turns
def test_a_broken_law_fails_with_its_counterexample(project):
    result = project("--numerics-target=kernels:wrong", "--numerics-dtype=fp8_e4m3")
    result.assert_outcomes(passed=17, failed=1, skipped=3)
    result.stdout.fnmatch_lines(["law ties: *", "*input 0x*", '*matches the dialect "ties away"*'])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.turns
def test_laws_were_skipped_and_nothing_said_why(project):
    result = project("--numerics-target=kernels:wrong", "--numerics-dtype=fp8_e4m3", "-q")
    why = "skipped, since of kernels:wrong: ties is broken, which comes before it: *, *, *"
    result.stdout.fnmatch_lines([why])


@pytest.mark.turns
def test_targets_may_be_repeated_each_with_its_own_options(project):
    result = project(
        "--numerics-target=kernels:right",
        "--numerics-target=kernels:blocks",
        "--numerics-target=kernels:decode",
        "--numerics-dtype=fp8_e4m3",
        "--numerics-dtype=mxfp4",
        "--numerics-dtype=fp8_e4m3",
        "--numerics-kind=encode",
        "--numerics-kind=encode",
        "--numerics-kind=decode",
        "-k",
        "scale_rule or (table and not repeatable)",
    )
    result.assert_outcomes(passed=1, failed=1, deselected=54)
    result.stdout.fnmatch_lines(["law scale_rule: *", '*matches the dialect "scale rule ceil"*'])


@pytest.mark.turns
def test_options_of_blocks_arrive(project):
    result = project(
        "--numerics-target=kernels:blocks", "--numerics-dtype=mxfp4", "--numerics-scale-rule=ceil",
        "--numerics-effort=quick", "--numerics-seed=3", "--numerics-inputs=bfloat16",
    )  # fmt: skip
    result.assert_outcomes(passed=19)


@pytest.mark.turns
def test_fixtures_serve_ones_own_tests(project, pytester):
    pytester.makepyfile("""
        import kernels, pytest
        @pytest.mark.parametrize("kernel", [kernels.right, kernels.wrong])
        def test_kernel(numerics_check, kernel):
            assert numerics_check(kernel, "fp8_e4m3", rounding="half_even")
    """)
    result = project()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*wrong is not right*", "*law ties: *"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--numerics-target=kernels:right"], "--numerics-target needs --numerics-dtype"),
        (["--numerics-target=kernels:right", "--numerics-dtype=fp8_e4m4"], "did you mean 'fp8_e4m3'"),
        (
            ["--numerics-target=kernels:right", "--numerics-dtype=fp4", "--numerics-dtype=int8"],
            "--numerics-dtype is given 2 times for 1 targets",
        ),
    ],
)
def test_bad_options(project, arguments, said):
    result = project(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{said}*"])


@pytest.mark.turns
def test_a_target_that_is_not_there_is_said(project):
    result = project("--numerics-target=kernels:number", "--numerics-dtype=fp4", "-k", "round_trip")
    result.stderr.fnmatch_lines(["*target 'kernels:number' is an int, which cannot be called*"])
    result = project("--numerics-target=kernels:right", "--numerics-dtype=fp4", "--numerics-array=jax")
    result.stderr.fnmatch_lines(["*unknown array 'jax'*"])
    result = project("--numerics-target=kernels:blocks", "--numerics-dtype=mxfp4", "--numerics-axis=two")
    result.stderr.fnmatch_lines(["*--numerics-axis=two is not an integer*"])


@pytest.mark.turns
def test_what_a_target_takes_is_said(project):
    """One that takes only whole blocks in contiguous memory, and numbers alone."""
    result = project(
        "--numerics-target=kernels:narrow", "--numerics-dtype=mxfp4", "--numerics-whole-blocks",
        "--numerics-contiguous", "--numerics-finite", "--numerics-axis=-1",
    )  # fmt: skip
    assert result.parseoutcomes()["passed"] == 19
    result = project("--numerics-target=kernels:narrow", "--numerics-dtype=mxfp4", "--numerics-whole-blocks")
    assert result.parseoutcomes()["failed"] == 1


JUDGES = """
import kernels
def test_nowhere(numerics_check): numerics_check(kernels.nowhere, "fp4")
def test_none(numerics_check): numerics_check(kernels.right, "fp99")
"""


@pytest.mark.turns
def test_a_device_that_is_not_there_printed_the_inside_of_pytest(project):
    """A law after the other asked again, failed, and printed pluggy: 24,700 lines, 21 times."""
    result = project("--numerics-target=kernels:nowhere", "--numerics-dtype=fp8_e4m3")
    result.assert_outcomes(errors=1, skipped=20)
    said = "kernels:nowhere cannot be judged on this machine: RuntimeError: no GPU"
    text = result.stdout.str()
    assert text.splitlines().count(said) == 1
    assert len(text.splitlines()) < 30
    result.stdout.fnmatch_lines(["skipped, since of kernels:nowhere: it cannot be judged, as its first law*"])


@pytest.mark.turns
def test_workers_of_xdist_said_what_is_inside_them(project):
    pytest.importorskip("xdist")
    given = ("-n2", "--numerics-dtype=fp8_e4m3")
    result = project("--numerics-target=kernels:nowhere", *given, process=True)
    found = result.parseoutcomes()
    assert found["errors"] in (1, 2)
    assert found["errors"] + found["skipped"] == 21
    assert len(result.stdout.lines) < 30
    result = project("--numerics-target=kernels:gone", *given, process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: target 'kernels:gone' cannot be imported*"])


def test_a_fault_of_the_judge_is_shown_once_without_the_inside_of_pytest(project, monkeypatch):
    def broken(self):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("numerics.conform.checking.Check.verdict", broken)
    result = project("--numerics-target=kernels:right", "--numerics-dtype=fp8_e4m3", "--numerics-here")
    result.assert_outcomes(errors=1, skipped=20)
    result.stdout.fnmatch_lines(["ZeroDivisionError: ours; a fault of numerics", "Traceback*", "*ours*"])
    assert not [line for line in result.stdout.lines if re.search("/(pluggy|_pytest)/.*line", line)]


def test_the_fixture_showed_the_inside_of_the_judge(project, pytester):
    pytester.makepyfile(JUDGES)
    result = project()
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert "nowhere cannot be judged on this machine" in text
    assert "unknown format 'fp99'" in text
    assert "checking.py" not in text


@pytest.mark.turns
def test_an_import_that_ends_the_process_ended_pytest_without_a_line(project, pytester):
    pytester.makepyfile(ends="import os; os._exit(4)")
    result = project("--numerics-target=ends:f", "--numerics-dtype=fp4", process=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = "ERROR: target 'ends:f' cannot be imported: the process ended with exit code 4"
    result.stderr.fnmatch_lines([said])


ENDS = """
import os, time
import numerics as nx
def leaves(x):
    if x.size == 17: os._exit(0)
    return nx.fp4.encode(x)
def hangs(x):
    if x.size == 17: time.sleep(600)
    return nx.fp4.encode(x)
"""


@pytest.mark.turns
def test_a_kernel_that_ends_its_process_with_0_made_pytest_end_with_0(project, pytester):
    pytester.makepyfile(ends=ENDS)
    given = ("--numerics-dtype=fp4", "--numerics-effort=quick")
    result = project("--numerics-target=ends:leaves", *given, process=True)
    result.assert_outcomes(failed=1, passed=7, skipped=12)
    result.stdout.fnmatch_lines(["law runs: *", "*the process ended with exit code 0*"])
    result = project("--numerics-target=ends:hangs", "--numerics-timeout=4", *given)
    result.assert_outcomes(failed=1, passed=7, skipped=12)
    result.stdout.fnmatch_lines(["law runs: *"])
    pytest.importorskip("xdist")
    result = project("--numerics-target=ends:leaves", *given, "-n2", "--dist=loadgroup", process=True)
    result.assert_outcomes(failed=1, passed=7, skipped=12)


def test_options_that_no_target_uses_were_ignored(project):
    for given in ("--numerics-dtype=fp4", "--numerics-exhaustive", "--numerics-here"):
        result = project(given)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*{given.partition('=')[0]} needs a target, as in *"])
    named = ("--numerics-target=kernels:right", "--numerics-dtype=fp4")
    for given, said in (
        ("=5", "is not for --numerics-here"),
        ("=soon", "is no number"),
        ("=0", "timeout=0*allowed"),
    ):
        result = project(*named, f"--numerics-timeout{given}", *["--numerics-here"] * (given == "=5"))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*{said}*"])


def printed(code):
    """What a fresh process prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT).stdout.strip()


def test_a_run_of_pytest_that_judges_nothing_imports_nothing_of_ours(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_no_trace(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("numerics") or "_numerics_pytest" in sys.modules
            assert [name for name in sys.modules if name.partition(".")[0] == "numerics"] == []
            assert [finder for finder in sys.meta_path if "numerics" in type(finder).__module__] == []
        """
    )
    options = (*PLUGIN, "-p", "no:cacheprovider")
    pytester.runpytest_subprocess(*options, timeout=LIMIT).assert_outcomes(passed=1)


@pytest.mark.turns
def test_only_strategies_import_hypothesis():
    code = (
        "import sys, numerics as nx; from numerics import conform;"
        "v = conform.check(lambda x: nx.mxfp4.encode(x, scale_rule='ceil'), 'mxfp4'); assert not v;"
        "print([m for m in ('hypothesis', 'pytest', 'torch', 'click') if m in sys.modules])"
    )
    assert printed(code) == "[]"


def command(*arguments):
    return CliRunner().invoke(conform_command, arguments)


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    (tmp_path / "own_kernels.py").write_text(KERNELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.turns
def test_the_command_says_right_or_wrong(kernels):
    found = command("own_kernels:right", "--dtype", "fp8_e4m3")
    assert found.exit_code == 0
    assert found.output.startswith("own_kernels:right is right: fp8_e4m3 encode")  # not of another "right"
    found = command("own_kernels:wrong", "--dtype", "fp8_e4m3", "--json")
    assert found.exit_code == 1
    told = json.loads(found.output)
    assert (told["dialect"], told["target"]) == ("ties away", "own_kernels:wrong")
    found = command("own_kernels:blocks", "--dtype", "mxfp4", "--scale-rule", "ceil")
    assert found.exit_code == 0
    found = command("own_kernels:right", "--dtype", "fp8_e4m3", "--inputs", "float16", "--effort", "quick")
    assert (found.exit_code, "float16 inputs" in found.output) == (0, True)
    found = command("own_kernels:decode", "--dtype", "fp8_e4m3", "--kind", "decode")
    assert found.exit_code == 0


LOUD = """
import ctypes, os
import numpy as np
import numerics as nx
def loud(x):
    print("by Python")
    os.write(1, b"by the descriptor\\n")
    ctypes.CDLL(None).puts(b"by C")
    return nx.fp4.encode(x)
def inner(a, b):
    print("by Python")
    return np.inner(a, b)
"""


@pytest.mark.turns(4)
@pytest.mark.skipif(sys.platform == "win32", reason="no C library of that name")
@pytest.mark.parametrize(
    "words",
    [("conform", "loud_kernels:loud", "--dtype=fp4", "--here", "--json", "--effort=quick"),
     ("fingerprint", "loud_kernels:inner", "--shape=2,2,3")],
)  # fmt: skip
def test_what_a_target_prints_stood_before_the_json_of_this_process(tmp_path, words):
    (tmp_path / "loud_kernels.py").write_text(LOUD, encoding="utf-8")
    ran = subprocess.run([sys.executable, "-m", "numerics", *words], cwd=tmp_path, capture_output=True,
                         text=True, check=True, timeout=LIMIT)  # fmt: skip
    assert "by Python" in ran.stderr
    assert "by " not in ran.stdout.replace("told by", "")
    if "--json" in words:
        assert json.loads(ran.stdout)["passed"]
        assert {"by the descriptor", "by C"} <= set(ran.stderr.splitlines())


def test_the_command_refuses_what_is_not_there(kernels):
    found = command("own_kernels:none", "--dtype", "fp8_e4m3")
    assert isinstance(found.exception, nx.NumericsError)
    assert "target 'own_kernels:none' cannot be imported" in str(found.exception)


def test_a_scheme_of_a_product_was_refused_without_saying_where_it_goes():
    words = ["numpy:matmul", "--kind", "matmul", "--a", "float32", "--b", "int4", "--scheme", "per_group(32)"]
    with pytest.raises(
        nx.NumericsError, match=r"on the command line as 'int4 per_group\(32\)' or as its JSON"
    ):
        conform_command.main(words, standalone_mode=False)
