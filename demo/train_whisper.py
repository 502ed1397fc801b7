"""Train mlxd-demo-whisper, a tiny Whisper for spoken memos, from synthetic speech.

    python demo/train_whisper.py --preset gpu         an accelerator, about 15 minutes
    python demo/train_whisper.py                      a CPU, under an hour: too short for the target, by estimate

Besides the usual next-token loss there are two that only training knows: the encoder names the
phoneme of every frame, and two heads of the last decoder layer look at the word being written.
espeak-ng reports both, they make the learning fast, and the second gives good word timestamps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from eval_whisper import plain
from mlx import nn, optimizers
from mlx.utils import tree_flatten, tree_unflatten
from mlx_whisper.load_models import load_model
from mlx_whisper.whisper import ModelDimensions, Whisper
from speech import FRAMES, SpeechError, chunks
from windows import FULL_VOCABULARY, TEXT_CTX, Composer, Vocabulary, make_bank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from windows import Bank

    Batch = dict[str, mx.array]

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "plugins" / "demo_models" / "whisper"
QUANTIZATION = {"group_size": 64, "bits": 8}
CONSTANT = 8.0
"""Value of channel 0 after the last layer norm: it lets unused vocabulary rows be pushed down."""
UNUSED = -20.0
CACHE = 16 << 30
WATCHED_HEADS = ((1, 0), (1, 1))


@dataclass(frozen=True)
class Preset:
    """How much to train. `long` is the final share of full 30 s windows, `short` the frames of the others."""

    clips: int
    minutes: float | None
    steps: int | None
    short_batch: int
    long_batch: int
    long: float
    rate: float
    short: int
    width: int = 128
    encoder_layers: int = 4
    decoder_layers: int = 2
    heads: int = 4


PRESETS = {
    "cpu": Preset(6_000, 45, None, 16, 2, 0.2, 2e-3, 560, encoder_layers=3),
    "gpu": Preset(40_000, None, 6_000, 128, 48, 0.8, 2e-3, 800),
}


class Trainee(nn.Module):
    """The Whisper being trained, over the reduced vocabulary, with its phoneme head."""

    def __init__(self, preset: Preset, tokens: int, phones: int) -> None:
        """Make a fresh model."""
        super().__init__()
        self.whisper = Whisper(dimensions(preset, tokens), mx.float32)
        self.phones = nn.Linear(preset.width, phones)
        encoder, decoder = self.whisper.encoder, self.whisper.decoder
        # Kept out of the parameters proper: it only says which heads give word timestamps.
        self.whisper.freeze(keys=["alignment_heads"], recurse=False)
        encoder.conv1.weight *= 2
        encoder.conv2.weight *= 2
        decoder.positional_embedding = mx.random.normal((TEXT_CTX, preset.width)) * 0.02

    def encode(self, mel: mx.array) -> mx.array:
        """Encode a window of any length; at 30 s this is exactly what Whisper does."""
        encoder = self.whisper.encoder
        hidden = nn.gelu(encoder.conv2(nn.gelu(encoder.conv1(mel))))
        hidden = hidden + encoder._positional_embedding[: hidden.shape[1]]  # noqa: SLF001
        for block in encoder.blocks:
            hidden, _, _ = block(hidden)
        return encoder.ln_post(hidden)

    def pin(self, unknown: int) -> None:
        """Hold the constant channel and the row of unused tokens where the export puts them."""
        decoder = self.whisper.decoder
        decoder.ln.weight[0] = 0.0
        decoder.ln.bias[0] = CONSTANT
        decoder.token_embedding.weight[unknown] = 0.0
        decoder.token_embedding.weight[unknown, 0] = UNUSED


def dimensions(preset: Preset, tokens: int) -> ModelDimensions:
    """Give the model's dimensions in Whisper's own terms."""
    return ModelDimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=preset.width,
        n_audio_head=preset.heads,
        n_audio_layer=preset.encoder_layers,
        n_vocab=tokens,
        n_text_ctx=TEXT_CTX,
        n_text_state=preset.width,
        n_text_head=preset.heads,
        n_text_layer=preset.decoder_layers,
    )


class Mixer:
    """Turns a batch of row numbers into the log-mel windows a file would give."""

    def __init__(self, bank: Bank) -> None:
        """Put the table of frames where the computing is done."""
        self.mel = mx.array(bank.mel)
        self.phones = mx.array(bank.phones)
        self.slope = mx.linspace(-1, 1, 80)

    def __call__(self, batch: Batch) -> tuple[mx.array, mx.array]:
        """Give the windows, and the phoneme at each encoder position."""
        rows, frames = batch["rows"], batch["rows"].shape[1]
        times = mx.arange(frames)
        tilt = batch["tilt"][:, None, None] * self.slope
        speech = self.mel[rows].astype(mx.float32) + batch["gain"][..., None] + tilt
        speech = mx.where(rows[..., None] == 0, -20.0, speech)
        where = batch["noise"][:, None] + (times + batch["shift"][:, None]) % FRAMES
        noise = self.mel[where].astype(mx.float32) + batch["noisy"][:, None, None]
        # Two sounds add up with a random phase, so their product counts too.
        phase = mx.random.uniform(-0.7, 0.7, speech.shape)
        power = 10**speech + 10**noise + 2 * phase * 10 ** ((speech + noise) / 2)
        log = mx.log10(mx.maximum(power, 1e-10))
        top = log.max(axis=(1, 2), keepdims=True) + batch["louder"][:, None, None]
        log = (mx.maximum(log, top - 8) + 4) / 4
        padding = times[None, :, None] >= batch["pad_from"][:, None, None]
        return mx.where(padding, 0.0, log), self.phones[rows[:, ::2]].astype(mx.int32)


def attention_loss(scores: list[mx.array], batch: Batch) -> mx.array:
    """Ask the watched heads to look at the whole of the word being written, and only there."""
    spans = batch["spans"]
    positions = mx.arange(scores[-1].shape[-1])
    inside = (positions >= spans[..., :1]) & (positions <= spans[..., 1:])
    asked = spans[..., 1] >= 0
    total = mx.array(0.0)
    wide = mx.maximum(inside.sum(-1), 1)
    for layer, head in WATCHED_HEADS:
        log = nn.log_softmax(scores[layer][:, head], axis=-1)
        total += (-(log * inside).sum(-1) / wide * asked).sum() / mx.maximum(asked.sum(), 1)
    return total / len(WATCHED_HEADS)


def losses(model: Trainee, mel: mx.array, phones: mx.array, batch: Batch) -> tuple[mx.array, mx.array, mx.array]:
    """Give the sum to minimise, the token loss alone, and the phoneme loss alone."""
    hidden = model.encode(mel)
    logits, _, scores = model.whisper.decoder(batch["inputs"], hidden)
    weights = batch["weights"]
    token = (nn.losses.cross_entropy(logits, batch["targets"]) * weights).sum() / weights.sum()
    heard = mx.where(phones == 0, 0.2, 1.0)
    phone = nn.losses.cross_entropy(model.phones(hidden), phones)
    phone = (phone * heard).sum() / heard.sum()
    return token + 0.5 * phone + 0.05 * attention_loss(scores, batch), token, phone


def prefetch(make: Callable[[int], dict[str, Any]], depth: int = 8) -> Iterator[Batch]:
    """Make batches in a thread while the model trains."""
    ready: queue.Queue[dict[str, Any]] = queue.Queue(depth)

    def work() -> None:
        number = 0
        while True:
            ready.put(make(number))
            number += 1

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield {key: mx.array(value) for key, value in ready.get().items()}


def quantize(name: str, weights: dict[str, mx.array]) -> None:
    """Replace one matrix by its 8-bit form."""
    packed, scales, biases = mx.quantize(weights.pop(f"{name}.weight"), **QUANTIZATION)
    weights[f"{name}.weight"] = packed
    weights[f"{name}.scales"] = scales
    weights[f"{name}.biases"] = biases


def parameters(whisper: Whisper) -> dict[str, mx.array]:
    """Give the parameters that are stored."""
    return {
        name: value
        for name, value in tree_flatten(whisper.parameters())
        if not name.startswith("encoder._") and "_mask" not in name and name != "alignment_heads"
    }


def write(weights: dict[str, mx.array], shape: ModelDimensions, folder: Path) -> None:
    """Write a model folder: the vocabulary in 8 bits, which is most of it, and everything else in fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: value.astype(mx.float16) for name, value in weights.items()}
    quantize("decoder.token_embedding", stored)
    stored["alignment_heads"] = mx.array(WATCHED_HEADS, mx.int32)
    mx.save_safetensors(str(folder / "weights.safetensors"), stored, {"format": "mlx"})
    config = {"model_type": "whisper", **vars(shape), "quantization": QUANTIZATION}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def export(model: Trainee, preset: Preset, vocabulary: Vocabulary, folder: Path) -> None:
    """Write the model over Whisper's whole vocabulary."""
    weights = parameters(model.whisper)
    table = np.zeros((FULL_VOCABULARY, preset.width), np.float32)
    table[:, 0] = UNUSED
    table[list(vocabulary.used)] = np.array(weights["decoder.token_embedding.weight"])[:-1]
    weights["decoder.token_embedding.weight"] = mx.array(table)
    write(weights, dimensions(preset, FULL_VOCABULARY), folder)


