"""What somebody looks at, and how it lies in memory, is a host's with our kernels under it as it is stock."""

from __future__ import annotations

import importlib
import io
import pickle
from types import FunctionType, SimpleNamespace

import pytest

pytest.importorskip("torch")
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from numerics.adapters import base, conventions
from tests.adapters.hosts import asked, same_bits

pytestmark = pytest.mark.filterwarnings("ignore")
MAKER = torch.Generator().manual_seed(15)
X, OTHER = torch.randn(16, 64, generator=MAKER), torch.randn(16, 64, generator=MAKER)
SMALL = torch.zeros(16, 64)
SMALL[:, :2] = torch.tensor([1e-40, 2e-40])
STEP, ZERO = torch.full((16,), 0.07), torch.zeros(16, dtype=torch.int32)
LIMITS = {"int8": (-128.0, 127.0), "fp8": (-448.0, 448.0), "fp4": (-6.0, 6.0)}


def torchao(ours):
    of = importlib.import_module
    primitives = of("torchao.quantization.quant_primitives")
    kernels = of("torchao.prototype.mx_formats.kernels")
    kind = primitives.MappingType.ASYMMETRIC
    yield lambda x: primitives.quantize_affine(x, (1, 64), STEP, ZERO, torch.int8)
    yield lambda x: primitives.choose_qparams_affine(x, kind, (1, 32), torch.int8)
    yield lambda x: primitives._choose_scale_float8(x, (1, 32))
    yield lambda x: primitives._choose_qparams_affine_tinygemm(x, kind, (1, 32), torch.uint8, 0, 15, 1e-6)
    yield lambda x: kernels.f32_to_f4_unpacked(x)
    yield lambda x: kernels.f4_unpacked_to_f32((x.abs() * 3).clamp(0, 15).to(torch.uint8))


def compressed_tensors(ours):
    of = importlib.import_module
    given = of("compressed_tensors.quantization").QuantizationArgs
    helpers = of("compressed_tensors.quantization.lifecycle.forward_helpers")
    utils = "compressed_tensors.quantization.utils"
    for name, (low, high) in LIMITS.items():
        args = given(num_bits=int(name[-1]), type="int" if name == "int8" else "float", strategy="channel")
        rest = torch.tensor(0.1), None, torch.tensor(low), torch.tensor(high), args
        yield lambda x, rest=rest: helpers._quantize_dequantize(x, *rest)
        yield lambda x, rest=rest: helpers._quantize(x, *rest)
    yield lambda x: of(f"{utils}.fp4_utils").cast_to_fp4(x)
    yield lambda x: of(f"{utils}.fp6_utils").cast_to_fp6(x)
    packed = of("compressed_tensors.compressors.pack_quantized.helpers")
    yield lambda x: packed.pack_to_int32((x * 3).clamp(-8, 7).to(torch.int8), 4)


def modelopt(ours):
    quant = importlib.import_module("modelopt.torch.quantization.tensor_quant")
    yield lambda x: quant._fp8_eager(x, torch.tensor(3.0))
    yield lambda x: quant._fp8_eager(x)
    yield lambda x: quant._tensor_quant(x, torch.tensor(2.5))
    yield lambda x: quant._tensor_quant(x, torch.tensor(2.5), 4, False, False)


def quark(ours):
    kernel, operators = importlib.import_module("quark.torch.kernel"), torch.ops.quark
    whole = 0, 0, -128.0, 127.0, 8, "per_channel"
    yield lambda x: operators.quant_fp8_e4m3(x)
    yield lambda x: operators.quant_dequant_fp8_e5m2(x)
    yield lambda x: operators.scaled_fake_quantize("int8", x, STEP[: len(x)], ZERO[: len(x)], *whole, "")
    quantizers = importlib.import_module("quark.torch.quantization.tensor_quantize")
    sent = quantizers.dispatch_scaled_fake_quantize
    yield lambda x: sent("int8", x, STEP[: len(x)], ZERO[: len(x)], *whole, "")
    yield lambda x: operators.scaled_real_quantize("int8", x, STEP[: len(x)], ZERO[: len(x)], *whole)
    yield lambda x: operators.non_scaled_fake_quantize(x, "mx", "fp8_e4m3", -1, 32, "even")
    yield lambda x: operators.non_scaled_fake_quantize(x, "mx6", "", -1, 16, "even")
    yield lambda x: kernel.tqt_quantize(x, torch.ones(1), ZERO[:1], torch.tensor(128.0), 8)


