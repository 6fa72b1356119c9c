"""ModelOpt: fp8 and integers, which it has on a CPU; its blocks it has not, so they are not compared here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from modelopt.torch.quantization import tensor_quant

from tests.adapters.hard import rows


def cases() -> Iterator[tuple[str, Callable[[bool], Any]]]:
    """Names and functions."""
    for kind, tame in product((torch.float32, torch.bfloat16, torch.float16), (False, True)):
        x = rows(kind, tame)
        yield f"fp8 {kind} tame={tame}", lambda _, x=x: tensor_quant.fp8_eager(x, None)
        sizes = x.float().nan_to_num().abs()
        tops = (sizes.amax(), sizes.amax(-1, keepdim=True), sizes.amax(0, keepdim=True), torch.tensor(1.0))
        for at, top in enumerate(tops):
            yield f"fp8 {kind} {at} tame={tame}", lambda _, a=(x, top): tensor_quant.fp8_eager(*a)
            for bits, unsigned, narrow in product((8, 4, 3), (False, True), (False, True)):
                given = x.abs() if unsigned else x, top, bits, unsigned, narrow
                name = f"integers {bits} {unsigned} {narrow} {kind} {at} tame={tame}"
                yield name, lambda _, a=given: tensor_quant._tensor_quant(*a)
