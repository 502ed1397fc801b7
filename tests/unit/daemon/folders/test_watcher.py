"""The watcher's thread: what it sleeps through, what wakes it, and what it survives."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from fakes_folders import FakeLedger, ManualClock, watching
from watchdog.events import DirMovedEvent, FileCreatedEvent, FileMovedEvent

from daemon.config.folders import FolderConfig
from daemon.folders import watcher as watcher_module
from daemon.folders.file_events import FolderEvents, is_remote, make_observer
from daemon.folders.finder import Finder
from daemon.folders.following import Following
from daemon.folders.intake import Intake
from daemon.folders.watcher import Watcher


def folder(path: Path, **options: Any) -> FolderConfig:
    return FolderConfig(path=path, **{"task": "x", "settle_seconds": 0, **options})


class FakeObserver:
    """Watchdog's observer as `FolderEvents` sees it, with events told by hand."""

    def __init__(self, kind: str, error: Exception | None = None) -> None:
        self.kind = kind
        self.error = error
        self.emitters: set[Any] = {self}
        self.running = False
        self.handler: Any = None
        self._inotify_fd: threading.Thread | None = None
        self.path = ""

    def schedule(self, handler: Any, path: str, **_options: Any) -> None:
        self.handler, self.path = handler, path

    def start(self) -> None:
        if self.error:
            raise self.error
        self.running = True

    def stop(self) -> None:
        self.running = False

    def join(self) -> None:
        assert not self.running

    def is_alive(self) -> bool:
        return self.running


class Observers:
    """Makes observers and keeps them."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.made: list[FakeObserver] = []
        self.refusal = refusal

    def __call__(self, kind: str) -> Any:
        self.made.append(FakeObserver(kind, self.refusal))
        return self.made[-1]


@pytest.fixture
def still() -> Iterator[Callable[..., tuple[Watcher, FakeLedger, ManualClock]]]:
    """Give watchers whose clock stands, with no events: only what is asked of them happens."""
    watchers = []

    def start(*folders: FolderConfig, **options: Any) -> tuple[Watcher, FakeLedger, ManualClock]:
        ledger, clock = FakeLedger(), ManualClock()
        options = {"observer_factory": None, "clock": clock, **options}
        watcher = Watcher(intake=Intake(submit=ledger.submit, ledger=ledger), **options)
        watchers.append(watcher)
        watcher.start(folders)
        watcher.rescan()
        return watcher, ledger, clock

    yield start
    for watcher in watchers:
        watcher.stop()


def turned(watcher: Watcher) -> None:
    """Return when the thread has had a turn: what is asked for the second time waits for the turn after the first."""
    for _ in range(2):
        watcher._ask(lambda: None)


def test_it_sleeps_until_the_next_deadline(still: Any, tmp_path: Path) -> None:
    """When the clock reaches the deadline and the thread looks, the file is taken; the rescan needs no event."""
    (tmp_path / "a").write_text("a")
    watcher, ledger, clock = still(folder(tmp_path, settle_seconds=2))
    assert watcher.status()[0].waiting == 1
    clock.now += 2
    watcher.wake()
    assert ledger.wait(1) == ["a"]
    (tmp_path / "b").write_text("b")
    for passed in (60, 2):
        clock.now += passed
        watcher.wake()
        turned(watcher)
    assert ledger.wait(2) == ["a", "b"]


def test_rescan_says_how_much_it_found(still: Any, tmp_path: Path) -> None:
    """Files taken by it and files that wait are counted."""
    first, second = tmp_path / "1", tmp_path / "2"
    for path in (first, second):
        path.mkdir()
    watcher, ledger, _ = still(folder(first), folder(second, settle_seconds=5))
    assert watcher.rescan() == 0
    for path in (first / "a", first / "b", second / "c"):
        path.write_text(path.name)
    assert watcher.rescan() == 3
    assert watcher.rescan() == 1
    assert sorted(ledger.inputs) == ["a", "b"]


def test_status_is_there_before_the_first_look(tmp_path: Path) -> None:
    """Every folder that is switched on is listed as soon as the watcher has started."""
    ledger = FakeLedger()
    watcher = Watcher(intake=Intake(submit=ledger.submit, ledger=ledger), observer_factory=None)
    watcher.start([folder(tmp_path), folder(tmp_path / "off", enabled=False)])
    assert [status.path for status in watcher.status()] == [tmp_path]
    watcher.stop()


def test_folders_change_while_it_runs(still: Any, tmp_path: Path) -> None:
    """What stays is left undisturbed, what goes is no longer looked at, what comes is looked at at once."""
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.mkdir()
        (path / f"{path.name}1").write_text(path.name)
    watcher, ledger, _ = still(*(folder(path) for path in paths[:2]))
    kept = watcher._patrols[paths[0]]
    watcher.reconfigure([folder(paths[0]), folder(paths[2])])
    assert sorted(ledger.wait(3)) == ["a1", "b1", "c1"]
    assert watcher._patrols[paths[0]] is kept
    (paths[1] / "b2").write_text("b2")
    assert watcher.rescan() == 0
    watcher.reconfigure([folder(paths[0], again=True)], rescan_seconds=5)
    assert watcher._patrols[paths[0]] is not kept
    assert watcher._patrols[paths[0]].next_deadline() == 1005


def test_a_watched_folder_inside_another_has_its_own_rules(still: Any, tmp_path: Path) -> None:
    """Each file is taken by the innermost folder; when that is no longer watched, by the outer one."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a").write_text("a")
    watcher, ledger, _ = still(folder(tmp_path, task="outer"), folder(inner, task="inner"))
    assert [job.task for job in ledger.jobs] == ["inner"]
    watcher.reconfigure([folder(tmp_path, task="outer")])
    watcher.rescan()
    assert [job.task for job in ledger.jobs] == ["inner", "outer"]


