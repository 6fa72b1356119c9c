"""The shared arithmetic as an ONNX graph: lanes that write a node for every operation on them.

Words are int32.  `BitShift` is for unsigned words until opset 28, so shifts go through uint32 and
`>>` fills with zeros, as the dialect allows (docs/dialect.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from numerics.backends.bind import SOURCES, bind

INT32, UINT32, INT64, FLOAT, BOOL = (
    TensorProto.INT32, TensorProto.UINT32, TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
)  # fmt: skip


class Graph:
    """Nodes in the making; the same operation on the same lanes is one node."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: dict[Any, Any] = {}
        self._made: dict[Any, Lane] = {}

    def input(self, name: str, kind: int, shape: Sequence[Any] = ("n",)) -> Lane:
        """An input of the model; sizes that are not fixed have names."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return Lane(self, name, kind)

    def constant(self, array: NDArray[Any]) -> Lane:
        """A tensor that is part of the model."""
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        key = kind, array.shape, array.tobytes()
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"c{len(self.constants)}")
        return Lane(self, self.constants[key].name, kind)

    def lift(self, value: Any, kind: int) -> Lane:
        """A lane, or a number as a constant of that kind; integers modulo 2**32."""
        if isinstance(value, Lane):
            return value
        if kind == INT32:
            value = (int(value) + (1 << 31)) % (1 << 32) - (1 << 31)
        return self.constant(np.array(value, helper.tensor_dtype_to_np_dtype(kind)))

    def shape(self, sizes: Sequence[int]) -> Lane:
        """Sizes or axes, as operators take them."""
        return self.constant(np.array(sizes, np.int64))

    def node(self, op: str, inputs: Sequence[Lane], kind: int, **attributes: Any) -> Lane:
        """The result of an operator."""
        key = op, tuple(lane.name for lane in inputs), kind, tuple(sorted(attributes.items()))
        if key not in self._made:
            name = f"v{len(self._made)}"
            self.nodes.append(helper.make_node(op, [lane.name for lane in inputs], [name], **attributes))
            self._made[key] = Lane(self, name, kind)
        return self._made[key]

    def cast(self, lane: Lane, kind: int) -> Lane:
        """A conversion."""
        return lane if lane.kind == kind else self.node("Cast", [lane], kind, to=kind)

    def reshape(self, lane: Lane, sizes: Sequence[int] | Lane) -> Lane:
        """Returns the same elements in another shape."""
        to = sizes if isinstance(sizes, Lane) else self.shape(sizes)
        return self.node("Reshape", [lane, to], lane.kind)

    def columns(self, lane: Lane, count: int) -> list[Lane]:
        """[n, count] as lanes [n, 1]."""
        return [self.node("Gather", [lane, self.shape([k])], lane.kind, axis=1) for k in range(count)]

    def beside(self, lanes: Sequence[Lane]) -> Lane:
        """Lanes [n, k] side by side."""
        return self.node("Concat", list(lanes), lanes[0].kind, axis=1)

    def model(
        self, outputs: dict[str, Lane], opset: int, name: str, note: str = "", domains: Sequence[str] = ()
    ) -> ModelProto:
        """The finished model, its outputs named and of the rank of the first input."""
        named = [helper.make_node("Identity", [lane.name], [output]) for output, lane in outputs.items()]
        rank = len(self.inputs[0].type.tensor_type.shape.dim)
        results = [
            helper.make_tensor_value_info(output, lane.kind, [f"{output}_{k}" for k in range(rank)])
            for output, lane in outputs.items()
        ]
        graph = helper.make_graph(
            [*self.nodes, *named], name, self.inputs, results, list(self.constants.values()), doc_string=note
        )
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        made = helper.make_model(
            graph, opset_imports=imports, ir_version=8 if opset <= 17 else 10, producer_name="numerics"
        )
        made.doc_string = note
        return made


class Lane:
    """A tensor of a graph under the operators that the dialect allows."""

    __slots__ = ("graph", "kind", "name")
    __hash__ = object.__hash__

    def __init__(self, graph: Graph, name: str, kind: int) -> None:
        self.graph, self.name, self.kind = graph, name, kind

    if TYPE_CHECKING:  # set below, one for every operator of the dialect

        def _operator(self, other: Any) -> Lane: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _operator
        __and__ = __rand__ = __or__ = __ror__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = (
            _operator
        )
        __lt__ = __le__ = __gt__ = __ge__ = _operator

    def __bool__(self) -> bool:
        raise TypeError("a lane has no truth value: use where, or make the parameter static")


Emit = Callable[[Graph, Lane, Lane], Lane]


def _plain(op: str, kind: int | None = None) -> Emit:
    return lambda graph, a, b: graph.node(op, [a, b], kind or a.kind)


def _shift(direction: str) -> Emit:
    def emit(graph: Graph, a: Lane, b: Lane) -> Lane:
        words = [graph.cast(lane, UINT32) for lane in (a, b)]
        return graph.cast(graph.node("BitShift", words, UINT32, direction=direction), INT32)

    return emit


def _binary(emit: Emit, swapped: bool) -> Callable[[Lane, Any], Lane]:
    def method(self: Lane, other: Any) -> Lane:
        ends = self, self.graph.lift(other, self.kind)
        return emit(self.graph, *(reversed(ends) if swapped else ends))

    return method


_OPERATORS = {
    "add": _plain("Add"), "sub": _plain("Sub"), "mul": _plain("Mul"), "and": _plain("BitwiseAnd"),
    "or": _plain("BitwiseOr"), "lshift": _shift("LEFT"), "rshift": _shift("RIGHT"),
}  # fmt: skip
_COMPARISONS = {
    "lt": _plain("Less", BOOL), "le": _plain("LessOrEqual", BOOL), "gt": _plain("Greater", BOOL),
    "ge": _plain("GreaterOrEqual", BOOL), "eq": _plain("Equal", BOOL),
}  # fmt: skip
for _name, _emit in {**_OPERATORS, **_COMPARISONS}.items():
    setattr(Lane, f"__{_name}__", _binary(_emit, swapped=False))
    setattr(Lane, f"__r{_name}__", _binary(_emit, swapped=True))


# ---- the primitives of the shared arithmetic ------------------------------------------------------


def where(condition: Any, yes: Any, no: Any) -> Any:
    """Where; a condition on static numbers is decided now."""
    if not isinstance(condition, Lane):
        return yes if condition else no
    graph = condition.graph
    return graph.node("Where", [condition, graph.lift(yes, INT32), graph.lift(no, INT32)], INT32)


def _extreme(op: str, static: Callable[[int, int], int]) -> Callable[[Any, Any], Any]:
    def choose(x: Any, y: Any) -> Any:
        lane = x if isinstance(x, Lane) else y
        if not isinstance(lane, Lane):
            return static(x, y)
        return lane.graph.node(op, [lane.graph.lift(x, INT32), lane.graph.lift(y, INT32)], INT32)

    return choose


minimum, maximum = _extreme("Min", min), _extreme("Max", max)


def as_bits(x: Lane) -> Lane:
    """BitCast to int32."""
    return x.graph.node("BitCast", [x], INT32, to=INT32)


def as_float(bits: Any) -> Any:
    """BitCast to float; static bits become a number."""
    if not isinstance(bits, Lane):
        return struct.unpack("<f", struct.pack("<i", bits))[0]
    return bits.graph.node("BitCast", [bits], FLOAT, to=FLOAT)


def divide(x: Any, y: Any) -> Lane:
    """Div: IEEE 754 division, half to even."""
    lane = x if isinstance(x, Lane) else y
    return lane.graph.node("Div", [lane.graph.lift(x, FLOAT), lane.graph.lift(y, FLOAT)], FLOAT)


def entry(table: Any, index: Any) -> Lane:
    """Gather from a constant."""
    graph: Graph = index.graph
    return graph.node("Gather", [graph.constant(np.array(table, np.int32)), index], INT32, axis=0)


def places_up_to(steps: Any, key: Lane) -> Lane:
    """A binary search, unrolled; behind the last step there are some that no key reaches."""
    depth = len(steps).bit_length()
    filled = (*steps, *[0x7FFFFFFF] * ((1 << depth) - 1 - len(steps)))
    place: Any = key & 0
    for half in (1 << k for k in reversed(range(depth))):
        reached = key >= entry(filled, place + (half - 1))
        place = where(reached, place + half, place)
    return cast(Lane, place)


def sum_in_halves(x: Lane, size: int) -> Lane:
    """The sum of rows [n, size], whose halves are added until one number is left: an order of its own."""
    graph = x.graph
    half = 1 << (size - 1).bit_length()
    if half > size:
        x = graph.node("Pad", [x, graph.shape([0, 0, 0, half - size])], x.kind)
    while half := half // 2:
        parts = graph.reshape(x, [-1, 2, half])
        x = graph.node("ReduceSum", [parts, graph.shape([1])], x.kind, keepdims=0)  # of two numbers
    return x


def max_over(x: Lane, axes: Sequence[int]) -> Lane:
    """The largest along axes, which stay."""
    return x.graph.node("ReduceMax", [x, x.graph.shape(axes)], x.kind, keepdims=1)


def arithmetic(rank: int = 2, sources: tuple[Any, ...] = SOURCES, block: int = 1) -> SimpleNamespace:
    """The shared arithmetic on lanes: blocks are rows [n, k] (rank 2) or [n, k / s, s]; of pairs rank 4."""
    return bind(
        {
            "where": where,
            "minimum": minimum,
            "maximum": maximum,
            "as_bits": as_bits,
            "as_float": as_float,
            "divide": divide,
            "entry": entry,
            "places_up_to": places_up_to,
            "max_of_block": lambda x: max_over(x, range(1, rank)),
            "max_of_group": lambda x: max_over(x, [-1]),
            "max_of_pair": lambda x: max_over(x, [-2, -1]),
            "sum_of_block": lambda x: sum_in_halves(x, block),
        },
        sources=sources,
    )
