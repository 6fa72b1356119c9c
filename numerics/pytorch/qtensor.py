"""QTensor as a torch tensor: a wrapper subclass that holds plain tensors only.

It stands for the values that `dequantize` gives, so its `dtype` is theirs and `format` is the number
format.  Operations that only move or cut it keep it quantized (kept_ops.py); every other takes the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Never, cast

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level
from torch._guards import TracingContext
from torch._subclasses import FakeTensor
from torch._subclasses.fake_tensor import UnsupportedFakeTensorException
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.compiler import is_dynamo_compiling as is_compiling

from numerics.backends.host.tensors import as_array, check_storage, is_marked, settled
from numerics.formats.arguments import required, unknown_argument
from numerics.formats.dispatch import choice
from numerics.formats.errors import NumericsError, said
from numerics.pytorch.moving import BECAME, Moved, become_values, may_become, moved, take
from numerics.pytorch.operators import (
    PLAIN,
    are_recorded,
    check_fixed,
    have_memory,
    is_watched,
    matrix_of,
    run,
    tensor_of,
)
from numerics.pytorch.rows import cut_along_first, joined
from numerics.pytorch.wrapper import Wrapper, constant_of_levels, stable_hash
from numerics.tensor.parts import PARTS, check_numbers, check_parts, check_shape
from numerics.tensor.qtensor import ArrayQTensor, QTensor, float_name
from numerics.tensor.spec import QuantSpec, spec_of_text

FLOATS = {kind: str(kind).removeprefix("torch.") for kind in (
    torch.float16, torch.bfloat16, torch.float32, torch.float64
)}  # fmt: skip
"""What a QTensor may stand for."""
_TRACED = (FakeTensor, FunctionalTensor)  # what torch puts in the place of parts while it traces


def _counts_nothing() -> bool:
    """Does torch count no writes here: in inference mode, in torch.func, and beneath where it counts them?"""
    if maybe_current_level() is not None or torch._C._get_tracing_state() is not None:
        return True
    return torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.ADInplaceOrView)


class TensorQTensor(QTensor, Wrapper):  # type: ignore[misc, override]
    """A QTensor of torch tensors; made by `quantize`, by slicing, by loading.

    >>> import torch, numerics as nx
    >>> q = nx.quantize(torch.tensor([[0.5, -1.0], [2.0, 3.5]]), "int4")
    >>> q, q.dtype, q.format
    (QTensor(int4, shape=(2, 2), per_tensor(), 12 bits a value), torch.float32, int4)
    >>> torch.nn.functional.linear(torch.ones(2), q)
    tensor([-0.5000,  5.5000])
    """

    spec: QuantSpec
    packed: Tensor
    shared: Tensor | None
    zero_point: Tensor | None
    tensor_scale: Tensor | None

    @staticmethod
    def __new__(
        cls, spec: QuantSpec, shape: Sequence[int], dtype: torch.dtype, parts: Mapping[str, Tensor | None]
    ) -> TensorQTensor:
        """dtype: that of the values.  parts: by their names (PARTS); those that are not there are None.

        Raises NumericsError for parts that do not fit together.
        """
        held = {name: constant_of_levels(settled(parts.get(name))) for name in PARTS}
        _check_tensors(spec, shape, dtype, held)
        made = cls.made(tuple(shape), dtype=dtype, device=cast(Tensor, held["packed"]).device)
        made.__dict__.update(held, spec=spec)
        made.count_writes()
        return cast(TensorQTensor, made)

    def __init__(self, *_: Any, **__: Any) -> None:
        """All is done when it is made."""

    @classmethod
    def of_parts(cls, spec: QuantSpec, x: Tensor, *parts: Tensor) -> TensorQTensor:
        """What the operator `quantize` has just made of x: empty tensors stand for what is not there.

        They fit as they are, so they are not looked at again.
        """
        if maybe_current_level() is not None:
            parts = tuple(map(constant_of_levels, parts))
        packed, shared, zero_point, tensor_scale = parts
        made = cls.made(x.shape, dtype=x.dtype, device=packed.device)
        made.__dict__.update(
            spec=spec, packed=packed,
            shared=shared if not spec.blocked or spec.block.scale_beside else None,
            zero_point=None if spec.blocked or spec.symmetric else zero_point,
            tensor_scale=tensor_scale if spec.blocked and spec.block.has_tensor_scale else None,
        )  # fmt: skip
        made.count_writes()
        return cast(TensorQTensor, made)

    def count_writes(self) -> None:
        """Has torch count writes into its parts as writes into itself: they are others in the same memory.

        Torch keeps a QTensor for a gradient, and looks then whether it was written into since.  What is
        detached from it shares its count, and takes the memory of a part.  What an operation makes is counted
        when torch's function returns, since beneath it torch counts nothing: views share what they are of.
        """
        if is_compiling() or torch._C._len_torch_dispatch_stack() or _counts_nothing():
            return
        with torch._C.DisableTorchFunctionSubclass(), torch._C._DisableTorchDispatch():
            for name in PARTS:
                part = self.__dict__[name]
                if type(part) is Tensor and not part.requires_grad and not part.is_inference():
                    made = self.__dict__[name] = Tensor.detach(self)
                    made.data = part

    def __setattr__(self, name: str, value: Any) -> None:
        """A part, or a spec, only where it fits the others."""
        if name in PARTS or name == "spec":
            value = constant_of_levels(settled(value))
            held = {part: getattr(self, part) for part in PARTS} | {"spec": self.spec, name: value}
            spec = held.pop("spec")
            _check_tensors(spec, self.shape, self.dtype, held)
            check_numbers(spec, self.original, held)
        try:
            super().__setattr__(name, value)
        except AttributeError as fixed:  # shape, is_leaf and their kin
            raise NumericsError(f"{name} of {self!r} cannot be assigned: {fixed}") from None

    @property
    def original(self) -> str:  # type: ignore[override]
        """The float type that it stands for."""
        return FLOATS[self.dtype]

    __repr__ = QTensor.__repr__  # type: ignore[assignment]
    __getitem__ = Tensor.__getitem__
    to = Tensor.to

    @required
    def dequantize(self, dtype: Any = None, *unnamed: Never, **unknown: Never) -> Tensor:
        """Returns the values in the type that was quantized, or in `dtype`: a float of 16, 32 or 64 bits."""
        if unknown or unnamed:
            raise unknown_argument(QTensor.dequantize, unknown, (), unnamed)
        with torch._C.DisableTorchFunctionSubclass():  # what is asked of itself need not go round by it
            arrays = None if is_watched() or are_recorded(self.parts) else self.arrays
            if arrays is not None:
                return tensor_of(arrays.dequantize(dtype))
            shape = self.shape
        return self.values_of((self.packed, self.shared, self.zero_point), shape, dtype)

    def values_of(self, stored: tuple[Any, Any, Any], shape: Sequence[Any], dtype: Any = None) -> Tensor:
        """Returns the values of bytes, scales and zero points, quantized as this tensor: of some rows."""
        with torch._C.DisableTorchFunctionSubclass():
            wide = self.original
        parts = *stored, self.tensor_scale
        check_unwritten(self)
        name = wide if dtype is None else float_name(dtype)
        sizes = list(shape) if torch._C._get_tracing_state() is None else list(map(int, shape))
        # torch.jit.trace makes tensors of sizes, which no operator takes
        return cast(Tensor, run("dequantize", *parts, sizes, text_of(self.spec), wide, name))

    def with_parts(
        self, spec: QuantSpec, shape: tuple[int, ...], packed: Any, shared: Any, zero_point: Any
    ) -> TensorQTensor:
        """Returns the same kind of tensor made of other parts, with this one's tensor scale."""
        parts = packed, shared, zero_point, self.tensor_scale
        return TensorQTensor(spec, shape, self.dtype, dict(zip(PARTS, parts, strict=True)))

    def each(self, move: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None) -> TensorQTensor:
        """The same, each of its tensors moved, copied or made anew by a function."""
        parts = {name: getattr(self, name) for name in PARTS}
        moved = {name: None if part is None else move(part) for name, part in parts.items()}
        return TensorQTensor(self.spec, self.shape, dtype or self.dtype, moved)

    @property
    def parts(self) -> list[Tensor]:
        """The tensors that it holds."""
        return [part for name in PARTS if (part := self.__dict__[name]) is not None]

    @property
    def arrays(self) -> ArrayQTensor | None:
        """The same of its backend's arrays, kept beside it until its memory or its backend is another.

        Arrays show what is written into parts; a tensor's scale is a number there, whose bits are read each
        time.
        None where parts have no memory, or numbers other than stand there, which arrays would not show.
        """
        held = self.parts
        if not have_memory(held) or any(part.is_neg() or part._is_zerotensor() for part in held):
            return None
        memory, known = [choice.get(), *map(_place, held)], self.__dict__.get("_arrays")
        if (
            known is None
            or known[0] != memory
            or known[1].spec is not self.spec
            or known[2].tobytes() != known[3]
        ):
            check_fixed("a QTensor", held)
            parts = [self.__dict__[name] for name in PARTS]
            number = np.empty(0) if parts[3] is None else as_array(parts[3])
            bits = number.tobytes()
            made = matrix_of(parts, tuple(self.shape), self.spec, self.original)
            known = self.__dict__["_arrays"] = memory, made, number, bits
        return cast(ArrayQTensor, known[1])

    def check_whole(self) -> None:
        """Raises NumericsError unless its parts are what they were made as, with their memory.

        Each is a tensor that its owner can reach: `q.packed.data = ...` and `q.packed.resize_(...)` ask
        nobody.  Who reads parts by torch's own operators, which take memory for granted, asks here first.
        """
        held = self.parts
        facts = [self.spec, *map(_place, held)] if have_memory(held) and not is_watched() else None
        if facts is not None and self.__dict__.get("_whole") == facts:
            return  # as they were when they were looked at last
        _check_tensors(self.spec, self.shape, self.dtype, {name: getattr(self, name) for name in PARTS})
        check_unwritten(self)
        for part in held:
            if type(part) in PLAIN:
                check_storage(part)
        self.__dict__["_whole"] = facts

    def settled(self) -> TensorQTensor:
        """The same, `check_whole`, without negations that its parts have been given since it was made."""
        self.check_whole()
        return self.each(settled) if any(map(is_marked, self.parts)) else self

    # ---- what torch asks of a subclass ---------------------------------------------------------

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """The names of its tensors, and what else it is made of."""
        held = {name: getattr(self, name) for name in PARTS}
        if torch.compiler.is_exporting():  # the program would keep what does not fit
            check_parts(self.spec, self.shape, self.original, held)
        return [name for name, part in held.items() if part is not None], (self.spec, self.dtype)

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], context: Any, outer_size: Any, outer_stride: Any
    ) -> TensorQTensor:
        """Makes the tensor again of what __tensor_flatten__ gave."""
        spec, dtype = context
        return TensorQTensor(spec, outer_size, dtype, inner)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Plain tensors and texts that `torch.load(weights_only=True)` takes, and `rebuilt` will, too."""
        self.check_whole()
        parts = [getattr(self, name) for name in PARTS]
        check_numbers(self.spec, self.original, dict(zip(PARTS, parts, strict=True)))
        facts = (self.spec.text, tuple(self.shape), self.original, parts, self.requires_grad)
        return rebuilt, (*facts, True) if isinstance(self, torch.nn.Parameter) else facts

    def _stable_hash_for_caching(self) -> str:
        return stable_hash(self.spec.text, tensors=[self, *self.parts])

    @classmethod
    def takes_data(cls, x: Any, came: Any) -> bool:
        """A parameter that a module converts becomes its values, or what was made of it: what is tied to it
        stays so.
        """
        if isinstance(came, Moved):
            return True
        return isinstance(x, TensorQTensor) and _are_values(x, came) and may_become(x)

    @classmethod
    def given(cls, args: Any, found: Wrapper) -> Any:
        """The same; a Moved where a module converts a parameter that is held elsewhere."""
        return moved(args[0], found) if args and type(args[0]) is TensorQTensor else found

    @property
    def data(self) -> Any:
        """The same tensor without its history.

        It takes another QTensor of its shape and type; of a Parameter also its values in another float
        type, as `module.double()` has them: then it is a plain Parameter from there on.
        """
        return self.detach()

    @data.setter
    def data(self, came: Any) -> None:
        if isinstance(came, Moved):
            made = came.numerics_of
            if made is not self and take(self, made):
                beside = self._beside
                self.__dict__.clear()
                self.__dict__.update(beside, spec=made.spec, **{name: getattr(made, name) for name in PARTS})
            return
        if _are_values(self, came):
            become_values(self, came.detach(), self._beside)
            return
        if not isinstance(came, TensorQTensor) or (came.shape, came.dtype) != (self.shape, self.dtype):
            raise NumericsError(
                f"{self!r} cannot take the memory of {type(came).__name__} {came.dtype} {tuple(came.shape)}: "
                "put a new Parameter in its place"
            )
        self.__dict__.update({name: getattr(came, name) for name in PARTS}, spec=came.spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> TensorQTensor:
        """A copy of all its parts; torch's own looks for the values' memory."""
        found = memo.get(id(self))
        if found is None:
            self.check_whole()
            found = memo[id(self)] = self.each(Tensor.clone).requires_grad_(self.requires_grad)
            found.__dict__.update(deepcopy(self._beside, memo))
            if self.grad is not None:
                found.grad = deepcopy(self.grad, memo)
        return cast(TensorQTensor, found)

    @property
    def _beside(self) -> dict[str, Any]:
        """What its owner has attached to it."""
        own = (*PARTS, "spec", "_arrays", "_whole", "_rest", BECAME, MEMORY)
        return {name: held for name, held in self.__dict__.items() if name not in own}

    def share_memory_(self) -> TensorQTensor:
        """Moves its parts to memory that other processes see."""
        for part in self.parts:
            part.share_memory_()
        return self

    def is_shared(self) -> bool:
        """Do other processes see its parts?"""
        return all(part.is_shared() for part in self.parts)

    # ---- FSDP2: what is gathered, and how it is put together -------------------------------------

    def fsdp_pre_all_gather(
        self, mesh: Any, size: Any, stride: Any, module: Any, policy: Any
    ) -> tuple[tuple[Tensor, ...], Any]:
        """Its tensors that are cut along the first axis; the others are the same on every rank."""
        cut, whole = cut_along_first(self)
        return tuple(cut.values()), (self.spec, tuple(cut), whole, tuple(size), self.dtype)

    def fsdp_post_all_gather(
        self, gathered: tuple[Tensor, ...], metadata: Any, param_dtype: torch.dtype, *, out: Any = None
    ) -> Any:
        """The whole tensor of all ranks' parts, trimmed of what evened them out."""
        spec, names, whole, size, dtype = metadata
        if out is not None:
            return None
        cut = dict(zip(names, gathered, strict=False))
        if len(cut) < len(names):  # of one rank FSDP gathers the first alone: all rows are here
            cut, _ = cut_along_first(self)
        parts = joined(size[0], cut, whole)
        return TensorQTensor(
            spec, size, dtype, parts
        ), ()  # views of what was gathered: FSDP fills that again


