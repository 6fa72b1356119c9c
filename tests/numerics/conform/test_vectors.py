"""Vectors over a pipe: what is written, what is found wrong, what is refused; and a device in C."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import numerics as nx
from numerics.cli.vectors import vectors_group
from numerics.conform.inputs.draws import Drawing
from numerics.conform.kinds import OPERATIONS
from numerics.conform.task import Task, kinds_of
from numerics.conform.vectors import lines
from numerics.conform.vectors.lines import Layout
from numerics.conform.vectors.operations import operation
from numerics.conform.vectors.questions import inputs_that_matter
from numerics.conform.vectors.vectors import generate, header, readmemh, verify
from tests.helpers.children import LIMIT, child

DOCS = Path(__file__).parents[3] / "docs" / "vectors.md"
DTYPES = nx.dtypes()
ELEMENTS = [d for d in DTYPES if d.kind != "block"]
BLOCKS = [d for d in DTYPES if d.kind == "block"]
COMMAND = [sys.executable, "-m", "numerics", "vectors"]


def made(*arguments, **options):
    """All lines, as one string of bytes; options of `operation`, and count, seed, answers."""
    chosen = {k: options.pop(k) for k in ("count", "seed", "answers", "exhaustive") if k in options}
    return b"".join(generate(operation(*arguments, **options), **chosen))


def judged(text, **options):
    return verify(io.BytesIO(text), **options)


def read(text):
    """The fields of all vectors, by Python's own integers."""
    vectors = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return [[[int(word, 16) for word in part.split()] for part in line.split(" : ")] for line in vectors]


def as_floats(words):
    return np.array(words, np.uint32).view(np.float32)


# ---- what is written ----------------------------------------------------------------------------


def asked_of(dtypes):
    """Each format with each operation that it has on a pipe."""
    return [
        pytest.param(d, name, id=f"{d}-{name}") for d in dtypes for name in kinds_of(d) if name in OPERATIONS
    ]


@pytest.mark.turns(18)
@pytest.mark.parametrize(("dtype", "name"), asked_of(DTYPES))
def test_round_trip(dtype, name):
    text = made(dtype, name, count=300)
    found = judged(text, strict_nan=True)
    assert found
    assert found.vectors == 300
    if name in ("encode", "round"):
        assert judged(made(dtype, name, rounding="stochastic", count=300), strict_nan=True).vectors == 300


@pytest.mark.turns
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_elements_are_those_of_the_kernels(dtype):
    """The kernels share nothing with the truth of the vectors."""
    count = None if dtype.bits <= 8 else 5000  # 16 bits have too many inputs that matter
    vectors = np.array(read(made(dtype, rounding="half_away", count=count)), np.uint32)[:, 0]
    assert (dtype.encode(as_floats(vectors[:, 0]), rounding="half_away") == vectors[:, 1]).all()
    x, draws, codes = np.array(read(made(dtype, rounding="stochastic", count=2000)), np.uint32)[:, 0].T
    came = dtype.encode(np.ascontiguousarray(x).view(np.float32), rounding="stochastic", random_bits=draws)
    assert (came == codes).all()
    codes, values = np.array(read(made(dtype, "decode", count=count)), np.uint32)[:, 0].T
    assert count or codes[: 1 << dtype.bits].tolist() == list(range(1 << dtype.bits))
    np.testing.assert_array_equal(dtype.decode(codes.astype(dtype.code_dtype)), as_floats(values))


@pytest.mark.turns(6)
@pytest.mark.parametrize("dtype", BLOCKS, ids=str)
def test_blocks_are_those_of_the_kernels(dtype):
    options = {"scale_rule": "rceil"} if isinstance(dtype, nx.MXBlock) else {}
    options |= {"tensor_scale": float(np.float32(0.37))} if isinstance(dtype, nx.ScaledBlock) else {}
    inputs, answers = zip(*read(made(dtype, **options)), strict=True)
    blocks = dtype.encode(as_floats(inputs), **options)
    shared = 1 if blocks.microexponents is None else 2
    assert [answer[0] for answer in answers] == blocks.scale[:, 0].tolist()
    assert [answer[shared:] for answer in answers] == blocks.codes.tolist()
    if shared == 2:
        assert [answer[1] for answer in answers] == blocks.microexponents[:, 0].tolist()
    inputs, values = zip(*read(made(dtype, "round", **options)), strict=True)
    np.testing.assert_array_equal(dtype.round(as_floats(inputs), **options), as_floats(values))


def test_the_lines_of_a_format():
    text = made("fp6_e2m3", "decode", count=2, seed=1)
    assert text.startswith(b"# numerics vectors 1\n# format: fp6_e2m3\n# operation: decode\n# vectors: 2\n")
    assert {len(line) for line in text.splitlines() if not line.startswith(b"#")} == {len("3f 3f800000")}
    assert text == made("fp6_e2m3", "decode", count=2, seed=1)
    assert text != made("fp6_e2m3", "decode", count=2, seed=2)


def test_answers_come_last():
    asked, full = (made("mx6", rounding="stochastic", answers=answers) for answers in (False, True))
    for question, line in zip(asked.splitlines(), full.splitlines(), strict=True):
        assert line == question or line.startswith(question + b" : ")


def test_inputs_that_matter():
    found = set(inputs_that_matter(nx.fp8_e4m3, np.random.default_rng(0)).tolist())
    tie = 0x43E80000  # 464, half-way to the 480 that does not exist
    for bits in (0x3F880000, tie, 0x43E00000, 0x800000):
        assert {bits - 1, bits, bits + 1, bits | 1 << 31} <= found
    for bits in (0, 1, 0x7FFFFF, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000):
        assert {bits, bits | 1 << 31} <= found


@pytest.mark.turns
def test_exhaustive():
    chunks = generate(operation("fp4"), exhaustive=True)
    assert b"# vectors: 4294967296\n" in next(chunks)
    first, second = (np.array(read(chunk))[:, 0, 0] for chunk in itertools.islice(chunks, 2))
    assert (np.concatenate([first, second]) == np.arange(len(first) + len(second))).all()
    assert read(made("fp8_e4m3", "decode", exhaustive=True)) == read(made("fp8_e4m3", "decode"))[: 1 << 8]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["fp8_e4m4"], {}, "unknown format"),
        (["fp4", "cast"], {}, "unknown operation 'cast'"),
        (["fp4"], {"rounding": "half_evn"}, "did you mean 'half_even'"),
        (["fp4"], {"overflow": "nonsaturate"}, "neither Inf nor NaN"),
        (["fp4"], {"scale_rule": "even"}, "no blocks: scale_rule='even'"),
        (["fp4"], {"tensor_scale": 2.0}, "no blocks: tensor_scale=2.0"),
        (["fp4", "decode"], {"rounding": "floor"}, "does not round: rounding='floor'"),
        (["mxfp4", "decode"], {"scale_rule": "even"}, "does not round: scale_rule='even'"),
        (["mx6"], {"scale_rule": "even"}, "for MX formats"),
        (["mx6"], {"overflow": "nonsaturate"}, "saturate"),
        (["mx6"], {"tensor_scale": 2.0}, "no tensor scale"),
        (["nvfp4"], {"tensor_scale": 1e60}, "positive finite"),
        (["fp4"], {"count": 0}, "count=0"),
        (["fp4"], {"count": 3, "exhaustive": True}, "count=3 and exhaustive"),
        (["mx6"], {"exhaustive": True}, "too many; give a count"),
        (["int8", "affine"], {"exhaustive": True}, "too many; give a count"),
        (["fp4", "affine"], {}, "unknown operation of fp4 'affine'"),
        (["mxfp4", "pack"], {}, "unknown operation of mxfp4 'pack'"),
        (["int8", "affine"], {"rounding": "stochastic"}, "unknown rounding of affine"),
        (["int8", "affine"], {"overflow": "saturate"}, "affine has none: overflow='saturate'"),
        (["int8", "pack"], {"rounding": "floor"}, "pack does not round: rounding='floor'"),
        (["fp4"], {"draw": "a8"}, "draw='a8' is for rounding='stochastic'"),
        (["fp4", "decode"], {"draw": "a8"}, "does not round: draw='a8'"),
        (["int8", "affine"], {"draw": "a8"}, "affine has none: draw='a8'"),
        (["mxfp4"], {"rounding": "stochastic", "draw": "c8"}, "c are for single numbers alone"),
        (["fp4"], {"rounding": "stochastic", "draw": "own"}, "not for vectors, which hold the random bits"),
        (["fp4"], {"rounding": "stochastic", "draw": "b30"}, "draw='b30'; allowed"),
        (["int8", "quantize"], {"scheme": "per_token"}, "not that of a line of vectors; allowed: per_group"),
        (["int8", "quantize"], {"scheme": "per_group(4096)"}, "1 .. 2048"),
        (["int8 per_channel(0)", "quantize"], {}, "not that of a line"),
        (["int8", "quantize"], {"least": "tiny"}, "least='tiny'; allowed"),
        (["int8", "quantize"], {"overflow": "saturate"}, "quantize has none: overflow='saturate'"),
        (["int8", "quantize"], {"rounding": "stochastic"}, "rounding mode of scales that are found"),
        (["int8", "quantize"], {"exhaustive": True}, "too many; give a count"),
        (["mxfp4", "quantize"], {}, "finds the scales of its blocks itself"),
        (["int8"], {"scheme": "per_group(16)"}, "the scales of encode are given: scheme="),
        (["int8", "affine"], {"least": "none"}, "the scales of affine are given: least='none'"),
    ],
)
def test_refused_questions(arguments, options, message):
    with pytest.raises(nx.NumericsError, match=message):
        made(*arguments, **options)


def fields_of(asked, **options):
    """The questions, as arrays."""
    fields = {}
    lines_of(asked, lambda _, f: fields.update(f) or {}, **options)
    return fields


