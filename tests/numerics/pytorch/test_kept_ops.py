"""What reads the parts of a QTensor by torch's own operators, which take memory for granted."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import numerics as nx

IDS = torch.tensor([1, 7])
READS = {
    "dequantize": lambda q: q.dequantize(),
    "embedding": lambda q: F.embedding(IDS, q),
    "q[ids]": lambda q: q[IDS],
    "q[ids, columns]": lambda q: q[IDS, IDS],
    "q[mask]": lambda q: q[torch.arange(8) > 5],
    "index_select": lambda q: q.index_select(0, IDS),
    "take": lambda q: q.take(IDS),
    "gather": lambda q: q.gather(1, IDS.reshape(1, 2)),
    "clone": lambda q: q.clone(),
    "slice": lambda q: q[1:3].dequantize(),
    "columns": lambda q: q[:, :32].dequantize(),
    "row": lambda q: q[1].dequantize(),
    "element": lambda q: q[1, 1],
    "split": lambda q: q.chunk(2)[1].dequantize(),
    "unbind": lambda q: q.unbind(0)[1].dequantize(),
    "turned": lambda q: q.t() + 0,
    "turned row": lambda q: q.t()[:, 1] + 0,
    "linear": lambda q: F.linear(torch.ones(2, 64), q),
    "rows of several axes": lambda q: F.linear(torch.ones(2, 1, 64), q),
    "mm": lambda q: torch.mm(torch.ones(3, 64), q.t()),
    "another type": lambda q: q.half(),
    "moved": lambda q: q.to("cpu", copy=True),
    "copied": lambda q: nx.quantize(torch.ones(8, 64), q.spec).copy_(q),
    "copied into": lambda q: q.copy_(nx.quantize(torch.ones(8, 64), q.spec)).dequantize(),
    "deepcopy": lambda q: copy.deepcopy(q),
    "pickle": lambda q: pickle.loads(pickle.dumps(q)),
    "numpy": lambda q: torch.from_numpy(q.numpy()),
    "view": lambda q: q.view(-1).dequantize(),
    "gathered": lambda q: q.fsdp_pre_all_gather(None, q.shape, None, None, None)[0][0],
    "codes": lambda q: q.codes,
}


def weight() -> torch.Tensor:
    return torch.randn(8, 64, generator=torch.Generator().manual_seed(3))


def made(d: str) -> torch.Tensor:
    """In memory of torch's own, which can be resized."""
    return nx.quantize(weight(), d, **({"scheme": "per_channel(0)"} if d == "int8" else {})).clone()


# ---- parts that are replaced behind the tensor's back ------------------------------------------------

CUTS = {
    "data": lambda part: setattr(part, "data", part.reshape(-1)[:1].clone()),
    "a type": lambda part: setattr(part, "data", part.to(torch.float64)),
    "resize_": lambda part: part.resize_(1),
    "set_": lambda part: part.set_(torch.zeros(1, dtype=part.dtype)),
    "storage": lambda part: part.untyped_storage().resize_(1),
    "freed": lambda part: part.untyped_storage().resize_(0),
}
SAID = r"must be|was freed|bytes, but 1 came|codes are unsigned integers"


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("d", "name"), [("int8", "packed"), ("int8", "shared"), ("mx6", "packed"),
                                         ("nvfp4", "shared")])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*resiz.*:UserWarning")
def test_a_part_that_was_cut_was_read_beyond_its_end(d, name, cut):
    """RuntimeErrors of reshape, IndexErrors, and numbers from whatever lies behind the memory."""
    for call in READS:
        q = made(d)
        READS["linear"](q)  # what products remember of it holds no longer
        CUTS[cut](getattr(q, name))
        if (name, call) == ("shared", "codes"):  # they are read without scales
            continue
        with pytest.raises(nx.NumericsError, match=SAID):
            READS[call](q)


# ---- views that torch negates when it reads them -----------------------------------------------------


def negated(part: torch.Tensor) -> torch.Tensor:
    """As `z.conj().imag` is: minus what its memory says."""
    return torch._neg_view(-part)


