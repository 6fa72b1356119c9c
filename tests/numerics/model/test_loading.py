"""Files into models, whole or not at all, and how many bytes a model takes."""

import copy
import json
import pickle
import re

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import numerics as nx
from numerics.checkpoints import job
from numerics.checkpoints.deciding import Request
from numerics.files.checkpoint import dequantize_file, quantize_file
from numerics.files.safetensors import Reader
from numerics.formats.errors import NumericsWarning
from numerics.model.loading import footprint, load_into
from numerics.pytorch.qtensor import TensorQTensor
from tests.helpers import models
from tests.helpers.models import FIELD


class Tied(nn.Module):
    """A table of words and a head that share a weight, a norm, and a buffer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(16, 64)
        self.hidden = nn.Linear(64, 64)
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 16, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.norm(self.hidden(self.words(x))))


def model(seed=0):
    torch.manual_seed(seed)
    return Tied().eval()


def frozen(seed=1, spec="mxfp4"):
    made = model(seed)
    made.hidden.weight = nn.Parameter(nx.quantize(made.hidden.weight.detach(), spec), requires_grad=False)
    made.words.weight = nn.Parameter(nx.quantize(made.words.weight.detach(), spec), requires_grad=False)
    made.head.weight = made.words.weight
    return made


X = torch.arange(12)


def same(a, b):
    with torch.no_grad():
        return torch.equal(a(X), b(X))


@pytest.mark.parametrize(
    "target", [model, frozen, lambda: frozen(5, "int8")], ids=["float", "frozen", "other"]
)
def test_a_file_of_a_frozen_model_makes_any_other_the_same(target, tmp_path):
    saved, path = frozen(), tmp_path / "a.safetensors"
    nx.save(saved.state_dict(), path)
    came = target()
    assert load_into(came, path) is came
    assert isinstance(came.hidden.weight.data, TensorQTensor)
    assert not came.hidden.weight.requires_grad
    assert came.head.weight is came.words.weight
    assert same(came, saved)
    assert list(came.state_dict()) == list(saved.state_dict())


def test_floats_come_back_into_a_frozen_model(tmp_path):
    saved, path = model(), tmp_path / "a.safetensors"
    nx.save(saved.state_dict(), path)
    came = load_into(frozen(), path)
    assert not [p for p in came.parameters() if isinstance(p, TensorQTensor)]
    assert came.head.weight is came.words.weight
    assert came.norm.weight.requires_grad
    assert same(came, saved)


def test_floats_are_copied_into_the_parameters_that_are_there(tmp_path):
    saved, came, path = model(), model(3), tmp_path / "a.safetensors"
    nx.save(saved.state_dict(), path)
    before = dict(came.named_parameters())
    load_into(came, path)
    assert all(p is before[name] for name, p in came.named_parameters())
    assert same(came, saved)


def test_a_model_without_memory_gets_it(tmp_path):
    saved, path = frozen(), tmp_path / "a.safetensors"
    nx.save(saved.state_dict(), path)
    with torch.device("meta"):
        came = Tied().eval()
    load_into(came, path)
    assert not [name for name, x in came.state_dict().items() if x.is_meta]
    assert came.head.weight is came.words.weight
    assert came.norm.weight.requires_grad
    assert same(came, saved)


def test_what_numerics_quantize_writes_is_loaded_and_one_of_tied_names_is_enough(tmp_path):
    state = model().state_dict()
    del state["head.weight"]
    nx.save(state, tmp_path / "a.safetensors")
    quantize_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "mx6")
    came = load_into(model(9), tmp_path / "b.safetensors")
    assert came.words.weight.format is nx.mx6
    assert came.head.weight is came.words.weight
    due = nx.quantize(state["words.weight"], "mx6").dequantize()
    assert torch.equal(came.words.weight.dequantize(), due)


def test_all_that_does_not_fit_is_told_at_once_and_nothing_is_changed(tmp_path):
    state, path = dict(frozen().state_dict()), tmp_path / "a.safetensors"
    del state["norm.weight"], state["norm.running_mean"]
    state["more"] = torch.zeros(2)
    state["hidden.bias"] = torch.zeros(3)
    state["norm.bias"] = torch.zeros(64, dtype=torch.float64)
    state["head.weight"] = nx.quantize(torch.ones(16, 64), "mxfp4")
    nx.save(state, path)
    came = model()
    before = copy.deepcopy(came.state_dict())
    with pytest.raises(nx.NumericsError) as told:
        load_into(came, path)
    for words in ("missing from the file: norm.weight, norm.running_mean", "not in the model: more",
                  "hidden.bias: its shape is (3,), the model's (64,)", "norm.bias: it is float64",
                  "tied in the model and different in the file: words.weight and head.weight"):  # fmt: skip
        assert words in str(told.value)
    assert all(torch.equal(x, before[name]) for name, x in came.state_dict().items())
    assert not [p for p in came.parameters() if isinstance(p, TensorQTensor)]


def test_a_quantized_tensor_of_another_float_type_is_refused(tmp_path):
    nx.save(frozen().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(
        nx.NumericsError, match=r"it is float32, the model's is bfloat16; model.to\(torch.float32\)"
    ):
        load_into(model().bfloat16(), tmp_path / "a.safetensors")


def test_a_wrapped_model_takes_floats_and_no_quantized_tensor_until_it_is_frozen(tmp_path):
    nx.save(frozen().state_dict(), tmp_path / "a.safetensors")
    nx.save(model(4).state_dict(), tmp_path / "b.safetensors")
    wrapped = nx.wrap(model(2), "mxfp4", example=X)
    assert same(load_into(wrapped, tmp_path / "b.safetensors"), nx.wrap(model(4), "mxfp4", example=X))
    with pytest.raises(nx.NumericsError, match=r"hidden\.weight is packed, and this model is wrapped"):
        load_into(wrapped, tmp_path / "a.safetensors")
    assert same(load_into(nx.freeze(wrapped), tmp_path / "a.safetensors"), frozen())


def test_narrow_floats_are_widened(tmp_path):
    saved = model().half()
    nx.save(saved.state_dict(), tmp_path / "a.safetensors")
    came = load_into(model(2), tmp_path / "a.safetensors")
    assert torch.equal(came.hidden.weight, saved.hidden.weight.float())


def test_only_modules_are_taken(tmp_path):
    with pytest.raises(nx.NumericsError, match=r"load_into takes a torch\.nn\.Module, not dict"):
        load_into({}, tmp_path / "a")
    with pytest.raises(nx.NumericsError, match=r"footprint takes a torch\.nn\.Module, not list"):
        footprint([])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr", "bsc"])
def test_a_footprint_counts_what_a_sparse_buffer_stores(layout):
    """It raised torch's error of tensors without storage."""
    m, dense = nn.Linear(4, 4, bias=False), torch.eye(4)
    block = {"blocksize": (2, 2)} if layout[0] == "b" else {}
    m.register_buffer("edges", dense.to_sparse(layout=getattr(torch, f"sparse_{layout}"), **block))
    values, places = (8, 3 + 2) if block else (4, 8 if layout == "coo" else 5 + 4)
    found = footprint(m)
    assert sum(share.values for share in found.shares) == 16 + values
    assert found.nbytes == 16 * 4 + values * 4 + places * 8


