"""QTensor as a torch tensor: a wrapper subclass that holds plain tensors only.

It stands for the values that `dequantize` gives, so its `dtype` is theirs and `format` is the number
format.  Operations that only move or cut it keep it quantized; every other one takes the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from numerics import slicing
from numerics.formats.errors import NumericsError
from numerics.recipe import Recipe
from numerics.tensor import QTensor, float_name

aten, functional = torch.ops.aten, torch.ops._c10d_functional
PARTS = ("packed", "shared", "zero_point", "tensor_scale")
"""The tensors that it holds, as far as its format has them."""


class TensorQTensor(QTensor, Tensor):  # type: ignore[misc, override]
    """A QTensor of torch tensors; made by `quantize`, by slicing, by loading.

    >>> import torch, numerics as nx
    >>> q = nx.quantize(torch.tensor([[0.5, -1.0], [2.0, 3.5]]), "int4")
    >>> q, q.dtype, q.format
    (QTensor(int4, shape=(2, 2), per_tensor(), 12 bits a value), torch.float32, int4)
    >>> torch.nn.functional.linear(torch.ones(2), q)
    tensor([-0.5000,  5.5000])
    """

    recipe: Recipe
    packed: Tensor
    shared: Tensor | None
    zero_point: Tensor | None
    tensor_scale: Tensor | None

    @staticmethod
    def __new__(
        cls, recipe: Recipe, shape: Sequence[int], dtype: torch.dtype, packed: Tensor,
        shared: Tensor | None = None, zero_point: Tensor | None = None, tensor_scale: Tensor | None = None,
        requires_grad: bool = False,
    ) -> TensorQTensor:  # fmt: skip
        """What `dtype` says: of the values."""
        made = Tensor._make_wrapper_subclass(
            cls, tuple(shape), dtype=dtype, device=packed.device, requires_grad=requires_grad
        )
        made.recipe, made.packed = recipe, packed
        made.shared, made.zero_point, made.tensor_scale = shared, zero_point, tensor_scale
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """All is done when it is made."""

    @classmethod
    def of_parts(
        cls,
        recipe: Recipe,
        x: Tensor,
        packed: Tensor,
        shared: Tensor,
        zero_point: Tensor,
        tensor_scale: Tensor,
    ) -> TensorQTensor:
        """What the operator `quantize` made of x: empty tensors stand for what is not there."""
        beside = not recipe.blocked or recipe.block.scale is not None
        scaled = recipe.blocked and recipe.block.family == "scaled"
        affine = not recipe.blocked and not recipe.symmetric
        return cls(
            recipe, x.shape, x.dtype, packed, shared if beside else None, zero_point if affine else None,
            tensor_scale if scaled else None,
        )  # fmt: skip

    @property
    def original(self) -> str:  # type: ignore[override]
        """The float type that it stands for."""
        return str(self.dtype).removeprefix("torch.")

    __repr__ = QTensor.__repr__  # type: ignore[assignment]
    __getitem__ = Tensor.__getitem__
    to = Tensor.to

    def dequantize(self, dtype: Any = None) -> Tensor:
        """QTensor.dequantize."""
        name = self.original if dtype is None else float_name(dtype)
        text, wide = text_of(self.recipe), self.original
        return cast(Tensor, torch.ops.numerics.dequantize(
            self.packed, self.shared, self.zero_point, self.tensor_scale, list(self.shape), text, wide, name
        ))  # fmt: skip

    def with_parts(
        self, recipe: Recipe, shape: tuple[int, ...], packed: Any, shared: Any, zero_point: Any
    ) -> TensorQTensor:
        """QTensor.with_parts."""
        return TensorQTensor(recipe, shape, self.dtype, packed, shared, zero_point, self.tensor_scale)

    def each(self, move: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None) -> TensorQTensor:
        """The same, each of its tensors moved, copied or made anew by a function."""
        parts = (getattr(self, name) for name in PARTS)
        packed, *others = (None if part is None else move(part) for part in parts)
        assert packed is not None
        return TensorQTensor(self.recipe, self.shape, dtype or self.dtype, packed, *others)

    @property
    def parts(self) -> list[Tensor]:
        """The tensors that it holds."""
        return [part for part in (getattr(self, name) for name in PARTS) if part is not None]

    # ---- what torch asks of a subclass ---------------------------------------------------------

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """The names of its tensors, and what else it is made of."""
        return [name for name in PARTS if getattr(self, name) is not None], (self.recipe, self.dtype)

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], context: Any, outer_size: Any, outer_stride: Any
    ) -> TensorQTensor:
        """The inverse of __tensor_flatten__."""
        recipe, dtype = context
        return TensorQTensor(recipe, outer_size, dtype, **inner)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Plain tensors and texts: what `torch.load(weights_only=True)` takes."""
        parts = [getattr(self, name) for name in PARTS]
        return rebuilt, (self.recipe.text, tuple(self.shape), self.original, parts, self.requires_grad)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, op: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What keeps it quantized by KEPT, all else on the values."""
        kwargs = kwargs or {}
        kept = KEPT.get(op) or COLLECTIVES.get(str(op))
        found = NotImplemented if kept is None else kept(*args, **kwargs)
        if found is not NotImplemented:
            return found
        if op._schema.is_mutable and any(_written(op, args, kwargs)):
            raise NumericsError(f"{op} would change a QTensor in place; dequantize it first")
        values = pytree.tree_map_only(TensorQTensor, lambda q: q.dequantize(), (args, kwargs))
        return op(*values[0], **values[1])

    # ---- FSDP2: what is gathered, and how it is put together -------------------------------------

    def fsdp_pre_all_gather(
        self, mesh: Any, size: Any, stride: Any, module: Any, policy: Any
    ) -> tuple[tuple[Tensor, ...], Any]:
        """Its tensors that are cut along the first axis; the others are the same on every rank."""
        cut, whole = _cut_along_first(self)
        return tuple(cut.values()), (self.recipe, tuple(cut), whole, tuple(size), self.dtype)

    def fsdp_post_all_gather(
        self, gathered: tuple[Tensor, ...], metadata: Any, param_dtype: torch.dtype, *, out: Any = None
    ) -> Any:
        """The whole tensor of all ranks' parts, trimmed of what evened them out."""
        recipe, names, whole, size, dtype = metadata
        if out is not None:
            return None
        joined = _joined(recipe, size, dtype, dict(zip(names, gathered, strict=True)), whole)
        return joined, ()  # views of what was gathered: FSDP fills that again


