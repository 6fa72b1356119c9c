"""A tensor that stands for values which it does not hold: what torch may and may not do with such a one.

TensorQTensor (qtensor.py) holds codes and scales, `Permuted` a TensorQTensor with its axes in another
order.  An operation takes the values, unless a table says better.  There is no memory of the values: who
asks for their address is told so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from copy import deepcopy
from typing import Any, ClassVar, NoReturn, cast

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_functorch_wrapped_tensor,
    is_gradtrackingtensor,
    maybe_current_level,
)
from torch._ops import HigherOrderOperator
from torch.utils import _pytree as pytree

from numerics.backends.host.tensors import as_array, no_memory_of_level
from numerics.formats.errors import NumericsError
from numerics.pytorch.autograd import has_tangent

aten = torch.ops.aten
Kept = dict[Any, Callable[..., Any]]


class Nowhere:
    """What stands in the place of such a tensor's storage: torch compares storages by it.

    It has a size, a device and a name, and no bytes.  It is no storage: what torch computes with those
    in C++ does not ask whether there is memory.
    """

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self._storage = storage
        self._cdata, self.device = storage._cdata, storage.device

    def __repr__(self) -> str:
        return f"Nowhere({self.nbytes()} bytes of no memory, device={self.device})"

    def nbytes(self) -> int:
        """How many bytes the values would take."""
        return self._storage.nbytes()

    size = __len__ = nbytes

    def _weak_ref(self) -> Any:
        return self._storage._weak_ref()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(torch.UntypedStorage, name):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        return self.__getitem__

    def __getitem__(self, *_: Any, **__: Any) -> NoReturn:
        raise _no_memory()

    __setitem__ = __iter__ = __bytes__ = __copy__ = __deepcopy__ = __reduce_ex__ = __getitem__


class Wrapper(Tensor):
    """A tensor that stands for what its `dequantize` gives."""

    kept: ClassVar[Kept] = {}
    """What an operator does with it, other than take its values."""
    kept_by_name: ClassVar[Kept] = {}
    """The same for operators that torch defines late."""
    folds: ClassVar[Callable[..., Any]]
    """A product of tensors of several axes by those of matrices; None for all else (folds.py)."""

    @classmethod
    def made(cls, shape: Any, requires_grad: bool = False, **options: Any) -> Any:
        """A new one, not yet filled."""
        with _views_allowed():
            found = Tensor._make_wrapper_subclass(cls, shape, requires_grad=requires_grad, **options)
        torch._C._set_throw_on_mutable_data_ptr(found)  # DLPack of it would be a null pointer
        return found

    def dequantize(self, dtype: Any = None) -> Tensor:
        """The values, as a plain tensor."""
        raise NotImplementedError

    @property
    def parts(self) -> list[Tensor]:
        """The tensors that it holds."""
        raise NotImplementedError

    def count_writes(self) -> None:
        """Has torch count writes into its parts as writes into it, where it has just been made."""

    @classmethod
    def takes_data(cls, x: Any, came: Any) -> bool:
        """May a module put `came` in x's place by `x.data = came`?  Not by torch's own way, which would
        change what x says of itself, and none of its bytes.
        """
        return False

    # ---- memory --------------------------------------------------------------------------------

    def numpy(self, *, force: bool = False) -> Any:
        """The values as an array of its own; bfloat16 as ml_dtypes' type."""
        values = self.dequantize()
        return as_array(values.cpu() if force else values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """Its values, where NumPy is given it: always new."""
        return np.asarray(self.numpy(), dtype)

    def tolist(self) -> Any:
        """The values as Python's."""
        return self.dequantize().tolist()

    def __dlpack__(self, **options: Any) -> Any:
        """The values, for who takes a tensor by DLPack."""
        return self.dequantize().__dlpack__(**options)

    def data_ptr(self) -> NoReturn:
        """Refused: the values lie nowhere."""
        raise _no_memory()

    def storage(self) -> NoReturn:
        """Refused: the values lie nowhere."""
        raise _no_memory()

    _typed_storage = storage

    # ---- what torch asks of a subclass -----------------------------------------------------------

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Acts as any tensor's, but for what never reaches __torch_dispatch__."""
        try:
            if maybe_current_level() is not None:
                return _at_level(cls, func, args, kwargs or {})
            return cls.function(func, args, kwargs)
        except RuntimeError as wrong:
            if "NestedTensorImpl" in str(wrong):  # torch's words for whoever asks a strided one for its shape
                raise _nested(func) from None
            raise

    @classmethod
    def function(cls, func: Any, args: Any, kwargs: Any) -> Any:
        """A function of torch, with such a tensor among its arguments."""
        if func is torch._has_compatible_shallow_copy_type:
            return cls.takes_data(*args)
        found = cls.folds(func, args, kwargs)
        if found is not None:
            return found
        if isinstance(func, HigherOrderOperator):  # torch.cond and its kin, whose branches take plain tensors
            plain, options = values_of((args, kwargs or {}))
            return func(*plain, **options)
        if func in _BY_ADDRESS:
            raise in_place(f"Tensor.{func.__name__}")
        with torch._C.DisableTorchFunctionSubclass():
            try:
                found = (_written_by if _changes(func, args) else _called)(func, args, kwargs or {})
            except AssertionError as wrong:  # of a device that this torch is not compiled with
                raise NumericsError(f"{func.__name__} of a QTensor: {wrong!s:.300}") from None
            except RuntimeError as wrong:
                if "cast NotImplemented" in str(wrong):  # a mode of torch's that was never told of it
                    raise _not_traced(func) from None
                raise
        for made in found if type(found) in (tuple, list) else (found,):
            if isinstance(made, Wrapper) and not any(made is x for x in args):
                made.count_writes()
        if isinstance(found, Wrapper):
            return cls.given(args, found)
        return Nowhere(found) if isinstance(found, torch.UntypedStorage) else found

    @classmethod
    def given(cls, args: Any, found: Wrapper) -> Any:
        """What comes back of a function that made one: for modules that convert their parameters, perhaps
        something that stands for it.
        """
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, op: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What keeps it quantized by `kept`, all else on the values."""
        kwargs = kwargs or {}
        _check_beneath(args)
        found = cls._done(op, args, kwargs)
        _check_made(op, (args, kwargs), found)
        return found

    @classmethod
    def _done(cls, op: Any, args: Any, kwargs: Any) -> Any:
        """The operation's result."""
        kept = cls.kept.get(op) or cls.kept_by_name.get(str(op))
        found = NotImplemented if kept is None else kept(*args, **kwargs)
        if found is not NotImplemented:
            return found
        if (
            not isinstance(op, HigherOrderOperator)
            and op._schema.is_mutable
            and any(_written(op, args, kwargs))
        ):
            raise in_place(op)
        if _WRITES.get() and _gives_view(op):
            raise in_place(f"Tensor.{_WRITES.get()}")
        if _is_composite(op):
            return op._op_dk(COMPOSITE, *args, **kwargs)
        with _views_allowed() if _gives_view(op) else nullcontext():
            plain, options = values_of((args, kwargs))
            return op(*plain, **options)


# ---- levels of torch.func ----------------------------------------------------------------------------


def _at_level(cls: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """A function of torch within torch.func.

    What has parts that are of a level (torch.vmap goes along them, torch.func.functionalize follows them) is
    of that level, and torch does not know it: its values are taken here, where the level is.
    """
    leaves = pytree.tree_leaves((args, kwargs))
    if any(isinstance(x, Wrapper) and _is_of_level(x) for x in leaves):
        if _changes(func, args) or any(isinstance(x, Wrapper) for x in pytree.tree_leaves(kwargs.get("out"))):
            raise in_place(f"Tensor.{func.__name__}")
        args, kwargs = values_of((args, kwargs))
        return func(*args, **kwargs)
    return pytree.tree_map_only(Tensor, _unwrapped, cls.function(func, args, kwargs))


def _check_beneath(args: Any) -> None:
    """Raises NumericsError for what is of a level of torch.func where that level is no more."""
    for x in args:
        if isinstance(x, (list, tuple)):
            _check_beneath(x)
        elif isinstance(x, Wrapper) and _is_of_level(x):
            raise NumericsError(no_memory_of_level())


def _is_of_level(x: Wrapper) -> bool:
    return any(map(is_functorch_wrapped_tensor, x.parts))


def _unwrapped(x: Tensor) -> Tensor:
    """A QTensor, or a view of one, that torch.func has wrapped as a constant of its level: itself."""
    found = constant_of_levels(x)
    return found if isinstance(found, Wrapper) else x


def constant_of_levels(x: Any) -> Any:
    """x without the levels of torch.func.grad and its kin at which it has no derivative: the same there."""
    while isinstance(x, Tensor) and is_gradtrackingtensor(x) and not x.requires_grad and not has_tangent(x):
        x = get_unwrapped(x)
    return x


def _views_allowed() -> Any:
    """What is made within is no inference tensor: torch takes none for a view of a tensor that is none."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def _is_composite(op: Any) -> bool:
    """Is it made of operators that come here one by one?  In inference mode torch leaves that to us."""
    if not torch.is_inference_mode_enabled() or isinstance(op, HigherOrderOperator):
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), COMPOSITE)


_WRITES: ContextVar[str] = ContextVar("a call that writes into what stands for values", default="")


def _changes(func: Any, args: Any) -> bool:
    """Does a call write into its first argument, which stands for values?"""
    name = getattr(func, "__name__", "")
    if name != "__setitem__" and (not name.endswith("_") or name.endswith("__")):
        return False
    return bool(args) and isinstance(args[0], Wrapper)


def _called(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _written_by(func: Any, args: Any, kwargs: Any) -> Any:
    """A call within which a view of the values would take what is for the first argument.

    `q[:, None] = 1` and `q.fill_diagonal_(1)` are views, and writes into them, of which each is a call alone.
    """
    before = _WRITES.set(func.__name__)
    try:
        return func(*args, **kwargs)
    finally:
        _WRITES.reset(before)


def _gives_view(op: Any) -> bool:
    """Is what an operator returns in the memory of an argument?"""
    if isinstance(op, HigherOrderOperator):
        return False
    return any(found.alias_info is not None and not found.alias_info.is_write for found in op._schema.returns)


_BY_ADDRESS = (Tensor.apply_, Tensor.map_, Tensor.map2_)  # what writes where it believes values to lie


def in_place(op: Any) -> NumericsError:
    """What is raised where an operation would write into values that are not there."""
    return NumericsError(
        f"{op} would change a QTensor in place; a part of it takes a QTensor of its formats "
        "(q[0:2] = nx.quantize(values, q.spec)), or dequantize it first (an optimizer leaves it alone after "
        "requires_grad_(False))"
    )


def _not_traced(func: Any) -> NumericsError:
    return NumericsError(
        f"{func.__name__} of a QTensor that this trace knows nothing of: export(strict=False) traces "
        "what a module registers; register it (self.register_buffer('weight', q)), or export with strict=True"
    )


def _nested(func: Any) -> NumericsError:
    return NumericsError(
        f"{func.__name__} of a QTensor and a nested tensor: its parts can be taken (x.unbind()), or one with "
        "layout=torch.jagged"
    )


def values_of(tree: Any) -> Any:
    """Returns the same arguments, with values in the place of what stands for them."""
    return pytree.tree_map_only(Wrapper, lambda x: x.dequantize(), tree)


def _written(op: Any, args: Any, kwargs: Any) -> Any:
    """For every argument that an operator writes: is it such a tensor?"""
    for place, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            came = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from (isinstance(leaf, Wrapper) for leaf in pytree.tree_leaves(came))


def _check_made(op: Any, given: Any, found: Any) -> None:
    """Raises NumericsError where a result has values though an operand beside another had none.

    torch leaves such a result, of indices or a factor on "meta", as the memory was that it got for it.
    """
    with torch._C.DisableTorchFunctionSubclass():
        empty = {x.is_meta for x in pytree.tree_leaves(given) if _is_ours(x)}
        if len(empty) == 2 and any(_is_ours(x) and not x.is_meta for x in pytree.tree_leaves(found)):
            raise NumericsError(
                f"{op} of a QTensor: an operand on meta has no values, others have; give all on one device"
            )


def _is_ours(x: Any) -> bool:
    """Is it a plain tensor, or one that stands for values?  What a trace puts in their place is neither."""
    return type(x) in (Tensor, torch.nn.Parameter) or isinstance(x, Wrapper)


def _no_memory() -> NumericsError:
    return NumericsError(
        "a QTensor has no memory of its values: its bytes are those of q.packed and q.shared, its values "
        "q.dequantize(); nx.save writes it to safetensors, torch.save pickles it. A model of transformers: "
        "nx.save(model.state_dict(), path) and nx.load_into(model, path); save_pretrained writes models that "
        "from_pretrained made with quantization_config=NumericsConfig(...)"
    )


def stable_hash(*facts: Any, tensors: list[Tensor]) -> str:
    """What a compiled graph's cache knows such a tensor by, the same in every process."""
    of = [
        (str(x.dtype), str(x.device), str(tuple(x.shape)), str(x.stride()), x.requires_grad) for x in tensors
    ]
    return hashlib.blake2b(repr((*facts, of)).encode(), digest_size=16).hexdigest()


class View(Wrapper):
    """A QTensor seen in another way: it holds that, and has its values."""

    quantized: Any

    @property
    def parts(self) -> list[Tensor]:
        """Those of what it is a view of."""
        return cast("list[Tensor]", self.quantized.parts)

    def __init__(self, *_: Any, **__: Any) -> None:
        """All is done when it is made."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copies what it holds; torch's own looks for the values' memory."""
        view = cast(Any, self)  # each kind of view can be parted and made again
        _, how = view.__tensor_flatten__()
        return view.__tensor_unflatten__({"quantized": deepcopy(self.quantized, memo)}, how, None, None)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(self.dequantize())

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The values: a view is not saved as one."""
        return self.dequantize().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


class Permuted(View):
    """A TensorQTensor with its axes in another order, as `q.t()` gives it.

    For autograd, which keeps what a product was made of: so it keeps the bytes, not the dense weight.

    >>> import numerics as nx
    >>> q = nx.quantize(torch.tensor([[0.5, -1.0], [2.0, 3.5]]), "int4")
    >>> type(q.t()).__name__, q.t().dequantize().tolist()
    ('Permuted', [[0.5, 2.0], [-1.0, 3.5]])
    """

    axes: tuple[int, ...]

    @staticmethod
    def __new__(cls, quantized: Any, axes: tuple[int, ...], requires_grad: bool = False) -> Permuted:
        """axes: of the QTensor, in their new order."""
        found = cls.made(
            [quantized.shape[axis] for axis in axes], requires_grad, dtype=quantized.dtype,
            strides=[quantized.stride()[axis] for axis in axes], device=quantized.device,
        )  # fmt: skip
        found.quantized, found.axes = quantized, tuple(axes)
        return cast(Permuted, found)

    def dequantize(self, dtype: Any = None) -> Tensor:
        """The values, strided as those of a transposed tensor."""
        return cast(Tensor, self.quantized.dequantize(dtype).permute(self.axes))

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """The QTensor that it holds, and its axes."""
        return ["quantized"], self.axes

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, outer_size: Any, outer_stride: Any) -> Permuted:
        """Makes the tensor again of what __tensor_flatten__ gave."""
        return Permuted(inner["quantized"], context)

    def _stable_hash_for_caching(self) -> str:
        return stable_hash(self.axes, self.quantized._stable_hash_for_caching(), tensors=[self])


class Repeated(View):
    """A matrix, a QTensor or one turned, once more along axes before its own, as `expand` gives it.

    For torch's products of x of several axes, which repeat the matrix and multiply batch by batch.

    >>> import numerics as nx
    >>> q = nx.quantize(torch.tensor([[0.5, -1.0], [2.0, 3.5]]), "int4")
    >>> type(q.expand(3, 2, 2)).__name__, q.expand(3, 2, 2).dequantize().shape
    ('Repeated', torch.Size([3, 2, 2]))
    """

    before: tuple[int, ...]

    @staticmethod
    def __new__(cls, quantized: Any, before: tuple[int, ...]) -> Repeated:
        """quantized: the matrix.  before: the sizes of the axes along which it is the same."""
        sizes, strides = list(quantized.shape), list(quantized.stride())
        for n in before[::-1]:
            strides.insert(0, sizes[0] * strides[0] if n == 1 else 0)
            sizes.insert(0, n)
        found = cls.made(sizes, dtype=quantized.dtype, device=quantized.device, strides=strides)
        found.quantized, found.before = quantized, tuple(before)
        return cast(Repeated, found)

    def dequantize(self, dtype: Any = None) -> Tensor:
        """The values, strided as those of an expanded tensor."""
        return cast(Tensor, self.quantized.dequantize(dtype).expand(*self.before, -1, -1))

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """The matrix that it holds, and the sizes before its own."""
        return ["quantized"], self.before

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, outer_size: Any, outer_stride: Any) -> Repeated:
        """Makes the tensor again of what __tensor_flatten__ gave."""
        return Repeated(inner["quantized"], context)

    def _stable_hash_for_caching(self) -> str:
        return stable_hash(self.before, self.quantized._stable_hash_for_caching(), tensors=[self])


class Flat(View):
    """A TensorQTensor of which `q.view(-1)` is no part, such as one with scales of columns or of tiles.

    For FSDP2, which keeps its shards so and never reads them: dense, each would be held beside its bytes.

    >>> import numerics as nx
    >>> q = nx.quantize(torch.tensor([[0.5, -1.0], [2.0, 3.5]]), "int4", scheme=nx.per_channel(1))
    >>> type(q.view(-1)).__name__, (q.view(-1) + 0).tolist()
    ('Flat', [0.5714285969734192, -1.0, 2.0, 3.5])
    """

    @staticmethod
    def __new__(cls, quantized: Any) -> Flat:
        """quantized: the QTensor whose values it has in a row."""
        size = [quantized.numel()]
        found = cls.made(size, dtype=quantized.dtype, device=quantized.device)
        found.quantized = quantized
        return cast(Flat, found)

    def dequantize(self, dtype: Any = None) -> Tensor:
        """The values, in a row."""
        return cast(Tensor, self.quantized.dequantize(dtype).reshape(-1))

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """The QTensor that it holds."""
        return ["quantized"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, outer_size: Any, outer_stride: Any) -> Flat:
        """Makes the tensor again of what __tensor_flatten__ gave."""
        return Flat(inner["quantized"])


# ---- axes in another order -------------------------------------------------------------------------


def permuted(x: Any, axes: Any) -> Any:
    """A QTensor, or one permuted already, with its axes in that order."""
    axes = [axis % x.ndim for axis in axes]
    if isinstance(x, Permuted):
        axes, x = [x.axes[axis] for axis in axes], x.quantized
    return x.detach() if axes == sorted(axes) else Permuted(x, tuple(axes))


def _transposed(x: Any, first: int, second: int) -> Any:
    axes = list(range(x.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return permuted(x, axes)


def _t(x: Any) -> Any:
    return permuted(x, range(x.ndim)[::-1])


def _same(x: Permuted, *_: Any, **__: Any) -> Any:
    return Permuted(x.quantized.detach(), x.axes)


def expanded(x: Any, size: Any, **_: Any) -> Any:
    """The same where no size changes; a matrix as often as the axes before its own say."""
    own = len(size) - x.ndim
    if any(n not in (-1, of) for n, of in zip(size[own:], x.shape, strict=True)):
        return NotImplemented
    if not own:
        return aten.detach.default(x)
    return Repeated(x.detach(), tuple(size[:own])) if x.ndim == 2 else NotImplemented


def unsqueezed(x: Any, dim: int) -> Any:
    """A matrix once, along an axis before its own."""
    return Repeated(x.detach(), (1,)) if x.ndim == 2 and dim in (0, -3) else NotImplemented


def _expanded_again(x: Repeated, size: Any, **_: Any) -> Any:
    own = len(size) - x.ndim
    sizes = [of if n == -1 else n for n, of in zip(size[own:], x.shape, strict=True)]
    if sizes[-2:] != list(x.shape[-2:]) or any(
        of not in (1, n) for n, of in zip(sizes, x.before, strict=False)
    ):
        return NotImplemented
    return Repeated(x.quantized.detach(), (*size[:own], *sizes[:-2]))


def _unsqueezed_again(x: Repeated, dim: int) -> Any:
    at = dim % (x.ndim + 1)
    if at > len(x.before):
        return NotImplemented
    return Repeated(x.quantized.detach(), (*x.before[:at], 1, *x.before[at:]))


def _selected_again(x: Repeated, dim: int, index: int) -> Any:
    at = dim % x.ndim
    if at >= len(x.before) or not -x.before[at] <= index < x.before[at]:
        return NotImplemented
    rest = x.before[:at] + x.before[at + 1 :]
    return Repeated(x.quantized.detach(), rest) if rest else x.quantized.detach()


def _squeezed_again(x: Repeated, dim: int) -> Any:
    at = dim % x.ndim
    if at >= len(x.before):
        return NotImplemented
    return _selected_again(x, at, 0) if x.before[at] == 1 else _same_again(x)


def _viewed(x: Permuted, size: Any) -> Any:
    return _same(x) if tuple(size) == tuple(x.shape) else NotImplemented


def _viewed_again(x: Repeated, size: Any) -> Any:
    """Other axes before those of the matrix, for as many of it."""
    whole = len(size) > 2 and tuple(size[-2:]) == tuple(x.shape[-2:])
    same = whole and math.prod(size[:-2]) == math.prod(x.before) and -1 not in size
    return Repeated(x.quantized.detach(), tuple(size[:-2])) if same else NotImplemented


def _turned_again(x: Repeated, first: int, second: int) -> Any:
    if {first % x.ndim, second % x.ndim} != {x.ndim - 2, x.ndim - 1}:
        return NotImplemented
    return Repeated(_t(x.quantized), x.before)


def _same_again(x: Repeated, *_: Any, **__: Any) -> Any:
    return Repeated(x.quantized.detach(), x.before)


AXES: Kept = {aten.t.default: _t, aten.transpose.int: _transposed, aten.permute.default: permuted}
Permuted.kept = {
    aten.detach.default: _same, aten.alias.default: _same, aten.expand.default: expanded,
    aten.unsqueeze.default: unsqueezed, aten.view.default: _viewed, aten._unsafe_view.default: _viewed,
    **AXES,
}  # fmt: skip
Repeated.kept = {
    aten.detach.default: _same_again, aten.alias.default: _same_again, aten.view.default: _viewed_again,
    aten._unsafe_view.default: _viewed_again, aten.transpose.int: _turned_again,
    aten.expand.default: _expanded_again, aten.unsqueeze.default: _unsqueezed_again,
    aten.select.int: _selected_again, aten.squeeze.dim: _squeezed_again,
}  # fmt: skip
