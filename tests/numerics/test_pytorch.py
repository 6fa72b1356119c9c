"""Tensors: the same bits as arrays, whatever the backend, eager or compiled; and the gradients."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.backends.host.tensors import as_array
from numerics.formats.text import text_of
from numerics.interop import as_arrays, as_tensors
from numerics.pytorch import operators
from numerics.pytorch.operators import OPERATORS
from numerics.tensor.qtensor import to_host
from tests.helpers.bits import assert_same_bits
from tests.helpers.children import LIMIT
from tests.helpers.dtypes import DECLARED
from tests.helpers.tensors import RECIPES, data

KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CALLED = dict(zip(KINDS, ("half", "bfloat16", "float", "double"), strict=True))
NAMED = pytest.mark.parametrize(("d", "options"), RECIPES, ids=[f"{d} {o}" for d, o in RECIPES])


@pytest.fixture(params=["cpu", "gpu"])  # gpu: Triton's interpreter
def backend(request):
    """Runs the test on the backends of tensors."""
    with nx.use(request.param):
        yield request.param


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.turns
@NAMED
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_tensors_give_what_arrays_give(backend, d, options, kind):
    x = data(kind)
    before = x.clone()
    q, faked = nx.quantize(x, d, **options), nx.fake_quantize(x, d, **options)
    with nx.use("array"):
        due = nx.quantize(as_array(x), d, **options)
        assert_same_bits(q.packed, due.packed)
        assert_same_bits(q.dequantize(), due.dequantize())
        for part in ("scale", "zero_point", "microexponents"):
            if getattr(due, part) is not None:
                assert_same_bits(getattr(q, part), getattr(due, part))
    assert_same_bits(faked, as_array(q.dequantize()))
    assert_same_bits(x, as_array(before))
    assert (q.dtype, q.device, q.shape, q.format) == (kind, x.device, x.shape, nx.dtype(d))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (5,), (2, 3, 4)])
def test_tensors_of_every_shape_and_empty_ones_have_the_values_of_arrays(shape):
    for d in ("int8", "mxfp4", "mx6", "nvfp4") if shape else ("int8", "fp4"):
        x = data(shape=shape)
        q = nx.quantize(x, d)
        with nx.use("array"):
            assert_same_bits(q.dequantize(), nx.fake_quantize(as_array(x), d))
        assert_same_bits(nx.fake_quantize(x, d), as_array(q.dequantize()))


def test_strided_and_expanded_tensors_have_the_values_of_contiguous_ones():
    x = data(shape=(6, 10, 8))
    for part in (x.transpose(0, 2), x[::2, 1:], x[:, :, 3], x.expand(2, 6, 10, 8)):
        due = nx.fake_quantize(part.contiguous(), "int4", scheme="per_channel(0)")
        assert_same_bits(nx.fake_quantize(part, "int4", scheme="per_channel(0)"), as_array(due))
        assert_same_bits(nx.mxfp4.round(part), as_array(nx.mxfp4.round(part.contiguous())))


@pytest.mark.parametrize("make", [np.asarray, list, torch.from_numpy], ids=["array", "list", "tensor"])
def test_random_bits_may_be_of_any_kind(backend, make):
    bits = np.arange(24, dtype=np.uint32) << 24
    x, options = data(shape=(24,)), {"rounding": "stochastic", "random_bits": make(bits)}
    with nx.use("array"):
        due = nx.fp8_e4m3.encode(as_array(x), rounding="stochastic", random_bits=bits)
        faked = nx.fake_quantize(as_array(x), "int4", rounding="stochastic", random_bits=bits)
    assert_same_bits(nx.fp8_e4m3.encode(x, **options), due)
    assert_same_bits(nx.fake_quantize(x, "int4", **options), faked)


@pytest.mark.parametrize("d", ["fp8_e4m3", "fp6_e2m3", "bfloat16", "int4", "e8m0", *DECLARED[:2]], ids=str)
def test_a_format_takes_tensors(backend, d):
    d, x = nx.dtype(d), data()
    codes = d.encode(x)
    with nx.use("array"):
        assert_same_bits(codes, d.encode(as_array(x)))
        assert_same_bits(d.round(x), d.round(as_array(x)))
        assert_same_bits(d.decode(codes), d.decode(as_array(codes)))
        assert_same_bits(d.pack(codes), d.pack(as_array(codes)))
    assert_same_bits(d.unpack(d.pack(codes), x.shape), as_array(codes))
    assert_same_bits(d.decode_packed(d.encode_packed(x), x.shape), as_array(d.decode(codes)))
    out = torch.empty_like(codes)
    assert d.encode(x, out=out) is out
    assert_same_bits(out, as_array(codes))


@pytest.mark.parametrize("d", ["mxfp6_e2m3", "mx4", "nvfp4"])
def test_a_block_format_takes_tensors(backend, d):
    d, x = nx.dtype(d), data()
    made = d.encode(x)
    with nx.use("array"):
        due = d.encode(as_array(x))
        for part in ("codes", "scale", "microexponents"):
            if getattr(due, part) is not None:
                assert_same_bits(getattr(made, part), getattr(due, part))
        assert made.tensor_scale == due.tensor_scale
        assert_same_bits(made.decode(), due.decode())
        assert_same_bits(d.pack(made), d.pack(due))
    again = d.unpack(d.pack(made), x.shape, scale=made.scale, tensor_scale=made.tensor_scale)
    assert_same_bits(again.decode(), as_array(made.decode()))


# ---- compiled ------------------------------------------------------------------------------------


@pytest.mark.turns
@NAMED
def test_compiled_equals_eager(d, options):
    """One graph, no break; values, codes and gradients."""
    options = {**options, "seed": 5} if "seed" in options else options

    def both(x):
        q = nx.quantize(x * 1, d, **options)
        return nx.fake_quantize(x * 1, d, **options), q.dequantize(), q.packed

    torch._dynamo.reset()
    x = data().requires_grad_()
    found = torch.compile(both, fullgraph=True, backend="aot_eager")(x)
    for came, due in zip(found, both(x), strict=True):
        assert_same_bits(came, as_array(due))
    found[0].sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_inductor_compiles_what_formats_do():
    def all_at_once(x):
        codes = nx.fp8_e4m3.encode(x)
        return nx.fp8_e4m3.decode(codes) + nx.mxfp4.round(x) + nx.fake_quantize(x + 1, "int8")

    torch._dynamo.reset()
    x = torch.randn(8, 64)
    assert_same_bits(torch.compile(all_at_once, fullgraph=True)(x), as_array(all_at_once(x)))


def test_shapes_may_be_dynamic():
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: nx.fake_quantize(x * 1, "int4", scheme="per_group(8)"), fullgraph=True, dynamic=True,
        backend="aot_eager",
    )  # fmt: skip
    for rows in (3, 5, 6):
        x = torch.randn(rows, 24)
        assert_same_bits(compiled(x), as_array(nx.fake_quantize(x, "int4", scheme="per_group(8)")))


SCHEMES = {
    "per_tensor": lambda x: nx.fake_quantize(x, "int4", scheme=nx.per_tensor()),
    "per_channel": lambda x: nx.quantize(x, "int4", scheme=nx.per_channel(axis=1)).dequantize(),
    "per_group": lambda x: nx.fake_quantize(x, "int4", scheme=nx.per_group(8)),
    "a spelling": lambda x: nx.fake_quantize(x, "int4", scheme=nx.Scheme.parse("per_group", size=8)),
    "of a shape": lambda x: nx.fake_quantize(x, "int4", scheme=nx.per_group(x.shape[1] // 4)),
    "lsq": lambda x: nx.train.lsq(x, torch.ones(4), "int4", scheme=nx.per_channel(0)),
}


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_may_be_made_inside(name):
    torch._dynamo.reset()
    compiled = torch.compile(SCHEMES[name], fullgraph=True, backend="aot_eager")
    for columns in (16, 24, 40):
        x = torch.randn(4, columns)
        assert_same_bits(compiled(x), as_array(SCHEMES[name](x)))


def test_a_scheme_may_be_made_of_numbers_that_change():
    def call(x, size):
        return nx.fake_quantize(x, "int4", scheme=nx.per_group(size))

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    x = data()
    for size in (4, 8, 16):
        assert_same_bits(compiled(x, size), as_array(call(x, size)))


SHORT = torch.randn(4, 32)
E4M3, MX6, INT4 = "fp8_e4m3", "mx6", '{"dtype": "int4", "scheme": "per_channel(0)", "symmetric": false}'
NUMERICS, P3 = torch.ops.numerics, text_of(nx.p3109(8, 3))
BLOCKS = NUMERICS.encode_blocks(SHORT, MX6)
PARTS = NUMERICS.quantize(SHORT, INT4)
ARGUMENTS = {
    "encode": (SHORT, E4M3),
    "decode": (NUMERICS.encode(SHORT, E4M3), E4M3),
    "round": (SHORT.clone().requires_grad_(), E4M3, "stochastic", None, 3),
    "pack": (NUMERICS.encode(SHORT, "fp4"), "fp4"),
    "unpack": (NUMERICS.encode_packed(SHORT, "fp4"), [4, 32], "fp4"),
    "encode_packed": (SHORT, "fp6_e2m3"),
    "decode_packed": (NUMERICS.encode_packed(SHORT, "fp6_e2m3"), [4, 32], "fp6_e2m3"),
    "operate": (
        NUMERICS.encode(SHORT, P3),
        "fma",
        P3,
        torch.tensor(3),
        NUMERICS.encode(SHORT[:1], P3),
        None,
        "floor",
    ),
    "encode_blocks": (SHORT, "mxfp4"),
    "decode_blocks": (*BLOCKS[:3], None, MX6),
    "round_blocks": (SHORT.clone().requires_grad_(), "nvfp4"),
    "pack_blocks": (*BLOCKS[:3], MX6),
    "unpack_blocks": (NUMERICS.pack_blocks(*BLOCKS[:3], MX6), None, [4, 32], MX6),
    "quantize": (SHORT, INT4),
    "dequantize": (*PARTS[:3], None, [4, 32], INT4, "float32", "bfloat16"),
    "linear": (
        torch.ones(3, 32).requires_grad_(),
        *PARTS[:3],
        None,
        [4, 32],
        INT4,
        "float32",
        torch.ones(4).requires_grad_(),
        False,
    ),
    "fake_quantize": (SHORT.clone().requires_grad_(), INT4, None, None, None, None, True),
    "hadamard": (SHORT.clone().requires_grad_(), 16, [1, -1] * 8),
    "within_range": (SHORT, INT4),
    "tqt": (SHORT.clone().requires_grad_(), torch.tensor(0.5, requires_grad=True), '{"dtype": "int4"}'),
    "tqt_backward": (SHORT, SHORT, torch.tensor(0.5), '{"dtype": "int4"}'),
    "lsq": (SHORT.clone().requires_grad_(), torch.ones(4, requires_grad=True), torch.zeros(4), INT4),
    "lsq_backward": (SHORT, SHORT, torch.ones(4), torch.zeros(4), INT4),
}


@pytest.mark.turns
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_keep_torchs_rules(name):
    torch.library.opcheck(getattr(NUMERICS, name).default, ARGUMENTS[name])


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", ["int8", "mxfp4", "mx9", "nvfp4", "fp4"])
def test_the_gradient_goes_straight_through(d):
    x, g = data().nan_to_num(0, 1, -1).requires_grad_(), torch.randn(7, 70)
    nx.fake_quantize(x, d).backward(g)
    assert torch.equal(x.grad, g)
    x.grad = None
    nx.dtype(d).round(x).backward(g)
    assert torch.equal(x.grad, g)


@pytest.mark.parametrize(
    ("d", "options", "inside"),
    [
        ("int4", {"scale": 0.5}, [True, True, True, False, False, True]),
        ("uint4", {"scale": 0.5, "symmetric": False, "zero_point": 8},
         [True, True, True, False, False, True]),
        ("fp4", {"scale": 0.5}, [True, True, True, False, False, True]),
    ],
)  # fmt: skip
def test_the_gradient_may_be_clipped(d, options, inside):
    """At the outermost values it passes; where nothing rounds to them, at Inf and at NaN it does not."""
    high = {"int4": 3.5, "uint4": 3.5, "fp4": 3.0}[d]
    low = {"int4": -4.0, "uint4": -4.0, "fp4": -3.0}[d]
    x = torch.tensor([0.3, high, low, high + 0.51, low - 0.51, 0.0], requires_grad=True)
    nx.fake_quantize(x, d, clip_gradient=True, **options).sum().backward()
    assert x.grad.bool().tolist() == inside
    x = torch.tensor([torch.inf, -torch.inf, torch.nan], requires_grad=True)
    nx.fake_quantize(x, d, clip_gradient=True, **options).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("d", ["mxfp4", "mx6", "nvfp4"])
def test_the_gradient_of_blocks_may_be_clipped(d):
    """7.5 in a block of 7.5: mxfp4's scale is 1, so 6 is the most; mx6's largest code there is 7.75.

    6.5 is rounded to 6 with mxfp4: nothing was clipped.
    """
    x = torch.tensor([7.5, 1.0, -6.0, -6.5], requires_grad=True)
    options = {"clip_gradient": True}
    nx.fake_quantize(x, d, **options).sum().backward()
    due = {"mxfp4": [0, 1, 1, 1], "mx6": [1, 1, 1, 1], "nvfp4": [1, 1, 1, 1]}[d]
    assert x.grad.tolist() == due


@pytest.mark.parametrize("d", ["int4", "fp4", "mxfp4", "mx6", "nvfp4"])
def test_no_draw_moves_the_range_of_a_clipped_gradient(d):
    found = []
    for options in ({}, {"rounding": "stochastic", "seed": 3}, {"rounding": "floor"}):
        x = data().requires_grad_()
        given = {"scale": 0.5} if nx.dtype(d).kind != "block" else {}
        nx.fake_quantize(x, d, clip_gradient=True, **given, **options).sum().backward()
        found.append(x.grad)
    assert_same_bits(found[0], as_array(found[1]))
    assert_same_bits(found[0], as_array(found[2]))
    assert set(found[0].unique().tolist()) <= {0.0, 1.0}


# ---- in a thread that flushes subnormals ----------------------------------------------------------


@pytest.mark.parametrize("d", ["nvfp4", "mxfp4", "mx6", "int8", "fp4"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("unit", [2.0**-120, 2.0**-127, 2.0**-140])
def test_subnormals_count_where_the_caller_flushes_them(tmp_path, d, kind, unit):
    """NVFP4's tensor scale is one of them; so may scales and values be that clip a gradient."""
    x = (torch.linspace(-3, 3, 32, dtype=torch.float64) * unit).to(kind).reshape(2, 16)
    given = {"scale": torch.tensor(unit / 8)} if nx.dtype(d).kind != "block" and unit > 2.0**-130 else {}

    def all_that_there_is():
        q = nx.quantize(x, d, **given)
        yield from (q.dequantize(), q[1:].dequantize(), nx.fake_quantize(x, d, **given))
        yield as_arrays(q).dequantize()
        yield as_tensors(as_arrays(q)).dequantize()
        yield nx.dtype(d).round(x)
        nx.save({"q": q}, tmp_path / "q")
        yield nx.load(tmp_path / "q")["q"].dequantize()
        y = x.clone().requires_grad_()
        nx.fake_quantize(y, d, clip_gradient=True, **given).sum().backward()
        yield y.grad
        if nx.dtype(d).kind == "block":
            yield from (nx.dtype(d).encode(x).decode(), q.blocks.decode())

    due = list(all_that_there_is())
    torch.set_flush_denormal(True)
    try:
        found = list(all_that_there_is())
    finally:
        torch.set_flush_denormal(False)
    for came, right in zip(found, due, strict=True):
        assert_same_bits(to_host(came), to_host(right))


