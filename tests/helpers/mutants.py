"""Right kernels in a few lines of NumPy, and faults planted in them by rule: nobody chose where.

`mutants()` changes one constant, comparison or operator of a source at a time; `planted(seed)` draws a
condition (a place, a company, a call) and what goes wrong under it.
"""

from __future__ import annotations

import ast
import copy
import threading

import numpy as np

import numerics as nx

SOURCES = {
    "e4m3": ("fp8_e4m3", "encode", """
def kernel(x):
    b = np.ascontiguousarray(x).view(np.uint32).reshape(x.shape).astype(np.int64)
    a = b & 0x7FFFFFFF
    e = np.maximum(a >> 23, 1)
    m = np.where(a >> 23 > 0, a & 0x7FFFFF | 0x800000, a & 0x7FFFFF)
    shift = np.minimum(np.where(e < 121, 141 - e, 20), 30)
    kept = (m + (1 << (shift - 1)) - 1 + (m >> shift & 1)) >> shift
    code = kept + np.where(e < 121, 0, (e - 121) * 8)
    code = np.where(code > 126, 126, code)
    code = np.where(a > 0x7F800000, 127, code)
    return (code | b >> 24 & 0x80).astype(np.uint8)
"""),
    "bf16": ("bfloat16", "encode", """
def kernel(x):
    b = np.ascontiguousarray(x).view(np.uint32).reshape(x.shape).astype(np.int64)
    code = (b + 0x7FFF + (b >> 16 & 1)) >> 16
    return np.where((b & 0x7FFFFFFF) > 0x7F800000, b >> 16 | 64, code).astype(np.uint16)
"""),
    "fp4": ("fp4", "encode", """
def kernel(x):
    a = np.abs(x)
    code = (a > 0.25) * 1 + (a >= 0.75) + (a > 1.25) + (a >= 1.75) + (a > 2.5) + (a >= 3.5) + (a > 5)
    code = np.where(np.isnan(x), 7, code | np.where(np.signbit(x), 8, 0))
    return code.astype(np.uint8)
"""),
    "e5m2": ("fp8_e5m2", "decode", """
def kernel(c):
    c = c.astype(np.int64)
    e, m = c >> 2 & 31, c & 3
    value = np.where(e == 0, m * 2.0**-16, (4 + m) * 2.0**(e - 17))
    value = np.where(e == 31, np.where(m == 0, np.inf, np.nan), value)
    return np.where(c & 128 != 0, -value, value).astype(np.float32)
"""),
    "mxfp4": ("mxfp4", "encode", """
def kernel(x):
    n = x.shape[-1]
    over = -n % 32
    y = np.concatenate([x, np.zeros((*x.shape[:-1], over), np.float32)], -1)
    y = y.reshape(*x.shape[:-1], -1, 32).astype(np.float64)
    top = np.abs(np.where(np.isfinite(y), y, 0)).max(-1)
    e = np.clip(np.frexp(top)[1] - 1 - 2, -127, 127)
    e = np.where(top == 0, -127, e)
    q = y * 2.0**-e[..., None]
    a = np.abs(q)
    code = (a > 0.25) * 1 + (a >= 0.75) + (a > 1.25) + (a >= 1.75) + (a > 2.5) + (a >= 3.5) + (a > 5)
    code = code | np.where(np.signbit(y), 8, 0)
    bad = ~np.isfinite(y).all(-1)
    code = np.where(bad[..., None], 0, code)
    scale = np.where(bad, 255, e + 127)
    return code.reshape(*x.shape[:-1], -1)[..., :n].astype(np.uint8), scale.astype(np.uint8)
"""),
    "pack": ("fp6_e2m3", "pack", """
def kernel(c):
    n = (len(c) * 6 + 7) // 8
    c = np.append(c, np.zeros(-len(c) % 4, np.uint8)).reshape(-1, 4).astype(np.int64)
    word = c[:, 0] | c[:, 1] << 6 | c[:, 2] << 12 | c[:, 3] << 18
    return np.stack([word & 255, word >> 8 & 255, word >> 16 & 255], -1).astype(np.uint8).reshape(-1)[:n]
"""),
    "affine": ("int8", "affine", """
def kernel(x, scale, zero):
    y = np.where(np.isnan(x), np.float32(0), x) / np.float32(scale)
    q = np.clip(np.rint(y).astype(np.float64) + zero, -128, 127)
    return q.astype(np.int8)
"""),
}  # fmt: skip
"""name -> (format, kind, a right kernel)."""
FLIPS = {
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitXor,
             ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Mult: ast.Add}  # fmt: skip


