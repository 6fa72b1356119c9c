"""Is a kernel right?  The laws, on inputs that matter or on all of them, and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numerics.backends.host.ieee import ieee_arithmetic, is_ieee
from numerics.conform.effort import QUICK, Effort
from numerics.conform.inputs.spread import Shapes, named_shapes
from numerics.conform.isolation.judging import judged, name_of
from numerics.conform.laws import affine, block_trials, elements, everything, packing, undrawn, unwritten
from numerics.conform.laws.alone import LIES
from numerics.conform.laws.company import repeatable
from numerics.conform.laws.depends import depends, of_fault
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.laws.shrink import smallest_that_fails
from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.claim import Claim
from numerics.conform.products.trial import ProductCheck, check_shapes
from numerics.conform.scales import trial as scales
from numerics.conform.scales.of_tensor import OWN, as_finder, led
from numerics.conform.takes import Takes
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.targets.returned import stops_noted
from numerics.conform.targets.target import Target
from numerics.conform.task import AMAX, Task
from numerics.conform.verdict import Named, Verdict
from numerics.conform.warned import warned_once
from numerics.formats.arguments import keywords
from numerics.formats.block import Block
from numerics.formats.errors import NumericsError, said, truth

LONGEST = 1e9  # seconds that are waited for
OF_CALLS = (unwritten.LAW, repeatable.__name__)
"""Laws of memory, or of the calls before: where one is broken, no other law is of a number."""
TIMEOUT = 600.0  # seconds in which a target in a process of its own must be judged


@keywords
def check(
    target: Callable[..., Any] | str,
    dtype: Any = None,
    *,
    kind: str | None = None,
    rounding: str = "half_even",
    overflow: str | None = None,
    scale_rule: str = "floor",
    axis: int = -1,
    tensor_scale: float | str | None = None,
    exhaustive: bool = False,
    strict_nan: bool = False,
    array: str = "numpy",
    contiguous: bool = False,
    whole_blocks: bool = False,
    finite: bool = False,
    a: Any = None,
    b: Any = None,
    accumulate: Any = "float32",
    out: str | None = None,
    layout: str = "nk",
    bias: bool = False,
    zero_point: str = "split",
    alpha: bool = False,
    beta: bool = False,
    in_place: bool = False,
    shapes: Any = None,
    seed: int | None = None,
    effort: str = "default",
    one_thread: bool = False,
    fills: bool = False,
    nonempty: bool = False,
    inputs: str = "float32",
    scheme: Any = None,
    packed: bool = False,
    scale_layout: Any = None,
    draw: str | None = None,
    least: str | None = None,
    isolated: bool = False,
    timeout: float | None = None,
) -> Verdict:
    """Is a kernel right, bit for bit?  Returns a verdict: true when it passed; its text says why not.

    target: a callable, or "module:function".
    dtype: the format that it claims to compute, or its name; of a product, whose operands are a and b, None.
    kind: what the target takes and returns:
        encode (the default): float32 values to codes
        decode: codes to float32 values
        round: float32 values to the format's values for them, as float32 (fake quantization)
        pack, unpack: codes to bytes; bytes and a count to codes; of formats of single numbers
        affine: float32 values, a scale and a zero point to codes, or to values; of integer formats
        quantize: float32 values to (codes, scales[, zero points]), the scales found by the target
        fake_quantize: float32 values to their values under such scales
        matmul: a (m, k), b (n, k) and where bias=True a bias (n), to a times the rows of b, (m, n)
        Codes of block formats stand beside their scales and microexponents: numerics' Blocks, or a tuple
        or a list (codes, scale[, microexponents]).
    rounding: what it claims to do: half_even (the default), half_away, half_up, half_down, toward_zero,
        floor, ceil, to_odd, or stochastic: then it takes random bits (uint32, of x's shape) after x.
    overflow: saturate or nonsaturate; None is the format's own.
    scale_rule: of OCP MX: floor (the default), ceil, even, rceil, tosa or bump; of float scales: floor, ceil,
        nvidia, mse, four_over_six or four_over_six_mae.
    axis: along which it makes blocks, the last by default.
    tensor_scale: of NVFP4 and its kin, 1 by default; no other one is judged.  "amax": the target finds it
    itself, as docs/formats.md §8 says, from the largest finite number of what it is given.
    exhaustive: all 2**32 float32 inputs, for `encode` and `round` of an element format; the target is
    called by two threads.
    strict_nan: NaN must be written as the canonical code (docs/formats.md §2); otherwise any NaN will do.
    array: "torch" for a target that takes torch tensors.  What else it takes: contiguous: only
    contiguous arrays of one dimension (of a block format: contiguous ones); whole_blocks: only lines
    that are whole blocks; finite: neither NaN nor Inf; one_thread: calls of one thread alone.
    fills: it is given arrays for its result after its inputs, as C functions are, and fills them; what it
    returns is not looked at.
    inputs: the type of the values that `encode` and `round` take: float32, float16, bfloat16 (both: all
    65,536 of them) or float64; values come back in it, or in float32.
    scheme: of `affine`, whose scales and zero points then come as arrays: per_channel(0), per_group(32), or
    (rows, columns) of a block.  packed: codes of blocks come as bytes [..., n * bits / 8]; scale_layout:
    their scales lie as "cublas", "cdna4" or a ScaleLayout of numerics.layouts says; whole blocks only.
    draw: how a stochastic target draws: "own" where it takes no random bits, and statistics judge it (one
    false alarm in 10**9 checks); else a rule and a number of bits, as in a8, b16 (docs/conformance.md).
    Of quantize and fake_quantize dtype may say more, as "uint8 per_token symmetric=False", or be a QuantSpec;
    scheme says which elements share a scale, scale_rule="full_range" that amax becomes half of all steps.
    least: what a scale is at least: one (the default: that of zeros is 1), none (it is 0), "amax 1e-12" or
    "scale 1e-7" where a kernel clamps so.
    isolated: in a process of its own, which imports the target by its name: a crash, an exit, and a call that
    takes longer than `timeout` seconds (600 by default) are verdicts, with the least input that does it in a
    new process; a read past an input breaks the law `within`; what it prints goes to standard error.  Only
    such a target can be ended: timeout without isolated=True is refused.
    Of kind="matmul", which takes these instead of the options of a format (docs/conformance.md):
        a, b: what the two operands are: float32, bfloat16, float16, a format, a text of both as in
            "int4 per_group(128)", or a QuantSpec
        accumulate: what it sums in, as it claims: float32 (the default) or another of `ACCUMULATORS`
        out: the type of the result; None is float32, and int32 where that is summed in
        layout: nk (the default) where b comes as (n, k), kn where it comes turned, as (k, n); or both
            operands, as in "km,nk", with axes of batches b or c and b before them, 1 one of length 1, as
            in "bmk,bnk", "cbmk,1kn"
        bias: it takes one, of n numbers, as a third argument
        alpha, beta: it takes them, as gemm of BLAS does, and returns alpha * product + beta * c: after a and
            b come c, of the result's shape and type, where beta=True, then alpha, then beta, numbers of
            Python.  Where beta is 0, c must not be read.  in_place: with fills=True, c is no argument; the
            array that it fills holds c
        zero_point: split (the default) where codes and zero points may be summed apart; folded where they
            are not, which decides more results
        nonempty: it takes no operands without rows, columns, terms or batches
        shapes: those (m, n, k), or (b, m, n, k), that are asked, in place of the judge's own; of all other
            kinds but pack and unpack, tensors' shapes that are asked beside them, as (64, 5120): of quantize
            and fake_quantize in every place that 2**26 numbers reach
    effort: quick (inputs that matter), default (these, calls again, two threads, some numbers that are
    drawn) or high (2**24 of them: what is wrong once in a million is found).  seed: of what is drawn, from 0.
    Raises NumericsError for an unknown format, kind or option, for a target that cannot be called, and for
    one that says, in what it raises, that a device is not there: it cannot be judged on this machine.

    >>> import numerics as nx
    >>> print(check(nx.fp8_e4m3.encode, "fp8_e4m3"))
    encode is right: fp8_e4m3 encode, half_even, saturate; 21 laws hold on 41994537 inputs
    these are a sample of the 2^32 float32 inputs: exhaustive=True (--exhaustive) asks all
    >>> bool(check(nx.linear, kind="matmul", a="float32", b="mxfp4"))
    True
    """
    product = {"a": a, "b": b, "accumulate": accumulate, "out": out, "layout": layout, "bias": bias,
               "zero_point": zero_point, "alpha": alpha, "beta": beta, "in_place": in_place, "shapes": shapes,
                "seed": seed, "effort": effort}  # fmt: skip
    options = dict(
        dtype=dtype, kind=kind, rounding=rounding, overflow=overflow, scale_rule=scale_rule, axis=axis,
        tensor_scale=tensor_scale, exhaustive=exhaustive, strict_nan=strict_nan, array=array,
        contiguous=contiguous, whole_blocks=whole_blocks, finite=finite, one_thread=one_thread, fills=fills,
        nonempty=nonempty,
        inputs=inputs, scheme=scheme, packed=packed, scale_layout=scale_layout, draw=draw, least=least,
        **product,
    )  # fmt: skip
    seconds = seconds_of(timeout, truth("isolated", isolated))
    if isolated:
        return judged(name_of(target), options, seconds, _claimed(asked(_nothing, **options)))
    return asked(target, **options).verdict()


def _nothing(*_: Any) -> None:
    """Stands for a target that is not imported here."""


def _claimed(found: Check | ProductCheck) -> Task | Claim:
    return found.target.task if isinstance(found, Check) else found.target.claim


def seconds_of(timeout: Any, isolated: bool) -> float:
    """Seconds of a call, 600 where none are named; raises NumericsError for none, and where none are counted.

    >>> seconds_of(None, isolated=True), seconds_of(5, isolated=True)
    (600.0, 5.0)
    """
    if timeout is None:
        return TIMEOUT
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= LONGEST:
        raise NumericsError(f"timeout={said(timeout)}; allowed: seconds, more than 0, up to {LONGEST:g}")
    if not isolated:
        raise NumericsError(
            f"timeout={said(timeout)} is for isolated=True: what hangs in this process cannot be ended"
        )
    return float(timeout)


@dataclass(frozen=True)
class Check:
    """A target and the trials that it is to stand, one after the other."""

    target: Target
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    """What a verdict says beside what the trials find."""

    @property
    def laws(self) -> tuple[str, ...]:
        """The names of the laws by which it is judged, in their order."""
        return tuple(dict.fromkeys((*SENTENCES, *(law.__name__ for t in self.trials for law in t.laws))))

    @warned_once()
    @stops_noted()
    def verdict(self) -> Verdict:
        """What the trials find, until a law is broken."""
        found = Findings(notes=[*self.notes])
        try:
            with ieee_arithmetic():
                self._try(found)
        except Fault as fault:
            found.failures.append(of_fault(self.target, smallest_that_fails(self.target, fault)))
        self._explain(found)
        return found.verdict(self.target)

    def _explain(self, found: Findings) -> None:
        """Says upon what a fault depends: where that is the calls, or memory, no other law is of a number."""
        if found.failures:
            with ieee_arithmetic():
                found.failures = block_trials.by_block(self.target, found.failures[0]) or found.failures
                first = depends(self.target, found.failures[0])
            settled = first.law in OF_CALLS or first.law != found.failures[0].law or LIES in first.where
            found.failures = [first, *(found.failures[1:] if not settled else ())]
        found.failures = [led(self.target, broken) for broken in found.failures]
        if found.failures:
            with ieee_arithmetic():
                self._name_own_scale(found)

    def _try(self, found: Findings) -> None:
        for trial in self.trials:
            trial.run(self.target, found)
            found.laws += [law.__name__ for law in trial.laws if law.__name__ not in found.laws]
            if found.failures:
                return
        if everything.can_be(self.target.task) and not self.exhaustive:
            found.notes.append(SAMPLE)

    @property
    def exhaustive(self) -> bool:
        """Are all float32 inputs among what is asked?"""
        return any(trial.run is everything.trial().run for trial in self.trials)

    def _name_own_scale(self, found: Findings) -> None:
        """Says of a target that is wrong where it would be right as one that finds the tensor's scale."""
        if (finder := as_finder(self.target)) is None:
            return
        found.notes = [note for note in found.notes if note != SCALE_ALONE] + [OWN_SCALE]
        before = found.explain
        found.explain = lambda: _of_finder(finder) or before()


def _of_finder(finder: Target) -> tuple[Named, ...]:
    """What explains all that it makes as one that finds the tensor's scale; nothing where none is known."""
    made = Check(finder, tuple(block_trials.trials(finder.task, finder.takes, QUICK))).verdict()
    return (OWN, *made.dialects) if made or made.dialects else ()


OWN_SCALE = (
    f"what came fits a kernel that finds the tensor's scale itself: tensor_scale='{AMAX}' (--tensor-scale "
    f"{AMAX}) judges it so"
)
SCALE_ALONE = (
    "no tensor scale but 1 was judged, at which many faults cannot be seen: "
    "tensor_scale= (--tensor-scale) names another"
)
SAMPLE = "these are a sample of the 2^32 float32 inputs: exhaustive=True (--exhaustive) asks all"
WITHIN_BYTES = "not asked: lines whose packed codes end within a byte"
PADDING_UNJUDGED = "bytes of the scales' layout that belong to no block, its padding, were not judged"
OF_PRODUCTS: dict[str, Any] = {
    "a": None, "b": None, "accumulate": "float32", "out": None, "layout": "nk", "bias": False,
    "zero_point": "split", "alpha": False, "beta": False, "in_place": False,
}  # fmt: skip
"""What belongs to kind='matmul' alone, and what it is where nobody gives it."""
OF_FORMATS: dict[str, Any] = {
    "rounding": "half_even", "overflow": None, "scale_rule": "floor", "axis": -1, "tensor_scale": None,
    "strict_nan": False, "exhaustive": False, "inputs": "float32", "scheme": None,
    "packed": False, "scale_layout": None, "draw": None, "least": None,
}  # fmt: skip
"""What belongs to all other kinds."""


def asked(
    target: Callable[..., Any] | str, dtype: Any = None, *, kind: str | None = None, **options: Any
) -> Check | ProductCheck:
    """What `check` is asked, with everything looked up and nothing run; raises as it does.

    >>> import numerics as nx
    >>> asked(nx.fp4.pack, "fp4", kind="pack").laws[8:]
    ('order', 'last_byte', 'layout', 'repeatable', 'threads')
    """
    otherwise = not is_ieee()
    with ieee_arithmetic():
        found = _asked(target, dtype, kind, options)
    if otherwise:
        found.target.note("this thread is")
    return found


def _asked(
    target: Callable[..., Any] | str, dtype: Any, kind: str | None, options: dict[str, Any]
) -> Check | ProductCheck:
    takes = Takes.of(**{name: options.pop(name) for name in Takes._fields if name in options})
    product = kind == "matmul" if isinstance(kind, str) else False
    _refuse(options, OF_FORMATS if product else OF_PRODUCTS, product)
    if takes.nonempty and not product:
        raise NumericsError("nonempty=True is for kind='matmul' alone: arrays of other kinds may be empty")
    effort = Effort.of(options.pop("effort", "default"), options.pop("seed", None))
    if product:
        return _product(target, dtype, takes, options, effort)
    exhaustive, named = options.pop("exhaustive", False), options.pop("shapes", None)
    task = Task.of(dtype, kind, **options)
    if truth("exhaustive", exhaustive):
        everything.refuse(task)
    if takes.whole_blocks and not isinstance(task.dtype, Block) and task.scheme is None and task.rule is None:
        raise NumericsError(f"whole_blocks=True is for blocks and groups, which {task} has not")
    asked_in = _named(named, task, takes)
    alone = task.tensor_scale is not None and options.get("tensor_scale") is None
    trials = tuple(_trials(task, takes, effort, asked_in))
    trials += (everything.trial(),) * bool(exhaustive)
    cut = (WITHIN_BYTES,) * (task.fill_bytes > 1)
    padded = task.kind == "encode" and task.scale_layout not in (None, *block_trials.ZEROS_BEYOND)
    said = (SCALE_ALONE,) * alone + (PADDING_UNJUDGED,) * padded + cut
    return Check(Target(target, task, takes), trials, (*said, *effort.notes))


def _named(came: Any, task: Task, takes: Takes) -> Shapes:
    """The shapes that somebody names, each one that the task has."""
    if not isinstance(task.dtype, Block):
        return named_shapes(came, task.kind, task.scheme if task.rule is None else task.rule.scheme)
    whole = task.multiple(takes.whole_blocks)
    return named_shapes(came, task.kind, None, task.axis, whole)


def _refuse(options: dict[str, Any], others: dict[str, Any], product: bool) -> None:
    """Takes out what belongs to the other kinds; raises NumericsError where it was given."""
    for name, default in others.items():
        came = options.pop(name, default)
        given = type(came) is not type(default) or came != default
        if came is not default and given:
            whose = "is not for kind='matmul'" if product else "is for kind='matmul' alone"
            raise NumericsError(f"{name}={said(came)} {whose}{_way_out(name) if product else ''}")


def _way_out(name: str) -> str:
    """Where a product says what other kinds say by that option."""
    if name != "scheme":
        return ""
    return (
        ": give it with its operand, a= or b=, as a QuantSpec; on the command line as 'int4 per_group(32)' "
        'or as its JSON, \'{"dtype": "int4", "scheme": "per_group(32)"}\''
    )


def _product(
    target: Callable[..., Any] | str, dtype: Any, takes: Takes, options: dict[str, Any], effort: Effort
) -> ProductCheck:
    if dtype is not None:
        raise NumericsError(f"kind='matmul' has two operands: give a= and b= in place of {said(dtype)}")
    shapes = options.pop("shapes", None)
    claim = Claim.of(options.pop("a", None), options.pop("b", None), **options)
    if claim.in_place and not takes.fills:
        raise NumericsError(
            "in_place=True needs fills=True: the array of the result, which it fills, holds c"
        )
    if takes.whole_blocks and not (claim.a.size or claim.b.size):
        raise NumericsError(f"whole_blocks=True is for operands of blocks or groups, not {claim}")
    shapes = check_shapes(shapes, claim)
    return ProductCheck(ProductTarget(target, claim, takes), effort, shapes)


def _trials(task: Task, takes: Takes, effort: Effort, named: Shapes) -> Iterator[Trial]:
    """What is tried one after the other, until a law is broken."""
    if task.rule is not None:
        yield from scales.trials(task, takes, effort, named)
    elif isinstance(task.dtype, Block):
        yield from block_trials.trials(task, takes, effort, named)
    elif task.kind == "affine":
        yield from affine.trials(task, takes, effort, named)
    elif task.kind in ("pack", "unpack"):
        yield from packing.trials(task, takes, effort)
    elif task.draws_itself:
        yield from undrawn.trials(task, takes, effort, named)
    else:
        yield from elements.trials(task, takes, effort, named)
