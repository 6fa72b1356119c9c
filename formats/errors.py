"""The one error class of the house."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NumericsError(ValueError):
    """A request that cannot be met: what was wrong, what came, what is allowed.

    >>> raise NumericsError.unknown("rounding mode", "half_evn", ["half_even", "floor"])
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: unknown rounding mode 'half_evn'; \
did you mean 'half_even'? allowed: half_even, floor
    """

    @classmethod
    def unknown(cls, what: str, came: object, allowed: Iterable[str]) -> NumericsError:
        """An unknown name, with the nearest allowed one."""
        names = list(allowed)
        near = difflib.get_close_matches(str(came), names, n=1, cutoff=0.5)
        hint = f" did you mean {near[0]!r}?" if near else ""
        return cls(f"unknown {what} {came!r};{hint} allowed: {', '.join(names)}")


def one_of(what: str, came: str, allowed: Iterable[str]) -> str:
    """The name that came, when it is allowed; raises NumericsError otherwise."""
    names = tuple(allowed)
    if came not in names:
        raise NumericsError.unknown(what, came, names)
    return came
