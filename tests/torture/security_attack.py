"""What one attack of the security row found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torture.row import Control


@dataclass(kw_only=True)
class Attack:
    """One defence attacked, and the same attack with the defence switched off."""

    name: str
    tries: int
    control: Control
    #: Each success of the attacker, a sentence each.
    broken: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)
