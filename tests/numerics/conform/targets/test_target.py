"""Targets that return what is no answer, or answer in memory that they use again: a verdict in every kind."""

from __future__ import annotations

import ctypes
import itertools
import signal

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.products.claim import Accumulator
from numerics.conform.task import Task
from numerics.formats.block import Blocks

SCHEMES = ("per_tensor()", "per_channel(1)", "per_group(4, axis=0)", "per_token()", "per_block((2, 3))")
KINDS = [
    *(("int8", {"kind": "affine", "scheme": scheme}) for scheme in (None, *SCHEMES)),
    *(("fp6_e2m3", {"kind": kind}) for kind in ("encode", "decode", "round", "pack", "unpack")),
    *((name, {"kind": kind}) for name in ("mxfp4", "mx6", "nvfp4") for kind in ("encode", "decode", "round")),
    *(("mxfp4", {"kind": kind, "packed": True, "scale_layout": "cublas"}) for kind in ("encode", "decode")),
    ("mxfp4", {"axis": 0, "whole_blocks": True}),
    ("fp8_e4m3", {"rounding": "stochastic"}),
    ("fp8_e4m3", {"rounding": "stochastic", "draw": "own"}),
    ("fp8_e4m3", {"kind": "round", "inputs": "bfloat16"}),
    (None, {"kind": "matmul", "a": "float32", "b": "mxfp4"}),
    (None, {"kind": "matmul", "a": "int8", "b": "int8", "accumulate": "int32"}),
]


def raises(*given):
    raise ValueError("no")


def exits(*given):
    raise SystemExit(3)


