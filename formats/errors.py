"""The one error class of the house."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from operator import index


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
        return cls(f"unknown {what} {came!r};{hint(str(came), names)} allowed: {', '.join(names)}")


def hint(came: str, names: Iterable[str]) -> str:
    """Which name may be meant, whatever its case: one that begins with what came, else the most like it.

    >>> hint("FP8", ["mxfp4", "fp8_e4m3"]), hint("fload", ["int", "float"]), hint("x", ["int"])
    (" did you mean 'fp8_e4m3'?", " did you mean 'float'?", '')
    """
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    begun = [name for name in lower if came and name.startswith(came.lower())]
    near = begun or difflib.get_close_matches(came.lower(), lower, n=1, cutoff=0.5)
    return f" did you mean {lower[near[0]]!r}?" if near else ""


def integer(what: str, came: object) -> int:
    """The integer that came, NumPy's too; raises NumericsError for another number, for a bool, for a text.

    >>> integer("axis", -1)
    -1
    """
    try:
        if not isinstance(came, bool):
            return index(came)  # type: ignore[arg-type]  # and a constant, to torch.compile
    except TypeError:
        pass
    raise NumericsError(f"{what} must be an integer, not {came!r}")


def one_of(what: str, came: str, allowed: Iterable[str]) -> str:
    """The name that came, when it is allowed; raises NumericsError otherwise."""
    names = tuple(allowed)
    if came not in names:
        raise NumericsError.unknown(what, came, names)
    return came
