"""What comes from outside: files, pickles, pipes and command lines that somebody has tampered with."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.pools import Texts, call, mostly, one_of, repred, texts

BASES = repred("int4", "int8", "int16", "fp6", "fp8", "mx6", "mx9", "mxfp4", "nvfp4", "declared")
KEYS = ("w", "", "x", "__metadata__", "dtype", "\ud800", "[/]", "w.scale")
LENGTHS = (0, 1, 7, 100, 10**6, 2**31, 2**62, 2**63, 2**64 - 1)
LONG = ('"' + "x" * 2000 + '"', "[" * 3000, '"per_group(' + " " * 2000 + "," + " " * 2000 + '"')
TARGETS = (
    "", ", 'mx6'", ", 'int8', scheme='per_group(3)'", ", 'fp8_e4m3', include=['*']",
    ", 'nvfp4', exclude=['w']", ", 'mx9', axis=0, max_memory=4096",
    ", 'int4', rounding='stochastic', seed=3",
)  # fmt: skip
LINES = (
    b"", b"#", b"# x", b"zz", b" ", b":", b"0 : 0", b"\r", b"\xff\xfe", b"00000000 00", b"1" * 5000, b"\0",
    b"# numerics vectors 2", b"# numerics vectors 1", b"# fp4 decode", b"# count=2", b"3f800000  38",
)  # fmt: skip
NAMES = (
    "fp4",
    "fp8_e4m3",
    "int4",
    "mx6",
    "nvfp4",
    "e8m0",
    "E4M3",
    "x",
    "",
    "[/]",
    "\x1b[31m",
    "é",
    "x" * 400,
)
VALUES = ("0.3", "nan", "-inf", "1e400", "x", "0x1p-3", "1_0", "٣", "out.st", "plain.st", "--", "-5", "")


def _joined(changes: Texts, least: int, most: int) -> Texts:
    return st.lists(changes.map(repr), min_size=least, max_size=most).map(", ".join)


def files() -> Texts:
    """Safetensors files of ours with changes, through every reader and both commands."""
    written = mostly(st.sampled_from(texts("written")), st.sampled_from(LONG))
    where = st.sampled_from(["header", "manifest", "manifest"])
    change = st.one_of(
        st.tuples(where, st.integers(0, 120), written),
        st.tuples(st.just("key"), st.integers(0, 60), st.sampled_from(KEYS)),
        st.tuples(st.just("byte"), st.integers(0, 4000), st.integers(0, 255)),
        st.tuples(st.sampled_from(["cut", "more"]), st.integers(0, 3000)),
        st.tuples(st.just("length"), st.sampled_from(LENGTHS)),
    )
    base = st.one_of(repred("plain"), BASES, BASES)
    return call("streamed(damaged({}, {}){})", base, _joined(change, 0, 3), one_of(TARGETS))


def pickles() -> Texts:
    """Saved QTensors with other arguments, or other bytes, in their pickle."""
    place = st.sampled_from(["0", "1", "1", "2", "3", "3.0", "3.0", "3.1", "3.1", "3.2", "3.3", "4"])
    argument = st.tuples(place, st.sampled_from(texts("altered")))
    byte = st.tuples(st.integers(0, 900), st.integers(0, 255))
    return mostly(
        call("forged({}, {})", BASES, _joined(argument, 1, 2)),
        call("pickled({}, {})", BASES, _joined(byte, 1, 3)),
    )


def pipes() -> Texts:
    """Vectors with lines changed, and command lines."""
    place, line = st.integers(0, 30), st.one_of(st.sampled_from(LINES), st.binary(max_size=12))
    change = st.one_of(
        st.tuples(st.sampled_from(["put", "insert"]), place, line),
        st.tuples(st.just("drop"), place, st.none()),
        st.tuples(st.just("byte"), place, st.tuples(st.integers(0, 80), st.integers(0, 255))),
    )
    head = st.tuples(
        repred("fp4", "fp8_e4m3", "int4", "mx6", "mxfp4", "nvfp4", "e8m0"),
        repred("encode", "decode", "round"),
    )
    flags = one_of(("", "'--strict-nan', ", "'--json', ", "'--show', '0', "))
    lines = call("lines({}, {})", head.map(", ".join), _joined(change, 0, 4))
    return st.one_of(call("run('vectors', 'verify', {}input={})", flags, lines), _command_lines())


def _command_lines() -> Texts:
    """Words in the order of a command: which, of what, values, flags."""
    command = mostly(
        one_of(("vectors generate", "show", "encode", "quantize", "dequantize", "ipu export")),
        one_of(("formats", "doctor", "x", "", "conform", "vectors verify", "--version")),
    )
    words = st.tuples(
        command.map(str.split), st.lists(st.sampled_from(NAMES), max_size=1),
        st.lists(st.sampled_from(VALUES), max_size=3),
        st.lists(st.sampled_from(texts("flags")), max_size=2).map(lambda drawn: " ".join(drawn).split()),
    )  # fmt: skip
    return words.map(lambda parts: f"run({', '.join(map(repr, [word for part in parts for word in part]))})")
