"""What a format is declared with: exact facts within limits, whoever gives them, and a name of its own."""

from __future__ import annotations

import base64
import copy
import pickle

import numpy as np
import pytest

import numerics as nx
from numerics.formats import text


def read(kind, **facts):
    """A format as a file brings it."""
    return text.dtype_of({"kind": kind, **facts})


def test_facts_that_only_equal_others_do_not_change_what_is_declared_later():
    """A file said block = 12.0; one's own block = 12 was then that object, and its encode failed."""
    facts = text.facts_of(nx.block_format(element="int4", block=16, name="first_of_mine"))
    for wrong in (12.0, True, "12", None, np.float32(12)):
        with pytest.raises(nx.NumericsError):
            read(**{**facts, "name": "poisoned", "block": wrong})
    mine = nx.block_format(element="int4", block=12, name="poisoned")
    assert type(mine.block) is int
    assert nx.block_format(element="int4", block=np.int64(12), name=np.str_("poisoned")) is mine
    assert type(mine.name) is str


def test_integers_and_bools_of_numpy_are_made_pythons():
    d = nx.float_format(np.int64(5), np.int8(2), bias=np.uint8(14), signed=np.bool_(True), name="of_numpy")
    assert d is nx.float_format(5, 2, bias=14, name="of_numpy")
    assert [type(fact) for fact in (d.exponent, d.mantissa, d.bias, d.signed)] == [int, int, int, bool]
    assert d.encode([1.0]) == [14 << 2]


ODD = {
    "signed": lambda: nx.float_format(3, 2, signed=2),
    "signed as a number": lambda: nx.float_format(3, 2, signed=1),
    "a bias between": lambda: nx.float_format(3, 2, bias=0.5),
    "a far bias": lambda: nx.float_format(3, 2, bias=-(10**6)),
    "a huge bias": lambda: nx.float_format(3, 2, bias=10**5000),
    "a huge exponent": lambda: nx.float_format(10**12, 2),
    "a text": lambda: nx.float_format("5", 2),
    "a block between": lambda: nx.block_format(block=2.5, element="int4"),
    "a block of two axes": lambda: nx.block_format(block=(128, 128), element="fp8_e4m3"),
    "a block too long": lambda: nx.block_format(block=(1 << 20) + 1, element="int4"),
    "a mantissa between": lambda: nx.block_format(block=16, mantissa=3.5, sub_block=2),
    "a sub-block as a float": lambda: nx.block_format(block=16, mantissa=3, sub_block=2.0),
    "an overflow that cannot be": lambda: nx.Integer(name="odd", bits=5, default_overflow="nonsaturate"),
    "no name": lambda: nx.float_format(3, 2, name=""),
    "a number as a name": lambda: nx.float_format(3, 2, name=5),
    "a long name": lambda: nx.float_format(3, 2, name="x" * 201),
    "two lines": lambda: nx.float_format(3, 2, name="a\nb"),
    "an escape": lambda: nx.float_format(3, 2, name="a\x1b[31m"),
    "half a character": lambda: nx.float_format(3, 2, name="a\ud800"),
    "an unknown fact": lambda: nx.Integer(name="odd", bits=5, width=3),
    "facts without names": lambda: nx.Integer("odd", 5),
}


@pytest.mark.parametrize("name", ODD)
def test_facts_that_are_none_are_refused(name):
    with pytest.raises(nx.NumericsError) as said:
        ODD[name]()
    assert len(str(said.value)) < 600


@pytest.mark.parametrize("name", ["fp8_e4m3", "FP8_E4M3", "E4M3", "float8_e4m3fn", "mxfp4", "int8", "half"])
def test_a_name_of_the_tables_is_no_name_for_other_facts(name):
    for declare in (
        lambda: nx.float_format(5, 1, name=name),
        lambda: nx.block_format(element="int4", block=5, name=name),
        lambda: nx.Integer(name=name, bits=7),
    ):
        with pytest.raises(nx.NumericsError, match="is that of"):
            declare()


def test_the_same_facts_are_the_same_format():
    assert nx.float_format(4, 3, specials="fn", name="fp8_e4m3") is nx.fp8_e4m3
    assert nx.float_format(5, 2) is nx.fp8_e5m2
    assert nx.float_format(4, 3).name == "e4m3ieee"
    assert nx.Integer(name="int5", bits=5) is nx.Integer(name="int5", bits=5)
    for d in (nx.mx6, nx.fp4, nx.float_format(3, 4, name="mine34"), nx.Integer(name="int5", bits=5)):
        assert pickle.loads(pickle.dumps(d)) is copy.copy(d) is copy.deepcopy(d) is d
        assert text.dtype_of(text.facts_of(d)) is d


