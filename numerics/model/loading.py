"""Files into models, and what a model takes: quantized and float tensors alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from numerics.backends.paths import path_of
from numerics.files.checkpoint import PathLike
from numerics.files.save_load import MODEL, loaded_of, model_text
from numerics.files.shards import Source
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, warn
from numerics.model.freezing import computes, frozen_from, plan_said, quantizes_computed
from numerics.model.looking.places import Place, check_model, replace, stored
from numerics.model.looking.restoring import rewritten, undone
from numerics.model.wrapped.aside import held_in
from numerics.model.wrapped.eager import show_packed
from numerics.model.wrapped.fitting import (
    check_same_plan,
    check_tensors,
    kind_of_scale,
    kinds_of_scales,
    prefix_of,
    recorded,
    way_of_prefix,
    way_of_scales,
)
from numerics.model.wrapped.quantizers import Static, quantizers
from numerics.model.wrapped.renaming import renamed
from numerics.model.wrapped.state import is_wrapped, state_of
from numerics.model.wrapped.structure import know_tensors
from numerics.pytorch.kept_ops import keeps_values
from numerics.pytorch.qtensor import FLOATS, TensorQTensor
from numerics.tensor.parts import PARTS
from numerics.tensor.spec import RECORD
from numerics.train.states import Recorded, check_recorded
from numerics.view.table import Column, Table, name_column
from numerics.view.text import folded

Model = TypeVar("Model", bound=nn.Module)

_LOADED = "nx.load(path, library='torch')"

# ---- a file into a model -------------------------------------------------------------------------------


@keywords
def load_into(model: Model, path: PathLike, *, example: Any = None) -> Model:
    """Puts the tensors of a safetensors file, or of a folder of them, into a model, in place; returns it.

    model: of floats, frozen, or without memory (on torch's meta device).  path: of a file that
    `nx.save(model.state_dict(), path)` or `numerics quantize` wrote, or of anybody's with the model's names;
    of a folder with one such file, or with several and an index, as Hugging Face's are; or of the index.
    A quantized tensor becomes a Parameter that does not learn, in the place of the float one and of all that
    is tied to it; other tensors are copied, and where the model had a quantized one, a float Parameter that
    does not learn takes its place (not where it was frozen with formats of computed tensors, which would go
    on without those of its weights).  A state of the other mode is taken by its names there.  Of tied
    tensors the file may have one or all.

    A file of `frozen.state_dict()` holds the plan of the frozen model.  Where that quantizes more than
    parameters, the float model is frozen by it, with the scales of the file: use what is returned.
    example: what the model is called with, as for `nx.plan`; for plans in graph mode.  A graph, and a model
    whose normalizations are folded, is a new model.

    Raises NumericsError, before anything is changed, with all names that are missing, that the model does
    not have, whose shapes differ, or whose values the model's dtype would round.  In a model of a wider
    dtype floats keep their values, and quantized tensors their codes and scales.

    >>> import torch, numerics as nx, tempfile
    >>> layer, q = torch.nn.Linear(4, 2, bias=False), nx.quantize(torch.ones(2, 4), "int4")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"weight": q}, f"{folder}/a.safetensors")
    ...     load_into(layer, f"{folder}/a.safetensors").weight.dequantize()
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """
    check_model("load_into", model)
    came: Mapping[str, Tensor]
    came, foreign, text = _came_of(path)
    with undone(model):
        into: nn.Module = model
        if text is not None and computes(text) and not is_wrapped(model):
            came = _for_float(model, path, came)
            into = frozen_from(model, text, came, example)
        elif is_wrapped(model):
            came = _for_wrapped(model, came, text)
        held = _held(into, came)
        _put(into, path, came, foreign, text is not None)
        know_tensors(into)
        show_packed(into)
    if held:
        warn(
            f"{folded(held)}: a list, a function or another object of this model holds the parameter beside "
            "its module, and goes on to hold the floats that were there: a forward that takes it from there "
            "does not see what was loaded; read it as an attribute of its module"
        )
    return cast(Model, into)


def _held(model: nn.Module, came: Mapping[str, Tensor]) -> list[str]:
    """The names of parameters that packed ones replace, and that something beside their modules holds.

    A model that was frozen by its plan looks for these itself.
    """
    if is_wrapped(model):
        return []
    places = stored(model)
    replaced = {name: places[name].tensor for name, x in came.items()
                if isinstance(x, TensorQTensor) and name in places}  # fmt: skip
    return [*held_in(model, replaced)]


def _came_of(path: PathLike) -> tuple[dict[str, Tensor], str | None, str | None]:
    """The tensors of a file, or of all files of a folder; what is to be said of others' codes; a plan."""
    came, found, foreign, text = path_of(path), dict[str, Tensor](), None, None
    parts = os.path.isdir(came) or came.name.endswith(".index.json")
    for file in [shard.path for shard in Source(came, own=True).shards] if parts else [path]:
        tensors, told = loaded_of(file, "torch")
        found |= tensors
        foreign, text = foreign or told, text or model_text(file)
    return found, foreign, text


