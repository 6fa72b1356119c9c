"""What arguments are drawn from, as texts: for each parameter of the API data that fits, and odd things."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

import numerics as nx
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS, SCALE_RULES

Texts = st.SearchStrategy[str]
FLOATS = ("float32", "float16", "float64", "bfloat16")
INTEGERS = ("uint8", "uint16", "int64", "int8", "uint32")
ODD_TYPES = (*INTEGERS, "int32", "bool", "complex64", "float8_e4m3fn")
SMALL = (
    "()", "(0,)", "(1,)", "(5,)", "(33,)", "(3, 4)", "(4, 32)", "(2, 3, 17)", "(0, 4)", "(4, 0)", "(2, 35)",
    "(3, 3, 9)", "(2, 64)", "(1, 96)", "(7, 130)",
)  # fmt: skip
LARGE = ("(70000,)", "(128, 128)", "(1,) * 33")
PACKED = ("(0,)", "(1,)", "(3,)", "(12,)", "(64,)", "(512,)")


# ---- strategies of texts ---------------------------------------------------------------------------


def texts(name: str) -> list[str]:
    """The lines of a file of texts/: expressions, operations, values of JSON."""
    written = Path(__file__).with_name("texts") / f"{name}.txt"
    return written.read_text(encoding="utf-8").splitlines()


def one_of(choices: Iterable[str] | str) -> Texts:
    """One of some texts; of a text, one of its words."""
    return st.sampled_from(choices.split() if isinstance(choices, str) else list(choices))


def repred(*values: object) -> Texts:
    """The repr of one of some values."""
    return one_of(map(repr, values))


def mostly(*strategies: Texts) -> Texts:
    """The first three times in four, one of the others else."""
    first, *others = strategies
    return st.integers(0, 3).flatmap(lambda k: first if k else st.one_of(*others))


def call(form: str, *arguments: Texts) -> Texts:
    """A text with `{}` for each of what is drawn."""
    return st.tuples(*arguments).map(lambda drawn: form.format(*drawn))


odd = one_of(texts("odd"))

# ---- data ------------------------------------------------------------------------------------------

number = st.integers(-3, 40).map(str)
seed = st.integers(0, 99).map(str)
sides = st.lists(st.integers(0, 9), max_size=4).map(lambda drawn: str(tuple(drawn)))
small = one_of(SMALL)
shape = mostly(small, sides, one_of(LARGE))
rare_layout = repred(
    "reversed", "strided", "fortran", "turned", "spread", "odd address", "swapped", "read-only", "list",
    "field", "masked", "matrix", "subclass",
)  # fmt: skip
layout = mostly(repred("plain"), rare_layout)
torch_layout = mostly(
    repred("plain"),
    repred("strided", "turned", "spread", "offset", "leaf", "parameter", "meta", "sparse", "inference",
           "conjugate", "negative", "freed", "subclass", "nested"),
)  # fmt: skip
normal, counting, any_bits = repred("normal"), repred("counting"), repred("bits")
content = mostly(normal, repred("bits", "zeros", "huge", "tiny", "specials", "counting"))
kind = mostly(repred(*FLOATS), repred(*ODD_TYPES))
float_kind = repred(*FLOATS)
torch_kind = repred(*FLOATS, "float32", "float32", "int32", "uint8", "bool", "complex64")


def array(
    kinds: Texts = kind, shapes: Texts = shape, layouts: Texts = layout, contents: Texts = content
) -> Texts:
    """An array by words.array."""
    return call("array({}, {}, {}, {}, {})", kinds, shapes, layouts, contents, seed)


def tensor(
    kinds: Texts = torch_kind, shapes: Texts = shape, layouts: Texts = torch_layout, contents: Texts = content
) -> Texts:
    """A tensor by words.tensor."""
    return call("tensor({}, {}, {}, {}, {})", kinds, shapes, layouts, contents, seed)


numbers = repred(1.5, [0.1, -2.0], [[1.0, 2.0], [3.0, -0.5]], [], -0.0, [1, 2], (0.5, 1))
floating = array(float_kind)
data = mostly(array(), tensor(), numbers, odd)
codes = mostly(
    array(repred(*INTEGERS), contents=counting), tensor(repred("uint8", "int64", "int8"), contents=counting),
    repred([1, 2, 3], 5, [[0, 1], [2, 3]], [-1], [70000]), odd,
)  # fmt: skip
packed = mostly(
    array(repred("uint8"), one_of(PACKED), contents=counting),
    tensor(repred("uint8"), one_of(PACKED), contents=counting),
    odd,
)
rooms = repred(
    "plain", "read-only", "strided", "turned", "swapped", "torch plain", "torch leaf", "torch strided"
)
out = mostly(call("room({}, {}, {})", repred(*FLOATS[:3], "uint8", "uint16"), shape, rooms), odd)

# ---- formats ---------------------------------------------------------------------------------------

ELEMENTS = [f"nx.{d.name}" for d in nx.dtypes() if d.kind != "block"]
BLOCKS = [f"nx.{d.name}" if hasattr(nx, d.name) else repr(d.name) for d in nx.dtypes() if d.kind == "block"]
truth = repred(True, False)
specials = repred("ieee", "fn", "fnuz", "extended", "none")
declared = call(
    "nx.float_format({}, {}, specials={}, subnormals={}, signed={})",
    st.integers(1, 8), st.integers(0, 8), specials, truth, truth,
)  # fmt: skip
integers = one_of(("nx.Integer(name='i5', bits=5)", "nx.Integer(name='u1', signed=False, bits=1)"))
element = mostly(one_of(ELEMENTS), declared, integers)
sizes = one_of("1 2 3 4 5 7 8 12 16 24 32 48 96 100")
subs = one_of("1,1 2,1 4,2 8,1 8,8 12,3 16,2 16,16 24,4 64,8")
micro = st.builds(
    lambda mantissa, sub: "nx.block_format(mantissa={}, block={}, sub_block={})".format(
        mantissa, *sub.split(",")
    ),
    st.integers(1, 15),
    subs,
)
scaled = call(
    "nx.block_format(block={}, element={}, scale={})", sizes,
    repred("fp4", "int4", "int8", "int3", "fp6_e2m3", "fp8_e4m3", "fp8_e5m2"),
    repred("e8m0", "e8m0", "fp8_e4m3", "fp8_e5m2"),
)  # fmt: skip
block = mostly(one_of(BLOCKS), micro, scaled)
dtype = mostly(element, block, repred("fp4", "mx6", "int8", "E4M3", "no such"), odd)
schemes = repred(
    None, nx.per_tensor(), "per_tensor", "per_channel(0)", "per_channel(-1)", "per_channel(1)",
    "per_group(4)", "per_group(32)", "per_group(16, axis=0)", "per_group(5)",
)  # fmt: skip
odd_schemes = one_of((
    "'per_group( 3 , 0)'", "'per_group'", "'per_token'", "nx.per_group(2**40)",
    "'per_group(' + ' ' * 3000 + ',' + ' ' * 3000",
))  # fmt: skip
scheme = mostly(schemes.map(lambda text: text.replace("per_tensor()", "nx.per_tensor()")), odd_schemes, odd)
scale = mostly(
    one_of("None 0.5 1.0 0.0 -1.0 2.0**-140 np.float32(0.25)"), array(repred(*FLOATS[:3])), repred([0.5, 1.0])
)
any_format = st.one_of(element, block)
q = mostly(
    call("nx.quantize({}, {}, scheme={})", floating, element, schemes.filter(lambda text: "()" not in text)),
    call("nx.quantize({}, {}, axis={})", floating, block, st.integers(-2, 1)),
    call("nx.quantize({}, {})", tensor(repred("float32", "bfloat16")), any_format),
    odd,
)

# ---- by the name of a parameter ---------------------------------------------------------------------

kernels = one_of((
    "lambda x: nx.fp4.encode(x)", "lambda x: x", "len", "lambda: 1", "lambda x: None", "lambda x: 1 / 0",
    "lambda x: np.zeros(3)", "'json:dumps'", "'no.such:thing'", "'json'",
))  # fmt: skip
observers = one_of(f"nx.observe.{name}('int8')" for name in ("MinMax", "MSE", "KL"))
names = repred(None, "mine", "fp4")
_FITTING: dict[str, Texts] = {
    "exponent": number, "mantissa": number, "bits": number, "length": number,
    "bias": mostly(number, st.just("None")), "tensors": q.map(lambda text: f"{{'w': {text}}}"),
    "signed": truth, "subnormals": truth, "has_zero": truth, "symmetric": truth, "clip_gradient": truth,
    "block": sizes, "size": sizes, "sub_block": sizes, "specials": specials, "name": names,
    "rounding": repred(*ROUNDINGS), "overflow": repred(None, *OVERFLOWS), "scale_rule": repred(*SCALE_RULES),
    "shape": shape, "axis": st.integers(-3, 3).map(str), "seed": mostly(st.just("None"), seed),
    "random_bits": mostly(st.just("None"), array(repred("uint32", "int64", "uint8"), contents=any_bits)),
    "out": mostly(st.just("None"), out), "scale": scale, "zero_point": scale, "element": element,
    "tensor_scale": repred(None, 1.0, 0.5, 1e-30, True, 10**400), "rule": repred("nearest", "ceil"),
    "scale_type": repred("float32", "float", "float16", "bfloat16", "pof2"),
    "zero_point_type": repred("int32", "float32"), "library": repred("numpy", "torch"),
    "percentile": repred(99.9, 50, 0, 100), "averaging_constant": repred(0.01, 1.0, 0.0),
    "bins": repred(16, 4096, 3), "target": kernels, "init": repred("_3SD", "MAX", "KL_J"),
    "order": repred(None, (0, 2, 4, 6, 1, 3, 5, 7), (1, 0)),
    "path": repred("some.safetensors", "no/such", "", "a\0b", "x" * 300),
    "log2_threshold": one_of(("torch.tensor(1.0)", "torch.tensor([1.0])", "torch.tensor(nan)")),
    "blocks": call("{}.encode({})", block, floating), "other": observers,
    "state": mostly(call("{}.state", observers), st.just("{'low': [nan], 'high': [1.0]}")),
}  # fmt: skip
POOLS = {name: mostly(fitting, odd) for name, fitting in _FITTING.items()} | {
    "x": data, "codes": codes, "words": codes, "packed": packed, "dtype": dtype, "scheme": scheme,
    "text": scheme, "q": q,
}  # fmt: skip


def of(parameter: str) -> Texts:
    """What a parameter of that name is given."""
    return POOLS.get(parameter, odd)
