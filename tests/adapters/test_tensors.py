"""The way back: a host's own tensor becomes a QTensor and again the host's, bit for bit; and vice versa."""

from __future__ import annotations

import importlib
from itertools import product

import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.formats.errors import NumericsError
from tests.adapters.hosts import asked, same_bits

pytestmark = pytest.mark.filterwarnings("ignore")
TYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(params=("torchao", "compressed_tensors", "modelopt", "quark"))
def adapter(request):
    return asked(request.param)


def numbers(kind=torch.float32):
    """A matrix with a magnitude a row, zeros in one block, and both ends of it."""
    x = torch.randn(128, 128, generator=torch.Generator().manual_seed(8))
    x *= torch.exp2(torch.arange(128.0) % 16 - 8)[:, None]
    x[3, :32] = 0
    return x.to(kind)


def same_tensor(a, b) -> bool:
    """Are two QTensors equal in spec, shape, type and bytes?"""
    return (a.spec, a.shape, a.original) == (b.spec, b.shape, b.original) and all(
        same_bits(x, y) if x is not None and y is not None else x is y
        for x, y in zip(a.parts, b.parts, strict=True)
    )


# ---- ours, there and back ----------------------------------------------------------------------------

BLOCKS = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "nvfp4")
SCHEMES = ("per_tensor()", "per_channel(0)", "per_channel(1)", "per_group(32)")
INTEGERS = [(nx.integer_format(bits), scheme, symmetric, kind) for bits, scheme, symmetric, kind in product(
    range(2, 9), SCHEMES, (True, False), ("float32", "bfloat16", "pof2"))]  # fmt: skip
ELEMENTS = [(f"uint{bits}", s, symmetric, "float32") for bits, s, symmetric in product(
    (2, 4, 8), SCHEMES, (True, False))] + [(d, s, True, "float32") for d, s in product(
    ("fp8_e4m3", "fp8_e5m2", "fp4", "fp6_e2m3", "int16", "nf4"), SCHEMES)]  # fmt: skip
FEWEST = {"torchao": 200, "compressed_tensors": 150, "modelopt": 40, "quark": 100}


def specs():
    """Every format that a host could have, in every scheme that it could have it in."""
    for d in (*BLOCKS, "mx6", "mxint8"):
        yield nx.QuantSpec(d)
    for d, scheme, symmetric, kind in (*INTEGERS, *ELEMENTS):
        yield nx.QuantSpec(d, scheme=scheme, symmetric=symmetric, scale_type=kind)


def test_a_qtensor_that_a_host_can_hold_comes_back_with_every_bit(adapter):
    taken, wrong, told = 0, [], set()
    for spec, kind in product(specs(), TYPES):
        q = nx.quantize(numbers(kind).abs() if spec.clips else numbers(kind), spec)
        try:
            host = adapter.to_host(q)
        except NumericsError as refusal:
            told.add(str(refusal))
            continue
        taken += 1
        again = back(adapter, host)
        if not kept(adapter, q, again):
            wrong.append((spec, kind, again))
    assert not wrong, f"{len(wrong)} of {taken}: {wrong[:5]}"
    assert all(any(word in one for word in ("has no tensor of", "cannot store", "divides")) for one in told)
    assert taken >= FEWEST[adapter.ADAPTER.library.replace("-", "_")], f"only {taken} were taken"


def back(adapter, host):
    if isinstance(host, torch.Tensor):
        return adapter.from_host(host)
    first, second = host
    if isinstance(second, dict):
        return adapter.from_host(first, **second)
    return adapter.from_host(first, second)


def kept(adapter, q, again) -> bool:
    """Every code and scale, and what the tensor stands for where the host says it.

    compressed-tensors does not, and has signed integers alone: codes of others move with their zero points.
    """
    if adapter.ADAPTER.library == "compressed-tensors":
        signed = q.spec.blocked or q.spec.element.signed
        same_codes = not signed or torch.equal(q.codes, again.codes)
        return same_codes and torch.equal(q.dequantize(torch.float32), again.dequantize(torch.float32))
    if q.spec.scale_type == "pof2":  # which no host has a word for: a float that is a power of two
        return torch.equal(q.codes, again.codes) and torch.equal(q.shared.flatten(), again.shared.flatten())
    return same_tensor(q, again) or moved_to_zero(q, again)


def moved_to_zero(q, again) -> bool:
    """Zero points that are all 0 come back as none."""
    none = q.zero_point is not None and not bool(q.zero_point.any()) and again.zero_point is None
    return none and torch.equal(q.codes, again.codes) and torch.equal(q.shared, again.shared)