def test_a_footprint_counts_packed_bytes_and_ties_once():
    found = footprint(frozen())
    quantized = (64 * 64 + 16 * 64) * 17 // 32
    floats = 4 * (64 + 4 * 64)
    assert found.nbytes == quantized + floats + 8  # num_batches_tracked
    assert {share.format: share.nbytes for share in found.shares} == {
        "mxfp4": quantized, "float32": floats, "int64": 8
    }  # fmt: skip
    assert found.shares[0].bits == 4.25
    assert str(found).splitlines()[-1].split()[-1] == f"{found.nbytes:,}"


def test_a_footprint_counts_tied_memory_once_under_two_parameters():
    two = nn.ModuleList([nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)])
    assert footprint(two).nbytes == 2 * 4 * 64
    two[1].weight = nn.Parameter(two[0].weight.detach())
    assert footprint(two).nbytes == 4 * 64


def test_a_footprint_names_schemes():
    layer = nn.Linear(64, 8, bias=False)
    q = nx.quantize(layer.weight.detach(), "int4", scheme="per_group(32)", symmetric=False)
    layer.weight = nn.Parameter(q, requires_grad=False)
    (share,) = footprint(layer).shares
    assert share.format == "int4 per_group(32, axis=-1)"
    assert share.nbytes == q.nbytes == 8 * 64 // 2 + 16 * 4 + 16 * 4