def rebuilt(recipe: str, shape: tuple[int, ...], dtype: str, parts: list[Any], requires_grad: bool) -> Any:
    """A QTensor from what a pickle holds."""
    made = TensorQTensor(Recipe.parse(recipe), shape, getattr(torch, dtype), *parts)
    return made.requires_grad_(requires_grad)


def _written(op: Any, args: Any, kwargs: Any) -> Any:
    """For every argument that an operator writes: is it a QTensor?"""
    for place, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            came = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from (isinstance(leaf, TensorQTensor) for leaf in pytree.tree_leaves(came))


def text_of(recipe: Recipe) -> str:
    """Its text: a constant for torch.compile."""
    return recipe.text


# ---- operations that keep it quantized -------------------------------------------------------------


def _same(q: TensorQTensor, *_: Any, **__: Any) -> Any:
    return q.each(lambda part: part.detach())


def _clone(q: TensorQTensor, *, memory_format: Any = None) -> Any:
    return q.each(lambda part: part.clone())


def _to_copy(
    q: TensorQTensor, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None,
    non_blocking: bool = False, memory_format: Any = None,
) -> Any:  # fmt: skip
    if dtype is not None and dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return NotImplemented
    if dtype in (None, q.dtype) or _keeps_values(q, dtype):
        return q.each(lambda part: part.to(device=device, non_blocking=non_blocking, copy=True), dtype)
    return NotImplemented


def _keeps_values(q: TensorQTensor, dtype: torch.dtype) -> bool:
    """Does it stand for the same values as a tensor of another type?  Not where computed in another width."""
    wide = torch.float64
    return q.recipe.scale_type != "float" and (q.dtype == wide) == (dtype == wide)


