"""Enumerations in the place of strings: every member, through a call that uses it, eager and compiled.

What a member computes is judged in tests/laws/test_vocabulary.py; here, that it goes wherever its string goes
and that nothing but strings is kept of it.
"""

from __future__ import annotations

import itertools
import pickle
from enum import Enum, StrEnum

import numpy as np
import pytest
import torch
from torch._dynamo import lookup_backend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import numerics as nx
from numerics import train, vocabulary
from numerics.files.checkpoint import quantize_file
from numerics.formats.rounding import CALLED, ROUNDINGS
from numerics.tensor.scheme import KINDS
from numerics.tensor.spec import SCALE_TYPES, ZERO_POINT_TYPES
from numerics.train import THRESHOLD_INIT
from numerics.vocabulary import (
    DeviceType,
    Dtype,
    QSchemeType,
    QuantizationMode,
    RoundType,
    ScaleType,
    TQTThresholdInitMeth,
    ZeroPointType,
)
from tests.helpers.bits import assert_same_bits

X = np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32) * np.float32([[1], [9], [0.1], [70]])
OF_THE_FAMILY = nx.mx(Dtype.fp4)
ENUMERATIONS = [getattr(vocabulary, name) for name in vocabulary.__all__]


def format_of(word):
    """A format by its name; one of the family where that is named."""
    return OF_THE_FAMILY if word == "mx" else word


def scheme_of(word):
    return nx.per_group(16) if word == "per_group" else word


def backend(x, word):
    with nx.use(word):
        return nx.fp4.round(x)


USES = {
    QSchemeType: {
        "quantize": lambda x, word: nx.quantize(x, "int4", scheme=scheme_of(word)).dequantize(),
        "fake_quantize": lambda x, word: nx.fake_quantize(x, "int4", scheme=scheme_of(word)),
        "QuantSpec": lambda x, word: nx.fake_quantize(x, nx.QuantSpec("int4", scheme=scheme_of(word))),
    },
    ZeroPointType: {
        "quantize": lambda x, word: nx.quantize(
            x, "int4", symmetric=False, zero_point_type=word
        ).dequantize(),
        "fake_quantize": lambda x, word: nx.fake_quantize(x, "int4", symmetric=False, zero_point_type=word),
        "QuantSpec": lambda x, word: nx.fake_quantize(
            x, nx.QuantSpec("int4", symmetric=False, zero_point_type=word)
        ),
    },
    Dtype: {
        "quantize": lambda x, word: nx.quantize(x.__abs__(), format_of(word)).dequantize(),
        "fake_quantize": lambda x, word: nx.fake_quantize(x.__abs__(), format_of(word)),
        "QuantSpec": lambda x, word: nx.fake_quantize(x.__abs__(), nx.QuantSpec(format_of(word))),
        "dtype": lambda x, word: nx.dtype(format_of(word)).round(x),
    },
    ScaleType: {
        "quantize": lambda x, word: nx.quantize(x, "int4", scale_type=word).dequantize(),
        "fake_quantize": lambda x, word: nx.fake_quantize(x, "int4", scale_type=word),
        "QuantSpec": lambda x, word: nx.fake_quantize(x, nx.QuantSpec("int4", scale_type=word)),
    },
    RoundType: {
        "quantize": lambda x, word: nx.quantize(x, "int4", rounding=word, scale=1.0).dequantize(),
        "fake_quantize": lambda x, word: nx.fake_quantize(x, "int4", rounding=word, scale=1.0),
        "QuantSpec": lambda x, word: nx.fake_quantize(x, nx.QuantSpec("int4", rounding=word), scale=1.0),
        "Element.encode": lambda x, word: nx.int8.encode(x, rounding=word),
        "Element.round": lambda x, word: nx.int8.round(x, rounding=word),
        "Element.encode_packed": lambda x, word: nx.int4.encode_packed(x, rounding=word),
        "Block.encode": lambda x, word: nx.mx6.encode(x, rounding=word).codes,
        "Block.round": lambda x, word: nx.mxfp4.round(x, rounding=word),
    },
}  # fmt: skip
CALLS = [
    pytest.param(kind, use, id=f"{kind.__name__}-{name}")
    for kind, uses in USES.items() for name, use in uses.items()
]  # fmt: skip
TIES = (2 * X).round() / 2  # midway between two steps, where roundings differ


# ---- members are the words that the house takes ----------------------------------------------------------


