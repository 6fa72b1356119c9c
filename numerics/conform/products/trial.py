"""Products are asked one after the other until a law is broken; then the smallest case is sought."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, count, islice
from math import prod
from typing import Any

import numpy as np

from numerics.backends.host.ieee import inside_ieee
from numerics.backends.partition import as_shape
from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.laws.beside import WORKQUEUE, aborts, threads
from numerics.conform.laws.company import keeps_by_shape
from numerics.conform.laws.law import sentence
from numerics.conform.products.asking import ProductTarget, Seen
from numerics.conform.products.cases.aliasing import is_turned
from numerics.conform.products.cases.batches import whole
from numerics.conform.products.cases.maker import Shape
from numerics.conform.products.cases.order import problems
from numerics.conform.products.certificate import answer, results_of
from numerics.conform.products.circumstances.kept import BEFORE, BY_SHAPE, Kept, two_longer
from numerics.conform.products.circumstances.kept import kept as kept_of
from numerics.conform.products.circumstances.left import followed
from numerics.conform.products.circumstances.other_memory import alike, laid, memories, simpler_lies
from numerics.conform.products.circumstances.together import at_once, at_once_of_itself
from numerics.conform.products.claim import Claim
from numerics.conform.products.given import arguments, c_of, original_of
from numerics.conform.products.laws import LAWS, TELLING, beta, repeatable, strides, two_terms
from numerics.conform.products.lying import DENSE, Lies
from numerics.conform.products.pace import Pace
from numerics.conform.products.problem import Problem
from numerics.conform.products.telling.deviations.search import explained
from numerics.conform.products.telling.naming import law_of
from numerics.conform.products.telling.shrink import smallest
from numerics.conform.products.telling.terms import result, terms
from numerics.conform.products.telling.turned import fitting_layout, hint
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.targets.returned import stops_noted
from numerics.conform.verdict import Counterexample, Verdict
from numerics.conform.warned import warned_once
from numerics.formats.errors import NumericsError, said

FEW_CLASSES = 8  # of shapes, beside square ones, whose arrays lie in each way where it is quick
LAID = 1 << 17  # terms of products of which those of every shape come in other memory, unless quick
LOOKED_AT = 6  # products of which every bit is looked at again
TILES = (1, 16, 64, 256, 4096)  # rows, columns or terms, past each of which kernels may go another way
TRIPLES = "triples (m, n, k) of 0 and more are due, as in [(1, 64, 256)]"
MOST_SHAPES, MOST_NUMBERS, MOST_TERMS = 1024, 1 << 24, 1 << 32
"""Of what somebody wants to be asked: shapes, numbers of a matrix, terms of all sums of a product."""
WITHIN = ", of tensors that begin within their storage"
TOLD = 24  # products whose results a deviation must explain
MORE = 8  # products of one shape, among which all laws of numbers are
NAN_BYTE = 255  # of scales that are powers of two
DECIDED = 6  # products of two terms, of which some are decided in narrow accumulators, too


@dataclass
class ProductCheck:
    """A product and what it is asked; `verdict` asks it."""

    target: ProductTarget
    effort: Effort = AS_EVER
    shapes: tuple[tuple[int, ...], ...] | None = None
    seen: list[Seen] = field(default_factory=list)
    left_out: int = 0
    pace: Pace = field(init=False)
    asked: list[Problem] = field(default_factory=list)
    """The product that was asked last, where it is one of the first time."""
    hints: list[str] = field(default_factory=list)
    """By which other claim a target that is wrong would be right."""

    def __post_init__(self) -> None:
        self.pace = Pace(self.target.watch)

    @cached_property
    @inside_ieee
    def laws(self) -> tuple[str, ...]:
        """The names of the laws by which it is judged."""
        asked = {problem.law for problem in self._problems()}
        always = {"repeatable", "strides"} | ({"threads"} if self._asks_threads else set())
        return *SENTENCES, *(name for name in LAWS if name in asked | always)

    @property
    def _asks_threads(self) -> bool:
        """Do two threads call at once?"""
        return bool(self.effort.rounds) and not self.target.takes.one_thread

    def _problems(self) -> Iterator[Problem]:
        for seed in self.effort.seeds:
            yield from problems(self.target.claim, seed, self.shapes, not self.effort.calls)

    @inside_ieee
    @warned_once()
    @stops_noted()
    def verdict(self) -> Verdict:
        """What the products show, until a law is broken."""
        failures, laws = [], [*SENTENCES]
        try:
            for problem in self._problems():
                if not self.target.takes_problem(problem):
                    self.left_out += 1
                    continue
                if not self._has_time(problem):
                    continue
                self._note(problem, laws)
                if self.seen[-1].wrong.any():
                    found = self._counterexample(self.seen[-1], problem.law)
                    failures.append(followed(self.target, [problem], found) or found)
                    laws += [found.law] * (found.law in LAWS and found.law not in laws)
                    break
            else:
                failures += [self._of_memory(found) for found in self._again(laws)]
        except Fault as fault:
            failures.append(self._left(fault))
        if failures and (layout := fitting_layout(self.target)) is not None:
            self.hints.append(f"{hint(layout)} (--layout {layout}) judges it so")
        if failures and (short := _rounded_to(self.target.claim)):
            self.hints.append(
                f"dequantize() of a QTensor is rounded to {short} here, the type of the other side: "
                "dequantize('float32') is not"
            )
        return self._verdict(tuple(laws), tuple(failures))

    def _of_memory(self, found: Counterexample) -> Counterexample:
        """The same, unless it follows what the memory of its result held."""
        asked = [] if found.problem is None else [found.problem]
        return followed(self.target, asked, found) or found

    def _left(self, fault: Fault) -> Counterexample:
        """What a fault says; of what was not written, whether it was added to what memory held."""
        if fault.law != "written":
            return fault.found
        return followed(self.target, self.asked, fault.found) or fault.found

    def _note(self, problem: Problem, laws: list[str]) -> None:
        self.asked = [problem]
        self.seen.append(self.pace.timed(problem.sizes_of_all, lambda: self.target.see(problem)))
        if problem.law not in laws:
            laws.append(problem.law)

    def _verdict(self, laws: tuple[str, ...], failures: tuple[Counterexample, ...]) -> Verdict:
        loose = sum(int(seen.never_finite.sum()) for seen in self.seen)
        tried = sum(int(seen.decided.sum()) for seen in self.seen) + loose
        wrong = sum(int(seen.wrong.sum()) for seen in self.seen)
        undecided = sum(int(results_of(seen.problem).sum()) for seen in self.seen) - tried
        notes = [*self.hints]
        if undecided:
            notes.append(f"{undecided} results depend on the order of sums and factors, and are not judged")
        if loose:
            notes.append(
                f"of {loose} results that are Inf it was asked that they are no finite number: "
                "where zero points, or shifts of codes, are summed apart, NaN is right as well"
            )
        if self.left_out:
            notes.append(f"{self.left_out} products were not asked: the target does not take them")
        notes += self.pace.notes
        if self.shapes is not None:
            notes.append("asked in no shapes but those that were given")
        notes.append(f"on {platform.machine()}, {platform.processor() or platform.system()}")
        notes += [*self.target.takes.notes, *self.target.notes, *self.effort.notes]
        return Verdict(self.target.name, self.target.claim, laws, tried, wrong, failures, self._explain,
                       tuple(notes), f"results of {len(self.seen)} products")  # fmt: skip

    # ---- once more -------------------------------------------------------------------------------

    def _again(self, laws: list[str]) -> list[Counterexample]:
        """The same products in other memory, and again; and an earlier result, which stays."""
        for law in (strides, repeatable):
            laws.append(law.__name__)
            for found in self._strided() if law is strides else self._repeated():
                return [found]
        if wrong := next((wrong for seen in self._told if (wrong := self._overwritten(seen.problem))), []):
            return wrong
        return self._threads(laws) if self._asks_threads else []

    def _threads(self, laws: list[str]) -> list[Counterexample]:
        """Two threads at once, of products that are right alone."""
        if aborts():
            self.target.notes.append(WORKQUEUE)
            return []
        laws.append(threads.__name__)
        wrong = at_once(self.target, one_a_class(self.seen), self.effort.rounds)
        wrong = wrong or at_once_of_itself(self.target, self.seen)
        if wrong is None:
            return []
        found = self._placed(wrong, threads.__name__, wrong.due, wrong.wrong)
        return [replace(found, where=f"{found.where}, while another thread called")]

    def _strided(self) -> Iterator[Counterexample]:
        """Products that were asked before in other memory, the smallest first, so that a fault costs little.

        Of each class of shapes, and of square ones, the smallest in every way; unless quick, one of each
        shape that is not large in some, and by turns in others: a path for 32 rows may ignore a leading
        dimension.
        """
        every = [seen for seen in smallest_of_each_kind(self.seen) if self._has_time(seen.problem)]
        some = [seen for seen in one_a_shape(self.seen)[::-1] if prod(seen.problem.shape) <= LAID]
        if not self.effort.calls:
            short = [seen for seen in every if prod(seen.problem.shape) <= LAID]
            some, every = [], [*filter(is_square, short), *short[:: -(-len(short) // FEW_CLASSES) or 1]]
        turns = count()
        small = (
            self._laid(seen, None if prod(seen.problem.shape) <= LAID else next(turns)) for seen in every
        )
        others = (self._laid_plainly(seen, next(turns)) for seen in some)
        for now in chain.from_iterable(chain(small, others)):
            if now.wrong.any():
                yield self._of_lies(now)

    def _laid_plainly(self, before: Seen, turn: int | None) -> Iterator[Seen]:
        """A product that was asked before, in other memory: in every one, or in some by turns."""
        takes, problem = self.target.takes, replace(before.problem, law=strides.__name__, one="")
        for lies in memories(problem, takes.fills, takes.contiguous, turn):
            yield self._asked_in(replace(problem, lies=lies), before)

    def _laid(self, before: Seen, turn: int | None) -> Iterator[Seen]:
        """The same; then others of rows that are all the same."""
        yield from self._laid_plainly(before, turn)
        gaps = self.target.claim.takes_arrays and not self.target.takes.contiguous
        for problem in alike(before.problem) if gaps else ():
            if self.target.takes_problem(problem):
                yield self._asked_in(problem, Seen(problem, before.came, *answer(problem)))

    def _of_lies(self, now: Seen) -> Counterexample:
        """The smallest product that is wrong where its arrays lie so, and right where they are dense."""

        def fails(problem: Problem) -> tuple[int, int] | None:
            found = self._fails(problem)
            return found if found and self._fails(replace(problem, lies=DENSE)) is None else None

        problem, at = now.problem, fails(now.problem)
        if at is None:
            other = (
                self._fails(replace(problem, lies=DENSE)) is not None
            )  # which was right, when it was asked
            found = self._placed(now, (repeatable if other else strides).__name__, now.due, now.wrong)
            return replace(found, where=f"{found.where}{f'; {BEFORE}' if other else laid(problem)}")
        problem = smallest(simpler_lies(problem, fails), at, fails)
        again, at = self.target.see(problem), fails(problem) or at
        return described(again, at, strides.__name__, int(now.wrong.sum()))

    def _asked_in(self, problem: Problem, before: Seen) -> Seen:
        """A product of a known answer, asked in its memory; a fault says how that lies."""
        try:
            return self._asked_again(replace(before, problem=problem))
        except Fault as fault:
            fault.found = replace(fault.found, where=f"{problem.where((0, 0))}{laid(problem)}")
            raise

    def _repeated(self) -> Iterator[Counterexample]:
        """One of each shape (where quick: of each class), the largest first: other numbers, and the same.

        A kernel that adds to what it left in memory, or keeps an operand, may do so in some shapes alone.
        Of all but the first ones, what depends on the order of sums may come in another one.
        """
        asked_again = one_a_class(self.seen) if not self.effort.calls else one_a_shape(self.seen)
        for before in (seen for seen in asked_again if self._has_time(seen.problem)):
            for asked in (before.turned_around(), before):
                now = self._asked_again(asked)
                if now.wrong.any():
                    found = self._placed(now, repeatable.__name__, now.due, now.wrong)
                    yield replace(found, where=f"{found.where}; {BEFORE}")
        for before in self._told if self.effort.calls else ():
            now = self.target.again(before)
            if _changed(now, before).any():
                yield self._placed(now, repeatable.__name__, before.came)

    def _has_time(self, problem: Problem) -> bool:
        """Is there time for a problem?  There is for what somebody names."""
        return self.shapes is not None or self.pace.allows(problem.sizes_of_all)

    def _asked_again(self, seen: Seen) -> Seen:
        return self.pace.timed(seen.problem.sizes_of_all, lambda: self.target.again(seen))

    @property
    def _told(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.problem.law in TELLING][:LOOKED_AT]

    def _overwritten(self, problem: Problem) -> list[Counterexample]:
        """What a product returned, looked at after another one of its shape: a buffer that is used again."""
        kept = self.target.once((problem,))
        seen = Seen(problem, self.target.result(kept, problem), *answer(problem))
        turned = problem.a.with_codes(np.roll(problem.a.codes, 1, axis=1))
        others = self.target.see(replace(problem, a=turned))
        for one in (seen, others):
            if one.wrong.any():
                return [self._placed(one, repeatable.__name__, one.due, one.wrong)]
        later = replace(seen, came=self.target.result(kept, problem))
        changed = _changed(later, seen)
        if not changed.any():
            return []
        at = tuple(int(i) for i in np.argwhere(changed)[0])
        where = f"{problem.where(at)} of an earlier product: a buffer that is used again"
        came, due = f"{later.came[at]}, after another call", f"{seen.came[at]}, as it was returned"
        return [Counterexample("repeatable", sentence(repeatable), (), came, due, int(changed.sum()), where)]

    @staticmethod
    def _placed(seen: Seen, law: str, due: Any, wrong: Any = None) -> Counterexample:
        """wrong: where what came is wrong; None where what is due is what came before, bit for bit."""
        if wrong is None:
            wrong = seen.came.view(np.uint8) != due.view(np.uint8)
        at = tuple(int(i) for i in np.argwhere(wrong.reshape(*seen.came.shape, -1).any(axis=2))[0])
        where = seen.problem.where(at)
        came, right = str(seen.came[at]), str(due[at])
        return Counterexample(law, sentence(LAWS[law]), (), came, right, 1, where, None,
                              terms(seen.problem, (at[0], at[1])), problem=seen.problem)  # fmt: skip

    # ---- the smallest case -----------------------------------------------------------------------

    def _fails(self, problem: Problem) -> tuple[int, int] | None:
        if not self.target.takes_problem(problem):
            return None
        try:
            wrong = self.target.see(problem).wrong
        except Fault:
            return None
        if not wrong.any():
            return None
        m, n = np.argwhere(wrong)[0]
        return int(m), int(n)

    def _counterexample(self, seen: Seen, law: str) -> Counterexample:
        """The smallest case found, asked once more, alone, before it is shown."""
        kept = self._kept(seen)
        if kept is not None:
            found = self._placed(seen, "repeatable", seen.due, seen.wrong)
            return replace(found, where=f"{found.where}; {kept}", differs=int(seen.wrong.sum()))
        first = tuple(int(i) for i in np.argwhere(seen.wrong)[0])
        problem = smallest(seen.problem, (first[0], first[1]), self._fails)
        own = replace(problem, one="", law=strides.__name__, lies=Lies.of(b="turned"))
        if is_turned(problem) and self._fails(own):  # that it is the memory of a does not matter
            return self._of_lies(self.target.see(own))
        at = self._fails(problem)
        again = None if at is None else self.target.see(problem)
        if at is None or again is None or not again.wrong[at]:  # the call matters, not the numbers
            return self._placed(seen, "repeatable", seen.due, seen.wrong)
        found = described(again, at, law_of(again, at, law), int(seen.wrong.sum()))
        with self.target.giving(stored_alone=True):
            stored = self.target.takes.array == "torch" and self._fails(problem) is None
        if stored:
            return replace(
                found, law=strides.__name__, sentence=sentence(strides), where=found.where + WITHIN
            )
        return found

    def _kept(self, seen: Seen) -> str | None:
        """What the target keeps of calls before; None where it is as wrong without them."""
        earlier = [one for one in self.seen if one is not seen]
        for one in chain(kept_of(seen, earlier), [Kept(BY_SHAPE, certain=False)]):
            both = partial(two_longer, seen.problem, name=one.name, part=one.part)
            if one.certain or keeps_by_shape(both, lambda problem: self._fails(problem) is not None):
                return one.said
        return None

    def _explain(self) -> tuple[Any, ...]:
        """The deviations that explain what came, of more products than broke the law."""
        asked = {id(seen.problem) for seen in self.seen}
        rest = list(islice(self._problems(), len(self.seen), None))
        few = [] if len(self.seen) >= TOLD else rest[:: max(1, len(rest) // TOLD)]
        few += [problem for problem in rest if problem.law == two_terms.__name__][:DECIDED]
        flushed = [
            problem for problem in rest if problem.law == "subnormals"
        ]  # one flush is told from another
        flushed += list(islice((problem for problem in rest if _has_end_of_scale(problem)), MORE))
        seen = list(self.seen)
        for problem in [*few, *flushed, *self._more_of_the_shape()]:
            if id(problem) not in asked and self._has_time(problem) and self.target.takes_problem(problem):
                asked.add(id(problem))
                try:
                    seen.append(self.target.see(problem))
                except Fault:
                    return ()
        seen = [one for one in seen if 0 not in one.problem.shape]
        return explained(seen) if any(one.wrong.any() for one in seen) else ()

    def _more_of_the_shape(self) -> Iterator[Problem]:
        """Other products of the smallest shape that is wrong: a kernel may be so in few, which say little."""
        wrong = [one.problem for one in self.seen if one.wrong.any() and 0 not in one.problem.shape]
        if wrong:
            problem = min(wrong, key=lambda problem: prod(problem.shape))
            yield from islice(problems(self.target.claim, 0, (problem.sizes_of_all,)), MORE)


def one_a_shape(seen: Sequence[Seen]) -> list[Seen]:
    """Of each shape the product that says most, the largest first."""
    return _one_of_each(seen, lambda shape: shape)


def one_a_class(seen: Sequence[Seen]) -> list[Seen]:
    """The same of all shapes whose sizes lie between the same tiles."""
    return _one_of_each(seen, lambda shape: tuple(bisect_left(TILES, size) for size in shape))


def smallest_of_each_kind(seen: Sequence[Seen]) -> list[Seen]:
    """Of all shapes between the same tiles, and of square ones of them, the smallest that says most."""
    found: dict[tuple[Any, ...], Seen] = {}
    for one in reversed(one_a_shape(seen)):
        kind = (*(bisect_left(TILES, size) for size in one.problem.shape), *_squares(one))
        if _telling(one) > _telling(found.setdefault(kind, one)):
            found[kind] = one
    return sorted(found.values(), key=lambda one: prod(one.problem.shape))


def is_square(seen: Seen) -> bool:
    """Is an operand of several rows, or c, as long as it is wide?"""
    return any(_squares(seen))


def _squares(seen: Seen) -> tuple[bool, bool, bool]:
    """Which of a, b and c are as long as they are wide, so that a shape does not say which way they lie?"""
    (m, n), k = seen.problem.matrix, seen.problem.shape[2]
    return m == k > 1, n == k > 1, m == n > 1 and seen.problem.claim.beta


def _one_of_each(seen: Sequence[Seen], group: Callable[[Shape], tuple[int, ...]]) -> list[Seen]:
    found: dict[tuple[int, ...], Seen] = {}
    for one in seen:
        if 0 in one.problem.shape:
            continue
        key = group(one.problem.shape)
        if key not in found or _telling(one) >= _telling(found[key]):
            found[key] = one
    return sorted(found.values(), key=lambda one: prod(one.problem.shape), reverse=True)


def _telling(seen: Seen) -> tuple[bool, bool, bool]:
    """How much a product says where it is asked again: sums with a bias, and a c that is read, say more."""
    problem = seen.problem
    c = problem.blend.c if problem.blend is not None and problem.blend.adds else None
    has_bias, has_c = (part is not None and bool(part.any()) for part in (problem.bias, c))
    return problem.law in TELLING or (has_c and problem.law == beta.__name__), has_bias, has_c


def _changed(now: Seen, before: Seen) -> Any:
    bits = [np.ascontiguousarray(seen.came).view(np.uint8) for seen in (now, before)]
    with np.errstate(invalid="ignore"):
        nan = np.isnan(now.came) & np.isnan(before.came) if now.came.dtype.kind == "f" else None
    differs = (bits[0] != bits[1]).reshape(*now.came.shape, -1).any(axis=2)
    return differs if nan is None else differs & ~nan


def described(seen: Seen, at: tuple[int, int], law: str, count: int) -> Counterexample:
    """A counterexample: the case's size, its terms, what came and what was due."""
    problem = seen.problem
    where, given = problem.where(at) + laid(problem), arguments(problem)
    given += c_of(problem) if problem.claim.in_place else ()
    due = result(seen.due[at]) + ", or NaN" * bool(seen.never_finite[at])
    return Counterexample(law, sentence(LAWS[law]), (), result(seen.came[at]), due, count,
                          where, None, terms(problem, at), given, problem)  # fmt: skip