# ---- files of frozen models: their plan is inside ----------------------------------------------------


class Whole(nn.Module):
    """Products, a normalization to fold, a tie."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 32)
        self.conv, self.norm = nn.Conv1d(32, 32, 3, padding=1), nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 16, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(torch.relu(self.norm(self.conv(self.table(ids).transpose(1, 2)))).transpose(1, 2))


IDS = torch.arange(16).reshape(2, 8)


def whole(seed):
    torch.manual_seed(seed)
    made = Whole()
    made.norm.running_mean.uniform_(-1, 1)
    return made.eval()


def frozen_whole(mode="eager_mode", qat=None, fold=False):
    plain = nx.QuantSpec("int8", symmetric=qat is not None)
    options = {"activations": plain, "example": IDS, "mode": mode, "fold": fold}
    wrapped = nx.wrap(whole(0), "int4", qat=qat, **options, **({} if qat else {"observer": "min_max"}))
    if qat is None:
        nx.calibrate(wrapped, [IDS])
    else:
        wrapped(IDS)
    return nx.freeze(wrapped)


@pytest.mark.turns
@pytest.mark.parametrize("name", FIELD)
@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_model_of_the_field_is_another_behind_its_file(name, mode, tmp_path):
    """From the plan to the file and into a model of floats: the same bits."""
    m, x = models.model(name)
    asked = {"activations": "int8", "observer": "min_max", "example": x, "mode": mode}
    one = nx.freeze(nx.calibrate(nx.wrap(m, nx.QuantSpec("int4", scheme="per_channel(0)"), **asked), [x]))
    assert sum(isinstance(p, nx.QTensor) for p in one.parameters()) >= 2
    nx.save(one.state_dict(), tmp_path / "a.safetensors")
    torch.manual_seed(1)
    fresh = (models.Lora if name == "packed_lora" else FIELD[name][0])().eval()
    again = load_into(fresh, tmp_path / "a.safetensors", example=x if "graph" in mode else None)
    with torch.no_grad():
        assert torch.equal(again(*x), one(*x))
        assert not torch.equal(one(*x), m(*x))


@pytest.mark.turns
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("qat", [None, "tqt", "lsq"])
@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_activations_were_lost_on_the_way_through_a_file(mode, qat, fold, tmp_path):
    frozen = frozen_whole(mode, qat, fold)
    nx.save(frozen.state_dict(), tmp_path / "a.safetensors")
    again = load_into(whole(1), tmp_path / "a.safetensors", example=IDS if "graph" in mode else None)
    assert torch.equal(again(IDS), frozen(IDS))
    nx.save(again.state_dict(), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with pytest.raises(nx.NumericsError, match="frozen"):
        nx.unwrap(again)


def test_a_dequantized_file_gives_the_values_of_the_frozen_model(tmp_path):
    frozen = frozen_whole()
    nx.save(frozen.state_dict(), tmp_path / "a.safetensors")
    dequantize_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    again = load_into(whole(1), tmp_path / "b.safetensors")
    assert type(again.conv.weight) is nn.Parameter
    with nx.decoded_products():
        assert torch.equal(again(IDS), frozen(IDS))


def test_a_graph_without_an_example_is_asked_for_one(tmp_path):
    nx.save(frozen_whole("fx_graph_mode").state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(nx.NumericsError, match="example="):
        load_into(whole(1), tmp_path / "a.safetensors")


@pytest.mark.parametrize("lost", ["conv.bias", "conv.weight", "conv.quantize_conv1d_0.scale"])
def test_a_file_that_does_not_fit_leaves_a_model_half_frozen(lost, tmp_path):
    state = frozen_whole().state_dict()
    assert lost in state
    del state[lost]
    nx.save(state, tmp_path / "a.safetensors")
    model = whole(1)
    before, due = {n: id(p) for n, p in model.named_parameters()}, model(IDS)
    with pytest.raises(nx.NumericsError, match=lost):
        load_into(model, tmp_path / "a.safetensors")
    assert {n: id(p) for n, p in model.named_parameters()} == before
    assert type(model.conv) is nn.Conv1d
    assert torch.equal(model(IDS), due)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": 3, "qat": null, "frozen": "packed"}', "[" * 10**5])
def test_a_plan_of_rubbish_in_a_file_is_refused(text, tmp_path):
    state = frozen_whole().state_dict()
    state._metadata[""]["numerics.model"] = text
    nx.save(state, tmp_path / "a.safetensors")
    with pytest.raises(nx.NumericsError, match="no plan"):
        load_into(whole(1), tmp_path / "a.safetensors")


def test_the_state_of_a_model_that_is_not_frozen_says_nothing(tmp_path):
    nx.save(whole(0).state_dict(), tmp_path / "a.safetensors")
    assert b"numerics.model" not in (tmp_path / "a.safetensors").read_bytes()
    copied = copy.deepcopy(frozen_whole())
    assert "numerics.model" in copied.state_dict()._metadata[""]


@pytest.mark.parametrize("qat", [None, "lsq", "tqt"])
def test_a_state_without_scales_is_said_to_have_the_models_own(qat, tmp_path):
    x = torch.ones(4, 64)
    options = {"activations": "int8", "example": x}
    nx.save(nx.freeze(nx.wrap(nn.Linear(64, 8), "int4", **options)).state_dict(), tmp_path / "a.safetensors")
    options |= {"qat": qat} if qat else {"observer": "min_max"}
    wrapped = nx.wrap(nn.Linear(64, 8), "int4", mode="fx_graph_mode", **options)
    frozen = nx.freeze(wrapped if qat else nx.calibrate(wrapped, [x]))
    with pytest.raises(
        nx.NumericsError, match=r"has fixed scales, the state no scales of its own: nx.load_into"
    ):
        load_into(frozen, tmp_path / "a.safetensors")


@pytest.mark.parametrize("text", ["", "[]", '{"plan": 3}', "[" * 10**5])
def test_a_state_with_a_plan_of_rubbish_is_loaded_or_ends_in_pythons_words(text):
    frozen = frozen_whole()
    state = frozen.state_dict()
    state._metadata[""]["numerics.model"] = text
    with pytest.raises(nx.NumericsError, match="no plan"):
        frozen.load_state_dict(state)


# ---- what a file brings that is no value of the model's ----------------------------------------------


@pytest.mark.turns(6)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("activations", ["int8", "mxfp8_e4m3", None])
def test_a_plan_of_activations_let_weights_of_another_type_through(dtype, bias, mode, activations, tmp_path):
    """The weight of the file was put in before it was asked whether it fits: the call was torch's error."""
    x = torch.linspace(-1, 1, 128).reshape(2, 64)
    plan = {"activations": activations, "example": x, "mode": mode}
    nx.save(nx.freeze(nx.wrap(nn.Linear(64, 8, bias=bias), "int4", **plan)).state_dict(), tmp_path / "a")
    came = nn.Linear(64, 8, bias=bias, dtype=dtype)
    before = {name: y.clone() for name, y in came.state_dict().items()}
    with pytest.raises(
        nx.NumericsError, match=r"is unchanged: .*weight\b.*: it is float32, the model's is .*float32"
    ):
        load_into(came, tmp_path / "a", example=x.to(dtype))
    assert all(torch.equal(y, before[name]) for name, y in came.state_dict().items())
    assert load_into(came.float(), tmp_path / "a", example=x)(x).dtype == torch.float32