@pytest.mark.turns
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", BLOCKS, ids=str)
def test_codes_and_scales_of_blocks_were_not_asked_in_every_place(dtype, seed):
    asked = operation(dtype, "decode")
    fields = fields_of(asked, seed=seed)
    for part in asked.asked:
        if part.bits <= 8:
            for column in fields[part.name].T:
                assert len(np.unique(column)) == 1 << part.bits
    values = fields["value"].view(np.float32)
    due = {int(scale) for scale in np.unique(fields["scale"]) if shows(asked, scale)}
    for place in range(dtype.block):  # where it is finite, a code that is not 0 shows
        told = np.isfinite(values[:, place]) & (values[:, place] != 0)
        shown = set(fields["scale"][told, 0].tolist())
        assert due <= shown


def shows(asked, scale):
    """Is there a code that is neither 0 nor NaN under a scale?"""
    code = next(f for f in asked.asked if f.name == "code")
    count = -(-(1 << code.bits) // code.count)
    every = np.resize(np.arange(1 << code.bits, dtype=np.uint32), (count, code.count))
    rows = {f.name: np.zeros((count, f.count), np.uint32) for f in asked.asked}
    values = asked.due(rows | {"code": every, "scale": np.full((count, 1), scale, np.uint32)})["value"]
    return bool((np.isfinite(values.view(np.float32)) & (values & 0x7FFFFFFF != 0)).any())


PLACES = {
    "27 reads NaN as 480": lambda f, v: np.where(f["code"][:, 27] & 127 == 127, 0x43F00000, v[:, 27]),
    "17 reads 0x7F as 480": lambda f, v: np.where(f["code"][:, 17] == 127, 0x43F00000, v[:, 17]),
    "27 loses -0": lambda f, v: np.where(v[:, 27] == 1 << 31, 0, v[:, 27]),
    "5 is wrong at 0x7E": lambda f, v: np.where(f["code"][:, 5] == 0x7E, v[:, 5] ^ 1, v[:, 5]),
    "3 is wrong at the scale 0": lambda f, v: np.where(f["scale"][:, 0] == 0, 0, v[:, 3]),
    "30 is wrong at the scale 0x5F": lambda f, v: np.where(f["scale"][:, 0] == 0x5F, 0, v[:, 30]),
    "8 is 0 where the scale is NaN": lambda f, v: np.where(
        (f["scale"][:, 0] == 255) & (f["code"][:, 8] & 127 == 0), 0, v[:, 8]
    ),
    "12 is wrong at the scale NaN": lambda f, v: np.where(f["scale"][:, 0] == 255, 0, v[:, 12]),
}


@pytest.mark.turns(18)
@pytest.mark.parametrize("wrong", PLACES)
@pytest.mark.parametrize("seed", [0, 1])
def test_one_place_of_a_decoder_that_is_wrong_at_one_code_passed(wrong, seed):
    at, asked = int(wrong.split()[0]), operation("mxfp8_e4m3", "decode")

    def bend(asked, f):
        values = f["value"].copy()
        values[:, at] = PLACES[wrong](f, values)
        return {"value": values}

    assert not judged(lines_of(asked, bend, seed=seed))


@pytest.mark.turns(24)
@pytest.mark.parametrize("dtype", ["fp6_e3m2", "fp4", "int8"])
@pytest.mark.parametrize("rule", ["a30", "b29", "c29", "a29", "a28", "b30", "c30", "up30"])
def test_a_device_that_draws_by_nearly_the_rule_passed(dtype, rule):
    asked, how = operation(dtype, rounding="stochastic"), Drawing(rule.rstrip("0123456789"), int(rule[-2:]))

    def bend(asked, f):
        """By fractions of a step, as a float64 has them; right where a number is no fraction of one."""
        d, x = asked.dtype, as_floats(f["input"])
        with np.errstate(all="ignore"):
            down, low, high = (d.encode(x, rounding=way) for way in ("toward_zero", "floor", "ceil"))
            away = np.where(np.signbit(x), low, high)
            near, far = (np.abs(d.decode(codes).astype(np.float64)) for codes in (down, away))
            fraction = (np.abs(x.astype(np.float64)) - near) / (far - near)
            between = np.isfinite(fraction) & (fraction > 0) & (fraction < 1)
        units = np.where(between, fraction, 0) * 2.0**how.bits
        part = {"a": np.floor, "b": lambda u: u + 0.5, "c": np.rint, "up": np.ceil}[how.rule](units)
        up = part + (f["random"] >> np.uint32(30 - how.bits)) >= 2.0**how.bits
        return {"code": np.where(between, np.where(up, away, down), f["code"])}

    assert bool(judged(lines_of(asked, bend))) == (rule == "a30")


HIGHEST = [("fp6_e3m2", "a12"), ("fp6_e3m2", "a24"), ("fp8_e5m2", "a16"), ("fp4", "b12"), ("int8", "a29"),
           ("mxfp4", "a12"), ("mx6", "a16")]  # fmt: skip


@pytest.mark.turns(24)
@pytest.mark.parametrize(("dtype", "draw"), HIGHEST, ids=str)
def test_a_device_of_fewer_bits_spoke_no_dialect_or_that_of_the_lowest(dtype, draw):
    asked, narrow = (operation(dtype, rounding="stochastic", draw=way) for way in (None, draw))
    bits = int(draw[1:])
    ways = {"highest": lambda random: random >> np.uint32(30 - bits),
            "lowest": lambda random: random & np.uint32((1 << bits) - 1)}  # fmt: skip
    for part, taken in ways.items():
        found = judged(
            lines_of(asked, lambda _, f, taken=taken: narrow.due(f | {"random": taken(f["random"])}))
        )
        assert found.dialect == f"draws {draw} of the {part} bits"


FEW_BITS = [("fp6_e3m2", "a8", 2), ("bfloat16", "b16", 4), ("int8", "c9", 3), ("mxfp4", "a8", 2),
            ("nvfp4", "b12", 3)]  # fmt: skip


@pytest.mark.turns
@pytest.mark.parametrize(("dtype", "draw", "digits"), FEW_BITS)
def test_a_device_of_few_random_bits_could_not_be_judged(dtype, draw, digits):
    asked = operation(dtype, rounding="stochastic", draw=draw)
    text = made(dtype, rounding="stochastic", draw=draw, count=500)
    assert f"# draw: {draw}\n".encode() in text
    assert f"random ({digits} hex digits".encode() in text
    assert judged(text)
    x, random = (fields_of(asked, count=500)[name] for name in ("input", "random"))
    assert random.max() >> int(draw[1:]) == 0
    task = Task.of(dtype, rounding="stochastic", draw=draw)
    due = task.answer(x.view(np.float32), random)
    due = due.codes if hasattr(due, "codes") else due
    assert (due == fields_of(asked, count=500)["code"]).all()
    other = operation(dtype, rounding="stochastic", draw="a8" if draw != "a8" else "b8")
    found = judged(lines_of(asked, lambda _, f: other.due(f)))
    assert not found
    assert found.dialect == (
        f"draws {other.drawing.spelling}" + " of the lowest bits" * (draw not in ("a8", "b8"))
    )


def test_a_header_that_lost_its_rule_of_draws_was_judged_by_another():
    text = made("fp6_e3m2", rounding="stochastic", draw="b29", count=100)
    with pytest.raises(nx.NumericsError, match="lacks '# draw:"):
        judged(text.replace(b"# draw: b29\n", b""))


# ---- what is found wrong ------------------------------------------------------------------------


def planted(text, row, column):
    """The hex digit at a column of a vector becomes another; also its line's number."""
    every = text.splitlines(keepends=True)
    at = sum(line.startswith(b"#") for line in every) + row
    line = bytearray(every[at])
    line[column] = ord("1") if line[column] != ord("1") else ord("2")
    every[at] = bytes(line)
    return b"".join(every), at + 1


@pytest.mark.turns(40)
@pytest.mark.parametrize(
    ("dtype", "name"),
    asked_of([nx.fp8_e4m3, nx.fp6_e2m3, nx.bfloat16, nx.int4, nx.mxfp4, nx.mx9, nx.nvfp4]),
)
def test_a_wrong_answer_is_found(dtype, name):
    text = made(dtype, name, count=5000 if dtype.kind != "block" else 60)
    for row in (0, 41):
        wrong, number = planted(text, row, -2)
        found = judged(wrong)
        assert (found.mismatches, [m.line for m in found.first]) == (1, [number])
        came, due = (lines.splitlines()[number - 1].decode()[-1] for lines in (wrong, text))
        assert (found.first[0].came[-1], found.first[0].due[-1]) == (came, due)


@pytest.mark.turns
def test_what_a_mismatch_says():
    text = (
        made("fp8_e4m3")
        .replace(b"3f880000 38\n", b"3f880000 39\n")
        .replace(b"3f880001 39\n", b"3f880001 38\n")
    )
    found = judged(text)
    assert not found
    assert [str(m).partition(": ")[2] for m in found.first] == [
        "code for 3f880000 (1.0625): 39 came, 38 is due",
        "code for 3f880001 (1.0625001192092896): 38 came, 39 is due",
    ]
    assert len(judged(text, shown=1).first) == 1
    assert judged(text, shown=0).mismatches == 2


def test_a_wrong_scale_and_a_wrong_element():
    text = header(operation("mxfp4"), 1) + b"3f800000 " * 31 + b"40a00000 : 7f" + b" 2" * 31 + b" 6\n"
    assert judged(text)
    (scale,) = judged(text.replace(b": 7f", b": 80")).first
    assert (scale.place, scale.came, scale.due, scale.input) == ("scale", "80", "7f", None)
    (code,) = judged(text.replace(b" 6\n", b" 7\n")).first
    assert (code.place, code.came, code.due, code.value) == ("code 31", "7", "6", 5.0)


def test_nan_by_class_unless_strict():
    text = made("fp8_e4m3").replace(b"7fc00000 7f\n", b"7fc00000 ff\n")
    assert judged(text)
    assert {m.came for m in judged(text, strict_nan=True).first} == {"ff"}
    text = made("fp8_e4m3", "decode", exhaustive=True).replace(b"7f 7fc00000\n", b"7f ff812345\n")
    assert judged(text)
    assert judged(text, strict_nan=True).mismatches == 1
    assert judged(text.replace(b"7e 43e00000", b"7e 7fc00000")).mismatches == 1
    nan = header(operation("mxfp4"), 1) + b"7fc00000 " * 31 + b"00000000 : ff" + b" 0" * 31 + b" 5\n"
    assert judged(nan)
    assert judged(nan, strict_nan=True).mismatches == 1
    assert judged(nan.replace(b": ff", b": 00")).first[0].place == "scale"


def test_an_answer_that_is_no_code_is_wrong():
    text = header(operation("fp6_e2m3"), 1) + b"3f800000 c8\n"
    assert [(m.came, m.due) for m in judged(text).first] == [("c8", "08")]


@pytest.mark.turns
def test_what_is_read_though_it_is_not_quite_so():
    text = made("fp8_e4m3", count=3000)
    wrong, number = planted(text, 2000, -2)
    assert judged(wrong).first[0].line == number
    for straight, bent in ((b"\n", b"\r\n"), (b" ", b"  \t"), (b"\n", b" \n")):
        title, _, rest = wrong.partition(b"\n")
        assert judged(title + b"\n" + rest.replace(straight, bent)).first[0].line == number
    commented = wrong.splitlines(keepends=True)
    commented.insert(900, b"# half-way, 900 and something\n")
    assert judged(b"".join(commented)).first[0].line == number + 1
    first = text.splitlines()[7]
    assert judged(text.replace(first, first.upper()))
    assert judged(text.removesuffix(b"\n"))


@pytest.mark.parametrize("end", [b"\n", b"\r\n \n# done\n\n", b"\n" * 2000, b"\n\n "])
def test_empty_lines_after_the_last_vector_were_an_error(end, monkeypatch):
    """As `print` of an answer that was read with its end writes them, and editors."""
    text = made("fp4", "decode")
    assert judged(text + end)
    monkeypatch.setattr(lines, "CHUNK", 100)
    assert judged(text + end)
    cut = text.rindex(b"\n", 0, -1) + 1
    with pytest.raises(nx.NumericsError, match=r"line 94: '' is not a vector"):
        judged(text[:cut] + b"\n" + end.lstrip() + text[cut:])


def test_what_an_editor_of_windows_puts_first_was_no_header():
    text = made("fp4", "decode")
    assert judged(b"\xef\xbb\xbf" + text)
    assert judged(b"\xef\xbb\xbf\r\n" + text.replace(b"\n", b"\r\n"))
    title, _, rest = text.partition(b"\n")
    assert judged(title + b"\n\n" + rest)
    with pytest.raises(nx.NumericsError, match=r"line 1: .*in ASCII or UTF-8"):
        judged(text.decode().encode("utf-16"))


@pytest.mark.parametrize(("options", "told"), [({}, "those that matter"), ({"count": 88}, "88 at random")])
def test_a_header_that_says_fewer_vectors_than_its_questions_passed(options, told):
    """Cut by hand or by a script, lines and header alike: the rest was never asked."""
    text = made("fp4", "decode", **options).replace(b"vectors: 88", b"vectors: 5")
    for bad in (text, b"".join(text.splitlines(keepends=True)[:-83])):
        with pytest.raises(nx.NumericsError, match=rf"says 5 vectors, but its questions .*{told}.* are 88"):
            judged(bad)


def test_a_header_that_lost_its_rounding_was_judged_by_another():
    text = made("fp4", rounding="toward_zero")
    with pytest.raises(nx.NumericsError, match="lacks '# rounding"):
        judged(text.replace(b"# rounding: toward_zero\n", b""))


def test_chunks_of_any_size(monkeypatch):
    text, number = planted(made("mx6", count=40), 33, -2)
    monkeypatch.setattr(lines, "CHUNK", 100)
    found = judged(text)
    assert (found.vectors, found.mismatches, found.first[0].line) == (40, 1, number)


# ---- what is refused ----------------------------------------------------------------------------

GOOD = header(operation("fp6_e2m3"), 3) + b"3f800000 08\n00000000 00\n7f800000 1f\n"


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (b"00000000 00", b"00000000 0g", "0g' is not a vector: word 2 is '0g', where .*; allowed: input"),
        (b"00000000 00", b"00000000 0", "line 9: '00000000 0' is"),
        (b"00000000 00", b"00000000", "line 9: '00000000' is"),
        (b"00000000 00", b"00000000:00", "line 9: '00000000:00' is"),
        (b"00000000 00", b"", "line 9: '' is"),
        (b"00000000 00\n", b"00000000 00 00\n", "line 9: '00000000 00 00' is"),
        (b"00000000 00", b"\xff\x00", r"line 9: '\\\\xff\\x00' is"),
        (b"7f800000 1f\n", b"7f80", "line 10: '7f80' is"),
        (b"7f800000 1f\n", b"", "says 3 vectors, 2 came"),
        (b"7f800000 1f\n", b"7f800000 1f\n" * 2, "says 3 vectors, 4 came"),
        (b"vectors: 3", b"vectors: 0", "vectors '0'; allowed"),
        (b"vectors: 3", b"vectors: " + b"9" * 5000, "vectors '9999"),
        (b"# vectors: 3\n", b"", "lacks '# vectors"),
        (b"# format: fp6_e2m3\n", b"", "lacks '# format"),
        (b"# operation: encode\n", b"", "lacks '# operation"),
        (b"format: fp6_e2m3", b"format: fp6_e2m4", "unknown format 'fp6_e2m4'"),
        (b"overflow: saturate", b"tensor-scale: 3f8", "tensor-scale '3f8'; allowed"),
        (b"# numerics vectors 1\n", b"# numerics vectors 2\n", "line 1: .* is no header"),
        (GOOD, b"", "nothing came: did the device start"),
        (GOOD, b" \n\n", "nothing came: did the device start"),
        (GOOD, b"3f800000 08\n", "line 1: '3f800000 08' is no header.*a device copies"),
        (GOOD[-36:], b"", "says 3 vectors, 0 came"),
    ],
)  # fmt: skip
def test_malformed(good, bad, message):
    assert judged(GOOD)
    assert GOOD.count(good) == 1
    with pytest.raises(nx.NumericsError, match=message):
        judged(GOOD.replace(good, bad))


