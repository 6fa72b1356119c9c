"""The shape of the house: imports run one way, the wheel is complete, `import numerics` is light."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import numerics
from tests.helpers.children import LIMIT

ROOT = Path(__file__).parents[2]
FACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


PLUGIN = ROOT / "numerics" / "conform" / "plugin"  # installs beside the package: its docstring says why


def name_of(source: Path) -> str:
    """The name under which a file is installed."""
    if source.is_relative_to(PLUGIN):
        return "_numerics_pytest"
    parts = source.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "numerics" else ("numerics", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


RANKS = {"formats": 0, "backends": 1, "numerics": 2}
SOURCES = sorted(p for room in RANKS for p in (ROOT / room).rglob("*.py"))
MODULES = sorted({name_of(p) for p in SOURCES})


class Said(NamedTuple):
    """What a file says, as far as the tests below ask."""

    imports: list[ast.Import | ast.ImportFrom]
    functions: list[tuple[int, str, int]]  # line, name, parameters
    texts: list[int]  # the lines that read or write a text without its encoding


def parameters(function: ast.FunctionDef) -> int:
    """How many a caller may give: self and cls are none, nor is what refuses what is too much."""
    a = function.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    kept = bool(a.kwarg and a.kwarg.arg != "unknown")
    several = bool(a.vararg and a.vararg.arg != "unnamed")
    return len(names) - (names[:1] in (["self"], ["cls"])) + several + kept


@cache
def said(source: Path) -> Said:
    """A file is parsed once for all tests that ask."""
    found = Said([], [], [])
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.imports.append(node)
        elif isinstance(node, ast.FunctionDef):
            found.functions.append((node.lineno, node.name, parameters(node)))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text"):
            found.texts.extend([] if "encoding" in {word.arg for word in node.keywords} else [node.lineno])
    return found


def imports(source: Path):
    for node in said(source).imports:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "."
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(source):
    room = source.relative_to(ROOT).parts[0]
    for name in imports(source):
        assert name != ".", "absolute imports only"
        first, *rest = name.split(".")
        if first == "numerics":
            rank = RANKS.get(rest[0], 2) if rest else 2
            assert rank <= RANKS[room], f"{room} imports {name}"
        elif room == "formats":
            assert first in sys.stdlib_module_names, f"formats imports {name}"


def modules_imported(source: Path):
    """Our modules that a file imports anywhere: in a function, too, and for type checkers."""
    for node in said(source).imports:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "numerics":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def circles(imported: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected parts of more than one, by what each reaches."""
    reached: dict[str, set[str]] = {}
    for start in imported:
        seen, waiting = set(), [start]
        while waiting:
            for name in imported.get(waiting.pop(), set()) - seen:
                seen.add(name)
                waiting.append(name)
        reached[start] = seen
    found = [
        {name, *(other for other in reached[name] if name in reached.get(other, ()))} for name in imported
    ]
    return [part for place, part in enumerate(found) if len(part) > 1 and part not in found[:place]]


def room_of(name: str) -> str:
    """The folder of a module under numerics, or the module itself where it has none."""
    parts = name.split(".")
    if parts[:2] == ["numerics", "backends"] and len(parts) > 2:
        return ".".join(parts[:3])
    return ".".join(parts[:2])


def package_of(names: list[str]) -> dict[str, set[str]]:
    """name -> what it imports.  `numerics` itself offers everything, late: it is no part of a circle."""
    found = {name: set() for name in names}
    for source in SOURCES:
        if (name := name_of(source)) in found and name != "numerics":
            found[name] = {other for other in modules_imported(source) if other not in (name, "numerics")}
    return found


def test_modules_imported_each_other_in_circles():
    assert circles(package_of(MODULES)) == []


def test_rooms_imported_each_other_in_circles():
    rooms: dict[str, set[str]] = {}
    for name, others in package_of(MODULES).items():
        rooms.setdefault(room_of(name), set()).update({room_of(other) for other in others} - {room_of(name)})
    assert circles(rooms) == []


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


ROOMS = 20


def test_too_many_things_lay_side_by_side():
    """Whoever opens numerics/ sees at most this many files and folders of code."""
    rooms = [
        p for p in (ROOT / "numerics").iterdir()
        if p.suffix == ".py" or (p.is_dir() and p.name != "__pycache__")
    ]  # fmt: skip
    assert len(rooms) <= ROOMS


PARAMETERS = (
    65  # functions of six and more: kernels, public calls, and little else; adapters have their hosts'
)


def test_requests_travelled_as_loose_parameters():
    found = [
        f"{source.relative_to(ROOT)}:{line} {name}"
        for source in SOURCES for line, name, count in said(source).functions
        if count >= 6 and source.parent.name != "adapters"
    ]  # fmt: skip
    assert len(found) <= PARAMETERS, "\n".join(found)


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
OF_NO_MODULE = (
    "laws",
    "fuzz",
    "peers",
    "platforms",
    "adapters",
)  # rooms of tests that are about no module alone