def rebuilt(
    spec: str, shape: tuple[int, ...], dtype: str, parts: list[Any], requires_grad: bool,
    parameter: bool = False,
) -> Any:  # fmt: skip
    """A QTensor from what a pickle holds, whatever it holds; raises NumericsError where that is none."""
    if not isinstance(parts, (list, tuple)) or len(parts) != len(PARTS) or type(requires_grad) is not bool:
        raise NumericsError(f"a QTensor is made of {', '.join(PARTS)} and of whether it learns")
    kind = {name: kind for kind, name in FLOATS.items()}.get(dtype if isinstance(dtype, str) else "")
    held = dict(zip(PARTS, parts, strict=True))
    made = TensorQTensor(QuantSpec.parse(spec), check_shape(shape), kind, held)
    check_numbers(made.spec, made.original, held)
    return (
        torch.nn.Parameter(made, requires_grad) if parameter is True else made.requires_grad_(requires_grad)
    )


def wrapped(spec: QuantSpec | str, x: Tensor, *parts: Tensor) -> TensorQTensor:
    """What the operator `quantize` made of x, as one tensor."""
    made = QuantSpec.parse(spec) if isinstance(spec, str) else spec
    return TensorQTensor.of_parts(made, x, *parts)


def _check_tensors(spec: Any, shape: Any, dtype: Any, parts: dict[str, Any]) -> None:
    """check_parts, for parts that are tensors: what torch makes without looking at it.

    torch.compile puts tensors of its own in their place, and would call what is refused there a fault of
    itself: parts that do not fit are found by the operator that reads them when it runs.
    """
    if dtype not in FLOATS:
        raise NumericsError(f"a QTensor stands for {', '.join(FLOATS.values())}, not {said(dtype)}")
    if not all(part is None or isinstance(part, Tensor) for part in parts.values()):
        kinds = ", ".join(type(part).__name__ for part in parts.values())
        raise NumericsError(f"a QTensor of torch is made of tensors, not of {kinds}")
    if not any(map(is_stand_in, parts.values())):
        check_parts(spec, shape, FLOATS[dtype], parts)


