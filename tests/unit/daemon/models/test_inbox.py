"""The runner's inbox: what is taken in before the next step."""

import itertools
import queue

from daemon.models.inbox import COMPANY_S, MOST_S, waiting


class Inbox:
    """Holds messages that are there, and such as come while somebody waits for them."""

    def __init__(self, there, coming):
        self.there, self.coming, self.waits = list(there), list(coming), []

    def get(self, timeout=None):
        self.waits.append(timeout)
        if not self.there and not self.coming:
            raise queue.Empty
        return (self.there or self.coming).pop(0)

    def get_nowait(self):
        if not self.there:
            raise queue.Empty
        return self.there.pop(0)


def asked(number, lane="batch"):
    return {"op": "submit", "id": number, "lane": lane}


def numbers(messages):
    return [message.get("id") for message in messages]


def test_a_batchs_first_request_waits_for_those_that_follow():
    """They are taken in together, and the wait ends when nothing comes for a moment."""
    inbox = Inbox([asked(1)], [asked(2), asked(3)])
    assert numbers(waiting(inbox, block=True, clock=lambda: 0.0)) == [1, 2, 3]
    assert inbox.waits == [None, COMPANY_S, COMPANY_S, COMPANY_S]


def test_a_person_waits_for_nobody():
    """A request of another lane is not kept back, and ends the wait of a batch."""
    inbox = Inbox([asked(1, "interactive")], [asked(2)])
    assert numbers(waiting(inbox, block=True)) == [1]
    inbox = Inbox([asked(1)], [asked(2, "interactive"), asked(3)])
    assert numbers(waiting(inbox, block=True, clock=lambda: 0.0)) == [1, 2]


def test_the_wait_is_bounded():
    """A stream of requests without an end is not waited for."""
    times = itertools.chain([0.0, 0.001], itertools.repeat(MOST_S))
    inbox = Inbox([asked(1)], [asked(2), asked(3)])
    assert numbers(waiting(inbox, block=True, clock=lambda: next(times))) == [1, 2]


def test_who_has_work_takes_what_is_there():
    """Between two steps nothing is waited for."""
    inbox = Inbox([asked(1), asked(2)], [asked(3)])
    assert numbers(waiting(inbox, block=False)) == [1, 2]
    assert inbox.waits == []


def test_whatever_else_comes_is_taken_as_it_is():
    """A share or a cancellation has no lane."""
    inbox = Inbox([{"op": "share"}, asked(1)], [asked(2)])
    assert numbers(waiting(inbox, block=True)) == [None, 1]
