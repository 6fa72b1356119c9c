"""Which weights a forward brings to a product, which axes it sums: never lost, never guessed."""

import pytest
import torch
from torch import nn

import numerics as nx
from tests.helpers.models import row_of

pytestmark = pytest.mark.filterwarnings("ignore:.*stays? as")  # each way leaves some parameters
MODES = ["eager_mode", "fx_graph_mode"]
ROW = torch.tensor([0])
FIRST = torch.zeros(1, 64, dtype=torch.long)


class Model(nn.Module):
    """A product with what a function makes of parameters of its own."""

    def __init__(self, make):
        super().__init__()
        torch.manual_seed(0)
        self.make = make
        self.l = nn.Linear(64, 64)
        self.w = nn.Parameter(torch.randn(64, 64))
        self.v = nn.Parameter(torch.randn(64, 64))
        self.e = nn.Parameter(torch.randn(2, 64, 64))
        self.plain = torch.eye(64)

    def forward(self, x):
        return self.l(x) @ self.make(self, self.w, x)


def written(into, w):
    """A tensor after all of a weight was written into it."""
    into[:] = w
    return into


def rows_written(w):
    """Zeros after one row of a weight was written into a view of them."""
    into = torch.zeros(64, 64)
    into[0].copy_(w[0])
    return into


CONSTANTS = {
    "add": lambda m, w, x: w + torch.eye(64),
    "mul": lambda m, w, x: torch.ones(64, 64).tril() * w,
    "made like an input": lambda m, w, x: x.new_ones(64, 64).tril() * w,
    "plain attribute": lambda m, w, x: w + m.plain,
    "product of a constant": lambda m, w, x: w + torch.eye(64) @ m.v.detach(),
    "cat": lambda m, w, x: torch.cat([w, torch.zeros(64, 8)], 1),
    "where": lambda m, w, x: torch.where(torch.ones(64, 64) > 0, torch.zeros(()), w),
    "scatter": lambda m, w, x: w.scatter(0, torch.zeros(1, 64, dtype=torch.long), torch.zeros(1, 64)),
    "scatter_reduce": lambda m, w, x: w.scatter_reduce(0, FIRST, torch.ones(1, 64), "sum"),
    "index_put": lambda m, w, x: w.index_put((ROW,), torch.zeros(64)),
    "index_put of a number": lambda m, w, x: w.index_put((ROW,), torch.tensor(0.0)),
    "index_fill": lambda m, w, x: w.index_fill(0, ROW, 0.0),
    "index_add": lambda m, w, x: w.index_add(0, ROW, torch.ones(1, 64)),
    "index_copy": lambda m, w, x: w.index_copy(0, ROW, torch.ones(1, 64)),
    "masked_scatter": lambda m, w, x: w.masked_scatter(w > 1, torch.zeros(64, 64)),
    "select_scatter": lambda m, w, x: w.select_scatter(torch.zeros(64), 0, 0),
    "slice_scatter": lambda m, w, x: w.slice_scatter(torch.zeros(1, 64), 0, 0, 1),
    "diagonal_scatter": lambda m, w, x: w.diagonal_scatter(torch.zeros(64)),
    "add_": lambda m, w, x: torch.zeros(64, 64).add_(w),
    "copy_": lambda m, w, x: torch.empty(64, 64).copy_(w),
    "setitem": lambda m, w, x: written(torch.zeros(64, 64), w),
}
FOLLOWED = {
    "unbind": lambda m, w, x: torch.stack(w.unbind(0)),
    "iteration": lambda m, w, x: torch.stack([row * 2 for row in w]),
    "columns": lambda m, w, x: torch.stack(w.unbind(1), 1),
    "vmap": lambda m, w, x: torch.vmap(lambda row: row * 2)(w),
    "cat with a part of another": lambda m, w, x: torch.cat((m.e[0], w), 1),
    "joined of parts": lambda m, w, x: torch.cat([w[:10], w[10:]]).view(64, 64),
    "repeated": lambda m, w, x: w.repeat(2, 1).view(2, 64, 64)[1],
    "another weight in place": lambda m, w, x: m.v.clone().add_(w),
}
TURNED = {
    "stacked across": lambda m, w, x: torch.stack(w.unbind(0), 1),
    "vmap over columns": lambda m, w, x: torch.vmap(lambda column: column * 2, in_dims=1)(w),
}
UNKNOWN = {
    "in a line": lambda m, w, x: torch.cat(list(w)).view(64, 64),
    "in a line of two lengths": lambda m, w, x: torch.cat([w[0], w[1:].reshape(-1)]).view(64, 64),
    "both ways": lambda m, w, x: w + w.t(),
    "inverse": lambda m, w, x: torch.linalg.inv(w),
    "turned": lambda m, w, x: torch.rot90(w),
    "row by row": lambda m, w, x: rows_written(w),
    "einsum of one": lambda m, w, x: torch.einsum("ij->ji", w),
}