def mixed(kinds):
    """Layers of those float types."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(64, 64, dtype=kind) for kind in kinds))


@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "int4", "fp8_e4m3", "mx6", None])
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("meta", [False, True])
def test_a_file_of_several_float_types_goes_into_no_model(spec, narrow, meta, tmp_path):
    """Packed bfloat16 beside float32 was refused by a model of either, each with the other as the way out."""
    made, path = mixed([narrow, torch.float32, narrow]), tmp_path / "a.safetensors"
    state = dict(made.state_dict())
    if spec:
        state |= {name: nx.quantize(x, spec) for name, x in state.items() if name.endswith("weight")}
    nx.save(state, path)
    fresh = nn.Sequential(*(nn.Linear(64, 64, device="meta" if meta else None) for _ in range(3)))
    came = load_into(fresh, path)
    for name, x in came.state_dict().items():
        assert x.dtype == torch.float32
        assert isinstance(x, TensorQTensor) == isinstance(state[name], TensorQTensor)
        if isinstance(x, TensorQTensor):
            assert torch.equal(x.packed, state[name].packed)
            assert torch.equal(x.dequantize(), state[name].dequantize(torch.float32))
        else:
            assert torch.equal(x, state[name].float())
    assert came(torch.randn(2, 64)).dtype == torch.float32
    narrower = nn.Sequential(*(nn.Linear(64, 64, dtype=narrow) for _ in range(3)))
    due = rf"1\.\w+, 1\.\w+ \(each of 2\): it is float32, the model's is {str(narrow)[6:]}; "
    with pytest.raises(nx.NumericsError, match=due + r"model\.to\(torch\.float32\) first$"):
        load_into(narrower, path)
    load_into(narrower.to(torch.float32), path)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_layer_without_room_was_torchs_error_of_shapes(narrow, tmp_path):
    """Which floats it holds cannot be said yet, of a layer beside it all the same."""
    layers = nn.Linear(64, 64), nn.LazyLinear(8)
    nx.save(nn.Sequential(layers[0], nn.Linear(64, 8)).state_dict(), tmp_path / "a")
    came = nn.Sequential(layers[0].half() if narrow else layers[0], layers[1])
    due = r"1\.weight, 1\.bias \(each of 2\): the model has seen no batch, and no room for it: [^;]*"
    with pytest.raises(
        nx.NumericsError, match=due + (r"; model\.to\(torch\.float32\) first$" * narrow or "$")
    ):
        load_into(came, tmp_path / "a")


def test_one_reason_was_told_once_for_each_tensor(tmp_path):
    nx.save(nn.Sequential(*(nn.Linear(64, 64) for _ in range(3))).state_dict(), tmp_path / "a")
    came = nn.Sequential(*(nn.Linear(64, 64, dtype=torch.float16) for _ in range(3)))
    with pytest.raises(nx.NumericsError, match=r"\{0-2\}\.weight, \{0-2\}\.bias \(each of 6\): it") as caught:
        load_into(came, tmp_path / "a")
    assert str(caught.value).count("model.to(") == 1


@pytest.mark.parametrize("kinds", [(torch.bfloat16, torch.float16), (torch.float32, torch.float64)])
def test_the_type_that_is_named_holds_all_of_a_file(kinds, tmp_path):
    """Of two types neither was the way: bfloat16 and float16 go into float32."""
    made = mixed(kinds)
    nx.save(made.state_dict(), tmp_path / "a")
    came = nn.Sequential(*(nn.Linear(64, 64, dtype=kinds[0]) for _ in kinds))
    with pytest.raises(nx.NumericsError, match=r"model\.to\(") as caught:
        load_into(came, tmp_path / "a")
    exec(re.search(r"model\.to\(.*?\)", str(caught.value)).group(), {"model": came, "torch": torch})
    load_into(came, tmp_path / "a")
    assert all(torch.equal(x, came.state_dict()[name].to(x.dtype)) for name, x in made.state_dict().items())


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("activations", ["int8", "mxfp8_e4m3", None])
def test_a_frozen_model_of_narrow_floats_goes_into_none_of_wide_ones(mode, activations, tmp_path):
    x, plan = torch.linspace(-1, 1, 128).reshape(2, 64), {"activations": activations, "mode": mode}
    made = nx.wrap(nn.Linear(64, 8, dtype=torch.bfloat16), "int4", example=x.bfloat16(), **plan)
    nx.save(nx.freeze(made).state_dict(), tmp_path / "a")
    came = load_into(nn.Linear(64, 8), tmp_path / "a", example=x)
    assert came(x).dtype == torch.float32
    (packed,) = (p for p in came.parameters() if isinstance(p, TensorQTensor))
    assert packed.dtype == torch.float32


CODES = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "int8", "uint8", "int32", "int64", "bool"]


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("meta", [False, True])
def test_codes_of_a_file_were_taken_for_values(kind, meta, tmp_path):
    """Narrow floats were torch's error of types, and integers floats without a word."""
    weight, path = torch.tensor([[1.0, 0.0], [1.0, 2.0]]).to(getattr(torch, kind)), tmp_path / "a.safetensors"
    nx.save({"weight": weight}, path)
    came = nn.Linear(2, 2, bias=False, device="meta" if meta else None)
    due = rf"is unchanged: weight: it is {kind}, codes where the model has float32: `numerics convert"
    with pytest.raises(nx.NumericsError, match=due) as caught:
        load_into(came, path)
    state, name = nx.load(path, library="torch"), "weight"
    assert "nx.save that with state[name].to(torch.float32)" in str(caught.value)
    nx.save(state | {name: state[name].to(torch.float32)}, path)
    assert torch.equal(load_into(came, path).weight, weight.float())


