"""Which tensors of a checkpoint are quantized, and along which axis: what names and shapes can say."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from numerics.files.companions import Companion, companions, left_by_name
from numerics.files.header import ORIGINALS, Plan
from numerics.files.layouts import Layouts
from numerics.files.safetensors import Entry
from numerics.formats.errors import NumericsError, items_of, said
from numerics.tensor.scheme import Scheme, per_channel, per_output, tiled_kernel
from numerics.tensor.spec import QuantSpec

WASTE = 2  # times the bytes of the first axis, from which on that is taken
KERNEL = 16  # elements: where the last of three axes is shorter, the weight is a convolution's, no experts'
IMAGES = 4  # axes from which on a weight is a convolution's: (outputs, inputs, height, width ...)

ALREADY = "quantized already"
BESIDE = "belongs to codes"
EXCLUDED = "excluded"


class Tensors(Protocol):
    """What says which tensors a file, or a folder of files, has."""

    @property
    def path(self) -> object:
        """Where they are."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Their types and shapes, by name."""
        ...


class Selection:
    """The tensors of a file that are quantized: `names`; and why the others are copied: `why`.

    layouts: of which weights the inputs come first.  words: of those that are left since their names say that
    they are no weights, the word that says it.

    ties: further names of tensors, each with the one in the file; patterns may be of either.

    Numbers that belong to tensors which another tool quantized are copied with those.  Raises NumericsError
    for patterns that match no tensor, for an include that chooses nothing that can be quantized or chooses
    such numbers, and where there is nothing else.
    """

    def __init__(
        self, reader: Tensors, include: Sequence[str], exclude: Sequence[str], ties: Mapping[str, str]
    ) -> None:
        self.reader, self.include, self.exclude = reader, _patterns(include), _patterns(exclude)
        self.layouts = Layouts(reader.path, reader.entries)
        self.also: dict[str, tuple[str, ...]] = {}
        for alias, name in ties.items():
            self.also[name] = (*self.also.get(name, ()), alias)
        for option, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(self._named(name, (pattern,)) for name in reader.entries):
                    raise NumericsError(
                        f"{option}={pattern!r} matches no tensor of {reader.path}; "
                        "patterns take *, ? and [abc], and match whole names of tensors or of layers"
                    )
        self._by_name = left_by_name(reader.entries)
        others = {name: self._why_not(name, entry) for name, entry in reader.entries.items()}
        self.names = [name for name, why in others.items() if why is None]
        self.why = {name: why for name, why in others.items() if why is not None}
        self.words = {name: word for name, (word, why) in self._by_name.items() if self.why.get(name) == why}
        self._check_included()
        self._check_companions()
        self._check_excluded()

    def names_of(self, name: str) -> tuple[str, ...]:
        """All names of a tensor, that in the file first."""
        return name, *self.also.get(name, ())

    def _named(self, name: str, patterns: Sequence[str]) -> bool:
        return any(_named(one, patterns) for one in self.names_of(name))

    def _why_not(self, name: str, entry: Entry) -> str | None:
        if self._named(name, self.exclude):
            return EXCLUDED
        return self._why_left(name, entry)

    def _why_left(self, name: str, entry: Entry) -> str | None:
        """The same where nothing is excluded."""
        if self.include and not self._named(name, self.include):
            return "not included"
        if entry.dtype not in ORIGINALS:
            return f"{entry.dtype} is not quantized; {', '.join(ORIGINALS)} are"
        named = any(_matches(one, self.include) for one in self.names_of(name))  # not its layer alone
        if not entry.shape or (len(entry.shape) < 2 and not named):
            return "fewer than two dimensions" if entry.shape else "a single number"
        return None if named or name not in self._by_name else self._by_name[name][1]

    def excluded_by(self, pattern: str) -> list[str]:
        """The tensors that would be quantized, as far as their names and shapes say, but for that pattern."""
        found = {one.name for one in companions(self.reader.entries)}
        return [name for name, entry in self.reader.entries.items()
                if self._named(name, (pattern,)) and self._why_left(name, entry) is None
                and (self.include or not self.names or name not in found)]  # fmt: skip

    def check_excluding(self, pattern: str, why: Mapping[str, str]) -> None:
        """Raises NumericsError for a pattern that excludes only what stays as it is.  why: it stays."""
        for name in self.reader.entries if not self.excluded_by(pattern) or why else ():
            if self._named(name, (pattern,)):
                left = why.get(name) or self._why_left(name, self.reader.entries[name]) or BESIDE
                raise NumericsError(
                    f"exclude={pattern!r} matches only what stays as it is without it, such as {name!r} "
                    f"({left}): leave it out"
                )

    def _check_excluded(self) -> None:
        for pattern in self.exclude:
            self.check_excluding(pattern, {})

    def _check_included(self) -> None:
        if self.include and not self.names:
            reasons = {f"{name!r}: {why}" for name, why in self.why.items() if why != "not included"}
            raise NumericsError(
                f"include={', '.join(map(repr, self.include))} chooses no tensor of {self.reader.path} "
                f"that can be quantized: {'; '.join(sorted(reasons)[:3])}"
            )

    def _check_companions(self) -> None:
        chosen, entries = set(self.names), self.reader.entries
        found = {companion.name: companion for companion in companions(entries)}
        ruined = [companion for name, companion in found.items() if name in chosen]
        if ruined and (self.include or not chosen - found.keys()):
            raise NumericsError(_already(ruined, self.reader))
        self.names = [name for name in self.names if name not in found]
        self.words = {name: word for name, word in self.words.items() if name not in found}
        for companion in found.values():
            kind = entries[companion.codes].dtype
            self.why[companion.codes] = f"{ALREADY}: {kind}, as {companion.source} has it"
        for companion in found.values():  # after the codes: one may be the scale of another's scales
            self.why[companion.name] = BESIDE

    def leave(self, name: str, why: str) -> None:
        """Copies a tensor that would grow; raises NumericsError where it was asked for by include."""
        if self.include:
            raise NumericsError(f"{why}: exclude it, or give another axis, group size or format")
        self.why[name] = why


