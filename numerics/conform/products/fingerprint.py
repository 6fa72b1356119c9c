"""How a product of plain numbers adds, told by probes: order, width, rounding.  A description, no verdict.

What is found is tried on random rows: a description that does not give their bits says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numerics.backends.host.ieee import inside_ieee
from numerics.conform.products.adding.probes import TRIED, Prober
from numerics.conform.products.adding.trees import Tree, described
from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.claim import VALUES, Claim
from numerics.conform.products.telling.turned import fitting_layout, hint
from numerics.conform.products.trial import check_shapes
from numerics.conform.takes import Takes
from numerics.conform.targets.faults import Fault
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, said

LONGEST = 64
UNKNOWN = " alone: how it adds is none of the ways that are known here"


@dataclass(frozen=True)
class Fingerprint:
    """What was seen of a product; `text` of each line stands in `lines`.

    bits: of the accumulator.  rounding: of its additions.  order: how terms are added, in words; tree: which
    with which.  products: exact where they go into a sum unrounded.  a_bits, b_bits: bits of a and of b that
    are kept.  reach: how far in its row a number of a is rounded with others; 0 where it is not.
    subnormals: kept or flushed, or of which operand they are flushed.  alone: does one row give the bits that
    it gives with others?  repeats: do calls agree?  reproduced: of how many random results the description
    gives every bit.  product_bits: of each product that are kept, where no more of a and b is known; else 0.
    """

    target: str
    claim: str
    bits: int
    rounding: str
    order: str
    tree: Tree = field(repr=False)
    products: str
    a_bits: int
    b_bits: int
    reach: int
    subnormals: str
    alone: bool
    repeats: bool
    reproduced: int
    product_bits: int = 0

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was found, in words, each with the name of what it is of."""
        kept = f"a is rounded with its neighbours, up to {self.reach} of them; " if self.reach else ""
        of_sides = f"{self.a_bits} bits of a and {self.b_bits} of b are kept"
        kept += f"{self.product_bits} bits of each product are kept" if self.product_bits else of_sides
        alone, calls = "the same" if self.alone else "other", "agree" if self.repeats else "differ"
        return [
            ("adds", self.order),
            ("in", f"{self.bits} bits, {self.rounding}; products {self.products}"),
            ("operands", f"{kept}; subnormal numbers {self.subnormals}"),
            ("a row", f"gives {alone} bits alone; calls {calls}"),
        ]

    @property
    def heading(self) -> str:
        """The target and what it takes and gives."""
        return f"{self.target}: {self.claim}"

    @property
    def tried(self) -> str:
        """How many results the description gives bit for bit."""
        found = f"this gives every bit of {self.reproduced} of {TRIED} random results"
        return found + UNKNOWN * (self.reproduced < TRIED)

    def __str__(self) -> str:
        facts = (f"{name:<9}  {said}" for name, said in self.facts)
        return "\n  ".join([self.heading, *facts, self.tried])


@inside_ieee
@keywords
def fingerprint(
    target: Any,
    a: str = "float32",
    b: str = "float32",
    *,
    out: str | None = None,
    shape: tuple[int, int, int] = (64, 64, 32),
    array: str = "numpy",
    layout: str = "nk",
) -> Fingerprint:
    """Describes how a product adds: order, width, rounding, and what its bits depend on.

    target: a callable of (a, b), a (m, k) times the rows of b (n, k), or "module:function".  a, b: float32,
    bfloat16 or float16.  out: the type of the result, float32 by default.  shape: m, n, k of the product that
    is probed: 2 and more rows, 64 terms at most; the order may depend on it.  array: numpy or torch.
    layout: nk (the default) where b comes as (n, k), kn where it comes turned, as (k, n); or both, as km,kn.

    Raises NumericsError for other operands, shapes and layouts, and for a target that returns no product of
    operands that come so.

    >>> import numpy as np
    >>> print(fingerprint(lambda a, b: (a.astype(np.float64) @ b.T).astype(np.float32), shape=(8, 8, 4)))
    <lambda>: float32 x float32 -> float32
      adds       one after the other
      in         53 bits, no rounding seen; products exact
      operands   24 bits of a and 24 of b are kept; subnormal numbers kept
      a row      gives the same bits alone; calls agree
      this gives every bit of 64 of 64 random results
    """
    for name, came in (("a", a), ("b", b)):
        if not isinstance(came, str) or came not in VALUES:
            raise NumericsError(
                f"{name}={said(came)}: a fingerprint is of plain numbers, {', '.join(VALUES)}; decode the "
                "operands"
            )
    claim = Claim.of(a, b, out=out, layout=layout)
    if claim.laid.axes:
        raise NumericsError(f"layout={said(layout)}: a fingerprint is of one product, without batches")
    checked = check_shapes([shape], claim)
    assert checked is not None
    m, n, k = checked[0]
    if m < 2 or n < 2 or not 3 <= k <= LONGEST:
        raise NumericsError(f"shape={(m, n, k)}; 2 rows and columns and 3 to {LONGEST} terms are due")
    judged = ProductTarget(target, claim, Takes.of(array))
    prober = Prober(judged, (m, n, k))
    try:
        if (mistaken := prober.mistaken()) is not None:
            raise NumericsError(_no_product(judged, mistaken))
        return _seen(prober)
    except Fault as fault:
        lines = (line.strip().removesuffix(".") for line in str(fault.found).splitlines())
        raise NumericsError(_no_product(judged, "; ".join(lines))) from fault


def _no_product(target: ProductTarget, found: str) -> str:
    """Why nothing is described: first that an operand comes turned, where it does."""
    layout = fitting_layout(target)
    return f"there is no product to describe: {found}" if layout is None else f"{target.name}: {hint(layout)}"


def _seen(prober: Prober) -> Fingerprint:
    """All that is asked, as a record."""
    claim = prober.target.claim
    return Fingerprint(
        prober.target.name,
        f"{claim.dtype} -> {claim.out}",
        prober.bits,
        prober.rounding,
        described(prober.tree),
        prober.tree,
        prober.products,
        prober.kept_bits("a"),
        prober.kept_bits("b"),
        prober.reach,
        prober.subnormals,
        prober.alone,
        prober.repeats,
        prober.reproduced,
        prober.product_bits,
    )
