"""A model as nodes and constants: what the passes read and change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from numerics.formats.errors import NumericsError

Array = NDArray[Any]
MOST_BYTES: Final = 2**31 - 1
"""Of a model: protobuf writes no more, and ONNX Runtime takes a model in memory as protobuf."""


def named(node: NodeProto) -> str:
    """A node as messages name it: by its name, or by what it makes where it has none.

    >>> named(helper.make_node("Relu", ["x"], ["y"]))
    "Relu that makes 'y'"
    """
    return f"{node.op_type} {node.name!r}" if node.name else f"{node.op_type} that makes {node.output[0]!r}"


def label(node: NodeProto) -> str:
    """A node as the report and keep= have it: its name, or that of what it makes where it has none."""
    return node.name or next((str(name) for name in node.output if name), "")


def check_bytes(sizes: Mapping[str, int], nodes: Iterable[NodeProto], what: str) -> None:
    """Raises NumericsError where tensors, name -> bytes, are more than a model in memory may have."""
    total = sum(sizes.values())
    if total <= MOST_BYTES:
        return
    largest = max(sizes, key=sizes.__getitem__)
    users = [named(node) for node in nodes if largest in node.input]
    raise NumericsError(
        f"the tensors of {what} have {total:,} bytes, the largest {largest!r} of "
        f"{users[0] if users else 'no node'}; a model in memory has at most {MOST_BYTES:,}: split it "
        "(onnx.utils.extract_model), or shrink its weights first"
    )


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; the default where it is not there."""
    found = next((each for each in node.attribute if each.name == name), None)
    value = default if found is None else helper.get_attribute_value(found)
    return value.decode() if isinstance(value, bytes) else value


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Gives an attribute that value, whether or not it was there."""
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


class Network:
    """A graph in the making.

    nodes: in an order in which they can run.  constants: name -> array.  types, shapes: of every tensor
    that ONNX's shape inference knows, by name.  keep: names of nodes, and operators, that are to stay as
    they are: no pass makes another function of them.  came: the nodes that came, by name, and their
    operators.  defaults: inputs that have a value in the file, of which constants are made.
    turned: constants that are others turned around, name -> the name of the other.
    """

    def __init__(self, model: ModelProto, keep: Sequence[str] = ()) -> None:
        self.keep = tuple(keep)
        self.came = {label(node): node.op_type for node in model.graph.node}
        self.source = ModelProto()
        self.source.CopyFrom(model)
        graph = self.source.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.constants: dict[str, Array] = {
            each.name: numpy_helper.to_array(each) for each in graph.initializer
        }
        self.inputs = [value for value in graph.input if value.name not in self.constants]
        self.defaults = [value.name for value in graph.input if value.name in self.constants]
        self.outputs = [value.name for value in graph.output]
        self._names = {*self.constants, *(value.name for value in graph.input), *self.outputs}
        self._names |= {n for node in self.nodes for n in (*node.input, *node.output, node.name)}
        self.turned: dict[str, str] = {}
        self.types: dict[str, int] = {}
        self.shapes: dict[str, tuple[int | str, ...]] = {}
        self.infer()

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return next(each.version for each in self.source.opset_import if each.domain in ("", "ai.onnx"))

    def infer(self) -> None:
        """Finds types and shapes anew."""
        inferred = onnx.shape_inference.infer_shapes(self.model(), data_prop=True).graph
        self.types = {name: TensorProto.FLOAT for name, a in self.constants.items() if a.dtype == np.float32}
        self.shapes = {name: array.shape for name, array in self.constants.items()}
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                sizes = tensor.shape.dim
                self.shapes[value.name] = tuple(
                    size.dim_value if size.HasField("dim_value") else size.dim_param for size in sizes
                )

    def model(self, outputs: Sequence[str] = ()) -> ModelProto:
        """The model as it is now.  outputs: tensors that it gives besides its own.

        Raises NumericsError where constants that were computed have made it larger than a model may be.
        """
        self.check_size()
        made = ModelProto()
        made.CopyFrom(self.source)
        del made.graph.node[:], made.graph.initializer[:], made.graph.input[:], made.graph.value_info[:]
        made.graph.node.extend(self.nodes)
        made.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in self.constants.items())
        made.graph.input.extend(self.inputs)
        more = [name for name in outputs if name not in self.outputs]
        made.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in more)
        return made

    def check_size(self) -> None:
        """Raises NumericsError where the constants are more than a model may have."""
        sizes = {name: array.nbytes for name, array in self.constants.items()}
        check_bytes(sizes, self.nodes, "this model, with its constants computed,")

    # ---- who makes what, and who takes it --------------------------------------------------------

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if name in node.output), None)

    def consumers(self, name: str) -> list[NodeProto]:
        """The nodes that take a tensor."""
        return [node for node in self.nodes if name in node.input]

    def only_consumer(self, name: str) -> NodeProto | None:
        """The node that takes a tensor where nothing else does, the model's outputs included."""
        found = self.consumers(name)
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def is_float(self, name: str) -> bool:
        """Is the tensor of float32?"""
        return self.types.get(name) == TensorProto.FLOAT

    def computed(self, node: NodeProto) -> list[str]:
        """The inputs of a node that are computed: neither constants nor left out."""
        return [name for name in node.input if name and name not in self.constants]

    def constant(self, node: NodeProto, place: int) -> Array | None:
        """The constant that stands at an input's place; None where there is none."""
        name = node.input[place] if place < len(node.input) else ""
        return self.constants.get(name) if name else None

    # ---- changing --------------------------------------------------------------------------------

    def new_name(self, wanted: str) -> str:
        """A name that no tensor and no node ever had, and that nothing else is given."""
        found, count = wanted, 0
        while found in self._names:
            found, count = f"{wanted}_{count}", count + 1
        self._names.add(found)
        return found

    def add_constant(self, wanted: str, array: Array) -> str:
        """Takes in a constant; returns the name that it got."""
        name = self.new_name(wanted)
        self.constants[name] = array
        return name

    def replace(self, node: NodeProto, *others: NodeProto) -> None:
        """Puts nodes in the place of one."""
        at = next(place for place, each in enumerate(self.nodes) if each is node)
        self.nodes[at : at + 1] = others

    def redirect(self, old: str, new: str) -> None:
        """Gives every node that takes one tensor another."""
        for node in self.nodes:
            for place, name in enumerate(node.input):
                if name == old:
                    node.input[place] = new

    def drop_unused(self) -> None:
        """Forgets constants that nothing takes."""
        used = {name for node in self.nodes for name in node.input} | set(self.outputs)
        self.constants = {name: array for name, array in self.constants.items() if name in used}

    def is_kept(self, node: NodeProto) -> bool:
        """Is it to stay as it is: by its name, as the report has it, or by its operator?"""
        return label(node) in self.keep or node.op_type in self.keep

    def walk_free(self) -> Iterator[NodeProto]:
        """As `walk`, without the nodes that are to stay as they are."""
        yield from (node for node in self.walk() if not self.is_kept(node))

    def walk(self) -> Iterator[NodeProto]:
        """The nodes as they are now; changing the network meanwhile is allowed."""
        yield from list(self.nodes)
