"""TABLE of the integer formats: two's complement, or plain where unsigned."""

from __future__ import annotations

from numerics.formats.arguments import keywords
from numerics.formats.dtype import Integer
from numerics.formats.errors import integer, truth
from numerics.formats.registry import row

__all__ = [
    "int2",
    "int3",
    "int4",
    "int8",
    "int16",
    "integer_format",
    "uint2",
    "uint4",
    "uint8",
]  # fmt: skip

_QUARK = "AMD Quark, quantization.config.type.Dtype"

int2: Integer = row(Integer, "int2", _QUARK, names=("S2",), bits=2)
int3: Integer = row(Integer, "int3", _QUARK, names=("S3",), bits=3)
int4: Integer = row(Integer, "int4", _QUARK, names=("S4",), bits=4)
int8: Integer = row(Integer, "int8", _QUARK, names=("S8", "I8"), bits=8)
int16: Integer = row(Integer, "int16", _QUARK, names=("S16", "I16"), bits=16)
uint2: Integer = row(Integer, "uint2", _QUARK, names=("U2",), bits=2, signed=False)
uint4: Integer = row(Integer, "uint4", _QUARK, names=("U4",), bits=4, signed=False)
uint8: Integer = row(Integer, "uint8", _QUARK, names=("U8",), bits=8, signed=False)


@keywords
def integer_format(
    bits: int, *, signed: bool = True, narrow: bool = False, name: str | None = None
) -> Integer:
    """Returns an integer format of your own; it gets every kernel.  The same facts give the same object.

    bits: 2 to 16, or 1 where unsigned.  signed: two's complement, else plain.  narrow: of signed ones: down
    to minus the largest (-127), not to what follows it (-128).  name: by default `int5`, `uint5`,
    `int5_narrow`; a format of the table comes back where it has that name.  Raises NumericsError for other
    bits, and for a narrow range without a sign.

    >>> int5 = integer_format(5)
    >>> int5, int5.min, int5.max, int5.round([-20.0, 2.5])
    (int5, -16.0, 15.0, [-16.0, 2.0])
    >>> integer_format(8) is int8, integer_format(12, signed=False, name="adc").max
    (True, 4095.0)
    >>> integer_format(8, narrow=True).encode([-128.0, -127.0])
    [129, 129]
    """
    bits, signed, narrow = integer("bits", bits), truth("signed", signed), truth("narrow", narrow)
    name = f"{'' if signed else 'u'}int{bits}{'_narrow' * narrow}" if name is None else name
    made: Integer = Integer(name=name, bits=bits, signed=signed, narrow=narrow)
    return made
