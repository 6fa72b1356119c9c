"""Models of the kinds that appear week by week, each small, with what it is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import numerics as nx


class UNet(nn.Module):
    """A denoiser: noise levels, a way down and up, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.inward, self.down = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, 2, 1)
        self.norm, self.middle = nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, x: Any, level: Any) -> Any:
        a = F.silu(self.norm(self.inward(x)) + self.time(level)[:, :, None, None])
        b = F.silu(self.down(a))
        return self.out(torch.cat([self.up(F.silu(self.middle(b)) + b), a], 1))


class MessagePassing(nn.Module):
    """A graph network: messages along edges, scattered to nodes two ways, and a gated update."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update, self.out = nn.Linear(64, 32), nn.GRUCell(32, 32), nn.Linear(32, 2)

    def forward(self, x: Any, edges: Any) -> Any:
        source, target = edges
        sent = F.relu(self.message(torch.cat([x[source], x[target]], -1)))
        came = torch.zeros_like(x).index_add(0, target, sent)
        came = came.scatter_reduce(0, target[:, None].expand(-1, 32), sent, "amax")
        return self.out(self.update(came, x))


class Cells(nn.Module):
    """Three cells of recurrences, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.long, self.plain, self.gated = nn.LSTMCell(32, 32), nn.RNNCell(32, 32), nn.GRUCell(32, 16)

    def forward(self, x: Any) -> Any:
        h = c = r = x.new_zeros(x.shape[0], 32)
        g = x.new_zeros(x.shape[0], 16)
        for t in range(x.shape[1]):
            h, c = self.long(x[:, t], (h, c))
            r = self.plain(h, r)
            g = self.gated(r, g)
        return g


class Spectral(nn.Module):
    """A filter of complex numbers between two products of real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(32, 32), nn.Linear(32, 8)
        self.filter = nn.Parameter(torch.randn(1, 17, dtype=torch.complex64))

    def forward(self, x: Any) -> Any:
        return self.outward(torch.fft.irfft(torch.fft.rfft(self.inward(x)) * self.filter, n=32))


class Einsums(nn.Module):
    """Attention in einsum alone, one of them of three operands."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(4, 32, 16) / 6) for _ in range(3))
        self.o = nn.Parameter(torch.randn(4, 16, 32) / 4)

    def forward(self, x: Any) -> Any:
        q, k, v = (torch.einsum("btd,hde->bhte", x, w) for w in (self.q, self.k, self.v))
        shares = torch.einsum("bhte,bhse->bhts", q, k).softmax(-1)
        return torch.einsum("bhts,bhse,hed->btd", shares, v, self.o)


class Bags(nn.Module):
    """Bags of words, whose tables a rule takes."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.sum = nn.EmbeddingBag(40, 32, mode="mean"), nn.EmbeddingBag(40, 32, mode="sum")
        self.out = nn.Linear(64, 4)

    def forward(self, ids: Any, offsets: Any) -> Any:
        return self.out(torch.cat([self.mean(ids, offsets), self.sum(ids, offsets)], -1))


class Crossing(nn.Module):
    """Words that attend to patches by torch's own attention, with other widths of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.words = nn.Conv2d(3, 16, 4, 4), nn.Embedding(30, 32)
        self.attend = nn.MultiheadAttention(32, 4, kdim=16, vdim=16, batch_first=True, add_bias_kv=True)
        self.head = nn.Linear(32, 30)
        self.head.weight = self.words.weight

    def forward(self, pixels: Any, ids: Any) -> Any:
        seen = self.patches(pixels).flatten(2).mT
        return self.head(self.attend(self.words(ids), seen, seen)[0])


