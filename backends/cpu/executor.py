"""The Numba executor: which operation serves a call.

What no kernel covers (blocks wider than any vector, stochastic rounding of float64) NumPy's executor
does: the same source, the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.array.executor import ArrayExecutor, empty_fields
from numerics.backends.cpu import kernels, threads
from numerics.backends.cpu.lanes import Lane, arithmetic
from numerics.backends.cpu.launch import WIDTH, Launcher, Number, Operation, Parameters, address_of
from numerics.backends.cpu.streams import (
    CODES,
    FLOATS,
    WORDS,
    Stream,
    micro_blocks,
    packed,
    per_block,
    per_group,
)
from numerics.backends.executor import Affine, Array, BlockFields, BlockOptions, Codes
from numerics.backends.memory import empty
from numerics.formats.dtype import Block, Element
from numerics.formats.grid import Grid, element_grid, float32_bits, grid, range_of, scale_of

WIDEST = 128  # elements of a block that becomes one vector


def alike(f: Grid, rounding: str) -> Grid:
    """The same grid with numbers where None would say the same: fewer kinds, so fewer kernels."""
    even = rounding == "half_even"
    return replace(
        f,
        inf=-1 if f.inf is None else f.inf,  # no code is -1
        adder=f.adder if even else None,
        direct=f.direct if even else None,
    )


class CpuExecutor(ArrayExecutor):
    """NumPy arrays on this machine's vector units."""

    name = "cpu"

    def __init__(self) -> None:
        self.launcher = Launcher()
        self._operations: dict[tuple[Any, ...], Operation] = {}

    @property
    def compiled(self) -> Sequence[str]:
        """The names of the kernels of this process."""
        return tuple(self.launcher.kernels)

    def kernel(self, name: str) -> Any:
        """One of them: a Numba dispatcher."""
        return self.launcher.kernels[name]

    def _once(self, key: tuple[Any, ...], make: Callable[[], Operation]) -> Operation:
        operation = self._operations.get(key)
        if operation is None:
            operation = self._operations[key] = make()
        return operation

    def elementwise(
        self, name: str, function: Callable[..., Any], *records: Any
    ) -> Callable[[Array, Codes], None]:
        """Any function(*records, lane) of the shared arithmetic over arrays: what proofs run.

        Returns run(x, out), float32 in and uint8 or uint16 codes out.
        """
        parameters = Parameters(*records)

        def run(x: Array, out: Codes) -> None:
            kind = out.dtype.name
            operation = Operation(
                f"{name}_{kind}", function, parameters, (FLOATS["float32"],), (CODES[kind],)
            )
            self.launcher.run(operation, x.size, (x, out))

        return run

    # ---- elements --------------------------------------------------------------------------

    def encode(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Codes
    ) -> None:
        """Element.encode."""
        if random is not None and x.dtype == np.float64:
            super().encode(x, dtype, rounding, overflow, random, out)
            return
        key = ("encode", x.dtype, dtype, rounding, overflow)
        operation = self._once(key, lambda: _encode(x, dtype, rounding, overflow, CODES[dtype.code_dtype]))
        self._run(operation, x, random, out)

    def encode_packed(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Array
    ) -> None:
        """Element.encode_packed: codes never touch memory unpacked."""
        if dtype.bits > 8 or (random is not None and x.dtype == np.float64):
            super().encode_packed(x, dtype, rounding, overflow, random, out)
            return
        key = ("encode_packed", x.dtype, dtype, rounding, overflow)
        operation = self._once(key, lambda: _encode(x, dtype, rounding, overflow, packed(dtype.bits)))
        self._run(operation, x, random, out)

    def round(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Array
    ) -> None:
        """Element.round."""
        if random is not None and x.dtype == np.float64:
            super().round(x, dtype, rounding, overflow, random, out)
            return
        key = ("round", x.dtype, dtype, rounding, overflow)
        self._run(self._once(key, lambda: _round(x, dtype, rounding, overflow)), x, random, out)

    def _run(self, operation: Operation, x: Array, random: Array | None, *outputs: Array) -> None:
        self.launcher.run(operation, x.size, (x, *(() if random is None else (random,)), *outputs))

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Element.decode."""
        operation = self._once(("decode", dtype), lambda: _decode(dtype, CODES[dtype.code_dtype]))
        self.launcher.run(operation, codes.size, (codes, out))

    def decode_packed(
        self, packed_codes: NDArray[np.uint8], dtype: Element, out: NDArray[np.float32]
    ) -> None:
        """Element.decode_packed."""
        if dtype.bits > 8:
            super().decode_packed(packed_codes, dtype, out)
            return
        operation = self._once(("decode_packed", dtype), lambda: _decode(dtype, packed(dtype.bits)))
        self.launcher.run(operation, out.size, (packed_codes, out))

    def pack(self, codes: Codes, bits: int) -> NDArray[np.uint8]:
        """Codes to a string of bits."""
        if bits > 8:
            return super().pack(codes, bits)
        out = empty(-(-codes.size * bits // 8), np.uint8)
        operation = self._once(("pack", bits), lambda: _copy(f"pack{bits}", CODES["uint8"], packed(bits)))
        self.launcher.run(operation, codes.size, (codes, out))
        return out

    def unpack(self, packed_codes: NDArray[np.uint8], count: int, bits: int) -> Codes:
        """The inverse of pack."""
        if bits > 8:
            return super().unpack(packed_codes, count, bits)
        out = empty(count, np.uint8)
        operation = self._once(("unpack", bits), lambda: _copy(f"unpack{bits}", packed(bits), CODES["uint8"]))
        self.launcher.run(operation, count, (packed_codes, out))
        return out

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(
        self, x: Array, dtype: Block, options: BlockOptions, out: BlockFields | None = None
    ) -> BlockFields:
        """Block.encode."""
        if not _fits(dtype):
            return super().encode_blocks(x, dtype, options, out)
        made = empty_fields(len(x), dtype) if out is None else out
        operation = self._block("encode", x, dtype, options, _field_streams(dtype))
        self._run(operation, x, options.random, *(field for field in made if field is not None))
        return made

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Block.round."""
        if not _fits(dtype):
            super().round_blocks(x, dtype, options, out)
            return
        operation = self._block("round", x, dtype, options, (FLOATS[x.dtype.name],))
        self._run(operation, x, options.random, out)

    def encode_blocks_packed(
        self, x: Array, dtype: Block, options: BlockOptions
    ) -> tuple[NDArray[np.uint8], Codes | None]:
        """Codes straight to bytes, and the scales that stand beside them."""
        if not _packs(dtype):
            return super().encode_blocks_packed(x, dtype, options)
        bytes_per_block = _packed_streams(dtype)[0].bytes(dtype.block)
        out = empty(len(x) * bytes_per_block, np.uint8)
        scale = None if dtype.family == "micro" else empty(len(x), np.uint8)
        self.encode_blocks_into(x, dtype, options, out, scale)
        return out, scale

    def encode_blocks_into(
        self, x: Array, dtype: Block, options: BlockOptions, out: NDArray[np.uint8], scale: Codes | None
    ) -> None:
        """The same into arrays that are there."""
        operation = self._block("pack", x, dtype, options, _packed_streams(dtype))
        self._run(operation, x, options.random, out, *(() if scale is None else (scale,)))

    def _block(
        self, what: str, x: Array, dtype: Block, options: BlockOptions, outputs: tuple[Stream, ...]
    ) -> Operation:
        def make() -> Operation:
            return _block_operation(what, x.dtype.name, dtype, options, outputs)

        if dtype.family == "scaled":  # the tensor's scale is among the parameters
            return make()
        return self._once((what, x.dtype, dtype, options.rule, options.rounding), make)

    def decode_blocks(
        self, made: BlockFields, dtype: Block, tensor_scale: float | None, out: NDArray[np.float32]
    ) -> None:
        """Block.decode."""
        if not _fits(dtype):
            super().decode_blocks(made, dtype, tensor_scale, out)
            return
        operation = self._unblock("decode", dtype, tensor_scale, _field_streams(dtype))
        self.launcher.run(operation, out.size, [*(field for field in made if field is not None), out])

    def decode_blocks_packed(
        self,
        packed_codes: NDArray[np.uint8],
        scale: Codes | None,
        dtype: Block,
        tensor_scale: float | None,
        out: NDArray[np.float32],
    ) -> None:
        """Bytes straight to values."""
        if not _packs(dtype):
            super().decode_blocks_packed(packed_codes, scale, dtype, tensor_scale, out)
            return
        operation = self._unblock("unpack", dtype, tensor_scale, _packed_streams(dtype))
        self.launcher.run(operation, out.size, [packed_codes, *(() if scale is None else (scale,)), out])

    def _unblock(
        self, what: str, dtype: Block, tensor_scale: float | None, inputs: tuple[Stream, ...]
    ) -> Operation:
        def make() -> Operation:
            return _unblock_operation(what, dtype, tensor_scale, inputs)

        return make() if dtype.family == "scaled" else self._once((what, dtype), make)

    # ---- scales and zero points ------------------------------------------------------------

    def encode_affine(
        self, x: Array, dtype: Element, affine: Affine, rounding: str, random: Array | None
    ) -> Codes:
        """clamp(round(x / scale) + zero), each row with its own."""
        if x.dtype == np.float64:
            return super().encode_affine(x, dtype, affine, rounding, random)
        out = empty(x.shape, dtype.code_dtype)
        self._affine("encode", x, dtype, affine, rounding, random, out, CODES[dtype.code_dtype])
        return out

    def encode_affine_packed(
        self,
        x: Array,
        dtype: Element,
        affine: Affine,
        rounding: str,
        random: Array | None,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The same straight to bytes."""
        if x.dtype == np.float64 or dtype.bits > 8 or x.shape[1] * dtype.bits % 8:
            return super().encode_affine_packed(x, dtype, affine, rounding, random, out)
        out = empty(x.size * dtype.bits // 8, np.uint8) if out is None else out
        self._affine("pack", x, dtype, affine, rounding, random, out, packed(dtype.bits))
        return out

    def round_affine(
        self,
        x: Array,
        dtype: Element,
        affine: Affine,
        rounding: str,
        random: Array | None,
        out: Array | None = None,
    ) -> Array:
        """decode_affine(encode_affine(x)) in one pass."""
        if x.dtype == np.float64:
            return super().round_affine(x, dtype, affine, rounding, random, out)
        out = empty(x.shape) if out is None else out
        self._affine("round", x, dtype, affine, rounding, random, out, WORDS)
        return out

    def _affine(
        self, what: str, x: Array, dtype: Element, affine: Affine, rounding: str, random: Array | None,
        out: Array, stream: Stream,
    ) -> None:  # fmt: skip
        kind = _zero_kind(affine)
        key = (what, "affine", x.dtype, dtype, rounding, kind)
        operation = self._once(
            key, lambda: _affine_operation(what, x.dtype.name, dtype, rounding, kind, stream)
        )
        arrays = (x, *(() if random is None else (random,)), out)
        numbers = [np.ascontiguousarray(n) for n in affine if n is not None]
        self.launcher.run_rows(operation, (x.shape[0], x.shape[1]), arrays, numbers)

    def decode_affine(self, codes: Codes, dtype: Element, affine: Affine) -> Array:
        """(q - zero) * scale."""
        if affine.scale.dtype == np.float64:
            return super().decode_affine(codes, dtype, affine)
        out, kind = empty(codes.shape), _zero_kind(affine)
        operation = self._once(("decode", "affine", dtype, kind), lambda: _unaffine_operation(dtype, kind))
        numbers = [np.ascontiguousarray(n) for n in affine if n is not None]
        self.launcher.run_rows(operation, (codes.shape[0], codes.shape[1]), (codes, out), numbers)
        return out

    def extremes(self, x: Array) -> tuple[Array, Array]:
        """The least and the largest finite value of each row; 0 where there is none."""
        rows, n = x.shape
        if x.dtype == np.float64 or x.size == 0:
            return super().extremes(x)
        parts = 1 if rows >= threads.count() or x.size < threads.WORTHWHILE else threads.count()
        step = -(-n // parts)
        spans = [(row, first, min(step, n - first)) for row in range(rows) for first in range(0, n, step)]
        low, high = (empty(len(spans) if parts > 1 else rows) for _ in range(2))
        kernel = self._extremes(x.dtype.name)
        base, size = address_of(x), x.itemsize
        if parts == 1:
            share = -(-rows // (threads.count() if x.size >= threads.WORTHWHILE else 1))
            cuts = [(first, min(share, rows - first), n, first * n) for first in range(0, rows, share)]
        else:
            cuts = [(k, 1, length, row * n + first) for k, (row, first, length) in enumerate(spans)]
        places = address_of(low), address_of(high)
        threads.work(
            kernel,
            [(base + start * size, *(p + 4 * k for p in places), m, length) for k, m, length, start in cuts],
        )
        none = ~(low <= high)
        least = np.where(none, np.float32(np.inf), low).reshape(rows, -1).min(1)
        most = np.where(none, -np.float32(np.inf), high).reshape(rows, -1).max(1)
        nothing = ~(least <= most)
        return np.where(nothing, np.float32(0), least), np.where(nothing, np.float32(0), most)

    def _extremes(self, kind: str) -> Any:
        name, stream = f"extremes_{kind}", FLOATS[kind]
        if name not in self.launcher.kernels:
            self.launcher.kernels[name] = kernels.build(
                name,
                5,
                lambda builder, words: kernels.extremes_of_rows(
                    builder, words, stream.load, int(stream.bits), 4 * WIDTH
                ),
            )
        return self.launcher.kernels[name]


# ---- operations: a shared function, its records, and what it reads and writes -------------------


def _element(function: Callable[..., Any], rounding: str) -> Callable[..., Any]:
    def element(f: Any, b: Lane, random: Lane | None = None) -> Any:
        return function(b, f, rounding, random, None)

    return element


def _sources(kind: str, rounding: str) -> tuple[Stream, ...]:
    return (FLOATS[kind], WORDS) if rounding == "stochastic" else (FLOATS[kind],)


def _encode(x: Array, d: Element, rounding: str, overflow: str, target: Stream) -> Operation:
    kind = x.dtype.name
    return Operation(
        f"encode_{kind}_{target.name}_{rounding}",
        _element(arithmetic().encode, rounding),
        Parameters(alike(grid(d, rounding, overflow), rounding)),
        _sources(kind, rounding),
        (target,),
    )


def _round(x: Array, d: Element, rounding: str, overflow: str) -> Operation:
    kind = x.dtype.name
    return Operation(
        f"round_{kind}_{rounding}",
        _element(arithmetic().round_bits, rounding),
        Parameters(alike(grid(d, rounding, overflow), rounding)),
        _sources(kind, rounding),
        (FLOATS[kind],),
    )


def _decode(d: Element, source: Stream) -> Operation:
    decode = arithmetic().decode
    parameters = Parameters(alike(grid(d, "half_even", "saturate"), "decoding"))
    return Operation(f"decode_{source.name}", lambda f, c: decode(c, f), parameters, (source,), (WORDS,))


def _copy(name: str, source: Stream, target: Stream) -> Operation:
    return Operation(name, lambda lane: lane, Parameters(), (source,), (target,))


def _block_operation(
    what: str, kind: str, d: Block, o: BlockOptions, outputs: tuple[Stream, ...]
) -> Operation:
    verb = "round" if what == "round" else "encode"
    function = getattr(arithmetic(d.block, d.sub_block or 1), f"{d.family}_{verb}")
    records, arguments = _block_records(d, o)

    def block(*lanes: Any) -> Any:
        taken, b, random = lanes[: len(records)], lanes[len(records)], lanes[len(records) + 1 :]
        found = function(b, *arguments(*taken), o.rounding, random[0] if random else None)
        whole = what == "round" or (what == "pack" and d.family == "micro")
        return found if whole else (found[-1], *found[:-1])  # the order of BlockFields

    name = f"{d.family}_{what}_{_shape(d)}_{kind}_{o.rounding}"
    width = _width(d)
    sources = _sources(kind, o.rounding)
    return Operation(name, block, Parameters(*records), sources, outputs, width, width, unit=d.block)


def _unblock_operation(
    what: str, d: Block, tensor_scale: float | None, inputs: tuple[Stream, ...]
) -> Operation:
    function = getattr(arithmetic(d.block, d.sub_block or 1), f"{d.family}_decode")
    options = BlockOptions("floor", "half_even", tensor_scale, None)
    records, arguments = _block_records(d, options, decoding=True)

    def block(*lanes: Any) -> Any:
        fields = lanes[len(records) :]
        if what == "decode" or d.family != "micro":  # in the order of BlockFields
            fields = (*fields[1:], fields[0])
        return function(*fields, *arguments(*lanes[: len(records)]))

    name = f"{d.family}_{what}_{_shape(d)}"
    return Operation(name, block, Parameters(*records), inputs, (WORDS,), _width(d), _width(d), unit=d.block)


def _block_records(
    d: Block, o: BlockOptions, decoding: bool = False
) -> tuple[list[Any], Callable[..., Sequence[Any]]]:
    """The records of a block kernel, and the arguments of the shared function made of them."""
    if d.family == "micro":
        return [], lambda: (d.mantissa,)
    f = element_grid(d)
    if d.family == "mx":
        if decoding:
            return [alike(f, "decoding")], lambda f: (f,)
        return [alike(f, o.rounding), scale_of(d, o.rule)], lambda f, s: (f, s)
    tensor = Number(float32_bits(o.tensor_scale or 1.0))
    g = grid(d.scale, "half_even", "saturate")
    elements = alike(f, "decoding") if decoding else alike(f, o.rounding)
    records = [tensor, elements, alike(g, "half_even")]
    return records, lambda t, f, g: (t.value, f, g)


def _zero_kind(affine: Affine) -> str:
    return "none" if affine.zero is None else "integer" if affine.zero.dtype.kind == "i" else "float"


def _affine_operation(
    what: str, kind: str, d: Element, rounding: str, zero_kind: str, target: Stream
) -> Operation:
    shared, f = arithmetic(), alike(grid(d, rounding, "saturate"), rounding)
    records = [f, range_of(d)] if d.kind == "integer" else [f]

    def element(*lanes: Any) -> Any:
        f, q, rest = lanes[0], lanes[len(records) - 1], lanes[len(records) :]
        scale, zero = rest[0], rest[1] if zero_kind != "none" else None
        b, *drawn = rest[1 + (zero is not None) :]
        draw = (rounding, drawn[0] if drawn else None, None)
        if zero_kind == "none" and what == "round":
            return shared.scaled_rounded(b, scale, f, *draw)
        if zero_kind == "none":
            code = shared.scaled_code(b, scale, f, *draw)
        elif zero_kind == "float":
            code = shared.offset_code(b, scale, zero, f, *draw)
        else:
            code = shared.affine_code(b, scale, zero, f, q, *draw)
        return _affine_value(shared, code, scale, zero, f, q, zero_kind) if what == "round" else code

    name = f"affine_{what}_{zero_kind}_{kind}_{target.name}_{rounding}"
    sources = _sources(kind, rounding)
    return Operation(name, element, Parameters(*records), sources, (target,), rows=1 + (zero_kind != "none"))


def _unaffine_operation(d: Element, zero_kind: str) -> Operation:
    shared, f = arithmetic(), alike(grid(d, "half_even", "saturate"), "decoding")
    records = [f, range_of(d)] if d.kind == "integer" else [f]

    def element(*lanes: Any) -> Any:
        f, q, rest = lanes[0], lanes[len(records) - 1], lanes[len(records) :]
        zero = rest[1] if zero_kind != "none" else None
        return _affine_value(shared, rest[-1], rest[0], zero, f, q, zero_kind)

    name = f"affine_decode_{zero_kind}_{d.code_dtype}"
    rows = 1 + (zero_kind != "none")
    return Operation(name, element, Parameters(*records), (CODES[d.code_dtype],), (WORDS,), rows=rows)


def _affine_value(
    shared: Any, code: Lane, scale: Lane, zero: Any, f: Any, q: Any, zero_kind: str
) -> Any:  # fmt: skip
    if zero_kind == "none":
        return shared.scaled_value(code, scale, f)
    value = shared.offset_value if zero_kind == "float" else shared.affine_value
    return value(code, scale, zero, q)


# ---- the shapes of blocks ------------------------------------------------------------------------


def _field_streams(d: Block) -> tuple[Stream, ...]:
    streams = (CODES[d.code_dtype], per_block(d.block))
    return (*streams, per_group(d.block, d.sub_block or 1)) if d.family == "micro" else streams


def _packed_streams(d: Block) -> tuple[Stream, ...]:
    if d.family == "micro":
        return (micro_blocks(d.block, d.sub_block or 1, d.element_bits),)
    return packed(d.element_bits), per_block(d.block)


def _fits(d: Block) -> bool:
    """Does a vector hold a block?"""
    return d.block <= WIDEST and (d.scale is None or d.scale.bits <= 8)


def _packs(d: Block) -> bool:
    """Do its parts end on bytes, so that a kernel writes them as they are stored?"""
    whole = d.family != "micro" or d.block // (d.sub_block or 1) == 8
    return _fits(d) and whole and d.block % 8 == 0 and d.element_bits <= 8


def _width(d: Block) -> int:
    """Elements of a tile, in whole blocks.

    One block where its scale is worth computing once, in scalars; several where every lane keeps its
    own (microexponents, or a block that is shorter than a vector) and their fields fill whole bytes.
    """
    least = {"mx": WIDTH, "scaled": 1, "micro": 2 * WIDTH}[d.family]
    full_bytes = d.sub_block is None or d.block // d.sub_block == 8
    power = d.block & (d.block - 1) == 0
    return max(least, d.block) if power and full_bytes else d.block


def _shape(d: Block) -> str:
    micro = f"_{d.sub_block}_{d.mantissa}" if d.family == "micro" else f"_{d.element_bits}"
    return f"{d.block}{micro}_{d.code_dtype}"
