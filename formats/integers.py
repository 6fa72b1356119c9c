"""TABLE of the integer formats: two's complement, or plain where unsigned."""

from __future__ import annotations

from numerics.formats.dtype import Integer, row

_QUARK = "AMD Quark, quantization.config.type.Dtype"

int2: Integer = row(Integer, "int2", _QUARK, bits=2)
int3: Integer = row(Integer, "int3", _QUARK, bits=3)
int4: Integer = row(Integer, "int4", _QUARK, bits=4)
int8: Integer = row(Integer, "int8", _QUARK, bits=8)
int16: Integer = row(Integer, "int16", _QUARK, bits=16)
uint2: Integer = row(Integer, "uint2", _QUARK, bits=2, signed=False)
uint4: Integer = row(Integer, "uint4", _QUARK, bits=4, signed=False)
uint8: Integer = row(Integer, "uint8", _QUARK, bits=8, signed=False)
