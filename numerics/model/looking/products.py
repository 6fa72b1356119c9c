"""What torch's operations do with the tensors that come in: multiply and sum, look differently, or neither.

Functions (eager) and operators of exported graphs (aten) have the same names here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

Axes = Callable[[Any], tuple[int, ...]]


@dataclass(frozen=True)
class Product:
    """An operation that multiplies two tensors or more, and sums.

    arguments: their names, by place.  reduced: for each factor, by place, the axes that are summed; of
        several
    the longest is the one along which blocks and groups lie, of equal ones the first.  rows: it picks rows of
    a table, and sums nothing.
    """

    arguments: tuple[str, ...]
    reduced: Mapping[int, tuple[int, ...]]
    bias: int | None = None
    rows: bool = False

    def factors(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[tuple[int, Any, tuple[int, ...]]]:
        """Each factor that came: its place, itself, and the axes that are summed."""
        found = [*args] + [None] * (len(self.arguments) - len(args))
        for name, came in kwargs.items():
            if name in self.arguments:
                found[self.arguments.index(name)] = came
        return [(place, found[place], axes) for place, axes in self.reduced.items() if place < len(found)]


@dataclass(frozen=True)
class Einsum(Product):
    """Any product: its first argument, the equation, says what is summed."""

    arguments: tuple[str, ...] = ("equation", "operands")
    reduced: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def factors(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[tuple[int, Any, tuple[int, ...]]]:
        """Each operand: its place counts from 1."""
        equation, *operands = args
        if not isinstance(equation, str):  # the form of lists of numbers
            return []
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = list(operands[0])
        return [
            (place, came, axes)
            for place, (came, axes) in enumerate(zip(operands, summed(equation), strict=True), start=1)
        ]


@dataclass(frozen=True)
class Tensordot(Product):
    """A product that is told which axes are summed: how many of the last and first, or a list for each."""

    arguments: tuple[str, ...] = ("a", "b", "dims")
    reduced: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: {0: (-1,), 1: (0,)})

    def factors(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[tuple[int, Any, tuple[int, ...]]]:
        """Both of them."""
        a, b, *dims = [*args, *(kwargs[name] for name in self.arguments[len(args) :] if name in kwargs)]
        told = dims[0] if len(dims) == 1 else dims or 2  # an operator of a graph has two lists
        if isinstance(told, int):
            return [(0, a, tuple(range(-told, 0))), (1, b, tuple(range(told)))]
        first, second = (tuple(x) if isinstance(x, Sequence) else (int(x),) for x in told)
        return [(0, a, first), (1, b, second)]


@dataclass(frozen=True)
class Recurrent(Product):
    """A whole recurrence: of sequences that are packed, their lengths come before the state."""

    def factors(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[tuple[int, Any, tuple[int, ...]]]:
        """What comes in, and the list of weights."""
        packed = len(args) > 3 and isinstance(args[3], (list, tuple))
        return [(0, args[0], (-1,)), (2, args[3 if packed else 2], (-1,))]


def summed(equation: str) -> list[tuple[int, ...]]:
    """For each operand of an einsum the axes that its result does not have, counted from the end.

    >>> summed("bi,ij->bj"), summed("...k,...k")
    ([(-1,), (-2,)], [(-1,), (-1,)])
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if not arrow:
        letters = re.sub(r"[.,]", "", inputs)
        output = "".join(letter for letter in letters if letters.count(letter) == 1)
    return [tuple(k - len(o) for k, x in enumerate(o) if x != "." and x not in output) for o in operands]


def _conv(axes: int, transposed: bool = False) -> Product:
    """A convolution over so many axes; of a kernel the input channels and what is around are summed."""
    weight = (0, *range(2, axes + 2)) if transposed else tuple(range(1, axes + 2))
    return Product(("input", "weight", "bias"), {0: (-axes - 1,), 1: weight}, bias=2)


def _matmul(second: str) -> Product:
    return Product(("input", second), {0: (-1,), 1: (-2,)})


