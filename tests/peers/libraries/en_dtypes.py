"""en_dtypes: Ascend's HiFloat8 as a type of NumPy arrays; ties go away from zero, overflow to Inf."""

from __future__ import annotations

from collections.abc import Iterator

import en_dtypes
import numpy as np

from tests.peers.claims import Claim

KIND = en_dtypes.hifloat8


def claims() -> Iterator[Claim]:
    """The type, both ways."""
    yield Claim("hifloat8", "x.astype(hifloat8)", lambda x: x.astype(KIND), "encode",
                {"rounding": "half_away", "overflow": "nonsaturate"})  # fmt: skip
    yield Claim("hifloat8", "codes.view(hifloat8).astype(float32)",
                lambda codes: codes.view(KIND).astype(np.float32), "decode")  # fmt: skip
