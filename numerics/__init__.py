"""numerics: low-precision number formats, bit-exact, at the speed of memory.

>>> import numerics as nx
>>> nx.fp8_e4m3.round(0.3), nx.mxfp4.bits
(0.3125, 4.25)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if not os.path.isdir(os.path.join(__path__[0], "formats")):  # a checkout: they stand beside us
    __path__.append(os.path.dirname(__path__[0]))

from numerics import _autoload
from numerics._version import __version__
from numerics.formats import *  # noqa: F403
from numerics.formats import __all__ as _formats
from numerics.formats import dispatch as _dispatch
from numerics.formats import forking as _forking
from numerics.formats.blocks import *  # noqa: F403 - once more: mypy follows one star only
from numerics.formats.codebooks import *  # noqa: F403
from numerics.formats.dispatch import use
from numerics.formats.errors import NumericsError
from numerics.formats.floats import *  # noqa: F403
from numerics.formats.integers import *  # noqa: F403

if TYPE_CHECKING:  # what __getattr__ imports when it is first asked for
    from numerics import adapters as adapters
    from numerics import checkpoints as checkpoints
    from numerics import conform as conform
    from numerics import draw as draw
    from numerics import interop as interop
    from numerics import model as model
    from numerics import observe as observe
    from numerics import train as train
    from numerics import vocabulary as vocabulary
    from numerics.backends.host.memory import empty as empty
    from numerics.backends.host.random_bits import random_bits as random_bits
    from numerics.draw.explorer import explore as explore
    from numerics.draw.scales import scales as scales
    from numerics.files.save_load import load as load
    from numerics.files.save_load import save as save
    from numerics.interop import layouts as layouts
    from numerics.model import ipu as ipu
    from numerics.model.wrapped.structure import admit as admit
    from numerics.quantization import dequantize as dequantize
    from numerics.quantization import fake_quantize as fake_quantize
    from numerics.quantization import quantize as quantize
    from numerics.tensor.arithmetic import operate as operate
    from numerics.tensor.product import decoded_products as decoded_products
    from numerics.tensor.product import linear as linear
    from numerics.tensor.qtensor import QTensor as QTensor
    from numerics.tensor.rotation import hadamard as hadamard
    from numerics.tensor.scheme import Scheme as Scheme
    from numerics.tensor.scheme import per_block as per_block
    from numerics.tensor.scheme import per_channel as per_channel
    from numerics.tensor.scheme import per_group as per_group
    from numerics.tensor.scheme import per_tensor as per_tensor
    from numerics.tensor.scheme import per_token as per_token
    from numerics.tensor.spec import QuantSpec as QuantSpec
    from numerics.transcoding import transcode as transcode

_dispatch.register("cpu", "numerics.backends.cpu")
_dispatch.register("array", "numerics.backends.array")
_dispatch.register("reference", "numerics.backends.reference")
_dispatch.register("ipu", "numerics.backends.ipu", device=None, extra="ipu")
_dispatch.register("gpu", "numerics.backends.gpu", device="gpu", extra="gpu")

_LAZY: dict[str, str] = {
    "Plan": "numerics.model.deciding.plan",
    "QTensor": "numerics.tensor.qtensor",
    "QuantSpec": "numerics.tensor.spec",
    "Scheme": "numerics.tensor.scheme",
    "admit": "numerics.model.wrapped.structure",
    "calibrate": "numerics.model.calibrating",
    "compare": "numerics.model.report",
    "decoded_products": "numerics.tensor.product",
    "dequantize": "numerics.quantization",
    "empty": "numerics.backends.host.memory",
    "explore": "numerics.draw.explorer",
    "fake_quantize": "numerics.quantization",
    "footprint": "numerics.model.loading",
    "freeze": "numerics.model.freezing",
    "hadamard": "numerics.tensor.rotation",
    "linear": "numerics.tensor.product",
    "load": "numerics.files.save_load",
    "load_into": "numerics.model.loading",
    "operate": "numerics.tensor.arithmetic",
    "per_block": "numerics.tensor.scheme",
    "per_channel": "numerics.tensor.scheme",
    "per_group": "numerics.tensor.scheme",
    "per_tensor": "numerics.tensor.scheme",
    "per_token": "numerics.tensor.scheme",
    "plan": "numerics.model.planning",
    "quantize": "numerics.quantization",
    "quantize_": "numerics.model.freezing",
    "random_bits": "numerics.backends.host.random_bits",
    "report": "numerics.model.report",
    "save": "numerics.files.save_load",
    "scales": "numerics.draw.scales",
    "sweep": "numerics.model.report",
    "transcode": "numerics.transcoding",
    "unwrap": "numerics.model.freezing",
    "wrap": "numerics.model.wrapping",
}
"""Where each public name lies that is not imported before it is asked for."""

_MODULES = {
    "adapters": "numerics.adapters",
    "checkpoints": "numerics.checkpoints",
    "conform": "numerics.conform",
    "draw": "numerics.draw",
    "interop": "numerics.interop",
    "layouts": "numerics.interop.layouts",
    "model": "numerics.model",
    "observe": "numerics.observe",
    "train": "numerics.train",
    "vocabulary": "numerics.vocabulary",
}
_BACKENDS = {"ipu": "numerics.model.ipu"}  # those that offer more than a place to run, and where
_NOT_BY_A_STAR = ("adapters", "checkpoints", "model", "train")  # names of the user's, or they need torch

__all__ = [*_formats, *_LAZY, *_BACKENDS, *(name for name in _MODULES if name not in _NOT_BY_A_STAR)]
__all__ += ["__version__", "use"]
_autoload.arrange()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """A public name, imported when it is first asked for and found without asking from then on."""
        if name in _BACKENDS:
            _dispatch.module(name)  # raises, with what to install, where it is not there
            found = _forking.imported(_BACKENDS[name])
        elif name in _MODULES:
            found = _module(_MODULES[name])
        elif name in _LAZY:
            found = getattr(_forking.imported(_LAZY[name]), name)
        else:
            raise _unknown(name)
        globals()[name] = found
        return found


def _unknown(name: str) -> AttributeError:
    """The error of a name that is not there: Python says itself what is like it, but of formats."""
    from numerics.formats.registry import attribute_help

    told, help = f"module 'numerics' has no attribute {name!r}", attribute_help(name)
    return AttributeError(told + help, name=name, obj=None) if help else AttributeError(told)


def __dir__() -> list[str]:
    """All public names, those too that are imported when they are first asked for."""
    not_ours = {"Any", "TYPE_CHECKING", "annotations", "os"}  # what this file itself imports
    return sorted({*globals(), *__all__, *_NOT_BY_A_STAR} - not_ours)


def _module(name: str) -> Any:
    try:
        return _forking.imported(name)
    except ImportError as missing:
        raise NumericsError(
            f"{name} needs {missing.name or missing}, which is not installed: "
            "pip install 'numerics-formats[torch]'"
        ) from missing
