"""The Numba executor: which operation serves a call.

What no kernel covers (blocks wider than any vector, stochastic rounding of float64) NumPy's executor
does: the same source, the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.array.executor import ArrayExecutor, empty_fields, looks_further
from numerics.backends.cpu import decoded, hadamard, helpers, kernels, threads
from numerics.backends.cpu import sums as kernel_of_sums
from numerics.backends.cpu.decoded import Measured
from numerics.backends.cpu.launch import WIDTH, Launcher, Operation, Parameters, address_of
from numerics.backends.cpu.operations import (
    AffineKind,
    affine_operation,
    block_operation,
    copy_operation,
    decode_operation,
    encode_operation,
    field_streams,
    fits,
    function_of_blocks,
    packed_streams,
    packs,
    round_operation,
    row_operation,
    stream_of_blocks,
    unblock_operation,
    widths,
    widths_with_sums,
)
from numerics.backends.cpu.product.calls import products, products_of_int8
from numerics.backends.cpu.streams import (
    CODES,
    FLOATS,
    WORDS,
    Stream,
    packed,
)
from numerics.backends.host import sums
from numerics.backends.host.executor import (
    WIDEST,
    Affine,
    Array,
    BlockFields,
    Codes,
    RowFunction,
    check_rows,
    wrong_count,
)
from numerics.backends.host.float_bits import name_of
from numerics.backends.host.hadamard import Rotation
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.memory import allocate as empty
from numerics.backends.host.product import Int8Rows, Matrix
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.grid import float32_bits
from numerics.formats.rounding import BlockOptions, Rounding

OPERATIONS = 1 << 12  # that are remembered; the oldest goes first


class CpuExecutor(ArrayExecutor):
    """NumPy arrays on this machine's vector units."""

    name = "cpu"

    def __init__(self) -> None:
        self.launcher = Launcher()
        self._operations: dict[tuple[Any, ...], Any] = {}

    @property
    def compiled(self) -> Sequence[str]:
        """The names of the kernels of this process."""
        return tuple(self.launcher.kernels)

    def assembly(self, name: str) -> str:
        """The instructions of one that was compiled in this process, not found on disk."""
        return self.launcher.kernels[name].assembly

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        operation = self._operations.get(key)
        if operation is None:
            operation = self._operations[key] = make()
            if len(self._operations) > OPERATIONS:  # of formats that were declared and forgotten
                for oldest in [*self._operations][:-OPERATIONS]:
                    self._operations.pop(oldest, None)
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

    def encode(self, x: Array, dtype: Element, rounding: Rounding, out: Codes) -> None:
        """Writes the code of each of x into out."""
        if rounding.draw.bits is not None and x.dtype == np.float64:
            super().encode(x, dtype, rounding, out)
            return
        key = ("encode", x.dtype, dtype, rounding.mode, rounding.overflow)
        operation = self._once(key, lambda: encode_operation(x, dtype, rounding, CODES[dtype.code_dtype]))
        self.launcher.run(operation, x.size, (x, *drawn(rounding), out))

    def encode_packed(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Element.encode_packed: codes never touch memory unpacked."""
        if dtype.bits > 8 or (rounding.draw.bits is not None and x.dtype == np.float64):
            super().encode_packed(x, dtype, rounding, out)
            return
        key = ("encode_packed", x.dtype, dtype, rounding.mode, rounding.overflow)
        operation = self._once(key, lambda: encode_operation(x, dtype, rounding, packed(dtype.bits)))
        self.launcher.run(operation, x.size, (x, *drawn(rounding), out))
        spare = -x.size * dtype.bits % 8
        if spare:  # lanes without a number hold 0, whose code is not 0 in every book
            out[-1] &= 0xFF >> spare

    def round(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Writes the format's value for each of x into out, which is of x's type."""
        if rounding.draw.bits is not None and x.dtype == np.float64:
            super().round(x, dtype, rounding, out)
            return
        key = ("round", x.dtype, dtype, rounding.mode, rounding.overflow)
        operation = self._once(key, lambda: round_operation(x, dtype, rounding))
        self.launcher.run(operation, x.size, (x, *drawn(rounding), out))

    def _run(self, operation: Operation, x: Array, random: Array | None, *outputs: Array) -> None:
        self.launcher.run(operation, x.size, (x, *(() if random is None else (random,)), *outputs))

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Writes the float32 value of each code into out."""
        operation = self._once(("decode", dtype), lambda: decode_operation(dtype, CODES[dtype.code_dtype]))
        self.launcher.run(operation, codes.size, (codes, out))

    def decode_packed(
        self, packed_codes: NDArray[np.uint8], dtype: Element, out: NDArray[np.float32]
    ) -> None:
        """Writes the float32 values of packed codes into out."""
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
        """Returns the `count` codes that `pack` made bytes of."""
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
        """Returns the rows of x as blocks, in out where it is given."""
        if not fits(dtype) or looks_further(x, dtype, options):
            return super().encode_blocks(x, dtype, options, out)
        made = empty_fields(len(x), dtype) if out is None else out
        operation = self._block("encode", x, dtype, options, field_streams(dtype))
        self._run(operation, x, options.draw.bits, *(field for field in made if field is not None))
        return made

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Writes the format's values for the rows of x into those of out, which is of x's type."""
        if not fits(dtype) or looks_further(x, dtype, options):
            super().round_blocks(x, dtype, options, out)
            return
        operation = self._block("round", x, dtype, options, (FLOATS[name_of(x.dtype)],))
        self._run(operation, x, options.draw.bits, out)

    def encode_blocks_packed(
        self, x: Array, dtype: Block, options: BlockOptions
    ) -> tuple[NDArray[np.uint8], Codes | None]:
        """Codes straight to bytes, and the scales that stand beside them."""
        if not packs(dtype) or looks_further(x, dtype, options):
            return super().encode_blocks_packed(x, dtype, options)
        bytes_per_block = packed_streams(dtype)[0].bytes(dtype.block)
        out = empty(len(x) * bytes_per_block, np.uint8)
        scale = empty(len(x), np.uint8) if dtype.scale_beside else None
        self.encode_blocks_into(x, dtype, options, out, scale)
        return out, scale

    def encode_blocks_into(
        self, x: Array, dtype: Block, options: BlockOptions, out: NDArray[np.uint8], scale: Codes | None
    ) -> None:
        """Encodes blocks as encode_blocks does, into arrays that are there."""
        operation = self._block("pack", x, dtype, options, packed_streams(dtype))
        self._run(operation, x, options.draw.bits, out, *(() if scale is None else (scale,)))

    def _block(
        self, what: str, x: Array, dtype: Block, options: BlockOptions, outputs: tuple[Stream, ...]
    ) -> Operation:
        operation = self._once(
            (what, x.dtype, dtype, options.scale_rule, options.mode),
            lambda: block_operation(what, x.dtype.name, dtype, options, outputs),
        )
        return _of_tensor(operation, dtype, options.tensor_scale)

    def decode_blocks(
        self, made: BlockFields, dtype: Block, tensor_scale: float | None, out: NDArray[np.float32]
    ) -> None:
        """Writes the float32 values of blocks into the rows of out."""
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
        operation = self._once((what, dtype), lambda: unblock_operation(what, dtype, inputs))
        return _of_tensor(operation, dtype, tensor_scale)

    # ---- scales and zero points ------------------------------------------------------------

    def encode_affine(self, x: Array, dtype: Element, affine: Affine, rounding: Rounding) -> Codes:
        """clamp(round(x / scale) + zero), each row with its own."""
        if x.dtype == np.float64:
            return super().encode_affine(x, dtype, affine, rounding)
        out = empty(x.shape, dtype.code_dtype)
        self._affine(("encode", dtype, x.dtype, rounding.mode), affine, x.shape, (x, *drawn(rounding), out))
        return out

    def encode_affine_packed(
        self, x: Array, dtype: Element, affine: Affine, rounding: Rounding, out: Array | None = None
    ) -> NDArray[np.uint8]:
        """Returns the codes of encode_affine as bytes, made in one pass."""
        if x.dtype == np.float64 or dtype.bits > 8 or x.shape[-1] * dtype.bits % 8:
            return super().encode_affine_packed(x, dtype, affine, rounding, out)
        out = empty(x.size * dtype.bits // 8, np.uint8) if out is None else out
        self._affine(("pack", dtype, x.dtype, rounding.mode), affine, x.shape, (x, *drawn(rounding), out))
        return out

    def round_affine(
        self, x: Array, dtype: Element, affine: Affine, rounding: Rounding, out: Array | None = None
    ) -> Array:
        """decode_affine(encode_affine(x)) in one pass."""
        if x.dtype == np.float64:
            return super().round_affine(x, dtype, affine, rounding, out)
        out = empty(x.shape) if out is None else out
        self._affine(("round", dtype, x.dtype, rounding.mode), affine, x.shape, (x, *drawn(rounding), out))
        return out

    def decode_affine(self, codes: Codes, dtype: Element, affine: Affine) -> Array:
        """(q - zero) * scale."""
        if affine.scale.dtype == np.float64:
            return super().decode_affine(codes, dtype, affine)
        out = empty(codes.shape)
        self._affine(("decode", dtype, codes.dtype, ""), affine, codes.shape, (codes, out))
        return out

    def decode_affine_packed(
        self, packed_codes: NDArray[np.uint8], dtype: Element, affine: Affine, out: Array
    ) -> None:
        """Bytes straight to values."""
        if affine.scale.dtype == np.float64 or dtype.bits > 8 or out.shape[-1] * dtype.bits % 8:
            super().decode_affine_packed(packed_codes, dtype, affine, out)
            return
        self._affine(("unpack", dtype, out.dtype, ""), affine, out.shape, (packed_codes, out))

    def _affine(
        self, asked: tuple[str, Element, Any, str], affine: Affine, shape: Any, arrays: Sequence[Array]
    ) -> None:
        """The operation that is asked for over rows, or columns, of that shape."""
        operation, numbers = self._affine_operation(asked, affine, shape)
        run = self.launcher.run_columns if operation.columns else self.launcher.run_rows
        run(operation, shape, arrays, numbers)

    def _affine_operation(
        self, asked: tuple[str, Element, Any, str], affine: Affine, shape: Any, cut: Any = widths
    ) -> tuple[Operation, list[Array]]:
        """The operation that is asked for, by the first facts of its AffineKind, and its numbers."""
        zero, columns = affine.zero, len(shape) == 3
        kind = "none" if zero is None else "integer" if zero.dtype.kind == "i" else "float"
        count = shape[0] * shape[-1] if columns else shape[0]
        numbers = [np.ascontiguousarray(n) for n in affine if n is not None]
        for place, array in enumerate(numbers):
            if array.size != count and 0 not in shape:
                raise wrong_count(asked[0], place, array, count)
        key = (*asked, kind, columns, cut(shape[-1]))
        return self._once(key, lambda: affine_operation(AffineKind(*key))), numbers

    def by_rows(
        self, how: RowFunction, inputs: Sequence[Array], numbers: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        """One pass over all arrays."""
        check_rows(how.name, (*inputs, *outputs), numbers)
        kinds = tuple(tuple(name_of(array.dtype) for array in some) for some in (inputs, outputs))
        width = widths(inputs[0].shape[-1])
        operation = self._once(
            ("rows", how.name, how.records, how.past, kinds, width, len(numbers)),
            lambda: row_operation(how, kinds, len(numbers), width),
        )
        beside = [np.ascontiguousarray(n) for n in numbers]
        self.launcher.run_rows(operation, inputs[0].shape, (*inputs, *outputs), beside)

    def by_blocks(self, how: RowFunction, x: Array, outputs: Sequence[Array]) -> None:
        """One pass over all blocks; of packed codes a tile is whole bytes."""
        block = x.shape[1]
        halves = any(out.ndim > 1 and out.shape[1] < block for out in outputs)
        if block > WIDEST or (halves and block % 8):
            super().by_blocks(how, x, outputs)
            return
        stored = tuple((out.dtype, out.shape[1:]) for out in outputs)
        operation = self._once(
            ("blocks", how.name, how.records, x.dtype, block, stored),
            lambda: function_of_blocks(
                how, name_of(x.dtype), block, tuple(stream_of_blocks(out, block) for out in outputs)
            ),
        )
        self.launcher.run(operation, x.size, (x, *outputs))

    def extremes(self, x: Array) -> tuple[Array, Array]:
        """The least and the largest finite value of each row or column; 0 where there is none."""
        if x.dtype == np.float64 or x.size == 0:
            return super().extremes(x)
        low, high = self._extremes_of_columns(x) if x.ndim == 3 else self._extremes_of_rows(x)
        some = low <= high
        if np.count_nonzero(some) < some.size:
            low[~some] = high[~some] = 0
        return low, high

    def products(self, x: NDArray[np.float32] | Int8Rows, matrix: Matrix) -> NDArray[np.float32]:
        """Sums of the rows of x with those of a matrix, shared out to threads."""
        if isinstance(x, Int8Rows):
            return products_of_int8(self.launcher, x, matrix)
        return products(self.launcher, np.ascontiguousarray(x), matrix)

    def rotate(self, x: Array, rotation: Rotation) -> Array:
        """Rows rotated, shared out to threads; long ones by NumPy."""
        if not x.size or rotation.size > hadamard.LONGEST:
            return super().rotate(x, rotation)
        kind, out = name_of(x.dtype), np.empty_like(x)
        factors = rotation.factors.astype(x.dtype)
        emit = partial(hadamard.hadamard, size=rotation.size, kind=kind)
        kernel = self.launcher.built(f"hadamard_{rotation.size}_{kind}", hadamard.WORDS, emit)
        calls = [
            (address_of(x[first:]), address_of(factors), address_of(out[first:]), count)
            for first, count in threads.shares(len(x), x.size)
        ]
        threads.work(kernel, calls, (x, factors, out))
        return out

    def each(self, work: Callable[[int], object], count: int) -> None:
        """work(0) .. work(count - 1), shared out to threads, each in the caller's context."""
        helping = min(count, threads.count()) - 1
        if helping < 1:
            super().each(work, count)
            return
        calls = [(copy_context(), place) for place in range(count)]
        helpers.share(lambda context, place: context.run(work, place), calls, None, helping)

    def error_sums(self, x: Array, y: Array) -> NDArray[np.float64]:
        """Figures of each chunk, chunks shared out to threads."""
        if x.size == 0:
            return super().error_sums(x, y)
        found = np.empty((sums.chunks(x.size), sums.FIGURES))
        kinds = name_of(x.dtype), name_of(y.dtype)
        emit = partial(kernel_of_sums.error_sums, kinds=kinds)
        kernel = self.launcher.built("error_sums_" + "_".join(kinds), kernel_of_sums.WORDS, emit)
        calls = [
            (
                *(address_of(a) + first * sums.CHUNK * a.itemsize for a in (x, y)),
                address_of(found) + first * found.strides[0],
                count, min(count * sums.CHUNK, x.size - first * sums.CHUNK),
            )
            for first, count in threads.shares(len(found), x.size)
        ]  # fmt: skip
        threads.work(kernel, calls, (x, y, found))
        return found

    def error_sums_of_blocks(
        self,
        x: NDArray[np.float32],
        packed_codes: NDArray[np.uint8],
        scale: Codes | None,
        dtype: Block,
        tensor_scale: float | None,
    ) -> NDArray[np.float64] | None:
        """Decodes in registers, where tiles are whole."""
        if not packs(dtype):
            return None
        operation = self._unblock("unpack", dtype, tensor_scale, packed_streams(dtype))
        return self._sums_of(operation, x, [packed_codes, *(() if scale is None else (scale,))])

    def error_sums_of_rows(
        self, x: NDArray[np.float32], packed_codes: NDArray[np.uint8], dtype: Element, affine: Affine
    ) -> NDArray[np.float64] | None:
        """Decodes in registers, where tiles of a row are whole."""
        if affine.scale.dtype == np.float64 or dtype.bits > 8:
            return None
        operation, numbers = self._affine_operation(("unpack", dtype, x.dtype, ""), affine, x.shape)
        return self._sums_of(operation, x, [packed_codes], numbers)

    def _sums_of(
        self, operation: Operation, x: Array, stored: Sequence[Array], numbers: Sequence[Array] = ()
    ) -> NDArray[np.float64] | None:
        """The figures of x and of what a decoding operation makes of what is stored."""
        if not decoded.tiles_are_whole(operation, x.size, x.shape[1] if numbers else 0):
            return None
        kernel = operation.kernels.get("error_sums") or self._summing(operation)
        return _run_sums(kernel, (x, *stored, *numbers), x, numbers, (operation,))

    def _summing(self, operation: Operation) -> Callable[..., None]:
        """The kernel that sums what an operation decodes."""
        name, count = f"error_sums_{operation.kernel_name(False)}", decoded.words_of(operation)
        emit = partial(decoded.error_sums, operation=operation)
        kernel = operation.kernels["error_sums"] = self.launcher.built(name, count, emit)
        return kernel

    def measuring(self, data: Array) -> Measuring | None:
        """One whose sums come with its codes, where data is such that it may have some."""
        return Measuring(self, data) if data.dtype == np.float32 and data.flags.c_contiguous else None

    def _extremes_of_rows(self, x: Array) -> tuple[Array, Array]:
        rows, n = x.shape
        width = min(4 * WIDTH, widths(n)[0] if n < 4 * WIDTH else n)
        kernel = self._once(("extremes", x.dtype, width), lambda: self._extremes_kernel(x.dtype, width))
        base = address_of(x)
        if x.size < threads.WORTHWHILE:
            ends = np.empty((2, rows), np.float32)
            place = address_of(ends)
            kernel(base, place, place + 4 * rows, rows, n)
            return ends[0], ends[1]
        cut = x.size >= threads.WORTHWHILE and rows < threads.count()  # a few long rows, by their parts
        parts = threads.shares(n, x.size, threads.PART) if cut else [(0, n)]
        low, high = np.empty((2, len(parts), rows), np.float32)
        places = address_of(low), address_of(high)
        if len(parts) == 1:
            calls = [
                (base + first * n * x.itemsize, *(place + 4 * first for place in places), count, n)
                for first, count in threads.shares(rows, x.size)
            ]
        else:
            calls = [
                (base + (row * n + at) * x.itemsize, *(p + 4 * (k * rows + row) for p in places), 1, count)
                for k, (at, count) in enumerate(parts)
                for row in range(rows)
            ]
        threads.work(kernel, calls, (x, low, high))
        if len(parts) == 1:
            return low[0], high[0]
        with ieee_arithmetic():
            return np.fmin.reduce(low), np.fmax.reduce(high)

    def _extremes_kernel(self, kind: Any, width: int) -> Any:
        name = name_of(kind)
        emit = partial(kernels.extremes_of_rows, stream=FLOATS[name], width=width)
        return self.launcher.built(f"extremes_{name}_{width}", 5, emit)

    def _extremes_of_columns(self, x: Array) -> tuple[Array, Array]:
        batches, per_batch, n = x.shape
        kind = x.dtype.name
        emit = partial(kernels.extremes_of_columns, stream=FLOATS[kind], word=WORDS, width=WIDTH)
        kernel = self.launcher.built(f"extremes_columns_{kind}", 7, emit)
        alone = batches < threads.count()  # few batches: a thread cuts them, so each keeps its own extremes
        parts = threads.shares(batches * per_batch, x.size, 1 if alone else per_batch)
        copies = len(parts) if alone else 1
        keys = [np.full((copies, batches, n), neutral, np.int32) for neutral in kernels.NEUTRAL]
        base, places = address_of(x), [address_of(key) for key in keys]
        calls = [
            (
                base + first * n * x.itemsize,
                *(place + (4 * k * batches * n if alone else 0) for place in places),
                first, count, per_batch, n,
            )
            for k, (first, count) in enumerate(parts)
        ]  # fmt: skip
        threads.work(kernel, calls, (x, keys))
        low, high = keys[0].min(axis=0), keys[1].max(axis=0)
        return _of_keys(low), _of_keys(high)


class Measuring(CpuExecutor):
    """The same for one tensor: where rows are its memory, the kernel that encodes them sums too.

    figures: those of error_sums_of_blocks, or of error_sums_of_rows; None where no kernel finds them.
    """

    def __init__(self, executor: CpuExecutor, data: Array) -> None:
        self.launcher, self._operations = executor.launcher, executor._operations
        self.figures: NDArray[np.float64] | None = None
        self._size, self._address = data.size, address_of(data)

    def encode_blocks_into(
        self, x: Array, dtype: Block, options: BlockOptions, out: NDArray[np.uint8], scale: Codes | None
    ) -> None:
        """Encodes blocks as encode_blocks does, into arrays that are there."""
        encoding = self._block("pack", x, dtype, options, packed_streams(dtype))
        decoding = self._unblock("unpack", dtype, options.tensor_scale, packed_streams(dtype))
        both, outputs = Measured(encoding, decoding), (out, *(() if scale is None else (scale,)))
        if not self._measured(both, (x, *drawn(options), *outputs)):
            super().encode_blocks_into(x, dtype, options, out, scale)

    def encode_affine_packed(
        self, x: Array, dtype: Element, affine: Affine, rounding: Rounding, out: Array | None = None
    ) -> NDArray[np.uint8]:
        """Returns the codes of encode_affine as bytes, made in one pass."""
        if x.ndim == 2 and x.dtype == affine.scale.dtype == np.float32 and dtype.bits <= 8:
            kind = "pack", dtype, x.dtype, rounding.mode
            encoding, numbers = self._affine_operation(kind, affine, x.shape, widths_with_sums)
            kind = "unpack", dtype, x.dtype, ""
            decoding, _ = self._affine_operation(kind, affine, x.shape, widths_with_sums)
            made = empty(x.size * dtype.bits // 8, np.uint8) if out is None else out
            if self._measured(Measured(encoding, decoding), (x, *drawn(rounding), made), numbers):
                return made
        return super().encode_affine_packed(x, dtype, affine, rounding, out)

    def _measured(self, both: Measured, arrays: Sequence[Array], numbers: Sequence[Array] = ()) -> bool:
        """Encodes and sums; returns False, nothing done, where that is not for a kernel."""
        x = arrays[0]
        if x.size != self._size or address_of(x) != self._address or not x.flags.c_contiguous:
            return False
        if not decoded.tiles_are_whole(both.encoding, x.size, x.shape[1] if numbers else 0):
            return False
        kernel = both.encoding.kernels.get("measured") or self._built(both)
        self.figures = _run_sums(kernel, (*arrays, *numbers), x, numbers, both)
        return True

    def _built(self, both: Measured) -> Callable[..., None]:
        kernel = both.encoding.kernels["measured"] = self.launcher.built(both.name, both.words, both.emit)
        return kernel


def _run_sums(
    kernel: Callable[..., None], arrays: Sequence[Array], x: Array, numbers: Sequence[Array],
    operations: Sequence[Operation],
) -> NDArray[np.float64]:  # fmt: skip
    """The figures of x that a kernel of decoded.py finds, chunks shared out to threads."""
    found = np.empty((sums.chunks(x.size), sums.FIGURES))
    addresses = [address_of(array) for array in (*arrays, found)]
    rest = (x.size, *(x.shape[1:] if numbers else ()), *(one.parameters.address for one in operations))
    calls = [(*addresses, *share, *rest) for share in threads.shares(len(found), x.size)]
    threads.work(kernel, calls, (arrays, found, operations))
    return found


def _of_tensor(operation: Operation, d: Block, scale: float | None) -> Operation:
    """The same operation on blocks of a tensor of that scale, where the format has such."""
    return operation.beginning(float32_bits(scale or 1.0)) if d.has_tensor_scale else operation


def drawn(rounding: Rounding | BlockOptions) -> tuple[Array, ...]:
    """The random bits as a kernel takes them: an array, or none."""
    return () if rounding.draw.bits is None else (rounding.draw.bits,)


def _of_keys(keys: NDArray[np.int32]) -> NDArray[np.float32]:
    """Floats from keys whose order as integers is theirs (kernels._monotone)."""
    return np.asarray(keys ^ ((keys >> 31) & 0x7FFFFFFF), np.int32).view(np.float32)
