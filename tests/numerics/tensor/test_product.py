"""nx.linear, and torch's products with QTensors: what a user meets."""

import io

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
import torch.nn.functional as F

import numerics as nx
from numerics.backends.host.tensors import as_array
from numerics.tensor import product
from tests.helpers.bits import assert_same_bits
from tests.helpers.matrices import MATRICES, matrix, rows

SOME = [
    "mxfp4",
    "mx6",
    "nvfp4",
    "int4 groups",
    "int8 rows",
    "fp8_e4m3fnuz",
    "decoded across",
    "decoded columns",
]


def tensors(name, shape=(40, 64), kind=torch.float32):
    q = nx.quantize(torch.from_numpy(rows(*shape, seed=3)).to(kind), MATRICES[name])
    return q, torch.from_numpy(rows(6, shape[1])).to(kind)


@pytest.mark.parametrize("name", MATRICES)
def test_torch_and_numpy_differ(name):
    q = matrix(name, (40, 64))
    x, bias = rows(6, 64), rows(1, 40)[0]
    due = nx.linear(x, q, bias)
    of_torch = nx.quantize(torch.from_numpy(q.dequantize()), MATRICES[name]) if "offset" not in name else None
    values = torch.from_numpy(rows(40, 64, seed=3))
    of_torch = nx.quantize(values.abs() if name == "uint8" else values, MATRICES[name])
    found = nx.linear(torch.from_numpy(x), of_torch, torch.from_numpy(bias))
    assert_same_bits(as_array(found), due)
    np.testing.assert_allclose(due, x @ q.dequantize().T + bias, rtol=1e-4, atol=1e-4 * np.abs(due).max())


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_other_types_are_rounded_more_than_once(kind):
    q, x = tensors("mxfp4", kind=getattr(torch, kind))
    wide, _ = tensors("mxfp4")
    wide.packed.copy_(q.packed)
    wide.shared.copy_(q.shared)
    due = nx.linear(x.float(), wide).to(x.dtype)
    assert torch.equal(nx.linear(x, q), due)
    assert torch.equal(x @ q.t(), due)


@pytest.mark.parametrize("name", SOME)
def test_torchs_products_are_the_same_one(name):
    q, x = tensors(name)
    due, bias = nx.linear(x, q), torch.arange(40.0)
    assert torch.equal(F.linear(x, q, bias), nx.linear(x, q, bias))
    assert torch.equal(torch.addmm(bias, x, q.t()), nx.linear(x, q, bias))
    assert torch.equal(F.linear(x.reshape(2, 3, 64), q), due.reshape(2, 3, 40))
    for y in (x @ q.T, x.mm(q.t()), torch.matmul(x, q.mT), (q @ x.T).T, torch.einsum("mk,nk->mn", x, q)):
        assert torch.equal(y, due) or torch.allclose(y, due, rtol=1e-4, atol=1e-3)
    assert torch.equal(q @ x[2], due[2])
    assert torch.equal(F.linear(x.T.contiguous().T, q), due)
    assert F.linear(x[:0], q).shape == (0, 40)


@pytest.mark.parametrize("name", SOME)
def test_the_gradient_reads_the_codes(name):
    q, x = tensors(name)
    x.requires_grad_()
    g = torch.from_numpy(rows(6, 40, seed=9))
    (found,) = torch.autograd.grad(F.linear(x, q, torch.ones(40)), x, g)
    due = product.columns_times(g.numpy(), nx.quantize(rows(40, 64, seed=3), MATRICES[name]))
    assert_same_bits(found.numpy(), due)
    assert torch.allclose(found, g @ q.dequantize(), rtol=1e-4, atol=1e-3)
    parts = q.packed, q.shared, q.zero_point, q.tensor_scale, [40, 64], q.spec.text, "float32", None, False
    (again,) = torch.autograd.grad(torch.ops.numerics.linear(x, *parts), x, g)
    assert torch.equal(again, found)