def average(folders: list[Path], folder: Path) -> None:
    """Write the mean of models that were trained from the same start."""
    models = [plain(load_model(str(each), mx.float32)) for each in folders]
    stored = [parameters(model) for model in models]
    mean = {name: sum(weights[name] for weights in stored) / len(stored) for name in stored[0]}
    write(mean, models[0].dims, folder)


def resume(model: Trainee, folder: Path, vocabulary: Vocabulary) -> None:
    """Go on from an exported model; tokens it did not have keep their fresh rows."""
    weights = parameters(plain(load_model(str(folder), mx.float32)))
    rows = weights["decoder.token_embedding.weight"][mx.array(vocabulary.used)]
    fresh = model.whisper.decoder.token_embedding.weight
    known = rows[:, :1] > UNUSED / 2
    rows = mx.concatenate([mx.where(known, rows, fresh[:-1]), fresh[-1:]])
    weights["decoder.token_embedding.weight"] = rows
    model.whisper.update(tree_unflatten(list(weights.items())))


class Clock:
    """Says how far training has come: by steps if a number is given, else by the clock."""

    def __init__(self, preset: Preset) -> None:
        """Start now."""
        self.preset = preset
        self.start = time.monotonic()
        self.step = 0

    @property
    def minutes(self) -> float:
        """Minutes since training began."""
        return (time.monotonic() - self.start) / 60

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        by_steps = self.step / self.preset.steps if self.preset.steps else 0.0
        by_time = self.minutes / self.preset.minutes if self.preset.minutes else 0.0
        return max(by_steps, by_time)

    def rate(self) -> float:
        """Warm up over 200 steps, then fall to nothing along a cosine."""
        falling = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))
        return self.preset.rate * min(1.0, (self.step + 1) / 200) * max(falling, 0.01)


