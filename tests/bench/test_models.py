"""The networks say what their packages say."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from bench import models
from numerics.formats.errors import NumericsError
from tests.helpers.pretrained import check_installed

SPELLED = "AE2 K T IH0 V EY1 SH AH0 N IH0 S T </s>"


def test_a_word_is_spelled_as_its_package_says():
    """These are the phonemes that g2p_en 2.1.0 itself, in NumPy, finds for its README's newly coined word."""
    check_installed("g2p_en")
    found = models.Speller()(*models.spelled(["activationist"])).argmax(-1)[0].tolist()
    assert " ".join(models.PHONEMES[k] for k in found).startswith(SPELLED)


def test_the_pitch_of_a_pure_tone_is_found():
    check_installed("crepe-tiny")
    tone = np.sin(2 * np.pi * 440 * np.arange(1024) / 16000)
    frame = torch.from_numpy((tone - tone.mean()) / tone.std()).float()
    with torch.no_grad():
        cents = models.cents(models.PitchTracker()(frame[None]))
    assert abs(cents.item() - 1200 * np.log2(440 / 10)) < 20  # a bin


def test_a_package_that_is_missing_is_named_with_the_way_out():
    with pytest.raises(
        NumericsError, match=r"no_such_model is not installed.*pip install --no-deps no-such-model"
    ):
        models.folder("no_such_model")
