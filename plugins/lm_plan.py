"""How an answer is to be computed: with which adapter, in which caches, with a draft model or not.

Answers with the same plan are computed together; those with different plans take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plugins.adapter_files import AdapterFiles

#: What mlx-lm's command line takes when ``--num-draft-tokens`` is not given.
DRAFT_TOKENS: Final = 3
#: What mlx-lm takes for a quantised cache: numbers with one scale, tokens in the cache when it begins.
GROUP: Final = 64
START: Final = 5000


class Wanted(BaseModel):
    """What a request to the runtime ``lm``, or a model's options, say about it; names and defaults are mlx-lm's."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    #: Folder of a LoRA adapter in mlx-lm's format.
    adapter: Path | None = None
    #: Bits of a number in the key-value cache; None keeps it as the model computes.
    kv_bits: Literal[4, 8] | None = None
    kv_group_size: Literal[32, 64, 128] = GROUP
    #: Tokens in the cache from which on it is quantised.
    quantized_kv_start: int = Field(default=START, ge=0, le=1 << 40)
    #: Tokens that the draft model is ahead; 0 does without it.
    num_draft_tokens: int = Field(default=0, ge=0, le=32)


class Quantised(NamedTuple):
    """A key-value cache in few bits: `Wanted.kv_bits` and what belongs to it."""

    bits: int
    group_size: int
    start: int

    def share(self, element: int) -> float:
        """Return its size as a share of a plain cache's, whose numbers have *element* bytes."""
        # Each group has a scale and a bias besides.
        return (self.bits / 8 + 2 * element / self.group_size) / element


class Plan(NamedTuple):
    """See the module."""

    #: Key of the adapter (`plugins.lm_adapters`).
    adapter: str = ""
    kv: Quantised | None = None
    #: Tokens that the draft model is ahead.
    draft_tokens: int = 0

    @property
    def alone(self) -> str:
        """Return why no other answer can be computed in the same step; empty if others can."""
        return "speculative decoding" if self.draft_tokens else ""


PLAIN: Final = Plan()


def wanted(request: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Wanted:
    """Return what *request* wants; what it does not say is as *options* have it.

    Raises:
        ValueError: with every mistake in one sentence.

    """
    said = {name: request[name] for name in Wanted.model_fields if request.get(name) is not None}
    defaults = {name: value for name, value in (options or {}).items() if name in Wanted.model_fields}
    try:
        return Wanted.model_validate({**defaults, **said})
    except ValidationError as error:
        found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        raise ValueError("; ".join(found)) from error


class Way(NamedTuple):
    """How one request is served, and what is said about it in its result."""

    plan: Plan = PLAIN
    #: The files of its adapter.
    adapter: AdapterFiles | None = None
    #: Bytes of its caches by those of plain ones.
    share: float = 1.0
    notes: tuple[str, ...] = ()


PLAINLY: Final = Way()
