"""QTensors of torch: operations on them, parts replaced, operators called by hand, gradients."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz import pools
from tests.fuzz.pools import Texts, call, mostly, one_of, repred, texts

OPTIONS = (
    "", ", scheme='per_channel(0)'", ", scheme='per_group(4)'", ", scheme='per_channel(1)', symmetric=False",
    ", axis=0", ", scale_type='pof2'", ", scale_type='float'", ", symmetric=False, zero_point_type='float32'",
)  # fmt: skip
SHAPES = ("(4, 32)", "(3, 5)", "(8,)", "(2, 3, 64)", "(0, 4)", "()", "(6, 96)")
PARTS = "packed shared zero_point tensor_scale shape spec dtype"
GIVEN = (
    "torch.empty(0, dtype=torch.uint8)", "q.packed[:3]", "q.packed.double()", "q.packed.to('meta')",
    "torch.ones(())", "torch.ones(2, 2)", "q.packed.expand(2, -1)", "torch.cat([q.packed, q.packed])",
    "q.packed.to_sparse()",
)  # fmt: skip
OPERATOR = "q = {}\ntorch.ops.numerics.dequantize({}, {}, {}, q.tensor_scale, {}, q.spec.text, {}, 'float32')"
GRADIENT = """x = {}
x = x if x.requires_grad else x.detach().clone().requires_grad_()
nx.fake_quantize(x, {}{}, clip_gradient={}).sum().backward()
used(x.grad)"""


def tensors() -> Texts:
    """What users, and torch itself, do to a QTensor."""
    layout = mostly(repred("plain"), repred("turned", "leaf", "parameter", "strided", "meta", "inference"))
    content = mostly(pools.normal, repred("specials", "zeros", "huge", "tiny"))
    x = pools.tensor(repred("float32", *pools.FLOATS), one_of(SHAPES), layout, content)
    made = call("nx.quantize({}, {}{})", x, pools.any_format, one_of(OPTIONS))
    operations = st.lists(repred(*texts("operations")), min_size=1, max_size=3).map(", ".join)
    given = mostly(one_of(GIVEN), pools.odd)
    shapes = mostly(st.just("list(q.shape)"), one_of(("[4096]", "[2**20, 64]", "[]", "[0]", "[-1]")))
    return st.one_of(
        call("used(like({}, {}))", made, operations),
        call("used(like({}, {}))", made, operations),
        call("q = {}\nq.{} = {}\nused(q)", made, one_of(PARTS), given),
        call("q = {}\nr = q.detach()\nr.{} = {}\nused(r.clone())", made, one_of(PARTS), given),
        call(OPERATOR, made, *(mostly(st.just(f"q.{part}"), given) for part in PARTS.split()[:3]), shapes,
             repred("float32", "float64", "float16", "x")),
        call(GRADIENT, x, pools.any_format, one_of(OPTIONS), pools.truth),
    )  # fmt: skip
