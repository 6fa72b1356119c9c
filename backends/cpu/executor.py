"""The Numba executor: which kernel serves a call, and its compilation the first time.

Formats are run-time parameters: one kernel serves every format that has the same kinds of facts
(grid.py: which fields are None), so there are tens of kernels, not hundreds.  What no kernel covers
(blocks wider than any vector, stochastic rounding of float64) NumPy's executor does, same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from numerics.backends.array.executor import ArrayExecutor
from numerics.backends.cpu import kernels, threads
from numerics.backends.cpu.kernels import Kernel
from numerics.backends.cpu.lanes import Lane, arithmetic
from numerics.backends.cpu.streams import CODES, FLOATS, WORDS, Stream, packed, per_block, per_group
from numerics.backends.executor import Array, BlockFields, BlockOptions, Codes
from numerics.formats.dtype import Block, Element
from numerics.formats.grid import Grid, element_grid, float32_bits, grid, scale_of

WIDTH = 32  # lanes of a tile; four 256-bit or two 512-bit registers
WIDEST = 128  # of a block that becomes one vector

FLAGS = ("has_nan", "inherit", "adder", "flush")  # fields of a Grid that are there or not, never a number


class Parameters:
    """Records of numbers (Grid, Scale) as one int32 array, and back as records of lanes."""

    def __init__(self, *records: Any) -> None:
        self.records = records
        self.names = [
            [f.name for f in fields(record) if f.name not in FLAGS and getattr(record, f.name) is not None]
            for record in records
        ]
        flat = [
            getattr(record, name) for record, names in zip(records, self.names, strict=True) for name in names
        ]
        self.array = np.array(flat or [0], np.int32)
        self.address: int = self.array.ctypes.data

    @property
    def shape(self) -> str:
        """Which numbers there are: what a kernel is compiled for."""
        flags = [[f for f in FLAGS if getattr(r, f, None) is not None] for r in self.records]
        return ";".join(",".join(names + more) for names, more in zip(self.names, flags, strict=True))

    def lanes(self, builder: ir.IRBuilder, address: ir.Value) -> list[Any]:
        """The records with lanes for numbers."""
        found = iter(kernels.numbers(builder, address, sum(map(len, self.names))))
        return [
            replace(record, **{name: next(found) for name in names})
            for record, names in zip(self.records, self.names, strict=True)
        ]


@dataclass(frozen=True)
class Plan:
    """A kernel with the parameters of one format."""

    kernel: Kernel
    parameters: Parameters


class CpuExecutor(ArrayExecutor):
    """NumPy arrays on this machine's vector units."""

    name = "cpu"

    def __init__(self) -> None:
        self._kernels: dict[str, Kernel] = {}
        self._plans: dict[tuple[Any, ...], Plan] = {}

    @property
    def compiled(self) -> Sequence[str]:
        """The names of the kernels of this process."""
        return tuple(self._kernels)

    def kernel(self, name: str) -> Any:
        """One of them: a Numba dispatcher."""
        return self._kernels[name]

    # ---- kernels ---------------------------------------------------------------------------

    def _plan(self, key: tuple[Any, ...], make: Callable[[], Plan]) -> Plan:
        if key not in self._plans:
            self._plans[key] = make()
        return self._plans[key]

    def _kernel(
        self, what: str, parameters: Parameters, inputs: Sequence[Stream], outputs: Sequence[Stream],
        function: Callable[..., Any], width: int = WIDTH,
    ) -> Plan:  # fmt: skip
        """The kernel function(*records)(*lanes), for parameters of this shape."""
        name = f"{what}_{hashlib.sha256(parameters.shape.encode()).hexdigest()[:8]}"
        if name not in self._kernels:

            def emit(builder: ir.IRBuilder, words: list[ir.Value]) -> None:
                arrays = len(inputs) + len(outputs)
                records = parameters.lanes(builder, words[arrays + 1])
                ins = list(zip(words, inputs, strict=False))
                outs = list(zip(words[len(inputs) :], outputs, strict=False))
                kernels.map_tiles(builder, partial(function, *records), ins, outs, words[arrays], width)

            self._kernels[name] = kernels.build(name, len(inputs) + len(outputs) + 2, emit)
        return Plan(self._kernels[name], parameters)

    @staticmethod
    def _run(plan: Plan, size: int, *arrays: tuple[Array, Stream]) -> None:
        moving = [(array.ctypes.data, stream.bits) for array, stream in arrays]
        threads.run(plan.kernel, moving, size, plan.parameters.address)

    def elementwise(
        self, name: str, function: Callable[..., Any], *records: Any
    ) -> Callable[[Array, Codes], None]:
        """Any function(*records, lane) of the shared arithmetic over arrays: what proofs run.

        Returns run(x, out), float32 in and uint8 or uint16 codes out.
        """
        made: dict[str, Plan] = {}

        def run(x: Array, out: Codes) -> None:
            kind = out.dtype.name
            if kind not in made:
                made[kind] = self._kernel(
                    f"{name}_{kind}", Parameters(*records), [FLOATS["float32"]], [CODES[kind]], function
                )
            self._run(made[kind], x.size, (x, FLOATS["float32"]), (out, CODES[kind]))

        return run

    # ---- elements --------------------------------------------------------------------------

    def encode(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Codes
    ) -> None:
        """Element.encode."""
        self._elements("encode", x, dtype, rounding, overflow, random, out)

    def round(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Array
    ) -> None:
        """Element.round."""
        self._elements("round", x, dtype, rounding, overflow, random, out)

    def _elements(
        self,
        what: str,
        x: Array,
        dtype: Element,
        rounding: str,
        overflow: str,
        random: Array | None,
        out: Array,
    ) -> None:
        if random is not None and x.dtype == np.float64:
            getattr(super(), what)(x, dtype, rounding, overflow, random, out)
            return
        plan = self._plan(
            (what, x.dtype.name, dtype, rounding, overflow),
            lambda: self._element_kernel(what, x.dtype.name, out.dtype.name, dtype, rounding, overflow),
        )
        arrays = [(x, FLOATS[x.dtype.name]), (out, _stream(out))]
        if random is not None:
            arrays.insert(1, (random, WORDS))
        self._run(plan, x.size, *arrays)

    def _element_kernel(
        self, what: str, source: str, target: str, dtype: Element, rounding: str, overflow: str
    ) -> Plan:
        function = getattr(arithmetic(), {"encode": "encode", "round": "round_bits"}[what])

        def element(f: Any, b: Lane, random: Lane | None = None) -> Any:
            return function(b, f, rounding, random, None)

        inputs = [FLOATS[source]] + [WORDS] * (rounding == "stochastic")
        output = FLOATS[target] if what == "round" else CODES[target]
        parameters = Parameters(alike(grid(dtype, rounding, overflow), rounding))
        return self._kernel(f"{what}_{source}_{target}_{rounding}", parameters, inputs, [output], element)

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Element.decode."""
        plan = self._plan(("decode", dtype), lambda: self._decode_kernel(dtype))
        self._run(plan, codes.size, (codes, CODES[dtype.code_dtype]), (out, WORDS))

    def _decode_kernel(self, dtype: Element) -> Plan:
        decode = arithmetic().decode
        parameters = Parameters(alike(grid(dtype, "half_even", "saturate"), "decoding"))
        return self._kernel(
            f"decode_{dtype.code_dtype}",
            parameters,
            [CODES[dtype.code_dtype]],
            [WORDS],
            lambda f, c: decode(c, f),
        )

    def pack(self, codes: Codes, bits: int) -> NDArray[np.uint8]:
        """Codes to a string of bits."""
        if bits > 8:
            return super().pack(codes, bits)
        out = np.empty(-(-codes.size * bits // 8), np.uint8)
        plan = self._plan(
            ("pack", bits), lambda: self._copy_kernel(f"pack{bits}", CODES["uint8"], packed(bits))
        )
        self._run(plan, codes.size, (codes, CODES["uint8"]), (out, packed(bits)))
        return out

    def unpack(self, packed_codes: NDArray[np.uint8], count: int, bits: int) -> Codes:
        """The inverse of pack."""
        if bits > 8:
            return super().unpack(packed_codes, count, bits)
        out = np.empty(count, np.uint8)
        plan = self._plan(
            ("unpack", bits), lambda: self._copy_kernel(f"unpack{bits}", packed(bits), CODES["uint8"])
        )
        self._run(plan, count, (packed_codes, packed(bits)), (out, CODES["uint8"]))
        return out

    def _copy_kernel(self, name: str, source: Stream, target: Stream) -> Plan:
        return self._kernel(name, Parameters(), [source], [target], lambda lane: lane)

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(self, x: Array, dtype: Block, options: BlockOptions) -> BlockFields:
        """Block.encode."""
        if not _fits(dtype):
            return super().encode_blocks(x, dtype, options)
        made = self._empty_fields(len(x), dtype)
        self._blocks("encode", x, dtype, options, _field_arrays(made, dtype))
        return made

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Block.round."""
        if not _fits(dtype):
            super().round_blocks(x, dtype, options, out)
            return
        self._blocks("round", x, dtype, options, [(out, _stream(out))])

    def _blocks(
        self, what: str, x: Array, dtype: Block, options: BlockOptions, outputs: list[tuple[Array, Stream]]
    ) -> None:
        plan = self._plan(
            (what, x.dtype.name, dtype, options.rule, options.rounding, options.tensor_scale),
            lambda: self._block_kernel(what, x.dtype.name, dtype, options, [s for _, s in outputs]),
        )
        arrays = [(x, FLOATS[x.dtype.name]), *outputs]
        if options.random is not None:
            arrays.insert(1, (options.random, WORDS))
        self._run(plan, x.size, *arrays)

    def _block_kernel(
        self, what: str, source: str, dtype: Block, options: BlockOptions, outputs: list[Stream]
    ) -> Plan:
        shared = arithmetic(dtype.block, dtype.sub_block or 1)
        function = getattr(shared, f"{dtype.family}_{what}")
        records, arguments = _block_records(dtype, options)

        def block(*lanes: Any) -> Any:
            parts = list(lanes)
            taken, b, random = parts[: len(records)], parts[len(records)], parts[len(records) + 1 :]
            found = function(b, *arguments(*taken), options.rounding, random[0] if random else None)
            return found if what == "round" else _in_order(found)

        inputs = [FLOATS[source]] + [WORDS] * (options.rounding == "stochastic")
        target = "" if what == "encode" else f"_{source}"
        name = f"{dtype.family}_{what}_{_shape(dtype)}_{source}{target}_{options.rounding}"
        return self._kernel(name, Parameters(*records), inputs, outputs, block, _width(dtype))

    def decode_blocks(
        self, made: BlockFields, dtype: Block, tensor_scale: float | None, out: NDArray[np.float32]
    ) -> None:
        """Block.decode."""
        if not _fits(dtype):
            super().decode_blocks(made, dtype, tensor_scale, out)
            return
        arrays = _field_arrays(made, dtype)
        plan = self._plan(
            ("decode", dtype, tensor_scale),
            lambda: self._unblock_kernel(dtype, tensor_scale, [s for _, s in arrays]),
        )
        self._run(plan, out.size, *arrays, (out, WORDS))

    def _unblock_kernel(self, dtype: Block, tensor_scale: float | None, inputs: list[Stream]) -> Plan:
        function = getattr(arithmetic(dtype.block, dtype.sub_block or 1), f"{dtype.family}_decode")
        options = BlockOptions("floor", "half_even", tensor_scale, None)
        records, arguments = _block_records(dtype, options, decoding=True)

        def block(*lanes: Any) -> Any:
            code, scale, *micro = lanes[len(records) :]
            return function(scale, *micro, code, *arguments(*lanes[: len(records)]))

        name = f"{dtype.family}_decode_{_shape(dtype)}"
        return self._kernel(name, Parameters(*records), inputs, [WORDS], block, _width(dtype))

    @staticmethod
    def _empty_fields(n: int, dtype: Block) -> BlockFields:
        micro = np.empty(n, np.uint8) if dtype.family == "micro" else None
        return BlockFields(np.empty((n, dtype.block), dtype.code_dtype), np.empty(n, np.uint8), micro)


