"""What is cited exists: files, sections of pages and dotted names in docstrings, comments and pages.

A docstring that points to a document which nobody has, or to a module that was moved, tells a reader
less than none would.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import re
import tokenize
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import numerics as nx
from numerics.conform import KINDS
from numerics.formats import dispatch
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS, SCALE_RULES
from numerics.tensor.scheme import KINDS as SCHEMES
from numerics.tensor.spec import SCALE_TYPES, ZERO_POINT_TYPES
from numerics.tensor.words import OPTIONS as OPTIONS_OF_SPEC

ROOT = Path(__file__).parents[1]
ROOMS = ("formats", "backends", "numerics", "tests", "bench")
PAGES = sorted([*ROOT.glob("*.md"), *(p for room in (*ROOMS, "docs") for p in (ROOT / room).rglob("*.md"))])
SOURCES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
EXISTING = [
    p.relative_to(ROOT).as_posix() for room in (*ROOMS, "docs", ".ci") for p in (ROOT / room).rglob("*")
]
EXISTING += [p.name for p in ROOT.iterdir() if p.is_file()]
NAMES = frozenset(EXISTING)
ENDING: defaultdict[str, list[str]] = defaultdict(list)
for path in EXISTING:
    ENDING[path.rpartition("/")[2]].append(path)

FILE = re.compile(r"(?<![\w*<.-])[\w./-]*\w\.(?:py|md|json|toml|txt)\b")
FOLDER = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*ROOMS, 'docs'))})/[\w/]*")
SECTION = re.compile(r"(docs/\w+\.md) (§\d+(?:, §\d+)*)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]+)?\)")
DOTTED = re.compile(r"`((?:numerics|formats|backends)(?:\.\w+)+)`")

ELSEWHERE = {  # files that are no part of the repository, each with where it is
    "refine.py": "backends/ipu/limits.py: of AMD Quark",
    "pack.py": "numerics/interop/layouts.py: of AMD Quark",
    "OUT.json": "tests/platforms/corpus.py: an argument",
    "config.json": "numerics/model/folder.py: of a model, in a folder of Hugging Face's",
    "numerics_job.json": "numerics/checkpoints/journal.py: of an output",
    "job.json": "numerics/checkpoints/journal.py: of an output",
    "pytorch_model.bin.index.json": "docs/checkpoints.md: of a model, in a folder of Hugging Face's",
    "plan.toml": "docs/checkpoints.md: written by the example",
    "mxfp4.txt": "docs/vectors.md: written by the example",
    "answers.txt": "docs/vectors.md: written by the example",
    "questions.txt": "docs/vectors.md: likewise",
}
UNKNOWN = re.compile(r"\bFORMATS\b|DESIGN §|research/|\bquark\.md")  # documents that nobody has


@cache
def written(source: Path) -> str:
    """All that stands in a file."""
    return source.read_text(encoding="utf-8")


@cache
def told(source: Path) -> list[tuple[int, str]]:
    """The lines where texts for readers begin, and the texts: a page, or docstrings and comments."""
    text = written(source)
    if source.suffix == ".md":
        return [(1, text)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    statements = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
    return comments + [
        (node.lineno, node.value.value)
        for node in statements
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


def cited(pattern: re.Pattern[str], sources):
    """Each match of the pattern, its file, and `file:line` for the message."""
    for source in sources:
        if not pattern.search(written(source)):  # sooner than to look for its comments
            continue
        for line, text in told(source):
            for found in pattern.finditer(text):
                at = line + text.count("\n", 0, found.start())
                yield source, f"{source.relative_to(ROOT)}:{at}: {found.group()}", found


def is_there(name: str, source: Path) -> bool:
    """Is it a file of the repository?  A bare name stands for a neighbour, or for one in a folder above.

    On a page, whose tables say the folder beside the name, it may be one in a folder below, too.
    """
    name = name.lstrip("./")
    folders = [p.relative_to(ROOT).as_posix() for p in source.parents if ROOT in p.parents]
    if name in NAMES or any(f"{folder}/{name}" in NAMES for folder in folders):
        return True
    anywhere = [path for path in ENDING[name.rpartition("/")[2]] if path.endswith(f"/{name}")]
    if source.suffix == ".md":
        return any(path.startswith(f"{folder}/") for path in anywhere for folder in folders)
    return "/" in name and bool(anywhere)


@cache
def headings(page: Path) -> list[str]:
    """The headings of a page, without what stands in code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that GitHub derives from a heading.

    >>> anchor("8. Blocks with a float scale: NVFP4")
    '8-blocks-with-a-float-scale-nvfp4'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_no_text_names_a_file_that_is_not_there():
    found = cited(FILE, (*SOURCES, *PAGES))
    assert not [
        where
        for source, where, name in found
        if name.group().rpartition("/")[2] not in ELSEWHERE and not is_there(name.group(), source)
    ]


def test_no_text_names_a_folder_that_is_not_there():
    found = cited(FOLDER, (*SOURCES, *PAGES))
    folders = {"docs", *ROOMS}
    folders |= {
        p.relative_to(ROOT).as_posix() for top in folders for p in (ROOT / top).rglob("*") if p.is_dir()
    }
    assert not [
        where
        for _, where, name in found
        if name.group().rstrip("/") not in folders
        and not any(path.startswith(name.group()) for path in EXISTING)
    ]


def test_no_section_is_cited_that_its_page_does_not_have():
    wrong = []
    for _, where, found in cited(SECTION, (*SOURCES, *PAGES)):
        page = ROOT / found[1]
        numbers = {heading.partition(".")[0] for heading in headings(page)} if page.exists() else set()
        wrong += [where for number in re.findall(r"\d+", found[2]) if number not in numbers]
    assert not wrong