def _variants(node):
    """What one place of a source may become: a word for it, and a change of the node."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for by in (1, -1):
            moved = node.value + by if isinstance(node.value, int) else node.value * (1 + by * 2.0**-20)
            yield f"{node.value} becomes {moved}", lambda n, v=moved: setattr(n, "value", v)
    if isinstance(node, ast.Compare):
        flipped = FLIPS[type(node.ops[0])]
        yield (
            f"a {type(node.ops[0]).__name__} becomes {flipped.__name__}",
            lambda n: n.ops.__setitem__(0, flipped()),
        )
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        other = OPERATORS[type(node.op)]
        yield f"a {type(node.op).__name__} becomes {other.__name__}", lambda n: setattr(n, "op", other())
    if isinstance(node, ast.Attribute) and node.attr in ("isnan", "isfinite", "abs", "signbit", "rint"):
        other = {
            "isnan": "isinf",
            "isfinite": "isnan",
            "abs": "negative",
            "signbit": "isnan",
            "rint": "floor",
        }
        yield f"{node.attr} becomes {other[node.attr]}", lambda n: setattr(n, "attr", other[n.attr])


def compiled(tree):
    """The kernel of a source."""
    names = {"np": np}
    exec(compile(ast.fix_missing_locations(tree), "kernel", "exec"), names)
    return names["kernel"]


def right(name):
    """The kernel as it should be."""
    return compiled(ast.parse(SOURCES[name][2]))


def mutants():
    """name -> (source, a kernel with one change)."""
    found = {}
    for name, (_, _, text) in SOURCES.items():
        tree = ast.parse(text)
        for at, node in enumerate(ast.walk(tree)):
            for word, change in _variants(node):
                bent = copy.deepcopy(tree)
                change(list(ast.walk(bent))[at])
                line = text.splitlines()[node.lineno - 1].strip()
                found[f"{name}, node {at}: {word} in {line[:40]}"] = name, compiled(bent)
    return found


def _same(d, one, other):
    """Equal but for the codes of NaN, of which any will do."""
    if isinstance(one, tuple):
        spoilt = np.repeat(one[1] == 255, 32, axis=-1)[..., : one[0].shape[-1]]
        return np.array_equal(one[1], other[1]) and bool(((one[0] == other[0]) | spoilt).all())
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if d.has_nan and one.dtype.kind == "u":
        one, other = d.decode(one), d.decode(other)
    return np.array_equal(one.view(f"u{one.itemsize}"), other.view(f"u{one.itemsize}")) or (
        np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        and np.array_equal(np.signbit(one)[~np.isnan(one)], np.signbit(other)[~np.isnan(other)])
    )


def differs(name, kernel):
    """Is there an input, drawn without the judge, on which a change shows?  A kernel that raises differs."""
    plain, rng = right(name), np.random.default_rng(99)
    kind, d = SOURCES[name][1], nx.dtype(SOURCES[name][0])
    bits = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32).view(np.float32)
    steps = np.round(rng.uniform(-520, 520, 1 << 16) * 64) / 64
    near = np.ldexp(steps, rng.integers(-12, 1, 1 << 16)).astype(np.float32)
    x = np.concatenate([bits, near, np.float32([np.nan, -np.nan, np.inf, -np.inf, 0, -0.0])])
    every = {"encode": [(x,)], "decode": [(np.arange(256, dtype=np.uint8),)],
             "pack": [(rng.integers(0, 64, n, np.uint8),) for n in (0, 1, 2, 3, 5, 999, 4000)],
             "affine": [(x, 0.5, 3), (x, 0.1, -128), (x, 3.7, 0)]}[kind]  # fmt: skip
    if name == "mxfp4":
        rows = x[: 2048 * 32].reshape(2048, 32), near[:4096].reshape(-1, 32), x[-40:].reshape(1, 40)
        every = [(row,) for row in rows]
    with np.errstate(all="ignore"):
        try:
            return not all(_same(d, kernel(*given), plain(*given)) for given in every)
        except Exception:  # a mutant may do anything
            return True


# ---- faults of a place, a company, a call -----------------------------------------------------------


def _index(x):
    return np.arange(x.size).reshape(x.shape)


def _where(rng):
    """A condition that was drawn: its words, and which elements it takes (x, calls)."""
    m, n = int(rng.integers(2, 98)), int(np.exp(rng.uniform(0, 13.8)))
    r, k, bit = int(rng.integers(0, m)), int(rng.integers(1, 9)), int(rng.integers(0, 30))
    ndim, value = int(rng.integers(0, 6)), int(rng.integers(0, 8))
    whole = lambda x, so: np.full(x.shape, bool(so))  # noqa: E731
    kinds = [
        (f"a size of {r} more than {m}s", lambda x, calls: whole(x, x.size % m == r)),
        (f"more than {n} elements", lambda x, calls: whole(x, x.size > n)),
        (f"{ndim} axes", lambda x, calls: whole(x, x.ndim == ndim)),
        (f"every {m}th element", lambda x, calls: _index(x) % m == r),
        (f"elements from {n} on", lambda x, calls: _index(x) >= n),
        (f"the last {k} elements", lambda x, calls: _index(x) >= x.size - k),
        (f"the last {k} of {m}s left over", lambda x, calls: _index(x) >= x.size // m * m),
        ("memory that is not contiguous", lambda x, calls: whole(x, not x.flags.c_contiguous)),
        ("an inner stride", lambda x, calls: whole(x, x.ndim and abs(x.strides[-1]) > x.itemsize * k)),
        (f"bits {bit} to {bit + 2} are {value}", lambda x, calls: _bits(x) >> np.uint32(bit) & 7 == value),
        ("a neighbour is NaN", lambda x, calls: np.isnan(np.roll(x, 1)) & ~np.isnan(x)),
        (f"every {m}th call", lambda x, calls: whole(x, calls % (2 * m) == 2 * m - 1)),
        (f"calls from {3 * m} on", lambda x, calls: whole(x, calls >= 3 * m)),
        (
            "another thread",
            lambda x, calls: whole(x, threading.current_thread() is not threading.main_thread()),
        ),
        (f"an address of {4 * k} past 64", lambda x, calls: whole(x, x.size and x.ctypes.data % 64 == 4 * k)),
        (f"rows longer than {n}", lambda x, calls: whole(x, x.ndim > 1 and x.shape[-1] > n % 1000)),
        (f"one call in {m}", lambda x, calls: whole(x, calls and rng.integers(0, m) == 0)),
    ]
    return kinds[int(rng.integers(0, len(kinds)))]


def _bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(np.shape(x))


def planted(seed):
    """A fault that was drawn: its words, and a kernel of fp8_e4m3."""
    rng = np.random.default_rng((2026, seed))
    word, where = _where(rng)
    away = lambda x, c: nx.fp8_e4m3.encode(x, rounding="half_away")  # noqa: E731
    changes = [
        ("the last bit is wrong", lambda x, c: c ^ 1), ("zeros come", lambda x, c: c * 0),
        ("ties go away", away), ("the sign is lost", lambda x, c: c & 0x7F),
        ("NaN is a number", lambda x, c: np.where(c & 0x7F == 0x7F, 0x7E, c)),
        ("what is too large is NaN", lambda x, c: np.where(np.abs(x) > 464, 0x7F, c)),
    ]  # fmt: skip
    said, change = changes[int(rng.integers(0, len(changes)))]
    calls = [0]

    def kernel(x):
        calls[0] += 1
        codes = nx.fp8_e4m3.encode(x)
        return np.where(where(x, calls[0]), change(x, codes), codes).astype(np.uint8)

    return f"{word}: {said}", kernel