@pytest.mark.parametrize("how", ["set", "data"])
@pytest.mark.parametrize(("d", "name"), [("int8", "shared"), ("nvfp4", "tensor_scale")])
@pytest.mark.parametrize("call", READS)
def test_rows_forgot_that_a_part_is_read_negated(d, name, call, how):
    """F.embedding gave minus its rows; a scale of the tensor was a RuntimeError of view."""
    q, due = made(d), READS[call](made(d))
    part = getattr(q, name)
    if how == "set":
        setattr(q, name, negated(part))
    else:
        part.data = negated(part)
    found = READS[call](q)
    found, due = (x.dequantize() if isinstance(x, nx.QTensor) else x for x in (found, due))
    assert torch.equal(found, due)


def test_a_kernel_of_the_gpu_forgot_that_x_is_read_negated():
    """Triton's kernels read by the address: float16 lost its signs, float32 was a RuntimeError of view."""
    for kind in (torch.float16, torch.float32):
        x = weight().to(kind)
        with nx.use("gpu"):
            assert torch.equal(nx.fp8_e4m3.encode(negated(x)), nx.fp8_e4m3.encode(x))


# ---- places without values ---------------------------------------------------------------------------

BESIDE_META = {
    "embedding": lambda q, ids: F.embedding(ids, q),
    "q[ids]": lambda q, ids: q[ids],
    "q[ids, columns]": lambda q, ids: q[ids, IDS],
    "index_select": lambda q, ids: q.index_select(0, ids),
    "take": lambda q, ids: q.take(ids),
    "gather": lambda q, ids: q.gather(1, ids.reshape(1, 2)),
}


@pytest.mark.parametrize("call", BESIDE_META)
def test_rows_of_places_without_values_were_whatever_lay_in_memory(call):
    """torch makes room for the result, and leaves it as it is."""
    for d in ("int8", "mx6"):
        with pytest.raises(nx.NumericsError, match="on meta has no values"):
            BESIDE_META[call](made(d), IDS.to("meta"))
        assert BESIDE_META[call](made(d).to("meta"), IDS.to("meta")).is_meta


def test_a_product_with_a_weight_without_values_was_whatever_lay_in_memory():
    q = made("int8").to("meta")
    for call in (lambda: F.linear(torch.ones(2, 64), q), lambda: torch.ones(2, 64) @ q.t()):
        with pytest.raises(nx.NumericsError, match="on meta has no values"):
            call()
    assert F.linear(torch.ones(2, 64, device="meta"), q).is_meta


# ---- writing into a part ------------------------------------------------------------------------------

WRITES = {
    "q[0:2] = other": lambda q, o: q.__setitem__(slice(0, 2), o[0:2]),
    "q[0] = other": lambda q, o: q.__setitem__(0, o[0]),
    "q[:, :32] = other": lambda q, o: q.__setitem__((slice(None), slice(0, 32)), o[:, :32]),
    "q[:] = other": lambda q, o: q.__setitem__(slice(None), o),
    "q[None] = other": lambda q, o: q.__setitem__(None, o),
    "q[0, 0] = 1": lambda q, _: q.__setitem__((0, 0), 1.0),
    "q[None, 0] = 1": lambda q, _: q.__setitem__((None, 0), 1.0),
    "q[::2] = other": lambda q, o: q.__setitem__(slice(None, None, 2), o[::2]),
    "q[ids] = 1": lambda q, _: q.__setitem__(IDS, 1.0),
    "fill_diagonal_": lambda q, _: q.fill_diagonal_(1.0),
    "a slice": lambda q, o: q[0:2].copy_(o[0:2]),
    "a slice of a slice": lambda q, o: q[0:4][1:3].copy_(o[0:4][1:3]),
    "a detached slice": lambda q, o: q[0:2].detach().copy_(o[0:2]),
    "columns": lambda q, o: q[:, :32].copy_(o[:, :32]),
    "a row": lambda q, o: q[1].copy_(o[1]),
    "a row of values": lambda q, o: q[1].copy_(o[1].dequantize()),
    "a split": lambda q, o: q.split(4)[1].copy_(o.split(4)[1]),
    "an unbound row": lambda q, o: q.unbind()[1].copy_(o.unbind()[1]),
    "a flat view": lambda q, o: q.view(-1).copy_(o.view(-1)),
    "all rows": lambda q, o: q.narrow(0, 0, 8).copy_(o),
    "the tensor": lambda q, o: q.copy_(o),
}
HELD = {
    "one scale": ("int8", {}), "a scale a row": ("int8", {"scheme": "per_channel(0)"}),
    "mxfp4": ("mxfp4", {}), "a scale of the tensor": ("nvfp4", {}), "bytes with their scales": ("mx6", {}),
    "3 bits": ("int3", {}), "a zero point": ("int4", {"symmetric": False}),
}  # fmt: skip