# ---- kept quantized ------------------------------------------------------------------------------


@pytest.mark.turns
@NAMED
def test_a_linear_layer_takes_a_quantized_weight(d, options):
    q = nx.quantize(data().nan_to_num(0, 1, -1), d, **options)
    layer, x = torch.nn.Linear(70, 7, bias=False), torch.randn(3, 70, requires_grad=True)
    layer.weight = torch.nn.Parameter(q, requires_grad=False)
    with nx.decoded_products():
        y, due = layer(x), x @ q.dequantize().T
        assert torch.equal(y, due)
        y.sum().backward()
        assert torch.equal(x.grad, torch.ones(3, 7) @ q.dequantize())
    torch._dynamo.reset()
    y = layer(x)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), y)
    assert torch.equal(torch.matmul(x, q.t()), y)


INDICES = [np.s_[2:4], np.s_[:, 16:32], np.s_[::2], np.s_[1], np.s_[..., -1], np.s_[:, 0], np.s_[0:0],
           np.s_[3:, 32:], np.s_[1, 16:48]]  # fmt: skip


@NAMED
def test_a_slice_of_a_quantized_tensor_has_the_values_of_that_slice_or_is_refused(d, options):
    """Slices, single indices and splits of every axis are those of the values, or are refused."""
    for shape in ((6, 64), (4, 48, 3)):
        x = data(shape=shape)
        q = nx.quantize(x, d, **options)
        whole = q.dequantize()
        tried = 0
        for index in INDICES:
            try:
                part = q[index]
            except nx.NumericsError as refused:
                assert "share" in str(refused)  # noqa: PT017 - which of them may, is known by the values
                continue
            tried += 1
            assert isinstance(part, nx.QTensor)
            assert_same_bits(part.dequantize(), as_array(whole[index]))
            assert_same_bits(part.clone().packed, as_array(part.packed))
        assert tried >= 4
    rows = [part.dequantize() for part in q.split(48)]
    assert torch.equal(torch.cat(rows), whole)


