"""What a runner is to be told as soon as it listens, the latest of each kind; nobody waits for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

Message = Mapping[str, Any]


class Orders:
    """Sends on a thread of its own, which lives only while there is something to send."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: dict[str, Message] = {}
        self._sending = False

    def put(self, kind: str, message: Message) -> None:
        """Send *message* in place of one of its *kind* that was not sent yet."""
        with self._lock:
            self._waiting.pop(kind, None)
            self._waiting[kind] = message
            if self._sending:
                return
            self._sending = True
        threading.Thread(target=self._run, name="engine-orders", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._sending = False
                    return
                message = self._waiting.pop(next(iter(self._waiting)))
            self._send(message)