SECOND = {"format": "fp6_e3m2", "operation": "round", "rounding": "floor", "overflow": "nonsaturate",
             "vectors": "4", "questions": "mine"}  # fmt: skip


@pytest.mark.parametrize("name", SECOND)
def test_the_last_of_two_headers_won_in_silence(name):
    text = made("fp6_e2m3")
    line = re.search(rf"# {name}: (.*)\n".encode(), text)
    assert judged(text.replace(line[0], 2 * line[0]))  # which says the same
    other = f"# {name}: {SECOND[name]}"
    both = re.escape(f"'{other}' comes after '{line[0].decode().strip()[:20]}")
    with pytest.raises(nx.NumericsError, match=rf"^line \d: {both}.*'; allowed: one of them"):
        judged(text.replace(line[0], line[0] + other.encode() + b"\n"))


def test_questions_must_be_of_the_format():
    with pytest.raises(nx.NumericsError, match=r"line 6: '40 3f800000' .* code \(2 hex digits, 6 bits\)"):
        judged(header(operation("fp6_e2m3", "decode"), 1) + b"40 3f800000\n")


def test_a_line_without_end_is_refused_in_bounded_memory():
    with pytest.raises(nx.NumericsError, match="line 8: '0000"):
        judged(header(operation("fp4"), 1) + b"0" * (5 << 20))


# ---- the commands -------------------------------------------------------------------------------


@pytest.mark.turns
def test_the_commands():
    run = CliRunner().invoke
    arguments = ["fp8_e4m3", "--rounding", "floor", "--overflow", "nonsaturate", "--seed", "3"]
    written = run(vectors_group, ["generate", *arguments])
    assert written.stdout_bytes == made("fp8_e4m3", rounding="floor", overflow="nonsaturate", seed=3)
    found = run(vectors_group, ["verify"], input=written.stdout_bytes)
    assert (found.exit_code, found.stdout[:34]) == (0, "fp8_e4m3 encode floor nonsaturate:")
    wrong, number = planted(written.stdout_bytes, 5, -2)
    found = run(vectors_group, ["verify", "--json", "--show", "1"], input=wrong)
    said = json.loads(found.stdout)
    assert (found.exit_code, said["mismatches"], said["first"][0]["line"]) == (1, 1, number)
    assert said["rounding"] == "floor"
    assert (said["schema"], said["passed"], len(said["failures"])) == (1, False, 1)
    assert said["failures"][0]["law"] == "in_step" or said["failures"][0]["due"]
    right = json.loads(run(vectors_group, ["verify", "--json"], input=written.stdout_bytes).stdout)
    assert (right["passed"], right["failures"], right["dialect"]) == (True, [], None)
    memory = run(vectors_group, ["generate", "fp4", "--format", "readmemh"]).stdout_bytes
    found = run(vectors_group, ["verify"], input=memory)
    assert found.exit_code
    assert "--format readmemh" in str(found.exception)


