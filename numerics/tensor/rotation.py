"""The Hadamard rotation: spreads outliers over their neighbours before tensors are quantized."""

from __future__ import annotations

from typing import Any, Never

from numerics.backends.host.hadamard import Rotation
from numerics.formats import dispatch
from numerics.formats.arguments import MISSING, required, unknown_argument
from numerics.formats.errors import NumericsError, check_no_gradient
from numerics.tensor.qtensor import QTensor


@required
def hadamard(
    x: Any, size: int, *unnamed: Never, signs: Any = None, inverse: bool = False, **unknown: Never
) -> Any:
    """Returns x with every `size` neighbours along the last axis rotated by Sylvester's Hadamard matrix.

    x: an array or tensor of float16, bfloat16, float32 or float64, or a nested list; its last axis is a
        multiple of size.
    size: a power of two, 2 to 32768; 16, 32 and 128 are what training recipes use.
    signs: `size` numbers, each 1 or -1, that x is multiplied by first (a randomized rotation); None for ones.
        They are not learned: a tensor that requires a gradient is refused.
    inverse: True turns back what was rotated with the same size and signs.

    y = H (signs * x) * 2**-a and x = signs * (H y) * 2**-b, with H[i, j] = (-1)**popcount(i & j), a the
    half of log2(size) rounded up and b rounded down: of 16 both are 1/4, and H / 4 is orthonormal.  No factor
    but powers of two is multiplied, so that the way back undoes the way there exactly wherever the sums are
    exact, as of integers below 2**24 / size; elsewhere each of the 2 * log2(size) additions rounds once, in
    an order that is written down (docs/formats.md §13).  In torch the gradient is that of a matrix.

    Where log2(size) is odd (2, 8, 32, 128 ...) lengths shrink by sqrt(2): rotated operands of a product give
    half of it, hadamard(x, 32) @ hadamard(w, 32).T == x @ w.T / 2 but for roundings.  Twice one of them, or
    of the product, is it again: a power of two, which is exact and moves no rounding of a scaled format.

    Returns x's type and shape; 16-bit floats are rotated in float32 and rounded once.  Raises NumericsError
    for another size, other signs, and an axis that is not whole.

    >>> hadamard([8.0, 0.0, 0.0, 0.0], 4), hadamard(hadamard([1.0, 2.0, 3.0, 5.0], 4), 4, inverse=True)
    ([4.0, 4.0, 4.0, 4.0], [1.0, 2.0, 3.0, 5.0])
    >>> [sum(a * a for a in hadamard([3.0] + [0.0] * (n - 1), n)) for n in (16, 32, 64, 128)]
    [9.0, 4.5, 9.0, 4.5]
    """
    if unknown or unnamed or x is MISSING or size is MISSING:
        raise unknown_argument(hadamard, unknown, (x, size), unnamed)
    if isinstance(x, QTensor):
        raise NumericsError(f"{x!r} is quantized already; dequantize it first")
    check_no_gradient("signs", signs)
    made = Rotation(size, signs, inverse)
    owner: Any = dispatch.of(x)
    return owner.hadamard(x, made)