def alike(f: Grid, rounding: str) -> Grid:
    """The same grid with numbers where None would say the same: fewer kinds, so fewer kernels."""
    return replace(
        f,
        inf=-1 if f.inf is None else f.inf,  # no code is -1
        negative_limit=f.limit if f.negative_limit is None else f.negative_limit,
        overflow=f.last if f.overflow is None and f.wrap is None else f.overflow,
        adder=f.adder if rounding == "half_even" else None,
    )


@dataclass(frozen=True)
class Number:
    """One run-time number."""

    value: Any


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
    g = grid(d.scale, "half_even", "saturate")  # type: ignore[arg-type]
    records = [tensor, alike(f, o.rounding), alike(g, "half_even")]
    return records, lambda t, f, g: (t.value, f, g)


def _in_order(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """(scale, ..., code) as (code, scale, ...): the order of BlockFields."""
    return (found[-1], *found[:-1])


def _field_arrays(made: BlockFields, d: Block) -> list[tuple[Array, Stream]]:
    arrays = [(made.codes, CODES[d.code_dtype]), (made.scale, per_block(d.block))]
    if made.microexponents is not None:
        arrays.append((made.microexponents, per_group(d.block, d.sub_block or 1)))
    return arrays


def _stream(array: Array) -> Stream:
    return FLOATS.get(array.dtype.name) or CODES[array.dtype.name]


def _fits(d: Block) -> bool:
    """Does a vector hold a block?"""
    return d.block <= WIDEST and (d.scale is None or d.scale.bits <= 8)


def _width(d: Block) -> int:
    """Whole blocks of a tile: several where a block is a power of two and fills its field bytes."""
    full_bytes = d.sub_block is None or d.block // d.sub_block == 8
    power = d.block & (d.block - 1) == 0
    return max(WIDTH, d.block) if power and full_bytes else d.block


def _shape(d: Block) -> str:
    micro = f"_{d.sub_block}_{d.mantissa}" if d.family == "micro" else ""
    return f"{d.block}{micro}_{d.code_dtype}"