@pytest.mark.parametrize("kind", ENUMERATIONS)
def test_a_member_is_its_own_name(kind):
    assert issubclass(kind, StrEnum)
    assert {name: str(member) for name, member in kind.__members__.items()} == {
        n: n for n in kind.__members__
    }


def test_members_are_the_words_that_calls_take():
    assert set(QSchemeType) == set(KINDS) - {"per_token", "per_block"}  # which Quark's type has not
    assert set(ZeroPointType) == set(ZERO_POINT_TYPES)
    assert set(ScaleType) == set(SCALE_TYPES)
    assert set(RoundType) <= {*ROUNDINGS, *CALLED}
    assert set(TQTThresholdInitMeth) == set(THRESHOLD_INIT)
    assert {word for word in Dtype if word != "mx"} <= {d.name for d in nx.dtypes()}


def test_the_enumeration_of_names_is_not_the_class_of_formats():
    assert nx.Dtype is not nx.vocabulary.Dtype
    assert isinstance(nx.dtype(nx.vocabulary.Dtype.int8), nx.Dtype)


# ---- wherever the string goes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "use"), CALLS)
def test_a_member_does_what_its_string_does(kind, use):
    for member in kind:
        due = use(TIES, str(member))
        assert_same_bits(use(TIES, member), due)
        assert_same_bits(use(torch.from_numpy(TIES), member), due)


@pytest.mark.turns(30)
@pytest.mark.parametrize(("kind", "use"), CALLS)
def test_members_compile_whole_to_the_same_bits_and_graphs_hold_plain_strings(kind, use):
    """A graph that is kept or exported must not ask for our enumerations where it is read."""
    held = []

    def keep(graph, inputs):
        held.extend(tree_leaves([(node.args, node.kwargs) for node in graph.graph.nodes]))
        return lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    x = torch.from_numpy(TIES)
    compiled = torch.compile(lambda x: [use(x, member) for member in kind], fullgraph=True, backend=keep)
    for came, member in zip(compiled(x), kind, strict=True):
        assert_same_bits(came, use(x, str(member)))
    assert {type(text) for text in held if isinstance(text, str)} == {str}


@pytest.mark.parametrize(("kind", "use"), CALLS)
def test_members_do_different_things(kind, use):
    """One that was passed over would do what another does.  Of a float64, since float is its type, too."""
    x = X.astype(np.float64) if kind is ScaleType else TIES
    found = [(member, np.asarray(use(x, member)).tobytes()) for member in kind]
    for (one, came), (other, due) in itertools.combinations(found, 2):
        assert came != due, (one, other)


@pytest.mark.parametrize("word", DeviceType)
def test_a_device_is_a_backend(word):
    assert_same_bits(backend(X, word), backend(X, word.lower()))
    with nx.use(word) as chosen:
        assert chosen.name == word.lower()


@pytest.mark.parametrize("word", TQTThresholdInitMeth)
def test_a_threshold_begins_by_a_member(word):
    x = torch.from_numpy(X)
    by_member, by_text = train.TQT(Dtype.int4, init=word), train.TQT("int4", init=str(word))
    assert_same_bits(by_member(x), by_text(x))
    assert type(by_member.init) is str


def test_learners_take_members():
    x = torch.from_numpy(X)
    quantizer = train.LSQ(Dtype.int4, scheme=QSchemeType.per_channel)
    assert_same_bits(quantizer(x), train.LSQ("int4", scheme="per_channel")(x))
    step, threshold = quantizer.step.detach(), torch.tensor(1.5)
    assert_same_bits(train.lsq_init(x, Dtype.int4, scheme=QSchemeType.per_channel), step)
    by_member = train.lsq(x, step, Dtype.int4, scheme=QSchemeType.per_channel)
    assert_same_bits(by_member, train.lsq(x, step, "int4", scheme="per_channel"))
    assert_same_bits(train.tqt(x, threshold, Dtype.uint4), train.tqt(x, threshold, "uint4"))
    assert train.threshold_kl_j(x, Dtype.int4) == train.threshold_kl_j(x, "int4")


@pytest.mark.parametrize("name", [name for name in nx.observe.OBSERVERS if not name.startswith("pof2")])
def test_observers_take_members(name):
    options = {"scheme": QSchemeType.per_channel, "scale_type": ScaleType.float16, "symmetric": False,
               "zero_point_type": ZeroPointType.float32}  # fmt: skip
    texts = {option: str(word) if isinstance(word, str) else word for option, word in options.items()}
    watching, other = (
        nx.observe.observer(name, dtype, **given) for dtype, given in ((Dtype.int8, options), ("int8", texts))
    )
    watching.observe(X)
    other.observe(X)
    assert_same_bits(watching.scale, other.scale)
    assert_same_bits(watching.zero_point, other.zero_point)
    assert not kept_members(watching.state)