@pytest.mark.parametrize("d", ["int8", "mxfp4"])
def test_a_mask_of_another_length_took_the_rows_that_it_had(d):
    q = nx.quantize(torch.randn(24, 64), d)
    for mask in (torch.ones(5, dtype=torch.bool), torch.arange(30) < 3):
        with pytest.raises(IndexError):
            q[mask]
    mask = torch.arange(24) % 3 == 0
    assert torch.equal(q[mask], q.dequantize()[mask])


def test_a_product_on_meta_was_an_error_of_autocast():
    q = nx.quantize(torch.randn(24, 64), "mxfp4")
    assert nx.linear(torch.randn(3, 64, device="meta"), q.to("meta")).shape == (3, 24)


def test_an_empty_part_that_was_written_changed_the_scale_of_all():
    for d, options in (("int8", {}), ("fp8_e4m3", {"scheme": "per_channel(1)"}), ("nvfp4", {})):
        q, e = (nx.quantize(x, d, **options) for x in (torch.arange(64.0).reshape(4, 16), torch.ones(4, 16)))
        before = q.dequantize()
        q[4:] = e[4:]
        q.narrow(0, 4, 0).copy_(e[4:])
        assert torch.equal(q.dequantize(), before)


@pytest.mark.parametrize("d", ["int8", "mxfp4", "nvfp4"])
def test_a_part_of_a_copied_part_was_written_and_the_tensor_stayed(d):
    q = nx.quantize(torch.randn(4, 64), d)
    with pytest.raises(nx.NumericsError, match="would stay as it is"):
        q[::2][0].copy_(q[1].clone())
    with pytest.raises(nx.NumericsError, match="would stay as it is"):
        q[:, 0:32][0:2] = q[2:4, 0:32].clone()


def test_rows_under_one_scale_of_the_tensor_were_refused_for_their_own():
    a, b = (nx.quantize(torch.randn(4, 64), "nvfp4", tensor_scale=0.01) for _ in range(2))
    a[0:2] = b[0:2]
    assert torch.equal(a[:2].dequantize(), b[:2].dequantize())


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("write", WRITES)
def test_what_is_written_into_a_part_changed_the_rest_or_nothing(write, held):
    """q[0:2] = other gave all rows other's scale; q[:, :32] = other changed scales and no codes;
    q.fill_diagonal_(1) and q[None, 0] = 1 wrote into values that nobody has.  It is done, or refused.
    """
    d, options = HELD[held]
    q, other = (nx.quantize(x, d, **options).clone() for x in (weight(), weight() * 3 + 1))
    before, due, done = q.dequantize(), q.dequantize(), True
    try:
        WRITES[write](q, other)
    except nx.NumericsError:
        done = False
    if done:
        WRITES[write](due, other.dequantize())
    assert torch.equal(q.dequantize(), due if done else before)
    assert done or write not in ("q[:] = other", "all rows", "the tensor")
    if held in ("a scale a row", "mxfp4", "bytes with their scales"):
        assert done or write not in ("q[0:2] = other", "a row", "a slice of a slice", "a split")


def test_a_part_takes_codes_of_its_own_scale():
    """Where nothing of the rest would change, rows are written."""
    q = nx.quantize(weight(), "int8").clone()
    due = q.dequantize()
    q[0:2] = q[4:6].clone()
    due[0:2] = due[4:6].clone()
    assert torch.equal(q.dequantize(), due)
    part = q[:, :32].clone()
    part.copy_(nx.quantize(weight()[:, :32] * 3, "int8"))
    assert torch.equal(q.dequantize(), due)


