"""What keeps a QTensor of torch quantized: operations that move it, cut it, or take some of its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from numerics.backends.host.tensors import has_values, same_bits
from numerics.formats.errors import NumericsError
from numerics.pytorch import collectives
from numerics.pytorch.callers import callers
from numerics.pytorch.products import PRODUCTS
from numerics.pytorch.qtensor import FLOATS, TensorQTensor, end_graph, follows, is_stand_in
from numerics.pytorch.wrapper import AXES, Flat, Permuted, Repeated, Wrapper, expanded, permuted, unsqueezed
from numerics.pytorch.zeros import zeros
from numerics.tensor import slicing

aten = torch.ops.aten


def _reads(kept: Callable[..., Any]) -> Callable[..., Any]:
    """The same, once QTensors among its arguments are known to be whole: it reads their parts by torch."""

    @wraps(kept)
    def checked(*args: Any, **options: Any) -> Any:
        for x in args:
            held = x.quantized if isinstance(x, Permuted) else x
            if isinstance(held, TensorQTensor):
                held.check_whole()
        return kept(*args, **options)

    return checked


REST = "_rest"
"""Under that name a part says how it hangs together with the tensor that it is of: COPIED, or which of its
own parts, by their places, are those of all the rest too."""
COPIED = "copied"
Rest = str | frozenset[int]


def _part(kept: Callable[..., Any]) -> Callable[..., Any]:
    """The same, of whole QTensors, with each part that comes marked: who writes into it has to know."""

    @wraps(kept)
    def marked(q: TensorQTensor, *args: Any, **options: Any) -> Any:
        q.check_whole()
        found = kept(q, *args, **options)
        for part in found if isinstance(found, list) else [found]:
            if isinstance(part, TensorQTensor):
                follows(part, q).__dict__[REST] = _rest(q, part)
        return found

    return marked


def _rest(q: TensorQTensor, part: TensorQTensor) -> Rest:
    """Of a part of q: were some of its numbers copied, or which does it share with the rest of q?"""
    before: Rest = q.__dict__.get(REST) or frozenset()
    if isinstance(before, str) or math.prod(part.shape) in (0, math.prod(q.shape)):
        return before
    pairs = [
        (place, mine, its) for place, (mine, its) in enumerate(zip(q.parts, part.parts, strict=True))
        if type(its) is Tensor
    ]  # fmt: skip
    if any(not torch._C._is_alias_of(mine, its) for _, mine, its in pairs):  # type: ignore[attr-defined]
        return COPIED
    return before | {place for place, mine, its in pairs if mine.numel() == its.numel()}


_OPTIONS = {"packed": "", "shared": "scale", "zero_point": "zero_point", "tensor_scale": "tensor_scale"}
"""What nx.quantize takes for each part of a tensor."""


def _same_scales(target: TensorQTensor, shared: frozenset[int]) -> str:
    """How numbers become ones of the scales that a part shares with the rest; empty where they cannot."""
    options = [option for place, option in _OPTIONS.items() if getattr(target, place) is not None]
    has = [option for k, option in enumerate(options) if k in shared]
    if target.spec.blocked and has != ["tensor_scale"]:
        return ""
    kept = ", ".join(f"{name}=q.{name}" for name in has)
    return f"nx.quantize(x, q.spec, {kept}) makes numbers that go there; "


def _check_written(target: TensorQTensor, source: TensorQTensor) -> None:
    """Raises NumericsError for a part that cannot be written without losing that, or changing the rest."""
    rest: Rest = target.__dict__.get(REST) or frozenset()
    if isinstance(rest, str):
        raise NumericsError(
            f"{target!r} is a part that is no view: its codes were copied, and the tensor that it is of "
            "would stay as it is; cut whole rows of whole bytes, or clone() it to write into the copy"
        )
    pairs = [(target.parts[place], source.parts[place]) for place in rest]
    if any(not torch.equal(mine, its) for mine, its in pairs if not mine.is_meta):
        raise NumericsError(
            f"{target!r} is a part whose scales are those of the rest, too, which others would change; "
            f"{_same_scales(target, rest)}x = q.dequantize() of the whole, x[...] = what is due and "
            "q.copy_(nx.quantize(x, q.spec)) finds new ones for all"
        )
    if any(map(_meet, target.parts, source.parts)):
        raise NumericsError(
            f"{source!r} lies in part in the memory of {target!r}, into which it would be copied; "
            "clone() it first"
        )


def _meet(mine: Tensor, theirs: Tensor) -> bool:
    """Do two parts lie in the same memory, and not each number of one where the other has it?"""
    if mine.device != theirs.device or not (has_values(mine) and has_values(theirs)):
        return False
    spans = [(x.data_ptr(), _end(x)) for x in (mine, theirs)]
    if spans[0] == spans[1] and mine.stride() == theirs.stride():
        return False
    return mine.numel() * theirs.numel() > 0 and spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]


def _end(x: Tensor) -> int:
    """The address behind the last number of a tensor."""
    last = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr() + (last + 1) * x.element_size()


# ---- moving, copying, cutting -----------------------------------------------------------------------


def _same(q: TensorQTensor, *_: Any, **__: Any) -> Any:
    found = q.each(lambda part: part.detach())
    found.__dict__[REST] = q.__dict__.get(REST)
    return follows(found, q)


@_reads
def _clone(q: TensorQTensor, *, memory_format: Any = None) -> Any:
    return q.each(lambda part: part.clone())


@_reads
def _to_copy(
    q: TensorQTensor, *, dtype: Any = None, device: Any = None, non_blocking: bool = False, **others: Any
) -> Any:
    """The same codes for values of another type: those of `dequantize(dtype)`, which are rounded once."""
    if dtype is not None and dtype not in FLOATS:
        return NotImplemented
    if dtype in (None, q.dtype) or keeps_values(q, dtype):
        return q.each(lambda part: part.to(device=device, non_blocking=non_blocking, copy=True), dtype)
    moved = {"device": device, "non_blocking": non_blocking, **others}
    return aten._to_copy.default(q.dequantize(dtype), dtype=dtype, **moved)


@_reads
def _turned_to_copy(x: Permuted, **options: Any) -> Any:
    """The same of a QTensor with its axes in another order."""
    found = _to_copy(x.quantized, **options)
    if found is NotImplemented:
        return found
    return permuted(found, x.axes) if isinstance(found, TensorQTensor) else found.permute(x.axes)


def keeps_values(q: TensorQTensor, dtype: torch.dtype) -> bool:
    """Do its bytes say the values of that type too?  Not where they are computed in another width."""
    wide = torch.float64
    return q.spec.scale_type != "float" and (q.dtype == wide) == (dtype == wide)


@_part
def _slice(q: TensorQTensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return slicing.sliced(q, dim, slice(start, end, step))


@_part
def _select(q: TensorQTensor, dim: int, index: int) -> Any:
    if q.ndim == 1 and 0 in slicing.blocked_axes(q):  # one element: its value
        return NotImplemented
    return slicing.selected(q, dim, index)


@_part
def _split(q: TensorQTensor, size: int, dim: int = 0) -> Any:
    length = q.shape[dim]
    return [slicing.sliced(q, dim, slice(at, at + size)) for at in range(0, max(length, 1), max(size, 1))]


@_part
def _split_with_sizes(q: TensorQTensor, sizes: Sequence[int], dim: int = 0) -> Any:
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [slicing.sliced(q, dim, slice(end - n, end)) for n, end in zip(sizes, ends, strict=True)]


@_part
def _unbind(q: TensorQTensor, dim: int = 0) -> Any:
    if dim % max(q.ndim, 1) in slicing.blocked_axes(q):
        return NotImplemented
    return [slicing.selected(q, dim, place) for place in range(q.shape[dim])]


@_part
def _squeeze(q: TensorQTensor, dims: Any = None) -> Any:
    """Without its axes of one index, those that are asked for."""
    asked = range(q.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = sorted((dim % q.ndim for dim in asked if q.shape[dim] == 1), reverse=True)
    if set(slicing.blocked_axes(q)) & set(gone):
        return NotImplemented
    for dim in gone:
        q = slicing.selected(q, dim, 0)
    return q if gone else _same(q)


def _of_turned(kept: Any, place: int, goes: bool = False) -> Any:
    """What a QTensor does with one of its axes, for one with its axes in another order.

    place: of the axis among the arguments.  goes: the axis does.  The values are taken where no part of the
    QTensor is what is asked for: of a view nobody expects that cutting it fails.
    """

    def turned(x: Permuted, *args: Any, dim: int = 0, **options: Any) -> Any:
        axis = x.axes[(args[place] if place < len(args) else dim) % x.ndim]
        try:
            found = kept(x.quantized, *args[:place], axis, *args[place + 1 :], **options)
        except NumericsError:
            return NotImplemented
        if found is NotImplemented:
            return found
        axes = [one - (one > axis) for one in x.axes if one != axis] if goes else x.axes
        return [permuted(part, axes) for part in found] if isinstance(found, list) else permuted(found, axes)

    return turned


def _view(q: TensorQTensor, size: Sequence[int]) -> Any:
    if tuple(size) == tuple(q.shape):
        return _same(q)
    if tuple(size) in ((-1,), (math.prod(q.shape),)):
        flat = slicing.flattened(q)
        if flat is q:  # of one dimension already; torch's views are tensors of their own
            return _same(q)
        if flat is not None:
            follows(flat, q).__dict__[REST] = q.__dict__.get(REST)
        elif tuple(size) == (-1,):
            return Flat(q)
        return NotImplemented if flat is None else flat
    return NotImplemented


def _as_strided(q: TensorQTensor, size: Any, stride: Any, offset: Any = None) -> Any:
    unmoved = tuple(size) == tuple(q.shape) and tuple(stride) == q.stride() and not offset
    return _same(q) if unmoved else NotImplemented


@_reads
def _new_zeros(q: TensorQTensor, size: Any, **options: Any) -> Any:
    """Zeros in as many rows; of other rows, and of another type, as of any tensor."""
    asked = options.get("dtype") in (None, q.dtype) and options.get("layout") in (None, torch.strided)
    if not q.shape or tuple(size[1:]) != tuple(q.shape[1:]) or not asked:
        return NotImplemented
    made = zeros(q, size[0])
    if options.get("device") is not None:
        made = made.each(lambda part: part.to(options["device"]))
    return _pin_memory(made) if options.get("pin_memory") else made


FLOAT_MODEL = (
    " of this state would become floats of a float model: nx.load_into(model, file) "
    "loads the file of nx.save(state, file) packed, activations' formats too; "
    "load_state_dict(state, assign=True, strict=False) takes packed weights alone; "
    "load_state_dict({k: x.dequantize() if isinstance(x, nx.QTensor) else x for k, x in state.items()}, "
    "strict=False) takes their values"
)
FLOAT_STATE = (
    " in this checkpoint, would become floats of the state that dcp.load fills: load it into the state of a "
    "model that is frozen alike (nx.freeze, nx.quantize_), whose values are q.dequantize()"
)
PACKED_MODEL = (
    " of this model is packed, and the state has other values: load them before they "
    "are packed (nx.freeze, nx.quantize_), or nx.load_into(model, file), which puts floats there"
)


@_reads
def _copy(target: Any, source: Any, non_blocking: bool = False) -> Any:
    """In place, from a QTensor of the same spec, or its values; into a plain tensor, the values."""
    if not isinstance(target, TensorQTensor):
        if isinstance(target, Wrapper):
            return NotImplemented
        if (errors := _loading()) is not None:
            raise _once(repr(source), FLOAT_MODEL, errors)
        if (name := _of_checkpoint()) is not None:
            raise NumericsError(f"{name}, {source!r}{FLOAT_STATE}")
        return target.copy_(source.dequantize(), non_blocking)
    _check_memory_known(target, source)
    if not isinstance(source, TensorQTensor):
        found = _quantized_as(target, source)
        if found is None and (errors := _loading()) is not None:
            raise _once(repr(target), PACKED_MODEL, errors)
        if found is None and (name := _of_checkpoint()) is not None:
            raise NumericsError(f"{name}, {target!r}{PACKED_MODEL}")
        if found is None:
            return NotImplemented
        source = found
    check_copied(target, source)
    if not target.numel():  # its scale may be that of a tensor which has values
        return target
    _check_written(target, source)
    for mine, theirs in zip(target.parts, source.parts, strict=True):
        mine.copy_(theirs, non_blocking)
    return target


def check_copied(target: TensorQTensor, source: TensorQTensor) -> None:
    """Raises NumericsError where the bytes of one are no values of the other."""
    if (source.spec, source.shape) != (target.spec, target.shape):
        raise NumericsError(f"{source!r} cannot be copied into {target!r}: another spec or shape")
    if source.dtype != target.dtype and not keeps_values(source, target.dtype):
        raise NumericsError(
            f"{source!r} of {source.original} cannot be copied into one of {target.original}: the same "
            "bytes are other values there; dequantize it, and quantize the values"
        )


def _check_memory_known(*given: Any) -> None:
    """Ends a compiled graph before numbers that are copied into a QTensor: whether they may be is seen in
    memory alone, as whether two lie over each other, and a graph has none while it is made.
    """
    if not any(map(is_stand_in, pytree.tree_leaves([getattr(x, "parts", x) for x in given]))):
        return
    why = (
        "what is copied into a QTensor (q.copy_(other), q[0:2] = other) is checked in memory, which a graph "
        "does not have while it is traced: "
    )
    end_graph(why + "leave out fullgraph=True")
    raise NumericsError(why + "write into it outside of what is traced")


_LOADING = torch.nn.Module._load_from_state_dict.__code__


def _loading() -> list[str] | None:
    """What a module's load_state_dict has said so far; None where nobody loads.

    It copies whatever comes, and collects what that raises: an error a tensor.
    """
    for frame in callers():
        if frame.f_code is _LOADING:
            return [str(error) for error in frame.f_locals.get("error_msgs", ())]
    return None


def _of_checkpoint() -> str | None:
    """The name of the tensor that torch.distributed.checkpoint reads; None where it does not read."""
    for frame in callers():
        where = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name == "read_data" and where.startswith("torch.distributed.checkpoint."):
            request = frame.f_locals.get("req")
            return str(getattr(getattr(request, "dest_index", None), "fqn", "a tensor"))
    return None


def _once(named: str, why: str, errors: list[str]) -> NumericsError:
    """The error of a tensor of a state: why in full for the first, of the others their names alone."""
    return NumericsError(f"{named}: as above" if any(why in error for error in errors) else named + why)


def _quantized_as(target: TensorQTensor, source: Tensor) -> TensorQTensor | None:
    """What those values are in the target's spec, where they are exactly that: what DDP sends at first."""
    plain = type(source) in (Tensor, torch.nn.Parameter) and not (source.is_meta or source.is_nested)
    if not plain or source.layout is not torch.strided:
        return None
    if (source.dtype, source.device) != (target.dtype, target.device):
        return None
    try:
        source = source.detach().expand(target.shape).contiguous()
    except RuntimeError:  # of another shape
        return None
    if same_bits(target.dequantize(), source):
        return target
    parts = torch.ops.numerics.quantize(source, target.spec.text)
    made = TensorQTensor.of_parts(target.spec, source, *parts)
    return made if same_bits(made.dequantize(), source) else None