SMALL = ((0, 64), (64, 0), (7, 33), (1, 32), (8, 1), (8, 64))


def test_tensors_of_every_shape_come_back_or_are_refused(adapter):
    taken = 0
    tiles = [
        nx.QuantSpec(d, scheme=nx.per_block(sizes))
        for d in ("fp8_e4m3", "int8")
        for sizes in ((2, 16), (4, 32))
    ]
    for shape, spec in product(SMALL, [*specs(), *tiles]):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        try:
            q = nx.quantize(x.abs() if spec.clips else x, spec)
            host = adapter.to_host(q)
        except NumericsError:
            continue
        assert 0 not in shape
        again = back(adapter, host)
        assert again.shape == q.shape
        assert torch.equal(again.dequantize(torch.float32), q.dequantize(torch.float32)), (spec, shape)
        assert values(adapter, host).shape == q.shape
        taken += 1
    assert taken > 40


ODD = ((32,), (3, 15), (4, 6), (2, 16), (2, 64, 8), (2, 3, 64), (1, 4, 32), (2, 1, 2, 16))
GROUPS = (nx.per_tensor(), nx.per_channel(0), nx.per_group(16), nx.per_group(5), nx.per_group(32, axis=0),
          nx.per_block((2, 4)))  # fmt: skip
FORMATS = ("int2", "int4", "int8", "uint4", "fp8_e4m3")
WIDE = (torch.float32, torch.float64)


def test_what_is_to_a_hosts_tensor_is_read_from_it_again_whatever_its_axes_and_types(adapter):
    """Else it is refused in words: hosts end in errors of their own, and in tensors that nobody reads."""
    taken = 0
    elements = product(FORMATS, GROUPS, ("float32", "float", "pof2"), (True, False))
    specs = [nx.QuantSpec(d) for d in ("mxfp4", "nvfp4", "mxfp8_e4m3")]
    for d, scheme, kind, symmetric in elements:
        if symmetric or d.startswith(("int", "uint")):
            specs.append(nx.QuantSpec(d, scheme=scheme, scale_type=kind, symmetric=symmetric))
    for shape, spec, kind in product(ODD, specs, WIDE):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(3)).to(kind) + 0.1
        try:
            q = nx.quantize(x, spec)
            host = adapter.to_host(q)
        except NumericsError:
            continue
        again = back(adapter, host)
        assert again.shape == q.shape
        assert torch.equal(again.dequantize(torch.float32), q.dequantize(torch.float32)), (spec, shape)
        taken += 1
    assert taken > 40


@pytest.mark.parametrize("d", ["int4", "uint4", "int8", nx.integer_format(5)])
def test_zero_points_of_one_row_of_compressed_tensors_are_read(d):
    adapter = asked("compressed_tensors")
    x = torch.rand(1, 64, generator=torch.Generator().manual_seed(3))
    q = nx.quantize(x, d, scheme=nx.per_group(16), symmetric=False)
    tensors, scheme = adapter.to_host(q)
    for turned in (False, True):  # an axis of one number lies in memory as its transpose does
        if turned:
            tensors = {
                name: one.t().contiguous().t() if one.dim() == 2 else one for name, one in tensors.items()
            }
        again = adapter.from_host(tensors, scheme)
        assert torch.equal(again.dequantize(), q.dequantize())


def test_scales_of_float64_are_those_of_a_float64_tensor():
    adapter = asked("quark")
    q = nx.quantize(numbers(torch.float64), "int8", scheme=nx.per_channel(0), scale_type="float")
    weight, quantizer = adapter.to_host(q)
    assert same_tensor(adapter.from_host(weight, quantizer), q)
    quantizer.float_dtype = torch.float32
    with pytest.raises(
        NumericsError, match="scales of float64 are those of a float64 tensor, not of a float32"
    ):
        adapter.from_host(weight, quantizer)


def test_a_transposed_tensor_of_torchao_is_refused_of_one_row_too():
    adapter = asked("torchao")
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

    for rows in (1, 2, 3):
        x = torch.randn(rows, 32, generator=torch.Generator().manual_seed(3))
        kinds = (torch.float8_e4m3fn, torch.float4_e2m1fn_x2)
        for host in (NVFP4Tensor.to_nvfp4(x), *(MXTensor.to_mx(x, kind, 32) for kind in kinds)):
            assert adapter.from_host(host).shape == (rows, 32)
            with pytest.raises(NumericsError, match=r"a transposed \w+ is not read: give x\.t\(\)"):
                adapter.from_host(host.t())


