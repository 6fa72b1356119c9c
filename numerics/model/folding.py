"""Folding: normalizations by batches taken into the convolutions before them (torch.nn.utils.fusion)."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold(model: nn.Module, folds: dict[str, str]) -> None:
    """Gives convolutions weights and biases that do what the normalization after them did, in place.

    folds: of each normalization its convolution, by names.  The parameters that were there stay as they are,
    for whoever else has them.
    """
    for norm_name, conv_name in folds.items():
        norm, conv = model.get_submodule(norm_name), model.get_submodule(conv_name)
        transposed = isinstance(conv, nn.modules.conv._ConvTransposeNd)
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,  # type: ignore[arg-type]
            transposed,
        )  # fmt: skip
        conv.weight, conv.bias = weight, bias
        owner, _, leaf = norm_name.rpartition(".")
        model.get_submodule(owner)._modules[leaf] = nn.Identity()