def planned(make, mode, **options):
    model, x = Model(make), torch.randn(4, 64)
    return model, x, nx.plan(model, "mxfp4", example=x, mode=mode, **options)


@pytest.mark.turns(6)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*CONSTANTS, *FOLLOWED, *TURNED])
def test_axis_of_a_weight_on_its_way(name, mode):
    make = (CONSTANTS | FOLLOWED | TURNED)[name]
    model, x, plan = planned(make, mode)
    axis = 1 if name in TURNED else 0
    spec = row_of(plan, "w").spec
    assert spec.axis % 2 == axis
    with torch.no_grad():
        due = Model(make)
        due.l.weight.copy_(nx.fake_quantize(model.l.weight, "mxfp4"))
        for row in (row for row in plan.rows if row.name in ("w", "v", "e") and row.spec is not None):
            getattr(due, row.name).copy_(nx.fake_quantize(getattr(model, row.name), row.spec))
        assert torch.equal(nx.wrap(model, plan)(x), due(x))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(UNKNOWN))
def test_axis_that_is_not_known_is_refused(name, mode):
    with pytest.raises(nx.NumericsError, match=r"w of shape \(64, 64\).*not decided by guessing.*'w': None"):
        planned(UNKNOWN[name], mode)
    for rule, axis in ((None, None), (nx.QuantSpec("mxfp4", axis=0), 0)):
        _, _, plan = planned(UNKNOWN[name], mode, rules={"w": rule})
        spec = row_of(plan, "w").spec
        assert spec is None if axis is None else spec.axis == axis


@pytest.mark.parametrize("mode", MODES)
def test_axis_that_no_format_needs_is_not_asked_for(mode):
    model = Model(UNKNOWN["both ways"])
    assert row_of(nx.plan(model, "int8", example=torch.randn(4, 64), mode=mode), "w").spec is not None


def test_each_of_two_parts_has_its_own_axis():
    _, _, plan = planned(FOLLOWED["cat with a part of another"], "eager_mode")
    assert row_of(plan, "e").spec.axis == 1
    assert row_of(plan, "w").spec.axis == 0


def test_out_argument_is_followed():
    _, _, plan = planned(lambda m, w, x: torch.mul(w, 2, out=torch.empty(64, 64)), "eager_mode")
    assert row_of(plan, "w").spec.axis == 0


@pytest.mark.parametrize("used", [True, False])
def test_plan_does_not_hang_on_a_parameter_that_nothing_uses(used):
    model = Model(FOLLOWED["vmap"])
    if not used:
        del model.v, model.e
    plan = nx.plan(model, "mxfp4", example=torch.randn(4, 64))
    assert row_of(plan, "w").spec.axis == 0


def test_written_from_the_input_is_no_constant():
    _, _, plan = planned(lambda m, w, x: written(torch.zeros(64, 64), x.sum() * w), "eager_mode")
    assert row_of(plan, "w").spec is None


@pytest.mark.parametrize("mode", MODES)
def test_product_of_activations_is_planned_beside_constants(mode):
    _, _, plan = planned(CONSTANTS["add"], mode, activations="mxfp4")
    sites = [str(row.site) for row in plan.rows if row.site is not None]
    assert sites == ["l:linear[0]", "model:matmul[0]"]
