"""What products take and return: the factors that are computed, and the results."""

from __future__ import annotations

from numerics.formats.errors import NumericsError
from numerics.model.deciding.look import Look, along, note_effect
from numerics.model.deciding.rows import Row
from numerics.model.deciding.rules import UNSET, Rule
from numerics.model.looking.products import RECURRENT
from numerics.model.looking.trace import Seen, Site, is_one_product
from numerics.observe import observer as observer_of
from numerics.tensor.spec import QuantSpec

STATE_INSIDE = "a recurrence's state: it is multiplied inside the operation, which also adds it as it is"


def computed(look: Look) -> list[Row]:
    """A row of each factor that is computed, and of each result that gets a format."""
    return [row for row in of_sites(look) if row.kind != "output" or row.spec is not None]


def of_sites(look: Look) -> list[Row]:
    """A row of each factor that is computed, and of each result."""
    planned = {name for row in look.rows if row.spec for name in row.names}
    found = []
    for site, seen in look.found.sites.items():
        row = _site(look, site, seen, planned)
        found.append(row)
        if site.operation in RECURRENT and site.place == 0:
            found.append(_state(look, row, seen))
    return found


def _state(look: Look, row: Row, seen: Seen) -> Row:
    """The row of a recurrence's state, beside that of what comes in: it is multiplied inside, in floats."""
    assert row.site is not None
    site = row.site._replace(place=1)
    module = look.modules.get(site.module)
    size = getattr(module, "proj_size", 0) or getattr(module, "hidden_size", -1)
    reason = STATE_INSIDE if row.spec is not None else row.reason
    rule = look.rules.rule("activations", [str(site)], [(site.module, module)])
    if rule is not None:
        note_effect(rule, None, str(site), lambda: (None, STATE_INSIDE))
    return Row("activation", str(site), (*seen.shape[:-1], size), None, reason, row.uses, site=site)


def _site(look: Look, site: Site, seen: Seen, planned: set[str]) -> Row:
    what = "outputs" if site.is_output else "activations"
    names = [str(site)]
    owner = (site.module, look.modules.get(site.module))
    rule = look.rules.rule(what, names, [owner])
    observer = look.observer
    if rule is not None:
        spec, reason = rule.specs[what], f"rule {rule.said}"
        observer = observer if rule.observer is UNSET else rule.observer
        other = look.rules.next(rule, what, names, [owner])
        usual = _of_site(look, what, seen, planned)
        note_effect(rule, spec, names[0], lambda: (other.specs[what], "") if other else usual)
    else:
        spec, reason = _of_site(look, what, seen, planned)
    if spec is not None:
        spec = along(spec, seen.axis, seen.shape)
        observer = _observing(look, spec, observer, names[0], rule)
    graph = site in look.found.hidden and not is_one_product(owner[1])
    if graph:
        reason += "; only a graph reaches it"
    return Row(
        "output" if site.is_output else "activation", names[0], seen.shape, spec, reason,
        (str(site).partition("[")[0],), observer=observer if spec else None, site=site, graph=graph,
        weights=seen.weights,
    )  # fmt: skip


def _of_site(look: Look, what: str, seen: Seen, planned: set[str]) -> tuple[QuantSpec | None, str]:
    spec = look.asked[what]
    if spec is None:
        return None, f"{what}=None"
    if not seen.weights:
        return None, "no weight is in this product (a rule can take it)"
    if look.asked["weights"] is not None and not planned & set(seen.weights):
        return None, "its weight is left as it is"
    return spec, f"{what}="


def _observing(look: Look, spec: QuantSpec, observer: str | None, name: str, rule: Rule | None) -> str | None:
    """The observer; raises NumericsError where it would have nothing to watch."""
    if observer is None:
        return None
    try:
        observer_of(observer, spec)
    except NumericsError as wrong:
        if rule is not None and rule.observer is not UNSET:
            raise NumericsError(f"{name}: observer={observer!r}: {wrong}") from None
        return None
    return observer