def _named(name: str, patterns: Sequence[str]) -> bool:
    """Does a pattern match a tensor's name or that of its layer, as rules do?"""
    layer = name.rpartition(".")[0]
    return _matches(name, patterns) or (layer != "" and _matches(layer, patterns))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def already_said(tensors: Iterable[tuple[tuple[int, ...], str | None]]) -> str | None:
    """How many matrices another tool quantized, and how to do it anew; None where there are none.

    tensors: the shape of each, and why it is copied.

    >>> already_said([((4, 4), "quantized already: F8_E4M3"), ((1, 1), "belongs to codes")])[:46]
    '1 of 1 matrices are quantized already and stay'
    """
    matrices = [why or "" for shape, why in tensors if len(shape) > 1 and why != BESIDE]
    already = sum(why.startswith(ALREADY) for why in matrices)
    if not already:
        return None
    return (
        f"{already} of {len(matrices)} matrices are {ALREADY} and stay; to requantize: numerics dequantize "
        "MODEL FLOAT, and numerics quantize FLOAT OUT"
    )


def _patterns(came: Sequence[str]) -> tuple[str, ...]:
    patterns = (came,) if isinstance(came, str) else tuple(items_of("patterns of names", came))
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise NumericsError(
                f"{said(pattern)} is not a pattern of names; allowed: texts such as '*.weight'"
            )
    return patterns


def _already(ruined: list[Companion], reader: Tensors) -> str:
    one, codes = ruined[0], {companion.codes for companion in ruined}
    patterns = sorted({f"*{companion.ending}" for companion in ruined})
    return (
        f"{reader.path} was quantized already by another tool ({one.source}): {len(codes)} tensors, such as "
        f"{one.codes!r} ({reader.entries[one.codes].dtype}), are decoded with others, such as {one.name!r}, "
        "which would be quantized as if they were weights; `numerics dequantize` writes the floats of all "
        "that it reads, and that tool of the others (activation order of GPTQ, for one), which can be "
        f"quantized; or copy both: exclude {', '.join(map(repr, patterns))}"
    )


# ---- the axis -------------------------------------------------------------------------------------


def says_no_axis(scheme: Scheme | str) -> bool:
    """May the axis of groups be chosen?  Not where a text says it, nor where it is another than the default.

    >>> from numerics.tensor.scheme import per_group
    >>> says_no_axis("per_group(64)"), says_no_axis("per_group(64, axis=-1)"), says_no_axis(per_group(64))
    (True, False, True)
    >>> says_no_axis("per_channel"), says_no_axis("per_channel(0)"), says_no_axis("per_token")
    (True, False, False)
    """
    if isinstance(scheme, Scheme):
        return (scheme.kind, scheme.axis) in (("per_group", -1), ("per_channel", 0))
    parsed = Scheme.parse(scheme)
    return parsed.axis is not None and not says_axis(parsed.kind, scheme)


