"""Hugging Face transformers: our quantization method in its registries (docs/adapters.md §7).

    from transformers import AutoModel
    from numerics.model.huggingface import NumericsConfig
    AutoModel.from_pretrained(folder, quantization_config=NumericsConfig("mx6"))

The method is registered as soon as this package and transformers are imported; the adapter counts its uses
and checks the version.  No function of transformers is replaced.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from numerics.adapters.base import Adapter, Calls, Entry, Seam

__all__ = ["calls", "install", "installed", "substituted", "uninstall"]

METHOD = "numerics"


def _registries() -> Any:
    return importlib.import_module("transformers.quantizers.auto")


def _seams(correct: bool, calls: Calls) -> Sequence[Seam]:
    method = importlib.import_module("numerics.model.huggingface")

    class Counted(method.NumericsHfQuantizer):  # type: ignore[name-defined]
        """Makes the method's own quantizers, each of them one call.

        A model keeps its quantizer, and is pickled with it by the name of its class.
        """

        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            calls.count(calls.ours, "quantizer")
            return method.NumericsHfQuantizer(*arguments, **named)

    return [
        Entry(lambda: _registries().AUTO_QUANTIZER_MAPPING, METHOD, lambda host: Counted, "its quantizers"),
        Entry(lambda: _registries().AUTO_QUANTIZATION_CONFIG_MAPPING, METHOD,
              lambda host: method.NumericsConfig, "its configurations"),
    ]  # fmt: skip


ADAPTER = Adapter("transformers", "transformers", ("5.23.0", "5.24.0"), _seams)
install, uninstall, substituted = ADAPTER.install, ADAPTER.uninstall, ADAPTER.substituted
installed, calls = ADAPTER.installed, ADAPTER.calls
