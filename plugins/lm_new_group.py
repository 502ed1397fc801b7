"""Makes what computes the answers of one lane and plan."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from jobs.model import Lane
from plugins.lm_cohorts import Cohorts
from plugins.lm_group import Group
from plugins.lm_pace import Pace
from plugins.lm_plan import Plan
from plugins.lm_prefill import Prefill
from plugins.lm_prefixes import Prefixes
from plugins.lm_quantised import DRAFTED_PIECE, PIECE, QuantisingRows
from plugins.lm_rows import Decoder, Rows
from plugins.lm_speculation import Draft, Speculation
from plugins.mlx_process import on_cpu

#: Share of a batch that may have left it before its caches are copied, on a GPU.
_SLACK: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class NewGroup:
    """Makes groups for *model*; *alone* says that its caches cannot be batched, *stops* are the tokens of an end."""

    model: Any
    prefixes: Prefixes
    pace: Pace
    stops: Collection[int]
    vocabulary: int
    draft: Draft | None
    alone: bool
    #: What one more pass of the model costs, tokens (`plugins.lm_cohorts`).
    one_pass: int
    clock: Callable[[], float]

    def __call__(self, lane: Lane, plan: Plan) -> Group:
        """Return an empty group."""
        prompts = Prefill(
            self.model,
            prefixes=self.prefixes,
            pace=self.pace,
            alone=self.alone,
            even=not on_cpu(),
            space=plan.adapter,
            kv=plan.kv,
            step=DRAFTED_PIECE if plan.draft_tokens else PIECE,
            clock=self.clock,
        )
        return Group(
            lane,
            plan,
            prompts=prompts,
            rows=self._rows(plan),
            prefixes=self.prefixes,
            pace=self.pace,
            stops=self.stops,
            clock=self.clock,
        )

    def _rows(self, plan: Plan) -> Decoder:
        # On a GPU copying the caches costs more than some rows that are computed in vain.
        slack = 0.0 if on_cpu() else _SLACK
        if plan.draft_tokens and self.draft is not None:
            return Speculation(self.model, self.draft, plan, vocabulary=self.vocabulary)
        if plan.kv is not None:
            return QuantisingRows(self.model, plan.kv, slack=slack)
        return Cohorts(partial(Rows, self.model, slack=slack), one_pass=self.one_pass)
