"""What each of two processes does in model/test_wrapping.py: wrapped models in DDP and FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import numerics as nx

X = torch.linspace(-1, 1, 8 * 32).reshape(8, 32).sin()


class Net(nn.Module):
    """A module of torch's, a product by a function, and a block that may be checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(32, 32)
        self.block = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
        self.w, self.checkpoints = nn.Parameter(torch.randn(32, 8) / 6), False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu()
        y = checkpoint(self.block, y, use_reentrant=False) if self.checkpoints else self.block(y)
        return y @ self.w


def wrapped(qat: str = "ste", weights: str = "int8", mode: str = "eager_mode") -> nn.Module:
    return nx.wrap(Net(), weights, activations="int8", example=X, qat=qat, mode=mode).train()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.grad.full_tensor() if isinstance(x.grad, DTensor) else x.grad
            for name, x in model.named_parameters() if x.grad is not None}  # fmt: skip


def stepped(model: nn.Module, batches: list[torch.Tensor]) -> nn.Module:
    """Two steps, each of the mean of the ranks' gradients."""
    for _ in range(2):
        model.zero_grad()
        for x in batches:
            (model(x).square().mean() / len(batches)).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.1 * parameter.grad)
    return model


def mine() -> list[torch.Tensor]:
    return [X[dist.get_rank() :: 2]]


def through_ddp(model: nn.Module) -> None:
    """The ranks' mean is what one process makes of both batches, each quantized by itself."""
    alone = stepped(copy.deepcopy(model), [X[0::2], X[1::2]])
    parallel = DistributedDataParallel(copy.deepcopy(model))
    stepped(parallel, mine())
    for (name, a), (_, b) in zip(alone.named_parameters(), parallel.module.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def through_fsdp(model: nn.Module, parts: tuple[str, ...] = ("block", "")) -> None:
    alone, sharded = copy.deepcopy(model), copy.deepcopy(model)
    for part in parts:
        fully_shard(sharded.get_submodule(part))
    assert torch.equal(sharded(mine()[0]), alone(mine()[0]))
    stepped(alone, [X[0::2], X[1::2]])
    stepped(sharded, mine())
    whole = dict(sharded.named_parameters())
    for name, a in alone.named_parameters():
        b = whole[name]
        assert torch.equal(a, b.full_tensor() if isinstance(b, DTensor) else b), name


def a_graphs_shards() -> None:
    """A graph has the parameters of its modules, which it does not call."""
    through_fsdp(wrapped(mode="fx_graph_mode"), ("",))
    graph = wrapped(mode="fx_graph_mode")
    fully_shard(graph.block)
    with pytest.raises(nx.NumericsError, match=r"block\.[02]\.weight is a shard .*the graph alone"):
        graph(X)


def shards_that_nobody_gathers() -> None:
    """A weight may be read too early; torch shards no scalars."""
    eager = wrapped()
    fully_shard(eager.first)
    with pytest.raises(nx.NumericsError, match=r"first\.weight is a shard"):
        eager.first.weight.sum()
    with pytest.raises(ValueError, match=r"scalar parameters.*log2_threshold"):
        fully_shard(wrapped("tqt"))
    learning = wrapped("tqt")
    fully_shard(learning, ignored_params={x for x in learning.parameters() if not x.ndim})
    learning(mine()[0]).sum().backward()
    assert all(x.grad is not None for x in learning.parameters())


CASES: dict[str, Callable[[], None]] = {
    "ddp, straight through": lambda: through_ddp(wrapped()),
    "ddp, steps": lambda: through_ddp(wrapped("lsq")),
    "ddp, a graph": lambda: through_ddp(wrapped(mode="fx_graph_mode")),
    "fsdp, straight through": lambda: through_fsdp(wrapped()),
    "fsdp, a graph": a_graphs_shards,
    "ddp, thresholds": lambda: through_ddp(wrapped("tqt")),
    "ddp, blocks, checkpointed": lambda: through_ddp(checkpointed(wrapped(weights="mxfp4"))),
    "fsdp, blocks, checkpointed": lambda: through_fsdp(checkpointed(wrapped(weights="mxfp4"))),
    "shards that nobody gathers": shards_that_nobody_gathers,
}


def checkpointed(model: nn.Module) -> nn.Module:
    """The same, whose block computes again for its gradient: the same gradients."""
    plain, model.checkpoints = copy.deepcopy(model), True
    plain(X).sum().backward()
    model(X).sum().backward()
    found, due = gradients(model), gradients(plain)
    assert found.keys() == due.keys()
    assert all(torch.equal(found[name], due[name]) for name in due)
    model.zero_grad()
    return model


def main() -> None:
    dist.init_process_group("gloo")
    for case in CASES.values():
        case()
    dist.destroy_process_group()
    print("both done", flush=True)


if __name__ == "__main__":
    main()
