"""From what a request wants to how it is served: checked, with a sentence for whatever could not be had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from plugins import lm_caches
from plugins.adapter_files import AdapterFiles, check_adapter, key_of
from plugins.lm_adapters import Adapters
from plugins.lm_plan import PLAINLY, Plan, Quantised, Wanted, Way, wanted
from plugins.lm_quantised import obstacle
from plugins.lm_request import LmRequest
from plugins.lm_speculation import Draft

#: Adapters whose files need not be read again for the next request.
_REMEMBERED: Final = 64


class Ways:
    """The ways in which *model* can serve; *options* are its defaults, *element* the bytes of a cached number."""

    def __init__(
        self,
        model: Any,
        adapters: Adapters,
        *,
        draft: Draft | None = None,
        options: Mapping[str, Any] | None = None,
        element: int = 4,
    ) -> None:
        self._model = model
        self._adapters = adapters
        self._draft = draft
        self._options = options or {}
        self._element = element
        #: (bits, group size) -> why not.
        self._obstacles: dict[tuple[int, int], str | None] = {}
        self._files: dict[Path, AdapterFiles] = {}

    def __call__(self, request: Mapping[str, Any], asked: LmRequest, *, length: int) -> Way:
        """Return how *request* is served, which is *asked* and may come to *length* tokens.

        Raises:
            ValueError: it cannot be served at all.

        """
        want = wanted(request, self._options)
        if want == Wanted():
            return PLAINLY
        notes: list[str] = []
        kv = self._quantised(want, length, notes)
        drafted = self._drafted(want, asked, notes)
        files = self._adapter(want)
        share = 1.0 if kv is None else kv.share(self._element)
        if drafted and self._draft is not None:
            share *= 1 + self._draft.share
            notes.append("Served alone: speculative decoding.")
        return Way(Plan(files.key if files else "", kv, drafted), files, share, tuple(notes))

    def _adapter(self, want: Wanted) -> AdapterFiles | None:
        if want.adapter is None:
            return None
        known = self._files.get(want.adapter)
        if known is not None and _unchanged(known):
            return known
        files = check_adapter(want.adapter)
        self._adapters.check(files)
        if len(self._files) >= _REMEMBERED:
            self._files.clear()
        self._files[want.adapter] = files
        return files

    def _quantised(self, want: Wanted, length: int, notes: list[str]) -> Quantised | None:
        if want.kv_bits is None:
            return None
        kv = Quantised(want.kv_bits, want.kv_group_size, want.quantized_kv_start)
        if kv.start >= length:
            notes.append(f"kv_bits made no difference: it counts from {kv.start:,} tokens on (quantized_kv_start).")
            return None
        which = kv.bits, kv.group_size
        if which not in self._obstacles:
            self._obstacles[which] = obstacle(self._model, kv)
        if (why := self._obstacles[which]) is not None:
            raise ValueError(f"kv_bits: this model's caches cannot be quantised: {why}. Leave kv_bits out")
        return kv

    def _drafted(self, want: Wanted, asked: LmRequest, notes: list[str]) -> int:
        if not want.num_draft_tokens:
            return 0
        if self._draft is None:
            raise ValueError("num_draft_tokens: there is no draft model; name one with draft_model")
        why = None
        if not lm_caches.plain(cache := lm_caches.fresh(self._model)):
            kinds = sorted({type(layer).__name__ for layer in cache})
            why = f"tokens cannot be taken out of this model's caches again ({', '.join(kinds)})"
        elif asked.json_schema is not None:
            why = "a JSON schema has to see every token before the next one is drawn"
        if why is not None:
            notes.append(f"Answered without the draft model: {why}.")
            return 0
        return want.num_draft_tokens


def _unchanged(files: AdapterFiles) -> bool:
    try:
        return key_of(files.folder) == files.key
    except OSError:
        return False
