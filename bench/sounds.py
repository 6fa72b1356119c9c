"""Sounds at 16 kHz, the same on every run: tones of a known pitch, noises, and speech by eSpeak NG."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import tempfile
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.models import folder

Samples = NDArray[np.float32]
RATE = 16000  # samples a second
# The same bytes on every run, which not all are: some read memory that nothing was written to.
VOICES = (
    "en-us",
    "en-gb-x-rp",
    "en-us+f1",
    "en-gb-scotland",
    "en-us+m3",
    "en-us+f4",
    "en-us-nyc",
    "en-us+steph",
)
SYNCHRONOUS, UTF8 = 2, 1  # AUDIO_OUTPUT_SYNCHRONOUS and espeakCHARS_UTF8 of espeak-ng/speak_lib.h


def tones(count: int, samples: int, seed: int = 0) -> tuple[Samples, NDArray[np.float64]]:
    """Returns frames, (count, samples) of mean 0 and deviation 1, and their pitches in Hz, (count,).

    A tone is the sum of up to eight harmonics of random strength and phase, between 55 Hz and 1.2 kHz, in
    white noise of -5 to 20 dB below it.
    """
    draw = np.random.default_rng(seed)
    pitch = 55 * 2 ** draw.uniform(0, 4.5, count)
    time = np.arange(samples) / RATE
    sound = np.zeros((count, samples))
    for harmonic in range(1, 9):
        strength = draw.uniform(0.2, 1, (count, 1)) / harmonic * (harmonic * pitch[:, None] < 0.49 * RATE)
        phase = draw.uniform(0, 2 * np.pi, (count, 1))
        sound += strength * np.sin(2 * np.pi * harmonic * pitch[:, None] * time + phase)
    sound = mixed(sound, draw.normal(size=sound.shape), draw.uniform(-5, 20, count))
    sound -= sound.mean(1, keepdims=True)
    return (sound / sound.std(1, keepdims=True)).astype(np.float32), pitch


def mixed(sound: NDArray[Any], noise: NDArray[Any], decibels: NDArray[Any]) -> NDArray[Any]:
    """Returns sound + noise, (count, samples) each, the noise as many decibels below the sound: (count,)."""
    ratio = np.sqrt((sound**2).mean(1) / (noise**2).mean(1)) * 10 ** (-decibels / 20)
    mixture: NDArray[Any] = sound + ratio[:, None] * noise
    return mixture


def noises(count: int, samples: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Returns noises of mean square 1, (count, samples), of four kinds in turn.

    White, pink (1/f), the hum of a motor with its harmonics, and white noise in bursts.
    """
    white = draw.normal(size=(count, samples))
    spectrum = np.fft.rfft(white)
    spectrum[:, 1:] /= np.sqrt(np.arange(1, spectrum.shape[1]))
    time, base = np.arange(samples) / RATE, draw.uniform(45, 130, (count, 1))
    hum = 0.1 * white + sum(np.sin(2 * np.pi * k * base * time) / k for k in range(1, 12))
    bursts = white * (0.05 + np.clip(np.sin(2 * np.pi * draw.uniform(2, 9, (count, 1)) * time), 0, 1))
    kinds = np.stack([white, np.fft.irfft(spectrum, samples), hum, bursts])
    found = kinds[np.arange(count) % len(kinds), np.arange(count)]
    normal: NDArray[np.float64] = found / np.sqrt((found**2).mean(1, keepdims=True))
    return normal


# ---- speech ----


class Speaker:
    """eSpeak NG as it ships in the package espeakng_loader: `say` gives samples within ±1 at 16 kHz.

    Its library is called by ctypes: the package gives a path and no calls.  Each speaker loads a copy of its
    own, since the library never forgets what it said: the same text sounds otherwise afterwards.
    """

    def __init__(self) -> None:
        folder("espeakng_loader")
        loader: Any = importlib.import_module("espeakng_loader")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
            self.library = ctypes.CDLL(shutil.copy(loader.get_library_path(), own))
        data = str(loader.get_data_path()).encode()
        self.rate = self.library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
        if self.rate <= 0:
            raise OSError(f"eSpeak NG does not start with its data in {data.decode()}")
        self.heard: list[NDArray[np.int16]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._hear)  # kept: the library holds no reference
        self.library.espeak_SetSynthCallback(self.callback)

    def _hear(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str) -> Samples:
        """Returns a text as it is spoken by one of eSpeak NG's voices."""
        resample = importlib.import_module("scipy.signal").resample_poly
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise OSError(f"eSpeak NG has no voice {voice!r}")
        self.heard.clear()
        said = text.encode()
        self.library.espeak_Synth(said, len(said) + 1, 0, 0, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        sound: Samples = resample(np.concatenate(self.heard) / 32768, RATE, self.rate).astype(np.float32)
        return sound


def speech(texts: Iterator[str], count: int, samples: int) -> Samples:
    """Returns pieces of speech, (count, samples), each of which is loud at its end.

    texts: what is said, voice after voice; at most six pieces are taken of each.  Raises StopIteration where
    they are too few.
    """
    found: list[Samples] = []
    speaker, voices = Speaker(), cycle(VOICES)
    while len(found) < count:
        said = speaker.say(next(texts), next(voices))
        pieces = said[: len(said) // samples * samples].reshape(-1, samples)
        end = (pieces[:, -samples // 8 :] ** 2).mean(1)
        found += list(pieces[end > (said**2).mean() / 2][:6])
    return np.stack(found[:count])