def test_observers_of_powers_of_two_take_the_scale_type():
    for kind in (nx.observe.Pof2, nx.observe.Pof2MSE):
        watching = kind(Dtype.int8, scale_type=ScaleType.pof2)
        watching.observe(X)
        assert watching.spec.scale_type == "pof2"


def test_transcoding_takes_a_member():
    q = nx.quantize(X, "int4")
    assert nx.transcode(q, Dtype.int8).format is nx.int8


def test_the_judge_takes_members():
    def mine(x):
        return nx.fp4.encode(x, rounding="floor")

    assert nx.conform.check(mine, Dtype.fp4, rounding=RoundType.floor)
    assert not nx.conform.check(mine, Dtype.fp4, rounding=RoundType.round)


def test_declared_formats_take_members():
    assert nx.block_format(element=Dtype.fp4, block=32, name="mxfp4") is nx.mxfp4
    assert nx.mx(Dtype.fp6_e3m2) is nx.mxfp6_e3m2


def test_files_take_members(tmp_path):
    nx.save({"w": X}, tmp_path / "w.safetensors")
    options = {"scheme": QSchemeType.per_channel, "scale_type": ScaleType.pof2, "rounding": RoundType.round}
    texts = {name: str(word) for name, word in options.items()}
    for target, dtype, given in (("one", Dtype.int4, options), ("other", "int4", texts)):
        quantize_file(tmp_path / "w.safetensors", tmp_path / target, dtype, **given)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    nx.save({"w": nx.quantize(X, Dtype.int4, **options)}, tmp_path / "q")
    assert not kept_members(nx.load(tmp_path / "q")["w"].spec)


# ---- models ------------------------------------------------------------------------------------------------


def model():
    torch.manual_seed(2)
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))


@pytest.mark.parametrize("mode", QuantizationMode)
def test_models_take_members(mode):
    x = torch.from_numpy(X)
    options = {"activations": Dtype.int8, "rules": {"2": Dtype.int4}, "qat": "tqt",
               "threshold_init": TQTThresholdInitMeth._LL_J, "device": DeviceType.CPU}  # fmt: skip
    texts = {
        **options,
        "activations": "int8",
        "rules": {"2": "int4"},
        "threshold_init": "_LL_J",
        "device": "CPU",
    }
    by_members = nx.wrap(model(), Dtype.int8, mode=mode, example=x, **options)
    by_texts = nx.wrap(model(), "int8", mode=str(mode), example=x, **texts)
    assert_same_bits(by_members(x), by_texts(x))
    assert isinstance(by_members, torch.fx.GraphModule) == (mode == "fx_graph_mode")
    for one in by_members.modules():
        if isinstance(one, train.TQT):
            assert not kept_members(one)


@pytest.mark.parametrize("mode", QuantizationMode)
def test_plans_hold_plain_strings(mode, tmp_path):
    options = {
        "activations": Dtype.fp8_e4m3,
        "rules": {"2": Dtype.mx9},
        "mode": mode,
        "device": DeviceType.CPU,
    }
    made = nx.plan(model(), Dtype.int4, example=torch.from_numpy(X), **options)
    assert not kept_members([made.rows, made.mode, made.device, made.as_dict()])
    assert made.mode == mode
    made.save(tmp_path / "plan.json")
    assert b"vocabulary" not in pickle.dumps(made.as_dict())
    assert nx.Plan.load(tmp_path / "plan.json").rows == made.rows


def test_a_plan_for_the_npu_has_its_formats_alone():
    """AMD Quark stores the device and never reads it."""
    x = torch.from_numpy(X)
    nx.plan(model(), Dtype.mx9, device=DeviceType.CPU, example=x)
    with pytest.raises(nx.NumericsError, match="device='IPU' takes int8"):
        nx.plan(model(), Dtype.mx9, device=DeviceType.IPU, example=x)


# ---- nothing but strings is kept ---------------------------------------------------------------------------

OPTIONS = {"scheme": QSchemeType.per_channel, "scale_type": ScaleType.pof2, "rounding": RoundType.round,
           "symmetric": False, "zero_point_type": ZeroPointType.float32}  # fmt: skip


