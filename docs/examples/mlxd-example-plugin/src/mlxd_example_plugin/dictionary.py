"""A toy runtime: its model is a table of words in a ``config.json``, its unit of work is a word.

mlxd refuses a model folder without a ``config.json`` and at least one safetensors file, whatever the runtime; this one
has a safetensors file only for that reason.
"""

import json
from pathlib import Path
from typing import NamedTuple


class Estimate(NamedTuple):
    """What mlxd wants to know before it loads a model, in bytes."""

    weights: int
    overhead: int

    @property
    def total(self):
        """Return both together."""
        return self.weights + self.overhead


class Session:
    """A loaded dictionary. mlxd calls every method on one thread of the runner process."""

    def __init__(self, words):
        self._words = words
        self._open = {}  # request id -> (words still to do, words done)
        self.info = {"words": len(words)}

    @property
    def busy(self):
        """Whether `step` has something to do."""
        return bool(self._open)

    def submit(self, request_id, request):
        """Take a request; a ValueError refuses this one alone."""
        text = request.get("text")
        if not isinstance(text, str) or not text.strip():
            raise ValueError("text must be a non-empty string")
        self._open[request_id] = (text.split(), [])

    def cancel(self, request_id):
        """Forget a request."""
        self._open.pop(request_id, None)

    def step(self):
        """Do one word of every open request: that is what batching looks like from outside."""
        events = []
        for request_id, (todo, done) in list(self._open.items()):
            word = todo.pop(0)
            done.append(self._words.get(word.lower(), word))
            events.append((request_id, "token", {"text": done[-1] + " ", "n": len(done)}))
            if not todo:
                del self._open[request_id]
                events.append((request_id, "done", {"text": " ".join(done), "words": len(done)}))
        return events

    def close(self):
        """Give everything back."""
        self._open.clear()


class Dictionary:
    """The runtime."""

    name = "dictionary"
    summary = "Replaces words by a table"

    def estimate(self, model, options):
        """Say how much memory *model* will need; runs in the daemon, so it only looks at the file's size."""
        size = (Path(model) / "config.json").stat().st_size
        return Estimate(weights=4 * size, overhead=20_000_000)

    def load(self, model, options):
        """Load *model*; runs in the runner. A real runtime imports its heavy libraries here and nowhere else."""
        words = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["words"]
        return Session({str(key).lower(): str(value) for key, value in words.items()})
