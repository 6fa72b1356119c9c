"""A QTensor in a model: what has no memory of its values says so, and what it stands for stays the same."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import warnings
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import numerics as nx
from numerics.backends.host.tensors import as_array
from numerics.pytorch.qtensor import TensorQTensor
from tests.helpers.bits import assert_same_bits

DTYPES = ("int8", "int4", "int3", "mxfp4", "mx6", "nvfp4")


def weight(rows: int = 64, columns: int = 32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))


def layer(d: str = "int8", **options) -> torch.nn.Linear:
    found = torch.nn.Linear(32, 64)
    q = nx.quantize(weight(), d, **options)
    found.weight = torch.nn.Parameter(q, requires_grad=False)
    return found


# ---- a model is moved ----------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["set data", "swap"])
def swapping(request):
    torch.__future__.set_swap_module_params_on_conversion(request.param)
    yield request.param
    torch.__future__.set_swap_module_params_on_conversion(False)


CONVERSIONS = {
    torch.float64: torch.nn.Module.double,
    torch.float32: torch.nn.Module.float,
    torch.float16: torch.nn.Module.half,
    torch.bfloat16: torch.nn.Module.bfloat16,
}


@pytest.mark.parametrize("scale_type", ["float32", "float"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_models_values_survive_its_conversion(swapping, kind, scale_type):
    """`model.double()` set the type of packed weights, and 3,680 of 4,096 values with it."""
    model = layer("int8", scheme="per_channel(0)", scale_type=scale_type)
    due = model.weight.dequantize()
    for convert in (lambda m: m.to(kind), CONVERSIONS[kind]):
        moved = convert(copy.deepcopy(model))
        found = moved.weight.dequantize() if isinstance(moved.weight, nx.QTensor) else moved.weight.detach()
        assert found.dtype == kind
        assert torch.equal(found, due.to(kind))
        assert isinstance(moved.weight, torch.nn.Parameter)
        assert not moved.weight.requires_grad


def tied(weight):
    """A model whose embedding is its head."""
    embedding, head = torch.nn.Embedding(8, 32), torch.nn.Linear(32, 8, bias=False)
    embedding.weight = head.weight = torch.nn.Parameter(weight, requires_grad=False)
    return torch.nn.Sequential(embedding, head)


def loaded(model, **options):
    found = copy.deepcopy(model)
    found.load_state_dict(model.state_dict(), **options)
    return found


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


MOVES = {
    **{str(kind): convert for kind, convert in CONVERSIONS.items()},
    "to a type": lambda m: m.to(torch.float64),
    "to a device": lambda m: m.to("cpu"),
    "to meta": lambda m: m.to("meta"),
    "to both": lambda m: m.to("cpu", torch.float16),
    "type": lambda m: m.type(torch.float64),
    "twice": lambda m: m.half().double(),
    "requires_grad_": lambda m: m.requires_grad_(False),
    "to_empty": lambda m: m.to_empty(device="cpu"),
    "share_memory": lambda m: m.share_memory(),
    "load_state_dict": loaded,
    "assigned": lambda m: loaded(m, assign=True),
    "deepcopy": copy.deepcopy,
    "torch.save": pickled,
}


@pytest.mark.parametrize("scale_type", ["float32", "float", None], ids=["float32", "float", "blocks"])
@pytest.mark.parametrize("name", MOVES)
def test_what_is_tied_stays_tied_as_plain_parameters_do(swapping, name, scale_type):
    """`model.double()` gave each module a Parameter of its own, and the memory of both."""
    x = weight(8, 32)
    q = nx.quantize(x, "int8", scale_type=scale_type) if scale_type else nx.quantize(x, "mxfp4")
    plain, packed = MOVES[name](tied(x)), MOVES[name](tied(q))
    together = [model[0].weight is model[1].weight for model in (plain, packed)]
    assert together[1] or not together[0]
    found = packed[0].weight
    assert found.dtype == plain[0].weight.dtype
    assert isinstance(found, torch.nn.Parameter)
    assert not found.requires_grad
    if name not in ("to meta", "to_empty"):
        values = found.dequantize() if isinstance(found, nx.QTensor) else found.detach()
        plain_between = name == "twice" and scale_type == "float"  # half of its values; else still its codes
        due = q.dequantize(torch.float16 if plain_between else None)
        assert torch.equal(values, due.to(found.dtype))


def test_a_parameter_that_becomes_plain_keeps_what_is_attached_and_is_trained():
    model = tied(nx.quantize(weight(8, 32), "int8"))
    model[0].weight.role = "head"
    before = model[0].weight
    model.double()
    assert model[0].weight is before
    assert type(before) is torch.nn.Parameter
    assert before.role == "head"
    model.requires_grad_(True)
    model(torch.tensor([1, 2])).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert before.grad is not None


def test_a_tie_is_kept_where_something_holds_the_weight():
    model = tied(nx.quantize(weight(8, 32), "int8"))
    held = weakref.ref(model[0].weight)
    due = held().dequantize().double()
    model.double()
    assert torch.equal(model[1].weight, due)
    assert model[1].weight is model[0].weight


def test_the_memory_of_another_cannot_be_taken():
    q = nx.quantize(weight(), "int8")
    with pytest.raises(nx.NumericsError, match="put a new Parameter in its place"):
        q.data = weight()
    q.data = nx.quantize(weight() * 2, "int8")
    assert torch.equal(q.dequantize(), nx.quantize(weight() * 2, "int8").dequantize())


def test_a_copy_is_a_parameter_too():
    model = layer()
    again = copy.deepcopy(model)
    assert isinstance(again.weight, torch.nn.Parameter)
    assert again.weight.packed.data_ptr() != model.weight.packed.data_ptr()
    assert torch.equal(again.weight.dequantize(), model.weight.dequantize())


# ---- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["q", "q.t()"])
def test_what_asks_for_memory_gets_values(name):
    """Garbage came of `np.from_dlpack`, a segmentation fault of `torch.from_dlpack`."""
    q = nx.quantize(weight(), "int8")
    x, due = (q, q.dequantize()) if name == "q" else (q.t(), q.dequantize().t())
    for found in (
        np.asarray(x),
        np.array(x),
        x.numpy(),
        x.numpy(force=True),
        np.from_dlpack(x),
    ):
        assert_same_bits(np.ascontiguousarray(found), np.ascontiguousarray(due.numpy()))
    assert torch.equal(torch.from_dlpack(x), due)
    assert x.tolist() == due.tolist()
    assert np.asarray(nx.quantize(weight().bfloat16(), "int8")).dtype.name == "bfloat16"


@pytest.mark.parametrize("name", ["q", "q.t()"])
def test_what_asks_for_an_address_is_refused(name):
    q = nx.quantize(weight(), "int8")
    x = q if name == "q" else q.t()
    calls = (x.data_ptr, x.storage, x.untyped_storage().data_ptr, x.untyped_storage().tolist,
             lambda: x.untyped_storage()[0], lambda: bytes(x.untyped_storage()))  # fmt: skip
    for call in calls:
        with pytest.raises(nx.NumericsError, match="no memory of its values"):
            call()
    with pytest.raises(RuntimeError, match="Cannot access data pointer"):
        torch.utils.dlpack.to_dlpack(x)


@pytest.mark.parametrize("name", ["q", "q.t()"])
def test_what_computes_with_its_storage_is_refused(name):
    """Each was a segmentation fault, or might have been one: there is no memory behind the address 0."""
    q = nx.quantize(weight(), "int8")
    x = q if name == "q" else q.t()
    for storage in (x.untyped_storage(), torch.Tensor.untyped_storage(x)):
        assert (storage.nbytes(), storage.size(), len(storage), storage.device.type) == (
            8192,
            8192,
            8192,
            "cpu",
        )
        for call in (storage.float, storage.clone, storage.cpu, storage.pin_memory,
                     storage.data_ptr, lambda of=storage: of.fill_(0), lambda of=storage: of.resize_(0),
                     lambda of=storage: list(of), lambda of=storage: copy.deepcopy(of),
                     lambda of=storage: pickle.dumps(of), lambda of=storage: of.__setitem__(0, 1)
                     ):  # fmt: skip
            with pytest.raises(nx.NumericsError, match="no memory of its values"):
                call()
        with pytest.raises(TypeError, match="Nowhere"):
            torch.empty(0).set_(storage)
        with pytest.raises(TypeError, match="Nowhere"):
            torch.empty(8192, dtype=torch.uint8).untyped_storage().copy_(storage)
        for name in ("unheard_of", "_share_fd_cpu_", "_write_file"):
            assert not hasattr(storage, name)
    with pytest.raises((nx.NumericsError, TypeError)):
        torch.Tensor._typed_storage(x)
    assert torch.equal(torch.empty(0).set_(x), x.dequantize())


def test_safetensors_is_told_what_writes_it():
    safetensors = pytest.importorskip("safetensors.torch")
    with pytest.raises(nx.NumericsError, match=r"nx\.save writes it"):
        safetensors.save(layer().state_dict())


def test_parts_may_be_shared_between_processes():
    """`model.share_memory()` was a segmentation fault."""
    model = layer("nvfp4").share_memory()
    assert model.weight.is_shared()
    from multiprocessing.reduction import ForkingPickler

    again = ForkingPickler.loads(ForkingPickler.dumps(model.weight))
    assert torch.equal(again.dequantize(), model.weight.dequantize())
    model.weight.packed[:] = 0
    assert torch.equal(again.dequantize(), model.weight.dequantize())


def test_an_optimizer_is_told_what_to_do():
    model = torch.nn.Linear(32, 64, bias=False)
    model.load_state_dict({"weight": nx.quantize(weight(), "int8")}, assign=True)
    model(torch.ones(1, 32)).sum().backward()
    with pytest.raises(nx.NumericsError, match=r"requires_grad_\(False\)"):
        torch.optim.SGD(model.parameters(), 0.1).step()


def test_values_that_it_stands_for_already_may_be_copied_in():
    """What DistributedDataParallel does when it begins; others would have to be quantized."""
    q, other = nx.quantize(weight(), "int4"), nx.quantize(weight() * 2, "int4")
    q.copy_(q.dequantize())
    q.copy_(other.dequantize())
    assert torch.equal(q.dequantize(), other.dequantize())
    with pytest.raises(nx.NumericsError, match="would change a QTensor in place"):
        q.copy_(weight())
    assert torch.equal(q.dequantize(), other.dequantize())


@pytest.mark.parametrize("view", [
    lambda q: q.reshape(-1), lambda q: q.reshape(32), lambda q: q.view(-1), lambda q: q.flatten(),
    lambda q: q[:], lambda q: q.detach(),
], ids=["reshape -1", "reshape 32", "view", "flatten", "slice", "detach"])  # fmt: skip
def test_a_view_of_one_dimension_was_the_tensor_itself(view):
    """torch refuses an operator whose view is its own input."""
    q = nx.quantize(weight()[0], "int4")
    found = view(q)
    assert found.spec == q.spec
    assert torch.equal(found.dequantize(), q.dequantize())


@pytest.mark.parametrize("change", [
    lambda q: q.apply_(abs), lambda q: q.map_(q, max), lambda q: q.map2_(q, q, max), lambda q: q.add_(1),
    lambda q: setattr(q, "shape", (1,)), lambda q: setattr(q, "is_leaf", False),
    lambda q: setattr(q, "spec", None),
], ids=["apply_", "map_", "map2_", "add_", "shape", "is_leaf", "spec"])  # fmt: skip
def test_a_change_that_cannot_be_raised_what_torch_raises(change):
    """RuntimeErrors of data pointers and FakeTensors, AttributeErrors of TensorBase: none says what to do."""
    q = nx.quantize(weight(), "int4")
    before = q.dequantize()
    with pytest.raises(nx.NumericsError, match=r"in place|cannot be assigned|has a QuantSpec"):
        change(q)
    assert torch.equal(q.dequantize(), before)


# ---- what autograd keeps -----------------------------------------------------------------------------

PRODUCTS = {
    "linear": lambda x, w: F.linear(x, w),
    "linear with a bias": lambda x, w: F.linear(x, w, torch.ones(64)),
    "linear of batches": lambda x, w: F.linear(x.reshape(2, -1, 32), w),
    "linear of batches with a bias": lambda x, w: F.linear(x.reshape(2, -1, 32), w, torch.ones(64)),
    "x @ w.t()": lambda x, w: x @ w.t(),
    "x @ w.mT": lambda x, w: x @ w.mT,
    "x @ w.T": lambda x, w: x.reshape(2, -1, 32) @ w.T,
    "permute": lambda x, w: x @ w.permute(1, 0).transpose(0, 1).transpose(-1, -2),
    "mm": lambda x, w: torch.mm(w, x.t()),
    "mv": lambda x, w: w @ x[0],
    "addmm": lambda x, w: torch.addmm(torch.ones(64), x, w.t()),
    "mul": lambda x, w: x[:1] * w,
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("d", ["int8", "mxfp4"])
@pytest.mark.parametrize("products", [contextlib.nullcontext, nx.decoded_products])
def test_a_product_keeps_the_bytes_and_not_the_weight(name, d, products):
    """40 layers kept 704 MB of dense weights for the backward pass; the gradient is the same, bit for bit,
    where torch multiplies the values, and within the error of sums where the codes are read.
    """
    q = nx.quantize(weight(), d)
    kept: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x)
        return x

    gradients, results = [], []
    for w in (q, q.dequantize()):
        x = torch.randn(6, 32, generator=torch.Generator().manual_seed(5)).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), products():
            y = PRODUCTS[name](x, w)
            y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(6)))
        if w is q:
            assert kept
            assert not [x for x in kept if type(x) is torch.Tensor and x.numel() >= q.numel()]
        gradients.append(x.grad)
        results.append(y)
    for one, other in (gradients, results):
        if products is nx.decoded_products:
            assert_same_bits(as_array(one), as_array(other))
        else:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dims", [1, 2])
def test_a_convolution_keeps_the_bytes_and_not_the_weight(dims):
    w = torch.randn(8, 4, *[3] * dims)
    q, x = nx.quantize(w, "int8", scheme="per_channel(0)"), torch.randn(1, 4, *[9] * dims, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        y = (F.conv1d, F.conv2d)[dims - 1](x, q)
    assert [type(k) for k in kept if k.shape == w.shape] == [type(q)]
    y.sum().backward()
    gradient, x.grad = x.grad, None
    (F.conv1d, F.conv2d)[dims - 1](x, q.dequantize()).sum().backward()
    assert torch.equal(gradient, x.grad)


# ---- some rows ---------------------------------------------------------------------------------------

IDS = torch.tensor([[3, 5], [0, 63]])
ROWS = {
    "embedding": lambda w: F.embedding(IDS, w),
    "q[ids]": lambda w: w[IDS],
    "q[negative ids]": lambda w: w[IDS - 1],
    "q[ids, columns]": lambda w: w[IDS, torch.tensor([1, 2])],
    "q[list]": lambda w: w[[1, 2]],
    "q[mask]": lambda w: w[torch.arange(64) > 60],
    "index_select": lambda w: w.index_select(0, IDS.flatten()),
    "gather": lambda w: w.gather(1, IDS % 32),
    "take_along_dim": lambda w: torch.take_along_dim(w[:2], IDS % 32, 1),
}
WHOLE = {
    "another axis": lambda w: w.index_select(1, IDS.flatten() % 32),
    "after a slice": lambda w: w[:, IDS % 32],
    "a new axis": lambda w: w[None, IDS],
    "gather of rows": lambda w: w.gather(0, IDS),
    "more than there are": lambda w: w[torch.arange(640) % 64],
    "embedding_bag": lambda w: F.embedding_bag(IDS, w),
}


@pytest.mark.parametrize("d", DTYPES)
@pytest.mark.parametrize("name", [*ROWS, *WHOLE])
def test_rows_are_those_of_the_values(d, name):
    call, q = {**ROWS, **WHOLE}[name], nx.quantize(weight(), d)
    assert_same_bits(as_array(call(q)), as_array(call(q.dequantize())))


@pytest.mark.parametrize("name", ROWS)
def test_no_more_than_the_rows_is_decoded(name, monkeypatch):
    """The whole table was, 800 times as much."""
    decoded, values_of, dequantize = [], TensorQTensor.values_of, TensorQTensor.dequantize

    def of_rows(q: TensorQTensor, stored, shape, *rest) -> torch.Tensor:
        decoded.append(shape[0])
        return values_of(q, stored, shape, *rest)

    def of_all(q: TensorQTensor, *rest) -> torch.Tensor:
        decoded.append(q.shape[0])
        return dequantize(q, *rest)

    q = nx.quantize(weight(), "mxfp4")
    monkeypatch.setattr(TensorQTensor, "values_of", of_rows)
    monkeypatch.setattr(TensorQTensor, "dequantize", of_all)
    ROWS[name](q)
    assert 0 < sum(decoded) <= 4


EXPERTS = {
    "int8": {"scheme": "per_channel(0)"},
    "int4": {"scheme": "per_group(32)"},
    "mxfp4": {},
    "mx6": {},
    "nvfp4": {},
}
PARTS_OF_EXPERTS = {
    "index": lambda w: [w[e] for e in range(4)],
    "unbind": lambda w: w.unbind(0),
    "iteration": list,
    "slice": lambda w: [w[e : e + 1].squeeze(0) for e in range(4)],
    "split": lambda w: [part.squeeze() for part in w.split(1)],
    "narrow": lambda w: [w.narrow(0, e, 1).squeeze((0, 1)) for e in range(4)],
    "chunk": lambda w: [part[0] for part in w.chunk(4)],
    "turned": lambda w: [w.mT[e].t() for e in range(4)],
    "turned, unbind": lambda w: [part.t() for part in w.transpose(1, 2).unbind(0)],
    "turned, slice": lambda w: [w.mT[e : e + 1][0].t() for e in range(4)],
    "turned, split": lambda w: [part.mT[0] for part in w.mT.split(1)],
    "turned, sizes": lambda w: [part[0].t() for part in w.mT.split([1, 1, 1, 1])],
}


@pytest.mark.parametrize("d", EXPERTS)
@pytest.mark.parametrize("name", PARTS_OF_EXPERTS)
def test_a_loop_over_experts_decodes_them(name, d, monkeypatch):
    """`for part in w.unbind(0): F.linear(x, part)` decoded all experts; of a turned one, each time."""
    torch.manual_seed(0)
    w, x = torch.randn(4, 6, 64), torch.randn(3, 64)
    q = nx.quantize(w, d, **EXPERTS[d])
    due = [F.linear(x, nx.quantize(w, d, **EXPERTS[d])[e]) for e in range(4)]
    values = list(q.dequantize())
    monkeypatch.setattr(TensorQTensor, "dequantize", lambda *_: pytest.fail("decoded"))
    parts = PARTS_OF_EXPERTS[name](q)
    found = [F.linear(x, part) for part in parts]
    monkeypatch.undo()
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))
    assert all(torch.equal(part.dequantize(), v) for part, v in zip(parts, values, strict=True))


def test_a_part_of_a_view_that_cuts_blocks_is_refused():
    """Of a view with its axes turned any part can be had, by its values where no QTensor is that part."""
    q = nx.quantize(torch.randn(4, 6, 64), "mxfp4")
    values = q.dequantize().mT
    for take in (
        lambda w: w[:, 3:9],
        lambda w: w[:, 3],
        lambda w: w.split(5, 1)[0],
        lambda w: w.unbind(1)[7],
    ):
        assert torch.equal(take(q.mT), take(values))
    with pytest.raises(IndexError):
        q.mT[4]


def test_an_index_beyond_the_table_is_refused():
    q = nx.quantize(weight(), "int8")
    for call in (lambda: F.embedding(torch.tensor([64]), q), lambda: F.embedding(torch.tensor([-1]), q),
                 lambda: q[torch.tensor([64])]):  # fmt: skip
        with pytest.raises(IndexError):
            call()


@pytest.mark.parametrize("d", ["mxfp4", "int4 in groups"])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_one_element_of_a_block_is_its_value(d, make):
    options = {"scheme": "per_group(8)"} if " " in d else {}
    q = nx.quantize(make(weight(3, 64).numpy()), d.split()[0], **options)
    whole = q.dequantize()
    for index in ((0, 0), (2, -1), (1, 40)):
        assert float(q[index]) == float(whole[index])


def test_an_axis_is_called_what_the_caller_calls_it():
    q = nx.quantize(weight(6, 32).numpy().reshape(2, 3, 32), "mxfp4")
    for call in (lambda: q[0, :, 3], lambda: q[0, :, 3:5], lambda: q[0, 1, 40]):
        with pytest.raises(nx.NumericsError, match="axis 2"):
            call()


def test_an_axis_of_a_view_was_taken_for_the_tensors_own():
    """q[0, :3] of torch is q[0][:3], and "axis 0" was all that was said."""
    q = nx.quantize(weight(6, 32).reshape(2, 3, 32), "mxfp4")
    for call in (lambda: q[0, :, 3], lambda: q[0, :, 3:5]):
        with pytest.raises(nx.NumericsError, match=r"axis 1 of a tensor of shape \(3, 32\)"):
            call()


# ---- control flow, compiled graphs ----------------------------------------------------------------------


def test_control_flow_takes_it():
    """torch.cond: "no rule registered"."""
    model = layer()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.model(x), lambda x: self.model(x) * 2, (x,))

    for sign in (1, -1):
        x = sign * torch.ones(5, 32)
        with nx.decoded_products():
            due = model(x) * (1 if sign > 0 else 2)
        assert torch.equal(Model()(x), due)
    x = torch.ones(5, 32, requires_grad=True)
    Model()(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(5, 64) @ model.weight.dequantize())
    q = model.weight.detach()
    x = torch.ones(5, 32)
    found = torch.cond(torch.tensor(True), lambda x, q: x @ q.t(), lambda x, q: x @ q.t() + 1, (x, q))
    assert torch.equal(found, x @ q.dequantize().t())


@pytest.mark.parametrize("backward", [False, True])
def test_a_compiled_layer_is_one_graph_and_warns_of_nothing(backward):
    model = layer("mxfp4")
    x = torch.randn(5, 32, requires_grad=backward)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(y, model(x))
    ids = torch.tensor([1, 2])

    def taken(q: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return F.embedding(ids, q), q[ids], q.t()

    compiled = torch.compile(taken, fullgraph=True, backend="aot_eager")
    rows, again, turned = compiled(model.weight.detach())
    assert torch.equal(rows, model.weight.dequantize()[ids])
    assert torch.equal(again, rows)
    assert torch.equal(turned + 0, model.weight.dequantize().t())


def test_another_shape_in_the_same_place_of_a_graph():
    """The compiler makes its sizes symbols then, and prints what it traces."""
    torch._dynamo.reset()
    for rows in 64, 96, 128:
        q = nx.quantize(weight(rows), "mxfp4")
        x = torch.randn(5, 32)
        y = torch.compile(lambda x, q=q: F.linear(x, q), fullgraph=True, backend="aot_eager")(x)
        assert torch.equal(y, nx.linear(x, q))


def test_a_cache_knows_it_by_its_facts():
    one, other = nx.quantize(weight(), "int8"), nx.quantize(weight(), "int8", scheme="per_channel(0)")
    assert one._stable_hash_for_caching() == nx.quantize(weight() * 2, "int8")._stable_hash_for_caching()
    assert one._stable_hash_for_caching() != other._stable_hash_for_caching()
    assert one.t()._stable_hash_for_caching() != one.t().t().t()[:, :].t()._stable_hash_for_caching()


def test_an_exported_program_is_saved_and_loaded(tmp_path):
    """torch.export.load refused what torch.export.save had written: the weight was no Parameter any more."""
    model, x = layer(), torch.randn(5, 32)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(x), model(x))


class Refers(torch.nn.Module):
    """A module with a QTensor that it registers, or only refers to."""

    def __init__(self, q: torch.Tensor, registers: bool) -> None:
        super().__init__()
        if registers:
            self.register_buffer("q", q)
        else:
            self.q = q

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.q)


def test_a_weight_that_a_module_only_refers_to_is_refused_by_an_export_that_cannot_see_it():
    """RuntimeError: Unable to cast NotImplemented to Tensor."""
    q, x = nx.quantize(weight(), "int8"), torch.randn(5, 32)
    with pytest.raises(nx.NumericsError, match="register_buffer"):
        torch.export.export(Refers(q, False), (x,), strict=False)
    found = torch.export.export(Refers(q, True), (x,), strict=False).module()(x)
    assert torch.equal(found, F.linear(x, q))


@pytest.mark.filterwarnings("ignore")  # jit.trace is deprecated
def test_values_in_a_trace_of_jit_were_an_internal_assertion():
    """Sizes are tensors there."""
    q, x = nx.quantize(weight(), "int8"), torch.randn(5, 32)
    traced = torch.jit.trace(lambda x: x @ q.dequantize().t(), (x,))
    assert torch.equal(traced(x), x @ q.dequantize().t())


def test_what_is_permuted_is_saved_by_its_values():
    q, file = nx.quantize(weight(), "int8"), io.BytesIO()
    torch.save(q.t(), file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), q.dequantize().t())
    assert torch.equal(copy.deepcopy(q.t()) + 0, q.dequantize().t())


# ---- arrays ------------------------------------------------------------------------------------------


def test_arithmetic_of_arrays_is_that_of_their_values():
    q = nx.quantize(weight().numpy(), "int8")
    values = q.dequantize()
    assert (q.ndim, q.T.shape) == (2, (32, 64))
    other = np.ones((32, 3), np.float32)
    for call in (
        lambda x: x + 1, lambda x: 1 - x, lambda x: x * x, lambda x: x @ other, lambda x: -x, abs,
        lambda x: x / 2, np.exp, lambda x: x > 0, np.add.reduce, lambda x: values + x, lambda x: x == values,
    ):  # fmt: skip
        assert np.array_equal(call(q), call(values))
    with pytest.raises(nx.NumericsError, match="in place"):
        q += 1
    with pytest.raises(nx.NumericsError, match="in place"):
        np.add(q, 1, out=q)
    assert len({q, q}) == 1


# ---- a matrix again and again ------------------------------------------------------------------------

AGAIN = {
    "expand": lambda w: w.expand(3, 4, -1, -1),
    "turned": lambda w: w.t().expand(2, -1, -1).transpose(-1, -2),
    "an axis": lambda w: w[None],
    "axes": lambda w: w.unsqueeze(0).unsqueeze(1).expand(2, 5, -1, -1),
    "together": lambda w: w.expand(2, 3, -1, -1).reshape(6, 64, 32),
    "one of them": lambda w: w.expand(3, 2, -1, -1)[1],
    "without": lambda w: w.expand(1, 2, -1, -1).squeeze(0),
    "of a parameter": lambda w: torch.nn.Parameter(w, requires_grad=False).expand(3, -1, -1),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("name", AGAIN)
def test_a_repeated_matrix_is_another(name, mode):
    q = nx.quantize(weight(), "mxfp4")
    with mode():
        found, due = AGAIN[name](q), AGAIN[name](q.dequantize())
        assert type(found).__name__ == "Repeated"
        assert (found.shape, found.stride(), found.dtype) == (due.shape, due.stride(), due.dtype)
        for same in (found, found.detach(), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
            assert torch.equal(same + 0, due)
        assert repr(found) == repr(due)
        assert torch.equal(found[..., 0, :].sum(0), due[..., 0, :].sum(0))
        with pytest.raises(nx.NumericsError, match="in place"):
            found.add_(1)


def test_a_repeated_matrix_is_no_input_of_a_graph():
    q, x = nx.quantize(weight(), "mxfp4"), torch.ones(3, 2, 32)
    graph = torch.compile(torch.bmm, fullgraph=True, backend="aot_eager")
    many = q.expand(3, -1, -1).mT
    assert torch.equal(graph(x, many), torch.bmm(x, many))


def test_views_failed_in_inference_mode():
    """By "Cannot set version_counter for inference tensor"; others gave values."""
    q = nx.quantize(weight(), "mxfp4")
    with torch.inference_mode():
        own = nx.quantize(weight(), "mxfp4")
        for one in (q, own):
            for view in (
                one[1],
                one[:8],
                one.chunk(2)[1],
                one.to(torch.bfloat16),
                one.clone(),
                one.split(32)[0],
            ):
                assert isinstance(view, nx.QTensor)
            for turned in (one.T, one.mT, one.t()):
                assert type(turned).__name__ == "Permuted"
            for view in (
                one.unsqueeze(1),
                one.diagonal(),
                one.view(32, 64),
                one.T.reshape(2, -1),
                one[:, None],
            ):
                assert torch.equal(view, view.clone())
    assert torch.equal(own[1].dequantize(), q[1].dequantize())


# ---- levels of torch.func ------------------------------------------------------------------------

BATCH = torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(5))
USES = {
    "dequantize": lambda q, x: q.dequantize(),
    "arithmetic": lambda q, x: q * x + q,
    "matmul": lambda q, x: x @ q.t(),
    "on the left": lambda q, x: q @ x.mT,
    "linear": lambda q, x: F.linear(x, q, x[0, :4]),
    "nx.linear": lambda q, x: nx.linear(x, q),
    "int8": lambda q, x: nx.linear(x, q, compute="int8"),
    "einsum": lambda q, x: torch.einsum("ik,jk->ij", x, q),
    "aten.einsum": lambda q, x: torch.ops.aten.einsum("ik,jk->ij", [x, q]),
    "addmm": lambda q, x: torch.addmm(x[0, :4], x, q.t(), alpha=2),
    "embedding": lambda q, x: F.embedding(torch.tensor([2, 0]), q),
    "rows": lambda q, x: q[torch.tensor([2, 0])] * x[:2],
    "a part": lambda q, x: F.linear(x, q[1:3]),
    "clone": lambda q, x: q.clone().to(torch.float32) + x,
    "stack": lambda q, x: torch.stack([q, x]),
    "sum": lambda q, x: q.sum() + q.mean(0),
    "shape": lambda q, x: x.reshape(q.shape) * q.ndim,
}  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.filterwarnings("ignore:.*performance drop.*:UserWarning")
@pytest.mark.parametrize("d", ["int8", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("use", USES)
def test_a_qtensor_that_is_made_within_torch_func(use, d):
    """Its parts are tensors of that level, which torch knew nothing of: "Cannot access storage of ..." came,
    and of torch.func.functionalize other values."""
    if use == "int8" and d == "int8":
        d = "int4"

    def call(x, made=None):
        return USES[use](nx.quantize(x.detach() if made is None else made, d), x)

    def close(found, due):
        torch.testing.assert_close(found, due, rtol=1e-5, atol=1e-5)

    close(torch.vmap(call)(BATCH), torch.stack([call(x) for x in BATCH]))
    twice = torch.vmap(torch.vmap(call))(torch.stack([BATCH, -BATCH]))
    close(twice[1], torch.stack([call(-x) for x in BATCH]))
    close(torch.vmap(call, in_dims=1)(BATCH.transpose(0, 1)), torch.stack([call(x) for x in BATCH]))
    close(torch.func.functionalize(call)(BATCH[0]), call(BATCH[0]))
    assert torch.equal(torch.func.vjp(call, BATCH[0])[0], call(BATCH[0]))
    if use in ("arithmetic", "matmul", "on the left", "linear", "nx.linear", "einsum", "addmm", "a part"):

        def loss(x):
            return call(x).square().sum()

        due = []
        for x in BATCH:
            x = x.clone().requires_grad_()
            due += torch.autograd.grad(loss(x), x)
        assert torch.equal(torch.func.grad(loss)(BATCH[0]), due[0])
        close(torch.vmap(torch.func.grad(loss))(BATCH), torch.stack(due))
        close(torch.func.grad(lambda b: torch.vmap(loss)(b).sum())(BATCH), torch.stack(due))
        held = torch.func.grad(lambda x: call(x, BATCH[1]).square().sum())(BATCH[0])
        x = BATCH[0].clone().requires_grad_()
        assert torch.equal(held, torch.autograd.grad(call(x, BATCH[1]).square().sum(), x)[0])


def test_a_qtensor_of_a_level_is_none_outside_of_it():
    with pytest.raises(nx.NumericsError, match=r"return q\.dequantize\(\)"):
        torch.vmap(lambda x: nx.quantize(x, "int8"))(BATCH)
    kept = []
    torch.vmap(lambda x: (kept.append(nx.quantize(x, "int8")), x)[1])(BATCH)
    with pytest.raises(nx.NumericsError, match=r"return q\.dequantize\(\)"):
        kept[0].dequantize()
    torch.func.grad(lambda x: (kept.append(nx.quantize(x.detach(), "int8")), x.sum())[1])(BATCH[0])
    assert torch.equal(kept[1].dequantize(), nx.quantize(BATCH[0], "int8").dequantize())
    out = torch.func.vjp(lambda x: nx.quantize(x.detach(), "int8"), BATCH[0])[0]
    assert isinstance(out, nx.QTensor)


def test_a_qtensor_of_a_level_takes_no_writes():
    """Its values were written instead, and lost."""
    for write in (lambda q: q.mul_(2), lambda q: q.__setitem__(0, 1.0), lambda q: torch.add(q, 1, out=q)):

        def call(x):
            write(nx.quantize(x, "int8"))  # noqa: B023
            return x

        with pytest.raises(nx.NumericsError, match="in place"):
            torch.vmap(call)(BATCH)


def test_a_part_of_a_qtensor_stays_one_within_torch_func():
    """torch gave a plain tensor around it, which nx.linear does not take."""
    q = nx.quantize(BATCH[0], "int8")

    def call(x):
        parts = [q[1:3], q.clone(), q.t().t(), *q.split(2), q.to(torch.float32)]
        assert all(isinstance(part, nx.QTensor) for part in parts)
        return sum(nx.linear(x, part).sum() for part in parts)

    x = BATCH[1].clone().requires_grad_()
    assert torch.equal(torch.func.grad(call)(BATCH[1]), torch.autograd.grad(call(x), x)[0])


def test_a_copy_took_what_had_been_read_of_the_first_with_it():
    """Its arrays were copied too: bytes that nothing of the copy ever reads."""
    q = torch.nn.Parameter(nx.quantize(torch.ones(8, 64), "int8"), requires_grad=False)
    q.mine = "kept"
    torch.nn.functional.linear(torch.ones(1, 64), q)
    q.check_whole()
    assert {"_arrays", "_whole"} <= q.__dict__.keys()
    found = copy.deepcopy(q)
    assert not {"_arrays", "_whole"} & found.__dict__.keys()
    assert found.mine == "kept"
    assert torch.equal(found.dequantize(), q.dequantize())