# ---- values that lie in memory as no dense tensor does ------------------------------------------------

GRIDS = {
    "one number": lambda q: torch.zeros(1),
    "an expanded one": lambda q: torch.zeros(1).expand(4, 64),
    "an expanded row": lambda q: (q[1].dequantize() * 0 + 0.5).expand(4, 64),
    "columns first": lambda q: q.dequantize().t().contiguous().t(),
    "a column turned": lambda q: torch.zeros(64, 4).t(),
    "with a gradient": lambda q: torch.zeros(4, 64, requires_grad=True),
}
NO_GRIDS = {
    "sparse": lambda q: torch.zeros(4, 64).to_sparse(),
    "sparse rows": lambda q: torch.zeros(4, 64).to_sparse_csr(),
    "mkldnn": lambda q: torch.zeros(4, 64).to_mkldnn(),
    "nested": lambda q: torch.nested.nested_tensor([torch.zeros(64)] * 4),
    "nested, ragged": lambda q: torch.nested.nested_tensor([torch.zeros(64)] * 4, layout=torch.jagged),
    "on meta": lambda q: torch.zeros(4, 64, device="meta"),
    "of another type": lambda q: torch.zeros(4, 64, dtype=torch.float64),
    "of another shape": lambda q: torch.zeros(3, 64),
    "of more axes": lambda q: torch.zeros(1, 4, 64),
}
BY_ROWS = ["int8", "mxfp4", "mx6"]


def rowwise(d):
    scheme = {"scheme": "per_channel(0)"} if d == "int8" else {}
    return nx.quantize(torch.randn(4, 64, generator=torch.Generator().manual_seed(3)), d, **scheme).clone()