class Wordless(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise KeyboardInterrupt

    __repr__ = __str__


class Stop(BaseException):
    """What `except Exception` lets through."""


def raising(wrong):
    def kernel(*given):
        raise wrong

    return kernel


class Untouchable:
    """Whatever is asked of it raises."""

    def __getattribute__(self, name):
        raise ZeroDivisionError(name)


class Classless:
    """It does not even say what it is."""

    @property
    def __class__(self):
        raise LookupError


class Lazy:
    """An array that is made when somebody looks."""

    def __init__(self, make):
        self.make = make

    def __array__(self, dtype=None, copy=None):
        return self.make()


NO_ANSWERS = {
    "it raises": raises,
    "it ends the process": exits,
    "an error without words": raising(Wordless()),
    "an error that is no Exception": raising(Stop("now")),
    "an interrupt of its own": raising(KeyboardInterrupt()),
    "the end of a generator": raising(GeneratorExit()),
    "an error of 10 MB": raising(ValueError("no\n" * 3_000_000)),
    "an untouchable object": lambda *given: Untouchable(),
    "an object without a class": lambda *given: Classless(),
    "an array that cannot be made": lambda *given: Lazy(lambda: {}["x"]),
    "an array that ends the process when it is made": lambda *given: Lazy(exits),
    "a generator": lambda *given: iter(given),
    "objects": lambda *given: np.zeros(np.shape(given[0]), object),
    "records": lambda *given: np.zeros(np.shape(given[0]), [("code", np.uint8)]),
    "bytes of no type": lambda *given: np.zeros(np.shape(given[0]), "V1"),
    "nothing": lambda *given: None,
    "another shape": lambda *given: np.zeros((3, 7, 2), np.uint8),
    "complex numbers": lambda *given: np.zeros(np.shape(given[0]), np.complex128),
    "texts": lambda *given: np.full(np.shape(given[0]), "x"),
    "a ragged list": lambda *given: [[1], [1, 2]],
    "NaN": lambda *given: np.full(np.shape(given[0]), np.nan, np.float32),
    "its input": lambda *given: given[0],
    "2**40": lambda *given: np.full(np.shape(given[0]), 2**40),
}


@pytest.mark.turns(36)
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_a_target_without_an_answer_ended_the_judge(name):
    """An affine target with one scale that raised was cut in halves along an axis that its scale lacks."""
    for dtype, options in KINDS:
        found = check(NO_ANSWERS[name], dtype, effort="quick", **options)
        assert not found, (dtype, options)
        assert found.to_json()
        assert len(str(found)) < 4000, len(str(found))


def test_the_input_that_a_target_cannot_take_is_shown_as_small_as_it_is():
    def refuses(x, *others):
        if np.isnan(x).any():
            raise ValueError("NaN")
        return nx.mxfp4.encode(x, axis=0)

    found = check(refuses, "mxfp4", axis=0, whole_blocks=True, effort="quick").counterexample
    assert found.law == "runs"
    assert found.where.startswith("an input of shape (32, 1)"), str(found)


# ---- one buffer for all answers -------------------------------------------------------------------


def in_one_buffer(right):
    """A kernel that writes each of its answers into the memory of the one before, of that shape."""
    rooms = {}

    def kernel(*given):
        made = right(*given)
        parts = made if isinstance(made, tuple) else (made,)
        for place, part in enumerate(parts):
            room = rooms.setdefault((place, np.shape(part), part.dtype), np.array(part))
            room[...] = part
        kept = tuple(rooms[place, np.shape(part), part.dtype] for place, part in enumerate(parts))
        return kept if isinstance(made, tuple) else kept[0]

    return kernel


def fields(dtype, **options):
    def encode(x, *random):
        drawn = {"rounding": "stochastic", "random_bits": random[0]} if random else {}
        made = dtype.encode(x, **options, **drawn)
        parts = (made.codes, made.scale, made.microexponents)
        return tuple(np.array(part) for part in parts if part is not None)

    return encode


def decoder(dtype):
    return lambda codes, scale, micro=None: Blocks(dtype, -1, codes, scale, micro).decode()


def affine(scheme):
    def quantize(x, scale, zero_point):
        return nx.quantize(
            x, "int8", scheme=scheme, symmetric=False, scale=scale, zero_point=zero_point
        ).codes

    return quantize


def scale_alone(x, room={}):  # noqa: B006 - the fault
    """The codes are new each time, the scales are not."""
    codes, scale = fields(nx.mxfp4)(x)
    kept = room.setdefault(scale.shape, scale.copy())
    kept[...] = scale
    return codes, kept


def stochastic(x, random):
    return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=random)


def own_draws(x, rng=np.random.default_rng(0)):  # noqa: B008 - one generator for all calls
    return stochastic(x, rng.integers(0, 1 << 30, x.shape, np.uint32))


BUFFERS = {
    "encode": (nx.fp8_e4m3.encode, "fp8_e4m3", {}),
    "decode": (nx.fp8_e4m3.decode, "fp8_e4m3", {"kind": "decode"}),
    "round": (nx.fp8_e4m3.round, "fp8_e4m3", {"kind": "round"}),
    "pack": (nx.fp6_e2m3.pack, "fp6_e2m3", {"kind": "pack"}),
    "unpack": (nx.fp6_e2m3.unpack, "fp6_e2m3", {"kind": "unpack"}),
    "affine": (affine(nx.per_tensor()), "int8", {"kind": "affine"}),
    "scales": (affine(nx.per_channel(0)), "int8", {"kind": "affine", "scheme": "per_channel(0)"}),
    "blocks": (fields(nx.mxfp4), "mxfp4", {}),
    "columns": (fields(nx.mxfp4, axis=0), "mxfp4", {"axis": 0}),
    "blocks decoded": (decoder(nx.mxfp4), "mxfp4", {"kind": "decode"}),
    "microexponents": (fields(nx.mx6), "mx6", {}),
    "random bits": (stochastic, "fp8_e4m3", {"rounding": "stochastic"}),
    "own draws": (own_draws, "fp8_e4m3", {"rounding": "stochastic", "draw": "own"}),
    "a product": (nx.linear, None, {"kind": "matmul", "a": "float32", "b": "mxfp4"}),
}


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", BUFFERS)
def test_an_answer_that_the_next_call_overwrites_passed_a_quick_check(name):
    right, dtype, options = BUFFERS[name]
    found = check(in_one_buffer(right), dtype, effort="quick", **options)
    assert found.law == "repeatable", str(found)
    assert "a buffer that is used again" in str(found)


