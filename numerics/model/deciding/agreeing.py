"""Whether the rows of a plan agree with themselves and each other, as those that planning makes do.

A plan in a file is there to be edited, and an edit that says two things, or what nothing acts on, is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set

from numerics.formats.errors import NumericsError, with_article
from numerics.model.deciding.fields import COMPUTED
from numerics.model.deciding.rows import Row
from numerics.observe import observer as observer_of

QUANTIZED = ("parameter", *COMPUTED, "cache")
"""The kinds of rows that can have a format."""


def check_rows(rows: Sequence[Row]) -> None:
    """Raises NumericsError for rows of which no plan is made: it names the row and what is wrong with it."""
    names = Counter(n for row in rows if row.kind in ("parameter", *COMPUTED) for n in row.names)
    twice = [name for name, n in names.items() if n > 1]
    if twice:
        raise NumericsError(f"this is no plan: {', '.join(twice[:4])} has two rows")
    tensors = {n for row in rows if row.kind in ("parameter", "buffer") for n in row.names}
    for row in rows:
        for wrong in _wrong(row, tensors):
            raise NumericsError(f"this is no plan: the {row.kind} {row.name} {wrong}")


def check_acting(rows: Sequence[Row]) -> None:
    """Raises NumericsError for observers of parameters, which a checkpoint's plan has and no model's."""
    idle = [row for row in rows if row.observer and row.kind not in COMPUTED]
    if idle:
        raise NumericsError(
            f"observer={idle[0].observer!r} of the {idle[0].kind} {idle[0].name} does nothing in a model: "
            f"nx.calibrate finds scales of rows of kind {' and '.join(COMPUTED)}; `numerics quantize` "
            "observes weights"
        )


def check_seen(rows: Sequence[Row], seen: Sequence[Row], example: bool) -> None:
    """Raises NumericsError where rows are not those of what was seen of a model.

    seen: the rows of the parameters and buffers of the model, and with an example of its computed tensors.
    """
    mine, due = _by_name(rows, example), _by_name(seen, example)
    told = [f"the {row.kind} {name} is not found" for name, row in mine.items() if name not in due]
    told += [f"the {row.kind} {name} has no row" for name, row in due.items()
             if name not in mine and row.kind in COMPUTED and row.kind != "output"]  # fmt: skip
    told += [why for name, row in mine.items() if name in due for why in _unlike(row, due[name], example)]
    if told:
        raise NumericsError(
            f"this plan is of another model: {'; '.join(told[:5])}{' ...' if told[5:] else ''}; "
            "nx.plan(model, ...) makes one anew"
        )


def _by_name(rows: Sequence[Row], example: bool) -> dict[str, Row]:
    kinds = ("parameter", "buffer", *COMPUTED) if example else ("parameter", "buffer")
    return {row.name: row for row in rows if row.kind in kinds}


def _unlike(row: Row, due: Row, example: bool) -> Iterator[str]:
    """Where a row says other things than were seen."""
    if row.kind != due.kind:
        yield f"{row.name} is of kind {row.kind!r}, and {with_article(due.kind)} here"
        return
    if row.kind not in COMPUTED and row.value_bits != due.value_bits:
        yield f"{row.name} has value_bits={row.value_bits}, and {due.value_bits} here"
    if set(row.names) != set(due.names):
        yield f"{row.name} has the other names {_plainly(row.also)}, and {_plainly(due.also)} here"
    for what in ("uses", "weights", "graph") if example else ():
        came, here = getattr(row, what), getattr(due, what)
        if came != here and (what == "graph" or set(came) != set(here)):
            yield f"{row.name} has {what}={_plainly(came)}, and {_plainly(here)} here"


def _wrong(row: Row, tensors: Set[str]) -> Iterator[str]:
    """What is wrong with a row.  tensors: the names of parameters and buffers that have rows."""
    computed = row.kind in COMPUTED
    if row.site is not None:
        yield from _wrong_site(row)
    for what, came in (("group", row.group), ("graph", row.graph), ("weights", row.weights)):
        if came and not computed:
            yield f"has {what}={_plainly(came)}; only rows of kind {' and '.join(COMPUTED)} have that"
    for name in row.weights:
        if name not in tensors:
            yield f"has weights={_plainly(row.weights)}, and no parameter or buffer {name} has a row"
    if row.also and row.kind not in ("parameter", "buffer"):
        yield f"has also={_plainly(row.also)}; only parameters and buffers have other names"
    if row.spec is None:
        if row.observer or row.group:
            yield "has an observer or a group and no spec, of whose scales they would be"
        return
    if row.kind not in QUANTIZED:
        yield f"has a spec; formats are for rows of kind {', '.join(QUANTIZED)}"
    yield from _wrong_spec(row)


def _wrong_site(row: Row) -> Iterator[str]:
    assert row.site is not None
    if str(row.site) != row.name:
        yield f"has the site {list(row.site)}, whose name is {row.site}"
    if (row.kind == "output") is not row.site.is_output:
        due = "has the place -1" if row.kind == "output" else "has a place from 0"
        yield f"has the site {list(row.site)}; that of an {row.kind} {due}"


def _wrong_spec(row: Row) -> Iterator[str]:
    """Why a format does not fit the row's shape, or its observer the format."""
    assert row.spec is not None
    try:
        if row.spec.scaled and row.shape and all(size >= 0 for size in row.shape):
            row.spec.shared_shape(row.shape)
        if row.observer is not None:
            observer_of(row.observer, row.spec)
    except NumericsError as wrong:
        yield f"of shape {row.shape} cannot have {row.format}: {wrong}"


def _plainly(came: object) -> object:
    return list(came) if isinstance(came, tuple) else repr(came)
