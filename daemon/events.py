"""Live events: whoever works on a job tells the hub, whoever follows the job hears it.

1. `Hub.publish` may be called from any thread and never waits for a follower.
2. A follower that is too slow loses its oldest *passing* events (tokens, segments, progress) and is told so by a
   ``lagged`` event. It never loses a ``state`` event: one that leaves thousands of those unread is cut off instead.
3. What a running attempt has said so far is kept (bounded) until the job ends, so that who starts to follow a
   moment after submitting misses nothing: `Hub.subscribe` replays it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from jobs.model import TERMINAL, Job, State

#: The job as it now stands; data is `daemon.views.public_job`.
STATE: Final = "state"
#: Some events were dropped; data is ``{"dropped": how many}``.
LAGGED: Final = "lagged"
#: States in which nobody works on the job and waiting longer may be in vain.
SETTLED: Final = TERMINAL | {State.BLOCKED, State.QUARANTINED}

_CAPACITY: Final = 1000
#: Unread events at which a follower counts as gone.
_HOPELESS: Final = 10
_KEPT_JOBS: Final = 64
_KEPT_EVENTS: Final = 500
_KEPT_CHARACTERS: Final = 200_000
#: What a token's log-probabilities count as, characters.
_A_LINE: Final = 100
#: Kinds whose events are pieces of a text, which are joined for those who come late.
_PIECES: Final = frozenset({"token", "reasoning"})


class Event(NamedTuple):
    """Something that happened to a job."""

    job_id: str
    #: "state", "progress", "token", "segment", "lagged" or whatever a task emits.
    kind: str
    #: JSON.
    data: Mapping[str, Any]


class Subscription:
    """One follower's events: iterate over it in a thread or in an event loop, and `close` it (or use ``with``)."""

    def __init__(self, job_id: str | None, *, capacity: int, on_close: Callable[[Subscription], None]) -> None:
        self.job_id = job_id
        self._capacity = capacity
        self._on_close = on_close
        self._ready = threading.Condition()
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._closed = False
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    @property
    def closed(self) -> bool:
        """Whether no event will come any more (those already here can still be taken)."""
        return self._closed

    def push(self, event: Event) -> bool:
        """Add *event* and return whether there is still hope for this follower; called by the hub, never waits."""
        with self._ready:
            if self._closed:
                return True
            if len(self._events) >= self._capacity:
                self._make_room()
            self._events.append(event)
            self._wake()
            return len(self._events) <= self._capacity * _HOPELESS

    def get(self, timeout: float | None = None) -> Event | None:
        """Wait at most *timeout* seconds (None: for ever) in a thread; None means nothing came, or `closed`."""
        with self._ready:
            self._ready.wait_for(lambda: self._closed or bool(self._events) or self._dropped > 0, timeout)
            return self._take()

    async def aget(self, timeout: float | None = None) -> Event | None:  # noqa: ASYNC109 - the twin of `get`
        """Do what `get` does, in the running event loop."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    with self._ready:
                        event = self._take()
                        if event is not None or self._closed:
                            return event
                        loop = asyncio.get_running_loop()
                        waiter = loop.create_future()
                        self._waiter = (loop, waiter)
                    await waiter
        except TimeoutError:
            return None

    def close(self) -> None:
        """Stop listening; a waiting follower wakes up and ends. Safe to call twice and from any thread."""
        with self._ready:
            if self._closed:
                return
            self._closed = True
            self._wake()
        self._on_close(self)

    def __iter__(self) -> Iterator[Event]:
        """Yield events until the end."""
        while (event := self.get()) is not None:
            yield event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self.aget()
        if event is None:
            raise StopAsyncIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_room(self) -> None:
        for index, event in enumerate(self._events):
            if event.kind != STATE:
                del self._events[index]
                self._dropped += 1
                return

    def _take(self) -> Event | None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return Event(self.job_id or "", LAGGED, {"dropped": dropped})
        return self._events.popleft() if self._events else None

    def _wake(self) -> None:
        self._ready.notify_all()
        if self._waiter is not None:
            (loop, waiter), self._waiter = self._waiter, None
            try:
                loop.call_soon_threadsafe(_finish, waiter)
            except RuntimeError:  # the loop ended while its follower waited: nobody is left to wake
                return


class Hub:
    """Passes events from workers to followers."""

    def __init__(self, *, capacity: int = _CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._followers: dict[str | None, list[Subscription]] = {}
        self._said: OrderedDict[str, _Backlog] = OrderedDict()
        self._closed = False

    def publish(self, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
        """Tell everybody who follows *job_id*, or everything, that *kind* happened. Never waits."""
        event = Event(job_id, kind, data)
        with self._lock:
            self._remember(event)
            followers = [*self._followers.get(job_id, ()), *self._followers.get(None, ())]
            gone = [follower for follower in followers if not follower.push(event)]
        for follower in gone:  # outside the lock, which `close` takes
            follower.close()

    def changed(self, job: Job, shown: Callable[[Job], Mapping[str, Any]]) -> None:
        """Tell that *job* is new or stands differently: as *shown* shows it, if anybody listens.

        Whoever follows later asks the ledger first, which has it already.
        """
        with self._lock:
            if job.state is not State.RUNNING:
                self._said.pop(job.id, None)
            listened = job.id in self._followers or None in self._followers
        if listened:
            self.publish(job.id, STATE, shown(job))

    def subscribe(self, job_id: str | None = None, *, replay: bool = True) -> Subscription:
        """Follow one job, or everything (None); with *replay* what the running attempt said so far comes first."""
        subscription = Subscription(job_id, capacity=self._capacity, on_close=self._forget)
        with self._lock:
            closed = self._closed
            if not closed:
                if replay and job_id is not None and job_id in self._said:
                    for event in self._said[job_id].events(job_id):
                        subscription.push(event)
                self._followers.setdefault(job_id, []).append(subscription)
        if closed:
            subscription.close()
        return subscription

    def wait_terminal(self, job_id: str, read: Callable[[str], Job], *, timeout: float | None = None) -> Job:
        """Wait in a thread until the job is settled (terminal, blocked or quarantined) or *timeout* seconds passed.

        *read* gets the job from the ledger. Return the job as it stands then; the caller looks at its state.
        """
        deadline = None if timeout is None else self._clock() + timeout
        with self.subscribe(job_id, replay=False) as events:
            while (job := read(job_id)).state not in SETTLED:
                if not self._news(events, deadline):
                    return read(job_id)
        return job

    def followers(self) -> int:
        """Return how many follow at the moment."""
        with self._lock:
            return sum(map(len, self._followers.values()))

    def close(self) -> None:
        """End every subscription, now and in future."""
        with self._lock:
            self._closed = True
            everybody = [follower for some in self._followers.values() for follower in some]
            self._said.clear()
        for follower in everybody:
            follower.close()

    def _news(self, events: Subscription, deadline: float | None) -> bool:
        """Wait for a change of state (or for lost events, which may have hidden one)."""
        while True:
            left = None if deadline is None else max(0.0, deadline - self._clock())
            event = events.get(left)
            if event is None or event.kind in (STATE, LAGGED):
                return event is not None

    def _remember(self, event: Event) -> None:
        if event.kind == STATE:
            if event.data.get("state") != State.RUNNING:  # the attempt is over: the next one starts from nothing
                self._said.pop(event.job_id, None)
            return
        if event.job_id not in self._said:
            self._said[event.job_id] = _Backlog()
            if len(self._said) > _KEPT_JOBS:
                self._said.popitem(last=False)
        self._said[event.job_id].add(event)

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            some = self._followers.get(subscription.job_id, [])
            if subscription in some:
                some.remove(subscription)
            if not some:
                self._followers.pop(subscription.job_id, None)


class _Backlog:
    """What one attempt has said: tokens joined, the last progress, the rest as it came; bounded."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._pieces: list[str] = []
        self._lines: list[Any] = []
        self._characters = 0
        self._token: Event | None = None
        self._progress: Event | None = None
        self._dropped = 0

    def add(self, event: Event) -> None:
        if event.kind == "progress":
            self._progress = event
            return
        if event.kind not in _PIECES or not _same_stream(event, self._token):
            self._settle_tokens()
        if event.kind in _PIECES and self._characters < _KEPT_CHARACTERS:
            self._token = event
            self._pieces.append(str(event.data.get("text", "")))
            self._lines += event.data.get("logprobs") or ()
            self._characters += len(self._pieces[-1]) + len(event.data.get("logprobs") or ()) * _A_LINE
        elif event.kind in _PIECES:
            self._dropped += 1
        else:
            self._keep(event)

    def events(self, job_id: str) -> list[Event]:
        self._settle_tokens()
        lagged = [Event(job_id, LAGGED, {"dropped": self._dropped})] if self._dropped else []
        return lagged + list(self._events) + ([self._progress] if self._progress else [])

    def _settle_tokens(self) -> None:
        if self._token is not None:
            data = {**self._token.data, "text": "".join(self._pieces)}
            self._keep(self._token._replace(data={**data, "logprobs": self._lines} if "logprobs" in data else data))
        self._token, self._pieces, self._lines = None, [], []

    def _keep(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) > _KEPT_EVENTS:
            self._events.popleft()
            self._dropped += 1


def _same_stream(event: Event, other: Event | None) -> bool:
    """Return whether two token events continue each other (a batch's items each say which they are)."""
    passing = ("text", "n", "logprobs")
    return (
        other is not None
        and event.kind == other.kind
        and (
            {key: value for key, value in event.data.items() if key not in passing}
            == {key: value for key, value in other.data.items() if key not in passing}
        )
    )


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
