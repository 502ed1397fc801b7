"""Signals as messages."""

from __future__ import annotations

import os
import signal
import threading

from daemon.signals import Signals


def test_signals_arrive_in_order_and_handlers_return() -> None:
    """TERM and HUP are returned one by one, `send` counts as a signal, and the old handlers come back."""
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert {signal.SIGTERM, signal.SIGHUP} == {signals.wait(), signals.wait()}
        other = threading.Thread(target=signals.send, args=(signal.SIGINT,))
        other.start()
        assert signal.SIGINT is signals.wait()
        other.join()

    assert before is signal.getsignal(signal.SIGTERM)