def test_a_part_of_whole_rows_is_a_view():
    q = nx.quantize(torch.randn(8, 64), "int4", scheme="per_channel(0)")
    assert q[2:5].packed.untyped_storage().data_ptr() == q.packed.untyped_storage().data_ptr()


def test_moving_keeps_it_quantized():
    q = nx.quantize(torch.randn(4, 32), "mxfp4")
    for moved in (q.clone(), q.detach(), q.to("cpu"), q.to(torch.bfloat16), q.contiguous(), q.view(4, 32),
                  q.cpu(), q.view(-1), q.reshape(-1)):  # fmt: skip
        assert isinstance(moved, nx.QTensor)
        assert torch.equal(moved.dequantize("float32").reshape(-1), q.dequantize().reshape(-1))
    assert q.to(torch.bfloat16).dtype == torch.bfloat16
    assert q.to(torch.float64).dtype == torch.float64  # values: they are computed otherwise
    assert not isinstance(q.to(torch.float64), nx.QTensor)
    assert not isinstance(q + 1, nx.QTensor)
    assert torch.equal(q + 1, q.dequantize() + 1)
    with pytest.raises(nx.NumericsError, match="would change a QTensor in place"):
        q.add_(1)
    with pytest.raises(nx.NumericsError, match="another spec or shape"):
        q.copy_(nx.quantize(torch.randn(4, 32), "mx6"))