def kept_members(thing, seen=None):
    """The members of enumerations that are reached from a thing by its attributes and items."""
    seen = set() if seen is None else seen
    if isinstance(thing, Enum):
        return [thing]
    if id(thing) in seen or isinstance(thing, (np.ndarray, torch.Tensor, type)):
        return []
    seen.add(id(thing))
    items = [*thing.keys(), *thing.values()] if isinstance(thing, dict) else []
    items += thing if isinstance(thing, (list, tuple, set)) else []
    items += vars(thing).values() if hasattr(thing, "__dict__") else []
    return [member for item in items for member in kept_members(item, seen)]


def test_a_kept_member_is_seen():
    spec = nx.QuantSpec("int8")
    object.__setattr__(spec, "rounding", RoundType.floor)
    assert kept_members({"a": [spec]}) == [RoundType.floor]


@pytest.mark.parametrize("x", [X, torch.from_numpy(X)], ids=["numpy", "torch"])
def test_results_hold_plain_strings(x):
    q = nx.quantize(x, Dtype.int8, **OPTIONS)
    assert q.spec.text == (
        '{"dtype": "int8", "scheme": "per_channel(0)", "symmetric": false, "scale_type": "pof2", '
        '"zero_point_type": "float32", "rounding": "half_away"}'
    )
    assert not kept_members(q.spec)
    assert b"vocabulary" not in pickle.dumps(q)
    spec = nx.QuantSpec(Dtype.int8, **OPTIONS)
    assert spec == q.spec
    assert not kept_members(spec)
    assert not kept_members(spec.options)
    assert b"vocabulary" not in pickle.dumps(spec)
    assert not kept_members(nx.Scheme(QSchemeType.per_tensor))


def test_what_is_learned_holds_plain_strings(tmp_path):
    begun = train.TQT(Dtype.int8, init=TQTThresholdInitMeth._LL_J)
    model = torch.nn.ModuleList([begun, train.LSQ(Dtype.int4, scheme=QSchemeType.per_tensor)])
    for quantizer in model:
        quantizer(torch.from_numpy(X))
        assert not kept_members(quantizer)
    torch.save(model.state_dict(), tmp_path / "state")
    torch.load(tmp_path / "state", weights_only=True)


class Watch(TorchDispatchMode):
    """Keeps what the operators of the house are called with."""

    def __init__(self):
        super().__init__()
        self.arguments = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "numerics":
            self.arguments += tree_leaves((args, kwargs or {}))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "use"), CALLS)
def test_operators_are_called_with_plain_strings(kind, use):
    with Watch() as watch:
        for member in kind:
            use(torch.from_numpy(TIES), member)
    assert {type(text) for text in watch.arguments if isinstance(text, str)} == {str}


# ---- refused in words --------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [Dtype.mx, "mx", "MX"])
@pytest.mark.parametrize("x", [X, torch.from_numpy(X)], ids=["numpy", "torch"])
def test_a_family_is_no_format_and_its_members_are_said(word, x):
    with pytest.raises(nx.NumericsError, match=r"family of formats: mxfp8_e4m3, .*mxint8; nx\.mx\(element"):
        nx.quantize(x, word)


def test_the_members_that_are_said_are_those_of_the_standard():
    with pytest.raises(nx.NumericsError) as said:
        nx.dtype(Dtype.mx)
    named = str(said.value).partition("family of formats: ")[2].partition(";")[0].split(", ")
    mx = {d.name for d in nx.dtypes() if isinstance(d, nx.MXBlock) and d.block == 32}
    assert set(named) == mx - {"mxfp3"}  # which a paper has, not the standard


def test_a_group_without_a_size_is_refused():
    with pytest.raises(nx.NumericsError, match=r"needs the size of a group: per_group\(128\)"):
        nx.quantize(X, "int4", scheme=QSchemeType.per_group)
    assert nx.Scheme.parse(QSchemeType.per_group, size=16) == nx.per_group(16)


@pytest.mark.parametrize("kind", ENUMERATIONS)
def test_a_word_that_an_enumeration_has_not_is_refused_with_those_that_it_has(kind):
    with pytest.raises(
        nx.NumericsError, match=f"unknown {kind.__name__} 'int5'.*allowed: {next(iter(kind))}"
    ):
        kind("int5")


def test_a_word_of_another_enumeration_is_refused():
    with pytest.raises(nx.NumericsError, match=r"unknown rounding mode <Dtype.int8: 'int8'>"):
        nx.fp4.round(X, rounding=Dtype.int8)
