"""What an object file asks of others: its undefined symbols, in ELF, Mach-O and COFF.

The code generator calls a function of a run-time library wherever the processor lacks an instruction
(half precision on x86 without F16C).  Python links no such library, and the address that the linker
then leaves is 0; so it is looked at before anything is run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

SERVED = frozenset({"memcpy", "memset", "memmove", "bzero", "__bzero", "__chkstk", "___chkstk_ms"})
"""What a kernel may call: copies, which every C library has, and Windows' check of a large frame."""

_SYMTAB = 2  # ELF: sh_type
_LC_SYMTAB = 2  # Mach-O: a load command
_MACH_O_64, _COFF_MACHINES = 0xFEEDFACF, (0x8664, 0xAA64)


def undefined(data: bytes) -> set[str]:
    """The names of the undefined symbols of an object file; raises ValueError for one that it cannot read."""
    try:
        return {name for name in _names(data) if name}
    except (struct.error, IndexError, UnicodeDecodeError) as wrong:
        raise ValueError(f"not a whole object file: {wrong}") from None


def _names(data: bytes) -> Iterator[str]:
    if data[:4] == b"\x7fELF":
        return _of_elf(data)
    if data[:4] == struct.pack("<I", _MACH_O_64):
        return _of_mach_o(data)
    if struct.unpack_from("<H", data)[0] in _COFF_MACHINES:
        return _of_coff(data)
    raise ValueError(f"not an object file of a known kind: it begins with {data[:4]!r}")


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode("ascii")


def _of_elf(data: bytes) -> Iterator[str]:
    """System V ABI, object files: section headers, then symbols whose section is SHN_UNDEF."""
    order = "<" if data[5] == 1 else ">"
    wide = data[4] == 2
    place = 40 if wide else 32
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, place)
    size, count = struct.unpack_from(order + "HH", data, 58 if wide else 46)
    header, symbol = ("IIQQQQIIQQ", "IBBHQQ") if wide else ("IIIIIIIIII", "IIIBBH")
    sections = [struct.unpack_from(order + header, data, table + k * size) for k in range(count)]
    for section in sections:
        if section[1] == _SYMTAB:
            names = sections[section[6]][4]
            for at in range(section[4], section[4] + section[5], section[9]):
                fields = struct.unpack_from(order + symbol, data, at)
                if fields[3 if wide else 5] == 0:
                    yield _text(data, names + fields[0])


def _of_mach_o(data: bytes) -> Iterator[str]:
    """Mach-O: nlist_64 of type N_UNDF; C's names have an underscore in front."""
    (commands,) = struct.unpack_from("<I", data, 16)
    at = 32
    for _ in range(commands):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == _LC_SYMTAB:
            symbols, count, names = struct.unpack_from("<III", data, at + 8)
            for k in range(count):
                name, how = struct.unpack_from("<IB", data, symbols + 16 * k)
                if how & 0x0E == 0:
                    yield _text(data, names + name).removeprefix("_")
        at += size


def _of_coff(data: bytes) -> Iterator[str]:
    """PE/COFF: external symbols (storage class 2) of section 0 without a value."""
    symbols, count = struct.unpack_from("<II", data, 8)
    names, k = symbols + 18 * count, 0
    while k < count:
        at = symbols + 18 * k
        value, section, _, storage, more = struct.unpack_from("<IhHBB", data, at + 8)
        if section == 0 and storage == 2 and value == 0:
            first, second = struct.unpack_from("<II", data, at)
            yield _text(data[at : at + 8] + b"\0", 0) if first else _text(data, names + second)
        k += 1 + more
