"""Strings of bits: Philox's random ones, and codes packed into bytes."""

from __future__ import annotations

from collections.abc import Sequence

_WORD = 0xFFFFFFFF


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox-4x32-10 (Salmon et al., SC 2011, §3.3; constants and answers of Random123).

    counter: four 32-bit words, key: two.  Returns four words.

    >>> " ".join(f"{word:08x}" for word in philox((0, 0, 0, 0), (0, 0)))
    '6627e8d5 e169c58d bc57ac4c 9b00dbd8'
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def random_bits(index: int, seed: int) -> int:
    """R of the element at a flat index, C order: 30 bits (docs/formats.md §3).

    Four neighbours share a counter, index // 4; each takes one word of it, its low 30 bits.

    >>> hex(random_bits(1, 0)) == hex(0xE169C58D & 0x3FFFFFFF)
    True
    """
    block = index // 4
    words = philox((block & _WORD, block >> 32, 0, 0), (seed & _WORD, seed >> 32))
    return words[index % 4] & 0x3FFFFFFF


def pack(codes: Sequence[int], bits: int) -> bytes:
    """Codes as one little-endian string of bits, element 0 in the lowest (docs/formats.md §2).

    >>> pack([0x1, 0x2, 0xF], 4).hex(), pack([0x3F, 0, 0, 0x20], 6).hex()
    ('210f', '3f0080')
    """
    string = "".join(f"{code:0{bits}b}" for code in reversed(codes))
    return int("0" + string, 2).to_bytes((len(string) + 7) // 8, "little")


def unpack(packed: bytes, count: int, bits: int) -> list[int]:
    """Returns the `count` codes that `pack` made bytes of.

    >>> unpack(bytes.fromhex("210f"), 3, 4)
    [1, 2, 15]
    """
    string = f"{int.from_bytes(packed, 'little'):0{count * bits}b}"
    end = len(string)
    return [int(string[end - (i + 1) * bits : end - i * bits], 2) for i in range(count)]


def planes(bits: int) -> list[int]:
    """The widths that a code is cut into, low bits first: the largest power of two, again.

    >>> planes(3), planes(5), planes(8), planes(15)
    ([2, 1], [4, 1], [8], [8, 4, 2, 1])
    """
    widths = []
    while bits:
        widths.append(1 << (bits.bit_length() - 1))
        bits -= widths[-1]
    return widths


def pack_planes(codes: Sequence[int], bits: int) -> bytes:
    """The codes of one block, a plane after the other, each in whole bytes (docs/layout.md).

    >>> pack_planes([0b101] * 16, 3).hex()
    '55555555ffff'
    """
    packed, shift = b"", 0
    for width in planes(bits):
        packed += pack([(code >> shift) & ((1 << width) - 1) for code in codes], width)
        shift += width
    return packed


def unpack_planes(packed: bytes, count: int, bits: int) -> tuple[list[int], bytes]:
    """Returns the codes of one block's bytes, and the bytes behind them.

    >>> unpack_planes(bytes.fromhex("55555555ffff017f"), 16, 3) == ([0b101] * 16, bytes([1, 0x7F]))
    True
    """
    codes, shift, at = [0] * count, 0, 0
    for width in planes(bits):
        end = at + (count * width + 7) // 8
        plane = unpack(packed[at:end], count, width)
        codes = [code | part << shift for code, part in zip(codes, plane, strict=True)]
        shift, at = shift + width, end
    return codes, packed[at:]


def pack_micro_block(exponent: int, microexponents: int, codes: Sequence[int], bits: int) -> bytes:
    """One microexponent block: the planes of its codes, the microexponents, the exponent (docs/layout.md).

    >>> pack_micro_block(0x7F, 0x01, [0b101] * 16, 3).hex()
    '55555555ffff017f'
    """
    return pack_planes(codes, bits) + bytes([microexponents, exponent])


def unpack_micro_block(packed: bytes, count: int, bits: int) -> tuple[int, int, list[int]]:
    """Returns exponent, microexponents and codes of one microexponent block's bytes (docs/layout.md).

    >>> unpack_micro_block(bytes.fromhex("55555555ffff017f"), 16, 3) == (0x7F, 1, [0b101] * 16)
    True
    """
    codes, (microexponents, exponent) = unpack_planes(packed, count, bits)
    return exponent, microexponents, codes


def pack_tiered_block(scale: int, microexponents: int, codes: Sequence[int], bits: int, tiers: int) -> bytes:
    """One block of two tiers: the planes of its codes, the scale, the microexponents (docs/layout.md).

    tiers: the bits of its microexponents.

    >>> pack_tiered_block(0xC0, 0x000101, [0x7] * 64, 4, 24)[-5:].hex()
    '77c0010100'
    """
    return pack_planes(codes, bits) + bytes([scale]) + microexponents.to_bytes((tiers + 7) // 8, "little")


def unpack_tiered_block(packed: bytes, count: int, bits: int) -> tuple[int, int, list[int]]:
    """Returns scale, microexponents and codes of such a block's bytes.

    >>> scale, microexponents, codes = unpack_tiered_block(bytes([0x55] * 32 + [0xC0, 3, 2, 1]), 64, 4)
    >>> hex(scale), hex(microexponents), set(codes)
    ('0xc0', '0x10203', {5})
    """
    codes, shared = unpack_planes(packed, count, bits)
    return shared[0], int.from_bytes(shared[1:], "little"), codes
