"""What a model will need: checked and estimated once per version of its folder, on the thread that asks.

The estimate is corrected by what was observed: of what a runner occupies when it has just been loaded nothing need be
guessed the second time. A correction never more than doubles the estimate, unless that alone was observed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from daemon.models.learned import Learned
from daemon.models.references import ResolvedModel
from daemon.models.safety import check_model_folder
from jobs.errors import MlxdError, ModelBroken, UnknownRuntime
from plugins.estimate import PROCESS
from plugins.runtime import Estimate, Runtime

_Version = tuple[tuple[str, int, int, int], ...]
#: More bytes than any machine has.
_MOST: Final = 1 << 56


class Sizes:
    """Bytes by model. Thread-safe; holds no lock while it reads files."""

    def __init__(
        self,
        runtimes: Callable[[], Mapping[str, Runtime]],
        *,
        check: Callable[[Path], None] = check_model_folder,
        learned: Learned | None = None,
    ) -> None:
        self._runtimes = runtimes
        self._check = check
        self._lock = threading.Lock()
        self._learned = learned or Learned()
        self._known: dict[str, tuple[_Version, Estimate]] = {}

    def __call__(self, model: ResolvedModel) -> int:
        """Return the bytes *model* will need.

        Raises:
            UnknownRuntime: no plugin offers its runtime.
            ModelMissing, ModelBroken: it cannot be loaded.

        """
        runtime = self._runtimes().get(model.runtime)
        if runtime is None:
            raise UnknownRuntime(f"No loaded plugin offers the runtime {model.runtime!r}.", runtime=model.runtime)
        version = tuple(facts for folder in model.folders for facts in _version(folder))
        with self._lock:
            known = self._known.get(model.key)
        if known is not None and known[0] == version:
            return self._corrected(model.key, known[1])
        for folder in model.folders:
            self._check(folder)
        try:
            need = _believable(runtime.estimate(model.path, model.options))
        except MlxdError:
            raise
        except Exception as error:  # a plugin may raise anything, and an option may be of any type
            raise ModelBroken(f"{model.ref} could not be estimated: {error}", model=model.ref) from error
        with self._lock:
            self._known[model.key] = (version, need)
        self._learned.see(model.key, hashlib.sha256(repr((version, sorted(model.options))).encode()).hexdigest()[:16])
        return self._corrected(model.key, need)

    def _corrected(self, key: str, need: Estimate) -> int:
        base = self._learned.of(key).base
        return need.total if base is None else corrected(need, base)


def corrected(need: Estimate, base: int) -> int:
    """Return the bytes to reckon with when a runner was seen to occupy *base* with nothing but the model in it."""
    rest = need.total - need.weights - PROCESS
    return max(base, min(base + max(0, rest), 2 * need.total))


def _believable(need: Estimate) -> Estimate:
    """Return *need* if it has numbers of bytes; the scheduler reckons with them, and a plugin may return anything."""
    if not all(isinstance(part, int) and 0 <= part <= _MOST for part in (need.weights, need.overhead)):
        raise ValueError("its memory is no believable number of bytes")
    return Estimate(need.weights, need.overhead)


def _version(folder: Path) -> _Version:
    """Return what changes when a file of *folder* is added, replaced, removed or written to; no time can be forged."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()  # a link to nowhere or no folder: the check says what is wrong
    return tuple(sorted((name, facts.st_ino, facts.st_size, facts.st_ctime_ns) for name, facts in found))
