"""Who is let in, and when."""

from __future__ import annotations

import threading

import pytest

from plugins.priority_semaphore import PrioritySemaphore


class Crowd:
    """Threads that want in; each stays until it is told to leave."""

    def __init__(self, places):
        self._semaphore = PrioritySemaphore(places)
        self._changed = threading.Condition()
        self.inside = []
        self.entered = []
        self._leaving = set()

    def come(self, name, urgency):
        waiting = len(self._semaphore._line) + len(self.entered)
        threading.Thread(target=self._stay, args=(name, urgency), daemon=True).start()
        self.until(lambda: len(self._semaphore._line) + len(self.entered) > waiting)

    def _stay(self, name, urgency):
        with self._semaphore.held(urgency), self._changed:
            self.inside.append(name)
            self.entered.append(name)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: name in self._leaving, 20)
            self.inside.remove(name)

    def leave(self, name, *, then):
        """Let *name* out and wait until *then* is in."""
        with self._changed:
            self._leaving.add(name)
            self._changed.notify_all()
        self.until(lambda: then in self.inside)

    def end(self):
        with self._changed:
            self._leaving.update(self.inside)
            self._changed.notify_all()
        self.until(lambda: not self.inside)

    def until(self, what):
        with self._changed:
            while not what():
                self._changed.wait(0.002)


def test_the_most_urgent_is_let_in_first_then_who_came_first():
    """Two places are taken; of the four who wait the urgent one is next, though he came last."""
    crowd = Crowd(2)
    for name, urgency in (("a", 1), ("b", 1)):
        crowd.come(name, urgency)
        crowd.until(lambda name=name: name in crowd.inside)
    for name, urgency in (("late", 2), ("c", 1), ("d", 1), ("urgent", 0)):
        crowd.come(name, urgency)
    assert sorted(crowd.inside) == ["a", "b"]
    for gone, then in (("a", "urgent"), ("b", "c"), ("urgent", "d"), ("c", "late")):
        crowd.leave(gone, then=then)
        assert len(crowd.inside) == 2
    assert crowd.entered == ["a", "b", "urgent", "c", "d", "late"]
    crowd.end()


def test_a_place_is_given_back_by_whoever_fails():
    """An error inside the block does not keep the place."""
    semaphore = PrioritySemaphore(1)
    for _ in range(2):
        with pytest.raises(KeyError), semaphore.held(0):
            raise KeyError
    with semaphore.held(0):
        pass
