"""Scales of computed tensors: batches through ONNX Runtime, observers of `nx.observe` on what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import helper

from numerics.backends.host.tensors import check_plain
from numerics.files.arrays import ArrayFile
from numerics.formats.errors import NumericsError, said
from numerics.model.ipu.configs import Config, observing
from numerics.model.ipu.network import Array, Network, named
from numerics.model.ipu.running import opened, run

Progress = Callable[[str, int, int | None], None]


def feeds_from(data: Any, network: Network) -> list[Mapping[str, Array]]:
    """Returns the batches of calibration, each a mapping of input name -> array in the model's shape.

    data: the path of an .npz file, or a mapping of input name -> array, whose first axis holds the items,
    cut into batches of the model's; or an iterable of such batches.  Raises NumericsError for missing and
    unknown names, shapes that do not fit, no items, and NaN or Inf, naming the input and its first node.
    """
    if data is None:
        raise NumericsError(
            "calibration is missing: integers need scales, which are found by running the model; give data=, "
            "an .npz file or a mapping of input name -> array, on the command line --data calibration.npz"
        )
    if not network.inputs:
        raise NumericsError(
            f"the model has no inputs, {named(network.nodes[0])} is its first node: it gives constants only"
        )
    if isinstance(data, (str, os.PathLike)):
        data = _archive(data)
    if isinstance(data, Mapping):
        batches = list(_cut(data, network))
    else:
        batches = [_checked(batch, network) for batch in _iterated(data)]
    if not batches:
        raise NumericsError("calibration has no items: one batch at least")
    return batches


def _iterated(data: Any) -> Iterator[Any]:
    """Batches one by one; raises NumericsError for what is not iterable, and for one array or tensor."""
    try:
        if hasattr(data, "shape"):
            raise TypeError("one array")
        return iter(data)
    except Exception as wrong:
        raise NumericsError(
            f"data is {said(data)}; allowed: a path, a mapping of input name -> array, or an iterable of them"
        ) from wrong


def _archive(path: Any) -> dict[str, Array]:
    try:
        file = ArrayFile(path)
        if file.alone:
            raise NumericsError(f"{file.path} holds one array")
        return {name: file.array(name) for name in file.names}
    except (NumericsError, OSError) as wrong:
        why = getattr(wrong, "strerror", None)
        told = f"{path}: {why}" if why else wrong
        raise NumericsError(
            f"no calibration data: {told}; an .npz file is needed, with an array for every input"
        ) from wrong


def _cut(data: Mapping[str, Any], network: Network) -> Iterator[Mapping[str, Array]]:
    """Arrays of many items as batches of the model's shape."""
    for name, array in data.items():
        check_plain(f"calibration of {name!r}", array)
    arrays = {str(name): np.asarray(array) for name, array in data.items()}
    shapes = _shapes(network)
    _check_names(arrays, shapes)
    counts = {}
    for name, shape in shapes.items():
        array, items = arrays[name], shape or (1,)  # of single numbers, one an item
        if (
            array.ndim != len(items)
            or array.shape[1:] != items[1:]
            or not len(array)
            or len(array) % items[0]
        ):
            due = ", ".join(f"k * {size}" if not axis else str(size) for axis, size in enumerate(items))
            raise NumericsError(
                f"calibration of {name!r} has shape {array.shape}; allowed: [{due}], whole batches of the "
                f"model's {shape}"
            )
        counts[name] = len(array) // items[0]
    if len(set(counts.values())) > 1:
        raise NumericsError(f"calibration has different numbers of batches: {counts}")
    for k in range(next(iter(counts.values()))):
        batch = {
            name: arrays[name][k * shape[0] : (k + 1) * shape[0]] if shape else arrays[name][k]
            for name, shape in shapes.items()
        }
        yield _checked(batch, network)


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    return {value.name: tuple(int(n) for n in network.shapes[value.name]) for value in network.inputs}


def _check_names(batch: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    if set(batch) != set(shapes):
        raise NumericsError(f"calibration names {', '.join(batch)}; the model takes {', '.join(shapes)}")


def _checked(batch: Any, network: Network) -> Mapping[str, Array]:
    if not isinstance(batch, Mapping):
        raise NumericsError(f"a batch is a mapping of input name -> array, not {said(batch)}")
    shapes = _shapes(network)
    _check_names(batch, shapes)
    found = {}
    for name, shape in shapes.items():
        check_plain(f"calibration of {name!r}", batch[name])
        array = np.asarray(batch[name])
        users = [named(node) for node in network.consumers(name)]
        if array.shape != shape:
            raise NumericsError(f"a batch of {name!r} has shape {array.shape}; the model takes {shape}")
        due = helper.tensor_dtype_to_np_dtype(network.types[name])
        if array.dtype != due:
            raise NumericsError(
                f"calibration of {name!r} is of {array.dtype}, which goes into "
                f"{users[0] if users else 'no node'}; the model takes {due}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NumericsError(
                f"calibration of {name!r} has NaN or Inf, which goes into "
                f"{users[0] if users else 'no node'}: no scale can be found from it"
            )
        found[name] = array
    return found


class Calibrated(NamedTuple):
    """scales: of tensors, by name.  zeros: those that were 0 in every batch, whose scale says nothing."""

    scales: dict[str, float]
    zeros: list[str]


def calibrate(
    network: Network, tensors: Sequence[str], feeds: Sequence[Mapping[str, Array]], config: Config,
    progress: Progress | None = None,
) -> Calibrated:  # fmt: skip
    """Returns a scale for every tensor, found by observers that saw all batches; and which saw only zeros.

    progress: called with the name of the step, how many batches are done, and of how many.  Raises
    NumericsError where a node makes NaN or Inf of a batch.
    """
    watching = {name: observing(config, config.activations) for name in tensors}
    inputs = {value.name for value in network.inputs}
    computed = [name for name in tensors if name not in inputs]
    zeros = dict.fromkeys(tensors)
    session = opened(network.model(computed), optimized=False)
    for done, batch in enumerate(feeds):
        made = {**batch, **run(session, batch, computed)}
        for name, one in watching.items():
            _check_finite(network, name, made[name], done)
            one.observe(made[name])
            if name in zeros and made[name].any():
                del zeros[name]
        if progress is not None:
            progress("calibrating", done + 1, len(feeds))
    return Calibrated({name: float(one.scale) for name, one in watching.items()}, [*zeros])


def _check_finite(network: Network, name: str, array: Array, batch: int) -> None:
    if not np.isfinite(array).all():
        node = network.producer(name)
        raise NumericsError(
            f"batch {batch}: {named(node) if node is not None else name} makes NaN or Inf of it: no scale "
            "can be found from it"
        )


def scales_of(array: Array, config: Config, axis: int | None = None) -> Array:
    """The scales of a constant: one, or one an index along an axis; float32, of rank 0 or 1."""
    seen = observing(config, "int8", None if axis is None else f"per_channel({axis})")
    seen.observe(np.ascontiguousarray(array))
    return np.asarray(seen.scale, np.float32).reshape(-1 if axis is not None else ())
