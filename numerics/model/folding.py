"""Folding: BatchNorm is taken into the convolution before it, as torch.nn.utils.fusion does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold(model: nn.Module, folds: dict[str, str]) -> None:
    """Gives convolutions weights and biases that do what the normalization after them did, in place.

    folds: of each normalization its convolution, by names.  The parameters that were there stay as they are,
    for whoever else has them.
    """
    for norm_name, conv_name in folds.items():
        norm, conv = model.get_submodule(norm_name), model.get_submodule(conv_name)
        weight, bias = _fused(conv, norm)
        trained = norm.bias if norm.bias is not None else conv.weight
        bias.requires_grad = bool(
            trained.requires_grad
        )  # torch has no gradient for a bias that was not there
        conv.weight, conv.bias = weight, bias
        owner, _, leaf = norm_name.rpartition(".")
        model.get_submodule(owner)._modules[leaf] = nn.Identity()


def can_fold(norm: nn.Module | None, conv: nn.Module | None) -> bool:
    """Is it a BatchNorm, with statistics, of as many channels as a convolution gives?"""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None:
        return False
    return isinstance(conv, nn.modules.conv._ConvNd) and conv.out_channels == norm.num_features


def _fused(conv: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """The weight and bias of both in one, the groups of a transposed convolution one by one.

    The channels that come out are the second axis of such a weight, which holds those of one group.
    """
    transposed = isinstance(conv, nn.modules.conv._ConvTransposeNd)
    groups = conv.groups if transposed else 1
    scaled = (conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    parts = [x.chunk(groups) if x is not None else [None] * groups for x in scaled]
    fused = [
        fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, gain, shift, transposed)
        for weight, bias, mean, var, gain, shift in zip(conv.weight.chunk(groups), *parts, strict=True)
    ]
    weight, bias = (torch.cat([x.detach() for x in both]) for both in zip(*fused, strict=True))
    return nn.Parameter(weight, conv.weight.requires_grad), nn.Parameter(bias)
