"""Training with quantization: scales that are learned with the weights.  Needs torch.

`tqt` and `lsq` are functions of a tensor and of what is learned; `TQT` and `LSQ` are modules that own
it, for a weight (torch.nn.utils.parametrize) or an activation (called in forward).  The values are
those of `fake_quantize` with the same scale, bit for bit, on every device, compiled or not.  Where
nothing is learned, `fake_quantize` itself has the straight-through gradient.

>>> import torch, numerics as nx
>>> layer = torch.nn.Linear(4, 2)
>>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", nx.train.TQT("int8"))
>>> layer(torch.ones(4)).sum().backward()
>>> [name for name, p in layer.named_parameters() if p.grad is not None]
['bias', 'parametrizations.weight.original', 'parametrizations.weight.0.log2_threshold']
"""

from numerics.train.modules import LSQ, TQT, lsq, lsq_init, tqt
from numerics.train.thresholds import THRESHOLD_INIT, threshold_3sd, threshold_kl_j

__all__ = ["LSQ", "THRESHOLD_INIT", "TQT", "lsq", "lsq_init", "threshold_3sd", "threshold_kl_j", "tqt"]
