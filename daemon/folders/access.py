"""The first look into a folder, which may block for hours."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Access:
    """Looks into a folder on a thread of its own, once.

    macOS asks the person before a background program may read Desktop, Documents or Downloads, and `open` blocks until
    somebody answers, without a line in any log; a dead network server does the same. Neither may stop the watcher.
    """

    def __init__(self, look: Callable[[], object], *, patience: float = 10.0) -> None:
        """*look* touches the folder; *patience* is how long the first `granted` waits for it, seconds."""
        self._look = look
        self._patience = patience
        self._returned = threading.Event()
        self._asked = False

    def granted(self) -> bool:
        """Return whether the folder answers, be it with an error. Later calls do not wait."""
        if not self._asked:
            self._asked = True
            threading.Thread(target=self._try, name="mlxd-first-look", daemon=True).start()
            self._returned.wait(self._patience)
        return self._returned.is_set()

    def _try(self) -> None:
        try:
            self._look()
        except OSError:
            pass  # an answer too: the scan that follows meets it again and reports it
        finally:
            self._returned.set()