@pytest.mark.turns
def test_scales_that_the_next_call_overwrites_passed():
    assert check(scale_alone, "mxfp4", effort="quick").law == "repeatable"


# ---- arrays of other kinds ------------------------------------------------------------------------


def changed(right, change):
    """A kernel whose arrays are changed before they are returned."""

    def kernel(*given):
        made = right(*given)
        return tuple(map(change, made)) if isinstance(made, tuple) else change(made)

    return kernel


class Array(np.ndarray):
    """It is all of an array's, and more is said of its numbers."""


MASKS = {
    "all of them": lambda x: np.ma.array(x, mask=True),
    "the last": lambda x: np.ma.array(x, mask=np.arange(x.size).reshape(x.shape) == x.size - 1),
    "when it is looked at": lambda x: Lazy(lambda: np.ma.array(x, mask=True)),
    "in a list": lambda x: list(np.ma.array(x, mask=True)),
    "in a list of lists": lambda x: [[*np.ma.array(row, mask=True)] if np.ndim(row) else row for row in x],
}
SAME = {
    "of no masked number": np.ma.array,
    "a record array": lambda x: x.view(np.recarray),
    "a subclass": lambda x: x.view(Array),
    "made when it is looked at": lambda x: Lazy(lambda: x),
    "of the other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "not to be written": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "by its buffer": lambda x: memoryview(x) if x.ndim else x,
}


@pytest.mark.turns
@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize("mask", MASKS)
def test_numbers_that_are_masked_were_taken_for_an_answer(mask, name):
    right, dtype, options = BUFFERS[name]
    found = check(changed(right, MASKS[mask]), dtype, effort="quick", **options)
    assert not found, mask


@pytest.mark.turns(140)
@pytest.mark.parametrize("name", [name for name in BUFFERS if name != "own draws"])
@pytest.mark.parametrize("kind", SAME)
def test_a_right_answer_in_an_array_of_another_kind_was_blamed(kind, name):
    right, dtype, options = BUFFERS[name]
    assert check(changed(right, SAME[kind]), dtype, effort="quick", **options)


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", BUFFERS)
def test_an_answer_that_is_another_one_when_it_is_looked_at_again_passed(name):
    """Each look makes a copy that says one more than the last."""

    def counting(x):
        looks = iter(range(1 << 30))
        return Lazy(lambda: x if not next(looks) else x[:-1] if x.ndim else x + 1)

    right, dtype, options = BUFFERS[name]
    assert not check(changed(right, counting), dtype, effort="quick", **options)


@pytest.mark.parametrize("says", [{"dtype": nx.mxfp6_e2m3}, {"axis": 0}])
def test_blocks_that_say_they_are_others_passed(says):
    """All of their arrays are right, but who decodes them gets other values."""

    def encode(x):
        made = nx.mxfp4.encode(x)
        facts = {"dtype": made.dtype, "axis": made.axis} | says
        return Blocks(facts["dtype"], facts["axis"], made.codes, made.scale)

    found = check(encode, "mxfp4", effort="quick")
    assert found.law == "result"
    assert "Blocks that say" in found.counterexample.came


