"""What is asked for beside this package, and the error of whoever comes without it."""

from __future__ import annotations

from numerics.formats.errors import NumericsError


class MissingPackage(NumericsError, ModuleNotFoundError):
    """A package that an extra installs is not there; whoever catches ImportError catches it too."""


def missing(what: str, wrong: ImportError, extra: str = "hub") -> MissingPackage:
    """Returns the error that names the package which is not there, and the extra that has it.

    >>> str(missing("NumericsConfig", ModuleNotFoundError(name="transformers")))
    "NumericsConfig needs transformers, which is not installed: pip install 'numerics-formats[hub]'"
    """
    found = MissingPackage(
        f"{what} needs {wrong.name or wrong}, which is not installed: pip install 'numerics-formats[{extra}]'"
    )
    found.name = wrong.name
    return found
