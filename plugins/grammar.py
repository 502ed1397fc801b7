"""Holds an answer to a JSON schema: at each step only tokens that keep it valid may be drawn (llguidance)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

# Enough for compact and for indented JSON, too little for a small model to fill its answer with.
_WHITESPACE: Final = r" |\n {0,12}"

Processor = Callable[[Any, Any], Any]


class Grammars:
    """Makes constraints for one model's tokenizer; its table of tokens is built at the first use (about a second)."""

    def __init__(self, tokenizer: Any, *, vocabulary: int, stops: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._stops = sorted(stops)
        self._table: Any = None

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """Return a fresh matcher for *schema*.

        Raises:
            ValueError: *schema* is no schema, or uses what llguidance cannot enforce, or the tokenizer is too old.

        """
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_pattern": _WHITESPACE})
        matcher = LLMatcher(self._tokens(), grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(f"json_schema cannot be used: {matcher.get_error()}")
        return matcher

    def processor(self, matcher: Any, *, seen: int) -> Processor:
        """Return the logits processor for *matcher*; the first *seen* tokens of the context are not the answer's."""
        return _Constraint(matcher, seen=seen, stops=self._stops)

    def _tokens(self) -> Any:
        if self._table is None:
            import llguidance.hf

            self._table = llguidance.hf.from_tokenizer(
                self._tokenizer, n_vocab=self._vocabulary, eos_token=self._stops or None
            )
        return self._table


class _Constraint:
    """Masks the logits of one request."""

    def __init__(self, matcher: Any, *, seen: int, stops: Sequence[int]) -> None:
        self._matcher = matcher
        self._seen = seen
        self._stops = stops

    def __call__(self, tokens: Any, logits: Any) -> Any:
        """Take what was drawn since the last call and forbid what must not follow."""
        import mlx.core as mx

        drawn = tokens[self._seen :].tolist() if len(tokens) > self._seen else []
        self._seen = max(self._seen, len(tokens))
        # A token that ends the answer is not the grammar's, and neither is what is drawn in vain after it.
        if drawn and not self._matcher.is_stopped():
            self._matcher.consume_tokens(drawn)
        return mx.where(mx.array(self._allowed(logits.shape[-1])), logits, -mx.inf)

    def _allowed(self, size: int) -> Any:
        import numpy as np

        allowed = np.zeros(size, dtype=bool)
        if not (self._matcher.is_stopped() or self._matcher.is_error()):
            bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")[:size]
            allowed[: len(bits)] = bits
        if not allowed.any():
            allowed[self._stops] = True  # finished, or no way on: end here rather than draw from nothing
        return allowed
