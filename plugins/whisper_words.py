"""Times of single words, by mlx_whisper's aligner on the sound that was encoded already."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from plugins.whisper_windows import Cut


class Aligner:
    """Aligns the text of one window at a time.

    It stands in for the model: mlx_whisper's aligner would encode the window's sound a second time.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.alignment_heads = model.alignment_heads
        self._features: Any = None

    def forward_with_cross_qk(self, _mel: Any, tokens: Any) -> tuple[Any, Any]:
        """Return logits and the attention on the sound, as mlx_whisper's model does."""
        told, _, attention = self._model.decoder(tokens, self._features[None])
        return told, attention

    def align(
        self,
        found: list[dict[str, Any]],
        tokenizer: Any,
        features: Any,
        *,
        size: int,
        seek: int,
        cut: Cut,
        last_speech: float,
    ) -> tuple[int, float]:
        """Give each segment of *found* its words.

        Return the frames to go on, which end with the last word, and when the last word was said (seconds).
        """
        timing = importlib.import_module("mlx_whisper.timing")  # two seconds of numba and scipy, only when asked for
        self._features = features
        timing.add_word_timestamps(
            segments=found,
            model=self,
            tokenizer=tokenizer,
            mel=features,
            num_frames=size,
            last_speech_timestamp=last_speech,
        )
        self._features = None
        ends = [float(word["end"]) for one in found for word in one["words"]]
        last = ends[-1] if ends else float(found[-1]["end"])
        to_last_word = round(last * 100) - seek
        return (to_last_word if not cut.closed and to_last_word > 0 else cut.advance), last


def public(segment: Mapping[str, Any], *, words: bool) -> dict[str, Any]:
    """Return what is told of a segment: plain floats, NumPy's are no JSON."""
    shown = {
        "start": round(float(segment["start"]), 3),
        "end": round(float(segment["end"]), 3),
        "text": segment["text"].strip(),
    }
    return {**shown, "words": _plain(segment["words"])} if words else shown


def _plain(words: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "word": str(one["word"]),
            "start": round(float(one["start"]), 3),
            "end": round(float(one["end"]), 3),
            "probability": round(float(one["probability"]), 4),
        }
        for one in words
    ]