def test_the_commands_of_blocks(tmp_path):
    run, path = CliRunner().invoke, tmp_path / "nvfp4.txt"
    options = ["--op", "round", "--tensor-scale", "0.5", "--count", "9", "--inputs-only"]
    asked = run(vectors_group, ["generate", "nvfp4", *options]).stdout_bytes
    assert asked == made("nvfp4", "round", tensor_scale=0.5, count=9, answers=False)
    assert b"# tensor-scale: 3f000000\n" in asked
    path.write_bytes(made("mxfp4", scale_rule="even"))
    assert run(vectors_group, ["generate", "mxfp4", "--scale-rule", "even"]).stdout_bytes == path.read_bytes()
    assert run(vectors_group, ["verify", str(path)]).exit_code == 0


def test_errors_are_one_line_and_exit_code_2():
    found = subprocess.run([*COMMAND, "verify"], input=b"", capture_output=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr.count(b"\n")) == (2, b"", 1)
    assert found.stderr.startswith(b"numerics: nothing came: did the device start? ")
    found = subprocess.run([*COMMAND, "verify"], input=b"x\n", capture_output=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr.count(b"\n")) == (2, b"", 1)
    assert found.stderr.startswith(b"numerics: line 1: ")


def test_a_closed_pipe_ends_quietly():
    command = [*COMMAND, "generate", "fp4", "--exhaustive"]
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"# numerics vectors 1\n"
        writer.stdout.close()
        assert writer.wait(LIMIT) != 2
        assert writer.stderr.read() == b""


# ---- a device -----------------------------------------------------------------------------------

DEVICE = DOCS.read_text(encoding="utf-8").partition("```c\n")[2].partition("```")[0]


def built(folder, source):
    """The program in C, compiled with what the system has."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "mine.c").write_text(source, encoding="utf-8")
    subprocess.run([compiler, "-O1", "-o", folder / "mine", folder / "mine.c", "-lm"], check=True, timeout=60)
    return folder / "mine"


def answered(program, asked):
    return subprocess.run([program], input=asked, capture_output=True, check=True, timeout=60).stdout


@pytest.mark.turns
def test_the_device_of_the_docs_is_right(tmp_path):
    program = built(tmp_path, DEVICE)
    for count in (None, 200_000):
        asked = made("fp8_e4m3", answers=False, count=count)
        found = judged(answered(program, asked))
        assert found
        assert found.vectors == len(read(asked))
        assert found.compared


@pytest.mark.turns
def test_a_pipe_of_three_processes(tmp_path):
    """generate | ./mine | verify, as docs/vectors.md says."""
    program = built(tmp_path, DEVICE)
    piped = {"stdout": subprocess.PIPE}
    questions = [*COMMAND, "generate", "fp8_e4m3", "--inputs-only"]
    with child(questions, **piped) as ask, child([program], stdin=ask.stdout, **piped) as mine:
        ask.stdout.close()
        found = subprocess.run(
            [*COMMAND, "verify"], stdin=mine.stdout, capture_output=True, timeout=LIMIT, text=True
        )
        mine.stdout.close()
        assert (ask.wait(LIMIT), mine.wait(LIMIT), found.returncode, found.stderr) == (0, 0, 0, "")
    assert found.stdout.endswith(" vectors, 0 mismatches\n")


@pytest.mark.turns
def test_a_device_that_takes_ties_away_is_found_out(tmp_path):
    faulty = DEVICE.replace("0x7ffff + (a >> 20 & 1)", "0x80000")
    assert faulty != DEVICE
    program = built(tmp_path, faulty)
    found = judged(answered(program, made("fp8_e4m3", answers=False)), shown=1000)
    ties = {wrong.input for wrong in found.first}
    assert len(ties) == 2 * len(range(0x08, 0x7E, 2))  # the ties above each even normal code
    for wrong in found.first:  # half a step, and nothing below
        assert int(wrong.input, 16) & 0xFFFFF == 0x80000
    found = judged(answered(program, made("fp8_e4m3", rounding="half_away", answers=False)), shown=1000)
    assert len({wrong.input for wrong in found.first}) == 2 * len(
        range(0, 8, 2)
    )  # those above each even subnormal one stay even


AFFINE = r"""
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