@pytest.mark.parametrize("d", BY_ROWS)
@pytest.mark.parametrize("source", GRIDS)
def test_values_in_another_order_of_memory_were_an_error_of_a_view(source, d):
    """torch broadcasts what is copied, and so does a QTensor where it has those values."""
    q = rowwise(d)
    values, due = GRIDS[source](q), q.dequantize()
    due.copy_(values.detach())
    with torch.no_grad():
        q.copy_(values)
    assert torch.equal(q.dequantize(), due)
    row = rowwise(d)
    row[0] = torch.zeros(1)
    assert not row.dequantize()[0].any()
    assert torch.equal(row.dequantize()[1:], rowwise(d).dequantize()[1:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("d", BY_ROWS)
@pytest.mark.parametrize("source", NO_GRIDS)
def test_a_source_that_has_no_dense_memory_was_an_error_of_torchs(source, d):
    q = rowwise(d)
    before = q.dequantize()
    with pytest.raises(nx.NumericsError):
        q.copy_(NO_GRIDS[source](q))
    assert torch.equal(q.dequantize(), before)


@pytest.mark.parametrize("d", BY_ROWS)
def test_rows_copied_onto_their_neighbours_were_an_error_of_torchs_or_half_written(d):
    """torch refuses it part by part, so that codes could be written before scales were refused."""
    for write in (
        lambda q: q.__setitem__(slice(0, 3), q[1:4]),
        lambda q: q.__setitem__(slice(1, 4), q[0:3]),
        lambda q: q[0:3].copy_(q[1:4]),
    ):
        q = rowwise(d)
        before = q.dequantize()
        with pytest.raises(nx.NumericsError, match="clone"):
            write(q)
        assert torch.equal(q.dequantize(), before)
    q[0:3] = q[1:4].clone()
    assert torch.equal(q.dequantize()[:3], before[1:])
    q[:] = q
    q[0:2] = q[2:4]
    assert torch.equal(q.dequantize(), before[[3, 3, 3, 3]])


@pytest.mark.parametrize("part", ["shared", "zero_point", "tensor_scale"])
def test_a_scale_that_was_to_learn_waited_for_ever(part):
    """Its gradient was None, or torch warned of an autograd kernel.  Without gradients nothing is lost."""
    options = {
        "shared": ("int8", {"scheme": "per_channel(0)"}), "tensor_scale": ("nvfp4", {}),
        "zero_point": ("int4", {"symmetric": False, "zero_point_type": "float32"}),
    }  # fmt: skip
    d, others = options[part]
    q = nx.quantize(torch.randn(4, 64), d, **others)
    due, x = q.dequantize(), torch.ones(2, 64)
    getattr(q, part).requires_grad_()
    for use in (
        lambda: q.dequantize(), lambda: q + 1, lambda: F.linear(x, q), lambda: nx.linear(x, q),
        lambda: x @ q.t(), lambda: F.linear(x.clone().requires_grad_(), q),
        lambda: torch.zeros(4, 64).copy_(q),
    ):  # fmt: skip
        with pytest.raises(nx.NumericsError, match="require a gradient"):
            use()
        with torch.no_grad():
            use()
    getattr(q, part).requires_grad_(False)
    assert torch.equal(q.dequantize(), due)


@pytest.mark.parametrize(
    ("spec", "names"),
    [(nx.QuantSpec("int8"), ["scale"]), (nx.QuantSpec("int8", symmetric=False), ["scale", "zero_point"]),
     (nx.QuantSpec("nvfp4"), ["tensor_scale"])],
)  # fmt: skip
def test_a_row_that_shares_the_scale_of_the_rest_was_refused_without_a_way_out(spec, names):
    """The words are followed: numbers by the scales that are there, or new ones for all."""
    q, row = nx.quantize(torch.linspace(-1, 1, 128).reshape(4, 32), spec), torch.full((32,), 0.4)
    with pytest.raises(nx.NumericsError, match=", ".join(f"{name}=q.{name}" for name in names)):
        q[0] = nx.quantize(row, q.spec)
    kept = {name: getattr(q, name) for name in names}
    q[0] = nx.quantize(row, q.spec, **kept)
    assert torch.allclose(q[0].dequantize(), row, rtol=0.1)
    x = q.dequantize()
    x[1] = 9.0
    q.copy_(nx.quantize(x, q.spec))
    assert torch.allclose(q[1].dequantize(), x[1], rtol=0.1)


X = torch.linspace(-1, 1, 128).reshape(2, 64)
PARTS_WRITTEN = {
    "scale, linear": lambda q: (q.shared.mul_(2), F.linear(X, q))[1],
    "scale, nx.linear": lambda q: (q.shared.mul_(2), nx.linear(X, q))[1],
    "zero point": lambda q: (q.zero_point.add_(1), q.dequantize())[1],
    "codes": lambda q: (q.packed.zero_(), q + 1)[1],
    "some codes": lambda q: (q.packed[:40].zero_(), q[0:3].dequantize())[1],
    "copied codes": lambda q: (q.packed.copy_(q.packed.flip(0)), q[IDS])[1],
    "embedding": lambda q: (q.packed.zero_(), F.embedding(IDS, q))[1],
    "cloned": lambda q: (q.shared.mul_(2), q.clone().dequantize())[1],
    "of a view": lambda q: [q[0:2], q.packed.zero_()][0].dequantize(),
    "of a turned one": lambda q: X @ [q.t(), q.packed.zero_()][0],
    "of a detached one": lambda q: [q.detach(), q.shared.mul_(2)][0] + 1,
    "of a flat one": lambda q: [q.view(-1)[:64], q.packed.zero_()][0] + 1,
    "of a row": lambda q: [q.unbind(0)[1], q.packed.zero_()][0] + 1,
    "made inside": lambda q: [r := nx.quantize(X, "int8"), r.packed.zero_()][0].dequantize(),
}
IN_ONE_GRAPH = {
    "read before": lambda q: [F.linear(X, q), q.shared.mul_(2)][0],
    "the part": lambda q: (q.shared.mul_(2), q.shared + 0)[1],
    "int8": lambda q: (q.packed.zero_(), nx.linear(X, q, compute="int8"))[1],
}
COPIES = {
    "rows": lambda q, r: (q.__setitem__(slice(0, 2), r[2:4]), q.dequantize())[1],
    "a row": lambda q, r: (q.__setitem__(3, r[4]), q.dequantize())[1],
    "all": lambda q, r: (q.copy_(r), F.linear(X, q))[1],
    "values": lambda q, _: (q.copy_(q.dequantize() + 0), q.dequantize())[1],
    "made inside": lambda q, r: (q[0:2].copy_(nx.quantize(X, q.spec)), q.dequantize())[1],
}


def _quantized(seed: int = 0):
    drawn = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed))
    return nx.quantize(drawn, "int4", scheme=nx.per_group(8), symmetric=False)


