"""Which token a window says next: Whisper's rules for timestamps, for all rows at once and without leaving the device.

The rules are the original's (openai/whisper, ``decoding.py``): timestamps come in pairs except before the end, never
go back, and are taken when together they are likelier than any word. mlx_whisper 0.4.3 differs in two ways that only
show when something goes wrong: it compares places with timestamps, so that times may go back and a window may come to
nothing for ever, and it weighs timestamps against words before the forbidden ones are out, so that nothing may be left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

#: The first timestamp of a window is at most this, in steps of 0.02 s.
LATEST_START: Final = 50


class Said(NamedTuple):
    """What the rules remember of each row: arrays (rows,)."""

    #: Whether nothing was said yet.
    first: Any
    #: Whether the last token is a timestamp, and the one before it (true if there is none).
    stamped: Any
    before: Any
    #: The last timestamp, in steps; -1 before there is one.
    latest: Any


class Chosen(NamedTuple):
    """Arrays (rows,): the next token and the natural logarithm of its probability among those allowed."""

    token: Any
    logprob: Any


class Rules:
    """The rules for one tokenizer's numbering."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        import mlx.core as mx

        self.end = int(tokenizer.eot)
        self.stamps = int(tokenizer.timestamp_begin)
        never = sorted(set(_never(tokenizer)))
        mask = mx.zeros(self.stamps)
        mask[mx.array(never)] = -mx.inf
        self._words, self._special = mask[: self.end], mask[self.end :]
        self._steps = mx.arange(vocabulary - self.stamps)
        mx.eval(self._words, self._special, self._steps)

    def start(self, rows: int) -> Said:
        """Return the state of windows that have said nothing."""
        import mlx.core as mx

        yes = mx.ones(rows, dtype=mx.bool_)
        return Said(yes, mx.zeros(rows, dtype=mx.bool_), yes, mx.full(rows, -1, dtype=mx.int32))

    def choose(self, logits: Any, said: Said, hot: Iterable[tuple[int, float, Any]] = ()) -> Chosen:
        """Choose by *logits* (rows, vocabulary) the likeliest allowed token.

        Of each *hot* row (its place, a temperature, a random key) a token is drawn instead.
        """
        import mlx.core as mx

        words, special, stamps = self._allowed(logits, said)
        word, note, stamp = (part.max(axis=-1) for part in (words, special, stamps))
        all_stamps = mx.logsumexp(stamps, axis=-1)
        only_stamps = all_stamps > mx.maximum(word, note)
        all_text = mx.logaddexp(mx.logsumexp(words, axis=-1), mx.logsumexp(special, axis=-1))
        whole = mx.where(only_stamps, all_stamps, mx.logaddexp(all_text, all_stamps))
        text = mx.where(word >= note, mx.argmax(words, axis=-1), self.end + mx.argmax(special, axis=-1))
        best = mx.maximum(word, note)
        by_stamp = only_stamps | (stamp > best)
        token = mx.where(by_stamp, self.stamps + mx.argmax(stamps, axis=-1), text).astype(mx.int32)
        chosen = Chosen(token, mx.where(by_stamp, stamp, best) - whole)
        for place, temperature, key in hot:
            text_row = mx.concatenate([words[place], special[place]])
            row = mx.concatenate([mx.where(only_stamps[place], -mx.inf, text_row), stamps[place]])
            drawn = mx.random.categorical(row / temperature, key=key).astype(mx.int32)
            chosen.token[place] = drawn
            chosen.logprob[place] = row[drawn] - whole[place]
        return chosen

    def after(self, said: Said, token: Any) -> Said:
        """Return the state once *token* (rows,) was said."""
        import mlx.core as mx

        stamped = token >= self.stamps
        latest = mx.where(stamped, token - self.stamps, said.latest)
        return Said(mx.zeros_like(said.first), stamped, said.stamped | said.first, latest)

    def _allowed(self, logits: Any, said: Said) -> tuple[Any, Any, Any]:
        """Return the logits of words, special tokens and timestamps, with minus infinity for what may not come."""
        import mlx.core as mx

        ended = said.stamped & ~said.before  # words have ended: the same time may follow as the next words' beginning
        words_out = (said.first | ended)[:, None]
        words = mx.where(words_out, -mx.inf, logits[:, : self.end] + self._words)
        special = mx.where(said.first[:, None], -mx.inf, logits[:, self.end : self.stamps] + self._special)
        early = self._steps[None] < mx.where(ended, said.latest, said.latest + 1)[:, None]
        late = said.first[:, None] & (self._steps[None] > LATEST_START)
        stamps_out = early | late | (said.stamped & said.before)[:, None]
        return words, special, mx.where(stamps_out, -mx.inf, logits[:, self.stamps :])


def _never(tokenizer: Any) -> Iterable[int]:
    """Yield the tokens that are never said: sounds that are no speech, and those that steer the model."""
    yield from tokenizer.non_speech_tokens
    for token in (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
        tokenizer.no_timestamps,
    ):
        if token is not None:
            yield int(token)