def is_stand_in(x: Any) -> bool:
    """Is x what torch puts in a tensor's place while it traces?"""
    return isinstance(x, _TRACED)


MEMORY = "_memory"
"""Under that name a part of a tensor, or one that shares its memory, holds what stands in for that one's
parts in a graph: torch counts no writes for views that are made where it stands in for them."""


def follows(made: TensorQTensor, q: TensorQTensor) -> TensorQTensor:
    """Returns what was made of q in its memory; in a graph, with q's parts beside (`MEMORY`)."""
    if any(map(is_stand_in, q.parts)):
        made.__dict__[MEMORY] = [*q.parts, *q.__dict__.get(MEMORY, ())]
    return made


def check_unwritten(q: TensorQTensor) -> None:
    """Ends a graph of torch.compile before a QTensor of which a part was written into in that graph.

    A graph has such a part as an argument beside the QTensor, and what follows would read it as it came.
    """
    held = [*q.parts, *q.__dict__.get(MEMORY, ())]
    if any(isinstance(part, FakeTensor) and not part.is_inference() and part._version for part in held):
        end_graph(
            "a part of a QTensor (packed, shared, zero_point, tensor_scale) was written into, and what reads "
            "the QTensor belongs in another graph: leave out fullgraph=True, or write before the compiled one"
        )


