"""Every line of the threat model attacked, and each attack again with its defence switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from torture import security_doors, security_files, security_plugins, security_words
from torture.row import Outcome, Say, Tier
from torture.security_attack import Attack

#: Tier -> combinations of Host and Origin, strangers, names, model folders, secrets, crashes of runners.
SIZES = {Tier.SHORT: (60, 2, 150, 60, 60, 1), Tier.LONG: (300, 20, 2000, 500, 1000, 10)}


class Security:
    """See `torture.row.Row`."""

    number = 17
    name = "security"
    fault = "strangers, web pages, hostile names, models, plugins and words"
    promise = "nobody gets in, nothing gets out of its folder, no foreign code runs, no secret reaches a log"

    def run(self, tier: Tier, *, seed: int, folder: Path, say: Say) -> Outcome:
        """Make one attack after the other."""
        attacks = []
        folder.chmod(0o755)  # another user has to come as far as the door
        for attack in _attacks(tier, folder, seed):
            found = attack()
            say(f"{found.name}: {found.tries} tries, {len(found.broken)} came through; {found.control.evidence[:80]}")
            attacks.append(found)
        return Outcome(
            tries=sum(one.tries for one in attacks),
            broken=[f"{one.name}: {sentence}" for one in attacks for sentence in one.broken],
            controls=[one.control for one in attacks],
            measured={f"{one.name} (tries)": one.tries for one in attacks},
            notes=[note for one in attacks for note in one.notes],
        )


def _attacks(tier: Tier, folder: Path, seed: int) -> Iterator[Callable[[], Attack]]:
    pages, strangers, names, models, secrets, crashes = SIZES[tier]
    places = {name: folder / name for name in ("p", "l", "n", "w")}
    for place in places.values():
        place.mkdir()
    yield lambda: security_doors.pages(pages, places["p"], seed=seed)
    yield lambda: security_doors.other_users(strangers)
    yield lambda: security_doors.loose_folders(places["l"])
    yield lambda: security_files.hostile_names(names, places["n"], seed=seed)
    yield lambda: security_files.model_folders(models, folder / "m", seed=seed)
    yield lambda: security_plugins.wrong_plugins(places["w"])
    yield lambda: security_words.kept_secrets(secrets, crashes=crashes, seed=seed)
    yield security_words.forged_logs


ROW = Security()