def _empty_like(q: TensorQTensor, *, dtype: Any = None, device: Any = None, **_: Any) -> Any:
    if dtype not in (None, q.dtype):
        return NotImplemented
    return q.each(lambda part: torch.empty_like(part, device=device))


def _is_pinned(q: TensorQTensor, device: Any = None) -> bool:
    return all(part.is_pinned() for part in q.parts)


@_reads
def _pin_memory(q: TensorQTensor, device: Any = None) -> Any:
    return q.each(lambda part: part.pin_memory())


# ---- some rows: what is not asked for is not decoded --------------------------------------------------


def _rows(q: TensorQTensor, places: Tensor, checked: bool = False) -> Tensor | None:
    """Values of some indices of the first axis; None where rows are not bytes and scales of their own.

    checked: as `index_select` and `embedding` take them, which count from the front only.
    """
    count, length = places.numel(), q.shape[0] if q.shape else 0
    if places.dtype not in (torch.int32, torch.int64) or (type(count) is int and count > length):
        return None
    flat = places.reshape(-1)
    found = slicing.rows(q.settled(), lambda part: part.index_select(0, flat) if checked else part[flat])
    return None if found is None else q.values_of(found, (count, *q.shape[1:]))


def _shaped(found: Tensor | None, places: Tensor) -> Any:
    return NotImplemented if found is None else found.reshape(*places.shape, *found.shape[1:])


