"""Tensors of torch begin within a larger storage for most shapes: who reads from its start is found."""

from collections import defaultdict

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import asked, check
from numerics.conform.laws.alone import STORED

torch = pytest.importorskip("torch")


def _from_start(x):
    """The tensor of the same shape and strides that begins where the storage does."""
    return torch.empty(0, dtype=x.dtype).set_(x.untyped_storage(), 0, x.shape, x.stride()) if x.numel() else x


def _numbers(*arrays):
    return [part.numpy() if isinstance(part, torch.Tensor) else part for part in arrays]


def _encode(x):
    return torch.from_numpy(np.asarray(nx.fp8_e4m3.encode(x.contiguous().numpy())))


ENTRANCES = {
    "elements": (nx.fp8_e4m3.encode, "fp8_e4m3", {}),
    "random bits": (
        lambda x, r: nx.fp4.encode(x, rounding="stochastic", random_bits=r),
        "fp4",
        {"rounding": "stochastic"},
    ),
    "decode": (nx.fp8_e5m2.decode, "fp8_e5m2", {"kind": "decode"}),
    "blocks": (nx.mxfp4.encode, "mxfp4", {}),
    "unpack": (nx.int4.unpack, "int4", {"kind": "unpack"}),
    "pack": (nx.int4.pack, "int4", {"kind": "pack"}),
}  # fmt: skip


@pytest.mark.turns(8)
@pytest.mark.parametrize("name", ENTRANCES)
def test_every_argument_comes_with_an_offset_and_without(name):
    """Of each argument that is a tensor."""
    kernel, dtype, options = ENTRANCES[name]
    offsets = defaultdict(set)

    def spied(*given):
        for place, part in enumerate(given):
            if isinstance(part, torch.Tensor):
                offsets[place].add(part.storage_offset() > 0)
        return kernel(*_numbers(*given))

    assert check(spied, dtype, array="torch", effort="quick", **options)
    assert all(came == {True, False} for came in offsets.values())
    assert len(offsets) == (2 if name == "random bits" else 1)


@pytest.mark.turns(8)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_start_of_the_storage_is_not_the_tensor(dtype):
    """Whatever the type, the law is `layout`, and the text names the offset."""
    verdict = check(
        lambda x: _encode(_from_start(x).float() if dtype != "float64" else _from_start(x)),
        "fp8_e4m3", array="torch", effort="quick", inputs=dtype,
    )  # fmt: skip
    assert verdict.law == "layout"
    assert STORED in str(verdict)


def test_two_axes_alone_read_from_the_start():
    """A fault of one shape of tensors is told as one of the offset, too."""
    verdict = check(lambda x: _encode(_from_start(x) if x.ndim == 2 else x), "fp8_e4m3", array="torch")
    assert verdict.law == "layout"
    assert STORED in str(verdict)


def test_scales_of_blocks_begin_within_a_storage():
    """The second argument of a decoder has an offset of its own."""

    def decode(codes, scale):
        return nx.Blocks(nx.mxfp4, -1, *_numbers(codes, _from_start(scale))).decode()

    assert check(decode, "mxfp4", kind="decode", array="torch", effort="quick").law == "layout"


def test_zero_points_and_scales_begin_within_a_storage():
    """Arrays of them, too."""
    right = check(
        lambda x, s, z: _affine(x, s, z),
        "int8",
        kind="affine",
        scheme="per_channel(0)",
        array="torch",
        effort="quick",
    )
    wrong = check(
        lambda x, s, z: _affine(x, s, _from_start(z)), "int8", kind="affine", scheme="per_channel(0)",
        array="torch", effort="quick",
    )  # fmt: skip
    assert right
    assert not wrong


def _affine(x, scale, zero):
    x, scale, zero = _numbers(x, scale, zero)
    line = (-1,) + (1,) * (x.ndim - 1)
    with np.errstate(all="ignore"):
        codes = np.rint(x / scale.reshape(line)).astype(np.float64) + zero.reshape(line)
    codes = np.where(np.isnan(codes), zero.reshape(line), codes)
    return np.clip(codes, -128, 127).astype(np.int8)


def test_where_no_tensor_has_an_offset_the_target_says_so():
    """The same call, with tensors that begin with their storage."""
    found = asked(lambda x: _encode(_from_start(x)), "fp8_e4m3", array="torch").target
    x = np.full((5, 7), 1.0, np.float32)
    assert (found.elements(x) != nx.fp8_e4m3.encode(x)).any()
    with found.giving(stored_alone=True):
        assert (found.elements(x) == nx.fp8_e4m3.encode(x)).all()
