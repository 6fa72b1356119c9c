"""Small models of every kind that people quantize, each with what it is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import numerics as nx


class Attention(nn.Module):
    """Attention by functions: products of what is computed."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Any, memory: Any = None) -> Any:
        memory = x if memory is None else memory
        q, k, v = self.q(x), self.k(memory), self.v(memory)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderDecoder(nn.Module):
    """Two towers, one of which attends to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 32)
        self.encoder, self.decoder, self.cross = Attention(), Attention(), Attention()
        self.norm, self.lm_head = nn.LayerNorm(32), nn.Linear(32, 40, bias=False)
        self.lm_head.weight = self.words.weight

    def forward(self, source: Any, target: Any) -> Any:
        memory = self.encoder(self.words(source))
        y = self.decoder(self.words(target))
        return self.lm_head(self.norm(y + self.cross(y, memory)))


class ConvNext(nn.Module):
    """Patches, a convolution of single channels, and products of the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 32, 4, 4), nn.Conv2d(32, 32, 7, padding=3, groups=32)
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.scale, self.head = nn.Parameter(torch.full((32,), 0.1)), nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        x = x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class StateSpace(nn.Module):
    """A recurrence of its own, with parameters that no module of torch's has."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(32, 64), nn.Linear(32, 32)
        self.log_a, self.b = nn.Parameter(torch.rand(32, 8)), nn.Parameter(torch.randn(32, 8))
        self.c = nn.Parameter(torch.randn(8, 32))

    def forward(self, x: Any) -> Any:
        u, gate = self.inward(x).chunk(2, -1)
        state, decay = x.new_zeros(x.shape[0], 8), torch.exp(-self.log_a.mean(0))
        out = []
        for t in range(x.shape[1]):
            state = state * decay + u[:, t] @ self.b
            out.append(state @ self.c)
        return self.outward(torch.stack(out, 1) * torch.sigmoid(gate))


class Experts(nn.Module):
    """A mixture, its experts computed one by one, all at once, or by indexing."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.router = how, nn.Linear(32, 4, bias=False)
        self.up, self.down = (
            nn.Parameter(torch.randn(4, 32, 48) / 6),
            nn.Parameter(torch.randn(4, 48, 32) / 7),
        )

    def forward(self, x: Any) -> Any:
        shares = self.router(x).softmax(-1)
        if self.how == "bmm":
            y = torch.bmm(torch.bmm(x.expand(4, -1, -1), self.up).relu(), self.down)
        elif self.how == "einsum":
            y = torch.einsum("ebh,ehd->ebd", torch.einsum("bd,edh->ebh", x, self.up).relu(), self.down)
        else:
            y = torch.stack(
                [F.linear(F.linear(x, self.up[e].t()).relu(), self.down[e].t()) for e in range(4)]
            )
        return (shares.t().unsqueeze(-1) * y).sum(0)


class Vision(nn.Module):
    """Two towers that share a projection, compared by a product of what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.words = nn.Conv2d(3, 32, 4, 4), nn.Embedding(40, 32)
        self.position = nn.Parameter(torch.randn(1, 4, 32))
        self.image, self.text = nn.Linear(32, 32), nn.Linear(32, 32)
        self.text.weight = self.image.weight

    def forward(self, pixels: Any, ids: Any) -> Any:
        seen = self.patches(pixels).flatten(2).transpose(1, 2) + self.position
        return self.image(seen.mean(1)) @ self.text(self.words(ids).mean(1)).t()


class Lora(nn.Module):
    """Two narrow products that are trained, beside a wide one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.a, self.b = (
            nn.Linear(32, 32),
            nn.Linear(32, 4, bias=False),
            nn.Linear(4, 32, bias=False),
        )
        self.base.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.base(x) + self.b(self.a(x))


def packed_lora() -> nn.Module:
    """Two narrow products beside a wide one whose weight is packed already."""
    found = Lora()
    q = nx.quantize(found.base.weight.detach(), "mxfp4")
    found.base.weight = nn.Parameter(q, requires_grad=False)
    return found


class VisionLanguage(nn.Module):
    """Patches and words in one sequence, one attention for both towers, a head tied to the words."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.words = nn.Conv2d(3, 32, 4, 4), nn.Embedding(40, 32)
        self.image, self.text = Attention(), Attention()
        for name in "qkvo":  # two modules, one weight
            getattr(self.text, name).weight = getattr(self.image, name).weight
        self.joint, self.norm = self.image, nn.LayerNorm(32)  # one module, two names
        self.lm_head = nn.Linear(32, 40, bias=False)
        self.lm_head.weight = self.words.weight

    def forward(self, pixels: Any, ids: Any) -> Any:
        seen = self.image(self.patches(pixels).flatten(2).transpose(1, 2))
        y = torch.cat([seen, self.text(self.words(ids))], 1)
        return self.lm_head(self.norm(y + self.joint(y))[:, seen.shape[1] :])


class Selective(nn.Module):
    """A state space whose step and matrices depend on what comes, behind a causal convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(32, 128, bias=False), nn.Linear(64, 32, bias=False)
        self.conv, self.chosen = nn.Conv1d(64, 64, 4, padding=3, groups=64), nn.Linear(64, 2 + 16, bias=False)
        self.step, self.skip = nn.Linear(2, 64), nn.Parameter(torch.ones(64))
        self.log_a = nn.Parameter(torch.arange(1.0, 9).log().expand(64, 8).clone())

    def forward(self, x: Any) -> Any:
        u, gate = self.inward(x).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step, b, c = self.chosen(u).split([2, 8, 8], -1)
        step = F.softplus(self.step(step))
        decay = torch.exp(step[..., None] * -torch.exp(self.log_a))
        state, out = x.new_zeros(x.shape[0], 64, 8), []
        for t in range(x.shape[1]):
            state = state * decay[:, t] + (step[:, t] * u[:, t])[..., None] * b[:, t, None]
            out.append(torch.einsum("bdn,bn->bd", state, c[:, t]))
        return self.outward((torch.stack(out, 1) + self.skip * u) * F.silu(gate))