def _embedding(q: TensorQTensor, places: Tensor, *_: Any, **__: Any) -> Any:
    if not isinstance(q, TensorQTensor) or isinstance(places, Wrapper):
        return NotImplemented
    return _shaped(_rows(q, places, checked=True), places)


def _index_select(q: TensorQTensor, dim: int, places: Tensor) -> Any:
    if not isinstance(q, TensorQTensor) or isinstance(places, Wrapper) or dim not in (0, -q.ndim):
        return NotImplemented
    found = _rows(q, places, checked=True)
    return NotImplemented if found is None else found


def _index(q: TensorQTensor, indices: Sequence[Tensor | None]) -> Any:
    """q[ids], q[mask], q[ids, columns]."""
    given = [index for index in indices if index is not None]
    if not isinstance(q, TensorQTensor) or any(index is None for index in indices[: len(given)]):
        return NotImplemented
    if given[0].dtype == torch.bool and given[0].shape == q.shape[:1] and len(given) == 1:
        given = [given[0].nonzero().squeeze(1)]
    if any(index.dtype not in (torch.int32, torch.int64) for index in given):
        return NotImplemented
    places = torch.broadcast_tensors(*given)  # type: ignore[no-untyped-call]
    found = _rows(q, places[0])
    if found is None or len(places) == 1:
        return _shaped(found, places[0])
    line = torch.arange(found.shape[0], device=found.device)
    return _shaped(found[(line, *(place.reshape(-1) for place in places[1:]))], places[0])