def test_a_gradient_of_many_rows_is_a_sum_of_parts(monkeypatch):
    monkeypatch.setattr(product, "ROWS", 16)
    q, x = matrix("mxfp4", (40, 64)), rows(3, 40)
    due = np.zeros((3, 64), np.float32)
    for first in (0, 16, 32):
        part = nx.quantize(np.ascontiguousarray(q.dequantize()[first : first + 16].T), "bfloat16")
        due += nx.linear(np.ascontiguousarray(x[:, first : first + 16]), part)
    np.testing.assert_allclose(product.columns_times(x, q), due, rtol=1e-2, atol=1e-1)
    found = product.columns_times(x, q)
    monkeypatch.setattr(product, "ROWS", 1 << 10)
    np.testing.assert_allclose(found, product.columns_times(x, q), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("turned", [False, True])
def test_experts_are_multiplied_one_by_one(turned):
    w = torch.from_numpy(rows(3 * 8, 64, seed=3)).reshape(3, 8, 64)
    q = nx.quantize(w, "mxfp4")
    x = torch.from_numpy(rows(3 * 5, 8 if turned else 64)).reshape(3, 5, -1)
    found = torch.bmm(x, q if turned else q.transpose(1, 2))
    for k in range(3):
        assert torch.equal(found[k], x[k] @ q[k] if turned else nx.linear(x[k], q[k]))


def test_nothing_dense_is_made(monkeypatch):
    q, x = tensors("int4 groups", (512, 256))

    def refuse(*_, **__):
        raise AssertionError("a weight was decoded")

    monkeypatch.setattr(type(q), "dequantize", refuse)
    x.requires_grad_()
    y = F.linear(x, q)
    y.sum().backward()
    whole, _ = tensors("decoded columns", (1024, 64))
    sizes = []
    kept = product.slicing.sliced
    monkeypatch.setattr(
        product.slicing, "sliced", lambda q, axis, part: sizes.append(part) or kept(q, axis, part)
    )
    F.linear(torch.ones(2, 64), whole)
    assert [part.stop - part.start for part in sizes] == [256] * 4


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_graph_gives_other_bits(dynamic):
    q, x = tensors("mxfp4")
    torch._dynamo.reset()
    layer = torch.nn.Linear(64, 40)
    layer.weight = torch.nn.Parameter(q, requires_grad=False)
    graph = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    due = layer(x)
    assert torch.equal(graph(x), due)
    x.requires_grad_()
    (found,) = torch.autograd.grad(graph(x).sum(), x)
    assert torch.equal(found, torch.autograd.grad(layer(x).sum(), x)[0])


def test_an_exported_program_gives_other_bits_when_it_is_loaded():
    q, x = tensors("mxfp4")
    layer = torch.nn.Linear(64, 40)
    layer.weight = torch.nn.Parameter(q, requires_grad=False)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("rows", min=2)},))
    assert torch.equal(program.module()(x), layer(x))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert torch.equal(torch.export.load(file).module()(x[:3]), layer(x[:3]))


def test_decoded_products_are_torchs_own():
    q, x = tensors("mxfp4")
    with nx.decoded_products():
        assert torch.equal(F.linear(x, q), F.linear(x, q.dequantize()))
    assert torch.equal(F.linear(x, q), nx.linear(x, q))