class Rotary(nn.Module):
    """A block as language models have it: one product for q, k and v, rotations, a gated unit."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.o = nn.RMSNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.register_buffer("turn", torch.randn(8, 8))
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 8)).unbind(2)
        q, k = (t * self.turn[: x.shape[1], None] for t in (q, k))
        y = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class Routed(nn.Module):
    """Two of four experts a row, which see the rows that are theirs, or all of them."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.sparse, self.router = sparse, nn.Linear(32, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32)) for _ in range(4)
        )

    def forward(self, x: Any) -> Any:
        shares, chosen = self.router(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            if self.sparse:
                rows, k = torch.where(chosen == number)
                out = out.index_add(0, rows, expert(x[rows]) * shares[rows, k, None])
            else:
                out = out + (shares * (chosen == number)).sum(-1, keepdim=True) * expert(x)
        return out


class Hyper(nn.Module):
    """A weight that is computed, beside one that is kept, and a bilinear form."""

    def __init__(self) -> None:
        super().__init__()
        self.makes, self.base, self.form = nn.Linear(32, 256), nn.Linear(32, 32), nn.Bilinear(32, 8, 4)

    def forward(self, x: Any) -> Any:
        y = self.base(x)
        return self.form(y, F.linear(y, self.makes(x.mean(0)).view(8, 32)))


class Volumes(nn.Module):
    """Three-dimensional convolutions, there and back, with a normalization and a learned slope."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.norm = nn.Conv3d(2, 32, 3), nn.BatchNorm3d(32)
        self.slope, self.back = nn.PReLU(32), nn.ConvTranspose3d(32, 2, 3)

    def forward(self, x: Any) -> Any:
        return self.back(self.slope(self.norm(self.there(x))))


class Dual(nn.Module):
    """A state space in its dual form: a masked product of decays, einsums of four operands."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward, self.norm = nn.Linear(32, 84), nn.Linear(64, 32), nn.RMSNorm(64)
        self.conv = nn.Conv1d(64, 64, 4, groups=64, padding=3)
        self.a, self.skip = nn.Parameter(torch.rand(4)), nn.Parameter(torch.ones(4))

    def forward(self, x: Any) -> Any:
        z, bc, step = self.inward(x).split([64, 16, 4], -1)
        z = F.silu(self.conv(z.mT)[..., : x.shape[1]].mT).unflatten(-1, (4, 16))
        (b, c), step = bc.chunk(2, -1), F.softplus(step)
        past = torch.cumsum(-step * self.a, 1)
        later = ~torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()[None, :, :, None]
        decay = torch.exp((past[:, :, None] - past[:, None]).masked_fill(later, -torch.inf))
        seen = torch.einsum("bln,bmn->blm", c, b)
        y = torch.einsum("blm,blmh,bmh,bmhp->blhp", seen, decay, step, z) + self.skip[:, None] * z
        return self.outward(self.norm(y.flatten(2)))


class Splines(nn.Module):
    """Learned functions of one variable each, summed by an einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(8, 32, 5) / 5)
        self.register_buffer("grid", torch.linspace(-1, 1, 5))

    def forward(self, x: Any) -> Any:
        return torch.einsum("bik,oik->bo", torch.exp(-((x[..., None] - self.grid) ** 2)), self.weights)


class Equilibrium(nn.Module):
    """One layer that is called again and again, inside a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(32, 32), nn.Tanh())

    def forward(self, x: Any) -> Any:
        z = torch.zeros_like(x)
        for _ in range(3):
            z = checkpoint(self.layer, z + x, use_reentrant=False)
        return z


class Unfolded(nn.Module):
    """A convolution by hand: patches as columns, times a bare parameter from the left."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 27) / 5)

    def forward(self, x: Any) -> Any:
        return (self.w @ F.unfold(x, 3)).sum(-1)


class Listed(nn.Module):
    """Parameters in lists and dicts, and a result of several parts."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.ParameterList([torch.randn(32, 32) / 6 for _ in range(3)])
        self.heads = nn.ParameterDict({"a": torch.randn(32, 8) / 6, "b": torch.randn(32, 4) / 6})

    def forward(self, batch: Any) -> Any:
        x = batch["x"]
        for w in self.deep:
            x = torch.tanh(x @ w)
        return {name: x @ w for name, w in self.heads.items()}


class Projected(nn.Module):
    """Recurrent modules, one of which projects what it gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.RNN(32, 32, 2, batch_first=True, nonlinearity="relu")
        self.long = nn.LSTM(32, 32, proj_size=16, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.long(self.plain(x)[0])[0]


class Sampled(nn.Module):
    """A convolution that says where another looks, and pixels that are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.where, self.what = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 64, 3, groups=2)
        self.squeeze = nn.Conv2d(16, 16, 1)

    def forward(self, x: Any) -> Any:
        places = self.where(x).permute(0, 2, 3, 1).tanh()
        y = F.pixel_shuffle(self.what(F.grid_sample(x, places, align_corners=False)), 2)
        return y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))


