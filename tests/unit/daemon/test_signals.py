"""Signals as messages."""

from __future__ import annotations

import os
import signal
import threading

import pytest

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


def test_a_second_stop_ends_a_start_that_hangs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    """While nobody listens yet, one request waits for its turn and the next one ends the process, saying where it was.

    From the first `wait` on, the listener decides.
    """
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == []
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [1]
        signals.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [1]
    said = capfd.readouterr().err
    assert "stopped before it was ready. It was busy in" in said
    assert "test_signals.py" in said