def test_a_host_has_no_tensor_without_elements(adapter):
    with pytest.raises(NumericsError, match=r"has no tensor of no elements, as of \(0, 64\)"):
        adapter.to_host(nx.quantize(torch.empty(0, 64), "int8"))


@pytest.mark.parametrize("shape", [(7, 33), (8, 33), (4, 12)])
def test_what_quark_would_fill_up_is_refused(shape):
    adapter = asked("quark")
    q = nx.quantize(torch.ones(shape), "int4")
    with pytest.raises(NumericsError, match="it packs whole words, and makes"):
        adapter.to_host(q)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d", ["mxfp4", "mxfp6_e2m3", "nvfp4", "int4", nx.integer_format(5), "fp8_e4m3"])
def test_compressed_tensors_weights_stand_for_the_type_that_is_told(d, kind):
    adapter = asked("compressed_tensors")
    q = nx.quantize(numbers(kind), nx.QuantSpec(d, **({} if d in BLOCKS else {"scale_type": "float32"})))
    again = adapter.from_host(*adapter.to_host(q), dtype=kind)
    assert (again.dtype, again.spec) == (kind, q.spec)
    assert torch.equal(again.codes, q.codes)
    assert torch.equal(again.dequantize(), q.dequantize())
    for wrong in ("float32", torch.int8, 3):
        with pytest.raises(NumericsError, match=r"dtype is .*; allowed are"):
            adapter.from_host(*adapter.to_host(q), dtype=wrong)


# ---- a host's values ---------------------------------------------------------------------------------


def values(adapter, host):
    """What the host makes of its own tensor, in float32."""
    if isinstance(host, torch.Tensor):
        return host.dequantize().float()
    first, second = host
    if isinstance(second, dict):
        return first.get_qtensor().dequantize(torch.float32, **second)
    if adapter.ADAPTER.library == "quark":
        return second(first)
    compressors = importlib.import_module("compressed_tensors.compressors.base")
    found = compressors.BaseCompressor.get_value_from_registry(second.format)
    return found.decompress(first, second)["weight"].float()


OF_HALVES = ("nvfp4", "mx")  # which compressed-tensors decompresses to bfloat16


def test_a_host_gives_the_values_that_the_qtensor_has(adapter):
    compared = 0
    for spec in specs():
        q = nx.quantize(numbers().abs() if spec.clips else numbers(), spec)
        try:
            host = adapter.to_host(q)
        except NumericsError:
            continue
        due = q.dequantize()
        if adapter.ADAPTER.library == "compressed-tensors" and spec.dtype.name.startswith(OF_HALVES):
            due = q.dequantize(torch.bfloat16).float()
        found = values(adapter, host)
        assert torch.equal(found, due), (spec, (found != due).sum())
        compared += 1
    assert compared > 15


# ---- a host's own, there and back --------------------------------------------------------------------


def torchao_tensors(x):
    """Every tensor class of torchao's that is read, in every form that it has on a CPU."""
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
    from torchao.quantization import granularity
    from torchao.quantization.quant_primitives import MappingType
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor
    from torchao.quantization.quantize_.workflows.intx import intx_unpacked_to_int8_tensor as intx

    wholes = granularity.PerRow(), granularity.PerTensor()
    for form, mapping in product((*wholes, granularity.PerGroup(32)), MappingType):
        yield Int8Tensor.from_hp(x, form, mapping_type=mapping)
    for bits, mapping in product(range(2, 9), (MappingType.SYMMETRIC, MappingType.ASYMMETRIC)):
        kind = getattr(torch, f"int{bits}")
        yield intx.IntxUnpackedToInt8Tensor.from_hp(x, (1, 32), kind, mapping_type=mapping)
    for form, kind in product(wholes, (torch.float8_e4m3fn, torch.float8_e5m2)):
        yield Float8Tensor.from_hp(x, kind, form)
    elements = (torch.float8_e4m3fn, torch.float8_e5m2, "fp6_e2m3", "fp6_e3m2", torch.float4_e2m1fn_x2)
    for element, size in product(elements, (32, 16)):
        yield MXTensor.to_mx(x, element, size)
    for scale in (None, torch.tensor(0.003)):
        yield NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale)


INNER = ("qdata", "scale", "zero_point", "per_tensor_scale")


