"""Training with quantization: scales that are learned with the weights.  Needs torch.

`tqt` and `lsq` are functions of a tensor and of what is learned; `TQT` and `LSQ` are modules that own
it, for a weight (torch.nn.utils.parametrize) or an activation (called in forward).  The values are
those of `fake_quantize` with the same scale, bit for bit, on every device, compiled or not.  Where
nothing is learned, `fake_quantize` itself has the straight-through gradient.  `parameter_groups` gives
an optimizer what is learned apart from the weights.

>>> import torch, numerics as nx
>>> layer = torch.nn.Linear(4, 2)
>>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", nx.train.TQT("int8"))
>>> layer(torch.ones(4)).sum().backward()
>>> [name for name, p in layer.named_parameters() if p.grad is not None]
['bias', 'parametrizations.weight.original', 'parametrizations.weight.0.log2_threshold']
"""

from numerics.formats.arguments import answer_calls
from numerics.train.modules import LSQ, TQT, lsq, lsq_init, tqt
from numerics.train.parameters import freeze_thresholds, parameter_groups, thresholds
from numerics.train.threshold_init import THRESHOLD_INIT, threshold_3sd, threshold_kl_j

__all__ = [
    "LSQ",
    "THRESHOLD_INIT",
    "TQT",
    "freeze_thresholds",
    "lsq",
    "lsq_init",
    "parameter_groups",
    "threshold_3sd",
    "threshold_kl_j",
    "thresholds",
    "tqt",
]

answer_calls(__name__)
