"""Measure mlxd-demo-whisper: word error rate on held-out memos, long files, silence, timestamps.

    python demo/eval_whisper.py               all of it
    python demo/eval_whisper.py --limit 100   fewer sentences

A word counts as right only as printed: capitals, digits and punctuation included.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from memos import paragraph, sample
from mlx import nn
from mlx.utils import tree_map
from mlx_whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
from mlx_whisper.decoding import DecodingOptions, decode
from mlx_whisper.load_models import load_model
from speech import RATE, VOICES, SpeechError, dirty, random_voice, silence, speaker

if TYPE_CHECKING:
    from mlx_whisper.whisper import Whisper
    from speech import Floats, Utterance

MODEL = Path(__file__).resolve().parent.parent / "plugins" / "demo_models" / "whisper"
TARGET = 0.05
SENTENCES = 500
LONG_FILES = 8
EARLY = 0.35
"""How far, in seconds, a timestamp may be off before it counts as wrong."""


@dataclass
class Errors:
    """Word errors, summed."""

    wrong: int = 0
    words: int = 0

    def add(self, expected: str, heard: str) -> int:
        """Count one transcript; returns its errors."""
        wrong = distance(expected.split(), heard.split())
        self.wrong += wrong
        self.words += len(expected.split())
        return wrong

    @property
    def rate(self) -> float:
        """Word error rate."""
        return self.wrong / max(1, self.words)


def distance(expected: list[str], heard: list[str]) -> int:
    """Count the insertions, deletions and substitutions between two lists of words."""
    row = list(range(len(heard) + 1))
    for index, word in enumerate(expected, 1):
        left, row[0] = row[0], index
        for column, other in enumerate(heard, 1):
            left, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, left + (word != other)),
            )
    return row[-1]


def plain(model: Whisper) -> Whisper:
    """Undo the 8-bit form and compute in float32, which is what a CPU is fast at."""
    for name, module in model.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            weight = mx.dequantize(module.weight, module.scales, module.biases, module.group_size, module.bits)
            _replace(model, name, module, weight)
    model.update(tree_map(_single, model.parameters()))
    mx.eval(model.parameters())
    return model


def _single(value: mx.array) -> mx.array:
    return value.astype(mx.float32) if mx.issubdtype(value.dtype, mx.floating) else value


def _replace(model: nn.Module, name: str, old: nn.Module, weight: mx.array) -> None:
    new: nn.Module
    if isinstance(old, nn.QuantizedEmbedding):
        new = nn.Embedding(*weight.shape)
    else:
        new = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in old)
        if "bias" in old:
            new.bias = old.bias
    new.weight = weight
    *path, last = name.split(".")
    parent: Any = model
    for part in path:
        parent = parent[int(part)] if isinstance(parent, list) else parent[part]
    parent[last] = new


def use(folder: Path) -> Whisper:
    """Load a model, and hand it to mlx_whisper.transcribe as the one for this folder."""
    # The package's own name "transcribe" is the function, so the module comes from sys.modules.
    import mlx_whisper.transcribe  # noqa: F401

    model = plain(load_model(str(folder), mx.float32))
    holder = sys.modules["mlx_whisper.transcribe"].ModelHolder
    holder.model, holder.model_path = model, str(folder)
    return model


def transcribe(audio: Floats, folder: Path, **options: Any) -> dict[str, Any]:
    """Transcribe with mlx_whisper as a user would, greedily."""
    import mlx_whisper

    result: dict[str, Any] = mlx_whisper.transcribe(
        audio, path_or_hf_repo=str(folder), fp16=False, language="en", **options
    )
    return result


def speak(part: str, number: int) -> Utterance:
    """Speak held-out sentence `number` of a part; voices take turns."""
    rng = random.Random(f"{part} {number}")
    return speaker().say(sample(rng, part).text, random_voice(rng, VOICES[number % len(VOICES)]))


def soil(clip: Floats, number: int) -> Floats:
    """Put a clip in a room: silence around it, noise in 3 of 4, quiet or loud."""
    rng = random.Random(number)
    before, after = rng.choice((0.0, 0.3, rng.uniform(0, 2))), rng.uniform(0, 1)
    audio = np.concatenate([silence(before), clip, silence(after)])
    snr = None if number % 4 == 0 else rng.uniform(15, 30)
    return dirty(audio, rng, snr=snr, gain_db=rng.uniform(-20, 6))


def read_many(model: Whisper, clips: list[Floats], batch: int = 8) -> list[str]:
    """Decode single-window clips, several at a time."""
    texts = []
    for first in range(0, len(clips), batch):
        mels = [pad_or_trim(log_mel_spectrogram(clip), N_FRAMES, axis=-2) for clip in clips[first : first + batch]]
        options = DecodingOptions(language="en", fp16=False)
        texts += [result.text for result in decode(model, mx.stack(mels), options)]
    return texts


def sentences(model: Whisper, part: str, limit: int, misses: int) -> Errors:
    """Measure single sentences of one part of the split, and print the voices apart."""
    spoken = [speak(part, number) for number in range(limit)]
    heard = read_many(model, [soil(clip.audio, k) for k, clip in enumerate(spoken)])
    total, exact = Errors(), 0
    groups: dict[str, Errors] = defaultdict(Errors)
    for clip, text in zip(spoken, heard, strict=True):
        wrong = total.add(clip.text, text)
        exact += not wrong
        accent, _, variant = clip.voice.partition("+")
        groups[accent].add(clip.text, text)
        groups[f"+{variant or 'plain'}"].add(clip.text, text)
        if wrong and misses > 0:
            misses -= 1
            print(f"    {clip.voice}: {clip.text!r} heard as {text!r}")
    print(f"  held-out {part}s: WER {total.rate:.2%}, {exact} of {limit} exact")
    print("    " + ", ".join(f"{name} {errors.rate:.1%}" for name, errors in groups.items()))
    return total


def long_file(number: int) -> tuple[Floats, list[str], list[tuple[float, float]]]:
    """Make a file of 60 to 120 s in one voice, from held-out sentences."""
    rng = random.Random(f"long {number}")
    voice = random_voice(rng, VOICES[(number * 13) % len(VOICES)])
    pieces, texts, spans, seconds = [silence(rng.uniform(0, 1))], [], [], rng.uniform(60, 110)
    for memo in paragraph(rng, 60, "sentence"):
        start = sum(map(len, pieces)) / RATE
        if start > seconds:
            break
        clip = speaker().say(memo.text, voice)
        pieces += [clip.audio, silence(rng.choice((rng.uniform(0.2, 0.9), rng.uniform(0.2, 2))))]
        texts.append(clip.text)
        spans.append((start, start + clip.seconds))
    audio = dirty(np.concatenate(pieces), rng, snr=rng.choice((None, 20, 30)), gain_db=-6)
    return audio, texts, spans


def stamps_off(result: dict[str, Any], spans: list[tuple[float, float]]) -> int:
    """Count the segments that begin or end away from where the sentence was spoken."""
    off = 0
    for segment in result["segments"]:
        nearest = min(spans, key=lambda span: abs(span[0] - segment["start"]))
        off += abs(nearest[0] - segment["start"]) > EARLY or abs(nearest[1] - segment["end"]) > EARLY
    return off


def long_files(folder: Path, files: int) -> Errors:
    """Measure files of several windows, with and without the text before as a prompt."""
    total = Errors()
    for number in range(files):
        audio, texts, spans = long_file(number)
        for previous in (True, False):
            result = transcribe(audio, folder, condition_on_previous_text=previous)
            wrong = total.add(" ".join(texts), result["text"].strip())
            print(
                f"  {len(audio) / RATE:.0f} s, previous text {'on ' if previous else 'off'}: "
                f"{wrong} word errors, {len(result['segments'])} segments for {len(texts)} sentences, "
                f"{stamps_off(result, spans)} timestamps off"
            )
            if number == 0:
                again = transcribe(audio, folder, condition_on_previous_text=previous)
                print(f"    {'the same' if again['text'] == result['text'] else 'NOT THE SAME'} when done again")
    print(f"  long files: WER {total.rate:.2%}")
    return total


def quiet(folder: Path) -> int:
    """Count the texts heard in silence and noise, where there is none."""
    rng = random.Random(5)
    wrong = 0
    for seconds in (0.5, 3, 12, 45):
        for level in (None, 20.0, 40.0):
            audio = dirty(silence(seconds), rng, snr=level, gain_db=0)
            text = transcribe(audio, folder)["text"].strip()
            wrong += bool(text)
            if text:
                print(f"    {seconds} s of nothing (noise {level}) heard as {text!r}")
    print(f"  silence and noise: {wrong} of 12 not empty")
    return wrong


def words(folder: Path, limit: int) -> float:
    """Measure how far word timestamps are off: the median, in seconds."""
    offs = []
    for number in range(limit):
        clip = speak("sentence", number)
        result = transcribe(clip.audio, folder, word_timestamps=True)
        found = [word for segment in result["segments"] for word in segment["words"]]
        if len(found) == len(clip.words):
            offs += [abs(word["start"] - span[0]) for word, span in zip(found, clip.words, strict=True)]
    if not offs:
        print("  word timestamps: none could be compared")
        return float("inf")
    print(
        f"  word timestamps: {len(offs)} words, off by {np.median(offs):.2f} s at the median, "
        f"{np.percentile(offs, 90):.2f} s at the 90th percentile"
    )
    return float(np.median(offs))


def main() -> None:
    """Print the figures; exit status 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--limit", type=int, default=SENTENCES, help="sentences of each part")
    parser.add_argument("--misses", type=int, default=0, help="print so many wrong sentences")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        speaker()
    except SpeechError as error:
        raise SystemExit(str(error)) from error
    model = use(arguments.model)
    size = sum(file.stat().st_size for file in arguments.model.iterdir())
    print(f"{arguments.model}: {size / 1e6:.1f} MB")
    figures = {
        part: sentences(model, part, arguments.limit, arguments.misses).rate for part in ("sentence", "combination")
    }
    files = min(LONG_FILES, max(1, arguments.limit // 50))
    figures["long"] = long_files(arguments.model, files).rate
    figures["silence"] = quiet(arguments.model)
    figures["words"] = words(arguments.model, min(40, arguments.limit))
    figures["seconds"] = time.monotonic() - started
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    missed = max(figures["sentence"], figures["combination"], figures["long"]) > TARGET
    print(f"{'MISSED' if missed else 'met'}: word error rate at most {TARGET:.0%}")
    print(f"{figures['seconds']:.0f} s")
    raise SystemExit(1 if missed or figures["silence"] else 0)


if __name__ == "__main__":
    main()