@pytest.mark.parametrize("kind", TYPES)
def test_a_tensor_of_torchao_comes_back_as_it_was(kind):
    adapter = asked("torchao")
    for host in torchao_tensors(numbers(kind)):
        q = adapter.from_host(host)
        again = adapter.to_host(q)
        if type(host).__name__ == "IntxUnpackedToInt8Tensor" and q.format is nx.int8:
            assert torch.equal(again.qdata, host.qdata)  # 8 bits of it are an Int8Tensor
            continue
        assert type(again) is type(host)
        assert (again.dtype, again.shape, again.block_size) == (host.dtype, host.shape, host.block_size)
        for name in INNER:
            one, other = getattr(host, name, None), getattr(again, name, None)
            assert (one is None and other is None) or same_bits(one, other), (host, name)
        assert torch.equal(host.dequantize(), q.dequantize(host.dtype)), q


def test_scales_in_the_order_of_tensor_cores_are_read():
    adapter = asked("torchao")
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

    x = numbers()
    for make, more in ((MXTensor.to_mx, (torch.float8_e4m3fn, 32)), (NVFP4Tensor.to_nvfp4, ())):
        rows, tiles = (make(x, *more, is_swizzled_scales=swizzled) for swizzled in (False, True))
        assert same_tensor(adapter.from_host(rows), adapter.from_host(tiles))


def test_a_tensor_that_says_how_inputs_are_quantized_is_refused():
    adapter = asked("torchao")
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    layer = torch.nn.Sequential(torch.nn.Linear(64, 64))
    quantize_(layer, Int8DynamicActivationInt8WeightConfig())
    with pytest.raises(NumericsError, match="act_quant_kwargs, which is about inputs"):
        adapter.from_host(layer[0].weight)


@pytest.mark.parametrize("name", [f"{name}_DEFAULT_CFG" for name in ("FP8", "NVFP4", "MXFP8", "INT8")])
def test_a_layer_that_modelopt_compressed_becomes_a_qtensor(name):
    adapter = asked("modelopt")
    import modelopt.torch.quantization as mtq

    model = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False))
    model[0].weight.data = numbers()[:32, :64].clone()
    with adapter.substituted():
        mtq.quantize(model, getattr(mtq, name), lambda m: m(torch.ones(2, 64)))
        mtq.compress(model)
    weight, inside = model[0].weight, model[0].weight_quantizer
    scales = {"scale": inside._scale, "double_scale": getattr(inside, "_double_scale", None)}
    q = adapter.from_host(weight, block_sizes=inside.block_sizes, **scales)
    assert torch.equal(q.dequantize(), inside.dequantize(weight))
    again, beside = adapter.to_host(q)
    assert same_bits(again.data, weight.data)
    assert same_bits(beside["scale"].reshape(-1), inside._scale.reshape(-1))


def test_int4_scales_that_divide_and_are_no_powers_of_two_are_refused():
    adapter = asked("modelopt")
    from modelopt.torch.quantization.qtensor import INT4QTensor

    made, scale = INT4QTensor.quantize(numbers(), 32)
    with pytest.raises(NumericsError, match="ModelOpt divides int4 codes by their scales"):
        adapter.from_host(made, scale, block_sizes={-1: 32})


def test_a_layer_that_compressed_tensors_compressed_becomes_a_qtensor():
    adapter = asked("compressed_tensors")
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format="pack-quantized")
    x = numbers()
    scale = x.unflatten(-1, (-1, 32)).abs().amax(-1).clamp(min=1e-6) / 7
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    state = compressor.compress({"weight": x, "weight_scale": scale}, scheme)
    q = adapter.from_host(state, scheme)
    assert torch.equal(q.dequantize(), compressor.decompress(state, scheme)["weight"])
    again, _ = adapter.to_host(q)
    assert all(torch.equal(again[name], state[name]) for name in ("weight_packed", "weight_scale"))


def test_what_is_of_no_host_is_refused(adapter):
    q = nx.quantize(numbers(), nx.QuantSpec("mx6"))
    with pytest.raises(NumericsError):
        adapter.to_host(q)
    with pytest.raises(NumericsError, match="takes a QTensor"):
        adapter.to_host(numbers())
    with pytest.raises(NumericsError):
        adapter.from_host(*[numbers()] * (1 if adapter.ADAPTER.library == "torchao" else 2))


# ---- files -------------------------------------------------------------------------------------------


