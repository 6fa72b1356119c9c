"""What a wrapped model shares with the float one, until it is moved, and what is not put into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numerics.files.save_load import MODEL
from numerics.formats.errors import NumericsError
from numerics.tensor.qtensor import QTensor


def check_floats(state: Mapping[str, Any], names: Iterable[str], notes: Mapping[str, Any]) -> None:
    """Raises NumericsError where a frozen state comes to parameters that are quantized when they are read.

    names: of those parameters, as the state has them.  notes: what the state says of itself.
    """
    packed = [name for name in names if isinstance(state.get(name), QTensor)]
    if packed or MODEL in notes:
        what = f"{packed[0]} is packed" if packed else "this state is a frozen model's"
        raise NumericsError(
            f"{what}, and this model is wrapped: its values would be quantized again wherever they are read; "
            "nx.load_into(float_model, file) makes the frozen model of a file, nx.freeze(model) first takes "
            "the packed tensors as they are"
        )