def _for_float(model: nn.Module, path: PathLike, came: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors for the places that a float model has; raises NumericsError where they cannot be there."""
    places = stored(model)
    if told := _unlike_all(came, places):
        raise _misfit(model, path, told)
    return _widened(came, places)


def _widened(came: Mapping[str, Tensor], places: Mapping[str, Place]) -> dict[str, Tensor]:
    """The tensors, quantized ones with the same codes for values of the wider type that their place has."""
    found, made = dict(came), dict[tuple[int, torch.dtype], Tensor]()
    for name, x in came.items():
        if name in places and isinstance(x, TensorQTensor) and _unlike(x, places[name]) is None:
            due = places[name].tensor.dtype
            if x.dtype != due:
                found[name] = made.setdefault((id(x), due), x.to(due))
    return found


def _unlike_all(came: Mapping[str, Tensor], places: Mapping[str, Place]) -> list[str]:
    """Why tensors cannot be in the places of their names, each reason once; and which type holds them."""
    pairs = {name: (x, places[name]) for name, x in came.items() if name in places}
    alike: dict[str, list[str]] = {}
    for name, (x, place) in pairs.items():
        if why := _unlike(x, place):
            alike.setdefault(why, []).append(name)
    told = [f"{folded(names)}{_each(len(names))}: {why}" for why, names in alike.items()]
    floats = [x for x, place in pairs.values() if x.is_floating_point() and place.tensor.is_floating_point()]
    narrowed = any(_is_narrowed(*pairs[name]) for names in alike.values() for name in names)
    return [*told, _way_of_types(floats)] if narrowed else told


def _each(count: int) -> str:
    return "" if count == 1 else f" (each of {count})"


def _is_narrowed(came: Tensor, place: Place) -> bool:
    """Does the model hold floats of a type that has not room for those that came, all else being alike?"""
    held, floats = place.tensor, came.is_floating_point() and place.tensor.is_floating_point()
    alike = floats and not is_lazy(held) and came.shape == held.shape and not _are_codes(came, held)
    return alike and not _goes(came, held.dtype)


def _way_of_types(floats: Sequence[Tensor]) -> str:
    """How a model comes to hold the floats of a file: in the narrowest type that changes none of them."""
    for dtype in FLOATS:
        if all(_goes(x, dtype) for x in floats if not _are_codes(x, x)):
            return f"model.to({dtype}) first"
    return (
        "no type holds all of them: state = nx.load(path, library='torch'), and nx.save that with "
        "state[name].to(torch.float64) for each of floats; then model.to(torch.float64)"
    )


def _misfit(model: nn.Module, path: PathLike, told: Iterable[str]) -> NumericsError:
    """What is raised where a file is not a model's.  told: all that does not fit."""
    return NumericsError(f"{path} does not fit {type(model).__name__}, which is unchanged: {'; '.join(told)}")


def _for_wrapped(model: nn.Module, came: Mapping[str, Tensor], text: str | None) -> dict[str, Tensor]:
    """The tensors by the names of a wrapped model's mode; raises NumericsError for those of the other kind.

    Floats without scales, and other formats, take the place of packed tensors in a model that quantizes
    nothing else.
    """
    made, state = state_of(model), dict(came)
    renamed(model, made.plan, bool(made.frozen), state, "")
    state = _widened(state, stored(model))
    if made.frozen and text is not None:
        check_same_plan(made.plan, plan_said(text))
    if not made.frozen or quantizes_computed(made.plan) or kinds_of_scales(came):
        check_tensors(model, made.plan, bool(made.frozen), state, {} if text is None else {MODEL: text})
    return state


def _put(
    model: nn.Module, path: PathLike, came: Mapping[str, Tensor], foreign: str | None, of_frozen: bool
) -> None:  # fmt: skip
    """The tensors into the model's places; what was written over comes back where one cannot be taken.

    foreign: what is to be said of others' codes.  of_frozen: a plan came with them.
    """
    places = stored(model)
    came = _widened(came, places)
    tied: dict[int, list[str]] = {}
    for name, place in places.items():
        tied.setdefault(id(place.tensor), []).append(name)
    faults = _faults(model, came, places, list(tied.values()), of_frozen)
    if faults:
        told = [*faults, foreign] if foreign else faults
        raise _misfit(model, path, told)
    swaps: dict[int, nn.Parameter] = {}
    used: set[int] = set()
    came = {name: x for name, x in came.items() if name in places}
    with rewritten() as keeping:
        for key, names in tied.items():
            place = places[names[0]]
            value = came[next(name for name in names if name in came)]
            value = value.clone() if id(value) in used else value  # tied in the file, and not in the model
            used.add(id(value))
            if (new := _taken(place, value, keeping)) is not None:
                swaps[key] = new
        replace(places.values(), swaps)
        for name, place in places.items():
            if place.leaf == RECORD:  # of a module of somebody's, which keeps more than tensors
                place.module.set_extra_state(came[name])
        for one in quantizers(model):
            if isinstance(one, Static):
                one.settle()


def _faults(
    model: nn.Module, came: Mapping[str, Tensor], places: Mapping[str, Place],
    tied: Sequence[Sequence[str]], of_frozen: bool,
) -> list[str]:  # fmt: skip
    """All that does not fit, in words."""
    every = recorded(model, "")
    records = {prefix + RECORD for prefix, module in every}
    faults = {
        "missing from the file": [names[0] for names in tied if not any(name in came for name in names)],
        "not in the model": [name for name in came if name not in {*places, *records}],
        "tied in the model and different in the file": [
            " and ".join(pair) for names in tied for pair in _differing([n for n in names if n in came], came)
        ],
    }  # fmt: skip
    told = [f"{why}: {folded(names)}" for why, names in faults.items() if names]
    told += _unlike_all(came, places)
    told += [why for prefix, module in every if (why := _unfit(module, came, prefix))]
    if any(kind_of_scale(name) for name in (*faults["missing from the file"], *faults["not in the model"])):
        told[-1] += f". {way_of_scales(model, came, of_frozen, _LOADED)}"
    elif told and (prefix := prefix_of(model, came)):
        told[-1] += f". {way_of_prefix(prefix, _LOADED)}"
    told += [
        f"{name} is on meta, and no state has it (persistent=False): give it its values first, as "
        f"model.get_submodule({name.rpartition('.')[0]!r}).{name.rpartition('.')[2]} = ..."
        for name in _left_on_meta(model, places)
    ]
    return told


def _left_on_meta(model: nn.Module, places: Mapping[str, Place]) -> list[str]:
    """The names of tensors without memory that no state has, and so no file brings."""
    brought = {id(place.tensor) for place in places.values()}
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return [name for name, x in every if x.is_meta and id(x) not in brought]


def _unfit(module: Recorded, came: Mapping[str, Tensor], prefix: str) -> str | None:
    """Why the scales of a file are not those of a quantizer."""
    try:
        check_recorded(came, [(prefix, module)])
        module.check_state(came, prefix, assign=False)
    except NumericsError as wrong:
        return str(wrong)
    return None


def _unlike(came: Tensor, place: Place) -> str | None:
    """Why a tensor cannot be in a place."""
    held = place.tensor
    if isinstance(came, TensorQTensor) and place.leaf in getattr(type(place.module), "numerics_leaves", ()):
        return "it would be quantized again when it is read; load it before nx.wrap, or after nx.freeze"
    if is_lazy(held):
        return (
            "the model has seen no batch, and no room for it: call it once, or load_state_dict(nx.load(path))"
        )
    if came.shape != held.shape:
        return f"its shape is {tuple(came.shape)}, the model's {tuple(held.shape)}"
    types = [str(x.dtype).removeprefix("torch.") for x in (came, held)]
    if came.dtype == held.dtype:
        return None
    if _are_codes(came, held):
        return (
            f"it is {types[0]}, codes where the model has {types[1]}: `numerics convert FILE "
            "OUT.safetensors` (numerics.checkpoints) brings the values where scales lie beside them; where "
            "they are the values themselves, state = nx.load(path, library='torch'), and nx.save that with "
            f"state[name].to(torch.{types[1]})"
        )
    return None if _goes(came, held.dtype) else f"it is {types[0]}, the model's is {types[1]}"


def _goes(came: Tensor, dtype: torch.dtype) -> bool:
    """Does a type hold the same values, or those of the same codes and scales?"""
    if not isinstance(came, TensorQTensor) or came.dtype == dtype:
        return _widens(came.dtype, dtype)
    return dtype in FLOATS and _widens(came.dtype, dtype) and keeps_values(came, dtype)


def _widens(narrow: torch.dtype, wide: torch.dtype) -> bool:
    """Does torch take values of the one type as those of the other?  Floats of 8 bits as no others."""
    try:
        return torch.promote_types(narrow, wide) == wide
    except RuntimeError:
        return False


def _are_codes(came: Tensor, held: Tensor) -> bool:
    """Is it a tensor of integers, or of the bits of narrow floats, where wider floats are due?"""
    plain = came.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return held.is_floating_point() and not (plain or isinstance(came, TensorQTensor))


def _differing(names: list[str], came: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The names whose tensors are others than that of the first."""
    return [(names[0], name) for name in names[1:] if not _equal(came[names[0]], came[name])]


def _equal(a: Tensor, b: Tensor) -> bool:
    """The same bits?"""
    if isinstance(a, TensorQTensor) and isinstance(b, TensorQTensor):
        pairs = [(getattr(a, part), getattr(b, part)) for part in PARTS]
        return a.spec == b.spec and all(x is y or torch.equal(x, y) for x, y in pairs)
    return type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b)


def _taken(place: Place, came: Tensor, keeping: Callable[[Tensor], None]) -> nn.Parameter | None:
    """Copies what came, what was there kept; returns what must take its place where it cannot be copied."""
    held = place.tensor
    if not isinstance(came, TensorQTensor) and not isinstance(held, TensorQTensor) and not held.is_meta:
        keeping(held)
        with torch.no_grad():
            held.copy_(came)
        return None
    made = came if held.is_meta else came.to(held.device)
    if not isinstance(came, TensorQTensor):
        made = made.to(held.dtype)
    if not isinstance(held, nn.Parameter):
        return made  # type: ignore[return-value]  # a buffer
    learns = held.requires_grad and not isinstance(came, TensorQTensor)
    return nn.Parameter(made, requires_grad=learns)


# ---- what a model takes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """The tensors of one format: their number, their values, and bytes with scales and zero points."""

    format: str
    tensors: int
    values: int
    nbytes: int

    @property
    def bits(self) -> float:
        """Bits a value."""
        return 8 * self.nbytes / self.values if self.values else 0.0


@dataclass(frozen=True, repr=False)
class Footprint:
    """What a model takes, by format, the largest first.  Printed, it is a table."""

    shares: tuple[Share, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(share.nbytes for share in self.shares)

    def __str__(self) -> str:
        columns = [name_column("format"), *map(Column, ("tensors", "values", "bits a value", "bytes"))]
        table = Table(columns)
        every = Share(
            "all", *(sum(getattr(s, k) for s in self.shares) for k in ("tensors", "values", "nbytes"))
        )
        for share in (*self.shares, every):
            table.add(
                share.format,
                f"{share.tensors:,}",
                f"{share.values:,}",
                f"{share.bits:.4g}",
                f"{share.nbytes:,}",
            )
        return table.text()

    __repr__ = __str__


@keywords
def footprint(model: nn.Module) -> Footprint:
    """Returns the bytes of a model's parameters and buffers as they are stored, by format.

    Of a QTensor count its packed codes, its scales and its zero points (`QTensor.nbytes`); what is tied
    counts once.  Parameters that have no shape before a first call (of lazy layers) are named, and have no
    values.  `nbytes` of the result is the sum; printed, it is a table.

    >>> import torch, numerics as nx
    >>> layer = torch.nn.Linear(64, 32)
    >>> layer.weight = torch.nn.Parameter(nx.quantize(torch.ones(32, 64), "mxfp4"), requires_grad=False)
    >>> print(footprint(layer))
    format   tensors  values  bits a value  bytes
    mxfp4          1   2,048          4.25  1,088
    float32        1      32            32    128
    all            2   2,080         4.677  1,216
    """
    check_model("footprint", model)
    shares: dict[str, list[Tensor]] = {}
    every = (*model.parameters(), *model.buffers())
    for tensor in _once(x for x in every if not is_lazy(x)):
        shares.setdefault(_format(tensor), []).append(tensor)
    found = [
        Share(
            name, len(held), sum(_values(x).numel() for x in held),
            sum(part.nbytes for x in held for part in _parts(x)),
        )
        for name, held in shares.items()
    ]  # fmt: skip
    lazy = len({id(x) for x in every if is_lazy(x)})
    found += [Share("no shape yet", lazy, 0, 0)] if lazy else []
    return Footprint(tuple(sorted(found, key=lambda share: -share.nbytes)))


_INDICES = {
    torch.sparse_coo: ("_indices",),
    torch.sparse_csr: ("crow_indices", "col_indices"), torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"), torch.sparse_bsc: ("ccol_indices", "row_indices"),
}  # fmt: skip
"""By the layout of a sparse tensor, what gives the places of its values."""


def _values(x: Tensor) -> Tensor:
    """What a tensor stores: of a sparse one its values alone."""
    if x.layout not in _INDICES:
        return x
    return x._values() if x.layout is torch.sparse_coo else x.values()


def _parts(x: Tensor) -> list[Tensor]:
    """The tensors that have memory: of a sparse one its values and their places."""
    return [_values(x), *(getattr(x, name)() for name in _INDICES.get(x.layout, ()))]


def _once(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each of them once, however many tensors show the same memory."""
    found: dict[object, Tensor] = {}
    for tensor in tensors:
        plain = not (isinstance(tensor, TensorQTensor) or tensor.is_meta or tensor.layout in _INDICES)
        key = (tensor.data_ptr(), tensor.shape, tensor.dtype) if plain and tensor.numel() else id(tensor)
        found.setdefault(key, tensor)
    return list(found.values())


def _format(tensor: Tensor) -> str:
    if not isinstance(tensor, TensorQTensor):
        return str(tensor.dtype).removeprefix("torch.")
    scheme = tensor.spec.options.get("scheme")
    return f"{tensor.format}{f' {scheme}' if scheme else ''}"