_ADDMM = Product(("input", "mat1", "mat2"), {1: (-1,), 2: (-2,)}, bias=0)
_ADDBMM = Product(("input", "batch1", "batch2"), {1: (-1,), 2: (-2,)}, bias=0)
_RNN = Recurrent(("input", "hx", "params"), {0: (-1,), 2: (-1,)})
_CELL = Product(("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh"), {0: (-1,), 2: (-1,), 3: (-1,)}, bias=4)
_ROWS = Product(("input", "weight"), {0: (-1,), 1: (-1,)}, rows=True)

PRODUCTS: dict[str, Product] = {
    "linear": Product(("input", "weight", "bias"), {0: (-1,), 1: (-1,)}, bias=2),
    "bilinear": Product(("input1", "input2", "weight", "bias"), {0: (-1,), 1: (-1,), 2: (-1, -2)}, bias=3),
    **{f"conv{n}d": _conv(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _conv(n, transposed=True) for n in (1, 2, 3)},
    "matmul": _matmul("other"), "mm": _matmul("mat2"), "bmm": _matmul("mat2"),
    "mv": Product(("input", "vec"), {0: (-1,), 1: (-1,)}),
    "addmm": _ADDMM, "addbmm": _ADDBMM, "baddbmm": _ADDBMM,
    "addmv": Product(("input", "mat", "vec"), {1: (-1,), 2: (-1,)}, bias=0),
    "grouped_mm": _matmul("mat2"), "_grouped_mm": _matmul("mat2"),
    "einsum": Einsum(), "tensordot": Tensordot(),
    "inner": Product(("input", "other"), {0: (-1,), 1: (-1,)}),
    "scaled_dot_product_attention": Product(("query", "key", "value"), {0: (-1,), 1: (-1,), 2: (-2,)}),
    "lstm": _RNN, "gru": _RNN, "rnn_tanh": _RNN, "rnn_relu": _RNN,
    "lstm_cell": _CELL, "gru_cell": _CELL, "rnn_tanh_cell": _CELL, "rnn_relu_cell": _CELL,
    "embedding": _ROWS, "embedding_bag": _ROWS,
}  # fmt: skip
"""By name.  `embedding` and its kin pick rows; the weight is first in the operator, second in the
function.
"""

BARE = frozenset({"matmul", "mm", "bmm", "mv", "einsum", "tensordot", "inner"})
"""Products that are no layers: of parameters alone they make parts of weights."""

RECURRENT = frozenset(name for name, one in PRODUCTS.items() if one in (_RNN, _CELL))
"""They multiply what comes in, and a state that they also add as it is, which nothing reaches alone."""

OPAQUE = frozenset(
    {"multi_head_attention_forward", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"}
)
"""One function with products inside, which nobody who watches functions can see."""

VIEWS = frozenset(
    [
        "t",
        "transpose",
        "permute",
        "reshape",
        "view",
        "unsqueeze",
        "squeeze",
        "expand",
        "expand_as",
        "contiguous",
        "to",
        "type",
        "type_as",
        "float",
        "half",
        "double",
        "bfloat16",
        "detach",
        "clone",
        "select",
        "narrow",
        "slice",
        "split",
        "chunk",
        "unbind",
        "flatten",
        "unflatten",
        "movedim",
        "swapaxes",
        "swapdims",
        "T",
        "mT",
        "H",
        "mH",
        "data",
        "__getitem__",
        "index",
        "alias",
        "lift_fresh_copy",
        "view_as",
        "reshape_as",
        "requires_grad_",
        "cpu",
        "cuda",
        "tensor_split",
        "split_with_sizes",
        "hsplit",
        "vsplit",
        "as_strided",
        "diagonal",
        "unfold",
        "numpy_T",
        "adjoint",
        "_to_copy",
        "copy",
    ]
)
"""They show a tensor, or a part of it, in another shape or type."""

RESHAPED = frozenset(
    {"reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as", "reshape_as", "ravel"}
)
"""They show the same values in the same order."""

CUTS = frozenset(
    {"__getitem__", "narrow", "select", "slice", "split", "chunk", "unbind", "tensor_split", "hsplit",
     "vsplit", "split_with_sizes", "index_select", "dsplit"}
)  # fmt: skip
"""They take a part of a tensor."""

MOVED = frozenset(
    {
        "t", "transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "T", "mT", "H", "mH",
        "numpy_T", "adjoint",
    }
)  # fmt: skip
"""They show the axes in another order."""

TURNS = frozenset({"rot90"})
"""They may turn an axis to where another one was, and do not show it."""

_POOLS = [f"{before}{kind}_pool{n}d" for before in ("", "_", "adaptive_", "_adaptive_")
          for kind in ("max", "avg") for n in (1, 2, 3)]  # fmt: skip
JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "add"})
"""Tensors meet in them: devices do that with codes of one scale."""

