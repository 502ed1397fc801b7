"""Loads a draft model beside a language model: both have to mean the same by every token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plugins.estimate import kv_bytes_per_token, text_config
from plugins.lm_speculation import Draft


def load_draft(folder: Path, tokenizer: Any, *, dtype: str, token_bytes: int, element: int) -> Draft:
    """Return the model in *folder* as the draft for one with *tokenizer*, whose caches take *token_bytes* a token.

    Raises:
        ValueError: its tokenizer is another one.

    """
    from plugins import lm_load

    net, theirs, config = lm_load.load(folder, dtype)
    _check(folder, tokenizer.get_vocab(), theirs.get_vocab())
    text = text_config(config)
    share = kv_bytes_per_token(text, element) / max(1, token_bytes)
    return Draft(net, vocabulary=int(text.get("vocab_size") or len(theirs)), share=share)


def _check(folder: Path, ours: Mapping[str, int], theirs: Mapping[str, int]) -> None:
    differing = sum(ours.get(word) != theirs.get(word) for word in ours.keys() | theirs.keys())
    if differing:
        raise ValueError(
            f"draft_model: the tokenizer in {folder} is not the model's own ({differing:,} tokens differ), so that its "
            "guesses would mean something else: take a smaller model of the same family"
        )