@pytest.fixture
def listening():
    """Ctrl-C is heard, which a shell's background job ignores from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_within_a_kernel_was_the_kernels_fault(listening):
    """What the handler of a signal raises is not the target's, wherever it happens to run."""

    def interrupted(x, *others):
        signal.raise_signal(signal.SIGINT)
        return nx.fp4.encode(x)

    before = signal.getsignal(signal.SIGINT)
    for options in ({"dtype": "fp4"}, {"kind": "matmul", "a": "float32", "b": "float32"}):
        with pytest.raises(KeyboardInterrupt):
            check(interrupted, **options)
        with pytest.raises(KeyboardInterrupt):
            check(lambda *given: Lazy(lambda: interrupted(given[0])), **options)
        assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.turns
def test_a_target_whose_name_cannot_be_had_ended_the_judge():
    class Nameless:
        __name__ = property(raises)

        def __call__(self, x):
            return nx.fp4.encode(x)

    assert str(check(Nameless(), "fp4", effort="quick")).startswith("Nameless is right")


def test_a_product_that_writes_into_the_scales_of_an_operand_passed():
    def linear(a, b):
        made = nx.linear(a, b)
        b.shared[...] = b.shared[::-1].copy()
        return made

    assert check(linear, kind="matmul", a="float32", b="mxfp4").law == "inputs_unchanged"


# ---- what is asked of it --------------------------------------------------------------------------


PRODUCT = {"kind": "matmul", "a": "float32", "b": "float32"}
HUGE = 1 << 200
SIZES = [
    *({**PRODUCT, "shapes": [shape]} for shape in (
        (1 << 40, 2, 3), (2, 1 << 40, 3), (2, 3, 1 << 40), (1 << 20, 1 << 20, 1), (1 << 13,) * 3,
        (HUGE, 1, 1), (-1, 2, 3), (True, 2, 3), (1.0, 2, 3), (0, True, 1), (0, -1, 1), (1, 2),
    )),
    *({**PRODUCT, "shapes": shapes} for shapes in (5, [], [(1, 1, 1)] * 2000, itertools.repeat((1, 1, 1)))),
    {**PRODUCT, "b": nx.QuantSpec("int4", scheme=nx.per_group(1 << 40))},
    *({**PRODUCT, "seed": seed} for seed in (-1, True, 1.0, "1")),
    *({"dtype": "fp4", "seed": seed} for seed in (-1, True, 1.0, float("nan"))),
    *({"dtype": "mxfp4", "axis": axis} for axis in (1 << 40, -HUGE, 63, -64, True, 1.0)),
    *({"dtype": "fp4", "isolated": True, "timeout": time}
      for time in (HUGE**9, 1e300, True, -1, 0, float("nan"))),
    *({"dtype": "nvfp4", "tensor_scale": scale} for scale in (0, -1.0, float("nan"), HUGE**9, True, 1e300)),
    *({"dtype": "int8", "kind": "affine", "scheme": scheme}
      for scheme in ((1 << 40, 1), "per_group(1099511627776)")),
    {"dtype": nx.block_format(element=nx.fp4, scale="e8m0", block=1 << 14, name="wide_for_the_judge")},
]  # fmt: skip


@pytest.mark.parametrize("options", SIZES, ids=lambda options: str(options)[:80])
def test_a_size_that_cannot_be_was_a_memory_error_of_the_judge(options):
    with pytest.raises(nx.NumericsError):
        check("numerics:fp4.encode", **options)


@pytest.mark.parametrize(
    "facts",
    [{"fused": 0}, {"fused": -HUGE}, {"least": HUGE}, {"least": -HUGE}, {"top": HUGE}, {"top": -HUGE},
     {"least": 5, "top": 5}, {"bits": HUGE}],
)  # fmt: skip
def test_an_accumulator_that_cannot_be_was_taken(facts):
    with pytest.raises(nx.NumericsError):
        Accumulator(**{"bits": 24} | facts)


def test_a_group_longer_than_the_sum_was_spread_in_memory():
    """A scale of more elements than a row has is that of the row."""
    x = np.full((2, 3), 7, np.float32)
    q = nx.quantize(x, "int4", scheme=nx.per_group(1 << 40))
    assert nx.conform.decidable(x, q).all()


