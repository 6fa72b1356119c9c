"""What each of two processes does in pytorch/test_collectives.py: QTensors in DTensor, FSDP2."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import numerics as nx

RECIPES = [
    ("int4", {"scheme": "per_channel(0)"}),
    ("int8", {"symmetric": False}),
    ("int8", {"scheme": "per_channel(1)", "symmetric": False}),
    ("fp8_e4m3", {"scheme": "per_block((3, 32))"}),
    ("mxfp4", {}),
    ("mx6", {}),
    ("nvfp4", {}),
]
ROWS = (6, 5)  # even and uneven shares


def assert_same_tensor(came: torch.Tensor, q: nx.QTensor) -> None:
    assert isinstance(came, nx.QTensor), type(came)
    assert torch.equal(came.dequantize(), q.dequantize())
    assert torch.equal(came.packed, q.packed)


def through_dtensor(q: nx.QTensor, mesh) -> None:
    """Cut, sent and gathered again, byte for byte."""
    rank = mesh.get_local_rank()
    mine = q[:3] if rank == 0 else q[3:]
    if q.shape[0] == 6:
        assert_same_tensor(DTensor.from_local(mine, mesh, [Shard(0)], run_check=False).full_tensor(), q)
        other = zeros_like(q) if rank else q
        sent = distribute_tensor(other, mesh, [Shard(0)])  # only rank 0 has the values
        assert_same_tensor(sent.to_local(), mine)
        assert_same_tensor(sent.full_tensor(), q)
        assert_same_tensor(distribute_tensor(other, mesh, [Replicate()]).to_local(), q)
    assert_same_tensor(distribute_tensor(q, mesh, [Shard(0)], src_data_rank=None).to_local(), mine)


def options_of(q: nx.QTensor) -> dict:
    return {} if q.scheme is None else {"scheme": q.scheme, "symmetric": q.spec.symmetric}


def through_fsdp(q: nx.QTensor) -> None:
    """A quantized, frozen weight beside ones that learn: as without FSDP, twice."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, q.shape[0], bias=False), torch.nn.Linear(q.shape[0], 4))
    model[0].weight = torch.nn.Parameter(q, requires_grad=False)
    x = torch.randn(3, 64)
    due = model(x)
    fully_shard(model)
    for _ in range(2):
        y = model(x)
        assert torch.equal(y, due)
        y.sum().backward()
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if dist.get_rank() == 0:
        assert_same_tensor(whole["0.weight"], q)


def through_checkpoint(q: nx.QTensor, folder: Path) -> None:
    """Written by two ranks, each its rows, and read in place: by two, and by one that has all rows."""
    model, other = sharded(q), sharded(zeros_like(q))
    whole = {"weight": nx.quantize(torch.zeros(q.shape), q.spec, **shared_by_rows(q))}
    dcp.save({"weight": model.weight}, checkpoint_id=folder)
    dcp.load({"weight": other.weight}, checkpoint_id=folder)
    assert_same_tensor(other.weight.to_local(), model.weight.to_local())
    with warnings.catch_warnings(action="ignore"):  # torch says that one process reads alone
        dcp.load(whole, checkpoint_id=folder, no_dist=True)
    assert_same_tensor(whole["weight"], q)


def sharded(q: nx.QTensor) -> torch.nn.Module:
    """A layer with that weight, its rows shared out to the ranks."""
    model = torch.nn.Linear(64, q.shape[0], bias=False)
    model.weight = torch.nn.Parameter(q, requires_grad=False)
    return fully_shard(model)


def zeros_like(q: nx.QTensor) -> nx.QTensor:
    """Other values by the same recipe."""
    return nx.quantize(torch.zeros(q.shape), q.format, **options_of(q))


def shared_by_rows(q: nx.QTensor) -> dict:
    """What all rows share, which no rank may change for the others when it reads its own."""
    if q.tensor_scale is not None:
        return {"tensor_scale": q.tensor_scale}
    one = q.scheme is not None and q.scheme.kind in ("per_tensor", "per_channel") and q.scheme.axis != 0
    return {"scale": q.scale, **({} if q.spec.symmetric else {"zero_point": q.zero_point})} if one else {}


def shared_folder() -> Path:
    """One that both ranks know."""
    made = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(made)
    return Path(made[0])


def through_ddp(q: nx.QTensor) -> None:
    """A frozen weight takes part in the first broadcast, of values that are exactly of its recipe."""
    model = torch.nn.Sequential(torch.nn.Linear(64, q.shape[0], bias=False), torch.nn.Linear(q.shape[0], 4))
    model[0].weight = torch.nn.Parameter(q, requires_grad=False)
    model = torch.nn.parallel.DistributedDataParallel(model)
    model(torch.randn(3, 64)).sum().backward()
    assert_same_tensor(model.module[0].weight, q)


def alone(q: nx.QTensor) -> None:
    """FSDP2 of one rank, which gathers the first of a tensor's parts alone."""
    model, x = torch.nn.Linear(64, q.shape[0], bias=False), torch.randn(3, 64)
    model.weight = torch.nn.Parameter(q, requires_grad=False)
    due = model(x)
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("apart", "shared"))["shared"])
    for _ in range(2):
        assert torch.equal(model(x), due)


def main() -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    for rows in ROWS:
        w = torch.randn(rows, 64)
        for d, options in RECIPES:
            q = nx.quantize(w, d, **options)
            through_dtensor(q, mesh)
            if rows == 6:  # torch refuses uneven shares of tensors that gather themselves
                through_fsdp(q)
                alone(q)
                through_checkpoint(q, shared_folder())
                through_ddp(nx.quantize(w, d, **options))
    refused(nx.quantize(torch.randn(6, 5), "int3"))
    dist.destroy_process_group()
    print("both done")


def refused(q: nx.QTensor) -> None:
    """Rows of 15 bits cannot be gathered as bytes."""
    with pytest.raises(nx.NumericsError, match="rows are not whole bytes"):
        q.fsdp_pre_all_gather(None, None, None, None, None)


if __name__ == "__main__":
    main()