def test_no_link_leads_nowhere():
    wrong = []
    for source, where, found in cited(LINK, PAGES):
        page = source.parent / found[1] if found[1] else source
        if not page.exists() or (found[2] and found[2][1:] not in map(anchor, headings(page))):
            wrong.append(where)
    assert not wrong


def test_no_dotted_name_leads_nowhere():
    wrong = []
    for _, where, found in cited(DOTTED, (*SOURCES, *PAGES)):
        name = found[1] if found[1].startswith("numerics") else f"numerics.{found[1]}"
        if not resolves(name):
            wrong.append(where)
    assert not wrong


@cache
def resolves(name: str) -> bool:
    """Is there a module, or something in a module, of that name?"""
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return (
            bool(module) and hasattr(importlib.import_module(module), attribute)
            if resolves(module)
            else False
        )
    return True


def test_no_text_cites_a_document_that_nobody_has():
    sources = [source for source in SOURCES if source != Path(__file__)]
    assert not [where for _, where, _ in cited(UNKNOWN, (*sources, *PAGES))]


POINTER = re.compile(r"[A-Za-z_.]+\.[a-z_]+\.")  # `Element.encode.`
QUOTED = re.compile(f"[\"']{POINTER.pattern}[\"']")


def test_no_docstring_is_only_the_name_of_another_function():
    wrong = [
        f"{p.relative_to(ROOT)}:{line}"
        for p in SOURCES if QUOTED.search(written(p))
        for line, text in told(p) if POINTER.fullmatch(text)
    ]  # fmt: skip
    assert not wrong


BLOCK = (*ROUNDINGS, *SCALE_RULES)
QUANTIZE = (*BLOCK, *SCALE_TYPES, *ZERO_POINT_TYPES, *SCHEMES)
OBSERVED_POF2 = ("dtype", "QuantSpec", "scheme", "symmetric", "scale_type", "zero_point_type", "pof2",
                 *ZERO_POINT_TYPES, *SCHEMES)  # fmt: skip
OBSERVED = (*OBSERVED_POF2, *SCALE_TYPES)
OBSERVERS = {kind.__name__: kind for kind in (nx.observe.Histogram, *nx.observe.OBSERVERS.values())}
OPTIONS = {
    "Element.encode": (nx.Element.encode, (*ROUNDINGS, *OVERFLOWS)),
    "Block.encode": (nx.Block.encode, BLOCK),
    "quantize": (nx.quantize, QUANTIZE),
    "fake_quantize": (nx.fake_quantize, QUANTIZE),
    "QuantSpec": (nx.QuantSpec, (*QUANTIZE, "dtype", *OPTIONS_OF_SPEC)),
    **{name: (kind, OBSERVED if "Pof2" not in name else OBSERVED_POF2) for name, kind in OBSERVERS.items()},
    "use": (nx.use, [name for name in dispatch.names() if name != "interpreter"]),
    "float_format": (nx.float_format, ("ieee", "fn", "fnuz", "extended", "none")),
    "observer": (nx.observe.observer, (*nx.observe.OBSERVERS, "QuantSpec")),
    "check": (nx.conform.check, (*KINDS, *BLOCK, *OVERFLOWS)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_help_lists_every_option(name):
    function, options = OPTIONS[name]
    words = set(re.findall(r"\w+", function.__doc__ or ""))
    assert [option for option in options if option not in words] == []


def test_the_law_names_every_format_and_every_option():
    law = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`(\w+)`", law)) | set(" ".join(re.findall(r"`([\w ]+)`", law)).split())
    names = [str(d) for d in nx.dtypes()]
    options = [*QUANTIZE, *OVERFLOWS, "_3SD", "_LL_J", "_KL_J"]
    schemes = set(re.findall(r"`(\w+)\(", law))
    assert [name for name in (*names, *options) if name not in words | schemes] == []


@pytest.mark.parametrize("name", ["ops.py", "formats/dtypes.py", "docs/gone.md", "numerics/recipe.py"])
def test_a_file_that_is_not_there_is_seen(name):
    assert not is_there(name, ROOT / "numerics" / "quantization.py")


@pytest.mark.parametrize(
    "name", ["quantization.py", "tensor/spec.py", "formats/dtype.py", "docs/formats.md", "README.md"]
)
def test_a_file_that_is_there_is_found(name):
    assert is_there(name, ROOT / "numerics" / "quantization.py")


@pytest.mark.parametrize("network", ["crepe-tiny", "magika"])
def test_the_figures_of_npu_models_are_those_of_the_bench(network):
    rows = json.loads((ROOT / "bench/results/npu.json").read_text(encoding="utf-8"))["rows"][network]
    table = (ROOT / "docs/ipu.md").read_text(encoding="utf-8").split(f"| {network} |")[1].split("\n\n")[0]
    lines = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()}
    for label in ("xint8", "a8w8", "a16w8", "bf16"):
        row, line = rows[label], lines[label]
        due = [f"{row['SQNR dB']:.2f}", f"{row['as float']:.4f}", f"{row['right']:.4f}"]
        for counts in (row[name] for name in ("X2", "X1") if name in row):
            due += [
                f"{counts['elements']:,}",
                *(f"{counts[cause]:,}" for cause in CAUSES if counts.get(cause)),
            ]
            assert counts["unexplained"] == 0
        assert [figure for figure in due if figure not in line] == []


CAUSES = ("ties", "wide", "near", "own")