def test_one_folders_surprise_is_not_the_others(still: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error nobody thought of is logged and shown, that folder tries again later, the others go on."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    for path in (good, bad):
        path.mkdir()

    class Surprising(Finder):
        def all(self) -> Any:
            if self._root.endswith("bad"):
                raise ZeroDivisionError
            return super().all()

    with caplog.at_level(logging.CRITICAL, "daemon.folders.watcher"):
        watcher, ledger, _ = still(folder(bad), folder(good), finder=Surprising)
        (good / "a").write_text("a")
        watcher.rescan()
    assert ledger.inputs == ["a"]
    assert watcher.status()[0].problem == "files wait: unexpected ZeroDivisionError"
    assert watcher.status()[1].problem is None


def test_who_asks_a_watcher_that_does_not_run_is_not_kept_waiting(tmp_path: Path) -> None:
    """Before the start and after the stop nothing is found; stopping twice, or without a start, does no harm."""
    watcher = Watcher(intake=Intake(submit=FakeLedger().submit, ledger=FakeLedger()), observer_factory=None)
    assert watcher.rescan() == 0
    assert watcher.status() == []
    watcher.start([folder(tmp_path)])
    watcher.stop()
    assert watcher.rescan() == 0
    watcher.stop()
    never = Watcher(intake=Intake(submit=FakeLedger().submit, ledger=FakeLedger()))
    never.stop()


def test_who_waits_when_it_stops_is_let_go(tmp_path: Path) -> None:
    """A rescan that was asked for and never done answers 0 when the thread ends."""
    held, go_on = threading.Event(), threading.Event()

    class Holding(Finder):
        def ready(self) -> bool:
            held.set()
            go_on.wait(20)
            return False

    answers = []
    with watching(folder(tmp_path), observer_factory=None, finder=Holding) as (watcher, _):
        assert held.wait(20)
        asking = threading.Thread(target=lambda: answers.append(watcher.rescan()))
        asking.start()
        with watcher._changed:
            assert watcher._changed.wait_for(lambda: watcher._commands, 20)
            watcher._stopping = True
            go_on.set()
        asking.join(20)
    assert answers == [0]


def test_an_error_of_a_command_reaches_who_asked(still: Any, tmp_path: Path) -> None:
    """The thread lives on."""
    watcher, _, _ = still(folder(tmp_path))
    with pytest.raises(ZeroDivisionError):
        watcher._ask(lambda: 1 // 0)
    assert watcher.rescan() == 0


# Events.


def test_a_swarm_of_hints_becomes_one_scan(still: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit single hints are dropped for a look at everything: the memory stays small, nothing is missed."""
    monkeypatch.setattr(watcher_module, "_MOST_HINTS", 3)
    held, go_on = threading.Event(), threading.Event()
    watcher, ledger, clock = still(folder(tmp_path))

    def hold() -> None:
        held.set()
        go_on.wait(20)

    asking = threading.Thread(target=lambda: watcher._ask(hold))
    asking.start()
    assert held.wait(20)
    for number in range(10):
        (tmp_path / str(number)).write_text(str(number))
        watcher._hint(tmp_path, str(number))
    assert len(watcher._hints[tmp_path]) <= 3
    clock.now += 2
    go_on.set()
    asking.join(20)
    watcher.rescan()
    assert len(ledger.inputs) == 10


def test_events_wake_the_thread(still: Any, tmp_path: Path) -> None:
    """Created, moved in, moved within: the places are looked at; what lies outside leads to a scan."""
    observers = Observers()
    watcher, ledger, clock = still(folder(tmp_path), observer_factory=observers)
    (observer,) = observers.made
    assert observer.kind == "native"
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    observer.handler.dispatch(FileCreatedEvent(f"{observer.path}/a"))
    assert ledger.wait(1) == ["a"]
    observer.handler.dispatch(FileMovedEvent(f"{observer.path}/old", os.fsencode(f"{observer.path}/b")))
    assert ledger.wait(2) == ["a", "b"]
    observer.handler.dispatch(DirMovedEvent(observer.path, "/elsewhere"))
    turned(watcher)
    clock.now += 2
    watcher.wake()
    assert ledger.wait(3) == ["a", "b", "c"]


def test_events_follow_the_folder(still: Any, tmp_path: Path) -> None:
    """A folder that went and came back, or whose emitter ended itself, gets new events; a stopped one keeps none."""
    observers = Observers()
    root = tmp_path / "in"
    watcher, _, _ = still(folder(root), observer_factory=observers)
    assert observers.made == []
    root.mkdir()
    watcher.rescan()
    assert [observer.running for observer in observers.made] == [True]
    root.rename(tmp_path / "away")
    root.mkdir()
    watcher.rescan()
    assert [observer.running for observer in observers.made] == [False, True]
    observers.made[1].running = False
    watcher.rescan()
    assert [observer.running for observer in observers.made] == [False, False, True]
    root.rmdir()
    watcher.rescan()
    assert [observer.running for observer in observers.made] == [False, False, False]
    assert "does not exist" in str(watcher.status()[0].problem)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "limit of watched folders"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
        (RuntimeError("already scheduled"), "already scheduled"),
    ],
    ids=["limit", "permission", "extension"],
)
def test_without_events_the_rescan_remains(still: Any, tmp_path: Path, error: Exception, words: str) -> None:
    """The system's refusal is shown, tried again at the next scan, and files are taken all the same."""
    observers = Observers(error)
    watcher, ledger, _ = still(folder(tmp_path), observer_factory=observers)
    problem = str(watcher.status()[0].problem)
    assert problem.startswith("changes are only noticed at rescans")
    assert words in problem
    (tmp_path / "a").write_text("a")
    watcher.rescan()
    assert ledger.inputs == ["a"]
    observers.refusal = None
    watcher.rescan()
    assert watcher.status()[0].problem is None
    assert observers.made[-1].running


def test_a_reader_of_events_that_ended_is_noticed(still: Any, tmp_path: Path) -> None:
    """All of watchdog's emitters share one thread that reads inotify: without it nothing would ever be told."""
    observers = Observers()
    watcher, _, _ = still(folder(tmp_path), observer_factory=observers)
    ended = threading.Thread()
    observers.made[0]._inotify_fd = ended
    made = observers.__call__

    def without_reader(kind: str) -> Any:
        made(kind)._inotify_fd = ended
        return observers.made[-1]

    watcher._patrols[tmp_path]._following._factory = without_reader
    watcher.rescan()
    assert "the reader of events has ended" in str(watcher.status()[0].problem)
    assert not any(observer.running for observer in observers.made)


@pytest.mark.parametrize(("events", "kinds"), [("native", ["native"]), ("polling", ["polling"]), ("off", [])])
def test_the_kind_of_events_can_be_chosen(tmp_path: Path, events: str, kinds: list[str]) -> None:
    """The folder's setting decides; off means none at all."""
    observers = Observers()
    following = Following(folder(tmp_path, events=events), observer_factory=observers, on_hint=print)
    following.follow((1, 2))
    following.follow((1, 2))
    assert [observer.kind for observer in observers.made] == kinds
    following.stop()


def test_network_file_systems_are_known(tmp_path: Path) -> None:
    """The innermost mount decides."""
    mounts = [("/", "apfs"), ("/Volumes/nas", "smbfs"), ("/Volumes/nas/disk", "hfs"), ("/mnt/fuse", "fuse.sshfs")]
    for path, remote in {
        "/Users/ada": False,
        "/Volumes/nas": True,
        "/Volumes/nas/in": True,
        "/Volumes/nasty": False,
        "/Volumes/nas/disk/in": False,
        "/mnt/fuse/x": True,
    }.items():
        assert is_remote(Path(path), lambda: mounts) is remote, path
    assert is_remote(tmp_path) is False


def test_watchdogs_observers_are_made() -> None:
    """The two kinds are watchdog's own."""
    assert type(make_observer("polling")).__name__ == "PollingObserverVFS"
    assert type(make_observer("native")).__name__ in ("InotifyObserver", "FSEventsObserver", "KqueueObserver")


def test_polling_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither out of the folder nor in circles: two links to their own folder would double the listing 40 times."""
    root, outside, heard = tmp_path / "in", tmp_path / "outside", Queue[str | None]()
    for folder in (root, outside):
        folder.mkdir()
    for name, target in (("one", root), ("two", root), ("out", outside)):
        (root / name).symlink_to(target)
    monkeypatch.setattr("daemon.folders.file_events._POLLING_SECONDS", 0.02)
    events = FolderEvents(root, recursive=True, observer=make_observer("polling"), on_hint=heard.put)
    events.start()
    try:
        (outside / "elsewhere.txt").touch()
        (root / "here.txt").touch()
        assert heard.get(timeout=10) == "here.txt"
    finally:
        events.stop()


def test_event_paths_are_relative_to_the_real_folder(tmp_path: Path) -> None:
    """MacOS tells real paths of a folder that was asked for by another; what lies elsewhere is a suspicion."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    heard: list[str | None] = []
    observer: Any = FakeObserver("native")
    events = FolderEvents(tmp_path / "link", recursive=True, observer=observer, on_hint=heard.append)
    events.start()
    for path in ("real/a/b", "real", "realistic"):
        events.dispatch(FileCreatedEvent(str(tmp_path / path)))
    assert heard == ["a/b", "", None]
    events.stop()
