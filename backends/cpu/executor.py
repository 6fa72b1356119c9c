"""The Numba executor: which operation serves a call.

What no kernel covers (blocks wider than any vector, stochastic rounding of float64) NumPy's executor
does: the same source, the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.array.executor import ArrayExecutor, empty_fields
from numerics.backends.cpu import kernels, threads
from numerics.backends.cpu.launch import WIDTH, Launcher, Operation, Parameters, address_of
from numerics.backends.cpu.operations import (
    affine_operation,
    block_operation,
    copy_operation,
    decode_operation,
    encode_operation,
    field_streams,
    fits,
    packed_streams,
    packs,
    round_operation,
    unaffine_operation,
    unblock_operation,
    zero_kind,
)
from numerics.backends.cpu.streams import (
    CODES,
    FLOATS,
    WORDS,
    Stream,
    packed,
)
from numerics.backends.executor import Affine, Array, BlockFields, BlockOptions, Codes
from numerics.backends.memory import empty
from numerics.formats.block import Block
from numerics.formats.dtype import Element


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

    def assembly(self, name: str) -> str:
        """The instructions of one that was compiled in this process, not found on disk."""
        return self.launcher.kernels[name].assembly

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
        operation = self._once(
            key, lambda: encode_operation(x, dtype, rounding, overflow, CODES[dtype.code_dtype])
        )
        self._run(operation, x, random, out)

    def encode_packed(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Array
    ) -> None:
        """Element.encode_packed: codes never touch memory unpacked."""
        if dtype.bits > 8 or (random is not None and x.dtype == np.float64):
            super().encode_packed(x, dtype, rounding, overflow, random, out)
            return
        key = ("encode_packed", x.dtype, dtype, rounding, overflow)
        operation = self._once(
            key, lambda: encode_operation(x, dtype, rounding, overflow, packed(dtype.bits))
        )
        self._run(operation, x, random, out)

    def round(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Array
    ) -> None:
        """Element.round."""
        if random is not None and x.dtype == np.float64:
            super().round(x, dtype, rounding, overflow, random, out)
            return
        key = ("round", x.dtype, dtype, rounding, overflow)
        self._run(self._once(key, lambda: round_operation(x, dtype, rounding, overflow)), x, random, out)

    def _run(self, operation: Operation, x: Array, random: Array | None, *outputs: Array) -> None:
        self.launcher.run(operation, x.size, (x, *(() if random is None else (random,)), *outputs))

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Element.decode."""
        operation = self._once(("decode", dtype), lambda: decode_operation(dtype, CODES[dtype.code_dtype]))
        self.launcher.run(operation, codes.size, (codes, out))

    def decode_packed(
        self, packed_codes: NDArray[np.uint8], dtype: Element, out: NDArray[np.float32]
    ) -> None:
        """Element.decode_packed."""
        if dtype.bits > 8:
            super().decode_packed(packed_codes, dtype, out)
            return
        operation = self._once(("decode_packed", dtype), lambda: decode_operation(dtype, packed(dtype.bits)))
        self.launcher.run(operation, out.size, (packed_codes, out))

    def pack(self, codes: Codes, bits: int) -> NDArray[np.uint8]:
        """Codes to a string of bits."""
        if bits > 8:
            return super().pack(codes, bits)
        out = empty(-(-codes.size * bits // 8), np.uint8)
        operation = self._once(
            ("pack", bits), lambda: copy_operation(f"pack{bits}", CODES["uint8"], packed(bits))
        )
        self.launcher.run(operation, codes.size, (codes, out))
        return out

    def unpack(self, packed_codes: NDArray[np.uint8], count: int, bits: int) -> Codes:
        """The inverse of pack."""
        if bits > 8:
            return super().unpack(packed_codes, count, bits)
        out = empty(count, np.uint8)
        operation = self._once(
            ("unpack", bits), lambda: copy_operation(f"unpack{bits}", packed(bits), CODES["uint8"])
        )
        self.launcher.run(operation, count, (packed_codes, out))
        return out

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(
        self, x: Array, dtype: Block, options: BlockOptions, out: BlockFields | None = None
    ) -> BlockFields:
        """Block.encode."""
        if not fits(dtype):
            return super().encode_blocks(x, dtype, options, out)
        made = empty_fields(len(x), dtype) if out is None else out
        operation = self._block("encode", x, dtype, options, field_streams(dtype))
        self._run(operation, x, options.random, *(field for field in made if field is not None))
        return made

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Block.round."""
        if not fits(dtype):
            super().round_blocks(x, dtype, options, out)
            return
        operation = self._block("round", x, dtype, options, (FLOATS[x.dtype.name],))
        self._run(operation, x, options.random, out)

    def encode_blocks_packed(
        self, x: Array, dtype: Block, options: BlockOptions
    ) -> tuple[NDArray[np.uint8], Codes | None]:
        """Codes straight to bytes, and the scales that stand beside them."""
        if not packs(dtype):
            return super().encode_blocks_packed(x, dtype, options)
        bytes_per_block = packed_streams(dtype)[0].bytes(dtype.block)
        out = empty(len(x) * bytes_per_block, np.uint8)
        scale = None if dtype.family == "micro" else empty(len(x), np.uint8)
        self.encode_blocks_into(x, dtype, options, out, scale)
        return out, scale

    def encode_blocks_into(
        self, x: Array, dtype: Block, options: BlockOptions, out: NDArray[np.uint8], scale: Codes | None
    ) -> None:
        """The same into arrays that are there."""
        operation = self._block("pack", x, dtype, options, packed_streams(dtype))
        self._run(operation, x, options.random, out, *(() if scale is None else (scale,)))

    def _block(
        self, what: str, x: Array, dtype: Block, options: BlockOptions, outputs: tuple[Stream, ...]
    ) -> Operation:
        def make() -> Operation:
            return block_operation(what, x.dtype.name, dtype, options, outputs)

        if dtype.family == "scaled":  # the tensor's scale is among the parameters
            return make()
        return self._once((what, x.dtype, dtype, options.rule, options.rounding), make)

    def decode_blocks(
        self, made: BlockFields, dtype: Block, tensor_scale: float | None, out: NDArray[np.float32]
    ) -> None:
        """Block.decode."""
        if not fits(dtype):
            super().decode_blocks(made, dtype, tensor_scale, out)
            return
        operation = self._unblock("decode", dtype, tensor_scale, field_streams(dtype))
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
        if not packs(dtype):
            super().decode_blocks_packed(packed_codes, scale, dtype, tensor_scale, out)
            return
        operation = self._unblock("unpack", dtype, tensor_scale, packed_streams(dtype))
        self.launcher.run(operation, out.size, [packed_codes, *(() if scale is None else (scale,)), out])

    def _unblock(
        self, what: str, dtype: Block, tensor_scale: float | None, inputs: tuple[Stream, ...]
    ) -> Operation:
        def make() -> Operation:
            return unblock_operation(what, dtype, tensor_scale, inputs)

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
        kind = zero_kind(affine)
        key = (what, "affine", x.dtype, dtype, rounding, kind)
        operation = self._once(
            key, lambda: affine_operation(what, x.dtype.name, dtype, rounding, kind, stream)
        )
        arrays = (x, *(() if random is None else (random,)), out)
        numbers = [np.ascontiguousarray(n) for n in affine if n is not None]
        self.launcher.run_rows(operation, (x.shape[0], x.shape[1]), arrays, numbers)

    def decode_affine(self, codes: Codes, dtype: Element, affine: Affine) -> Array:
        """(q - zero) * scale."""
        if affine.scale.dtype == np.float64:
            return super().decode_affine(codes, dtype, affine)
        out, kind = empty(codes.shape), zero_kind(affine)
        operation = self._once(("decode", "affine", dtype, kind), lambda: unaffine_operation(dtype, kind))
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

    def _extremes(self, kind: str) -> Callable[..., None]:
        stream = FLOATS[kind]
        emit = partial(kernels.extremes_of_rows, load=stream.load, bits=int(stream.bits), width=4 * WIDTH)
        return self.launcher.built(f"extremes_{kind}", 5, emit)
