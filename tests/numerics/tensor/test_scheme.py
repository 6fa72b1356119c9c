"""Scheme: its spelling, its errors, and which elements share a scale."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numerics as nx

AXES = st.integers(-4, 3)


@given(st.one_of(st.just(nx.per_tensor()), st.builds(nx.per_channel, AXES),
                 st.builds(nx.per_group, st.integers(1, 9999), AXES), st.just(nx.per_token()),
                 st.builds(nx.per_block, st.tuples(st.integers(1, 9999), st.integers(1, 9999)))))  # fmt: skip
def test_the_repr_is_the_spelling(scheme):
    assert nx.Scheme.parse(repr(scheme)) == scheme
    assert nx.Scheme.parse(scheme) is scheme
    assert pickle.loads(pickle.dumps(scheme)) == scheme


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("per_tensor", nx.per_tensor()),
        ("per_channel", nx.per_channel(0)),
        (" per_channel( 1 ) ", nx.per_channel(1)),
        ("per_channel(axis=1)", nx.per_channel(1)),
        ("per_group(128)", nx.per_group(128)),
        ("per_group(64,0)", nx.per_group(64, axis=0)),
        ("per_block(128, 64)", nx.per_block((128, 64))),
        ("perBlock( (rows=8,columns=2) )", nx.per_block((8, 2))),
        ("PER-TOKEN", nx.per_token()),
        ("per_group(64, axis = -2)", nx.per_group(64, axis=-2)),
        ("128x64", nx.per_block((128, 64))),
        ("8 X 2", nx.per_block((8, 2))),
        ((128, 64), nx.per_block((128, 64))),
    ],
)
def test_spellings(text, scheme):
    assert nx.Scheme.parse(text) == scheme


@pytest.mark.parametrize(("text", "scheme"), [
    ("PER_TENSOR", nx.per_tensor()), ("perChannel(1)", nx.per_channel(1)), ("per-channel", nx.per_channel(0)),
    ("Per_Group(32, axis=-1)", nx.per_group(32)), ("PERGROUP (8, axis=0)", nx.per_group(8, axis=0)),
])  # fmt: skip
def test_a_scheme_is_found_whatever_its_case_and_its_lines(text, scheme):
    assert nx.Scheme.parse(text) == scheme


def test_numpys_integers_are_integers():
    for scheme, due in ((nx.per_group(np.int64(128)), nx.per_group(128)),
                        (nx.per_channel(np.int32(1)), nx.per_channel(1))):  # fmt: skip
        assert scheme == due
        assert repr(scheme) == repr(due)
        assert type(scheme.axis) is int


def test_size_and_axis_may_stand_beside():
    assert nx.Scheme.parse("per_group", size=32, axis=0) == nx.per_group(32, axis=0)
    assert nx.Scheme.parse("per_group(16)", size=16) == nx.per_group(16)
    assert nx.Scheme.parse("per_channel", axis=1) == nx.per_channel(1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nx.per_group(0), "a group of 0 elements"),
        (lambda: nx.per_group(-3), "a group of -3 elements"),
        (lambda: nx.per_group(2.0), "must be an integer, not 2.0"),
        (lambda: nx.per_channel("x"), "must be an integer, not 'x'"),
        (lambda: nx.per_channel(True), "must be an integer, not True"),
        (lambda: nx.per_channel(np.True_), "must be an integer, not np.True_"),
        (lambda: nx.Scheme.parse(""), "'' is not a scheme"),
        (lambda: nx.Scheme.parse("per_chanel"), "did you mean 'per_channel'"),
        (lambda: nx.Scheme.parse("per group"), "is not a scheme"),
        (lambda: nx.Scheme.parse(3), "3 is not a scheme"),
        (lambda: nx.Scheme.parse("per_group"), "needs the size of a group"),
        (lambda: nx.Scheme.parse("per_group(big)"), "'big' in scheme 'per_group\\(big\\)'"),
        (lambda: nx.Scheme.parse("per_group(\uff16\uff14)"), "is not an integer"),  # digits of another script
        (lambda: nx.Scheme.parse("per_group(064)"), "'064' in scheme"),
        (lambda: nx.Scheme.parse("per_block((6_4, 1))"), "'6_4' in scheme"),
        (lambda: nx.Scheme.parse("per_tensor(1)"), "per_tensor takes 0 numbers"),
        (lambda: nx.Scheme.parse("per_channel(1, 2)"), "per_channel takes 1 number,"),
        (lambda: nx.Scheme.parse("per_channel", size=4), "belongs to per_group"),
        (lambda: nx.Scheme.parse("per_group(16)", size=32), "size=16 in its text, and 32 beside it"),
        (lambda: nx.Scheme.parse("per_group(16, axis=1)", axis=0), "axis=1 in its text, and 0 beside it"),
        (lambda: nx.Scheme.parse("per_channel(1)", axis=0), "axis=1 in its text, and 0 beside it"),
        (lambda: nx.Scheme.parse("per_tensor", axis=0), "belongs to per_channel and per_group"),
        (lambda: nx.per_channel(2).partition((3, 4)), "axis 2 does not exist"),
        (lambda: nx.per_group(4).partition(()), "axis -1 does not exist"),
        (lambda: nx.per_token().partition(()), "axis -1 does not exist"),
        (lambda: nx.per_block((4, 4)).partition((8,)), "needs two axes"),
        (lambda: nx.per_block(128), "takes two sizes"),
        (lambda: nx.per_block((0, 4)), "a block of \\(0, 4\\) elements"),
        (lambda: nx.Scheme.parse("per_block"), "takes two sizes"),
        (lambda: nx.Scheme.parse("per_group((4))"), "a pair of numbers belongs to per_block"),
        (lambda: nx.Scheme("per_group", -1, 4, (2, 2)), "does not belong to per_group"),
    ],
)
def test_a_scheme_that_no_tensor_can_have_is_refused(make, said):
    with pytest.raises(nx.NumericsError, match=said):
        make()


@pytest.mark.parametrize("shape", [(), (0,), (7,), (4, 0), (0, 4), (3, 5), (4, 6), (2, 3, 5), (3, 4, 2)])
@pytest.mark.parametrize("scheme", [
    nx.per_tensor(), nx.per_channel(0), nx.per_channel(-1), nx.per_channel(1),
    nx.per_group(2), nx.per_group(3, axis=0), nx.per_group(99), nx.per_token(), nx.per_block((2, 3)),
    nx.per_block((3, 2)), nx.per_block((99, 4)),
])  # fmt: skip
def test_rows_hold_those_that_share_and_come_back(scheme, shape):
    if scheme.axis is not None and not -len(shape) <= scheme.axis < len(shape):
        return
    if len(shape) < {"per_token": 1, "per_block": 2}.get(scheme.kind, 0):
        return
    x = np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape)
    partition = scheme.partition(shape)
    cut, fields = partition.view, np.arange(np.prod(partition.shared, dtype=int)).reshape(partition.shared)
    rows, (numbers, nothing) = cut.rows(x), cut.numbers(fields, None)
    assert nothing is None
    np.testing.assert_array_equal(cut.elements(rows), x)
    if not x.size:
        return
    for found in cut.fields(numbers, numbers):
        np.testing.assert_array_equal(found, fields)
    beside = numbers[:, None] if rows.ndim == 2 else numbers[:, None, :]
    owners = cut.elements(np.ascontiguousarray(np.broadcast_to(beside, rows.shape)))
    for index in np.ndindex(*shape):
        assert owners[index] == fields[share(scheme, shape, index)]


def share(scheme, shape, index):
    """Where the scale of an element is, from the words of docs/formats.md §6."""
    if scheme.kind == "per_tensor":
        return ()
    if scheme.kind == "per_token":
        return (*index[:-1], 0)
    if scheme.kind == "per_block":
        return (*index[:-2], index[-2] // scheme.block[0], index[-1] // scheme.block[1])
    axis = scheme.axis % len(shape)
    if scheme.kind == "per_channel":
        return index[axis]
    return (*index[:axis], index[axis] // scheme.size, *index[axis + 1 :])


@pytest.mark.parametrize("shape", [(3, 0), (2, 3, 0), (0, 0), (0,)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_token_without_elements_had_no_scale(shape, symmetric):
    """Its scale has the tensor's shape with 1 along the last axis, whatever that has: that of zeros."""
    options = {"scheme": "per_token", "symmetric": symmetric}
    x = np.zeros(shape, np.float32)
    found, beside = (
        nx.quantize(one, "int8", **options) for one in (x, np.zeros((*shape[:-1], 4), np.float32))
    )
    parts = ["scale"] + ["zero_point"] * (not symmetric)
    for part in parts:
        assert np.array_equal(getattr(found, part), getattr(beside, part)), part
    assert found.scale.shape == (*shape[:-1], 1)
    assert np.array_equal(found.dequantize(), x)
    none = beside[..., :0]
    assert all(np.array_equal(getattr(none, part), getattr(beside, part)) for part in parts)
    if len(shape) == 2:
        assert np.array_equal(nx.linear(np.zeros((2, 0), np.float32), found), np.zeros((2, shape[0])))


def test_a_tensor_whose_tokens_have_no_elements_is_kept(tmp_path):
    torch = pytest.importorskip("torch")
    found = nx.quantize(torch.zeros(3, 0), "int8", scheme="per_token")
    assert tuple(found.scale.shape) == (3, 1)
    assert tuple(found[:, :0].dequantize().shape) == (3, 0)
    nx.save({"q": found}, tmp_path / "q.safetensors")
    assert nx.load(tmp_path / "q.safetensors")["q"].scale.shape == (3, 1)