def test_integers_of_a_model_come_as_integers(tmp_path):
    norm = nn.BatchNorm1d(2)
    norm(torch.randn(4, 2))
    nx.save(norm.state_dict() | {"num_batches_tracked": torch.tensor(1, dtype=torch.int32)}, tmp_path / "a")
    assert int(load_into(nn.BatchNorm1d(2), tmp_path / "a").num_batches_tracked) == 1


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float32])
def test_floats_in_the_place_of_integers_were_torchs_error(kind, tmp_path):
    """Of those of 8 bits torch has no wider type, and said so."""
    norm = nn.BatchNorm1d(2)
    nx.save(norm.state_dict() | {"num_batches_tracked": torch.tensor(1.0).to(kind)}, tmp_path / "a")
    with pytest.raises(
        nx.NumericsError, match=r"is unchanged: num_batches_tracked: it is float\w+, the model's is int64"
    ):
        load_into(norm, tmp_path / "a")


class Turned(nn.Module):
    """Has a buffer that no state keeps."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 4)
        self.inner.register_buffer("turn", torch.full((64,), 2.0), persistent=False)

    def forward(self, x):
        return self.inner(x * self.inner.turn)


@pytest.mark.parametrize("options", [None, {}, {"activations": "int8"}])
def test_a_buffer_that_no_state_keeps_stayed_on_meta_without_a_word(options, tmp_path):
    one, x = Turned(), torch.ones(2, 64)
    made = one if options is None else nx.freeze(nx.wrap(copy.deepcopy(one), "int4", example=x, **options))
    nx.save(made.state_dict(), tmp_path / "a")
    with torch.device("meta"):
        came = Turned()
    due = r"inner\.turn is on meta, and no state has it \(persistent=False\): give it its values first"
    with pytest.raises(nx.NumericsError, match=due) as caught:
        load_into(came, tmp_path / "a")
    assert came.inner.weight.is_meta
    call = re.search(r"model\.get_submodule\(.*?\)\.turn = ", str(caught.value)).group()
    exec(f"{call}torch.full((64,), 2.0)", {"model": came, "torch": torch})
    assert torch.equal(load_into(came, tmp_path / "a")(x), made(x))


def test_a_prefix_of_all_names_is_named_with_the_way(tmp_path):
    path = tmp_path / "a.safetensors"
    nx.save({f"module.{name}": x for name, x in nn.Linear(4, 2).state_dict().items()}, path)
    with pytest.raises(nx.NumericsError, match=r"Every name of the state begins with 'module\.'") as caught:
        load_into(nn.Linear(4, 2), path)
    call = str(caught.value).partition("(_orig_mod.): ")[2].replace(" takes that away", "")
    exec(call, {"nx": nx, "torch": torch, "path": path})
    load_into(nn.Linear(4, 2), path)


# ---- folders --------------------------------------------------------------------------------------------


def shared_out(state, folder, count=2):
    """A state in so many files of a folder, with the index that says which has what."""
    folder.mkdir()
    files = [f"model-{k + 1:05}-of-{count:05}.safetensors" for k in range(count)]
    where = {name: files[k % count] for k, name in enumerate(state)}
    for file in files:
        nx.save({name: state[name] for name, at in where.items() if at == file}, folder / file)
    parts = {name: file for file in files for name in Reader(folder / file).entries}  # scales have names, too
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": parts}), encoding="utf-8"
    )
    return folder


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("way", ["shards", "index", "one file"])
@pytest.mark.parametrize("meta", [False, True])
def test_a_folder_was_refused(way, packed, meta, tmp_path):
    model = layers()
    due = (nx.quantize_(copy.deepcopy(model), "mxfp4") if packed else model).state_dict()
    if way == "one file":
        (tmp_path / "m").mkdir()
        nx.save(due, tmp_path / "m" / "model.safetensors")
        path = tmp_path / "m"
    else:
        path = shared_out(due, tmp_path / "m")
    with torch.device("meta" if meta else "cpu"):
        into = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    into = nx.load_into(into, str(path / "model.safetensors.index.json") if way == "index" else path)
    x = torch.ones(1, 32)
    assert isinstance(into[0].weight, nx.QTensor) is packed
    assert torch.equal(into(x), (nx.load_into(model, path) if packed else model)(x))


def test_a_folder_that_numerics_quantize_wrote_is_loaded(tmp_path):
    model = layers()
    folder = shared_out(model.state_dict(), tmp_path / "float")
    job.quantize(folder, tmp_path / "q", Request(nx.QuantSpec("mxfp8_e4m3")))
    into = nx.load_into(layers(), tmp_path / "q")
    assert {x.spec.dtype.name for x in into.parameters() if isinstance(x, nx.QTensor)} == {"mxfp8_e4m3"}


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_folder_brings_the_plan_of_its_file(mode, tmp_path):
    x = torch.linspace(-1, 1, 64).reshape(2, 32)
    frozen = nx.freeze(nx.wrap(layers(), "mxfp4", activations="mxfp8_e4m3", example=x, mode=mode))
    (tmp_path / "m").mkdir()
    nx.save(frozen.state_dict(), tmp_path / "m" / "model.safetensors")
    assert torch.equal(nx.load_into(layers(), tmp_path / "m", example=x)(x), frozen(x))


def test_a_folder_that_is_none_of_this_model_changes_nothing(tmp_path):
    model = layers()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    folder = shared_out({"0.weight": torch.ones(32, 32), "other": torch.ones(3)}, tmp_path / "m")
    with pytest.raises(
        nx.NumericsError,
        match=r"m does not fit Sequential.*missing from the file: .*; not in the model: other",
    ):
        nx.load_into(model, folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(nx.NumericsError, match="00002-of-00002"):
        nx.load_into(model, folder)
    (folder / "model.safetensors.index.json").unlink()
    nx.save({"w": torch.ones(2)}, folder / "b.safetensors")
    with pytest.raises(nx.NumericsError, match=r"2 \.safetensors files and no index"):
        nx.load_into(model, folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(nx.NumericsError, match=r"no \.safetensors file"):
        nx.load_into(model, tmp_path / "none")
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_what_has_no_shape_yet_was_torchs_error():
    model = nn.Sequential(nn.Linear(8, 8), nn.LazyLinear(4), nn.LazyBatchNorm1d())
    found = footprint(model)
    assert (found.nbytes, found.shares[-1].format) == (4 * 72 + 8, "no shape yet")
    assert (found.shares[-1].tensors, found.shares[-1].values) == (6, 0)
    assert "no shape yet" in str(found)
    model(torch.ones(2, 8))
    assert "no shape yet" not in str(footprint(model))


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_packed_weights_of_a_file_are_printed_and_judged(mode, tmp_path):
    """A model that a file packed said nothing of it, and a report of it was refused with a dead end."""

    def floats():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))

    x = torch.linspace(-1, 1, 128).reshape(2, 64)
    frozen = nx.freeze(nx.wrap(floats(), "mxfp4", example=x, mode=mode))
    file = tmp_path / "a.safetensors"
    nx.save(frozen.state_dict(), file)
    loaded = nx.load_into(floats(), file)
    assert str(loaded).count("weight=mxfp4") == 2
    assert nx.report(loaded, floats(), [x]).layers == nx.report(frozen, floats(), [x]).layers
    again = pickle.loads(pickle.dumps(copy.deepcopy(loaded)))
    assert str(again) == str(loaded)
    assert torch.equal(again(x), loaded(x))
    assert nx.load_into(loaded, file) is loaded
    with pytest.raises(nx.NumericsError, match=r"0\.weight, 2\.weight came packed.*nx\.report.*float model"):
        nx.freeze(loaded)


def test_bytes_of_a_transformers_model_count_packed_weights_as_they_are():
    class Model(torch.nn.Sequential):
        def get_memory_footprint(self, return_buffers=True):
            return sum(x.nelement() * x.element_size() for x in self.parameters())

    model = Model(torch.nn.Linear(64, 64))
    assert model.get_memory_footprint() == 4 * 65 * 64
    frozen = nx.freeze(nx.wrap(model, "mxfp4"))
    assert frozen.get_memory_footprint() == nx.footprint(frozen).nbytes == 64 * 64 * 17 // 32 + 4 * 64


def test_a_packed_weight_that_a_list_holds_too_is_said(tmp_path):
    class Lists(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(16, 16, bias=False)
            self.all = [self.a.weight]

        def forward(self, x):
            return nn.functional.linear(self.a(x), self.all[0])

    nx.save({"a.weight": nx.quantize(torch.randn(16, 16), "int4")}, tmp_path / "a.safetensors")
    with pytest.warns(NumericsWarning, match=r"^a\.weight: a list"):
        nx.load_into(Lists(), tmp_path / "a.safetensors")


class Siamese(nn.Module):
    """A layer whose weight is multiplied once more."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 32)
        self.w = self.layer.weight

    def forward(self, x):
        return self.layer(x) @ self.w


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("untied", ["meta", "floats"])
def test_a_tie_that_a_model_has_lost_comes_back_with_a_frozen_file(tmp_path, mode, untied):
    """`to("meta")` unties, and what was loaded refused its call: its plan knows one parameter."""
    x = torch.randn(3, 32)
    frozen = nx.freeze(nx.wrap(Siamese(), "int8", activations="mxfp8_e4m3", example=x, mode=mode))
    nx.save(frozen.state_dict(), tmp_path / "a.safetensors")
    model = Siamese()
    if untied == "meta":
        model = model.to("meta")
    else:
        model.w = nn.Parameter(torch.randn(32, 32))
    example = x.to(model.layer.weight.device)
    loaded = nx.load_into(model, tmp_path / "a.safetensors", example=example)
    assert torch.equal(loaded(x), frozen(x))
    assert loaded.get_parameter("w") is loaded.get_parameter("layer.weight")
