"""One TABLE: our names beside everybody else's, and the look-up that reads it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from numerics.formats import blocks, floats, integers
from numerics.formats.dtype import TABLES, Dtype, named
from numerics.formats.errors import NumericsError, hint, said

# Our name: what torch, ml_dtypes, ONNX, OCP, Quark, microxcaling and safetensors call it.
ALIASES: dict[str, tuple[str, ...]] = {
    "int2": ("S2",),
    "int3": ("S3",),
    "int4": ("S4",),
    "int8": ("S8", "I8"),
    "int16": ("S16", "I16"),
    "uint2": ("U2",),
    "uint4": ("U4",),
    "uint8": ("U8",),
    "bfloat16": ("bf16", "BF16"),
    "float16": ("fp16", "half", "F16", "binary16"),
    "fp8_e4m3": ("float8_e4m3fn", "E4M3", "OFP8 E4M3", "fp8_e4m3fn", "FLOAT8E4M3FN", "F8_E4M3"),
    "fp8_e5m2": ("float8_e5m2", "E5M2", "OFP8 E5M2", "FLOAT8E5M2", "F8_E5M2"),
    "fp8_e3m4": ("float8_e3m4", "E3M4"),
    "fp8_e4m3fnuz": ("float8_e4m3fnuz", "FLOAT8E4M3FNUZ", "F8_E4M3FNUZ"),
    "fp8_e5m2fnuz": ("float8_e5m2fnuz", "FLOAT8E5M2FNUZ", "F8_E5M2FNUZ"),
    "fp6_e3m2": ("float6_e3m2fn", "E3M2", "FLOAT6E3M2", "F6_E3M2"),
    "fp6_e2m3": ("float6_e2m3fn", "E2M3", "FLOAT6E2M3", "F6_E2M3"),
    "fp4": ("fp4_e2m1", "float4_e2m1fn", "E2M1", "FLOAT4E2M1", "F4"),
    "e8m0": ("float8_e8m0fnu", "E8M0", "FLOAT8E8M0", "F8_E8M0"),
    "mxfp8_e4m3": ("MXFP8_E4M3", "MXFP8 E4M3"),
    "mxfp8_e5m2": ("MXFP8_E5M2", "MXFP8 E5M2"),
    "mxfp6_e3m2": ("MXFP6_E3M2", "MXFP6 E3M2"),
    "mxfp6_e2m3": ("MXFP6_E2M3", "MXFP6 E2M3"),
    "mxfp4": ("MXFP4", "mxfp4_e2m1"),
    "mxint8": ("MXINT8",),
    "nvfp4": ("NVFP4",),
    "bfp16": ("BFP16",),
    "mx4": ("MX4",),
    "mx6": ("MX6",),
    "mx9": ("MX9",),
}

_CODE_BOOK = "it is a code book, not a format that bits and a bias describe: 'fp4' or 'int4' are;"
_WIDER = "formats here have 16 bits at most: they are what is stored, float32 is what it is computed from;"
_ADVICE = {  # what others' names mean, in lower case, where they name no format of the tables
    "float8_e4m3": "it is IEEE-like, with Inf and a largest value of 240: nx.float_format(4, 3) makes it, "
    "'fp8_e4m3' is float8_e4m3fn;",
    "float8_e4m3b11fnuz": 'nx.float_format(4, 3, bias=11, specials="fnuz") makes it;',
    "int1": "its values are 0 and -1; integers here have 2 to 16 bits, unsigned ones 1 to 16;",
    "nf4": _CODE_BOOK,
    "bnb_fp4": _CODE_BOOK,
    "bf8": "did you mean 'fp8_e5m2'?",
    "hf8": "did you mean 'fp8_e4m3'?",
} | dict.fromkeys(("int32", "int64", "uint32", "uint64", "float32", "float64", "float", "int"), _WIDER)
_WIDTH = re.compile(r"(u?)int([1-9][0-9]?)|([us])([1-9][0-9]?)")  # int6, U3


@lru_cache(maxsize=1)
def _table() -> dict[str, Dtype]:
    table: dict[str, Dtype] = {}
    for module in (integers, floats, blocks):
        for made in vars(module).values():
            if isinstance(made, Dtype) and made not in table.values():
                for name in (made.name, *made.aliases):
                    if TABLES.setdefault(name.lower(), made) is not made or name in table:
                        raise NumericsError(
                            f"the name {name!r} stands for both {TABLES[name.lower()]} and {made}"
                        )
                    table[name] = made
    return table


def dtypes() -> tuple[Dtype, ...]:
    """Returns every format of the tables, integers first, then floats, then blocks.

    >>> len(dtypes()) > 20
    True
    """
    return tuple(dict.fromkeys(_table().values()))


def dtype(name: Any) -> Dtype:
    """Returns the format of that name, whoever's name it is, in capitals or not.

    name: a format, a string (ours, a standard's or another library's name), a torch dtype, or an ml_dtypes
    or NumPy dtype.  Raises NumericsError with the nearest name, or with what to declare for a type that
    has no row here.

    >>> dtype("float8_e4m3fn"), dtype("MXFP4"), dtype("e4m3")
    (fp8_e4m3, mxfp4, fp8_e4m3)
    >>> dtype("fp8_e4m4")
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: unknown format 'fp8_e4m4'; did you mean 'fp8_e4m3'? \
`numerics formats` lists them all
    """
    if isinstance(name, Dtype):
        return name
    spelled = name_of_type(name)
    found = _table().get(spelled) or named(spelled)
    if found is None:
        raise NumericsError(f"unknown format {said(name)};{_help(spelled)} `numerics formats` lists them all")
    return found


def _help(spelled: str) -> str:
    """What is said of a name that is no format's: how to declare it, or which one may be meant."""
    spelled = spelled.lower()
    if spelled in _ADVICE:
        return f" {_ADVICE[spelled]}"
    width = _WIDTH.fullmatch(spelled)
    if width is None:
        return hint(spelled, _table())
    unsigned, bits = "u" in (width[1], width[3]), int(width[2] or width[4])
    if not 2 - unsigned <= bits <= 16:
        return hint(spelled, _table())
    sign = ", signed=False" * unsigned
    return f" did you mean a format of your own? nx.integer_format({bits}{sign}) makes it: give that;"


@lru_cache(maxsize=1024)
def is_called(thing: Any, name: str) -> bool:
    """Is that a library's own dtype of the format with our name?

    >>> is_called("float8_e4m3fn", "fp8_e4m3"), is_called("float8_e5m2", "fp8_e4m3")
    (True, False)
    """
    found = _table().get(name_of_type(thing))
    return found is not None and found.name == name


def name_of_type(thing: Any) -> str:
    """The name by which a library's own dtype object goes; none of a thing that has no name."""
    if isinstance(thing, str):
        return thing.removeprefix("torch.")
    for attribute in ("name", "__name__"):
        try:
            found = getattr(thing, attribute, None)
        except Exception:  # whatever what came raises: it has no name
            continue
        if isinstance(found, str) and found:
            return found.removeprefix("torch.")
    of_torch = (type(thing).__module__, type(thing).__name__) == ("torch", "dtype")
    return str(thing).removeprefix("torch.") if of_torch else ""