OLD_PICKLE = (
    "gAJjbnVtZXJpY3MuZm9ybWF0cy5kdHlwZQpfcmVzdG9yZQpxAGNudW1lcmljcy5mb3JtYXRzLmJsb2NrCkJsb2NrCnEBKFgEAAAAbmFt"
    "ZXECWAkAAABvbGRfbWljcm9xA4ZxBFgFAAAAYmxvY2txBUsQhnEGWAcAAABlbGVtZW50cQdOhnEIWAUAAABzY2FsZXEJToZxClgIAAAA"
    "bWFudGlzc2FxC0sDhnEMWAkAAABzdWJfYmxvY2txDUsEhnEOWAYAAABzb3VyY2VxD1gUAAAAZGVjbGFyZWQgYnkgdGhlIHVzZXJxEIZx"
    "EXRxEoZxE1JxFC4="
)
"""A microexponent format, pickled when one class was all blocks."""


def test_blocks_of_every_class_are_read_where_one_class_was_all():
    made = {
        nx.MXBlock: nx.block_format(element="int4", block=16, name="old_mx"),
        nx.ScaledBlock: nx.block_format(element="fp4", scale="fp8_e4m3", block=8, name="old_scaled"),
        nx.MicroexponentBlock: nx.block_format(mantissa=3, block=16, sub_block=4, name="old_micro"),
    }
    assert [type(d) for d in made.values()] == list(made)
    for d in made.values():
        facts = {name: getattr(d, name, None) for name in ("element", "scale", "mantissa", "sub_block")}
        assert nx.Block(name=d.name, block=d.block, **facts) is d
        assert list(text.facts_of(d)) == ["kind", "name", "block", *facts]
        assert pickle.loads(pickle.dumps(d)) is d
    assert pickle.loads(base64.b64decode(OLD_PICKLE)) is made[nx.MicroexponentBlock]
    assert text.text_of(made[nx.MicroexponentBlock]) == (
        '{"kind": "block", "name": "old_micro", "block": 16, "element": null, "scale": null, '
        '"mantissa": 3, "sub_block": 4}'
    )


def test_names_are_found_in_any_case():
    assert nx.dtype("e4m3") is nx.dtype("Fp8_E4m3") is nx.dtype("TORCH.FLOAT8_E4M3FN".lower()) is nx.fp8_e4m3
    assert nx.dtype("INT8") is nx.int8


@pytest.mark.parametrize(
    ("name", "said"),
    [("int6", r"in Python nx.integer_format\(6\) makes it"), ("U3", r"integer_format\(3, signed=False\)"),
     ("I5", r"nx.integer_format\(5\)"), ("uint17", "makes integers of 2 to 16 bits"),
     ("int24", "makes integers of 2 to 16 bits"), ("int1", "makes integers of 2 to 16 bits"),
     ("fp8", "'fp8_e4m3'"), ("float8_e4m3", "IEEE-like")],
)  # fmt: skip
def test_what_is_said_of_a_name_that_is_none_is_true(name, said):
    with pytest.raises(nx.NumericsError, match=said):
        nx.dtype(name)


def test_a_scale_that_a_block_cannot_have_says_the_way():
    with pytest.raises(nx.NumericsError, match=r"nx.quantize\(x, 'fp6_e3m2', scheme=nx.per_group\(16\)"):
        nx.block_format(element="fp6_e3m2", block=16, scale="bfloat16")


def test_messages_do_not_repeat_megabytes():
    for call in (
        lambda: nx.dtype("x" * 10**7), lambda: nx.fp4.encode(1.0, rounding="x" * 10**7),
        lambda: nx.fp4.unpack([1], [1.5] * 10**5), lambda: nx.Scheme.parse("x" * 10**5),
        lambda: nx.fp4.encode(1.0, rounding=np.ones(10**5)), lambda: nx.fp4.encode(1.0, rounding=10**5000),
    ):  # fmt: skip
        with pytest.raises(nx.NumericsError) as said:
            call()
        assert len(str(said.value)) < 1000


# ---- use -----------------------------------------------------------------------------------------


def test_use_is_checked_when_it_is_called():
    for name, meant in (("cuda", "'gpu'"), ("CUDA", "'gpu'"), ("numba", "'cpu'"), ("cqu", "'cpu'")):
        with pytest.raises(nx.NumericsError, match=f"did you mean {meant}"):
            nx.use(name)
    for odd in (None, ["cpu"], np.array(["cpu", "array"])):
        with pytest.raises(nx.NumericsError, match="unknown backend"):
            nx.use(odd)


def test_use_as_a_statement_says_that_it_did_nothing():
    with pytest.warns(nx.NumericsWarning, match=r"with nx.use\('reference'\)"):
        nx.use("reference")
    assert nx.fp4.encode(0.7) == 1


def test_use_is_a_block_and_a_decorator():
    chosen = nx.use("array")
    with chosen as backend, chosen:
        assert backend.name == "array"

    @nx.use("reference")
    def which():
        from numerics.formats import dispatch

        return dispatch.owner(1.0).name

    assert which() == which() == "reference"
