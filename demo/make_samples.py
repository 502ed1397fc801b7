"""Speak the sample memos: `memo.flac`, `shopping.flac`, `long.flac`, each with its transcript.

    python demo/make_samples.py

The sentences are held out from training (remarks without slots apart). The first two also go into
the package, for whoever has only the wheel.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from memos import Memo, generate, sample
from speech import RATE, SpeechError, Voice, silence, speaker

if TYPE_CHECKING:
    from speech import Floats

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "demo" / "samples"
PACKAGED = ROOT / "plugins" / "demo_models" / "samples"


@dataclass(frozen=True)
class Recipe:
    """One sample: the kinds of its sentences in order, the voice, and how loud it is."""

    name: str
    kinds: tuple[str, ...]
    voice: Voice
    seed: int
    loudness: float


RECIPES = (
    Recipe(
        "memo",
        ("remark", "reminder", "appointment", "shopping"),
        Voice("en-us+f3", 155, 55),
        20,
        0.8,
    ),
    Recipe("shopping", ("shopping", "shopping"), Voice("en+m3", 150, 45), 4, 0.8),
    Recipe(
        "long",
        ("remark", "reminder", "appointment", "message", "shopping") * 4,
        Voice("en-us", 160, 50),
        7,
        0.15,
    ),
)


def _sentence(rng: random.Random, kind: str) -> Memo:
    """Pick one sentence; times with minutes are left out, since a transcript writes no colon."""
    while True:
        if kind == "remark":
            memo = generate(rng, "note")
            if memo.what is None:
                return memo
        else:
            memo = sample(rng, "sentence", kind)
            if ":" not in memo.text and (memo.when or kind != "reminder"):
                return memo


def compose(recipe: Recipe) -> list[Memo]:
    """Choose a sample's sentences, none twice."""
    rng = random.Random(recipe.seed)
    memos: list[Memo] = []
    for kind in recipe.kinds:
        memo = _sentence(rng, kind)
        while (memo.action or memo.text) in {other.action or other.text for other in memos}:
            memo = _sentence(rng, kind)
        memos.append(memo)
    return memos


def speak(recipe: Recipe, memos: list[Memo]) -> Floats:
    """Speak the sentences with pauses between them."""
    rng = random.Random(recipe.seed)
    pieces = [silence(0.3)]
    for memo in memos:
        pieces += [speaker().say(memo.text, recipe.voice).audio, silence(rng.uniform(0.4, 0.9))]
    audio = np.concatenate(pieces)
    return (audio * (recipe.loudness / np.abs(audio).max())).astype(np.float32)


def write_flac(audio: Floats, path: Path) -> None:
    """Write mono 16 kHz FLAC."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono", format="s16")
        stream.codec_context.options = {"compression_level": "12"}
        # 11 bits are plenty for synthetic speech, and FLAC does not store the empty ones.
        samples = (np.round(audio * 1023) * 32).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def main() -> None:
    """Write all samples."""
    for folder in (FOLDER, PACKAGED):
        folder.mkdir(parents=True, exist_ok=True)
    for recipe in RECIPES:
        memos = compose(recipe)
        try:
            audio = speak(recipe, memos)
        except SpeechError as error:
            raise SystemExit(str(error)) from error
        path = FOLDER / f"{recipe.name}.flac"
        write_flac(audio, path)
        path.with_suffix(".txt").write_text(" ".join(memo.text for memo in memos) + "\n")
        print(f"{path.name}: {len(audio) / RATE:.1f} s, {path.stat().st_size / 1000:.0f} kB")
        print("  " + path.with_suffix(".txt").read_text().strip())
    for name in ("memo.flac", "memo.txt"):
        shutil.copyfile(FOLDER / name, PACKAGED / name)


if __name__ == "__main__":
    main()