def _check_compiled(call, backend, *beside):
    torch._dynamo.reset()
    q, compiled = _quantized(), _quantized()
    due, found = call(q, *beside), torch.compile(call, backend=backend)(compiled, *beside)
    assert torch.equal(found, due)
    assert all(map(torch.equal, compiled.parts, q.parts))


@pytest.mark.turns
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", [*PARTS_WRITTEN, *IN_ONE_GRAPH])
def test_a_part_that_was_written_in_a_graph_was_read_as_it_came(name, backend):
    call = {**PARTS_WRITTEN, **IN_ONE_GRAPH}[name]
    _check_compiled(call, backend)
    torch._dynamo.reset()
    whole = torch.compile(call, backend=backend, fullgraph=True)
    if name in IN_ONE_GRAPH:
        assert torch.equal(whole(_quantized()), call(_quantized()))
        return
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"written into.*leave out fullgraph"):
        whole(_quantized())


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_inductor_read_parts_as_they_came():
    _check_compiled(PARTS_WRITTEN["scale, linear"], "inductor")


@pytest.mark.parametrize("of", ["packed", "shared"])
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:4], Tensor.detach, lambda x: x.view(-1)])
def test_a_part_that_is_given_beside_its_tensor_was_read_as_it_came(of, view):
    def call(q, part):
        part.zero_()
        return F.linear(X, q)

    torch._dynamo.reset()
    q, compiled = _quantized(), _quantized()
    due = call(q, view(getattr(q, of)))
    assert torch.equal(torch.compile(call, backend="aot_eager")(compiled, view(getattr(compiled, of))), due)


def test_nvfp4s_tensor_scale_was_read_as_it_came():
    def call(q):
        q.tensor_scale.mul_(2)
        return q.dequantize()

    torch._dynamo.reset()
    q, compiled = (nx.quantize(X, "nvfp4") for _ in range(2))
    assert torch.equal(torch.compile(call, backend="aot_eager")(compiled), call(q))


class Scaled(torch.nn.Module):
    """A layer that writes into a part of its own weight at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", _quantized())

    def forward(self, x):
        self.weight.shared.mul_(0.5)
        return F.linear(x, self.weight)


@pytest.mark.parametrize("strict", [False, True])
def test_a_layer_that_writes_into_its_weight_is_compiled_and_exported(strict):
    layer, other = Scaled(), Scaled()
    exported = torch.export.export(Scaled(), (X,), strict=strict).module()
    compiled = torch.compile(other, backend="aot_eager")
    for _ in range(3):
        due = layer(X)
        assert torch.equal(compiled(X), due)
        assert torch.equal(exported(X), due)


@pytest.mark.turns(6)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", COPIES)
def test_copies_into_a_compiled_qtensor_died_of_a_missing_address(name, backend):
    _check_compiled(COPIES[name], backend, _quantized(1))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"checked in memory.*leave out fullgraph"):
        torch.compile(COPIES[name], backend=backend, fullgraph=True)(_quantized(), _quantized(1))


def test_a_compiled_copy_is_refused_as_any_other():
    torch._dynamo.reset()
    with pytest.raises(nx.NumericsError, match="another spec or shape"):
        torch.compile(lambda q: q.copy_(q[0:2]), backend="aot_eager")(_quantized())
    with pytest.raises(nx.NumericsError, match="lies in part in the memory"):
        torch.compile(lambda q: q[0:2].copy_(q[1:3]), backend="aot_eager")(_quantized())