int main(void) { /* int8: input, scale, zero point */
  char line[128];
  unsigned x, s, z;
  while (fgets(line, sizeof line, stdin))
    if (line[0] == '#') fputs(line, stdout);
    else if (sscanf(line, "%x %x %x", &x, &s, &z) == 3) {
      float value, scale, q;
      memcpy(&value, &x, 4);
      memcpy(&scale, &s, 4);
      q = rintf(value / scale);
      q = q != q ? 0 : q < -1e6f ? -1e6f : q > 1e6f ? 1e6f : q;
      long code = (long)q + (int32_t)z;
      code = code < -128 ? -128 : code > 127 ? 127 : code;
      printf("%08x %08x %08x %02x\n", x, s, z, (unsigned)code & 255);
    }
}
"""


@pytest.mark.turns
def test_an_affine_device_in_c_is_judged(tmp_path):
    program = built(tmp_path, AFFINE)
    for count in (None, 5000):
        found = judged(answered(program, made("int8", "affine", answers=False, count=count)))
        assert found, str(found)
    faulty = AFFINE.replace("value / scale", "value * (1 / scale)")
    found = judged(answered(built(tmp_path, faulty), made("int8", "affine", answers=False)))
    assert (found.counterexample.law, found.dialect) == ("division", "reciprocal of the scale")
    assert "scale 0x" in str(found.counterexample)


def in_python(asked, answer):
    """A device of a few lines: answer(numbers of the question) gives those that it appends."""
    answers = []
    for line in asked.decode().splitlines():
        if line.startswith("#"):
            answers.append(line)
        else:
            numbers = answer([int(word, 16) for word in line.split()])
            answers.append(f"{line} : {' '.join(f'{number:02x}' for number in numbers)}")
    return ("\n".join(answers) + "\n").encode()


# ---- devices that keep something of the vector before ---------------------------------------------

KEPT = {
    "the sign": lambda before, now, at: now[1] & 0x7F | before[0] >> 24 & 0x80,
    "a sleep after zero": lambda before, now, at: now[1] & (0xFF if before[0] << 1 & 0xFFFFFFFF else 0x80),
    "a sleep after NaN": lambda before, now, at: now[1] if before[1] & 0x7F < 0x7F else now[1] | 0x7F,
    "an answer in 4096": lambda before, now, at: before[1] if at % 4096 == 4095 else now[1],
    "the exponent": lambda before, now, at: (
        now[1] ^ (abs((now[0] >> 23 & 255) - (before[0] >> 23 & 255)) > 3)
    ),
    "a saturation": lambda before, now, at: now[1] | 0x7E * (before[1] & 0x7E == 0x7E and now[1] & 0x7F < 8),
}


def keeping(text, kept):
    """The answers of a device, right but for what it keeps: kept(numbers before, these, their place)."""
    lines, before, at = [], None, 0
    for line in text.decode().splitlines():
        if not line.startswith("#"):
            now = [int(word, 16) for word in line.split()]
            wrong = now[-1] if before is None else kept(before, now, at)
            digits = len(line.split()[-1])
            line = f"{line[:-digits]}{wrong:0{digits}x}"
            before, at = now, at + 1
        lines.append(line)
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.turns(12)
@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("rounding", ["half_even", "floor"])
def test_what_a_device_keeps_of_the_vector_before_hardly_showed(kept, rounding):
    """In rising order a vector is like the one before it: one mismatch or none was found."""
    found = judged(keeping(made("fp8_e4m3", rounding=rounding), KEPT[kept]))
    assert found.mismatches > (1 if kept != "an answer in 4096" else 0), str(found)


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "uint8"])
@pytest.mark.parametrize("late", [slice(1, 2), slice(2, 3)], ids=["scale", "zero point"])
def test_a_scale_or_zero_point_of_the_vector_before_passed(name, late):
    """Each scale began with an input of zero, whose code no scale changes."""
    asked = operation(name, "affine")

    def kept(before, now, at):
        given = [*now[:3]]
        given[late] = before[late]
        fields = {f.name: np.uint32([[word]]) for f, word in zip(asked.asked, given, strict=True)}
        return int(asked.due(fields)["code"][0, 0]) if given != now[:3] else now[3]

    found = judged(keeping(made(name, "affine"), kept))
    assert found.mismatches > 1000, str(found)


def packed_by_shifts(codes):
    whole = sum(code << 6 * place for place, code in enumerate(codes))
    return list(whole.to_bytes(10, "little"))


def unpacked_by_shifts(string):
    whole = int.from_bytes(bytes(string), "little")
    return [whole >> 6 * place & 63 for place in range(13)]


@pytest.mark.parametrize(
    ("name", "device"), [("pack", packed_by_shifts), ("unpack", unpacked_by_shifts)], ids=["pack", "unpack"]
)
def test_a_device_of_bytes_in_python_is_judged(name, device):
    asked = made("fp6_e2m3", name, answers=False)
    assert judged(in_python(asked, device))
    found = judged(in_python(asked, lambda numbers: device(numbers)[::-1]))
    assert found.counterexample.law == "order", str(found)
    last = judged(in_python(asked, lambda numbers: [*device(numbers)[:-1], device(numbers)[-1] ^ 1]))
    assert last.counterexample.law == "last_byte", str(last)


def test_a_scale_of_somebodys_own_that_is_none_is_refused():
    lines_of = ("7f800000 00000000", "a scale of inf"), ("3f800000 00000080", "zero point of 128")
    for given, said in lines_of:
        with pytest.raises(nx.NumericsError, match=said):
            judged(header(operation("int8", "affine"), 1) + f"3f800000 {given} 01\n".encode())


def test_a_device_that_answers_other_questions_is_found():
    """As many lines as were asked for, each right, but not these."""
    lines = made("fp8_e4m3").splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if not line.startswith(b"#"))
    same = b"".join(lines[:first] + [lines[first]] * (len(lines) - first))
    with pytest.raises(nx.NumericsError, match=rf"line {first + 2} answers input 0+, but 0+1 was asked"):
        judged(same)
    lines[first], lines[first + 5] = lines[first + 5], lines[first]
    with pytest.raises(nx.NumericsError, match=rf"line {first + 1} answers input 0"):
        judged(b"".join(lines))


@pytest.mark.parametrize("options", [{"rounding": "stochastic"}, {"count": 300}, {"exhaustive": True}])
def test_the_same_questions_come_back(options):
    name, asked = ("fp8_e4m3", "decode") if "exhaustive" in options else ("mx6", "encode")
    found = judged(made(name, asked, **options))
    assert (bool(found), found.compared) == (True, True)


def test_questions_of_somebodys_own_are_judged_and_it_is_said():
    found = judged(GOOD)
    assert (bool(found), found.compared) == (True, False)
    assert "whether all questions came back cannot be known" in str(found)
    other = made("fp8_e4m3").replace(b"questions: numerics 0", b"questions: numerics 9")
    assert not judged(other).compared


# ---- what wrong answers say --------------------------------------------------------------------------


def misunderstood(due, came, **options):
    """A device that computes one operation where another one was asked."""
    asked = b"".join(generate(due)).splitlines(keepends=True)
    wrong = b"".join(generate(came)).splitlines(keepends=True)
    head = [line for line in asked if line.startswith(b"#")]
    body = [line for line in wrong if not line.startswith(b"#")]
    return verify(io.BytesIO(b"".join(head + body)), **options)


SAID = {
    "ties": (operation("fp8_e4m3"), operation("fp8_e4m3", rounding="half_away"), "ties away"),
    "infinity": (
        operation("fp8_e5m2", "round"), operation("fp8_e5m2", "round", overflow="nonsaturate"),
        "does not saturate"),
    "scale_rule": (operation("mxfp4"), operation("mxfp4", scale_rule="ceil"), "scale rule ceil"),
    "elements": (operation("mx6"), operation("mx6", rounding="toward_zero"), "truncates"),
}  # fmt: skip


@pytest.mark.turns(8)
@pytest.mark.parametrize("law", SAID)
def test_a_pipe_named_neither_the_law_nor_the_deviation(law):
    due, came, dialect = SAID[law]
    found = misunderstood(due, came, shown=0)
    assert not found
    assert (found.counterexample.law, found.dialect) == (law, dialect)
    assert sum(number.bits != 0 for number in found.counterexample.input) <= due.asked[0].count
    assert f"law {law}: " in str(found)
    assert dialect in str(found)


@pytest.mark.parametrize(
    ("numbers", "wrong", "told"),
    [
        ([1.0] * 32, 17, ["(1) x32; wrong at place 17", "codes 6 x17 [7] 6 x14", "codes 6 x17 [6] 6 x14"]),
        ([0.0] * 31 + [1.0], 31, ["(0) x31, 0x3F800000 (1); wrong at place 31", "codes 0 x31 [7]"]),
        (
            [1.0] + [0.0] * 31,
            4,
            ["then 27 zeros; wrong at place 4", "codes 6 0 0 0 [1]", "codes 6 0 0 0 [0]"],
        ),
        ([1.0] + [0.0] * 31, 0, ["(1), ", "then 31 zeros", "codes 7", "codes 6"]),
    ],
)
def test_a_block_of_a_pipe_did_not_say_which_element_is_wrong(numbers, wrong, told):
    """Runs of 31 zeros hid it, and one past the last number that is not zero was not shown at all."""
    asked = operation("mxfp4")
    given = {"input": np.float32([numbers]).view(np.uint32)}
    answers = asked.due(given)
    answers["code"][0, wrong] ^= 1
    found = judged(header(asked, 1) + asked.layout.format(given | answers))
    for part in told:
        assert part.rstrip(", ") in str(found)
    assert len(found.counterexample.input) == max(np.flatnonzero(numbers)[-1], wrong) + 1


def test_a_block_of_values_of_a_pipe_did_not_say_which_element_is_wrong():
    asked = operation("mx6", "round", rounding="stochastic")
    given = {"input": np.full((1, 16), 0x80000000, np.uint32), "random": np.zeros((1, 16), np.uint32)}
    answers = asked.due(given)
    answers["value"][0, 3] ^= 0x3F800000
    text = str(judged(header(asked, 1) + asked.layout.format(given | answers)))
    assert "(-0) x16; wrong at place 3 (from 0); random bits 0x00000000 x16" in text
    assert "[0x3F800000 (1)], 0x00000000 (0) x12" in text


def test_a_code_that_is_none_had_no_law():
    lines = b"".join(generate(operation("fp6_e2m3"))).splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if line.startswith(b"3f800000"))
    for at in (first, -1):
        lines[at] = lines[at][:-3] + b"ff\n"
    found = verify(io.BytesIO(b"".join(lines)))
    broken = found.counterexample
    assert (found.mismatches, broken.law, broken.differs) == (2, "code_range", 2)
    assert (broken.input[0].value, broken.came, broken.due) == (1.0, "ff", "08")


def with_x(text, marks):
    """The lines, the last word of some of which is X throughout."""
    lines = text.splitlines(keepends=True)
    answers = [re.sub(rb"[0-9a-f]+(?=\n$)", lambda word: b"x" * len(word[0]), line) if marks(line) else line
               for line in lines]  # fmt: skip
    return b"".join(answers)


def test_answers_of_x_alone_had_no_law():
    """A unit that leaves out NaN was a number of mismatches, and nothing said of what."""

    def marks(line):
        return not line.startswith(b"#") and int(line[:8], 16) & 0x7FFFFFFF > 0x7F800000

    found = judged(with_x(made("fp8_e4m3"), marks))
    assert (found.counterexample, found.unknown.law, found.unknown.differs) == (
        None,
        "known",
        found.mismatches,
    )
    assert found.unknown.input[0].bits == 0x7FC00000
    assert f"X or Z came for {found.mismatches} vectors of group nan" in str(found)
    assert "  came  an X or Z of a simulator: code\n  due   7f" in str(found)


def test_a_block_that_is_x_for_zeros_names_the_scale_and_its_places():
    text = made("mxfp4")
    first = text.index(b"\n00000000 ") + 1
    line = text[first : text.index(b"\n", first)]
    question, answer = line.split(b" : ")
    text = text.replace(line, question + b" : zz " + answer[3:-1] + b"X", 1)
    found = judged(text)
    assert "X or Z came for 1 vector of group" in str(found)
    assert "an X or Z of a simulator: scale, code at 1 of 32 places, the first 31 (from 0)" in str(found)


@pytest.mark.turns
def test_what_is_wrong_beside_an_x_has_its_law_and_the_x_one_too():
    away = operation("fp8_e4m3", rounding="half_away")
    text = lines_of(operation("fp8_e4m3"), lambda asked, f: away.due(f))
    found = judged(with_x(text, lambda line: line.startswith(b"80000000")))
    assert (found.counterexample.law, found.dialect, found.unknown.law) == ("ties", "ties away", "known")
    every = judged(with_x(text, lambda line: not line.startswith(b"#")))
    assert f"X or Z came for all {every.vectors} vectors, the first 4096 of groups" in str(every)


def test_an_x_of_a_simulator_was_a_malformed_line():
    lines = b"".join(generate(operation("fp6_e2m3"))).splitlines(keepends=True)
    due = lines[-1].split()[1].decode()
    lines[-1] = lines[-1][:-3] + b"xx\n"
    found = verify(io.BytesIO(b"".join(lines)))
    assert (found.vectors, found.mismatches) == (len(lines) - sum(line[:1] == b"#" for line in lines), 1)
    asked = lines[-1].split()[0].decode()
    place = re.escape(f"line {len(lines)}: code for {asked} (")
    assert re.search(place + r"[-\d.]+\): an X or Z of a simulator came, " + due + " is due", str(found))
    lines[-1] = lines[-1][:1] + b"X" + lines[-1][2:]
    with pytest.raises(
        nx.NumericsError, match=rf"line {len(lines)}: input, which is of the question, has an X"
    ):
        verify(io.BytesIO(b"".join(lines)))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"ffc8", "word 35 is 'ffc8', where code (2 hex digits) is due"),
        (b"0g", "word 35 is '0g', where code (2 hex digits) is due"),
        (b"", "it ends after 65 words of 66"),
        (b"08 08", "word 67 is '08', one too many"),
    ],
)
def test_what_is_wrong_in_a_long_line_was_cut_off(bad, told):
    """A line of 32 inputs is longer than what is shown of it; an answer was too wide, far to the right."""
    lines = made("mxfp6_e2m3", count=2).splitlines(keepends=True)
    words = lines[-1].split()
    at = 34 if b"word 35" in told.encode() else -1
    words[at] = bad
    lines[-1] = b" ".join(words) + b"\n"
    with pytest.raises(nx.NumericsError, match=re.escape(f"is not a vector: {told}; allowed: ")):
        judged(b"".join(lines))


# ---- scales that a device finds ----------------------------------------------------------------------

FOUND = (
    ("fp8_e4m3", {}),
    ("uint8 symmetric=False", {"scheme": "per_group(5)"}),
    ("nf4 per_group(64) scale_type=float16", {}),
    ("int8 scale_rule=full_range", {"scheme": "per_group(1)", "least": "amax 1e-12"}),
    ("int4", {"rounding": "half_away", "least": "none"}),
)


@pytest.mark.parametrize("name", ["quantize", "fake_quantize"])
@pytest.mark.parametrize(("dtype", "options"), FOUND, ids=str)
def test_groups_whose_scale_a_device_finds_are_asked_and_judged(dtype, options, name):
    text = made(dtype, name, **options)
    assert judged(text, strict_nan=True).vectors > 1000
    found = judged(made(dtype, name, count=64, **options))
    assert found
    asked = found.operation
    given = fields_of(asked, count=64)
    numbers = given["input"].view(np.float32)
    spec = asked.rule.spec
    if asked.rule.least.kind == "one":
        quantized = nx.quantize(numbers, spec)
        due = asked.due(given)
        if name == "quantize":
            assert (due["scale"].view(np.float32) == quantized.scale).all()
            assert (due["code"] == quantized.codes.view(due["code"].dtype)).all()
        else:
            values = due["value"].view(np.float32)
            np.testing.assert_array_equal(values, nx.fake_quantize(numbers, spec))


def by_rule(steps):
    """A device that does some steps otherwise."""
    return lambda asked, fields: replace(asked, rule=asked.rule.bent(**steps)).due(fields)


OTHERWISE = {
    "amax over 128": ("int8", {"end": 128.0}, "found_scale"),
    "adds 1e-12": ("int8", {"add": 1e-12}, "found_scale"),
    "reciprocal of the scale": ("fp8_e4m3", {"code": "reciprocal"}, "under_scale"),
    "rounds half_away": ("int8", {"rounding": "half_away"}, "under_scale"),
    "zero point floor": ("uint8 symmetric=False", {"zero": "floor"}, "found_zero_point"),
    "loses -0": ("fp8_e4m3", {"minus_zero": "lost"}, "under_scale"),
    "middles in float32": ("nf4", {"middles": "float32"}, "under_scale"),
}


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", OTHERWISE)
def test_a_device_that_finds_scales_otherwise_is_told_how(name):
    dtype, steps, law = OTHERWISE[name]
    asked = operation(dtype, "quantize")
    found = judged(lines_of(asked, by_rule(steps)), shown=1)
    assert (found.counterexample.law, found.dialect) == (law, name), str(found)
    assert sum(number.value != 0 for number in found.counterexample.input) <= 2
    asked = operation(dtype, "fake_quantize")
    found = judged(lines_of(asked, by_rule(steps)), shown=1)
    if name != "zero point floor":
        assert (found.counterexample.law, found.dialect) == ("found_values", name), str(found)


def kept_scale(of_codes):
    """A device that takes the scale of the group before: for its codes, or for its answer, too."""

    def device(asked, fields):
        own = asked.found(fields)
        late = {name: np.roll(part, 1, axis=0) for name, part in own.items()}
        return asked.under(fields, late) | (own if of_codes else {})

    return device


@pytest.mark.turns(6)
@pytest.mark.parametrize("dtype", ["int8", "uint8 symmetric=False"])
@pytest.mark.parametrize(("of_codes", "told"), [(False, "the scale"), (True, "the scale of the codes")])
def test_a_scale_of_the_group_before_is_told(dtype, of_codes, told):
    asked = operation(dtype, "quantize")
    found = judged(lines_of(asked, kept_scale(of_codes)))
    assert (found.counterexample.law, found.dialect) == ("in_step", f"{told} 1 vector late")
    asked = operation(dtype, "fake_quantize")
    found = judged(lines_of(asked, kept_scale(False)))
    assert (found.counterexample.law, found.dialect) == ("in_step", "the scale 1 vector late")


# ---- lanes -------------------------------------------------------------------------------------------

EVERY = (
    ("fp8_e4m3", "encode"), ("fp4", "decode"), ("fp8_e4m3", "decode"), ("fp6_e2m3", "round"),
    ("int8", "affine"), ("uint4", "affine"), ("fp6_e2m3", "pack"), ("int4", "unpack"), ("mxfp4", "encode"),
    ("mxfp4", "decode"), ("mx6", "round"), ("int8", "quantize"), ("fp8_e4m3", "fake_quantize"),
)  # fmt: skip


def moved(asked, order):
    """The vectors of an operation, each with the answer of another line: order(i, count)."""
    lines = b"".join(generate(asked)).splitlines(keepends=True)
    head = [line for line in lines if line.startswith(b"#")]
    body = lines[len(head) :]
    cut = len(Layout(asked.asked).template) - 1
    chosen = [order(i, len(body)) for i in range(len(body))]
    others = [body[at if 0 <= at < len(body) else i] for i, at in enumerate(chosen)]
    return b"".join([*head, *(line[:cut] + other[cut:] for line, other in zip(body, others, strict=True))])


ORDERS = {
    "the answer 1 vector late": lambda i, _: i - 1,
    "the answer 3 vectors early": lambda i, _: i + 3,
    "of every 2 vectors, i = 0 .. 1, vector i has the answer of i xor 1": lambda i, _: i ^ 1,
    "of every 4 vectors, i = 0 .. 3, vector i has the answer of (i + 1) mod 4": (
        lambda i, n: i // 4 * 4 + (i + 1) % 4 if i // 4 * 4 + 4 <= n else i),
    "of every 8 vectors, i = 0 .. 7, vector i has the answer of 7 - i": (
        lambda i, n: i // 8 * 8 + 7 - i % 8 if i // 8 * 8 + 8 <= n else i),
}  # fmt: skip


@pytest.mark.turns
@pytest.mark.parametrize("told", ORDERS)
@pytest.mark.parametrize(("dtype", "name"), EVERY)
def test_answers_of_another_line_or_lane_were_told_as_wrong_values(dtype, name, told):
    found = judged(moved(operation(dtype, name), ORDERS[told]), shown=1)
    assert (found.counterexample.law, found.dialect) == ("in_step", told), str(found)


def turned(part, order):
    return part[:, order] if part.shape[1] > 1 else part


@pytest.mark.turns(18)
@pytest.mark.parametrize(("dtype", "name"), [("mxfp4", "encode"), ("mxfp4", "decode"), ("int8", "quantize")])
@pytest.mark.parametrize(
    ("told", "order"),
    [
        (lambda _: "i xor 1", lambda i, n: i ^ 1),
        (lambda _: "i xor 3", lambda i, n: i // 4 * 4 + 3 - i % 4),  # the ends of nibbles, of bytes
        (lambda n: f"i xor {n - 2}", lambda i, n: (n - 1 - i) ^ 1),
        (lambda n: f"(i + 1) mod {n}", lambda i, n: (i + 1) % n),
        (lambda n: f"{n - 1} - i", lambda i, n: n - 1 - i),
        (lambda n: f"{n // 4} * (i mod 4) + i div 4", lambda i, n: np.arange(n).reshape(4, -1).T.reshape(-1)),
    ],
)
def test_answers_of_another_place_of_a_line_were_told_as_wrong_values(dtype, name, told, order):
    asked = operation(dtype, name)
    count = max(f.count for f in asked.answered)
    places = order(np.arange(count), count)
    found = judged(
        lines_of(asked, lambda _, fields: {f.name: turned(fields[f.name], places) for f in asked.answered})
    )
    assert found.counterexample.law == "in_step"
    assert found.dialect == f"of its {count} places (from 0) place i has the answer of {told(count)}"


# ---- files for a testbench ------------------------------------------------------------------------


def as_readmemh(text):
    """The words of a file, as IEEE 1800-2017 §21.4 has them: comments, blanks, hex digits, underscores."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text.decode(), flags=re.DOTALL)
    found = plain.split()
    assert all(re.fullmatch(r"[0-9a-fA-FxXzZ_]+", word) for word in found)
    return [int(word.replace("_", ""), 16) for word in found]