WRONG = {
    "another length": (lambda x, q: nx.linear(x[:, :32], q), "the last axis of each is summed"),
    "no matrix": (lambda x, q: nx.linear(x, q.reshape(-1) if hasattr(q, "data_ptr") else q[0]), "matrix"),
    "a number": (lambda x, q: nx.linear(3.0, q), "do not fit"),
    "integers": (
        lambda x, q: nx.linear(x.astype(np.int32), q),
        "cannot compute with int32|cannot be multiplied",
    ),
    "no QTensor": (lambda x, q: nx.linear(x, x), "takes a QTensor|QTensor"),
    "a short bias": (lambda x, q: nx.linear(x, q, x[0, :3]), "bias is"),
    "a bias of Python": (lambda x, q: nx.linear(x, q, 1.0), "bias is"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_multiplied(name):
    call, message = WRONG[name]
    with pytest.raises(nx.NumericsError, match=message):
        call(rows(6, 64), matrix("mxfp4", (40, 64)))


def test_tensors_beside_arrays_are_taken():
    q, x = tensors("mxfp4")
    with pytest.raises(nx.NumericsError, match="all as"):
        nx.linear(x.numpy(), q)
    with pytest.raises(
        nx.NumericsError, match=r"^x is bfloat16, q stands for float32.*x\.to\(torch\.float32\)"
    ):
        nx.linear(x.bfloat16(), q)
    with pytest.raises(
        nx.NumericsError, match=r"x is float32 and bias is float16.*bias\.to\(torch\.float32\)"
    ):
        nx.linear(x, q, torch.zeros(q.shape[0], dtype=torch.float16))
    with pytest.raises(nx.NumericsError, match="cannot be multiplied"):
        nx.linear(x.long(), q)


def test_float64_is_multiplied_by_numpy():
    x, q = rows(3, 64).astype(np.float64), matrix("mxfp4", (5, 64))
    assert_same_bits(nx.linear(x, q, np.ones(5)), x @ q.dequantize("float64").T + 1)


def test_a_matrix_is_read_that_is_no_longer_there():
    """What a product remembers of a QTensor goes with its memory, its parts and its copies."""
    q, x = tensors("mxfp4")
    q = q.clone()
    before = F.linear(x, q)
    q.packed.zero_()
    assert not F.linear(x, q).any()
    q.packed = nx.quantize(torch.from_numpy(rows(40, 64, seed=3)), "mxfp4").packed
    assert torch.equal(F.linear(x, q), before)
    q = q.clone()
    assert torch.equal(F.linear(x, q), before)
    q.packed.untyped_storage().resize_(0)
    with pytest.raises(nx.NumericsError, match="freed"):
        F.linear(x, q)
    other, _ = tensors("mxfp4")
    F.linear(x, other)
    file = io.BytesIO()
    torch.save(other, file)
    file.seek(0)
    assert torch.equal(F.linear(x, torch.load(file, weights_only=True)), before)
    assert not hasattr(other.clone(), "_read")


@pytest.mark.parametrize("name", ["mxfp4", "int4 groups", "nvfp4"])
def test_rows_of_several_axes_are_multiplied_in_small_matrices(name):
    """Torch's linear makes a bmm of decoded weights where x of three axes is not contiguous."""
    q, _ = tensors(name)
    x = torch.from_numpy(rows(2 * 9, 64)).reshape(2, 9, 64)
    for part in (x[:, -1:], x[:, :4], x.transpose(0, 1), x[:1].expand(3, 9, 64), x[0:0]):
        due = nx.linear(part.contiguous(), q)
        assert torch.equal(F.linear(part, q), due)
        assert torch.equal(
            F.linear(part, q, bias=torch.ones(40)), nx.linear(part.contiguous(), q, torch.ones(40))
        )
        assert torch.equal(part @ q.T, due)
        assert torch.equal(torch.matmul(part, q.mT), due)
    one = x.transpose(0, 1).requires_grad_()
    F.linear(one, q).sum().backward()
    alone = x.transpose(0, 1).contiguous().requires_grad_()
    F.linear(alone, q).sum().backward()
    assert torch.equal(one.grad, alone.grad)
    assert torch.equal(F.linear(x, q)[:, 3], F.linear(x[:, 3], q))


def test_a_tensor_scale_is_read_that_was_another():
    q, x = tensors("nvfp4")
    before = F.linear(x, q)
    q.tensor_scale.mul_(2)
    assert torch.equal(F.linear(x, q), 2 * before)


@pytest.mark.parametrize("spec", [
    nx.QuantSpec("bfloat16", scheme="per_channel(0)"), nx.QuantSpec("bfloat16", scheme="per_group(32)"),
    nx.QuantSpec(nx.float_format(8, 3), scheme="per_channel(0)"), "bfloat16", "float16",
], ids=str)  # fmt: skip
def test_elements_that_reach_far_overflow_before_their_scale(spec):
    q = nx.quantize(rows(8, 64), spec)
    assert np.isfinite(nx.linear(rows(3, 64), q)).all()


def test_a_sum_that_is_scaled_is_dense():
    q, x = tensors("mxfp4")
    bias, due = torch.arange(40.0), nx.linear(x, q)
    assert torch.equal(torch.addmm(bias, x, q.T, alpha=2), 2 * due + bias)
    assert torch.equal(torch.addmm(bias, x, q.T, beta=0.5), due + bias * 0.5)
    assert torch.equal(torch.addmm(torch.ones(40, 1), q, x.T), due.T + 1)


@pytest.mark.parametrize("spec", ["int4", "mxfp4", "mx6"])
def test_rows_of_nothing_are_zeros(spec):
    q = nx.quantize(np.zeros((8, 0), np.float32), spec)
    assert_same_bits(nx.linear(np.zeros((3, 0), np.float32), q), np.zeros((3, 8), np.float32))
    assert nx.linear(np.zeros((0, 0), np.float32), q).shape == (0, 8)


def test_shapes_that_torch_refuses_are_taken():
    q, x = tensors("mxfp4")
    experts = nx.quantize(torch.from_numpy(rows(24, 64)).reshape(3, 8, 64), "mxfp4")
    x3 = x.reshape(1, 6, 64)
    attempts = (
        lambda: torch.mm(x3, q.T), lambda: torch.mm(x[0], q.T), lambda: torch.mv(q, x),
        lambda: torch.bmm(x3, experts.mT), lambda: torch.bmm(x, experts.mT),
        lambda: torch.addmm(torch.ones(5, 1, 40), x, q.T), lambda: torch.addmm(torch.ones(4, 40), x[:1], q.T),
        lambda: torch.mm(x[:, :32], q.T),
    )  # fmt: skip
    for attempt in attempts:
        with pytest.raises((RuntimeError, nx.NumericsError)):
            attempt()
    for bias in (torch.ones(40, dtype=torch.int32), torch.ones(40).half(), np.ones(40, np.float32)):
        with pytest.raises(nx.NumericsError):
            nx.linear(x, q, bias)


def test_experts_by_matmul_are_those_of_bmm():
    experts = nx.quantize(torch.from_numpy(rows(24, 64)).reshape(3, 8, 64), "mxfp4")
    x = torch.from_numpy(rows(15, 64)).reshape(3, 5, 64)
    assert torch.equal(x @ experts.mT, torch.bmm(x, experts.mT))


# ---- in int8 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["mxfp4", "int8 rows", "uint4 groups"])
def test_torch_and_numpy_differ_in_int8(name, kind):
    q, x = tensors(name, kind=getattr(torch, kind))
    due = nx.linear(as_array(x.float()), nx.interop.as_arrays(q.to(torch.float32)), compute="int8")
    found = nx.linear(x.reshape(2, 3, -1), q, compute="int8")
    assert torch.equal(found, torch.from_numpy(due).to(x.dtype).reshape(2, 3, -1))


def test_a_row_depends_on_its_batch_in_int8():
    q, x = tensors("int4 groups")
    whole = nx.linear(x, q, compute="int8")
    assert torch.equal(nx.linear(x[2], q, compute="int8"), whole[2])
    assert nx.linear(x[:0], q, compute="int8").shape == (0, 40)


def test_nan_and_inf_of_x_vanish_in_int8():
    q, x = tensors("int4 groups")
    bias = torch.arange(40.0)
    due = nx.linear(x, q, bias, compute="int8")
    for row, special in ((1, torch.nan), (3, torch.inf)):
        x[row, 5] = special
    found = nx.linear(x, q, bias, compute="int8")
    assert found[[1, 3]].isnan().all()
    assert torch.equal(found[[0, 2, 4, 5]], due[[0, 2, 4, 5]])


def test_int8_has_the_gradient_of_float32_and_is_one_graph():
    q, x = tensors("mxfp4")
    x.requires_grad_()
    g = torch.from_numpy(rows(6, 40, seed=9))
    (found,) = torch.autograd.grad(nx.linear(x, q, torch.ones(40), compute="int8"), x, g)
    assert torch.equal(found, torch.autograd.grad(F.linear(x, q), x, g)[0])
    compiled = torch.compile(lambda x: nx.linear(x, q, compute="int8") * 2, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x.detach()), nx.linear(x.detach(), q, compute="int8") * 2)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "mx6", nx.QuantSpec("int4", scheme="per_group(32)"),
                                  nx.QuantSpec("int4", scheme=nx.per_token())], ids=str)  # fmt: skip
def test_rows_of_a_slice_were_read_as_if_they_lay_side_by_side(spec, library):
    values = np.arange(1, 385, dtype=np.float32).reshape(6, 64)
    x = np.ones((2, 64), np.float32)
    if library == "torch":
        values, x = torch.from_numpy(values), torch.from_numpy(x)
    whole = nx.quantize(values, spec)
    due = np.asarray(nx.linear(x, whole))
    assert_same_bits(np.asarray(nx.linear(x, whole[::2])), due[:, ::2])
    assert_same_bits(np.asarray(nx.linear(x, whole[1::3])), due[:, 1::3])
    three = nx.quantize(values.reshape(3, 2, 64), spec)[:, 1]
    assert_same_bits(np.asarray(nx.linear(x, three)), due[:, 1::2])


def test_what_is_written_into_a_slice_is_multiplied():
    """Kernels read a copy of it, which is not kept."""
    part = nx.quantize(torch.ones(6, 64), "int4", scheme=nx.per_token())[::2]
    before = nx.linear(torch.ones(1, 64), part)
    part.shared.mul_(2)
    assert torch.equal(nx.linear(torch.ones(1, 64), part), 2 * before)