BESIDE = (JOINS - {"add"}) | {"where", "column_stack", "dstack", "row_stack", "block_diag", "__setitem__"}
"""They put tensors beside one another: each stays what it was."""

LIKE = frozenset(
    {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
     "new_zeros", "new_ones", "new_empty", "new_full"}
)  # fmt: skip
"""They take a shape and a type from a tensor, and none of its values."""

ON_GRID = (
    VIEWS
    | RESHAPED
    | MOVED
    | (JOINS - {"add"})
    | {*_POOLS, "relu", "mean", "dropout", "max_pool2d_with_indices"}
)
"""What comes out lies on the grid of what goes in, or is rounded to it."""

ROWS_OF = frozenset({"__getitem__", "index", "index_select", "gather", "take_along_dim"})
"""They pick what they return from their first argument; what says which is not a factor."""

_BETWEEN = (
    "cdist", "pairwise_distance", "dist", "smooth_l1_loss", "huber_loss", "kl_div", "logaddexp", "logaddexp2",
    "hypot", "xlogy", "float_power", "fmax", "fmin", "heaviside", "copysign", "isclose", "logical_xor",
    "searchsorted", "bucketize", "scatter_reduce", "index_reduce", "index_fill", "select_scatter",
    "slice_scatter", "diagonal_scatter", "dstack", "column_stack", "row_stack",
)  # fmt: skip
"""They take two tensors and multiply no sums of them: distances, comparisons, places."""

KEPT = frozenset(
    [
        *_BETWEEN,
        "add",
        "sub",
        "mul",
        "div",
        "true_divide",
        "floor_divide",
        "rsub",
        "radd",
        "pow",
        "neg",
        "exp",
        "exp2",
        "log",
        "log2",
        "sigmoid",
        "tanh",
        "relu",
        "gelu",
        "silu",
        "softplus",
        "softmax",
        "log_softmax",
        "where",
        "cat",
        "stack",
        "concat",
        "concatenate",
        "hstack",
        "vstack",
        "maximum",
        "minimum",
        "max",
        "min",
        "clamp",
        "clip",
        "lerp",
        "addcmul",
        "addcdiv",
        "copy_",
        "fill_",
        "masked_fill",
        "masked_scatter",
        "scatter",
        "scatter_add",
        "index_add",
        "index_copy",
        "index_put",
        "layer_norm",
        "group_norm",
        "batch_norm",
        "instance_norm",
        "rms_norm",
        "fused_layer_norm",
        "native_layer_norm",
        "local_response_norm",
        "normalize",
        "norm",
        "linalg_vector_norm",
        "linalg_norm",
        "vector_norm",
        "sum",
        "mean",
        "var",
        "std",
        "prod",
        "abs",
        "sqrt",
        "rsqrt",
        "square",
        "sign",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "isnan",
        "isfinite",
        "isinf",
        "logical_not",
        "logical_and",
        "logical_or",
        "dropout",
        "pad",
        "constant_pad_nd",
        "interpolate",
        "grid_sample",
        "prelu",
        "repeat",
        "tile",
        "roll",
        "flip",
        "repeat_interleave",
        "broadcast_to",
        "broadcast_tensors",
        "meshgrid",
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "new_tensor",
        "sin",
        "cos",
        "atan2",
        "complex",
        "polar",
        "view_as_real",
        "view_as_complex",
        "view_as_real_copy",
        "cumsum",
        "cumprod",
        "logcumsumexp",
        "logsumexp",
        "remainder",
        "fmod",
        "erf",
        "erfc",
        "reciprocal",
        "log1p",
        "expm1",
        "hardtanh",
        "leaky_relu",
        "elu",
        "__and__",
        "__or__",
        "__invert__",
        "triu",
        "tril",
        "masked_select",
        "nonzero",
        "topk",
        "sort",
        "argmax",
        "argmin",
        "amax",
        "amin",
        "__setitem__",
        "set_",
        "nan_to_num",
        "rot90",
        "sym_size",
        "positive",
        "hadamard",
        "outer",
        "kron",
        "allclose",
        "equal",
        "batch_norm_update_stats",
        "_native_batch_norm_legit",
        "native_group_norm",
        "mse_loss",
        "l1_loss",
        "cross_entropy",
        "_assert_tensor_metadata",
        "_assert_scalar",
        "_assert_async",
        "_enter_autocast",
        "_exit_autocast",
        "rms_norm_",
    ]
)
"""Element by element, norms, places: what no block or group of another tensor is multiplied with."""