def microxcaling(ours):
    blocks, single = importlib.import_module("mx.mx_ops"), importlib.import_module("mx.elemwise_ops")
    for name in ("fp4_e2m1", "int8"):
        for how in ({"axes": [-1], "block_size": 32}, {"axes": [0], "block_size": 16}, {"axes": [-1]}):
            yield lambda x, name=name, how=how: blocks._quantize_mx(x, 8, name, **how, custom_cuda=ours)
        yield lambda x, name=name: single._quantize_elemwise(x, name, custom_cuda=ours, saturate_normals=True)
    yield lambda x: single._quantize_bfloat(x, 16, custom_cuda=ours)


# ---- who looks -----------------------------------------------------------------------------------


def traced(call):
    return torch.jit.trace(call, (X.clone(),), check_trace=False)(OTHER.clone())


def compiled(call):
    torch._dynamo.reset()
    try:
        return torch.compile(call, backend="eager")(X.clone())
    finally:
        torch._dynamo.reset()


def exported(call):
    class Whole(torch.nn.Module):
        def forward(self, x):
            return call(x)

    return torch.export.export(Whole(), (X.clone(),), strict=True).module()(OTHER.clone())


def first_of(made):
    return made[0] if isinstance(made, tuple) else made


def changed_in_place(call):
    x = X.clone().requires_grad_()
    made = first_of(call(x))
    if not made.requires_grad:
        return made
    assert made._base is None
    name, before = made.grad_fn.name(), made.detach().clone()
    made.relu_().add_(1)
    (made * OTHER[:, : made.shape[-1]]).sum().backward()
    return before, made.detach(), x.grad, torch.tensor([*name.encode()])


def uninitialized(call):
    return call(torch.nn.UninitializedParameter())


def in_a_graph(call):
    return make_fx(call)(X.clone())(OTHER.clone())


def differentiated(call):
    x = X.clone().requires_grad_()
    made = first_of(call(x))
    if not made.requires_grad:
        return made
    return made.detach(), torch.autograd.grad((made.float() * OTHER[:, : made.shape[-1]]).sum(), x)[0]


def of_dual_numbers(call):
    with forward_ad.dual_level():
        made = call(forward_ad.make_dual(X.clone(), OTHER))
        found = forward_ad.unpack_dual(first_of(made))
        return found.primal if found.tangent is None else tuple(found)


def on_meta(call):
    with torch.device("meta"):
        return call(X)


def flushed(call):
    torch.set_flush_denormal(True)
    try:
        return call(SMALL)
    finally:
        torch.set_flush_denormal(False)


def without_an_axis(call):
    return call(torch.tensor(1.3))


def without_memory(call):
    return call(X.to("meta"))


def turned(call):
    return call(torch.arange(1024.0).view(64, 16).T / 99)


def strided(call):
    return call(torch.arange(2048.0).view(16, 128)[:, ::2] / 99)


def turned_in_three(call):
    return call(torch.arange(2048.0).view(4, 64, 8).permute(2, 0, 1) / 99)


def of_one_row(call):
    return call(X[:1])


def of_half_a_row(call):
    return call(torch.arange(128.0)[None][:, :64] / 99)


WAYS = (traced, compiled, exported, in_a_graph, differentiated, changed_in_place, of_dual_numbers,
        uninitialized, on_meta, flushed, without_an_axis,
        without_memory, turned, strided, turned_in_three, of_one_row, of_half_a_row)  # fmt: skip


def answer(way, call):
    """What a call gives in that way, and how it lies in memory; or what kind of error it raises."""
    try:
        made = way(call)
    except Exception as refused:
        return type(refused).__name__
    return made if isinstance(made, tuple) else (made,)


