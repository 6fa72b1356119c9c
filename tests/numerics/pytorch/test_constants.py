"""Options in a compiled graph are texts and numbers, whatever torch it is."""

import pytest
import torch

import numerics as nx
from numerics.pytorch.constants import constant
from numerics.tensor.spec import ABSENT, OMITTED, QuantSpec, spec_facts
from numerics.tensor.words import OPTIONS


def test_formats_of_the_tables_go_by_their_names():
    assert all(constant(d) == d.name and nx.dtype(constant(d)) is d for d in nx.dtypes())


def test_what_is_declared_and_what_is_plain_stays():
    declared = nx.float_format(3, 2, name="mine")
    for option in declared, "int4", None, True, -1:
        assert constant(option) is option


def test_a_default_is_told_from_its_value():
    assert [constant(option) for option in OMITTED] == [ABSENT] * len(OPTIONS)
    spec = QuantSpec("int4", rounding="floor")
    absent = [ABSENT] * len(OPTIONS)
    assert spec_facts("text", False, "int4", *absent) == QuantSpec("int4").text
    assert spec_facts("text", False, spec, *absent) == spec.text
    with pytest.raises(nx.NumericsError, match="beside a QuantSpec"):
        spec_facts("text", False, spec, *absent[:4], "half_even", *absent[5:])


@pytest.mark.parametrize(
    "format_", [nx.fp4, nx.mxfp4, "int4", QuantSpec("int4", scheme="per_group(4)")], ids=str
)
def test_objects_texts_and_specs_compile(format_):
    x = torch.randn(4, 64)
    torch._dynamo.reset()
    f = torch.compile(lambda x: nx.fake_quantize(x, format_), fullgraph=True, backend="aot_eager")
    assert torch.equal(f(x), nx.fake_quantize(x, format_))
    with pytest.raises(Exception, match="rounding"):
        nx.fake_quantize(x, "int4", rounding=ABSENT)