_SAME = {
    "__matmul__": "matmul", "__rmatmul__": "matmul", "__imatmul__": "matmul", "convolution": "conv",
    "linalg_matmul": "matmul",
    "__add__": "add", "__radd__": "add", "__iadd__": "add", "__sub__": "sub", "__rsub__": "sub",
    "__isub__": "sub", "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul", "__truediv__": "div",
    "__rtruediv__": "div", "__itruediv__": "div", "__pow__": "pow", "__rpow__": "pow", "__neg__": "neg",
    "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge",
    "__floordiv__": "floor_divide", "__mod__": "remainder", "subtract": "sub", "multiply": "mul",
    "divide": "div", "adaptive_avg_pool2d": "mean",
    "grouped_mm_fallback": "_grouped_mm",  # what transformers makes of it in a graph
}  # fmt: skip


def name_of(function: Any) -> str:
    """What an operation is called here, whether it is a function, a method, or an operator of a graph.

    >>> aten = torch.ops.aten
    >>> name_of(torch.Tensor.__matmul__), name_of(aten.add_.Tensor), name_of(torch.Tensor.mT.__get__)
    ('matmul', 'add', 'mT')
    """
    if isinstance(function, torch._ops.OpOverload):
        name = function._schema.name.rpartition("::")[2]
    else:
        name = getattr(function, "__name__", str(function))
        if name in ("__get__", "__set__", "__delete__"):
            name = getattr(getattr(function, "__self__", None), "__name__", name)
    name = _SAME.get(name, name)
    if name.endswith("_") and not name.endswith("__") and name[:-1] in _KNOWN:
        return name[:-1]
    return name


_KNOWN = KEPT | VIEWS | PRODUCTS.keys()


def _functions() -> dict[Any, str]:
    """The function objects that multiply: torch.compile compares those, not their names."""
    places = (torch, torch.Tensor, F, torch._C._nn, torch._VF, torch.special, torch.linalg)
    spelled = [*PRODUCTS, *(f"{name}_" for name in PRODUCTS), "__matmul__", "__rmatmul__", "__imatmul__"]
    found: dict[Any, str] = {}
    for place in places:
        for name in spelled:
            function = getattr(place, name, None)
            if callable(function):
                found[function] = name_of(function)
    for name in PRODUCTS:
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None:
            found.update(dict.fromkeys([packet, *(getattr(packet, k) for k in packet.overloads())], name))
    return found


FUNCTIONS = _functions()


def in_order(function: Any, args: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """A product and its factors from left to right: a reflected method has them the other way."""
    if function is torch.Tensor.__rmatmul__:
        return torch.matmul, (args[1], args[0])
    return function, args


def classified(name: str) -> bool:
    """Is it known what an operation of that name does with a parameter?"""
    return name in _KNOWN or name in OPAQUE or name in ROWS_OF
