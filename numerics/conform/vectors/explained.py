"""What wrong answers of a pipe say: the law that is broken, the simplest input, the known deviations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.search import Asked, nearest, nearest_affine
from numerics.conform.laws.affine import AFFINE_LAWS, Scaled
from numerics.conform.laws.blocks import BLOCK_DECODE_LAWS, BLOCK_LAWS, SeenBlocks, SeenFields
from numerics.conform.laws.company import as_of, repeatable
from numerics.conform.laws.decoding import DECODE_LAWS, Codes
from numerics.conform.laws.elements import Elements, element_laws
from numerics.conform.laws.law import hardness
from numerics.conform.laws.packing import Packing, last_byte, order
from numerics.conform.laws.rows import values_of_rows
from numerics.conform.scales.deviations import Observed
from numerics.conform.scales.deviations import nearest as nearest_scales
from numerics.conform.scales.laws import Scales, laws_of
from numerics.conform.task import Fields as Rows
from numerics.conform.task import Task
from numerics.conform.vectors.operations import (
    AffineOperation,
    BlockOperation,
    DrawnOperation,
    ElementOperation,
    Fields,
    FoundOperation,
    Operation,
    StringOperation,
    each_scale,
)
from numerics.conform.vectors.step import out_of_step
from numerics.conform.vectors.unknown import no_code
from numerics.conform.verdict import Counterexample

MOST = 1 << 15  # vectors that are looked at, and as many wrong ones beyond them
BLOCKS = 1 << 12  # of blocks
ELSEWHERE = (
    "the same question is answered rightly in another line: it depends on other lines, before or after it"
)
TELLING = 64  # groups on which a deviation of scales is tried first


@dataclass
class Kept:
    """Vectors of a run: the first ones, and wrong ones after them."""

    operation: Operation
    came: list[Fields] = field(default_factory=list)
    due: list[Fields] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    size: int = 0
    wrong: int = 0
    told: int = 0
    """Lines that were looked at."""

    def take(self, fields: Fields, due: Fields, wrong: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
        """Some of the lines whose answers are known: as many as there is room for."""
        most = BLOCKS if isinstance(self.operation, (BlockOperation, FoundOperation)) else MOST
        chosen = (np.arange(len(wrong)) < most - self.size) & known
        later = np.flatnonzero(wrong & ~chosen)[: most - self.wrong]
        chosen[later] = True
        self.wrong += len(later)
        self.size += int(chosen.sum()) - len(later)
        if chosen.any():
            self.places.append(self.told + np.flatnonzero(chosen))
            self.came.append({name: part[chosen] for name, part in fields.items()})
            self.due.append({name: part[chosen] for name, part in due.items()})
        self.told += len(wrong)

    def joined(self) -> tuple[Fields, Fields]:
        """All of them: the fields of the lines, and the exact answers."""
        first, second = (
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            for parts in (self.came, self.due)
        )
        return first, second


def explain(kept: Kept, strict_nan: bool) -> tuple[Counterexample | None, str | None]:
    """The most telling broken law and its simplest input, and the deviations that explain every answer.

    None where no vector is wrong.
    """
    asked = kept.operation
    came, due = kept.joined()
    late = None if strict_nan else out_of_step(asked, (came, due, np.concatenate(kept.places)))
    if late is not None:
        return late
    answers = [f for f in asked.answered if f.name in ("code", "scale", "microexponents")]
    none = [(came[f.name] >= 1 << _bits(asked, f.name)).any(axis=1) for f in answers]
    if np.any(none):
        return no_code(asked, came, due, np.logical_or.reduce(none)), None
    if isinstance(asked, FoundOperation):
        return _of_groups(replace(asked.task, strict_nan=strict_nan), came)
    task = _task(asked, strict_nan)
    elsewhere = _right_elsewhere(asked, came, due)
    if elsewhere.any():
        some = ({name: part[elsewhere] for name, part in fields.items()} for fields in (came, due))
        broken, _ = _explained(asked, task, *some)
        differs = int(_wrong(asked, came, due).sum())
        return broken and replace(as_of(broken, repeatable, ELSEWHERE), differs=differs), None
    return _explained(asked, task, came, due)


def _wrong(asked: Operation, came: Fields, due: Fields) -> NDArray[np.bool_]:
    answers = {f.name: came[f.name] for f in asked.answered}
    found: NDArray[np.bool_] = np.logical_or.reduce(
        [part.any(axis=1) for part in asked.differs(answers, due).values()]
    )
    return found


def _right_elsewhere(asked: Operation, came: Fields, due: Fields) -> NDArray[np.bool_]:
    """The wrong lines whose question is answered rightly in another line."""
    asks = np.concatenate([came[f.name].astype(np.uint32) for f in asked.asked], axis=1)
    each = np.ascontiguousarray(asks).view(f"V{4 * asks.shape[1]}").reshape(-1)
    _, which = np.unique(each, return_inverse=True)
    wrong = _wrong(asked, came, due)
    return wrong & np.isin(which, which[~wrong])


def _explained(
    asked: Operation, task: Task, came: Fields, due: Fields
) -> tuple[Counterexample | None, str | None]:
    """By the laws of its kind, and the deviations of it."""
    if isinstance(asked, AffineOperation):
        return _of_scales(task, came, due)
    if isinstance(asked, StringOperation):
        return _of_strings(task, came, due), None
    if isinstance(asked, ElementOperation):
        return _of_codes(task, came, due) if asked.name == "decode" else _of_elements(task, came, due)
    return _of_fields(task, came, due) if asked.name == "decode" else _of_blocks(task, came, due)


def _bits(asked: Operation, name: str) -> int:
    assert isinstance(
        asked, (ElementOperation, BlockOperation, AffineOperation, StringOperation, FoundOperation)
    )
    if isinstance(asked, FoundOperation) and name != "code":
        return 32
    if not isinstance(asked, BlockOperation):
        return asked.dtype.bits
    d = asked.dtype
    return {"code": d.element_bits, "scale": d.scale_bits, "microexponents": d.micro_bits}[name]


def _task(asked: Operation, strict_nan: bool) -> Task:
    assert isinstance(asked, (ElementOperation, BlockOperation, AffineOperation, StringOperation))
    options: dict[str, Any] = {"rounding": asked.rounding or "half_even"}
    options["strict_nan"] = strict_nan and asked.rounding is not None
    if isinstance(asked, ElementOperation):
        options["overflow"] = asked.overflow
    elif isinstance(asked, BlockOperation):
        options |= {"scale_rule": asked.scale_rule or "floor", "tensor_scale": asked.tensor_scale}
    if isinstance(asked, DrawnOperation) and asked.draws:
        options["draw"] = asked.drawing.spelling
    return Task.of(asked.dtype, asked.name, **options)


def _floats(bits: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


def _first(laws: Any, seen: Any) -> Counterexample | None:
    return next((found for law in laws if (found := law(seen)) is not None), None)


def _named(asked: Asked, wrong: NDArray[np.bool_], labels: Any) -> str | None:
    return " + ".join(dialect.name for dialect in nearest(asked, wrong, labels)) or None


def _of_elements(task: Task, came: Fields, due: Fields) -> tuple[Counterexample | None, str | None]:
    x, random = _floats(came["input"][:, 0]), came["random"][:, 0] if "random" in came else None
    if task.kind == "encode":
        answers = [part["code"][:, 0].astype(task.element.code_dtype) for part in (came, due)]
    else:
        answers = [_floats(part["value"][:, 0]) for part in (came, due)]
    seen = Elements(task, x, answers[0], answers[1], random)
    asked = Asked(task, x, answers[0], random)
    return _first(element_laws(task), seen), _named(asked, seen.wrong, seen.labels)


def _of_codes(task: Task, came: Fields, due: Fields) -> tuple[Counterexample | None, str | None]:
    codes = came["code"][:, 0].astype(task.element.code_dtype)
    seen = Codes(task, codes, _floats(came["value"][:, 0]), _floats(due["value"][:, 0]))
    return _first(DECODE_LAWS, seen), _named(Asked(task, codes, seen.came), seen.wrong, np.zeros(len(codes)))


def _of_scales(task: Task, came: Fields, due: Fields) -> tuple[Counterexample | None, str | None]:
    """Integers, a scale and a zero point at a time."""
    kind, every = task.element.code_dtype, []
    answers = [part["code"][:, 0].astype(kind) for part in (came, due)]
    for own, scale, zero_point in each_scale(came):
        x = _floats(came["input"][own, 0])
        every.append(Scaled(task, scale, zero_point, x, answers[0][own], answers[1][own]))
    first = next((found for law in AFFINE_LAWS for seen in every if (found := law(seen)) is not None), None)
    return first, " + ".join(dialect.name for dialect in nearest_affine(every)) or None


def _of_groups(task: Task, came: Fields) -> tuple[Counterexample | None, str | None]:
    """Groups whose scale the device finds: of the first law that is broken the simplest group."""
    every = _found(task, came)
    for law in laws_of(task):
        wrong = every.wrong_groups(law.__name__)
        if len(wrong):
            used = np.count_nonzero(every.x[wrong], axis=1)
            at = wrong[np.lexsort((hardness(every.found.extent.reshape(-1)[wrong]), used))[0]]
            one = law(_found(task, {name: part[at : at + 1] for name, part in came.items()}))
            assert one is not None
            kept = np.union1d(wrong[:TELLING], np.arange(min(TELLING, len(every.x))))
            seen = [every, _found(task, {name: part[kept] for name, part in came.items()})]
            spoken = nearest_scales(task, [Observed(some.x, some.came) for some in seen])
            named = " + ".join(habit.name for habit in spoken) or None
            return replace(one, differs=int(every.masks[law.__name__].sum())), named
    return None, None


def _found(task: Task, came: Fields) -> Scales:
    """What a device made of groups, a row each."""
    x = _floats(came["input"])
    if task.kind == "fake_quantize":
        return Scales(task, x, _floats(came["value"]))
    zero = came["zero-point"].astype(np.uint32).view(np.int32) if "zero-point" in came else None
    return Scales(task, x, Rows(came["code"].astype(task.element.code_dtype), _floats(came["scale"]), zero))


def _of_strings(task: Task, came: Fields, due: Fields) -> Counterexample | None:
    """The first wrong string: order where its whole bytes are wrong, last_byte where they are right."""
    name = "byte" if task.kind == "pack" else "code"
    wrong = (came[name] != due[name]).any(axis=1)
    bits, at = task.element.bits, int(wrong.argmax())
    codes, answer = (part[at] for part in (came["code"], came[name]))
    string = came["byte"][at]
    if task.kind == "pack":
        string = due["byte"][at]
    else:
        codes = due["code"][at]
    seen = Packing(task, codes, string, answer)
    whole = len(codes) * bits // 8 if task.kind == "pack" else len(codes) * bits // 8 * 8 // bits
    return order(seen) if (answer[:whole] != seen.due[:whole]).any() else last_byte(seen)


def _rows(task: Task, fields: Fields) -> Rows:
    d = task.block
    micro = fields["microexponents"][:, 0].astype(d.micro_dtype) if d.sub_blocks else None
    return Rows(fields["code"].astype(task.block.code_dtype), fields["scale"][:, 0].astype(np.uint8), micro)


def _of_blocks(task: Task, came: Fields, due: Fields) -> tuple[Counterexample | None, str | None]:
    x, random = _floats(came["input"]), came.get("random")
    truth = task.fields(x, random)
    shared = [None if part is None else part.reshape(-1) for part in truth[1:]]
    assert shared[0] is not None
    rows = Rows(truth.codes, shared[0], shared[1])
    if task.kind == "encode":
        seen = SeenBlocks(task, x, task.with_same_nan(_rows(task, came), rows), rows, rows, random)
    else:
        seen = SeenBlocks(task, x, _floats(came["value"]), values_of_rows(task, rows), rows, random)
    return _first(BLOCK_LAWS, seen), _named(Asked(task, x, seen.came, random), seen.wrong, seen.labels)


def _of_fields(task: Task, came: Fields, due: Fields) -> tuple[Counterexample | None, str | None]:
    seen = SeenFields(task, _rows(task, came), _floats(came["value"]), _floats(due["value"]))
    return _first(BLOCK_DECODE_LAWS, seen), None