@pytest.mark.parametrize("wide", KINDS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@NAMED
def test_another_float_type_rounded_the_values_twice(d, options, kind, wide):
    """To float64, and from types with scales of their own; the axes of a view may be in another order."""
    q = nx.quantize(data(kind), d, **options)
    due = as_array(q.dequantize(wide))
    for moved in (
        q.to(wide),
        q.type(wide),
        getattr(q, CALLED[wide])(),
        q.t().to(wide).t(),
        q.to("cpu", wide),
        as_arrays(q).to(wide),
    ):
        assert_same_bits(moved.dequantize() if isinstance(moved, nx.QTensor) else moved, due)


def test_room_for_no_rows_had_no_size():
    """torch cannot tell the length of a row of an empty tensor by itself; FSDP asks for such room."""
    for d, shape in (("int4", (0, 4)), ("mxfp4", (0, 32)), ("mx6", (0, 3, 16)), ("fp6_e2m3", (0, 4))):
        q = nx.quantize(torch.zeros(shape), d)
        assert q.new_zeros(q.shape).shape == shape
        made = q.new_zeros((3, *shape[1:]))
        assert isinstance(made, nx.QTensor)
        assert made.shape == (3, *shape[1:])


@pytest.mark.parametrize("d", ["nvfp4", nx.block_format(block=3, element="fp4", scale="fp8_e4m3")], ids=str)
def test_codes_and_parts_on_meta_waited_for_the_scale_of_the_tensor(d):
    """It is a number there, and has none; they do not need it."""
    q = nx.quantize(torch.zeros((4, 33), device="meta"), d)
    assert q.codes.shape == (4, 33)
    assert (q[1:3].shape, q[::2].shape, q[0].shape) == ((2, 33), (2, 33), (33,))
    assert q[:, :48].dequantize().device.type == "meta"
    for call in (lambda: q.blocks, lambda: as_arrays(q)):
        with pytest.raises(nx.NumericsError, match="on meta"):
            call()
    real = nx.quantize(data(shape=(4, 33)), d)
    assert_same_bits(real.codes, as_array(real.blocks.codes))


def test_a_fake_tensor_was_read_at_whatever_address_it_had():
    """It says that it lies on the CPU: values came from there, were written there, and were saved."""
    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    x, codes = (mode.from_tensor(torch.ones(4, 32, dtype=kind)) for kind in (torch.float32, torch.uint8))
    q = nx.quantize(x, "int4")
    for call in (
        q.numpy, lambda: as_array(x), lambda: as_arrays(q), lambda: nx.observe.MinMax("int8").observe(x),
        lambda: nx.fp4.encode(torch.ones(4, 32), out=codes), lambda: q.error(x),
        lambda: nx.fp4.encode(x, out=np.zeros((4, 32), np.uint8)), lambda: nx.save({"w": x}, "never"),
    ):  # fmt: skip
        with pytest.raises(nx.NumericsError, match="a FakeTensor has no values to read"):
            call()
    assert nx.fp4.encode(x).shape == (4, 32)


def test_a_tensor_scale_that_changed_broke_the_graph():
    """torch.compile does not know a float that was another in the call before."""
    x = torch.randn(4, 32, requires_grad=True)
    compiled = torch.compile(
        lambda x, scale: nx.nvfp4.round(x, tensor_scale=scale), fullgraph=True, backend="aot_eager"
    )
    for scale in (0.5, 0.25, 0.1, 0.3):
        found = compiled(x, scale)
        assert_same_bits(found, as_array(nx.nvfp4.round(x, tensor_scale=scale)))
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert (gradient == 1).all()
    with pytest.raises(nx.NumericsError, match="tensor_scale=-1 is not a positive finite"):
        compiled(x, -1.0)


def test_a_quantized_tensor_counts_by_its_values(backend):
    """It has no memory of its own: reading it as that gave what lay there by chance."""
    q = nx.quantize(data().nan_to_num(0, 1, -1), "int8")
    assert q.error(q) == q.error(q.dequantize())
    assert q.error(q).max_error == 0.0
    codes = torch.empty(q.shape, dtype=torch.uint8)
    assert_same_bits(nx.int8.encode(q), as_array(nx.int8.encode(q.dequantize())))
    for call in (lambda: nx.int8.encode(q, out=codes), lambda: nx.int8.round(q.dequantize(), out=q)):
        with pytest.raises(nx.NumericsError, match=r"a QTensor cannot be read|out is a QTensor, whose"):
            call()


def test_meta_tensors_have_shapes_only():
    x = torch.ones(3, 4, device="meta")
    for made in (nx.fake_quantize(x, "int4", scale=0.5), nx.quantize(x, "int4").dequantize()):
        assert (made.device.type, made.shape) == ("meta", (3, 4))


def test_copies_keep_values_or_are_refused():
    """As `.to` keeps them: not between widths in which the same bytes are computed otherwise."""
    x = torch.randn(4, 32, dtype=torch.float64)
    for kind, options in ((torch.float32, {"scale_type": "float"}), (torch.float32, {}),
                          (torch.float16, {"scale_type": "float"})):  # fmt: skip
        target = nx.quantize(torch.zeros(4, 32, dtype=kind), "int4", **options)
        before = target.dequantize()
        with pytest.raises(
            nx.NumericsError, match=f"of float64 cannot be copied into one of {str(kind)[6:]}"
        ):
            target.copy_(nx.quantize(x, "int4", **options))
        assert_same_bits(target.dequantize(), as_array(before))
    target = nx.quantize(torch.zeros(4, 32, dtype=torch.bfloat16), "int4")
    target.copy_(nx.quantize(x.float(), "int4"))
    assert_same_bits(target.dequantize("float32"), as_array(nx.quantize(x.float(), "int4").dequantize()))
    layer = torch.nn.Linear(32, 4, bias=False)
    layer.weight = torch.nn.Parameter(nx.quantize(x.float(), "int4"), requires_grad=False)
    with pytest.raises(RuntimeError, match="cannot be copied into one of float32"):
        layer.load_state_dict({"weight": nx.quantize(x, "int4")})


def test_equal_are_those_of_equal_values():
    """-0 is 0 and NaN is not itself, as everywhere in torch."""
    zeros = (nx.quantize(torch.tensor([zero, 6.0]), "fp4") for zero in (0.0, -0.0))
    assert torch.equal(*zeros)
    nan = nx.quantize(torch.tensor([torch.nan, 6.0]), "fp8_e4m3")
    assert not torch.equal(nan, nan.clone())
    one, other = nx.quantize(torch.ones(3), "int4"), nx.quantize(torch.ones(3), "int4") * 2
    assert torch.equal(one, one.clone())
    assert not torch.equal(one, other)
    assert torch.equal(one, one.dequantize())


def test_repr_and_html_of_a_quantized_tensor_say_format_shape_and_size():
    q = nx.quantize(torch.ones(2, 3), "int4")
    assert repr(q) == "QTensor(int4, shape=(2, 3), per_tensor(), 9.333 bits a value)"
    assert repr(torch.nn.Parameter(q, requires_grad=False)).endswith(repr(q))
    assert "<td>int4</td>" in q._repr_html_()
    assert q.error(torch.ones(2, 3)).max_error == 0.0


@pytest.mark.parametrize("imports", ["import numerics, torch", "import torch, numerics"])
def test_every_recipe_is_saved_and_loaded_by_a_fresh_process(tmp_path, imports):
    """`weights_only=True` after nothing but `import numerics`, before or after torch."""
    saved = {f"{d} {options}": nx.quantize(data(torch.bfloat16), d, **options) for d, options in RECIPES}
    assert len(saved) == len(RECIPES)
    values = {name: q.dequantize() for name, q in saved.items()}
    torch.save({"saved": saved, "values": values}, tmp_path / "q.pt")
    code = f"""{imports}
loaded = torch.load({str(tmp_path / "q.pt")!r}, weights_only=True)
for name, w in loaded["saved"].items():
    assert isinstance(w, numerics.QTensor), type(w)
    assert torch.equal(w.dequantize().view(torch.int16), loaded["values"][name].view(torch.int16)), name
    print(w)"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert found.stdout.splitlines() == [repr(q) for q in saved.values()], found.stderr


@pytest.mark.parametrize(
    "before",
    [
        "importlib.util.find_spec('torch'); importlib.util.find_spec('torch')",
        "sys.meta_path[:] = [f for f in sys.meta_path if 'numerics' not in type(f).__module__]",
    ],
    ids=["looked for", "imported past us"],
)
def test_torch_that_was_looked_for_before_its_import_got_arrays_for_tensors(before):
    code = f"""
import importlib.util, sys
import numerics as nx
{before}
import torch
print(type(nx.quantize(torch.ones(3), "int4")).__name__)"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert found.stdout.strip() == "TensorQTensor", found.stderr


def test_a_declared_format_travels_too(tmp_path):
    d = nx.float_format(3, 2, name="e3m2_of_mine")
    q = nx.quantize(torch.randn(3, 8), d, scheme="per_channel")
    torch.save(q, tmp_path / "q.pt")
    assert torch.load(tmp_path / "q.pt", weights_only=True).format is d


# ---- what cannot be ------------------------------------------------------------------------------


Q4 = nx.quantize(torch.ones(3), "int4")
BITS = torch.zeros(3, dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8], ids=str)
@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
def test_what_torch_quantized_is_named(dtype):
    with pytest.raises(nx.NumericsError, match=f"a {dtype} tensor cannot be read"):
        nx.quantize(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, dtype), "int4")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nx.quantize(torch.ones(3, dtype=torch.int32), "int8"), "cannot compute with int32 data"),
        (lambda: nx.fp4.encode(torch.ones(3, dtype=torch.float8_e5m2)), "compute with float8_e5m2 data"),
        (lambda: nx.fp4.decode(torch.ones(3)), "codes are unsigned integers"),
        (lambda: nx.fp4.decode(torch.tensor([16])), "code 16 is outside 0 .. 15"),
        (lambda: nx.quantize(torch.ones(3), "int8", scale=torch.ones(2)), r"scale has shape \(2,\)"),
        (lambda: nx.quantize(torch.ones(3), "int8", scale=torch.tensor(0.0)), "scale 0 is not allowed"),
        (lambda: nx.quantize(torch.ones(3), "int8", scale="big"), "must be real numbers"),
        *((lambda came=came: nx.quantize(torch.ones(3), "int8", scale=came), "scale must be real numbers")
          for came in (np.array(3j), 1j, True, np.True_, torch.tensor(True), torch.tensor(1j), 10**400)),
        (lambda: nx.fp4.encode(torch.ones(3), rounding="stochastic", random_bits="abc"), "random_bits must"),
        (lambda: nx.fp4.encode(torch.ones(3), rounding="stochastic", random_bits=[0.5] * 3),
         "random_bits must be uint32"),
        (lambda: nx.fake_quantize(torch.ones(3), "int8", scale=torch.ones((), requires_grad=True)),
         "numerics.train"),
        (lambda: nx.quantize(nx.quantize(torch.ones(3), "int8"), "int4"), "is quantized already"),
        (lambda: nx.fp4.encode(torch.ones(3), out=torch.empty(3)), "out must be a uint8 array"),
        (lambda: nx.fp4.encode(torch.ones(3).to_sparse()), "a torch.sparse_coo tensor cannot be read"),
        (lambda: nx.fp4.encode(torch.ones(3), out=Q4), "out is a QTensor, whose values lie nowhere"),
        (lambda: nx.fp4.encode(Q4, out=torch.empty(3, dtype=torch.uint8)), "a QTensor cannot be read"),
        (lambda: nx.quantize(np.ones(3), "int4", scale=Q4[0]), "scale .* a QTensor cannot be read"),
        (lambda: nx.quantize(torch.ones(3), "int8", scale=torch.ones((), device="meta")),
         "x is on cpu, what is given beside it on meta"),
        (lambda: nx.quantize(np.ones(3), "int8", scale=torch.ones((), device="meta")), "a tensor on meta"),
        (lambda: nx.train.lsq(torch.ones(3), torch.ones((), device="meta"), "int8"), "on cpu, .* on meta"),
        (lambda: nx.fp4.encode(torch.ones(3), rounding="stochastic", random_bits=BITS.to("meta")),
         "on cpu, .* on meta"),
        (lambda: torch.ops.numerics.encode(torch.ones(3), "mx6"), "mx6 is a block format"),
        (lambda: torch.ops.numerics.encode_blocks(torch.ones(3), "fp4"), "fp4 is not a block format"),
        (lambda: torch.ops.numerics.encode(torch.ones(3), "{}"), "does not describe a format"),
        (lambda: torch.ops.numerics.quantize(torch.ones(3), "{}"), "is not the text of a QuantSpec"),
    ],
)  # fmt: skip
def test_an_operator_says_what_it_cannot_take(make, said):
    with pytest.raises(nx.NumericsError, match=said):
        make()