def test_a_time_for_a_target_of_this_process_was_passed_over():
    with pytest.raises(nx.NumericsError, match="timeout=5 is for isolated=True"):
        check(nx.fp4.encode, "fp4", timeout=5)


@pytest.mark.parametrize("draw", ["a08", "a\N{FULLWIDTH DIGIT EIGHT}", "a0", "b30", "a31", "a8 ", "A8"])
def test_bits_of_a_draw_in_another_spelling_were_taken(draw):
    with pytest.raises(nx.NumericsError, match="allowed: own, or a rule and its bits"):
        check(stochastic, "fp8_e4m3", rounding="stochastic", draw=draw)


@pytest.mark.parametrize("scheme", ["\N{FULLWIDTH DIGIT FOUR}x4", "04x4", "0x4", "per_group(9999999)"])
def test_a_scheme_that_cannot_be_asked_was_taken(scheme):
    with pytest.raises(nx.NumericsError, match="scheme"):
        check(affine(None), "int8", kind="affine", scheme=scheme)


@pytest.mark.parametrize(("rule", "said"), [("a", "rounded down"), ("b", "R + 1/2"), ("c", "half to even")])
def test_the_law_of_draws_stated_rule_a_for_every_rule(rule, said):
    found = check(
        lambda x, random: stochastic(x, random ^ 1), "fp8_e4m3", rounding="stochastic", draw=f"{rule}8"
    )
    assert found.law == "draws"
    assert said in found.counterexample.sentence


NO_DEVICE = [
    "no GPU", "Found no NVIDIA driver on your system", "No CUDA GPUs are available", "no device is visible",
    "Torch not compiled with CUDA enabled", "0 active drivers ([]). There should only be one.",
    "CUDA driver version is insufficient for CUDA runtime version", "CUDA_ERROR_NO_DEVICE",
]  # fmt: skip
OF_A_KERNEL = ["CUDA error: an illegal memory access was encountered", "piano GPU", "CUDA out of memory"]


@pytest.mark.parametrize("kind", [("fp4", {}), (None, {"kind": "matmul", "a": "float32", "b": "mxfp4"})])
def test_a_device_that_is_not_there_was_a_fault_of_the_kernel(kind):
    """On the command line it could not be judged, and in Python it was wrong."""
    dtype, options = kind
    for words in NO_DEVICE:
        with pytest.raises(nx.NumericsError, match="kernel cannot be judged on this machine: RuntimeError"):
            check(raising(RuntimeError(words)), dtype, **options)
    for words in OF_A_KERNEL:
        assert check(raising(RuntimeError(words)), dtype, **options).law == "runs"


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", ["mxfp4", "mx6", "nvfp4"])
def test_blocks_in_a_list_were_no_result(name):
    """As a function of many results of torch or of a C extension returns them."""
    d = nx.dtype(name)
    options = {"tensor_scale": 1.0} if d.has_tensor_scale else {}

    def listed(x):
        made = d.encode(x, **options)
        return [part for part in (made.codes, made.scale, made.microexponents) if part is not None]

    assert check(listed, name, effort="quick")
    kept = {}

    def again(x):
        for buffer, part in zip(kept.setdefault(x.shape, listed(x)), listed(x), strict=True):
            buffer[...] = part
        return kept[x.shape]

    assert check(again, name, effort="quick").law == "repeatable"
    short = check(lambda x: listed(x)[:1], name)
    assert (short.law, short.counterexample.came) == ("result", "a list of 1")


# ---- memory outside -----------------------------------------------------------------------------------


def poke(x, at):
    """Writes a byte so far from where an array begins."""
    ctypes.memset(x.ctypes.data + at, 1, 1)


def filling(kernel, after=lambda *given: None):
    """A target that writes what a kernel returns into the arrays that it is given last."""

    def target(*given):
        found = kernel(*given)
        found = found if isinstance(found, tuple) else (found,)
        for out, part in zip(given[-len(found) :], found, strict=True):
            out[...] = part
        after(*given)

    return target


