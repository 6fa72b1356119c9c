"""Kernels that find the scale of a tensor of blocks otherwise: the way is named; whole blocks are asked."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from tests.helpers.nvfp4 import ONE, F, by, ordinary

TENSORS = {
    "amax · float32(1 / 2688)": lambda amax: amax * (ONE / F(2688)),
    "amax · float32(1 / 448) · float32(1 / 6)": lambda amax: amax * (ONE / F(448)) * (ONE / F(6)),
    "amax · float32(1 / 6) · float32(1 / 448)": lambda amax: amax * (ONE / F(6)) * (ONE / F(448)),
    "amax / 6 / 448": lambda amax: amax / F(6) / F(448),
    "1 / (2688 / amax)": lambda amax: ONE / (F(2688) / amax),
    "amax / 1536": lambda amax: amax / F(1536),
    "1": lambda _: ONE,
}


def judged(target, **options):
    return check(
        target, "nvfp4", **{"tensor_scale": "amax", "effort": "quick", "one_thread": True, **options}
    )


@pytest.mark.turns
def test_this_kernel_is_right_without_its_deviation():
    found = judged(by(lambda amax: amax / F(2688)))
    assert found, str(found)


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", TENSORS)
def test_a_way_to_find_the_scale_of_a_tensor_is_named(name):
    found = judged(by(TENSORS[name]))
    assert (found.law, found.dialect) == ("tensor_scale", f"tensor scale {name}"), str(found)


def values(target):
    def rounded(x):
        codes, scale, ts = target(x)
        padded = np.zeros((*codes.shape[:-1], scale.shape[-1] * 16), np.uint8)
        padded[..., : codes.shape[-1]] = codes
        blocks = nx.fp4.decode(padded).reshape(*scale.shape, 16)
        found = (blocks * (nx.fp8_e4m3.decode(scale) * ts)[..., None]).astype(F)
        return found.reshape(padded.shape)[..., : codes.shape[-1]]

    return rounded


@pytest.mark.turns
def test_values_alone_show_the_way():
    name = "amax · float32(1 / 2688)"
    found = judged(values(by(TENSORS[name])), kind="round")
    assert found.dialect == f"tensor scale {name}", str(found)


def test_a_way_beside_a_deviation_of_blocks_is_named():
    def encode(x):
        codes, scale, ts = by(TENSORS["amax / 1536"])(x)
        return np.where(codes == 8, 0, codes).astype(np.uint8), scale, ts

    found = judged(encode)
    assert found.law == "tensor_scale"
    assert found.dialect == "tensor scale amax / 1536 + loses -0", str(found)


LENGTHS = (272, 528, 1040, 2064, 4112, 8208, 12304)


def without_tail(length):
    """A kernel to whose tensor scale the last block of lines of one length does not count."""

    def encode(x):
        assert x.shape[-1] % 16 == 0
        kept = ordinary(x)
        if x.shape[-1] == length:
            kept = kept[..., : length // 64 * 64]
        amax = kept.max(initial=0)
        return nx.nvfp4.encode(x, tensor_scale=float(max(amax / F(2688), F(2.0**-149)) if amax else 1.0))

    return encode


@pytest.mark.turns(6)
@pytest.mark.parametrize("length", LENGTHS)
def test_tails_of_whole_blocks_were_not_asked(length):
    """Of a kernel that takes whole blocks alone few last blocks had the largest number."""
    found = judged(without_tail(length), whole_blocks=True)
    assert found.law == "tensor_scale", str(found)


@pytest.mark.turns
def test_a_kernel_of_whole_blocks_is_right():
    assert judged(without_tail(0), whole_blocks=True)


def wrong_blocks(change):
    """A kernel whose tensor scale is right, and whose blocks' scales, or codes, are changed."""

    def encode(x):
        codes, scale, ts = by(lambda amax: amax / F(2688))(x)
        codes, scale = np.array(codes), np.array(scale)
        change(codes, scale)
        return codes, scale, ts

    return encode


def of_the_block_before(codes, scale):
    if scale.ndim and scale.shape[-1] >= 4:
        scale[..., 3] = scale[..., 2]


def one_less(codes, scale):
    scale -= (scale > 0) & (scale < 8)


@pytest.mark.parametrize("change", [of_the_block_before, one_less])
def test_a_wrong_scale_of_a_block_was_one_of_the_tensor_explained_as_due(change):
    found = judged(wrong_blocks(change))
    assert (found.law, found.dialects) == ("scale_rule", ()), str(found)


def test_a_tensor_scale_of_a_part_was_explained_as_due():
    def encode(x):
        amax = ordinary(x.reshape(-1)[: 1 << 16]).max(initial=0)
        return nx.nvfp4.encode(x, tensor_scale=float(max(amax / F(2688), F(2.0**-149)) if amax else 1.0))

    found = judged(encode)
    assert (found.law, found.dialects) == ("tensor_scale", ()), str(found)
