"""A quantized model as ONNX Runtime runs it, fusions included, and the integers that these leave in it.

Outputs that are added to a model keep fusions from it.  So the runtime first writes down the graph that
it made of the model as it is, and the outputs are added to that one, which then runs as it stands.  A
tensor is known again by the scale of its QuantizeLinear and by that of its DequantizeLinear, each of
which got a name of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from numerics.model.ipu.network import Array
from numerics.model.ipu.predictable import zero_of
from numerics.model.ipu.running import opened, run

RENAMING: Final = ("ConstantSharing", "NhwcTransformer", "TransposeOptimizer")
"""Optimizers that merge the names of scales or turn tensors around; what is computed stays the same."""
MADE, TAKEN = "numerics/made/", "numerics/taken/"


@dataclass
class Shown:
    """A session that gives the outputs of a model, and integers of it.

    places: the output's name of a QuantizeLinear -> the tensor that holds its integers, and what is to be
    taken
    from them: the runtime makes uint8 of int8.  types: the name -> the type that the model gives it.
    """

    session: Any
    places: dict[str, tuple[str, int]]
    types: dict[str, Any]

    def run(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The outputs of the model, and the integers, by name."""
        made = run(self.session, feeds)
        integers = {
            name: (made[place].astype(np.int64) - more).astype(self.types[name])
            for name, (place, more) in self.places.items()
        }
        return made, integers


def shown(
    model: ModelProto, constants: Mapping[str, Array], zeros: Mapping[str, Array], optimized: bool
) -> Shown:
    """Opens a model with its integers among its outputs.

    constants: of the model, by name.  zeros: the zero point of every QuantizeLinear, by its output's
    name.  optimized: as the runtime's fusions leave it; else as it is written, where every tensor is
    there.
    """
    types = {name: zero.dtype for name, zero in zeros.items()}
    if not optimized:
        written = _giving(model, list(zeros))
        return Shown(opened(written, False), {name: (name, 0) for name in zeros}, types)
    marked = _marked(model, constants, list(zeros))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fused.onnx"
        opened(marked, True, left_out=RENAMING, written=file)
        made = onnx.load(file)
    places = _places(made, zeros, model)
    return Shown(opened(_giving(made, [place for place, _ in places.values()]), False), places, types)


def _giving(model: ModelProto, names: list[str]) -> ModelProto:
    """The model with more outputs."""
    found = ModelProto()
    found.CopyFrom(model)
    there = {value.name for value in found.graph.output}
    more = dict.fromkeys(name for name in names if name not in there)
    found.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in more)
    return found


def _marked(model: ModelProto, constants: Mapping[str, Array], names: list[str]) -> ModelProto:
    """The model in which every QuantizeLinear, and who takes its integers, have scales of their own names."""
    found = ModelProto()
    found.CopyFrom(model)
    numbers = {name: k for k, name in enumerate(names)}
    copies: dict[str, TensorProto] = {}
    for node in found.graph.node:
        made = node.op_type == "QuantizeLinear"
        number = numbers.get(node.output[0] if made else node.input[0] if node.input else "")
        if number is None or not (made or node.op_type == "DequantizeLinear"):
            continue
        scale, node.input[1] = constants[node.input[1]], f"{MADE if made else TAKEN}{number}"
        copies[node.input[1]] = numpy_helper.from_array(scale, node.input[1])
    found.graph.initializer.extend(copies.values())
    return found


def _places(made: ModelProto, zeros: Mapping[str, Array], model: ModelProto) -> dict[str, tuple[str, int]]:
    """Where the fused graph holds the integers of a QuantizeLinear; without those that are gone.

    A QuantizeLinear that was moved before a Transpose gives another tensor.  So a tensor counts that has kept
    its name, or that is both made and taken by the scales of one, or made, of what it was made of, and moved
    by who takes it.
    """
    constants = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    floats = {node.output[0]: node.input[0] for node in model.graph.node if node.output[0] in zeros}
    makers, takers = _by_scale(made, MADE), _by_scale(made, TAKEN)
    found = {}
    for number, name in enumerate(zeros):
        taken = {
            node.input[place - 1]: zero_of(node, constants, place) for node, place in takers.get(number, [])
        }
        places = {place: zero for place, zero in taken.items() if place == name}
        for node, place in makers.get(number, []):
            is_its_own = node.op_type != "QuantizeLinear" or node.input[0] == floats[name]
            if node.output[0] in (name, *taken) or (is_its_own and not taken):
                places[node.output[0]] = zero_of(node, constants, place)
        for place, zero in places.items():
            found[name] = place, int(zero.reshape(())) - int(zeros[name].reshape(()))
    return found


def _by_scale(model: ModelProto, mark: str) -> dict[int, list[tuple[NodeProto, int]]]:
    """The nodes that take scales of such names, and the place of the scale, by the number in the name."""
    found: dict[int, list[tuple[NodeProto, int]]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name.startswith(mark):
                found.setdefault(int(name[len(mark) :]), []).append((node, place))
    return found
