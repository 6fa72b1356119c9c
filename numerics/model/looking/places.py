"""Where the tensors of a model are: every name of each, and how another is put in its place everywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from numerics.formats.errors import NumericsError, a_kind_of
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import RECORD
from numerics.train.states import Recorded


class Place(NamedTuple):
    """A tensor of a module under one of its names."""

    module: nn.Module
    leaf: str
    tensor: Tensor


def parameters(model: nn.Module) -> dict[str, Place]:
    """Returns every parameter by each of its names: those that are tied come once for each."""
    found = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        found[name] = Place(model.get_submodule(owner), leaf, tensor)
    return found


def stored(model: nn.Module) -> dict[str, Place]:
    """Returns what the model's state has: its parameters, and the buffers that it saves, by each name.

    What quantizers say there of their own spec is no tensor of the model.
    """
    found = parameters(model)
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and name not in found:
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            if leaf != RECORD or not isinstance(module, Recorded):
                found[name] = Place(module, leaf, tensor)
    return {name: place for name, place in found.items() if name in state}


def packed(model: nn.Module) -> dict[str, Place]:
    """Returns the parameters that are packed, by each of their names."""
    return {name: place for name, place in parameters(model).items() if isinstance(place.tensor, QTensor)}


def memory_footprint(model: nn.Module, return_buffers: bool = True) -> int:
    """Returns the bytes of a model's parameters, packed ones as they are, and of its buffers too by default.

    transformers' own counts the bytes of the values that a QTensor stands for.
    """
    every = (*model.parameters(), *(model.buffers() if return_buffers else ()))
    return sum(x.nbytes for x in every)


def modules_around(name: str) -> list[str]:
    """Returns the names of the modules around one, the innermost first: the last is the model's, no text.

    >>> modules_around("layers.0.norm")
    ['layers.0', 'layers', '']
    """
    parts = name.split(".") if name else []
    return [".".join(parts[:n]) for n in reversed(range(len(parts)))]


def name_in(owner: str, leaf: str) -> str:
    """Returns the name in a model of what the module of that name has; the model's own is no text.

    >>> name_in("layers.0", "weight"), name_in("", "weight")
    ('layers.0.weight', 'weight')
    """
    return f"{owner}.{leaf}" if owner else leaf


def replace(places: Iterable[Place], swaps: Mapping[int, nn.Parameter]) -> None:
    """Puts parameters in the place of tensors, wherever these are.  swaps: by the id of what was there."""
    for place in list(places):
        if (came := swaps.get(id(place.tensor))) is not None:
            setattr(place.module, place.leaf, came)


def check_model(what: str, model: object) -> None:
    """Raises NumericsError for what is no module of torch."""
    if not isinstance(model, nn.Module):
        raise NumericsError(f"{what} takes a torch.nn.Module, not {type(model).__name__}")


def check_scripted(model: nn.Module) -> None:
    """Raises NumericsError for modules that torch has compiled: nothing is seen or quantized inside."""
    compiled = getattr(sys.modules.get("torch._dynamo"), "OptimizedModule", ())
    for name, module in model.named_modules():
        if isinstance(module, compiled):
            raise NumericsError(
                f"{name or 'this model'} is compiled by torch.compile, which has a forward of its own: give "
                "the module that was compiled (its _orig_mod), and compile what nx.wrap or nx.freeze returns"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise NumericsError(
                f"{name or 'this model'} is {a_kind_of(module)} of torch.jit, which hides what it "
                "computes: give the module that was scripted, and script nothing before it is quantized"
            )


def check_finite(name: str, x: Tensor) -> None:
    """Raises NumericsError for NaN and Inf in a parameter that is to be quantized."""
    if x.is_meta or isinstance(x, QTensor) or bool(torch.isfinite(x.detach()).all()):
        return
    raise NumericsError(
        f"{name} has NaN or Inf ({int((~torch.isfinite(x)).sum())} of {x.numel()} values), which would be "
        f"lost or spoil its scales; mend them, or keep it in floats: rules={{{name!r}: None}}"
    )


def is_shard(x: object) -> bool:
    """Is it a DTensor: what FSDP2 leaves in a module while that does not run?"""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(x, kind)


def shard_read(name: str) -> NumericsError:
    """What is raised where a shard of a parameter would be quantized, which has scales of the whole."""
    return NumericsError(
        f"{name} is a shard (a DTensor) where it is read, and its scales are the whole tensor's: FSDP2 "
        "gathers it for the forward of the module that fully_shard was given. Shard modules whose forward "
        "runs and reads it (of a graph: the graph alone), or wrap the model without sharding"
    )


def floating(tensor: Tensor) -> bool:
    """Does it hold floats?  A QTensor does: it stands for them."""
    return tensor.is_floating_point()


def float_type(model: nn.Module) -> torch.dtype:
    """Returns the type of the model's first floats; float32 where it has none."""
    every = (*model.parameters(), *model.buffers())
    return next((tensor.dtype for tensor in every if floating(tensor)), torch.float32)
