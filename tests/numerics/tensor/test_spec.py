"""QuantSpec: one record of how tensors are quantized, taken wherever a format and its options are."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.tensor.spec import QuantSpec
from numerics.tensor.words import DEFAULTS

X = np.random.default_rng(5).standard_normal((6, 64)).astype(np.float32)
OWN = nx.float_format(3, 2, name="of_my_own")
OPTIONS = [
    ("int4", {}), ("int4", {"scheme": nx.per_group(16)}), ("uint4", {"symmetric": False}),
    ("int8", {"symmetric": False, "zero_point_type": "float32", "scheme": "per_channel(1)"}),
    ("fp8_e4m3", {"scale_type": "pof2", "rounding": "floor"}), ("bfloat16", {}),
    ("bfloat16", {"scheme": "per_tensor"}), ("float16", {"scale_type": "float"}),
    ("mxfp4", {"axis": 0, "scale_rule": "rceil"}), ("mx6", {}), ("nvfp4", {"rounding": "round"}),
    (OWN, {"scheme": "per_channel"}),
]  # fmt: skip
IDS = [f"{dtype} {options}" for dtype, options in OPTIONS]


@pytest.mark.parametrize(("dtype", "options"), OPTIONS, ids=IDS)
def test_a_spec_is_printed_as_it_is_typed_and_survives_being_kept(dtype, options):
    spec = nx.QuantSpec(dtype, **options)
    assert eval(repr(spec), {"QuantSpec": nx.QuantSpec}) == spec
    kept = (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec), QuantSpec.parse(spec.text), spec.replace())
    assert all(found == spec and hash(found) == hash(spec) for found in kept)


@pytest.mark.parametrize(("dtype", "options"), OPTIONS, ids=IDS)
def test_a_spec_quantizes_as_its_options_do(dtype, options):
    spec, due = nx.QuantSpec(dtype, **options), nx.quantize(X, dtype, **options)
    q = nx.quantize(X, spec)
    assert q.spec == due.spec == spec
    assert q.packed.tobytes() == due.packed.tobytes()
    assert nx.fake_quantize(X, spec).tobytes() == nx.fake_quantize(X, dtype, **options).tobytes()


@pytest.mark.parametrize(("dtype", "options"), OPTIONS, ids=IDS)
def test_the_attributes_of_a_spec_given_back_make_the_same_spec(dtype, options):
    spec = nx.QuantSpec(dtype, **options)
    facts = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    assert nx.QuantSpec(**facts) == spec.replace(**facts) == spec
    for name, fact in facts.items():
        assert spec.replace(**{name: fact}) == spec
    assert dataclasses.replace(spec, rounding="ceil") == spec.replace(rounding="ceil")


def test_a_cast_has_neither_a_scheme_nor_a_scale_type():
    spec = nx.QuantSpec("bfloat16")
    assert (spec.scheme, spec.scale_type, spec.scaled) == (None, None, False)
    q = nx.quantize(X, spec)
    assert (q.scheme, q.scale_type, float(q.scale)) == (nx.per_tensor(), "float32", 1.0)


@pytest.mark.parametrize(
    ("dtype", "options", "said"),
    [("mx6", {"scale_rule": "ceil"}, "mx6 has one way to find its scale: scale_rule='ceil'"),
     ("nvfp4", {"scale_rule": "rceil"}, "nvfp4: scale_rule='rceil' cannot be; allowed: floor, ceil, nvidia"),
     ("mxfp4", {"scale_type": "float32"}, "mxfp4: scale_type='float32' cannot be")],
    ids=str,
)  # fmt: skip
def test_what_a_block_format_does_not_have_is_refused_when_the_spec_is_made(dtype, options, said):
    for call in (nx.QuantSpec, lambda *a, **k: nx.quantize(X, *a, **k)):
        with pytest.raises(nx.NumericsError, match=said):
            call(dtype, **options)


def test_signatures_show_the_values_that_hold_where_nothing_is_given():
    for function in (nx.quantize, nx.fake_quantize):
        shown = str(inspect.signature(function))
        due = (
            "scheme: 'Scheme | str | None' = None",
            "symmetric: 'bool' = True",
            "rounding: 'str' = 'half_even'",
        )
        for default in due:
            assert default in shown


def test_a_spec_is_made_and_changed_in_a_compiled_function():
    torch = pytest.importorskip("torch")
    x, outer = torch.from_numpy(X), nx.QuantSpec("int8", scheme=nx.per_group(16))
    made = [
        lambda: nx.QuantSpec("int4", scheme="per_group(32)"),
        lambda: nx.QuantSpec(nx.int4, scheme=nx.per_group(16)).replace(symmetric=False),
        lambda: outer.replace(rounding="floor"),
        lambda: nx.QuantSpec("bfloat16"),
        lambda: nx.QuantSpec("mxfp4", axis=0),
    ]
    for spec in made:

        def function(x, spec=spec):
            return nx.fake_quantize(x, spec())

        compiled = torch.compile(function, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), function(x))
    returned = torch.compile(lambda x: (x + 1, nx.QuantSpec("int4")), backend="eager", fullgraph=True)(x)[1]
    assert returned == nx.QuantSpec("int4")


def test_a_spec_quantizes_tensors_and_compiles():
    torch = pytest.importorskip("torch")
    spec, x = nx.QuantSpec("int4", scheme=nx.per_group(16), symmetric=False), torch.from_numpy(X)
    q = nx.quantize(x, spec)
    assert q.spec == spec
    assert torch.equal(q.packed, nx.quantize(x, "int4", scheme="per_group(16)", symmetric=False).packed)
    compiled = torch.compile(lambda x: nx.fake_quantize(x * 1, spec), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), nx.fake_quantize(x, spec))


def test_observers_take_a_spec():
    spec = nx.QuantSpec("int8", scheme=nx.per_channel(0), symmetric=False, rounding="floor")
    watching = nx.observe.MinMax(spec)
    watching.observe(X)
    q = nx.quantize(X, spec)
    assert np.array_equal(watching.scale, q.scale)
    assert np.array_equal(watching.zero_point, q.zero_point)
    for kind in (nx.observe.Pof2, nx.observe.Pof2MSE):
        for spec in (nx.QuantSpec("int4", scale_type="pof2"), nx.QuantSpec("int4")):
            assert kind(spec).spec == nx.QuantSpec("int4", scale_type="pof2")
        with pytest.raises(nx.NumericsError, match="scale type 'float16'"):
            kind(nx.QuantSpec("int4", scale_type="float16"))


@pytest.mark.parametrize("kind", [nx.observe.MinMax, nx.observe.MSE, nx.observe.Percentile])
@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", nx.QuantSpec("bfloat16"), nx.QuantSpec("float16")], ids=str
)
def test_observers_of_a_cast_find_the_scale_of_quantize(kind, dtype):
    watching = kind(dtype)
    watching.observe(X)
    assert watching.zero_point is None
    assert watching.scale == nx.quantize(X, dtype).scale == 1
    assert watching.scale.dtype == np.float32
    scaled = nx.observe.MinMax("bfloat16", scheme="per_tensor")
    scaled.observe(X)
    assert scaled.scale == nx.quantize(X, "bfloat16", scheme="per_tensor").scale


@pytest.mark.parametrize(
    ("dtype", "ask"),
    [("mxfp4", lambda s: s.partition((4, 64))), ("mxfp4", lambda s: s.with_dtype(nx.int4)),
     ("int4", lambda s: s.with_dtype("mxfp4")), ("int4", lambda s: s.with_axis(1)),
     ("int4", lambda s: s.block),
     ("mxfp4", lambda s: s.element), ("mxfp4", lambda s: s.scheme_of_elements),
     ("mxfp4", lambda s: s.with_scheme(nx.per_tensor())), ("int4", lambda s: s.with_scheme("per_tnsor")),
     ("mxfp4", lambda s: s.affine_options("float32")), ("int4", lambda s: s.blocking((4, 64))),
     ("mxfp4", lambda s: s.with_axis("last")), ("int4", lambda s: s.check_given(None)),
     ("int4", lambda s: s.with_dtype("int44"))],
)  # fmt: skip
def test_what_a_kind_of_spec_does_not_have_is_refused_in_words(dtype, ask):
    with pytest.raises(nx.NumericsError):
        ask(nx.QuantSpec(dtype))


def test_a_spec_in_place_of_a_format_says_what_to_give():
    spec = nx.QuantSpec("int8")
    q = nx.quantize(X, spec)
    for call in (nx.dtype, lambda s: nx.transcode(q, s), lambda s: nx.conform.check(lambda x: x, s)):
        with pytest.raises(nx.NumericsError, match=r"QuantSpec\('int8'\) is more than a format; .* \.dtype"):
            call(spec)
    with pytest.raises(nx.NumericsError, match=r"give spec\.replace"):
        nx.QuantSpec(spec, rounding="floor")
    torch = pytest.importorskip("torch")
    with pytest.raises(nx.NumericsError, match="is more than a format"):
        nx.train.TQT(spec)
    for call in (nx.train.LSQ, lambda s: nx.train.lsq_init(torch.ones(3), s)):  # of NVFP4 they take one
        with pytest.raises(
            nx.NumericsError, match="give dtype and scheme=; a QuantSpec is taken of blocks alone"
        ):
            call(spec)


def test_a_spec_is_loaded_as_weights_are(tmp_path):
    torch = pytest.importorskip("torch")
    q = nx.quantize(torch.from_numpy(X), "int4")
    torch.save({"spec": q.spec, "q": q}, tmp_path / "spec.pt")
    assert torch.load(tmp_path / "spec.pt", weights_only=True)["spec"] == q.spec


def test_a_tensor_that_goes_where_nothing_is_and_one_of_no_parts_are_refused_in_words():
    torch = pytest.importorskip("torch")
    with pytest.raises(nx.NumericsError, match=r"nx\.quantize and nx\.load make them"):
        nx.QTensor()
    if not torch.cuda.is_available():
        for x in (X, torch.from_numpy(X)):
            with pytest.raises((nx.NumericsError, RuntimeError), match=r"CUDA|NVIDIA") as refused:
                nx.quantize(x, "int4").to("cuda")
            assert not isinstance(refused.value, AssertionError)


def test_replace_checks_what_it_makes():
    spec = nx.QuantSpec("int4", scheme=nx.per_group(32))
    assert spec.replace(symmetric=False) == nx.QuantSpec("int4", scheme="per_group(32)", symmetric=False)
    assert nx.QuantSpec("int4").replace(dtype="mx6", axis=0) == nx.QuantSpec("mx6", axis=0)
    assert nx.QuantSpec("bfloat16").replace(rounding="floor") == nx.QuantSpec("bfloat16", rounding="floor")
    for wrong in ({"dtype": "mxfp4"}, {"dtype": "fp4", "symmetric": False}, {"axis": 3}, {"scaled": False},
                  {"symetric": False}):  # fmt: skip
        with pytest.raises(nx.NumericsError):
            spec.replace(**wrong)


@pytest.mark.parametrize(
    "beside",
    [{"scheme": "per_tensor"}, {"symmetric": False}, {"scale_type": "pof2"}, {"rounding": "floor"},
     {"scale_rule": "even"}, {"axis": 0}, {"zero_point_type": "float32"},
     {"scheme": None}, {"symmetric": True}, {"scale_type": None}, {"scale_type": "float32"},
     {"rounding": "half_even"}, {"scale_rule": "floor"}, {"axis": -1}, {"zero_point_type": "int32"}],
    ids=str,
)  # fmt: skip
def test_a_spec_says_all_options_so_none_stands_beside_it(beside):
    spec = nx.QuantSpec("int4", symmetric=False)
    for call in (nx.quantize, nx.fake_quantize):
        with pytest.raises(nx.NumericsError, match="beside a QuantSpec"):
            call(X, spec, **beside)
    if beside.keys() <= {"scheme", "symmetric", "scale_type", "zero_point_type"}:
        with pytest.raises(nx.NumericsError, match="beside a QuantSpec"):
            nx.observe.MinMax(spec, **beside)


def test_what_is_given_stands_beside_a_spec():
    spec = nx.QuantSpec("bfloat16")
    q = nx.quantize(X, spec, scale=0.5)
    assert q.spec.scaled
    assert not spec.scaled
    with pytest.raises(nx.NumericsError, match="exactly one"):
        nx.quantize(X, nx.QuantSpec("int4", rounding="stochastic"))
    with pytest.raises(nx.NumericsError, match=r"scale=0\.5 cannot be"):
        nx.quantize(X, nx.QuantSpec("mx6"), scale=0.5)


@pytest.mark.parametrize("other", [None, "int4", nx.QuantSpec("int8"), nx.QuantSpec("mxfp4")], ids=repr)
def test_a_tensor_takes_no_spec_that_its_parts_do_not_fit(other):
    torch = pytest.importorskip("torch")
    q = nx.quantize(torch.ones(4, 32), "int4", scheme=nx.per_group(8))
    with pytest.raises(nx.NumericsError):
        q.spec = other
    assert q.spec == nx.QuantSpec("int4", scheme=nx.per_group(8))


@pytest.mark.parametrize(
    "door",
    [QuantSpec, nx.quantize, nx.fake_quantize, nx.observe.MinMax, nx.observe.Observer],
    ids=lambda door: door.__name__,
)
def test_a_default_was_another_at_another_door(door):
    parameters = inspect.signature(door).parameters
    found = {name: parameters[name].default for name in DEFAULTS if name in parameters}
    assert {"scheme", "symmetric"} <= found.keys()
    assert {name: repr(came) for name, came in found.items()} == {
        name: repr(DEFAULTS[name]) for name in found
    }


@pytest.mark.parametrize("text", ["{}", "int4", '{"dtype": "int4", "axes": 1}', 5])
def test_what_is_no_text_of_a_spec_was_called_a_recipe(text):
    with pytest.raises(nx.NumericsError, match="QuantSpec") as refused:
        QuantSpec.parse(text)
    assert "recipe" not in str(refused.value)


@pytest.mark.parametrize("shape", [[3, 4], torch.Size((3, 4)), np.array([3, 4])], ids=repr)
def test_a_shape_is_any_sequence_of_sizes(shape):
    """A tensor counted as one, and stayed one in what came."""
    assert QuantSpec("int4").partition(shape).shape == (3, 4)
    assert type(QuantSpec("int4").partition(shape).shape) is tuple


@pytest.mark.parametrize(
    ("spec", "shape", "due"),
    [
        ("int4 per_group(128)", (64, 48), "groups of 48"),
        ("int4 per_group(128)", (64, 200), "last groups of 72"),
        ("int4 per_group(128)", (64, 256), ""),
        ("int4 per_group(128)", (128,), ""),
        ("uint4:per_group(32,axis=0)", (33, 5), "last groups of 1"),
        ("mxfp4", (64, 48), "last blocks of 16"),
        ("mx6", (3, 5), "blocks of 5"),
        (nx.QuantSpec("nvfp4", axis=0), (17, 16), "last blocks of 1"),
        ("int8 per_block((128,128))", (130, 64), "last blocks of 2 rows, blocks of 64 columns"),
        ("int8 per_block((128,128))", (256, 128), ""),
        (nx.QuantSpec("nvfp4", scheme="per_block((16, 16))"), (20, 16), "last blocks of 4 rows"),
        ("int8 per_token()", (3, 5), ""),
        ("int8 per_channel(0)", (3, 5), ""),
        ("bfloat16", (3, 5), ""),
        ("int4 per_group(128)", (-1, 0), ""),
        ("int4 per_group(128)", (), ""),
        ("mxfp4", (-1, -1), ""),
    ],
)
def test_a_group_was_shorter_than_asked_and_nothing_said_so(spec, shape, due):
    assert QuantSpec(spec).short(shape) == due if isinstance(spec, str) else spec.short(shape) == due


@pytest.mark.parametrize("shape", [(64, 48), (64, 200), (64, 256)])
def test_the_repr_of_a_tensor_says_which_groups_are_short(shape):
    q = nx.quantize(np.ones(shape, np.float32), "int4", scheme=nx.per_group(128))
    due = q.spec.short(shape)
    assert (f"per_group(128, axis=-1), {due}, " in repr(q)) is bool(due)
    assert (due in q._repr_html_()) is bool(due) or not due
    assert "last blocks of 16" in nx.quantize(np.ones((2, 48), np.float32), "mxfp4")._repr_html_()