def parts_of(made):
    return tuple(part for part in (made.codes, made.scale, made.microexponents) if part is not None)


FILLS = {
    "encode": ("fp8_e4m3", {}, lambda x, o: nx.fp8_e4m3.encode(x)),
    "16 bits": ("bfloat16", {}, lambda x, o: nx.bfloat16.encode(x)),
    "decode": ("fp8_e4m3", {"kind": "decode"}, lambda c, o: nx.fp8_e4m3.decode(c)),
    "round": ("fp4", {"kind": "round"}, lambda x, o: nx.fp4.round(x)),
    "pack": ("fp6_e2m3", {"kind": "pack"}, lambda c, o: nx.fp6_e2m3.pack(c)),
    "unpack": ("fp6_e2m3", {"kind": "unpack"}, lambda p, n, o: nx.fp6_e2m3.unpack(p, n)),
    "affine": (
        "int8",
        {"kind": "affine"},
        lambda x, s, z, o: Task.of("int8", "affine").affine_codes(np.ascontiguousarray(x), s, z),
    ),
    "mx": ("mxfp4", {}, lambda x, c, s: parts_of(nx.mxfp4.encode(x))),
    "mx along 0": ("mxfp4", {"axis": 0}, lambda x, c, s: parts_of(nx.mxfp4.encode(x, axis=0))),
    "mx decode": ("mxfp4", {"kind": "decode"}, lambda c, s, o: nx.Blocks(nx.mxfp4, -1, c, s).decode()),
    "microexponents": ("mx6", {}, lambda x, c, s, m: parts_of(nx.mx6.encode(x))),
    "torch": (
        "fp8_e4m3",
        {"array": "torch"},
        lambda x, o: __import__("torch").from_numpy(nx.fp8_e4m3.encode(x.numpy())),
    ),
    "matmul": (None, {"kind": "matmul", "a": "float32", "b": "mxfp4"}, lambda a, b, o: nx.linear(a, b)),
}


@pytest.mark.turns(36)
@pytest.mark.parametrize("name", FILLS)
def test_a_target_that_fills_arrays_was_not_judged(name):
    dtype, options, kernel = FILLS[name]
    found = check(filling(kernel), dtype, fills=True, effort="quick", **options)
    assert found, str(found)


@pytest.mark.parametrize("name", [name for name in FILLS if name != "torch"])
@pytest.mark.parametrize("ahead", [False, True])
def test_a_write_beside_a_result_passed(name, ahead):
    dtype, options, kernel = FILLS[name]

    def after(*given):
        if given[-1].size:
            poke(given[-1], -1 if ahead else given[-1].nbytes)

    found = check(filling(kernel, after), dtype, fills=True, effort="quick", **options)
    assert found.law == "within"


def test_what_is_not_filled_is_wrong():
    found = check(filling(lambda x, o: o), "fp4", fills=True)
    assert not found


@pytest.mark.parametrize("at", ["behind", "before", "gaps"])
@pytest.mark.parametrize(
    ("dtype", "options", "kernel"),
    [("fp8_e4m3", {}, lambda x: nx.fp8_e4m3.encode(x)), ("mxfp4", {}, lambda x: nx.mxfp4.encode(x)),
     ("fp4", {"kind": "decode"}, lambda c: nx.fp4.decode(c)),
     (None, {"kind": "matmul", "a": "float32", "b": "mxfp4"}, lambda a, b: nx.linear(a, b))],
)  # fmt: skip
def test_a_write_beside_an_input_passed(dtype, options, kernel, at):
    def target(x, *others):
        found = kernel(x, *others)
        if x.size and at == "gaps" and not x.flags.c_contiguous and min(x.strides) >= 2 * x.itemsize:
            poke(x, x.itemsize)
        elif x.size and at != "gaps" and x.flags.c_contiguous:
            poke(x, -1 if at == "before" else x.nbytes)
        return found

    if at == "gaps" and options.get("kind") == "matmul":
        pytest.skip("poison lies there, and it is judged by what it does to results")
    found = check(target, dtype, effort="quick", **options)
    assert found.law == "within"