@pytest.mark.parametrize(
    ("dtype", "name", "told"),
    [
        ("fp8_e4m3", "encode", {"tie", "subnormal_tie", "walking", "overflow", "nan", "inf", "exact"}),
        ("fp8_e5m2", "decode", {"zero", "subnormal", "normal", "inf", "nan"}),
        ("mxfp4", "encode", {"lone_maximum", "nan_or_inf", "zero", "subnormal", "ordinary"}),
        ("mx6", "decode", {"ordinary"}),
        ("int8", "affine", {"midway", "division", "clamp", "zero_point", "nan_is_zero", "quotient"}),
        ("fp6_e2m3", "pack", {"one_bit", "one_bit_missing", "random"}),
        ("uint8 symmetric=False", "quantize", {"lone_maximum", "nan_or_inf", "zero", "subnormal"}),
        ("nf4", "fake_quantize", {"lone_maximum", "nan_or_inf", "zero", "subnormal", "ordinary"}),
    ],
)
def test_a_file_for_verilog_lacked_words_or_groups(dtype, name, told):
    text = b"".join(readmemh(asked := operation(dtype, name)))
    lines = made(dtype, name).splitlines()
    due = [int(re.sub(rb"[ :]", b"", line), 16) for line in lines if not line.startswith(b"#")]
    assert as_readmemh(text) == due
    of_words = Counter(re.findall(rb"^[0-9a-f_]+ // (\w+)$", text, re.MULTILINE))
    covered = {
        name: int(count) for name, count in re.findall(rb"^// covered: (\w+) (\d+)$", text, re.MULTILINE)
    }
    assert dict(of_words) == covered
    assert {name.encode() for name in told} <= set(covered)
    bits = 4 * sum(field.digits * field.count for field in (*asked.asked, *asked.answered))
    assert f"words: {len(due)} of {bits} bits".encode() in text
    assert max(due) < 1 << bits


def test_a_file_for_verilog_of_all_inputs_is_refused():
    with pytest.raises(nx.NumericsError, match="held in memory"):
        b"".join(readmemh(operation("fp4"), exhaustive=True))
    result = CliRunner().invoke(vectors_group, ["generate", "fp4", "--format", "readmemh", "--inputs-only"])
    assert "leaves the answers out" in str(result.exception)
    result = CliRunner().invoke(vectors_group, ["generate", "fp4", "--op", "decode", "--format", "readmemh"])
    assert "f_c0c00000 // normal" in result.output


# ---- Verilog: the docs' testbenches, simulated ----------------------------------------------------