def says_axis(kind: str, text: str) -> bool:
    """Does the text of a scheme that has an axis say it?  Of groups it is the second number.

    >>> says_axis("per_group", "per_group(64)"), says_axis("per_channel", "per_channel(0)")
    (False, True)
    """
    numbers = sum(bool(part.strip(" )")) for part in text.partition("(")[2].split(","))
    return numbers > (kind == "per_group")


def is_kernel(plan: Plan) -> bool:
    """Is it a convolution's, (outputs, inputs, kernel ...)?  It has four axes, or three and is called one."""
    axes = len(plan.shape)
    return axes >= IMAGES or (axes == IMAGES - 1 and "conv" in plan.names["codes"].lower())


def per_output_channel(plan: Plan, first: bool = False) -> Plan:
    """Returns the plan with a scale for each output channel, where per_channel names no other axis than 0.

    Weights are (outputs, inputs ...), those of experts (experts, outputs, inputs).  first: inputs come before
    outputs.
    """
    scheme = plan.spec.scheme
    if plan.spec.blocked or scheme != per_channel() or len(plan.shape) < 2:
        return plan
    scheme = per_output(plan.shape, -2) if first else per_output(plan.shape, -1, outputs_of(plan))
    return replace(plan, spec=plan.spec.with_scheme(scheme))


def outputs_of(plan: Plan) -> int | None:
    """The axis of the output channels of a convolution's kernel; None of other weights."""
    return 0 if is_kernel(plan) or (len(plan.shape) == IMAGES - 1 and plan.shape[-1] < KERNEL) else None


def tiles_of_kernel(plan: Plan) -> str | None:
    """What is said of tiles that would lie over a convolution's kernel; None of others.

    >>> spec = QuantSpec("fp8_e4m3", scheme="per_block((128, 128))")
    >>> tiles_of_kernel(Plan(spec, (32, 64, 3, 3), "float32", {"codes": "w"}))
    'tiles of 128x128 would lie over its kernel, of 3x3 (its axes are outputs, inputs, kernel)'
    """
    if plan.spec.blocked and plan.spec.rows == 1:  # one row of blocks is blocks, whose axis is chosen
        return None
    return tiled_kernel(plan.spec.scheme, plan.shape, outputs_of(plan))


def chosen_axis(plan: Plan, first: bool = False) -> int:
    """Along which axis of a weight its blocks or groups lie, where nobody said.

    Weights are (outputs, inputs) or (outputs, inputs, kernel ...).  The last axis, where a block or group
    fits on it; else the longest behind the first; of a convolution, which has four axes or is called one,
    the input channels, and never the kernel; the first, where that takes half of the bytes.
    first: weights are (inputs, outputs), or (experts, inputs, outputs); it is the last axis but one.
    """
    shape, size = plan.shape, plan.size
    if size is None or len(shape) < 2:
        return -1
    if first:
        return len(shape) - 2
    if shape[-1] >= size and not is_kernel(plan):
        return -1
    inner = _inner_axis(plan)
    if plan.along(inner).nbytes > WASTE * plan.along(0).nbytes:
        return 0
    return inner if inner != len(shape) - 1 else -1


def _inner_axis(plan: Plan) -> int:
    """The axis of the inputs: of a convolution the second, else the longest behind the first."""
    if is_kernel(plan):
        return 1
    return max(range(1, len(plan.shape)), key=lambda axis: (plan.shape[axis], axis))


def why_axis(plan: Plan) -> str:
    """What a reason adds of an axis other than the last one, which `chosen_axis` chose.

    >>> plan = Plan(QuantSpec("int4", scheme="per_group(32)"), (16, 3), "float32", {"codes": "w"})
    >>> why_axis(plan.along(chosen_axis(plan)))
    ', since the last one has 3 of 32'
    """
    shape, axis = plan.shape, plan.axis
    if axis == 0:
        inner = _inner_axis(plan)
        which = "the last one" if inner == len(shape) - 1 else f"axis {inner}"
        return f", since {which} has {shape[inner]} of {plan.size}"
    return ", the inputs, and never the kernel" if is_kernel(plan) else ", the longest of the inputs"


def axis_of(name: str, shape: Sequence[int], spec: QuantSpec) -> int:
    """The axis, from the front, along which a job lays the blocks of a weight of that name.

    >>> axis_of("conv.weight", (32, 64, 3, 3), QuantSpec("mxfp4")), axis_of("w", (8, 64), QuantSpec("mxfp4"))
    (1, 1)
    """
    return chosen_axis(Plan(spec, tuple(shape), "float32", {"codes": name})) % max(len(shape), 1)