def alike(stock, found):
    if isinstance(stock, str) or isinstance(found, str):
        return stock is found or stock == found
    if [(x.stride(), x.device, x.requires_grad) for x in stock] != [
        (x.stride(), x.device, x.requires_grad) for x in found
    ]:
        return False
    return all(x.is_meta for x in stock) or same_bits(tuple(stock), tuple(found))


def of_new_memory(way, host, k):
    """Are the numbers of a stock answer those of memory that nobody has written?"""
    return way is on_meta and host == "quark" and k in (2, 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("calls", [torchao, compressed_tensors, modelopt, quark, microxcaling])
def test_a_call_is_answered_as_stock_where_somebody_looks_and_however_x_lies(calls, way):
    adapter = asked(calls.__name__)
    stock = [answer(way, call) for call in calls(False)]
    with adapter.substituted():
        found = [answer(way, call) for call in calls(True)]
    pairs = enumerate(zip(stock, found, strict=True))
    wrong = [
        (k, *pair) for k, pair in pairs if not alike(*pair) and not of_new_memory(way, calls.__name__, k)
    ]
    assert not wrong, wrong[0]


@pytest.mark.parametrize("calls", [torchao, compressed_tensors, modelopt, quark, microxcaling])
def test_our_kernels_answer_where_nobody_looks(calls):
    adapter = asked(calls.__name__)
    torch.set_default_device("cpu")  # a mode, which makes tensors where they are made anyway
    try:
        with adapter.substituted() as counted:
            for call in calls(True):
                made = call(X)
                for one in made if isinstance(made, tuple) else (made,):
                    assert one.storage_offset() == 0
        assert counted.ours.total() >= len([*calls(True)]), counted
    finally:
        torch.set_default_device(None)


def test_memory_is_kept_between_calls_of_quarks_until_the_last_uninstall():
    adapter = asked("quark")
    kernel = importlib.import_module("quark.torch.kernel")
    x = X.clone().requires_grad_()
    given = torch.full((1,), 1.5, requires_grad=True), ZERO[:1], torch.tensor(128.0), 8
    with adapter.substituted():
        late = kernel.tqt_quantize(x, *given)
        kernel.tqt_quantize(x, *given).sum().backward()
        assert conventions._SPARE
    assert not conventions._SPARE
    late.sum().backward()
    assert not conventions._SPARE


def test_a_subclass_of_tensors_that_quark_trains_stays_one():
    adapter = asked("quark")
    kernel = importlib.import_module("quark.torch.kernel")

    class Named(torch.Tensor):
        pass

    def both(x):
        lsq = kernel.lsq_quantize(x, STEP, ZERO, 0.01, -128, 127, 0, 8)
        return lsq, kernel.tqt_quantize(x, torch.ones(1), ZERO[:1], torch.tensor([128.0]), 8)

    for recorded in (False, True):
        x = X.as_subclass(Named).requires_grad_(recorded)
        with adapter.substituted() as counted:
            for made in both(x):
                assert type(made) is Named
                assert made.requires_grad == recorded
        assert not counted.ours
        assert counted.passed_on.total() == 2


# ---- what is kept --------------------------------------------------------------------------------


def test_functions_of_microxcalings_that_are_kept_are_answered_by_its_own():
    adapter = asked("microxcaling")
    with adapter.substituted(correct=True) as counted:
        from mx.custom_extensions import funcs

        tie = torch.tensor([0.24999998509883880615])  # of which microxcaling makes 0.5
        assert funcs.quantize_elemwise_func_cpp(tie, 3, 2, 6.0, 2, True, True).tolist() == [0.0]
        before = counted.ours.total(), counted.passed_on.total()
    assert funcs.quantize_elemwise_func_cpp(tie, 3, 2, 6.0, 2, True, True).tolist() == [0.5]
    top = X.abs().amax(-1, keepdim=True)
    made = funcs.quantize_mx_func_cpp(X, 8, 2, 3, 6.0, top, 1, False, 2)
    assert same_bits(
        importlib.import_module("mx.mx_ops")._quantize_mx(X, 8, "fp4", axes=[1], round="even"), made
    )
    assert (counted.ours.total(), counted.passed_on.total()) == before


@pytest.mark.parametrize("calls", [torchao, compressed_tensors, modelopt, quark])
def test_a_function_in_a_hosts_place_is_pickled_by_its_name(calls):
    """Quark's trained functions are methods, whose own name is torch's."""
    adapter = asked(calls.__name__)
    with adapter.substituted():
        named = {
            found for module in base._inside(calls.__name__) for found in vars(module).values()
            if isinstance(found, FunctionType) and found.__code__.co_filename == base.__file__
        }  # fmt: skip
        assert len(named) > 1
        for one in named:
            assert pickle.loads(pickle.dumps(one)) is one


def test_an_entry_of_compressed_tensors_that_is_kept_is_answered_by_its_own():
    adapter = asked("compressed_tensors")
    from compressed_tensors.quantization.utils.fp4_utils import cast_to_fp4
    from compressed_tensors.utils.impl_backend import ImplBackend

    with adapter.substituted(correct=True) as counted:
        kept = ImplBackend._fn_registry["numerics_cast_to_fp4"]
        x = torch.tensor([-0.0])
        assert kept(x).signbit().tolist() == [True]
    assert same_bits(kept(x), cast_to_fp4(x))
    assert not kept(x).signbit().any()
    assert counted.ours["cast_to_fp4"] == 1


def test_a_model_that_is_loaded_under_the_adapter_is_pickled_and_saved_by_torch(tmp_path):
    adapter = asked("transformers")
    import transformers

    from numerics.model.huggingface import NumericsConfig, NumericsHfQuantizer

    sizes = SimpleNamespace(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    config = transformers.LlamaConfig(**vars(sizes), num_key_value_heads=2, vocab_size=64)
    transformers.LlamaModel(config).save_pretrained(tmp_path)
    with adapter.substituted() as counted:
        model = transformers.AutoModel.from_pretrained(tmp_path, quantization_config=NumericsConfig("mx6"))
        assert counted.ours["quantizer"] == 1
        assert type(model.hf_quantizer) is NumericsHfQuantizer
    words, memory = torch.arange(8)[None], io.BytesIO()
    torch.save(model, memory)
    memory.seek(0)
    with torch.no_grad():
        due = model(words).last_hidden_state
        for again in (pickle.loads(pickle.dumps(model)), torch.load(memory, weights_only=False)):
            assert same_bits(again(words).last_hidden_state, due)


GRAPHS = {
    "make_fx": lambda f, given: make_fx(f)(*given),
    "compile": lambda f, given: torch.compile(f, backend="aot_eager"),
    "jit": lambda f, given: torch.jit.trace(f, given, check_trace=False),
    "export": lambda f, given: torch.export.export(_module(f), given).module(),
}
TQT = ("compile", "jit")  # others are refused a range that is asked of a tensor, stock too


def _module(f):
    made = torch.nn.Module()
    made.forward = f
    return made


@pytest.mark.parametrize(("name", "how"), [("lsq", how) for how in GRAPHS] + [("tqt", how) for how in TQT])
def test_a_graph_of_what_is_trained_that_is_recorded_under_the_adapter_is_quarks_own(name, how):
    adapter = asked("quark")
    from quark.torch import kernel

    def lsq(x, scale):
        return kernel.lsq_quantize(x, scale, ZERO, 1e-3, -128, 127, 0, 8)

    def tqt(x, threshold):
        return kernel.tqt_quantize(x, threshold, ZERO[:1], torch.tensor([128.0]), 8)

    f, given = {"lsq": (lsq, (X, STEP)), "tqt": (tqt, (X, torch.tensor([2.0])))}[name]
    due = f(*given)
    with adapter.substituted() as counted:
        graph = GRAPHS[how](f, given)
        assert same_bits(graph(*given), due)
        assert not counted.ours
    assert same_bits(graph(*given), due)
