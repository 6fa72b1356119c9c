"""`numerics verify`: every float32 input, on the user's own machine, against the shipped hashes.

An encoder's runs are derived from what it does to all 2**32 inputs, and hashed; neither the reference
nor a table takes part.  Only where a hash is wrong does `sweep` name the first wrong input; and formats of
one's own, for which no hash is shipped, are compared with the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Codes
from numerics.backends.reference import lookup
from numerics.backends.reference.breakpoints import breakpoints
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.conform.sweep import CHUNK, SIGN, Encoder, Sweep, sweep
from numerics.conform.vectors.operations import ElementOperation, every_code
from numerics.conform.vectors.questions import EVERY, inputs_that_matter
from numerics.conform.verify.hashes import cases_of, hash_of_runs, hash_of_values, shipped
from numerics.formats.dispatch import MEANT, use
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, one_of
from numerics.formats.registry import dtype as find
from numerics.formats.registry import dtypes
from numerics.formats.rounding import DETERMINISTIC, OVERFLOWS, check_overflow

BACKENDS = ("cpu", "array", "gpu")
MOST_RUNS = 1 << 18  # no format of 16 bits has as many; a faulty encoder may have 2**32
STRIDE = 4093  # of the inputs of a sample; prime, so that all low bits are met
Advance = Callable[[int], object]


def _check_backend(name: str) -> None:
    """Raises NumericsError for a backend that proves nothing."""
    one_of("backend", name, BACKENDS, {k: v for k, v in MEANT.items() if any(repr(b) in v for b in BACKENDS)})


@dataclass(frozen=True)
class Result:
    """What became of one case: inputs tried, the hash, and what is wrong, if anything.

    sha256: None for a sample, and of a format of yours, for which none is shipped.
    """

    case: str
    backend: str
    inputs: int
    sha256: str | None
    wrong: str | None = None
    resumed: bool = False

    def __bool__(self) -> bool:
        return self.wrong is None

    def __str__(self) -> str:
        found = self.wrong or f"{self.inputs} inputs, 0 mismatches"
        return f"{self.case} on {self.backend}: {found}{' (from the journal)' if self.resumed else ''}"


# ------------------------------------------------------------------------------------------- cases


def cases(
    formats: Iterable[Any] = (), roundings: Iterable[str] = (), overflows: Iterable[str] = ()
) -> list[ElementOperation]:
    """Every case of the formats, roundings and overflow policies that are named; of all, where none is.

    Raises NumericsError for unknown names, for blocks, for stochastic rounding, and for a policy that
    a named format cannot express.

    >>> [str(case) for case in cases(["fp4"], ["floor"])]
    ['fp4 decode', 'fp4 encode floor saturate']
    """
    named, roundings = [_element(name) for name in formats], tuple(roundings) or DETERMINISTIC
    overflows = tuple(overflows) or OVERFLOWS
    for rounding in roundings:
        one_of("deterministic rounding mode", rounding, DETERMINISTIC)
    for overflow in overflows:
        check_overflow(overflow)
    for d in named:
        if not set(overflows) & set(d.overflows):
            d.check_overflow(overflows[0])
    return [
        case
        for d in named or [d for d in dtypes() if isinstance(d, Element)]
        for case in cases_of(d)
        if case.name == "decode" or (case.rounding in roundings and case.overflow in overflows)
    ]


def _element(name: Any) -> Element:
    d = find(name)
    if not isinstance(d, Element):
        proven = [str(other) for other in dtypes() if isinstance(other, Element)]
        raise NumericsError(f"{d} is of blocks, and elements are proven; allowed: {', '.join(proven)}")
    return d


# ------------------------------------------------------------------------------------------ proofs


def prove(case: ElementOperation, backend: str = "cpu", advance: Advance = lambda inputs: None) -> Result:
    """All inputs of a case through a backend, against the shipped hash; of formats of yours, the exact judge.

    advance: told how many inputs were done since it was last told.
    Raises NumericsError where the backend is unknown or its device not there.

    >>> print(prove(cases(["fp8_e4m3"])[0]))
    fp8_e4m3 decode on cpu: 256 inputs, 0 mismatches
    """
    _check_backend(backend)
    due = shipped().get(str(case))
    with use(backend):
        if case.name == "decode":
            return _prove_decoder(case, backend, due)
        encode = encoder(case, backend)
        if due is None:
            found = _sweep(encode, case, advance)
            return Result(str(case), backend, EVERY, None, str(found) if found.mismatches else None)
        came = hash_of_runs(*runs(encode, case.dtype.code_dtype, advance))
        if came == due:
            return Result(str(case), backend, EVERY, came)
        return Result(str(case), backend, EVERY, came, _explained(_sweep(encode, case)))


def _prove_decoder(case: ElementOperation, backend: str, due: str | None) -> Result:
    codes = every_code(case.dtype)
    values = _decoded(codes, case.dtype, backend)
    came = hash_of_values(values)
    if came == due:
        return Result(str(case), backend, len(codes), came)
    right = ReferenceExecutor().decode(codes, case.dtype)
    alike = np.isnan(values) & np.isnan(right)
    wrong = (values.view(np.uint32) != right.view(np.uint32)) & ~alike
    if due is None and not wrong.any():
        return Result(str(case), backend, len(codes), None)
    return Result(str(case), backend, len(codes), came, _named(codes, values, right, wrong))


def _named(inputs: NDArray[Any], came: NDArray[Any], due: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
    if not wrong.any():
        return _explained(Sweep(len(inputs), 0))
    at = int(wrong.argmax())
    return (
        f"{len(inputs)} inputs, {int(wrong.sum())} mismatches; first: 0x{inputs[at]:X} gave {came[at]!r}, "
        f"should be {due[at]!r}"
    )


def _explained(found: Sweep) -> str:
    """What is wrong; the hash may be, where the reference agrees with the backend."""
    return str(found) if found.mismatches else f"{found}, but the shipped hash is another"


def runs(encode: Encoder, code_dtype: str, advance: Advance) -> tuple[NDArray[np.uint32], Codes]:
    """The runs of an encoder over all inputs in the order of their bits; ends early beyond MOST_RUNS."""
    count = np.arange(CHUNK, dtype=np.uint32)
    bits, out = np.empty(CHUNK, np.uint32), np.empty(CHUNK, code_dtype)
    firsts, codes, last, found = [], [], None, 0
    for start in range(0, EVERY, CHUNK):
        np.add(count, np.uint32(start), out=bits)
        encode(bits.view(np.float32), out)
        changes = _changes(out, None if start % SIGN == 0 else last)
        firsts.append(bits[changes])
        codes.append(out[changes])
        last, found = out[-1], found + len(changes)
        advance(CHUNK)
        if found > MOST_RUNS:
            break
    return np.concatenate(firsts), np.concatenate(codes)


def _changes(out: Codes, last: Any) -> NDArray[np.int64]:
    """Where a code differs from the one before it; most chunks lie within a single run."""
    if out[0] == last and (out == last).all():
        return np.empty(0, np.int64)
    inside = np.flatnonzero(out[1:] != out[:-1]) + 1
    return inside if out[0] == last else np.concatenate([[0], inside])


def encoder(case: ElementOperation, backend: str) -> Encoder:
    """A case's encoder on NumPy arrays, wherever it runs."""
    assert case.rounding is not None
    encode = partial(case.dtype.encode, rounding=case.rounding, overflow=case.overflow)

    def on_the_host(x: NDArray[np.float32], out: NDArray[Any]) -> None:
        encode(x, out=out)

    def on_the_gpu(x: NDArray[np.float32], out: NDArray[Any]) -> None:
        out[...] = encode(_to_the_gpu(x)).cpu().numpy()

    return on_the_gpu if backend == "gpu" else on_the_host