def check_shapes(shapes: Any, claim: Claim) -> tuple[tuple[int, ...], ...] | None:
    """Shapes (m, n, k) that somebody wants to be asked; raises NumericsError for what is none.

    Of a claim whose operands come in batches the lengths of these axes stand before them.
    """
    if shapes is None:
        return None
    axes = claim.laid.axes
    due = (
        TRIPLES if not axes else f"({'c, ' * (axes > 1)}b, m, n, k) of 0 and more are due, as its layout says"
    )
    try:
        given = list(islice(shapes, MOST_SHAPES + 1))
    except Exception as wrong:  # whatever an object does that is no list
        raise NumericsError(f"shapes={said(shapes)}; {due}") from wrong
    if len(given) > MOST_SHAPES:
        raise NumericsError(f"shapes={said(shapes)} are more than {MOST_SHAPES:,}, which are the most")
    found = tuple(map(as_shape, given))
    if not found or any(len(shape) != 3 + axes or min(shape) < 0 for shape in found):
        raise NumericsError(f"shapes={said(shapes)}; {due}")
    for shape in found:
        _check_size(whole(claim, shape))
    return found


def _check_size(shape: Shape) -> None:
    """Raises NumericsError for a product whose exact answer takes too much memory, or hours."""
    m, n, k = shape
    if max(m * k, n * k, m * n) > MOST_NUMBERS or m * n * k > MOST_TERMS:
        raise NumericsError(
            f"a product of the shape {shape} cannot be judged: 2**{MOST_NUMBERS.bit_length() - 1} numbers of "
            f"a, of b and of the result are the most, and 2**{MOST_TERMS.bit_length() - 1} terms in all sums"
        )


def _has_end_of_scale(problem: Problem) -> bool:
    """Is there a scale that says NaN, of a format of powers of two?  A shift makes another number of it."""
    sides = (side for side in (problem.a, problem.b) if side.op.scale is not None and side.op.power_scale)
    return any(side.scale is not None and bool((side.scale == NAN_BYTE).any()) for side in sides)


def _rounded_to(claim: Claim) -> str:
    """The short type that QTensors of a claim stand for, and dequantize to; nothing where it is float32."""
    plain = original_of(claim)
    return plain if plain != "float32" and any(op.spec is not None for op in (claim.a, claim.b)) else ""
