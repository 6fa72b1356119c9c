"""What a state brings for steps, thresholds, scales and zero points: looked at before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from numerics.backends.host.arrays import FLOATS
from numerics.backends.host.tensors import check_dense, check_storage, has_values
from numerics.formats.errors import NumericsError, said
from numerics.pytorch.learned_scales import INTEGERS
from numerics.tensor.qtensor import QTensor


def check_state(key: str, came: Any, *, whole: bool = False, finite: bool = True) -> None:
    """Raises NumericsError unless that is a tensor of real numbers, which torch would else cast in silence.

    key: its name in the state.  whole: it is kept in integers, so it has to be integers.  finite: NaN and Inf
    are refused, too.  What has no values here (on meta, sharded, not begun) is looked at by its type alone.
    """
    if not isinstance(came, Tensor):
        raise NumericsError(f"{key} is {said(came)} in this state; a tensor is due")
    if is_lazy(came):
        return
    try:
        check_dense(came)
    except NumericsError as wrong:
        raise NumericsError(f"{key} cannot be loaded: {wrong}") from None
    if isinstance(came, QTensor) or came.layout != torch.strided or came.is_quantized:
        raise NumericsError(f"{key} is {said(came)} in this state; a plain dense tensor is due")
    kind = str(came.dtype).removeprefix("torch.")
    if kind not in (*FLOATS, *INTEGERS):
        raise NumericsError(f"{key} is {kind} in this state; allowed: {', '.join((*FLOATS, *INTEGERS))}")
    if type(came) in (Tensor, torch.nn.Parameter) and has_values(came):
        check_storage(came)
        _check_values(key, came.detach(), whole, finite)


def _check_values(key: str, came: Tensor, whole: bool, finite: bool) -> None:
    if finite and not bool(came.isfinite().all()):
        raise NumericsError(f"{key} has NaN or Inf in this state; finite numbers are due")
    if whole and came.is_floating_point() and bool((came != came.round()).any()):
        raise NumericsError(f"{key} has fractions in this state, and is kept in integers here")


def check_values_come(prefix: str, came: Mapping[str, Tensor], held: Mapping[str, Any]) -> None:
    """Raises NumericsError where what is to begin would be given room and no values: a state on meta."""
    for name, x in came.items():
        if x.is_meta and not held[name].is_meta:
            raise NumericsError(
                f"{prefix + name} is on meta in this state, and has no values to begin with; "
                "load_state_dict(..., assign=True) takes it as it is"
            )