class Adapted(nn.Module):
    """A product of adapters added to the result of a packed weight, and layers that are trained."""

    def __init__(self) -> None:
        super().__init__()
        made = torch.randn(32, 32) / 6
        self.w = nn.Parameter(nx.quantize(made, "mxfp4"), requires_grad=False)
        self.a, self.b = nn.Parameter(torch.randn(4, 32) / 6), nn.Parameter(torch.randn(32, 4) / 6)
        self.head = nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        return self.head(F.linear(x, self.w) + x @ (self.b @ self.a).t())


class Codebook(nn.Module):
    """Codes are the nearest rows of a table, by distances; what is computed makes them, and the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.book = nn.Conv1d(4, 32, 3, padding=1), nn.Embedding(16, 32)
        self.back = nn.ConvTranspose1d(32, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        z = self.there(x).mT
        codes = torch.cdist(z, self.book.weight.expand(z.shape[0], -1, -1)).argmin(-1)
        return self.back((z + (self.book(codes) - z).detach()).mT)


class Absorbed(nn.Module):
    """Attention to latents of low rank, with halves of one weight multiplied into queries and results."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.down = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.up, self.o = nn.Linear(32, 64, bias=False), nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        q, latents = self.q(x).unflatten(-1, (4, 8)), self.down(x)
        keys, values = self.up.weight.view(4, 16, 32).split(8, 1)
        q = torch.einsum("bthd,hdr->bthr", q, keys) * torch.tensor(0.25)
        shares = torch.einsum("bthr,bsr->bhts", q, latents).softmax(-1)
        seen = torch.einsum("bhts,bsr->bthr", shares, latents)
        return self.o(torch.einsum("bthr,hdr->bthd", seen, values).flatten(2))


def encoder() -> nn.Module:
    """torch's own encoder, which has a fast path of its own in evaluation."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 4))


def _x(*shape: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(*shape),)


INVENTIONS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "u_net": (UNet, lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 16))),
    "message_passing": (MessagePassing, lambda: (torch.randn(5, 32), torch.randint(5, (2, 9)))),
    "cells": (Cells, lambda: _x(2, 4, 32)),
    "spectral": (Spectral, lambda: _x(3, 32)),
    "einsums": (Einsums, lambda: _x(2, 5, 32)),
    "bags": (Bags, lambda: (torch.randint(40, (9,)), torch.tensor([0, 4]))),
    "crossing": (Crossing, lambda: (torch.randn(2, 3, 8, 8), torch.randint(30, (2, 5)))),
    "rotary": (Rotary, lambda: _x(2, 5, 32)),
    "routed": (lambda: Routed(False), lambda: _x(6, 32)),
    "routed_sparse": (lambda: Routed(True), lambda: _x(6, 32)),
    "hyper": (Hyper, lambda: _x(3, 32)),
    "volumes": (Volumes, lambda: _x(2, 2, 5, 5, 5)),
    "dual": (Dual, lambda: _x(2, 6, 32)),
    "splines": (Splines, lambda: _x(3, 32)),
    "equilibrium": (Equilibrium, lambda: _x(3, 32)),
    "unfolded": (Unfolded, lambda: _x(2, 3, 5, 5)),
    "listed": (Listed, lambda: ({"x": torch.randn(3, 32)},)),
    "projected": (Projected, lambda: _x(2, 4, 32)),
    "sampled": (Sampled, lambda: _x(2, 4, 6, 6)),
    "adapted": (Adapted, lambda: _x(3, 32)),
    "codebook": (Codebook, lambda: _x(2, 4, 6)),
    "absorbed": (Absorbed, lambda: _x(2, 4, 32)),
    "encoder": (encoder, lambda: _x(2, 5, 32)),
}
FUSED = {"crossing": "attend:*", "encoder": "*self_attn:*"}
"""Sites inside functions of torch's that the eager mode does not reach."""


def invention(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """A model in evaluation, and its arguments, the same every time."""
    torch.manual_seed(0)
    make, arguments = INVENTIONS[name]
    return make().eval(), arguments()
