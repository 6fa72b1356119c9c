"""Sides of a product as arrays and QTensors: what a target is given, and what somebody gives us."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, cast

import numpy as np

from numerics.backends.host.arrays import take
from numerics.backends.host.float_bits import bfloat16_type, to_float32
from numerics.backends.host.tensors import check_dense, is_tensor
from numerics.conform.products.blend import Blend
from numerics.conform.products.claim import Accumulator, Claim, Operand
from numerics.conform.products.problem import Problem, Side, meanings
from numerics.conform.task import Array
from numerics.formats.block import Blocks
from numerics.formats.errors import NumericsError, said
from numerics.tensor.qtensor import ArrayQTensor, QTensor
from numerics.tensor.scheme import per_channel, per_group, per_token
from numerics.tensor.spec import QuantSpec


class Form(NamedTuple):
    """How a side is given: turned, (length, rows) with scales to match; what leads; what a QTensor is of.

    rows: of one matrix, where there are batches.
    """

    turned: bool = False
    lead: tuple[int, ...] = ()
    original: str = "float32"
    rows: int = -1

    def shaped(self, part: Array) -> Array:
        """A part of a side in the shape that it is given in."""
        found = part.reshape(*self.lead, self.rows, part.shape[-1]) if self.lead else part
        return np.ascontiguousarray(np.swapaxes(found, -1, -2) if self.turned else found)


def matrix(side: Side, form: Form) -> Any:
    """A side as a target takes it: an array, or a QTensor."""
    if side.op.spec is None:
        return form.shaped(_plain(side))
    spec = _spec_of(side.op, form)
    if side.op.micro is not None:
        return _with_microexponents(side, spec, form)
    codes = form.shaped(side.codes)
    scale, zero = (
        part if part is None or side.op.share in ("tensor", "column") else form.shaped(part)
        for part in (side.scale, side.zero)
    )
    shared = spec.shared_shape(codes.shape)
    if scale is not None:
        scale = scale.reshape(-1)[: prod(shared)].reshape(shared)  # rows without elements share nothing
    if zero is not None:
        zero = zero.reshape(-1)[: prod(shared)].reshape(shared).astype(np.int32)
    number = side.number if side.op.number else None
    return QTensor.from_parts(
        spec, codes, scale, zero_point=zero, tensor_scale=number, original=form.original
    )


def _plain(side: Side) -> Array:
    """A plain side, or codes of integers, in the type that it is given in; found once for each side."""
    kept: dict[str, Array] = side.__dict__  # as cached_property keeps what it finds
    if "plain" not in kept:
        kept["plain"] = _typed(side)
        kept["plain"].flags.writeable = False
    return kept["plain"]


def _typed(side: Side) -> Array:
    if side.op.is_value:
        found = _as_type(side.codes, str(side.op.name))
        kept = np.asarray(found, np.float32)
        assert ((kept == side.codes) | np.isnan(side.codes)).all(), "numbers were drawn that the type has not"
        return found
    element: Any = side.op.element
    return meanings(side.op)[side.codes].astype(np.int8 if element.signed else np.uint8)


def _as_type(x: Array, name: str) -> Array:
    if name == "bfloat16":
        return x.astype(bfloat16_type())
    return x.astype(name)


def _spec_of(op: Operand, form: Form) -> QuantSpec:
    """The spec of the same matrix turned, or of many of them."""
    spec = op.spec
    assert spec is not None
    if not (form.turned or form.lead):
        return spec
    axis = -1 if not form.turned else -2 if form.lead else 0
    if spec.blocked:
        return spec.with_axis(axis)
    last = len(form.lead) + (0 if form.turned else 1)
    scheme = {
        "row": per_token() if form.lead else per_channel(1), "column": per_channel(last),
        "block": per_group(op.size or 1, axis=axis),
    }  # fmt: skip
    return spec.with_scheme(scheme[op.share]) if op.share in scheme else spec


def _with_microexponents(side: Side, spec: QuantSpec, form: Form) -> QTensor:
    d = side.op.micro
    assert d is not None
    codes, scale, micro = (
        None if part is None else form.shaped(part) for part in (side.codes, side.scale, side.micro)
    )
    assert codes is not None
    packed = d.pack(Blocks(d, spec.axis or 0, codes, scale, micro))
    return ArrayQTensor(spec=spec, shape=codes.shape, packed=packed, shared=None, zero_point=None,
                        tensor_scale=None, original=form.original)  # fmt: skip


def bias_of(problem: Problem) -> tuple[Array, ...]:
    """The bias in the type of a plain a, zeros where a problem has none; nothing where the claim has none."""
    if not problem.claim.bias:
        return ()
    bias = np.zeros(len(problem.b.codes), np.float32) if problem.bias is None else problem.bias
    return (_as_type(bias, original_of(problem.claim)),)


def original_of(claim: Claim) -> str:
    """The float type that a QTensor of a claim stands for: that of the plain side."""
    return next((str(op.name) for op in (claim.a, claim.b) if op.is_value), "float32")


def arguments(problem: Problem) -> tuple[Any, ...]:
    """What a target is given: a, b, and where the claim has them the bias, c, alpha and beta."""
    original, laid = original_of(problem.claim), problem.claim.laid
    forms = (
        Form(turned, laid.lead(name, problem.batch) if problem.batch else (), original, rows)
        for name, turned, rows in zip("ab", (laid.turned_a, laid.turned_b), problem.matrix, strict=True)
    )
    sides = (matrix(side, form) for side, form in zip((problem.a, problem.b), forms, strict=True))
    return (*sides, *bias_of(problem), *_blend_of(problem))


def names_of(claim: Claim) -> tuple[str, ...]:
    """What each of the `arguments` is called."""
    names = ["bias"] * claim.bias + ["c"] * (claim.beta and not claim.in_place)
    return ("a", "b", *names, *["alpha"] * claim.alpha, *["beta"] * claim.beta)


def _blend_of(problem: Problem) -> tuple[Any, ...]:
    """c unless the array of the result holds it, alpha and beta: as far as the claim has them."""
    claim, blend = problem.claim, problem.blend or Blend()
    numbers = [blend.alpha] * claim.alpha + [blend.beta] * claim.beta
    kind = int if claim.integers else float
    return (*(() if claim.in_place else c_of(problem)), *map(kind, numbers))


def c_of(problem: Problem) -> tuple[Array, ...]:
    """c in the type and the shape of the result, zeros where a problem has none; nothing without beta."""
    claim, blend = problem.claim, problem.blend
    if not claim.beta:
        return ()
    c = np.zeros(problem.shape[:2], np.float32) if blend is None or blend.c is None else blend.c
    if not problem.batch:
        return (_as_type(c, claim.out),)
    found = np.zeros((*problem.batch, *problem.matrix), c.dtype)
    for at, rows, columns in problem.blocks():
        found[at] = c[rows, columns]
    return (_as_type(found, claim.out),)


# ---- what somebody gives us ------------------------------------------------------------------------


def side_of(name: str, came: Any) -> Side:
    """A side of an array or a QTensor (rows, length); raises NumericsError for what is neither."""
    if isinstance(came, QTensor):
        op = Operand.of(came.spec)
        _check_matrix(name, came.shape)
        if is_tensor(came):
            check_dense(cast(Any, came))
        return _of_qtensor(op, came)
    if not isinstance(came, np.ndarray) and not is_tensor(came):
        raise NumericsError(f"{name} is {said(came)}; an array, a tensor or a QTensor is due")
    x = take(came)[0]
    if x.dtype.name not in ("float32", "float16", "bfloat16"):
        raise NumericsError(
            f"{name} is an array of {x.dtype.name}; float32, float16, bfloat16 or a QTensor is due"
        )
    _check_matrix(name, x.shape)
    return Side(Operand.of(x.dtype.name), np.asarray(to_float32(x), np.float32))


def _check_matrix(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or 0 in shape:
        raise NumericsError(f"{name} has the shape {tuple(shape)}; a matrix (rows, length) is due")


def _of_qtensor(op: Operand, q: Any) -> Side:
    rows, length = q.shape
    shape = op.shared(rows, length)
    parts = []
    for part, kind in ((q.scale, None), (q.zero_point, np.int64), (q.microexponents, np.uint8)):
        array = None if part is None else np.asarray(part)
        if array is not None and kind is None and op.scale is None and op.micro is None:
            array = np.asarray(to_float32(array), np.float32)
        array = array if array is None or kind is None else array.astype(kind)
        parts.append(None if array is None else array.reshape(shape))
    scale = None if op.share == "none" else parts[0]
    return Side(op, np.asarray(q.codes), scale, parts[1], parts[2], q.tensor_scale or 1.0)


def problem_of(a: Any, b: Any, accumulate: Any) -> Problem:
    """The product of two matrices that somebody has; raises NumericsError where they do not fit."""
    sides = [side_of(name, came) for name, came in (("a", a), ("b", b))]
    lengths = [side.codes.shape[1] for side in sides]
    if lengths[0] != lengths[1]:
        raise NumericsError(
            f"a and b have rows of {lengths[0]} and {lengths[1]} elements; they are summed together"
        )
    if not isinstance(accumulate, (str, Accumulator)):
        raise NumericsError(f"accumulate={said(accumulate)}; a name or an Accumulator is due")
    options = Claim.of("float32", "float32", accumulate=accumulate)
    if options.integers:
        raise NumericsError(
            "sums of integers modulo 2**32 are the same in every order; there is nothing to ask"
        )
    return Problem(Claim(sides[0].op, sides[1].op, options.accumulate), sides[0], sides[1])
