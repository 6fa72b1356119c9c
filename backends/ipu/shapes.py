"""The shape of an exported operation: of any rank, with sizes that are open under a name.

The graphs work element by element, or on rows of blocks whose number they read from the input, so that a
shape is what the model declares and nothing of its nodes, but for the axis of AMD Quark's operators.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, ValueInfoProto, helper

from numerics.formats.block import Block
from numerics.formats.dtype import Dtype
from numerics.formats.errors import NumericsError, said

SHARED = ("scale", "microexponents")  # one number a block
QUARK = "com.amd.quark"
Size = int | str


def shaped(model: ModelProto, d: Dtype, op: str, shape: Sequence[Size] | None) -> ModelProto:
    """Gives a model of one operation that input shape; None leaves it as it is.

    Raises NumericsError for what is no shape, for blocks that the last axis does not hold whole, and for
    pack and unpack.
    """
    if shape is None:
        return model
    if op in ("pack", "unpack"):
        raise NumericsError(f"shape= does not belong to op={op!r}: a string of bits is flat")
    sizes = sizes_of(shape)
    block = d.block if isinstance(d, Block) and op != "requantize" else None
    if block is not None:
        _check_whole(sizes, block, d)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in SHARED and block is not None:
            _declare(value, _blocks(sizes, block))
        elif value.name != "tensor_scale":
            _declare(value, sizes)
    for node in model.graph.node:
        if node.domain == QUARK:
            kept = [each for each in node.attribute if each.name != "axis"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("axis", len(sizes) - 1)])
    return model


def sizes_of(shape: Sequence[Size]) -> tuple[Size, ...]:
    """The sizes that came; raises NumericsError for what is no size and no name.

    >>> sizes_of(("batch", 3))
    ('batch', 3)
    """
    if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence):
        raise NumericsError(f"shape is {said(shape)}; allowed: sizes and names, such as ('batch', 3)")
    for size in shape:
        named = isinstance(size, str) and size.isidentifier()
        if not named and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise NumericsError(f"shape has {said(size)}; allowed: sizes from 1 on, and names of open ones")
    return tuple(shape)


def _check_whole(sizes: tuple[Size, ...], block: int, d: Dtype) -> None:
    if not sizes:
        raise NumericsError(f"{d}: blocks lie along the last axis, and shape=() has none")
    last = sizes[-1]
    if isinstance(last, int) and last % block:
        raise NumericsError(f"{d}: the last axis has {last}, which is no multiple of the block of {block}")


def _blocks(sizes: tuple[Size, ...], block: int) -> tuple[Size, ...]:
    last = sizes[-1]
    return (*sizes[:-1], last // block if isinstance(last, int) else f"{last}_blocks")


def _declare(value: ValueInfoProto, sizes: tuple[Size, ...]) -> None:
    tensor = value.type.tensor_type
    del tensor.shape.dim[:]
    for size in sizes:
        tensor.shape.dim.add(**{"dim_value" if isinstance(size, int) else "dim_param": size})