BENCH, BLOCK_BENCH, ANSWERS, BLOCK_ANSWERS, CLOCKED, CLOCKED_BLOCKS = re.findall(
    r"```verilog\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL
)
E4M3_ENCODER = """
module encoder (input [31:0] x, output [7:0] code);
  wire [30:0] a = x[30:0];
  wire [30:0] up = a + 31'h7ffff + a[20];                      // half to even at bit 20
  wire [7:0] normal = (up >> 20) - 8'd192;                     // 960 = 120 * 8 less, in 8 bits
  wire [7:0] shift = 8'd141 - a[30:23];                        // of 24 bits, to steps of 2**-9
  wire [31:0] whole = {8'd0, 1'b1, a[22:0]};
  wire [31:0] kept = shift > 31 ? 0 : whole >> shift;
  wire [31:0] half = shift > 31 ? 0 : 32'd1 << (shift - 1);
  wire [31:0] lost = shift > 31 ? 0 : whole & ((32'd1 << shift) - 1);
  wire [31:0] tiny = kept + (shift <= 31 && (lost > half || (lost == half && kept[0])));
  wire [6:0] m = a > 31'h7f800000 ? 7'h7f : a >= 31'h43e00000 ? 7'h7e
               : a >= 31'h3c800000 ? normal[6:0] : tiny[6:0];
  assign code = {x[31], m};
endmodule
"""
FP4_ENCODER = """
module encoder (input [31:0] x, output [3:0] code);
  wire [30:0] a = x[30:0];
  wire [2:0] m = a > 31'h40a00000 ? 7 : a >= 31'h40600000 ? 6 : a > 31'h40200000 ? 5 : a >= 31'h3fe00000 ? 4
               : a > 31'h3fa00000 ? 3 : a >= 31'h3f400000 ? 2 : a > 31'h3e800000 ? 1 : 0;
  assign code = {x[31] & (a <= 31'h7f800000), m};
endmodule
"""
DUMP = """
module dump;
  reg [%d:0] vectors [0:%d];
  integer i;
  initial begin
    $readmemh("words.mem", vectors);
    for (i = 0; i < %d; i = i + 1) $display("%%h", vectors[i]);
    $finish(0);
  end
endmodule
"""


MXFP4_QUANTIZER = """
module quantizer (input [1023:0] x, output reg [7:0] scale, output reg [127:0] code);
  reg [30:0] a;
  reg [7:0] top;
  reg [95:0] w; // the magnitude over the scale in units of 2**-31; its last bit holds whatever is lower
  integer j, shift;
  always @* begin
    top = 0;
    for (j = 0; j < 32; j = j + 1) if (x[32 * j + 23 +: 8] > top) top = x[32 * j + 23 +: 8];
    scale = top == 255 ? 255 : top < 2 ? 0 : top - 2;
    for (j = 0; j < 32; j = j + 1) begin
      a = x[32 * j +: 31];
      shift = (a[30:23] == 0 ? 1 : a[30:23]) - scale + 8;
      w = {a[30:23] != 0, a[22:0]};
      if (shift >= 0) w = w << shift;
      else w = shift < -24 ? w != 0 : w >> -shift | ((w >> -shift << -shift) != w);
      code[4 * j +: 4] = {x[32 * j + 31],
        w > 40'h2_80000000 ? 3'd7 : w >= 40'h1_c0000000 ? 3'd6 : w > 40'h1_40000000 ? 3'd5
        : w >= 40'hE0000000 ? 3'd4 : w > 40'hA0000000 ? 3'd3 : w >= 40'h60000000 ? 3'd2
        : w > 40'h20000000 ? 3'd1 : 3'd0};
    end
    if (top == 255) code = {32{4'hA}}; // free
  end
endmodule
"""


def simulated(folder, *sources):
    """What a simulation prints, of Icarus Verilog; it ends with 1 where there are mismatches, else with 0."""
    if shutil.which("iverilog") is None:
        pytest.skip("no iverilog")
    (folder / "mine.v").write_text("\n".join(sources), encoding="utf-8")
    subprocess.run(["iverilog", "-o", "mine", "mine.v"], cwd=folder, check=True, timeout=LIMIT)
    ran = subprocess.run(["vvp", "-n", "mine"], cwd=folder, capture_output=True, timeout=LIMIT)
    lines = ran.stdout.decode().splitlines()
    told = [line for line in lines if not line.startswith(("FATAL: ", " ", "ERROR: ", "WARNING: "))]
    assert ran.returncode == bool(told and told[-1].endswith("mismatches") and told[-1] != "0 mismatches")
    return "".join(f"{line}\n" for line in told)


def of_fp4(source):
    """A testbench of the docs, for FP4."""
    words = made("fp4").splitlines()
    count = sum(not line.startswith(b"#") for line in words)
    for old, new in (("39:8", "35:4"), ("39:0", "35:0"), ("7:0", "3:0"), ("27626", str(count - 1)),
                     ("27627", str(count)), ("e4m3", "fp4")):  # fmt: skip
        source = source.replace(old, new)
    return source


def missing_words_are_mismatches(file, bench, unit):
    """A testbench that was given no file, an empty one, or a part of one told no mismatch: all was X."""
    whole = file.read_bytes()
    words = [line for line in whole.splitlines() if not line.startswith(b"//")]
    for kept in (None, 0, len(words) // 2):
        file.unlink(missing_ok=True)
        if kept is not None:
            file.write_bytes(b"\n".join(words[:kept]) + b"\n")
        told = simulated(file.parent, bench, unit).splitlines()
        assert told[-1] == f"{len(words) - (kept or 0)} mismatches"
    file.write_bytes(whole)


def test_the_testbench_of_the_docs_is_of_as_many_words_as_the_file():
    facts = b"".join(readmemh(operation("fp8_e4m3"))).decode()
    assert re.search(r"// words: .*(reg .*)", facts)[1] in BENCH


@pytest.mark.turns
def test_a_testbench_of_blocks_called_free_codes_wrong(tmp_path):
    """A plain !== fails a unit that verify passes: the codes under a scale that is NaN."""
    file = b"".join(readmemh(operation("mxfp4")))
    assert re.search(r"// words: .*(reg .*)", file.decode())[1] in BLOCK_BENCH
    (tmp_path / "mxfp4.mem").write_bytes(file)
    assert simulated(tmp_path, BLOCK_BENCH, MXFP4_QUANTIZER) == "0 mismatches\n"
    missing_words_are_mismatches(tmp_path / "mxfp4.mem", BLOCK_BENCH, MXFP4_QUANTIZER)
    plain = BLOCK_BENCH.replace("scale !== 8'hff && ", "")
    assert plain != BLOCK_BENCH
    assert (
        simulated(tmp_path, plain, MXFP4_QUANTIZER).splitlines()[-1]
        == f"{file.count(b'nan_or_inf') - 1} mismatches"
    )
    for old, new in (
        ("w > 40'h2_8", "w >= 40'h2_8"),
        ("top - 2", "top == 200 ? 8'hx : top - 2"),
        ("255 : top", "254 : top"),
        ("{32{4'hA}}", "128'bx"),  # an X is never free
    ):
        assert old in MXFP4_QUANTIZER
        told = simulated(tmp_path, BLOCK_BENCH, MXFP4_QUANTIZER.replace(old, new)).splitlines()
        assert len(told) > 1


@pytest.mark.turns
def test_no_testbench_of_blocks_led_to_a_verdict(tmp_path):
    (tmp_path / "questions.txt").write_bytes(made("mxfp4", answers=False))
    simulated(tmp_path, BLOCK_ANSWERS, MXFP4_QUANTIZER)
    assert judged((tmp_path / "answers.txt").read_bytes())
    simulated(tmp_path, BLOCK_ANSWERS, MXFP4_QUANTIZER.replace("w > 40'h2_8", "w >= 40'h2_8"))
    found = judged((tmp_path / "answers.txt").read_bytes())
    assert found.counterexample.law == "element_ties"


CASES = {
    "fp8_e4m3": ("fp8_e4m3", E4M3_ENCODER, lambda bench: bench, ("31'h7ffff + a[20]", "31'h80000")),
    "fp4": ("fp4", FP4_ENCODER, of_fp4, ("a > 31'h40a00000", "a >= 31'h40a00000")),
}


@pytest.mark.turns(4)
@pytest.mark.parametrize("name", CASES)
def test_a_testbench_of_the_docs_could_not_be_followed(name, tmp_path):
    dtype, right, fitted, (old, new) = CASES[name]
    assert old in right
    file = fitted("e4m3.mem")
    (tmp_path / file).write_bytes(b"".join(readmemh(operation(dtype))))
    (tmp_path / "questions.txt").write_bytes(made(dtype, answers=False))
    assert simulated(tmp_path, fitted(BENCH), right) == "0 mismatches\n"
    missing_words_are_mismatches(tmp_path / file, fitted(BENCH), right)
    simulated(tmp_path, fitted(ANSWERS), right)
    assert judged((tmp_path / "answers.txt").read_bytes())
    wrong = right.replace(old, new)
    told = simulated(tmp_path, fitted(BENCH), wrong).splitlines()
    assert told[-1] == f"{len(told) - 1} mismatches"
    assert len(told) > 1
    simulated(tmp_path, fitted(ANSWERS), wrong)
    found = judged((tmp_path / "answers.txt").read_bytes())
    assert (found.mismatches, found.counterexample.law) == (len(told) - 1, "ties")


CLOCKED_ENCODER = """
module encoder (input clk, input [31:0] x, output [7:0] code);
  reg [31:0] first;
  reg [7:0] second, third;
  wire [7:0] made;
  combinational inside (.x(first), .code(made));
  assign code = third;
  always @(posedge clk) begin first <= x; second <= made; third <= second; end
endmodule
"""


@pytest.mark.turns
def test_the_clocked_testbench_of_the_docs_could_not_be_followed(tmp_path):
    (tmp_path / "questions.txt").write_bytes(made("fp8_e4m3", answers=False))
    unit = CLOCKED_ENCODER + E4M3_ENCODER.replace("module encoder", "module combinational")
    simulated(tmp_path, CLOCKED, unit)
    assert judged((tmp_path / "answers.txt").read_bytes())
    for latency, told in (("2", "late"), ("4", "early")):
        simulated(tmp_path, CLOCKED.replace("LATENCY = 3", f"LATENCY = {latency}"), unit)
        found = judged((tmp_path / "answers.txt").read_bytes())
        assert found.counterexample.law == "in_step"
        assert told in str(found)


CLOCKED_QUANTIZER = """
module quantizer (input clk, input [1023:0] x, output [7:0] scale, output [127:0] code);
  reg [1023:0] first;
  reg [135:0] second, third;
  wire [7:0] s;
  wire [127:0] c;
  combinational inside (.x(first), .scale(s), .code(c));
  assign {scale, code} = third;
  always @(posedge clk) begin first <= x; second <= {s, c}; third <= second; end
endmodule
"""


def test_no_clocked_testbench_of_blocks_led_to_a_verdict(tmp_path):
    (tmp_path / "questions.txt").write_bytes(made("mxfp4", count=300, answers=False))
    unit = CLOCKED_QUANTIZER + MXFP4_QUANTIZER.replace("module quantizer", "module combinational")
    simulated(tmp_path, CLOCKED_BLOCKS, unit)
    assert judged((tmp_path / "answers.txt").read_bytes())
    simulated(tmp_path, CLOCKED_BLOCKS.replace("LATENCY = 3", "LATENCY = 2"), unit)
    found = judged((tmp_path / "answers.txt").read_bytes())
    assert (found.counterexample.law, "late" in str(found)) == ("in_step", True)


def test_an_x_of_a_testbench_of_the_docs_is_a_mismatch(tmp_path):
    (tmp_path / "fp4.mem").write_bytes(b"".join(readmemh(operation("fp4"))))
    (tmp_path / "questions.txt").write_bytes(made("fp4", answers=False))
    unknown = FP4_ENCODER.replace("? 7 :", "? 3'bx :")
    told = simulated(tmp_path, of_fp4(BENCH), unknown).splitlines()
    assert len(told) > 1
    simulated(tmp_path, of_fp4(ANSWERS), unknown)
    found = judged((tmp_path / "answers.txt").read_bytes())
    assert found.mismatches == len(told) - 1
    assert "an X or Z of a simulator came" in str(found)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("fp6_e2m3", "encode"), ("fp8_e5m2", "decode"), ("mxfp4", "encode"), ("nvfp4", "decode"),
     ("mx9", "encode"), ("int8", "affine"), ("fp6_e2m3", "pack"), ("fp4", "round")],
)  # fmt: skip
def test_a_simulator_reads_a_file_as_another(dtype, name, tmp_path):
    text = b"".join(readmemh(operation(dtype, name)))
    (tmp_path / "words.mem").write_bytes(text)
    count, bits = map(int, re.search(rb"words: (\d+) of (\d+) bits", text).groups())
    came = simulated(tmp_path, DUMP % (bits - 1, count - 1, count)).split()
    assert [int(word, 16) for word in came] == as_readmemh(text)