def train(preset: Preset, bank: Bank, vocabulary: Vocabulary, arguments: argparse.Namespace) -> None:
    """Train a model; it is exported every few minutes, so that a run may be cut short."""
    mx.random.seed(0)
    mx.set_cache_limit(CACHE)
    model = Trainee(preset, vocabulary.size, len(bank.names))
    if arguments.start:
        resume(model, arguments.start, vocabulary)
    model.pin(vocabulary.unknown)
    mx.eval(model.parameters())
    composer, mixer, clock = Composer(bank, vocabulary, 1), Mixer(bank), Clock(preset)

    def make(_: int) -> dict[str, Any]:
        # The share of whole windows grows: short ones teach the words sooner.
        grown = 1.0 if arguments.start else min(1.0, max(0.0, (clock.progress - 0.05) / 0.3))
        share = preset.long * grown
        if composer.rng.random() < share:
            return composer.batch(preset.long_batch, FRAMES)
        return composer.batch(preset.short_batch, preset.short)

    optimizer = optimizers.AdamW(preset.rate, betas=[0.9, 0.98], weight_decay=0.01)
    step = nn.value_and_grad(model, losses)
    saved, seen = 0.0, []
    for batch in prefetch(make):
        optimizer.learning_rate = clock.rate()
        mel, phones = mixer(batch)
        values, gradients = step(model, mel, phones, batch)
        gradients, _ = optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        model.pin(vocabulary.unknown)
        mx.eval(model.parameters(), optimizer.state, values)
        clock.step += 1
        seen.append([value.item() for value in values])
        if clock.step % 100 == 0 or clock.step <= 3:
            token, phone = np.mean(seen, axis=0)[1:]
            print(
                f"step {clock.step} token {token:.4f} phone {phone:.4f} "
                f"minutes {clock.minutes:.2f} done {clock.progress:.3f}",
                flush=True,
            )
            seen = []
        if clock.progress >= 1 or clock.minutes - saved >= arguments.save_every:
            export(model, preset, vocabulary, arguments.output)
            saved = clock.minutes
        if clock.progress >= 1:
            break


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--clips", type=int, help="sentences to synthesise")
    parser.add_argument("--minutes", type=float, help="train for so long")
    parser.add_argument("--steps", type=int, help="train for so many steps (reproducible)")
    parser.add_argument("--short-batch", type=int)
    parser.add_argument("--long-batch", type=int)
    parser.add_argument("--long", type=float)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--encoder-layers", type=int)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--start", type=Path, help="go on from this model folder")
    parser.add_argument("--average", type=Path, nargs="+", help="train nothing: write the mean of these models")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    return parser.parse_args()


def _preset(arguments: argparse.Namespace) -> Preset:
    chosen = PRESETS[arguments.preset]
    if arguments.steps is not None or arguments.minutes is not None:
        chosen = replace(chosen, steps=arguments.steps, minutes=arguments.minutes)
    names = ("clips", "short_batch", "long_batch", "long", "rate", "encoder_layers")
    given = {name: getattr(arguments, name) for name in names}
    return replace(chosen, **{name: value for name, value in given.items() if value is not None})


def main() -> None:
    """Synthesise, train, export."""
    arguments = _arguments()
    preset = _preset(arguments)
    if arguments.average:
        average(arguments.average, arguments.output)
        return
    started = time.monotonic()
    # The workers share the cores already: threads inside each would only get in the way.
    os.environ.update({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    vocabulary = Vocabulary()
    try:
        bank = make_bank(chunks(preset.clips, arguments.workers, seed=7), vocabulary)
    except SpeechError as error:
        raise SystemExit(str(error)) from error
    print(
        f"{len(bank.clips)} clips, {len(bank.mel) / 360_000:.1f} h, {len(bank.names)} phonemes, "
        f"{vocabulary.size} tokens, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    train(preset, bank, vocabulary, arguments)
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
