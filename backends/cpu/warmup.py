"""Compiles ahead what most calls need, so that no first call waits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.backends.cpu import EXECUTOR, team
from numerics.backends.cpu.executor import Measuring
from numerics.backends.host.executor import Affine
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.registry import dtypes
from numerics.formats.rounding import BlockOptions, Rounding


def warm_up(rounding: str = "half_even") -> Iterator[str]:
    """Runs every format once on a few float32 numbers; yields the name of each kernel it adds.

    Kernels go to the disk cache (cache.py), where later processes find them.

    >>> all("float32" in name for name in warm_up() if name.startswith("encode"))
    True
    """
    known = set(EXECUTOR.compiled)
    for d in dtypes():
        if isinstance(d, Block):
            _warm_block(d, rounding)
        elif isinstance(d, Element):
            _warm_element(d, rounding)
        added = [name for name in EXECUTOR.compiled if name not in known]
        known.update(added)
        yield from added
    yield from _warm_teams()


def _warm_teams() -> Iterator[str]:
    """What torch's threads run kernels by, of as many integers as those of this process take."""
    for words in sorted(EXECUTOR.launcher.words() - team.made()):
        team.taking(words)
        yield team.name(words)


def _warm_element(d: Element, rounding: str) -> None:
    x, executor = np.ones(256, np.float32), EXECUTOR
    d.decode(d.encode(x, rounding=rounding))
    d.round(x, rounding=rounding)
    d.decode_packed(d.encode_packed(x, rounding=rounding), x.size)
    affine, how = Affine(np.ones(1, np.float32), None), Rounding(rounding)
    packed = executor.encode_affine_packed(x[None], d, affine, how)
    executor.round_affine(x[None], d, affine, how)
    executor.decode_affine_packed(packed, d, affine, np.empty_like(x[None]))
    executor.error_sums_of_rows(x[None], packed, d, affine)
    Measuring(EXECUTOR, x).encode_affine_packed(x[None], d, affine, how)
    executor.extremes(x[None])
    executor.error_sums(x, x)


def _warm_block(d: Block, rounding: str) -> None:
    x, executor = np.ones((4, d.block), np.float32), EXECUTOR
    options = BlockOptions("floor", rounding, 1.0 if d.has_tensor_scale else None)
    out = np.empty_like(x)
    executor.decode_blocks(executor.encode_blocks(x, d, options), d, options.tensor_scale, out)
    packed, scale = executor.encode_blocks_packed(x, d, options)
    executor.decode_blocks_packed(packed, scale, d, options.tensor_scale, out)
    executor.error_sums_of_blocks(x.reshape(-1), packed, scale, d, options.tensor_scale)
    Measuring(EXECUTOR, x).encode_blocks_packed(x, d, options)
    executor.round_blocks(x, d, options, out)