def test_every_test_file_stands_for_the_module_or_folder_of_its_name():
    """A stranger finds what tests a module, and what a test is about, by its name alone."""
    lost = []
    for file in TESTS:
        place = file.parent.relative_to(ROOT / "tests")
        stands_for = ROOT / place / file.stem.removeprefix("test_")
        if place.parts[:1] and place.parts[0] in OF_NO_MODULE:
            continue
        if not (stands_for.is_dir() or stands_for.with_suffix(".py").is_file()):
            lost.append(f"{file.relative_to(ROOT)}: there is no {stands_for.relative_to(ROOT)}")
    assert not lost


def test_no_test_imports_another_or_conftest():
    """What two of them need is in tests/helpers: a test may be moved, renamed or split alone."""
    borrowed = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "tests").rglob("*.py")
        for name in imports(file)
        if name.startswith("tests.") and name.rpartition(".")[2].startswith(("test_", "conftest"))
    ]
    assert not borrowed


def test_the_wheel_lists_every_folder():
    listed = FACTS["tool"]["setuptools"]["packages"]
    folders = set()
    for init in (p for room in RANKS for p in (ROOT / room).rglob("__init__.py")):
        folders.add(name_of(init))
    assert set(listed) == folders


STARTS = ("run", "check_call", "check_output")  # of subprocess
WAITS = ("wait", "join", "communicate", "result", "get")  # for ever, where nothing is said


def waits_for_ever(tree: ast.AST):
    """Calls that may never come back: child processes, threads and queues without a time limit."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in (*STARTS, *WAITS):
            continue
        called, named = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        started = called in [f"subprocess.{name}" for name in STARTS]
        given = node.args and node.func.attr != "communicate"  # whose argument is what is written
        waits = node.func.attr in WAITS and not given and "timeout" not in named
        if (started and "timeout" not in named) or waits:
            yield f"line {node.lineno}: {called}"


def starts_and_leaves(tree: ast.AST):
    """Functions that start a child process and end it nowhere."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        text = ast.unparse(function)
        if "subprocess.Popen(" in text and ".kill()" not in text:
            yield f"line {function.lineno}: {function.name}"


@pytest.mark.parametrize("room", ["tests", "bench"])
def test_nothing_waits_for_ever(room):
    found = {}
    for source in sorted((ROOT / room).rglob("*.py")):
        text = source.read_text(encoding="utf-8")
        tree = ast.parse(text)
        wrong = [*waits_for_ever(tree), *(starts_and_leaves(tree) if "Popen" in text else ())]
        if wrong:
            found[str(source.relative_to(ROOT))] = wrong
    assert not found


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("subprocess.run(['x'])", True), ("subprocess.run(['x'], timeout=3)", False),
        ("p.wait()", True), ("p.wait(3)", False), ("p.communicate(b'')", True),
        ("p.communicate(timeout=1)", False), ("q.get()", True), ("q.get(timeout=1)", False),
        ("', '.join(x)", False), ("t.join()", True),
        ("f.result()", True), ("d.get(k)", False),
    ],
)  # fmt: skip
def test_what_waits_for_ever_is_seen(code, wrong):
    assert bool([*waits_for_ever(ast.parse(code))]) == wrong


def test_every_test_has_a_limit(request):
    assert request.node.get_closest_marker("timeout") or float(request.config.getini("timeout")) > 0
    assert request.config.pluginmanager.hasplugin("timeout")


def test_a_path_that_no_file_can_have_was_an_error_of_python():
    """pathlib raises for a name that is too long, or in a closed folder; os.path says it is not there."""
    found = [
        f"{source.relative_to(ROOT)}:{number}"
        for source in SOURCES
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\.(exists|is_dir|is_file)\(\)", line)
    ]
    assert not found


def test_text_files_have_an_encoding():
    """Windows and LC_ALL=C would read UTF-8 as something else."""
    sources = (*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py"))
    assert not [f"{source.relative_to(ROOT)}:{line}" for source in sources for line in said(source).texts]


def test_what_has_no_wheel_everywhere_is_asked_for_where_it_has():
    """`pip install numerics-formats[test]` on macOS and Windows, where Triton cannot be had."""
    extras = FACTS["project"]["optional-dependencies"]
    asked = [line for lines in extras.values() for line in lines if line.startswith("triton")]
    assert asked == ["triton>=3.6; sys_platform == 'linux'"]


def test_formats_have_one_identity():
    assert importlib.import_module("numerics.formats.floats").fp4 is numerics.fp4
    assert numerics.dtype("fp4") is numerics.fp4


def test_import_is_light():
    heavy = (
        "torch",
        "triton",
        "numba",
        "llvmlite",
        "onnx",
        "onnxruntime",
        "matplotlib",
        "numpy",
        "click",
        "rich",
    )
    code = f"import sys, numerics; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    if name.endswith("__main__"):
        pytest.skip("runs the program")
    found = doctest.testmod(pytest.importorskip(name, exc_type=ModuleNotFoundError))
    assert found.failed == 0


def test_every_public_name_has_a_docstring():
    for name in numerics.__all__:
        thing = getattr(numerics, name)
        assert getattr(thing, "__doc__", None), name
