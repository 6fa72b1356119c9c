"""`new_zeros` of a QTensor: zeros in every format, in memory of their own."""

from __future__ import annotations

import pytest
import torch

import numerics as nx

BOOK = nx.codebook_format([-1.0, 0.3, 0.5, 1.0])  # without zero
RECIPES = {
    "a zero point a column": ("int4", {"scheme": "per_channel(1)", "symmetric": False}),
    "one zero point": ("int8", {"symmetric": False}),
    "a zero point of 3 bits": ("int3", {"symmetric": False}),
    "unsigned": ("uint8", {"symmetric": False}),
    "16 bits": ("int16", {"symmetric": False}),
    "a zero point that is no integer": ("uint8", {"symmetric": False, "zero_point_type": "float32"}),
    "a zero point a row": ("int4", {"scheme": "per_channel(0)", "symmetric": False}),
    "a zero point a group": ("int4", {"scheme": "per_group(32)", "symmetric": False}),
    "rectangles": ("int8", {"scheme": "per_block((2, 32))"}),
    "groups along rows": ("int8", {"scheme": "per_group(2, axis=0)"}),
    "a codebook": ("nf4", {}),
    "a codebook a row": ("nf4", {"scheme": "per_channel(0)"}),
    "a codebook without zero": (BOOK, {}),
    "no zero, NaN for it": ("e8m0", {}),
    "blocks": ("mxfp4", {}),
    "blocks along rows": ("mxfp4", {"axis": 0}),
    "blocks of a codebook": (nx.block_format(block=16, element="nf4", scale="e8m0"), {}),
    "blocks without zero": (nx.block_format(block=16, element=BOOK, scale="fp8_e4m3"), {}),
    "microexponents": ("mx6", {}),
    "a scale of the tensor": ("nvfp4", {}),
    "a wide float": ("bfloat16", {}),
}


@pytest.mark.parametrize("rows", [0, 3, 6])
@pytest.mark.parametrize("name", RECIPES)
def test_new_zeros_were_codes_of_zero_bits_whatever_they_stand_for(name, rows):
    """Beside a zero point that all rows share they were (0 - zero point) * scale; in nf4 the least value."""
    d, options = RECIPES[name]
    q = nx.quantize(torch.rand(6, 64, generator=torch.Generator().manual_seed(1)) + 0.5, d, **options)
    before = q.dequantize()
    made = q.new_zeros(rows, 64)
    assert isinstance(made, nx.QTensor)
    assert made.spec == q.spec
    assert torch.equal(made.dequantize(), torch.zeros(rows, 64))
    if rows == 6:
        made.copy_(nx.quantize(torch.rand(6, 64) - 3, d, **options) if d != "e8m0" else q.clone())
        assert torch.equal(q.dequantize(), before), "what was made shares memory with what it was made of"


def test_a_zero_point_that_is_no_code_had_no_zeros():
    """300, which was written in place, is none of int8: of such a tensor no code is 0."""
    codes, scale = torch.ones(2, 4, dtype=torch.uint8), torch.tensor(0.5)
    spec, zero = nx.QuantSpec("int8", symmetric=False), torch.tensor(0, dtype=torch.int32)
    q = nx.QTensor.from_parts(spec, codes, scale, zero_point=zero)
    q.zero_point.fill_(300)
    assert not q.dequantize().eq(0).any()
    assert torch.equal(q.new_zeros(2, 4).dequantize(), torch.zeros(2, 4))


def test_blocks_that_can_say_no_zero_are_refused():
    d = nx.block_format(block=16, element=BOOK, scale="e8m0")
    with pytest.raises(nx.NumericsError, match=r"has no zeros.*torch\.zeros"):
        nx.quantize(torch.ones(2, 32), d).new_zeros(2, 32)


def test_new_zeros_are_where_and_of_what_they_were_asked_for():
    """device= was ignored."""
    q = nx.quantize(torch.ones(2, 32), "int8", symmetric=False)
    assert q.new_zeros(2, 32, device="meta").is_meta
    for made in (q.new_zeros(2, 32, dtype=torch.float64), q.new_zeros(5), torch.zeros_like(q)):
        assert type(made) is torch.Tensor
        assert not made.any()


def test_a_graph_with_new_zeros_gives_zeros():
    q = nx.quantize(torch.rand(2, 32), "int4", symmetric=False, scheme="per_channel(1)")
    torch._dynamo.reset()
    made = torch.compile(lambda q: q.new_zeros(2, 32) + 0, backend="aot_eager")(q)
    assert torch.equal(made, torch.zeros(2, 32))
