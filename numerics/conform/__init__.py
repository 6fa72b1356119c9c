"""Is a kernel right?  Laws, exhaustive proofs and the data they need.

>>> import numerics as nx
>>> from numerics import conform
>>> bool(conform.check(nx.fp8_e4m3.encode, "fp8_e4m3"))
True
"""

from __future__ import annotations

from typing import Any

from numerics.formats.arguments import answer_calls
from numerics.formats.forking import imported

_LAZY: dict[str, str] = {
    "ACCUMULATORS": "numerics.conform.products.claim",
    "Accumulator": "numerics.conform.products.claim",
    "Counterexample": "numerics.conform.verdict",
    "KINDS": "numerics.conform.kinds",
    "Task": "numerics.conform.task",
    "Verdict": "numerics.conform.verdict",
    "check": "numerics.conform.checking",
    "decidable": "numerics.conform.products.certificate",
    "fingerprint": "numerics.conform.products.fingerprint",
}
__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(imported(_LAZY[name]), name)
    raise AttributeError(f"module 'numerics.conform' has no attribute {name!r}")


answer_calls(__name__)