class Recurrent(nn.Module):
    """A recurrent module, whose weights torch keeps in a list of its own."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.r = kind(32, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.o = nn.Linear(48, 4)

    def forward(self, x: Any) -> Any:
        return self.o(self.r(x)[0])


class ConvBatchNorm(nn.Module):
    """Convolutions with normalizations that can be folded, joined, pooled and added."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.c2, self.b2 = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.f = nn.Linear(64, 5)
        for norm in (self.b1, self.b2):
            for x in (norm.running_mean, norm.weight, norm.bias):
                nn.init.normal_(x)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Any) -> Any:
        y = self.b1(self.c1(x)).relu()
        z = self.b2(self.c2(y)) + y
        return self.f(torch.cat([F.avg_pool2d(z, 2), F.max_pool2d(y, 2)], 1).mean((2, 3)))


class Branches(nn.Module):
    """Control flow that is an operator, and a region without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            x = self.c(x)
        return torch.cond(x.sum() > 0, lambda y: self.a(y).relu(), lambda y: self.b(y).sigmoid(), (x,))


class Bare(nn.Module):
    """Parameters without modules: products, views, an index, and values of them."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(32, 48)), nn.Parameter(torch.randn(48, 8))
        self.u = nn.Parameter(torch.randn(8, 32))

    def forward(self, x: Any) -> Any:
        y = torch.einsum("bi,ij->bj", x @ self.w, self.v)
        return F.linear(x, self.u) + y + (self.u * 2).sum() + self.u.mT[3].sum()


class Reads(nn.Module):
    """A module whose weight is read by another's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(32, 24)

    def forward(self, x: Any) -> Any:
        return F.linear(x, self.base.weight + 0.5, self.base.bias)


class Twice(nn.Module):
    """A module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        return self.l(self.l(x).relu())


def _x(*shape: int) -> tuple[Any, ...]:
    return (torch.randn(*shape),)


Case = tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]
MODELS: dict[str, Case] = {
    "linear": (lambda: nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 8)), lambda: _x(5, 32)),
    "encoder_decoder": (EncoderDecoder, lambda: (torch.randint(40, (2, 7)), torch.randint(40, (2, 5)))),
    "convnext": (ConvNext, lambda: _x(2, 3, 16, 16)),
    "state_space": (StateSpace, lambda: _x(2, 6, 32)),
    "experts_bmm": (lambda: Experts("bmm"), lambda: _x(6, 32)),
    "experts_einsum": (lambda: Experts("einsum"), lambda: _x(6, 32)),
    "experts_index": (lambda: Experts("index"), lambda: _x(6, 32)),
    "vision": (Vision, lambda: (torch.randn(2, 3, 8, 8), torch.randint(40, (2, 5)))),
    "lora": (Lora, lambda: _x(5, 32)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: _x(2, 6, 32)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: _x(2, 6, 32)),
    "lstm_cell": (lambda: nn.LSTMCell(32, 24), lambda: _x(2, 32)),
    "conv_batch_norm": (ConvBatchNorm, lambda: _x(2, 3, 8, 8)),
    "conv_transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(32, 8, 3)), lambda: _x(2, 32, 5, 5)),
    "reflect": (
        lambda: nn.Sequential(nn.Conv2d(32, 8, 3, padding=1, padding_mode="reflect")),
        lambda: _x(2, 32, 5, 5),
    ),
    "branches": (Branches, lambda: _x(3, 32)),
    "bare": (Bare, lambda: _x(5, 32)),
    "reads": (Reads, lambda: _x(5, 32)),
    "twice": (Twice, lambda: _x(5, 32)),
}
FIELD: dict[str, Case] = {
    "vision_language": (VisionLanguage, lambda: (torch.randn(2, 3, 8, 8), torch.randint(40, (2, 5)))),
    "selective": (Selective, lambda: _x(2, 3, 32)),
    "packed_lora": (packed_lora, lambda: _x(5, 32)),
    **{f"experts_{how}": MODELS[f"experts_{how}"] for how in ("bmm", "einsum", "index")},
}
"""What goes from a plan to a file and back; the others go through everything."""
FUSED = {
    "multihead": lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0),
}


def model(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """A model in evaluation, and its arguments, the same every time."""
    torch.manual_seed(0)
    make, arguments = {**MODELS, **FIELD}[name]
    return make().eval(), arguments()


def row_of(plan: nx.Plan, name: str) -> Any:
    """The one row of a plan that a tensor of that name has."""
    (found,) = [row for row in plan.rows if name in row.names]
    return found
