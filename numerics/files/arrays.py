"""NumPy's own files: .npy, which holds one array, and .npz, a zip that holds several by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.paths import check_regular, path_of
from numerics.formats.errors import NumericsError

Array = NDArray[Any]
ENDINGS = (".npy", ".npz")
_KINDS = "fiub"  # of arrays: floats, integers, bits
_WIDEST = 8  # bytes of a number; NumPy's long doubles have other sizes elsewhere


class ArrayFile:
    """A file of arrays, of which each is read when it is asked for; no pickle in it is.

    names: of its arrays.  alone: it is a .npy file, whose one array has the file's name.
    Raises NumericsError, naming the file, for what is neither kind.
    """

    def __init__(self, path: Any) -> None:
        self.path = path_of(path)
        check_regular(self.path)
        found = self._read(None)
        self.alone = isinstance(found, np.ndarray)
        self._array = found if self.alone else None
        self.names: list[str] = [self.path.stem] if self.alone else list(found)

    def array(self, name: str) -> Array:
        """One of the arrays, in C order; raises NumericsError where it is damaged, or holds no numbers."""
        x = self._read(name) if self._array is None else self._array
        if x.dtype.kind not in _KINDS or x.dtype.itemsize > _WIDEST:
            raw = " (raw bytes, as NumPy writes bfloat16 and float8: nothing says which)"
            came = f"{x.dtype}{raw if x.dtype.kind == 'V' else ''}"
            raise NumericsError(
                f"{self.path}: {name!r} holds {came}; allowed: floats, integers and bool of up to 64 bits"
            )
        return np.asarray(x, x.dtype.newbyteorder("="), order="C")

    def _read(self, name: str | None) -> Any:
        """The array, of a zip that of the name, or all names."""
        try:
            with open(self.path, "rb") as file:
                found = np.load(file, allow_pickle=False)
                return (
                    found if isinstance(found, np.ndarray) else found.files if name is None else found[name]
                )
        except FileNotFoundError:
            raise
        except Exception as wrong:  # whatever NumPy, zips and their compressions raise
            why = str(getattr(wrong, "strerror", None) or wrong)
            if "pickle" in why:  # NumPy's advice, which would run what the file says
                why = "it holds no array of numbers"
            of = "" if name is None else f", of which {name!r} is read"
            ending = self.path.suffix if self.path.suffix in ENDINGS else ENDINGS[0]
            raise NumericsError(f"{self.path} is not a {ending} file of numbers{of}: {why:.200}") from None


def arrays_in(path: Any) -> dict[str, Array]:
    """The arrays of a .npy or .npz file, by name; that of a .npy file by the file's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", x=np.arange(3))
    ...     arrays_in(f"{folder}/a.npz")
    {'x': array([0, 1, 2])}
    """
    file = ArrayFile(path)
    return {name: file.array(name) for name in file.names}
