"""One watched folder on real files, with time and looks in the test's hands."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from fakes_folders import Bench

from daemon.config.folders import FolderConfig
from daemon.folders.access import Access
from daemon.folders.complaints import Complaints
from daemon.folders.identity import FileChanged
from daemon.views import FolderState
from jobs.errors import InvalidParams, QueueFull


def folder(path: Path, **options: Any) -> FolderConfig:
    return FolderConfig(path=path, **{"task": "generate", "match": "*", **options})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder(tmp_path))


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or path.name)
    return path


def test_files_that_were_there_are_taken(bench: Bench, tmp_path: Path) -> None:
    """The first scan finds what lies there, below too; after the settling time it is taken, and only once."""
    write(tmp_path / "a.txt")
    write(tmp_path / "x" / "y" / "b.txt")
    assert bench.scan() == []
    assert bench.patrol.status().waiting == 2
    assert bench.turn(1.9) == []
    assert sorted(bench.turn(0.1)) == ["a.txt", "b.txt"]
    assert bench.patrol.status().taken == 2
    assert bench.patrol.status().waiting == 0
    for _ in range(3):
        assert len(bench.settle()) == 2


def test_a_file_found_by_a_long_scan_settles_from_when_it_was_seen(tmp_path: Path) -> None:
    """Ten thousand files before it took the scan ten seconds: its own settling time begins when it is looked at."""
    looks = iter([10.0])

    def slow_disk(_status: os.stat_result) -> bool:
        bench.clock.now += next(looks, 0.0)
        return False

    bench = Bench(folder(tmp_path), dataless=slow_disk)
    write(tmp_path / "a.txt", "half")
    assert bench.turn() == []
    assert bench.turn() == []
    assert bench.turn(1.9) == []
    assert bench.turn(0.1) == ["a.txt"]


def test_a_growing_file_is_taken_when_it_is_complete(bench: Bench, tmp_path: Path) -> None:
    """As long as it grows, the wait starts again; hints tell of it or not."""
    path = write(tmp_path / "a.txt", "1")
    bench.scan()
    for number in range(5):
        with path.open("a") as file:
            file.write("more")
        if number % 2:
            bench.patrol.hint("a.txt", bench.clock.now)
        assert bench.turn(1.9) == []
    assert bench.turn(2.0) == ["a.txt"]
    assert bench.ledger.jobs[0].params["file"] == str(path)


def test_a_file_deleted_before_it_settled_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    """It is dropped without a complaint."""
    path = write(tmp_path / "a.txt")
    bench.scan()
    path.unlink()
    assert bench.turn(5.0) == []
    assert bench.patrol.status().waiting == 0
    assert bench.problem is None


def test_a_file_replaced_by_a_folder_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    """What is in the folder is found by itself, under its own name."""
    path = write(tmp_path / "a.txt")
    bench.scan()
    path.unlink()
    write(tmp_path / "a.txt" / "b.txt")
    assert bench.turn(5.0) == []
    assert bench.settle() == ["b.txt"]


def test_an_empty_file_is_taken_later(bench: Bench, tmp_path: Path) -> None:
    """It waits ten times as long and then counts, so that its job can say what is wrong."""
    (tmp_path / "a.txt").touch()
    bench.scan()
    assert bench.turn(19.0) == []
    assert bench.turn(1.0) == ["a.txt"]


def test_hints_are_enough(bench: Bench, tmp_path: Path) -> None:
    """A hint for a file, and one for a folder that was moved in, find what is there."""
    bench.scan()
    write(tmp_path / "a.txt")
    write(tmp_path / "new" / "deep" / "b.txt")
    for hint in ("a.txt", "new", "gone.txt"):
        bench.patrol.hint(hint, bench.clock.now)
    assert sorted(bench.turn(2.0)) == ["a.txt", "b.txt"]
    bench.patrol.hint("a.txt", bench.clock.now)
    assert bench.patrol.status().waiting == 0


def test_no_hint_is_needed(bench: Bench, tmp_path: Path) -> None:
    """The rescan finds everything, when its time has come and not before."""
    bench.scan()
    write(tmp_path / "a.txt")
    assert bench.patrol.next_deadline() == bench.clock.now + 60
    bench.turn(59.9)
    assert bench.patrol.status().waiting == 0
    bench.turn(0.1)
    assert bench.patrol.status().waiting == 1
    assert bench.turn(2.0) == ["a.txt"]


@pytest.mark.parametrize("hint", [None, "", ".mlxd.toml"])
def test_what_no_hint_describes_leads_to_a_scan_soon(bench: Bench, tmp_path: Path, hint: str | None) -> None:
    """Lost events, the folder itself and its recipe: a second later everything is looked at."""
    bench.scan()
    write(tmp_path / "a.txt")
    for _ in range(3):
        bench.patrol.hint(hint, bench.clock.now)
    assert bench.patrol.next_deadline() == bench.clock.now + 1
    bench.turn(1.0)
    assert bench.turn(2.0) == ["a.txt"]


def test_names_that_events_spell_their_own_way_are_not_believed(tmp_path: Path) -> None:
    """FSEvents composes and decomposes accents: such a hint leads to a scan, which has the names as they are."""
    bench = Bench(folder(tmp_path, again=True), exact_names=False)
    bench.scan()
    write(tmp_path / "cafe\u0301.txt")
    bench.patrol.hint("caf\u00e9.txt", bench.clock.now)
    bench.patrol.hint("cafe\u0301.txt", bench.clock.now)
    assert bench.patrol.status().waiting == 0
    bench.turn(1.0)
    assert bench.turn(2.0) == ["cafe\u0301.txt"]


def test_links_pipes_and_hidden_things_are_left_alone(bench: Bench, tmp_path: Path) -> None:
    """Only ordinary files with ordinary names in ordinary folders are inputs; a hard link is one."""
    real = write(tmp_path.parent / f"{tmp_path.name}-outside" / "secret.txt")
    (tmp_path / "link.txt").symlink_to(real)
    (tmp_path / "linked").symlink_to(real.parent)
    os.mkfifo(tmp_path / "pipe")
    names = (".hidden", ".git/a", "done/a.txt", "X.app/a.txt", "a.txt.part", "a.error.txt", "movie.m4a.download/a")
    for name in names:
        write(tmp_path / name)
    (tmp_path / "hard.txt").hardlink_to(real)
    assert bench.settle() == ["hard.txt"]
    for hint in (*names, "link.txt", "linked", "linked/secret.txt", "pipe", "done", ".git"):
        bench.patrol.hint(hint, bench.clock.now)
    assert bench.patrol.status().waiting == 0


def test_a_folder_that_is_not_recursive_looks_no_deeper(tmp_path: Path) -> None:
    """Neither scans nor hints go below."""
    bench = Bench(folder(tmp_path, recursive=False))
    write(tmp_path / "a.txt")
    write(tmp_path / "x" / "b.txt")
    bench.scan()
    bench.patrol.hint("x/b.txt", bench.clock.now)
    bench.patrol.hint("x", bench.clock.now)
    assert bench.turn(2.0) == ["a.txt"]


def test_output_folders_and_other_watched_folders_are_left_alone(tmp_path: Path) -> None:
    """What a rule writes to, and what has rules of its own, is not looked into."""
    inner = tmp_path / "inner"
    bench = Bench(folder(tmp_path, output="out"), excluded=frozenset({inner, Path("/elsewhere")}))
    for name in ("a.txt", "out/b.txt", "inner/c.txt"):
        write(tmp_path / name)
    bench.scan()
    for hint in ("out", "out/b.txt", "inner/c.txt"):
        bench.patrol.hint(hint, bench.clock.now)
    assert bench.turn(2.0) == ["a.txt"]


def test_outputs_beside_the_input_are_left_alone(bench: Bench, tmp_path: Path) -> None:
    """What a job wrote is known as such, also after it was edited."""
    path = write(tmp_path / "a.txt")
    bench.ledger.outputs.add(path)
    assert bench.settle() == []
    path.write_text("corrected by hand")
    assert bench.settle() == []


def test_a_name_that_only_a_rule_refuses_is_left_alone(tmp_path: Path) -> None:
    """What no rule takes is not even looked at."""
    bench = Bench(FolderConfig(path=tmp_path))
    for name in ("a.wav", "b.txt", "c.xyz"):
        write(tmp_path / name)
    assert sorted(bench.settle()) == ["a.wav", "b.txt"]
    assert {job.task for job in bench.ledger.jobs} == {"transcribe", "generate"}


def test_a_file_in_the_cloud_is_not_touched(tmp_path: Path) -> None:
    """It is reported, never opened, and taken when it has been downloaded."""
    away = {"a.txt"}
    path = write(tmp_path / "a.txt")
    inode = path.stat().st_ino
    bench = Bench(folder(tmp_path), dataless=lambda status: status.st_ino == inode and bool(away))
    assert bench.settle() == []
    assert bench.problem == "1 file is still in the cloud; taken when downloaded"
    away.clear()
    assert bench.settle() == ["a.txt"]
    assert bench.problem is None


def test_a_missing_folder_is_reported_and_taken_up_when_it_appears(tmp_path: Path) -> None:
    """Nothing is made that was not asked for; and its removal later is no accident either."""
    root = tmp_path / "in"
    bench = Bench(folder(root))
    assert bench.scan() == []
    assert bench.problem == "the folder does not exist; it is watched as soon as it appears"
    assert not root.exists()
    path = write(root / "a.txt")
    bench.scan(60)
    assert bench.problem is None
    path.unlink()
    root.rmdir()
    assert bench.scan(60) == []
    assert bench.patrol.status().waiting == 0
    bench.patrol.hint("a.txt", bench.clock.now)
    assert "does not exist" in str(bench.problem)


def test_the_inbox_is_made(tmp_path: Path) -> None:
    """A folder with `create` is there after the first scan, and again after its removal."""
    root = tmp_path / "deep" / "in"
    bench = Bench(folder(root, create=True))
    for _ in range(2):
        bench.scan()
        assert bench.problem is None
        root.rmdir()


def test_a_folder_that_cannot_be_made_or_is_none_is_reported(tmp_path: Path) -> None:
    """A file in its place, or above it, is told."""
    write(tmp_path / "file")
    bench = Bench(folder(tmp_path / "file" / "in", create=True))
    bench.scan()
    assert "the folder cannot be made" in str(bench.problem)
    assert "the folder cannot be reached: Not a directory" in str(bench.problem)
    bench = Bench(folder(tmp_path / "file"))
    bench.scan()
    assert bench.problem == "this is no folder"


def test_a_folder_that_cannot_be_listed_is_reported(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is taken; when it can be listed again, the report goes."""
    write(tmp_path / "a.txt")
    write(tmp_path / "closed" / "b.txt")
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith(refused):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("daemon.folders.scan.os.scandir", refusing)
    refused = "closed"
    assert bench.settle() == ["a.txt"]
    assert bench.problem == "closed cannot be listed: Permission denied"
    refused = tmp_path.name
    bench.scan()
    assert str(bench.problem).startswith("the folder cannot be listed: Permission denied. Let your user read it: chmod")
    assert bench.patrol.status().state is FolderState.NEEDS_PERMISSION
    refused = "nothing"
    assert bench.settle() == ["a.txt", "b.txt"]
    assert bench.problem is None