SCALE = np.float32(3e-5)


@pytest.mark.turns
@pytest.mark.parametrize(
    ("third", "came"),
    [
        ((), None),
        ((None,), None),
        ((SCALE,), None),
        ((np.full((1, 1), SCALE),), None),
        ((9.0,), "a tensor scale of 9"),
        ((np.full(7, SCALE),), "a tensor scale of shape (7,)"),
        ((SCALE, SCALE), "4 arrays"),
        (("junk",), "a tensor scale of"),
    ],
)
def test_what_came_behind_the_scales_was_not_looked_at(third, came):
    def kernel(x):
        made = nx.nvfp4.encode(x, tensor_scale=SCALE)
        return made.codes, made.scale, *third

    found = check(kernel, "nvfp4", tensor_scale=float(SCALE), effort="quick")
    assert bool(found) is (came is None), str(found)
    if came is not None:
        assert found.counterexample.came.startswith(came) or found.law in ("result", "dtype"), str(found)


@pytest.mark.parametrize(("third", "right"), [((None,), True), ((np.zeros(3),), False), (("junk",), False)])
def test_a_field_that_a_format_has_not_was_taken(third, right):
    def kernel(x):
        made = nx.mxfp4.encode(x)
        return made.codes, made.scale, *third

    found = check(kernel, "mxfp4", effort="quick")
    assert bool(found) is right, str(found)
    assert right or found.law == "result"


@pytest.mark.turns(6)
@pytest.mark.parametrize(("zero", "right"), [(0, True), (None, True), (1, False)])
def test_a_zero_point_of_what_is_symmetric_is_none_or_0(zero, right):
    def kernel(x):
        made = nx.quantize(x, "int8", scheme="per_token()")
        return made.codes, made.scale, None if zero is None else np.full(np.shape(made.scale), zero)

    found = check(kernel, "int8", kind="quantize", scheme="per_token()", effort="quick")
    assert bool(found) is right, str(found)


@pytest.mark.turns(8)
@pytest.mark.parametrize(("name", "lies"), [
    ("encode", lambda o: o.strides[-1] > o.itemsize), ("round", lambda o: o.strides[0] < 0),
    ("mx", lambda o: o.ndim > 1 and o.strides[0] < o.strides[1]),
    ("mx decode", lambda o: not o.flags.c_contiguous),
])  # fmt: skip
def test_a_result_whose_strides_are_not_looked_at_passed(name, lies):
    """Each array for a result lay in one piece: a kernel that took it for that was right."""
    dtype, options, kernel = FILLS[name]

    def ignores(*given):
        out = given[-1]
        filling(kernel)(*given)
        if out.size > 1 and lies(out):
            out[...] = np.roll(out, 1)

    found = check(ignores, dtype, fills=True, effort="quick", **options)
    assert found.law == "layout", str(found)
    assert "in a result" in str(found)
    assert "contiguous=True" in str(found)
    assert "calls" not in found.counterexample.where


@pytest.mark.turns
def test_what_is_written_into_the_gaps_of_a_result_is_told_of_it():
    def kernel(x, out):
        lies = (
            np.lib.stride_tricks.as_strided(out, (out.size,), (1,))
            if min(out.strides, default=0) > 0
            else out
        )
        lies[...] = nx.fp8_e4m3.encode(x).reshape(lies.shape)

    found = check(kernel, "fp8_e4m3", fills=True, effort="quick")
    assert found.law == "within", str(found)
    assert "in a result with gaps" in str(found)
    assert check(kernel, "fp8_e4m3", fills=True, effort="quick", contiguous=True)