def _slice(q: TensorQTensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return slicing.sliced(q, dim, slice(start, end, step))


def _select(q: TensorQTensor, dim: int, index: int) -> Any:
    return slicing.selected(q, dim, index)


def _split(q: TensorQTensor, size: int, dim: int = 0) -> Any:
    length = q.shape[dim]
    return [slicing.sliced(q, dim, slice(at, at + size)) for at in range(0, max(length, 1), max(size, 1))]


def _split_with_sizes(q: TensorQTensor, sizes: Sequence[int], dim: int = 0) -> Any:
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [slicing.sliced(q, dim, slice(end - n, end)) for n, end in zip(sizes, ends, strict=True)]


def _view(q: TensorQTensor, size: Sequence[int]) -> Any:
    if tuple(size) == tuple(q.shape):
        return _same(q)
    if tuple(size) in ((-1,), (math.prod(q.shape),)):
        flat = slicing.flattened(q)
        return NotImplemented if flat is None else flat
    return NotImplemented


def _as_strided(q: TensorQTensor, size: Any, stride: Any, offset: Any = None) -> Any:
    unmoved = tuple(size) == tuple(q.shape) and tuple(stride) == q.stride() and not offset
    return _same(q) if unmoved else NotImplemented


def _new_zeros(q: TensorQTensor, size: Any, **options: Any) -> Any:
    """Room for as many rows: bytes of zeros and scales of one."""
    if not q.shape or tuple(size[1:]) != tuple(q.shape[1:]) or options.get("dtype") not in (None, q.dtype):
        return NotImplemented
    return _resized(q, size[0])


def _copy(target: Any, source: Any, non_blocking: bool = False) -> Any:
    """In place, from a QTensor of the same recipe; into a plain tensor, the values."""
    if not isinstance(target, TensorQTensor):
        return target.copy_(source.dequantize(), non_blocking)
    if not isinstance(source, TensorQTensor):
        return NotImplemented
    if (source.recipe, source.shape) != (target.recipe, target.shape):
        raise NumericsError(f"{source!r} cannot be copied into {target!r}: another recipe or shape")
    if source.dtype != target.dtype and not _keeps_values(source, target.dtype):
        raise NumericsError(
            f"{source!r} of {source.original} cannot be copied into one of {target.original}: the same "
            "bytes are other values there; dequantize it, and quantize the values"
        )
    for mine, theirs in zip(target.parts, source.parts, strict=True):
        mine.copy_(theirs, non_blocking)
    return target


def _empty_like(q: TensorQTensor, *, dtype: Any = None, device: Any = None, **_: Any) -> Any:
    if dtype not in (None, q.dtype):
        return NotImplemented
    return q.each(lambda part: torch.empty_like(part, device=device))


def _is_pinned(q: TensorQTensor, device: Any = None) -> bool:
    return all(part.is_pinned() for part in q.parts)


def _pin_memory(q: TensorQTensor, device: Any = None) -> Any:
    return q.each(lambda part: part.pin_memory())


# ---- rows, for what cuts and joins tensors along the first axis ---------------------------------------


def _cut_along_first(q: TensorQTensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Its tensors whose first index goes with the tensor's, each as rows; and the others."""
    bits = slicing.bits_of_index(q)
    if bits is None or bits % 8:
        raise NumericsError(
            f"{q!r} cannot be cut along axis 0: its rows are not whole bytes of their own; "
            "shard another axis, or pad rows to whole bytes"
        )
    cut: dict[str, Tensor] = {"packed": q.packed.reshape(q.shape[0], -1)}
    whole: dict[str, Tensor] = {}
    for name in PARTS[1:]:
        part = getattr(q, name)
        if part is not None:
            (cut if slicing.shared_along(q, 0) and name != "tensor_scale" else whole)[name] = part
    return cut, whole


def _joined(
    recipe: Recipe,
    size: tuple[int, ...],
    dtype: torch.dtype,
    cut: dict[str, Tensor],
    whole: dict[str, Tensor],
) -> TensorQTensor:
    """The inverse of `_cut_along_first`, for as many rows as `size` says."""
    rows = {name: part[: size[0]] for name, part in cut.items()}
    rows["packed"] = rows["packed"].reshape(-1)
    return TensorQTensor(recipe, size, dtype, **rows, **whole)


def _resized(q: TensorQTensor, rows: int) -> TensorQTensor:
    cut, whole = _cut_along_first(q)
    made = {name: part.new_zeros((rows, *part.shape[1:])) for name, part in cut.items()}
    return _joined(q.recipe, (rows, *q.shape[1:]), q.dtype, made, whole)


# ---- between processes: DTensor and torch.distributed ------------------------------------------------


def _all_gather(q: TensorQTensor, ranks: int, group: str) -> Any:
    """Parts of one tensor, one below the other; what is not cut along the first axis is the same on all."""
    cut, whole = _cut_along_first(q)
    gathered = {
        name: functional.wait_tensor(functional.all_gather_into_tensor(part, ranks, group))
        for name, part in cut.items()
    }
    return _joined(q.recipe, (ranks * q.shape[0], *q.shape[1:]), q.dtype, gathered, whole)


def _part(place: int, q: TensorQTensor) -> Tensor:
    return q.parts[place]


def _each_part(op: str) -> Callable[..., Any]:
    """A collective that only moves memory, for each of the tensors that a QTensor holds."""

    def move(*args: Any, **kwargs: Any) -> Any:
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, TensorQTensor)]
        for place in range(len(leaves[0].parts)):
            part = pytree.tree_map_only(TensorQTensor, partial(_part, place), (args, kwargs))
            _, work = getattr(torch.ops.c10d, op)(*part[0], **part[1])
            work.wait()
        return args[0], work

    return move


COLLECTIVES: dict[str, Callable[..., Any]] = {  # by name: torch defines them when it distributes
    "_c10d_functional.all_gather_into_tensor.default": _all_gather,
    "_c10d_functional.wait_tensor.default": _same,  # it has been waited for
    "_c10d_functional._wrap_tensor_autograd.default": _same,
    "c10d.broadcast_.default": _each_part("broadcast_"),
    "c10d.scatter_.default": _each_part("scatter_"),
}
KEPT: dict[Any, Callable[..., Any]] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.clone.default: _clone,
    aten._to_copy.default: _to_copy,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split_with_sizes,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.as_strided.default: _as_strided,
    aten.new_zeros.default: _new_zeros,
    aten.empty_like.default: _empty_like,
    aten.copy_.default: _copy,
    aten.is_pinned.default: _is_pinned,
    aten._pin_memory.default: _pin_memory,
}
torch.serialization.add_safe_globals([rebuilt])
