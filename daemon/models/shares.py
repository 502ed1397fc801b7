"""How the budget is shared out among the runners that are there. Pure: facts in, a share for each out.

1. Whoever is resident keeps what it occupies; what it keeps for speed alone is not counted as occupied.
2. What waiting models will need is put by: nobody grows into it.
3. Of the rest, those who stand still for want of memory get what they want, in their order.
4. What is left is divided evenly among the models that are in use, or among all if none is.

So the shares together never exceed the budget, unless what is occupied already does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plugins.runtime import Share


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """One model that takes memory."""

    key: str
    #: Bytes it occupies, or will when it has been loaded.
    memory: int
    #: Whether requests can be sent to it.
    ready: bool = True
    #: Whether it is being unloaded.
    leaving: bool = False
    in_use: bool = False
    #: Whether it could be unloaded for somebody else: idle, and nobody protects it.
    spare: bool = False
    pinned: bool = False
    #: When it was last used, seconds.
    last_used: float = 0.0
    #: Bytes it would have to have for its next request; 0: it does not stand still.
    wants: int = 0
    #: Bytes that were too much for it; None: not known.
    ceiling: int | None = None
    #: See `plugins.runtime.Share`.
    factor: float = 1.0


def shares(claimants: Sequence[Claimant], budget: int, reserved: int = 0) -> dict[str, Share]:
    """Return the share of each that is ready; *reserved* bytes are for models that wait to be loaded."""
    free = _free(claimants, budget, reserved)
    ready = [one for one in claimants if one.ready]
    extra = dict.fromkeys((one.key for one in ready), 0)
    for one in ready:  # 3
        extra[one.key] = min(free, max(0, one.wants - one.memory))
        free -= extra[one.key]
    using = [one for one in ready if one.in_use] or ready
    for one in using:  # 4
        extra[one.key] += free // len(using)
    coming = any(one.leaving for one in claimants)
    return {one.key: _share(one, extra[one.key], claimants, budget, coming=coming) for one in ready}


def _share(one: Claimant, extra: int, claimants: Sequence[Claimant], budget: int, *, coming: bool) -> Share:
    memory = one.memory + extra
    pinned = sum(other.memory for other in claimants if other.pinned and other.key != one.key)
    return Share(
        memory=memory if one.ceiling is None else min(memory, one.ceiling),
        most=budget - pinned,
        coming=coming and 0 < memory < one.wants,
        answers=one.wants,
        factor=one.factor,
    )


def in_the_way(claimants: Sequence[Claimant], budget: int, reserved: int = 0) -> tuple[str, ...]:
    """Return the idle models to unload for the first who stands still for want of memory, least recently used first.

    None if what is free suffices, if enough is on its way already, or if all of them would not be enough.
    """
    wanting = next((one for one in claimants if one.ready and one.wants > one.memory), None)
    if wanting is None:
        return ()
    coming = sum(one.memory for one in claimants if one.leaving)
    missing = wanting.wants - wanting.memory - _free(claimants, budget, reserved) - coming
    victims = []
    for one in sorted(claimants, key=lambda one: one.last_used):
        if missing > 0 and one.spare and one.key != wanting.key:
            victims.append(one.key)
            missing -= one.memory
    return tuple(victims) if missing <= 0 else ()


def _free(claimants: Sequence[Claimant], budget: int, reserved: int) -> int:
    return max(0, budget - sum(one.memory for one in claimants) - reserved)  # 1, 2