# ---- torch.func and torch.fx -------------------------------------------------------------------------

OVER = {
    "round": nx.fp4.round, "encode": nx.fp4.encode, "blocks": nx.nvfp4.round,
    "scheme": lambda x: nx.fake_quantize(x, "int4", scheme=nx.per_group(16), symmetric=False),
    "draws": lambda x: nx.fake_quantize(x, "int4", rounding="stochastic", seed=1),
    "quantize": lambda x: nx.quantize(x, "mxfp4").dequantize(),
}  # fmt: skip


@pytest.mark.parametrize("name", OVER)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_has_the_bits_of_a_loop(name):
    x = torch.randn(3, 4, 32)
    found = torch.func.vmap(OVER[name], in_dims=1, out_dims=1, randomness="same")(x)
    assert torch.equal(found, torch.stack([OVER[name](x[:, k]) for k in range(4)], 1))


def wrapped_round(x):
    return nx.fake_quantize(x, "mxfp4")


torch.fx.wrap("wrapped_round")


class Rounds(torch.nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return 2 * (wrapped_round(x) if self.by is None else self.by(x))


def test_symbolic_trace_is_as_the_documentation_says():
    x = torch.randn(2, 32)
    operator = Rounds(lambda x: torch.ops.numerics.round(x, "fp4"))
    for module in (Rounds(None), operator):
        assert torch.equal(torch.fx.symbolic_trace(module)(x), module(x))
    for name in set(OVER) - {"quantize"}:
        with pytest.raises(torch.fx.proxy.TraceError, match="control flow"):
            torch.fx.symbolic_trace(Rounds(OVER[name]))
    held = torch.nn.Linear(32, 2)
    held.weight = torch.nn.Parameter(nx.quantize(held.weight.detach(), "int4"), requires_grad=False)
    module = torch.nn.Sequential(held)
    assert torch.equal(torch.fx.symbolic_trace(module)(x), module(x))


# ---- operators, called by anybody with anything ------------------------------------------------------

WRONG = {
    "another shape": torch.ones(4, 7),
    "fewer axes": torch.ones(3),
    "no axis": torch.ones(()),
    "no element": torch.ones(0),
    "no rows": torch.ones(0, 32),
    "more axes": torch.ones(2, 4, 32),
    "one": torch.ones(1),
    "float64": torch.ones(4, 32, dtype=torch.float64),
    "int64": torch.ones(4, 32, dtype=torch.int64),
    "uint8": torch.ones(4, 32, dtype=torch.uint8),
    "bool": torch.ones(4, 32, dtype=torch.bool),
    "complex": torch.ones(4, 32, dtype=torch.complex64),
    "sparse": torch.ones(4, 32).to_sparse(),
    "meta": torch.ones(4, 32, device="meta"),
    "bytes on meta": torch.ones(4, 32, device="meta", dtype=torch.uint8),
    "NaN": torch.tensor(float("nan")),
}


def attempts(name):
    """Every tensor of a good call exchanged for every wrong one; every shape for one that is none."""
    good = [x.detach() if isinstance(x, torch.Tensor) else x for x in ARGUMENTS[name]]
    for place, came in enumerate(good):
        others = WRONG.values() if isinstance(came, torch.Tensor) else ()
        others = ([-4, -32], [-4, 32], [1 << 40, 1 << 40]) if isinstance(came, list) else others
        for other in others:
            yield [*good[:place], other, *good[place + 1 :]]
            on_meta = [x.to("meta") if isinstance(x, torch.Tensor) and not x.is_sparse else x for x in good]
            if not isinstance(other, torch.Tensor) or other.is_meta:
                yield [*on_meta[:place], other, *on_meta[place + 1 :]]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.filterwarnings("ignore:.*sparse.*:UserWarning")
def test_operators_say_what_does_not_fit(name):
    """RuntimeErrors of torch's arithmetic, and results of tensors that do not belong together."""
    for arguments in attempts(name):
        with contextlib.suppress(nx.NumericsError):
            getattr(NUMERICS, name)(*arguments)


ONE = '{"dtype": "int4"}'


@pytest.mark.parametrize(("make", "said"), [
    (lambda: NUMERICS.tqt_backward(SHORT[:2], SHORT, torch.tensor(0.5), ONE),
     r"gradient has shape \(2, 32\); beside x of shape \(4, 32\) it has \(4, 32\)"),
    (lambda: NUMERICS.tqt_backward(SHORT, SHORT, torch.ones(2), ONE), "log2_threshold has"),
    (lambda: NUMERICS.tqt(SHORT, torch.ones(2), ONE), r"log2_threshold has shape \(2,\)"),
    (lambda: NUMERICS.tqt(SHORT, torch.tensor(1), ONE), "log2_threshold is int64; allowed"),
    (lambda: NUMERICS.lsq(SHORT, torch.ones(3), torch.zeros(4), INT4), r"scale has shape \(3,\).*\(4,\)"),
    (lambda: NUMERICS.lsq_backward(SHORT, SHORT, torch.ones(4), torch.zeros(()), INT4), "zero_point has"),
    (lambda: NUMERICS.lsq_backward(SHORT[0], SHORT, torch.ones(4), torch.zeros(4), INT4), "gradient has"),
    (lambda: NUMERICS.lsq_backward(SHORT.to("meta"), SHORT, torch.ones(4), torch.zeros(4), INT4), "on meta"),
    (lambda: NUMERICS.lsq_backward(SHORT.int(), SHORT, torch.ones(4), torch.zeros(4), INT4), "is int32"),
    (lambda: NUMERICS.lsq(SHORT, torch.ones(4), None, '{"dtype": "mxfp4"}'), "for formats of single numbers"),
    (lambda: NUMERICS.tqt(SHORT, torch.ones(()), '{"dtype": "fp8_e4m3"}'), "of integer formats"),
    (lambda: NUMERICS.tqt(SHORT, torch.tensor(0.5), '{"dtype": "int4", "scheme": "per_channel"}'),
     r"log2_threshold has shape \(\); beside x of shape \(4, 32\) it has \(4,\)"),
    (lambda: NUMERICS.unpack(PARTS[0].to("meta"), [-4, 32], "fp4"), "-4 is negative"),
    (lambda: NUMERICS.encode(SHORT.int().to("meta"), E4M3), "cannot compute with int32 data"),
    (lambda: NUMERICS.decode(SHORT.to("meta"), E4M3), "cannot decode float32 data"),
    (lambda: NUMERICS.dequantize(
        None, None, PARTS[0].to("meta"), None, [4, 32], ONE, "float32", "float32"), "the first argument is"),
])  # fmt: skip
def test_operators_name_what_does_not_fit(make, said):
    with pytest.raises(nx.NumericsError, match=said):
        make()


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16"])
def test_random_bits_are_of_32_bits(backend, kind):
    """Fewer raised NumPy's OverflowError, and rounded nearly everything down on a GPU."""
    for bits in (np.ones(3, kind), torch.ones(3, dtype=getattr(torch, kind))):
        with pytest.raises(nx.NumericsError, match=f"random_bits must be uint32 .*{kind}"):
            nx.fp4.encode(torch.ones(3), rounding="stochastic", random_bits=bits)
    with nx.use("cpu"), pytest.raises(nx.NumericsError, match=f"random_bits must be uint32 .*{kind}"):
        nx.fp4.encode(np.ones(3), rounding="stochastic", random_bits=np.ones(3, kind))


MODULES = sorted(path.stem for path in Path(operators.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.turns(30)
@pytest.mark.parametrize("first", MODULES)
def test_whichever_module_is_imported_first_torch_is_served(first):
    """torch's import within a module of ours imported the others, which needed the first one whole."""
    program = (
        f"import numerics.pytorch.{first}, sys, torch, numerics\n"
        "assert 'numerics.pytorch.dispatch' in sys.modules\n"
        "assert numerics.quantize(torch.ones(4), 'int8').dequantize().tolist() == [1.0] * 4\n"
    )
    run = subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", program], capture_output=True,
                         text=True, timeout=LIMIT)  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


NESTED = {
    "the bias": lambda q, nested: torch.nn.functional.linear(torch.ones(2, 64), q, nested),
    "addmm": lambda q, nested: torch.addmm(nested, torch.ones(2, 64), q.t()),
}


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize("call", NESTED.values(), ids=NESTED)
def test_a_nested_tensor_beside_a_qtensor_was_to_be_filed_as_an_issue(call):
    q, nested = nx.quantize(torch.ones(8, 64), "int8"), torch.nested.nested_tensor([torch.ones(2, 8)])
    with pytest.raises(nx.NumericsError, match=r"a nested tensor: its parts can be taken \(x.unbind\(\)\)"):
        call(q, nested)


def test_a_qtensor_within_vmap_was_said_to_be_none():
    q, x = nx.quantize(torch.randn(3, 8, 64), "int8", scheme=nx.per_channel(0)), torch.ones(2, 64)
    for call in (lambda b: nx.linear(x, b), nx.dequantize, lambda b: nx.transcode(b, "int4")):
        with pytest.raises(nx.NumericsError, match=r"torch.vmap .* q.dequantize\(\); torch's own products"):
            torch.vmap(call)(q)
    found = torch.vmap(lambda b: torch.nn.functional.linear(x, b))(q)
    assert torch.allclose(found, torch.stack([nx.linear(x, part) for part in q]))


def test_what_a_qtensor_can_not_be_names_no_private_class():
    q, x = nx.quantize(torch.ones(8, 8), "int8"), torch.ones(2, 8)
    for given in (lambda: nx.linear(q, q), lambda: nx.linear(x, q, q[0])):
        with pytest.raises(
            nx.NumericsError, match=r"^a QTensor cannot be read; its values can, q.dequantize"
        ):
            given()
    with pytest.raises(nx.NumericsError, match=r"^a view of a QTensor cannot be read"):
        nx.linear(q.t(), q)
    for out in (q, q.t()):
        with pytest.raises(nx.NumericsError, match=r"^out is a QTensor, whose values lie nowhere"):
            nx.fp8_e4m3.round(torch.ones(8, 8), out=out)


@pytest.mark.parametrize("wide", [torch.float32, torch.bfloat16, torch.float64])
def test_zeros_without_memory_were_read_as_the_heap(wide, tmp_path):
    """torch's autograd makes such tensors of a derivative that is 0."""
    zeros, plain = torch._efficientzerotensor((4, 64), dtype=wide), torch.zeros(4, 64, dtype=wide)
    q = nx.quantize(torch.ones(3, 64, dtype=wide), "int8")
    for call in (
        nx.mxfp4.round, nx.fp8_e4m3.encode, nx.nvfp4.round, lambda x: nx.fake_quantize(x, "int8"),
        lambda x: nx.quantize(x, "int8").dequantize(), lambda x: nx.linear(x, q),
        lambda x: nx.hadamard(x, 64), lambda x: torch.nn.functional.linear(x, q),
        lambda x: nx.observe.MinMax("int8").observe(x) and None,
    ):  # fmt: skip
        for _ in range(20):
            _ = [torch.full((4, 64), 7.0, dtype=wide) for _ in range(16)]  # what the heap has
            due, found = call(plain), call(zeros)
            assert due is None or torch.equal(found, due)
    nx.save({"zeros": zeros}, tmp_path / "a.safetensors")
    assert torch.equal(nx.load(tmp_path / "a.safetensors", library="torch")["zeros"], plain)
    with pytest.raises(nx.NumericsError, match="out stands for zeros, and has no memory"):
        nx.fp8_e4m3.round(plain, out=zeros)


def test_parts_and_draws_without_memory_are_zeros():
    bits = torch._efficientzerotensor((4,), dtype=torch.int32)
    asked = {"rounding": "stochastic", "random_bits": bits}
    assert torch.equal(nx.int8.round(torch.full((4,), 1.5), **asked), torch.ones(4))
    zeros = torch._efficientzerotensor((4,), dtype=torch.uint8)
    assert torch.equal(nx.int8.decode(zeros), torch.zeros(4))
    made = nx.QTensor.from_parts("int8", zeros, torch.ones(()))
    assert torch.equal(made.dequantize(), torch.zeros(4))
    q = nx.quantize(torch.ones(4), "int8")
    q.packed = zeros
    assert torch.equal(q.dequantize(), torch.zeros(4))