def end_graph(why: str) -> None:
    """Ends a graph of torch.compile before what is done now, which is then done without it.

    With fullgraph=True torch raises its error, which says why.  Elsewhere nothing happens; torch.export has
    parts for what they are.
    """
    if TracingContext.try_get() is not None and not torch.compiler.is_exporting():
        raise UnsupportedFakeTensorException(why)


def _are_values(q: TensorQTensor, came: Any) -> bool:
    """Is that a plain tensor for a Parameter, in a float type other than the one it stands for?"""
    if type(came) is not Tensor or not isinstance(q, torch.nn.Parameter):
        return False
    return came.shape == q.shape and came.dtype in FLOATS and came.dtype != q.dtype


def _place(part: Tensor) -> tuple[Any, ...]:
    """Where a part lies, and as what: of another place, shape or type, or to learn, it is another."""
    try:
        held = part.untyped_storage().nbytes()
    except NotImplementedError:
        check_storage(part)  # which says why there is none
        raise
    learns = part.requires_grad and torch.is_grad_enabled()
    return part.data_ptr(), held, part.shape, part.stride(), part.dtype, learns


def text_of(spec: QuantSpec) -> str:
    """Its text: a constant for torch.compile."""
    return spec.text


torch.serialization.add_safe_globals([rebuilt, spec_of_text])