def test_complaints_can_be_shown_whatever_a_file_is_called(bench: Bench, tmp_path: Path) -> None:
    """Line ends, escape sequences and bytes that are no text come out harmless, as valid JSON."""
    for name in (b"\xff.txt", b"\x1b[2Jevil\n.txt"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123 - the name is bytes
            file.write(name)
    bench.settle()
    bench.patrol._complaints.at("x", "\udcff\n\x1b[2J cannot be listed")
    status = bench.patrol.status()
    assert status.problem is not None
    assert status.problem.isprintable()
    assert status.model_dump_json()


def test_a_folder_that_does_not_answer_is_reported(tmp_path: Path) -> None:
    """A privacy question that nobody answers holds up nothing; the answer is noticed at a later scan."""
    import threading

    answered = threading.Event()
    looked = threading.Event()

    def look() -> None:
        answered.wait()
        looked.set()
        raise PermissionError

    write(tmp_path / "a.txt")
    access = Access(look, patience=0.0)
    bench = Bench(folder(tmp_path), access=access)
    bench.scan()
    assert "the folder does not answer" in str(bench.problem)
    answered.set()
    assert looked.wait(10)
    assert access._returned.wait(10)
    assert bench.settle() == ["a.txt"]


def test_a_full_queue_makes_files_wait(bench: Bench, tmp_path: Path) -> None:
    """Nobody is lost and nobody asks again before the pause is over; pauses grow, success ends them."""
    for name in ("a.txt", "b.txt", "c.txt"):
        write(tmp_path / name)
    bench.scan()
    bench.ledger.errors = [QueueFull("too many"), QueueFull("too many")]
    assert bench.turn(2.0) == []
    assert len(bench.ledger.errors) == 1
    assert bench.problem == "files wait: too many"
    assert bench.patrol.next_deadline() == bench.clock.now + 1
    assert bench.turn(0.9) == []
    assert len(bench.ledger.errors) == 1
    assert bench.turn(0.1) == []
    assert bench.patrol.next_deadline() == bench.clock.now + 2
    assert len(bench.turn(2.0)) == 3
    assert bench.problem is None


def test_a_pause_ends_when_nobody_waits_any_more(bench: Bench, tmp_path: Path) -> None:
    """A file that was taken away meanwhile does not leave its complaint behind."""
    path = write(tmp_path / "a.txt")
    bench.scan()
    bench.ledger.errors = [QueueFull()]
    bench.turn(2.0)
    path.unlink()
    bench.turn(1.0)
    bench.turn(0.0)
    assert bench.problem is None


def test_pauses_grow_to_a_minute(bench: Bench, tmp_path: Path) -> None:
    """However long the trouble lasts, it is tried again every minute."""
    write(tmp_path / "a.txt")
    bench.scan()
    bench.ledger.errors = [QueueFull() for _ in range(20)]
    bench.turn(2.0)
    pauses = []
    for _ in range(8):
        pauses.append(bench.patrol._paused_until - bench.clock.now)
        bench.turn(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_rule_that_cannot_be_used_is_reported_once(bench: Bench, tmp_path: Path) -> None:
    """Its files wait for the next scan without being tried one by one; then it may work."""
    for number in range(5):
        write(tmp_path / f"{number}.txt")
    bench.scan()
    bench.ledger.errors = [InvalidParams("max_tokens: too many")]
    assert bench.turn(2.0) == []
    assert bench.problem == "rule 'generate' cannot be used: max_tokens: too many"
    assert len(bench.settle()) == 5
    assert bench.problem is None


def test_a_file_that_is_refused_is_tried_at_the_next_scan(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unreadable file is named, and in no other's way."""

    def refuse(*_args: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("a.txt", "b.txt"):
        write(tmp_path / name)
    with monkeypatch.context() as patch:
        patch.setattr("daemon.folders.identity.os.open", refuse)
        bench.settle()
    assert "txt: Permission denied (and 1 more)" in str(bench.problem)
    assert sorted(bench.settle()) == ["a.txt", "b.txt"]
    assert bench.problem is None


def test_a_file_that_changes_under_the_hand_settles_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noticed while it was opened: it is not given up, it waits once more."""
    write(tmp_path / "a.txt")
    bench.scan()

    def changed(*_args: Any) -> int:
        raise FileChanged

    with monkeypatch.context() as patch:
        patch.setattr("daemon.folders.identity.require_unchanged", changed)
        assert bench.turn(2.0) == []
    assert bench.turn(1.9) == []
    assert bench.turn(0.1) == ["a.txt"]


def test_large_files_are_read_elsewhere(tmp_path: Path) -> None:
    """A film does not hold up a memo; it counts as waiting, is not read twice, and is taken when it was read."""
    bench = Bench(folder(tmp_path), large=10)
    write(tmp_path / "film", "x" * 100)
    write(tmp_path / "memo", "short")
    bench.scan()
    assert bench.turn(2.0) == ["memo"]
    assert bench.patrol.status().waiting == 1
    bench.settle()
    assert len(bench.background.waiting) == 1
    bench.background.run()
    assert bench.wakes == 1
    assert bench.turn(0.0) == ["memo", "film"]
    assert bench.patrol.status().waiting == 0
    assert len(bench.settle()) == 2


def test_a_large_file_that_is_refused_or_changed_comes_again(tmp_path: Path) -> None:
    """What is learnt elsewhere counts as if it was learnt here."""
    bench = Bench(folder(tmp_path), large=10)
    film = write(tmp_path / "film", "x" * 100)
    bench.settle()
    bench.ledger.errors = [QueueFull("full")]
    bench.background.run()
    bench.turn()
    assert bench.problem == "files wait: full"
    bench.turn(2.0)
    film.write_text("y" * 200)
    bench.background.run()
    bench.turn()
    bench.turn(2.0)
    bench.background.run()
    assert bench.turn() == ["film"]
    bench.turn(60)
    film.write_text("z" * 300)
    bench.settle()
    bench.background.waiting[0][0].cancel()
    bench.background.waiting.clear()
    assert bench.turn() == ["film"]
    assert bench.patrol.status().waiting == 0


def test_a_burst_is_taken_in_portions(bench: Bench, tmp_path: Path) -> None:
    """A turn ends after a hundred files, so that the thread can hear what else is wanted; the next is due at once."""
    for number in range(250):
        write(tmp_path / f"{number}.txt")
    bench.scan()
    assert len(bench.turn(2.0)) == 100
    assert bench.patrol.next_deadline() <= bench.clock.now
    assert len(bench.turn()) == 200
    assert len(bench.turn()) == 250


# .mlxd.toml


def test_a_recipe_replaces_the_rules(bench: Bench, tmp_path: Path) -> None:
    """The folder's own rules count, change when the file changes, and go with it."""
    write(tmp_path / ".mlxd.toml", 'task = "transcribe"\nmatch = "*.a"')
    for name in ("1.a", "2.b"):
        write(tmp_path / name)
    assert bench.settle() == ["1.a"]
    assert bench.patrol.status().rules == ("transcribe",)
    write(tmp_path / ".mlxd.toml", 'task = "memo"\nmatch = ["*.a", "*.b"]')
    assert bench.settle() == ["1.a", "2.b"]
    assert [job.task for job in bench.ledger.jobs] == ["transcribe", "memo"]
    (tmp_path / ".mlxd.toml").unlink()
    bench.scan()
    assert bench.patrol.status().rules == ("generate",)


def test_a_broken_recipe_leaves_the_files_alone(bench: Bench, tmp_path: Path) -> None:
    """It is the folder's problem, with file and key, until it is put right."""
    write(tmp_path / "a.txt")
    bench.scan()
    recipe = write(tmp_path / ".mlxd.toml", 'tsk = "transcribe"')
    bench.patrol.hint(".mlxd.toml", bench.clock.now)
    bench.turn(1.0)
    assert bench.turn(5.0) == []
    assert f"{recipe} has 2 mistakes" in str(bench.problem)
    assert 'tsk: no such key; did you mean "task"?' in str(bench.problem)
    for _ in range(2):
        bench.scan()
        assert "mistakes" in str(bench.problem)
    write(tmp_path / ".mlxd.toml", 'task = "x"')
    assert bench.settle() == ["a.txt"]
    assert bench.problem is None


def test_a_recipe_can_be_forbidden(tmp_path: Path) -> None:
    """With `recipe = false` the file is a hidden file like others."""
    write(tmp_path / ".mlxd.toml", "nonsense")
    write(tmp_path / "a.txt")
    bench = Bench(folder(tmp_path, recipe=False))
    assert bench.settle() == ["a.txt"]


def test_complaints_are_one_line() -> None:
    """General ones first and once each, then the first of the single ones, then the cloud."""
    complaints = Complaints()
    assert complaints.text() is None
    for _ in range(2):
        complaints.add("general")
    complaints.at("a", "a is bad")
    complaints.tried("b", "b is bad")
    complaints.in_cloud("c")
    complaints.in_cloud("d")
    assert complaints.text() == (
        "general; a is bad (and 1 more); 2 files are still in the cloud; taken when downloaded"
    )
    complaints.settled("b")
    complaints.settled("c")
    assert complaints.text() == "general; a is bad; 1 file is still in the cloud; taken when downloaded"


def test_what_is_tried_again_does_not_look_well_in_between() -> None:
    """A refusal stays from look to look; one that was not met again goes at the second look."""
    complaints = Complaints()
    complaints.tried("a", "a is bad")
    complaints.add("general")
    complaints.renew()
    assert complaints.text() == "a is bad"
    complaints.tried("a", "a is worse")
    complaints.renew()
    assert complaints.text() == "a is worse"
    complaints.renew()
    assert complaints.text() is None


def test_a_link_that_becomes_a_folder_while_it_is_looked_at_is_left_alone(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.path.realpath` asks twice and raises if the answers do not fit; nobody can hold up the folder by that."""
    write(tmp_path / "x" / "a.txt")
    bench.scan()

    def realpath(path: str) -> str:
        raise OSError(errno.EINVAL, "no link any more", path)

    monkeypatch.setattr("os.path.realpath", realpath)
    assert bench.turn(2.0) == []
    assert bench.problem is None
    monkeypatch.undo()
    assert bench.settle() == ["a.txt"]


@pytest.mark.parametrize("size", ["small", "large"])
def test_what_lost_its_job_is_judged_anew(tmp_path: Path, size: str) -> None:
    """A file that was known as a job's is taken when that has stepped aside, also if it was just being read."""
    bench = Bench(folder(tmp_path), large=10 if size == "large" else 1 << 20)
    write(tmp_path / "a.txt", "more than ten")
    bench.settle()
    bench.background.run()
    assert bench.turn() == ["a.txt"]
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    bench.settle()
    if size == "small":
        bench.ledger.keys.clear()
        bench.patrol.reconsider("a.txt", bench.clock.now)
    else:
        bench.patrol.reconsider("a.txt", bench.clock.now)
        bench.background.run()
        bench.ledger.keys.clear()
    bench.turn()
    bench.turn(2.0)
    bench.background.run()
    assert bench.turn() == ["a.txt", "a.txt"]


def test_what_has_a_job_of_its_own_is_judged_anew_and_known(bench: Bench, tmp_path: Path) -> None:
    """Being asked about twice makes no second job of it, and what is gone is forgotten."""
    path = write(tmp_path / "a.txt")
    bench.settle()
    bench.patrol.reconsider("a.txt", bench.clock.now)
    assert bench.patrol.status().waiting == 1
    assert bench.turn(2.0) == ["a.txt"]
    assert bench.patrol.status().waiting == 0
    path.unlink()
    bench.patrol.reconsider("a.txt", bench.clock.now)
    assert bench.patrol.status().waiting == 0