def _unsqueezed(q: TensorQTensor, dim: int) -> Any:
    """Returns a vector as a matrix of one row, and a matrix once along an axis before its own."""
    return slicing.as_row(q) if q.ndim == 1 and dim in (0, -2) else unsqueezed(q, dim)


@_reads
def _gather(q: TensorQTensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Any:
    """Returns the rows that an index along another axis reaches: the first ones."""
    if not isinstance(q, TensorQTensor) or q.ndim < 2 or dim % q.ndim == 0 or slicing.sharing(q, 0) > 1:
        return NotImplemented
    return slicing.sliced(q, 0, slice(0, index.shape[0])).dequantize().gather(dim, index)


TensorQTensor.kept = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.clone.default: _clone,
    aten._to_copy.default: _to_copy,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split_with_sizes,
    aten.unbind.int: _unbind,
    aten.squeeze.default: _squeeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.as_strided.default: _as_strided,
    aten.new_zeros.default: _new_zeros,
    aten.empty_like.default: _empty_like,
    aten.copy_.default: _copy,
    aten.is_pinned.default: _is_pinned,
    aten._pin_memory.default: _pin_memory,
    aten.expand.default: expanded,
    aten.unsqueeze.default: _unsqueezed,
    aten._reshape_alias.default: _as_strided,
    aten.embedding.default: _embedding,
    aten.index_select.default: _index_select,
    aten.index.Tensor: _index,
    aten.gather.default: _gather,
    **AXES,
    **PRODUCTS,
}
Permuted.kept = {
    **Permuted.kept,
    **PRODUCTS,
    aten._to_copy.default: _turned_to_copy,
    aten.select.int: _of_turned(_select, 0, goes=True),
    aten.unbind.int: _of_turned(_unbind, 0, goes=True),
    aten.slice.Tensor: _of_turned(_slice, 0),
    aten.split.Tensor: _of_turned(_split, 1),
    aten.split_with_sizes.default: _of_turned(_split_with_sizes, 1),
}
Repeated.kept = {**Repeated.kept, **PRODUCTS}
TensorQTensor.kept_by_name = collectives.COLLECTIVES
