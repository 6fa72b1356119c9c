"""What classes of modules say of their parameters, where there is no example to run."""

from __future__ import annotations

from torch import nn

from numerics.model.looking.places import name_in
from numerics.model.looking.trace import Found, Use

_CONV = nn.modules.conv._ConvNd
_CONV_T = nn.modules.conv._ConvTransposeNd
_NORMS = (
    nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase,
)  # fmt: skip


def looked_at(model: nn.Module) -> Found:
    """The uses that the classes of a model's modules promise; of other classes nothing is known."""
    found = Found()
    for name, module in model.named_modules(remove_duplicate=False):
        for leaf, x in module.named_parameters(recurse=False):
            use = _use(name, module, leaf, x.ndim, tuple(x.shape))
            if use is not None:
                found.use([name_in(name, leaf)], use)
    return found


def _use(name: str, module: nn.Module, leaf: str, ndim: int, shape: tuple[int, ...]) -> Use | None:
    if isinstance(module, _NORMS) or "norm" in type(module).__name__.lower():
        return Use(name, "norm", "other")
    if ndim < 2:
        return Use(name, type(module).__name__.lower(), "bias") if "bias" in leaf else None
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return Use(name, "embedding", "rows", ndim - 1)
    if isinstance(module, _CONV):
        turned = isinstance(module, _CONV_T)
        axes = (0, *range(2, ndim)) if turned else range(1, ndim)
        operation = "conv_transpose" if turned else "conv"
        return Use(name, operation, "factor", max(axes, key=lambda axis: shape[axis]))
    if isinstance(module, (nn.Linear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)):
        return Use(name, type(module).__name__.lower(), "factor", ndim - 1)
    if type(module).__name__ == "Conv1D" and leaf == "weight" and ndim == 2:  # transformers': x @ weight
        return Use(name, "addmm", "factor", 0)
    return None