def _decoded(codes: Codes, dtype: Element, backend: str) -> NDArray[np.float32]:
    if backend != "gpu":
        return np.asarray(dtype.decode(codes))
    return np.asarray(dtype.decode(_to_the_gpu(codes)).cpu().numpy())


def _to_the_gpu(data: NDArray[Any]) -> Any:
    """A tensor on the GPU; on the CPU where Triton interprets its kernels, which needs none."""
    import torch

    return torch.from_numpy(data).to("cuda" if torch.cuda.is_available() else "cpu")


def _sweep(encode: Encoder, case: ElementOperation, advance: Advance = lambda inputs: None) -> Sweep:
    assert case.rounding is not None
    assert case.overflow is not None
    found = Sweep(0, 0)
    for negative in (False, True):
        due = breakpoints(case.dtype, case.rounding, case.overflow, negative)
        found += sweep(encode, due, negative, case.dtype.code_dtype)
        advance(EVERY // 2)
    return found


def sample(case: ElementOperation, backend: str = "cpu") -> Result:
    """A slice of a case's inputs: around every breakpoint, and each 4093rd; no proof.

    >>> found = sample(cases(["fp4"])[1])
    >>> bool(found), found.inputs > 1 << 20, found.sha256
    (True, True, None)
    """
    if case.name == "decode":
        return prove(case, backend)
    _check_backend(backend)
    assert case.rounding is not None
    assert case.overflow is not None
    d, rng = case.dtype, np.random.default_rng(0)
    matter = inputs_that_matter(d, rng)
    bits = np.concatenate([matter, np.arange(0, EVERY, STRIDE, dtype=np.uint64).astype(np.uint32)])
    x, came = bits.view(np.float32), np.empty(len(bits), d.code_dtype)
    with use(backend):
        encoder(case, backend)(x, came)
    due = lookup.encode(x, d, case.rounding, case.overflow, None)
    wrong = _named(bits, came, due, came != due) if (came != due).any() else None
    return Result(str(case), backend, len(bits), None, wrong)
