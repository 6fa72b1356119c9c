"""Options as torch.compile takes constants in every torch that is promised: texts and numbers."""

from __future__ import annotations

from typing import Any

from numerics.formats import registry
from numerics.formats.dtype import Dtype
from numerics.tensor import spec

_TABLE = registry.dtypes()


def constant(option: Any) -> Any:
    """A default by its word, a format of the tables by its name; anything else unchanged.

    torch before 2.13 takes no object of ours for a constant, so there a format that a user declared ends a
    graph.  Formats are compared by identity: a compiler follows that, and cannot look into a table.
    """
    if isinstance(option, spec.Default):
        return spec.ABSENT
    if isinstance(option, Dtype):
        for known in _TABLE:
            if option is known:
                return known.name
    return option
