"""Tensors that a mapping has under several names: which they are, and how a file of one copy says so."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np

from numerics.backends.host.tensors import is_tensor
from numerics.files.json_members import Members
from numerics.files.safetensors import Reader
from numerics.formats.errors import NumericsError, said
from numerics.tensor.parts import PARTS
from numerics.tensor.qtensor import QTensor

KEY = "numerics.ties"
"""Of the text in __metadata__ that says further names of tensors: {"head.weight": "emb.weight"}."""


def ties_among(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Returns the further names of tensors that are there under several, each with the first one.

    One tensor are those of the same memory, type, shape and strides, on whichever device; of QTensors all
    parts must be, and the spec.  Views that show the same memory in another way are tensors of their own.

    >>> w = np.ones((2, 3))
    >>> ties_among({"a": w, "b": w.copy(), "c": w[:], "d": w.T, "e": w})
    {'c': 'a', 'e': 'a'}
    """
    first: dict[Hashable, str] = {}
    found = {}
    for name, x in tensors.items():
        key = _identity(x)
        kept = name if key is None else first.setdefault(key, name)
        if kept != name:
            found[name] = kept
    return found


def _identity(x: Any) -> Hashable:
    """What two names of one tensor have in common; None for what is no tensor."""
    if isinstance(x, QTensor):
        parts = [_identity(part) for name in PARTS if (part := getattr(x, name)) is not None]
        return id(x) if None in parts else (x.spec, tuple(x.shape), x.original, *parts)
    if isinstance(x, np.ndarray):
        plain = type(x) is np.ndarray and x.size
        return (x.ctypes.data, x.dtype.str, x.shape, x.strides) if plain else id(x)
    return _place_of(x) if is_tensor(x) else None


def _place_of(x: Any) -> Hashable:
    """The place of a tensor of torch, or the object itself where it has none: on meta, sparse, empty."""
    import torch

    plain = type(x) in (torch.Tensor, torch.nn.Parameter) and x.layout is torch.strided
    if not plain or x.is_meta or not x.numel():
        return id(x)
    views = x.is_conj(), x.is_neg()
    try:
        return x.device, x.data_ptr(), x.dtype, tuple(x.shape), x.stride(), views
    except RuntimeError:  # of nested ones, and of what stands for a tensor in vmap
        return id(x)


def text_of(ties: Mapping[str, str]) -> dict[str, str]:
    """Returns what a file's metadata has of ties: nothing where there are none."""
    return {KEY: json.dumps(dict(ties), ensure_ascii=False)} if ties else {}


def ties_of(reader: Reader, names: Collection[str]) -> dict[str, str]:
    """Returns the further names that a file says of its tensors, each with the one that it has.

    names: of the tensors in it.  A file of ours says it in a text; one of safetensors' own `save_model` in
    members of the metadata, where the name of no tensor stands beside that of one.

    Raises NumericsError, naming the file, for a text that is damaged, a tensor that is not there, and a name
    that is there already.
    """
    known = names if isinstance(names, (set, frozenset, dict)) else set(names)
    text = reader.metadata.get(KEY)
    if text is None:
        return {name: kept for name, kept in reader.metadata.items()
                if kept in known and name not in known and name not in reader.entries}  # fmt: skip
    try:
        members = Members(text)
        found = dict(members.members(Members.text))
        members.end()
    except ValueError as wrong:
        raise NumericsError(f"{reader.path}: what it says of tied tensors cannot be read: {wrong}") from None
    for name, kept in found.items():
        if kept not in known:
            raise NumericsError(f"{reader.path}: {said(name)} is tied to {said(kept)}, which is not in it")
        if name in known or name in reader.entries or name == "__metadata__":
            raise NumericsError(f"{reader.path}: {said(name)} stands for two tensors")
    return found