@pytest.fixture
def in_files():
    pytest.importorskip("torchao")
    from torchao.prototype.safetensors.safetensors_support import (
        flatten_tensor_state_dict,
        unflatten_tensor_state_dict,
    )

    return flatten_tensor_state_dict, unflatten_tensor_state_dict


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_torchaos_safetensors_were_left_as_they_were(in_files, tmp_path, kind):
    """Every class and form: the QTensor of the tensor itself, and the values that torchao finds."""
    from safetensors.torch import save_file

    from numerics.adapters.torchao import from_host
    from numerics.checkpoints.loading import load

    flatten, _ = in_files
    taken = 0
    for x in torchao_tensors(numbers(kind)):
        tensors, said = flatten({"l.weight": x, "l.bias": torch.ones(3)})
        save_file(tensors, tmp_path / "a.safetensors", metadata=said)
        came = load(tmp_path / "a.safetensors", library="torch")
        assert same_tensor(came["l.weight"], from_host(x)), x
        assert same_bits(came["l.bias"], torch.ones(3))
        taken += 1
    assert taken > 30


def test_what_is_written_for_torchao_is_what_torchao_reads(in_files, tmp_path):
    """Every format and scheme that it has: its own tensors, with the bits of the QTensors."""
    from safetensors import safe_open

    from numerics.adapters.torchao import from_host, to_host
    from numerics.checkpoints.converting import convert
    from numerics.checkpoints.loading import load

    _, unflatten = in_files
    taken = 0
    for k, (spec, kind) in enumerate(product(specs(), (torch.float32, torch.bfloat16))):
        q = nx.quantize(numbers(kind).abs() if spec.clips else numbers(kind), spec)
        nx.save({"l.weight": q, "l.bias": torch.ones(3)}, tmp_path / "a.safetensors")
        out = tmp_path / f"{k}.safetensors"
        try:
            due = to_host(q)
        except NumericsError:
            with pytest.raises(NumericsError, match=r"l\.weight"):
                convert(tmp_path / "a.safetensors", out, "torchao")
            assert not out.exists()
            continue
        taken += 1
        convert(tmp_path / "a.safetensors", out, "torchao")
        with safe_open(out, "pt") as file:
            came, left = unflatten({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118
        assert not left
        assert type(came["l.weight"]) is type(due)
        assert same_bits(came["l.weight"].dequantize().float(), due.dequantize().float())
        assert same_tensor(from_host(came["l.weight"]), from_host(due))
        assert same_tensor(load(out, library="torch")["l.weight"], from_host(due))
    assert taken > 100


def test_pickles_of_torchaos_tensors_ended_in_an_error_of_torchs(in_files, tmp_path):
    from numerics.adapters.torchao import from_host
    from numerics.checkpoints.loading import load

    x = next(iter(torchao_tensors(numbers())))
    torch.save({"l.weight": x}, tmp_path / "a.pt")
    assert same_tensor(load(tmp_path / "a.pt", library="torch")["l.weight"], from_host(x))


def test_every_byte_under_every_scale_byte_of_modelopts_files_is_what_modelopt_reads(tmp_path):
    """NVFP4, whose two scales are multiplied first, and FP8 with one; ModelOpt has no -0 in NVFP4."""
    pytest.importorskip("modelopt")
    from modelopt.torch.quantization.qtensor.fp8_tensor import FP8QTensor
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor
    from safetensors.torch import save_file

    from numerics.checkpoints.loading import load

    each = torch.arange(256, dtype=torch.uint8)
    codes, scale = each.reshape(32, 8).repeat(256, 1), each.repeat_interleave(32).reshape(-1, 1)
    for second in (0.0037, 3e-38, 1.0):
        beside = {"scale": scale.view(torch.float8_e4m3fn), "double_scale": torch.tensor(second)}
        fp8 = each.reshape(16, 16).view(torch.float8_e4m3fn)
        tensors = {"a.weight": codes, "a.weight_scale": beside["scale"], "b.weight": fp8}
        scales = {"a.weight_scale_2": beside["double_scale"], "b.weight_scale": torch.tensor(second)}
        save_file(tensors | scales, tmp_path / "a.safetensors")
        came = load(tmp_path / "a.safetensors", library="torch")
        due = {
            "a": NVFP4QTensor(torch.Size((8192, 16)), torch.float32, codes).dequantize(
                dtype=torch.float32, block_sizes={-1: 16}, **beside
            ),
            "b": FP8QTensor(fp8.shape, torch.float32, fp8).dequantize(
                dtype=torch.float32, scale=torch.tensor(second)
            ),
        }
        for name, values in due.items():
            found = came[f"{name}.weight"].dequantize(torch.float32)
            lost = values.isnan()
            assert bool((found.isnan() == lost).all())
            assert same_bits(found.where(~lost, 0) + 0.0, values.where(~lost, 0) + 0.0)