# ---- answers that are late ------------------------------------------------------------------------------


def lines_of(asked, bend, **options):
    """Vectors whose answers are what bend(operation, fields) makes of the questions and right answers."""
    text = b"".join(generate(asked, **options)).splitlines(keepends=True)
    first = next(at for at, line in enumerate(text) if not line.startswith(b"#"))
    parts = [
        batch.fields for batch in asked.layout.batches(io.BytesIO(b"".join(text[first:])), b"", first + 1)
    ]
    fields = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return b"".join(text[:first]) + asked.layout.format(fields | bend(asked, fields))


def late(x, steps):
    """Each line has what came some lines before; early where steps is negative."""
    if steps < 0:
        return np.concatenate([x[-steps:], x[steps:]])
    return np.concatenate([x[:steps], x[:-steps]])


def answers(steps, *names):
    return lambda asked, f: {
        a.name: late(f[a.name], steps) for a in asked.answered if a.name in names or not names
    }


def questions(steps, name, bits=0xFFFFFFFF):
    def bend(asked, f):
        given = {field.name: f[field.name] for field in asked.asked}
        mask = np.asarray(bits & np.iinfo(given[name].dtype).max).astype(given[name].dtype)
        given[name] = (given[name] & ~mask) | (late(given[name], steps) & mask)
        return asked.due(given)

    return bend


def lane(at, step, *names):
    """One place of a block has what came some lines before."""

    def bend(asked, f):
        found = {a.name: f[a.name].copy() for a in asked.answered}
        for name in names:
            found[name][:, at] = late(f[name], step)[:, at]
        return found

    return bend


def lane_of(at, bend):
    """One place of a block is answered as another device does."""

    def bent(asked, f):
        other, found = bend(asked, f), {a.name: f[a.name].copy() for a in asked.answered}
        name = "value" if "value" in found else "code"
        found[name][:, at] = other[name][:, at]
        return found

    return bent


def sign_of_code(steps):
    def bend(asked, f):
        sign = np.asarray(0x80).astype(f["code"].dtype)
        return {"code": (f["code"] & ~sign) | (late(f["code"], steps) & sign)}

    return bend


LATE = {
    "the answer 12 vectors late": (operation("fp8_e4m3"), answers(12)),
    "the answer 64 vectors late": (operation("int8", "affine"), answers(64)),
    "the scale 33 vectors late": (operation("mxfp4"), answers(33, "scale")),
    "at place 9 (from 0) the answer 1 vector late": (operation("mxfp8_e4m3", "decode"), lane(9, 1, "value")),
    "at place 30 (from 0) the code 20 vectors late": (operation("mxfp4"), lane(30, 20, "code")),
    "at place 31 (from 0) the scale 1 vector late": (
        operation("mxfp8_e4m3", "decode"),
        lane_of(31, questions(1, "scale")),
    ),
    "at place 5 (from 0) the sign of the value 2 vectors late": (
        operation("mxfp8_e4m3", "decode"),
        lane_of(5, questions(2, "code", 0x80)),
    ),
    "the answer 1 vector late": (operation("fp8_e4m3"), answers(1)),
    "the answer 8 vectors late": (operation("mxfp4"), answers(8)),
    "the answer 2 vectors early": (operation("fp4", "round"), answers(-2)),
    "the answer 3 vectors late": (operation("int4", "pack"), answers(3)),
    "the answer 5 vectors late": (operation("fp6_e2m3", "unpack"), answers(5)),
    "the answer 4 vectors late": (operation("fp8_e5m2", "decode"), answers(4)),
    "the scale 1 vector late": (operation("mxfp4"), answers(1, "scale")),
    "the sign of the input 1 vector late": (operation("mxfp4"), questions(1, "input", 1 << 31)),
    "the fraction of the input 2 vectors late": (operation("fp8_e4m3"), questions(2, "input", 0x7FFFFF)),
    "the zero point 1 vector late": (operation("int8", "affine"), questions(1, "zero-point")),
    "the scale 2 vectors late": (operation("uint4", "affine"), questions(2, "scale")),
    "the random bits 1 vector late": (operation("fp8_e4m3", rounding="stochastic"), questions(1, "random")),
    "the scale 3 vectors early": (operation("mxfp4"), answers(-3, "scale")),
    "the sign of the code 1 vector early": (operation("fp8_e4m3"), sign_of_code(-1)),
    "the sign of the input 2 vectors early": (operation("mxfp4"), questions(-2, "input", 1 << 31)),
    "the zero point 64 vectors early": (operation("int8", "affine"), questions(-64, "zero-point")),
    "the lowest 20 bits of the input 1 vector early": (
        operation("fp8_e4m3"),
        questions(-1, "input", 0xFFFFF),
    ),
    "the lowest 3 bits of the random bits 2 vectors late": (
        operation("fp8_e4m3", rounding="stochastic", draw="a8"),
        questions(2, "random", 7),
    ),
    "the microexponents 1 vector late": (operation("mx6", "decode"), questions(1, "microexponents")),
}


@pytest.mark.turns(24)
@pytest.mark.parametrize("said", LATE)
def test_a_unit_that_is_late_was_called_wrong_by_its_numbers(said):
    asked, bend = LATE[said]
    found = verify(io.BytesIO(lines_of(asked, bend)))
    assert not found
    assert found.dialect == said
    assert found.counterexample.law == "in_step"
    assert said in str(found)


def test_a_sign_that_is_late_was_a_zero_without_sign():
    found = verify(io.BytesIO(lines_of(operation("fp8_e4m3"), sign_of_code(1))))
    assert found.dialect == "the sign of the code 1 vector late"


def test_an_answer_that_depends_on_the_line_after_it_was_said_to_depend_on_those_before():
    """Whose next question is negative, saturates wrongly: nothing of it is a field of another line."""

    def bend(asked, f):
        negative = late(f["input"], -1) >> 31 == 1
        return {"code": np.where(negative & (f["code"] == 0x7E), 0x7D, f["code"])}

    found = verify(io.BytesIO(lines_of(operation("fp8_e4m3"), bend)))
    assert found.counterexample.law == "repeatable"
    assert "it depends on other lines, before or after it" in found.counterexample.where


def test_a_unit_that_is_late_begins_with_x():
    asked = operation("fp8_e4m3")
    text = lines_of(asked, answers(1)).splitlines(keepends=True)
    first = next(at for at, line in enumerate(text) if not line.startswith(b"#"))
    text[first] = text[first][:9] + b"xx\n"
    assert verify(io.BytesIO(b"".join(text))).dialect == "the answer 1 vector late"


@pytest.mark.turns
def test_a_wrong_unit_was_called_late():
    away = operation("fp8_e4m3", rounding="half_away")
    found = verify(io.BytesIO(lines_of(operation("fp8_e4m3"), lambda asked, f: away.due(f))))
    assert found.counterexample.law == "ties"
    assert found.dialect == "ties away"
