"""`daemon.shortcuts`: what is installed where, who is told, and what stays."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes_shortcuts import FakeMac, signing

from daemon.config.shortcuts import ShortcutConfig
from daemon.paths import Home, find_home
from daemon.shortcuts import BUILT_IN, Kind, Shelf, actions, of_task
from jobs.errors import InvalidRequest, ServiceError
from launchd.contract import Answer
from launchd.embedded import Gives, Takes
from launchd.receipts import Condition


@pytest.fixture(name="person")
def _person(tmp_path: Path) -> Path:
    (person := tmp_path / "Ada's").mkdir()
    return person


@pytest.fixture(name="home")
def _home(person: Path) -> Home:
    return find_home({"MLXD_HOME": str(person / "mlxd")})


@pytest.fixture(name="mac")
def _mac() -> FakeMac:
    return FakeMac(
        shortcuts=signing("people-who-know-me"),
        osascript=lambda words: Answer(0, {"bind": "bound", "unbind": "unbound"}[words[5]], ""),
    )


@pytest.fixture(name="shelf")
def _shelf(home: Home, person: Path, mac: FakeMac) -> Shelf:
    return Shelf(home, environ={"HOME": str(person), "MLXD_HOME": str(person / "mlxd")}, platform="darwin", run=mac)


def test_quick_actions_lie_where_macos_looks(shelf: Shelf, person: Path, mac: FakeMac) -> None:
    """All built-in ones in ~/Library/Services; pbs is told once; the launcher is there and executable."""
    done = shelf.install(BUILT_IN, Kind.QUICK_ACTION)
    services = person / "Library" / "Services"
    assert [one.receipt.path for one in done] == [services / f"{each.title}.workflow" for each in BUILT_IN.values()]
    for one in done:
        document = plistlib.loads((one.receipt.path / "Contents" / "document.wflow").read_bytes())
        script = document["actions"][0]["action"]["ActionParameters"]["COMMAND_STRING"]
        assert str(shelf.launcher).replace("'", "'\"'\"'") in script
    assert mac.asked == [["/System/Library/CoreServices/pbs", "-update"]]
    assert shelf.launcher.stat().st_mode & 0o777 == 0o700
    assert shelf.launcher.parent.stat().st_mode & 0o777 == 0o700, "as the daemon would have made it"
    assert f"MLXD_HOME='{person.parent}/Ada'\"'\"'s/mlxd'" in shelf.launcher.read_text()


def test_installing_again_changes_nothing(shelf: Shelf) -> None:
    """It may be repeated; each action has one receipt."""
    shelf.install(BUILT_IN, Kind.QUICK_ACTION)
    before = shelf.installed()
    shelf.install(BUILT_IN, Kind.QUICK_ACTION)
    assert {one.path: one for one, _ in shelf.installed()} == {one.path: one for one, _ in before}
    assert len(shelf.installed()) == len(BUILT_IN) + 1
    assert {condition for _, condition in shelf.installed()} == {Condition.INSTALLED}


def test_removing_takes_everything_of_ours(shelf: Shelf, person: Path, mac: FakeMac) -> None:
    """And nothing else: a stranger's service stays, and the launcher goes with the last action."""
    theirs = person / "Library" / "Services" / "Theirs.workflow"
    theirs.mkdir(parents=True)
    shelf.install(BUILT_IN, Kind.QUICK_ACTION)
    gone, refused = shelf.remove(["transcribe"])
    assert [one.name for one in gone] == ["transcribe"]
    assert shelf.launcher.exists()
    gone, refused = shelf.remove([])
    assert (len(gone), refused) == (len(BUILT_IN), [])
    assert not shelf.launcher.exists()
    assert list(theirs.parent.iterdir()) == [theirs]
    assert mac.calls("pbs") == [["-update"]] * 3
    assert shelf.remove([]) == ([], [])


def test_what_the_person_changed_stays(shelf: Shelf, person: Path) -> None:
    """It is named with what to do, the rest goes, and the launcher that it calls stays too."""
    shelf.install(BUILT_IN, Kind.QUICK_ACTION)
    mine = person / "Library" / "Services" / "Transcribe with mlxd.workflow"
    (mine / "Contents" / "document.wflow").write_text("mine")
    with pytest.raises(ServiceError, match="was changed since it was installed"):
        shelf.install(BUILT_IN, Kind.QUICK_ACTION)
    gone, (sentence,) = shelf.remove([])
    assert len(gone) == len(BUILT_IN) - 1
    assert str(mine) in sentence
    assert (mine / "Contents" / "document.wflow").read_text() == "mine"
    assert shelf.launcher.exists()
    gone, refused = shelf.remove(["transcribe"], force=True)
    assert (len(gone), refused) == (2, [])
    with pytest.raises(ServiceError, match="'transcribe' is not installed"):
        shelf.remove(["transcribe"])


def test_shortcuts_are_signed_and_opened(shelf: Shelf, home: Home, mac: FakeMac) -> None:
    """Each is signed on this Mac, in the mode that works, and shown for import, with what to switch on."""
    (done,) = shelf.install({"transcribe": BUILT_IN["transcribe"]}, Kind.SHORTCUT)
    path = home.state / "shortcuts" / "Transcribe with mlxd.shortcut"
    assert path.read_bytes().startswith(b"AEA1bplist00")
    assert list(path.parent.iterdir()) == [path]
    assert mac.calls("open") == [[str(path)]]
    assert mac.calls("pbs") == []
    assert done.notes[0] == "Signed for people-who-know-me."
    assert "Allow Running Scripts" in done.notes[-1]
    shelf.install({"transcribe": BUILT_IN["transcribe"]}, Kind.SHORTCUT)
    assert {condition for _, condition in shelf.installed()} == {Condition.INSTALLED}


def test_a_launcher_that_macos_will_not_run_is_said(person: Path, mac: FakeMac) -> None:
    """Desktop, Documents and Downloads are closed to the programs that run shortcuts in the background."""
    home = find_home({"MLXD_HOME": str(person / "Documents" / "mlxd")})
    for platform, warned in (("darwin", True), ("linux", False)):
        shelf = Shelf(home, destination=person / platform, environ={"HOME": str(person)}, platform=platform, run=mac)
        (done,) = shelf.install({"summarise": BUILT_IN["summarise"]}, Kind.QUICK_ACTION)
        assert any("Documents/mlxd/state/mlxd-run lies in a folder" in note for note in done.notes) == warned


def test_a_shortcut_that_cannot_be_signed_is_said(shelf: Shelf, mac: FakeMac) -> None:
    """Nothing is opened, and the next attempt finds nothing in its way."""
    mac.answers["shortcuts"] = Answer(1, "", "Error: no account")
    with pytest.raises(ServiceError, match="no account"):
        shelf.install({"transcribe": BUILT_IN["transcribe"]}, Kind.SHORTCUT)
    assert mac.calls("open") == []
    mac.answers["shortcuts"] = signing("anyone")
    (done,) = shelf.install({"transcribe": BUILT_IN["transcribe"]}, Kind.SHORTCUT)
    assert done.notes[0] == "Signed for anyone."


def test_a_folder_action_is_bound_and_unbound(shelf: Shelf, person: Path, mac: FakeMac) -> None:
    """In its own place, bound to the folder by System Events, and undone on removal."""
    inbox = person / "in box"
    (done,) = shelf.install({"transcribe": BUILT_IN["transcribe"]}, Kind.FOLDER_ACTION, folder=inbox)
    path = person / "Library/Workflows/Applications/Folder Actions/Transcribe with mlxd.workflow"
    assert done.receipt.path == path
    assert mac.calls("osascript")[-1][4:] == ["bind", str(inbox), str(path)]
    (path / "mine").write_text("")
    assert len(shelf.remove([])[1]) == 1
    assert len(mac.calls("osascript")) == 1, "what stays stays bound"
    (path / "mine").unlink()
    shelf.remove([])
    assert mac.calls("osascript")[-1][4:] == ["unbind", str(inbox), str(path)]
    assert not path.exists()


def test_a_destination_of_ones_own(home: Home, person: Path, mac: FakeMac, tmp_path: Path) -> None:
    """Everywhere: everything lies there, unsigned, and the system is told nothing."""
    for platform in ("linux", "darwin"):
        place = tmp_path / platform
        shelf = Shelf(home, destination=place, environ={"HOME": str(person)}, platform=platform, run=mac)
        shelf.install(BUILT_IN, Kind.QUICK_ACTION)
        done = shelf.install({"prompts": BUILT_IN["prompts"]}, Kind.SHORTCUT)
        shelf.install({"prompts": BUILT_IN["prompts"]}, Kind.QUICK_ACTION, folder=tmp_path)
        assert len(list(place.iterdir())) == len(BUILT_IN) + 1
        assert ("not signed" in done[0].notes[0]) == (platform == "linux")
    assert {Path(words[0]).name for words in mac.asked} == {"shortcuts"}


def test_without_a_mac_it_says_what_works(home: Home, person: Path) -> None:
    """A plain install is refused with the two things that can be done instead; listing and removing work."""
    shelf = Shelf(home, environ={"HOME": str(person)}, platform="linux")
    with pytest.raises(ServiceError, match=r"--dest DIR.*run-task"):
        shelf.install(BUILT_IN, Kind.QUICK_ACTION)
    assert shelf.installed() == []
    assert shelf.remove([]) == ([], [])


def test_damaged_receipts_stop_everything(shelf: Shelf, home: Home) -> None:
    """What cannot be told apart from the person's own is not touched."""
    home.state.mkdir(parents=True)
    (home.state / "shortcuts.json").write_text("{")
    for act in (shelf.installed, lambda: shelf.remove([]), lambda: shelf.install(BUILT_IN, Kind.QUICK_ACTION)):
        with pytest.raises(ServiceError, match="damaged"):
            act()


def test_the_launcher_works_from_nothing(shelf: Shelf) -> None:
    """Under env -i the installed launcher becomes this mlxd, speaks of its own home, and starts nothing."""
    shelf.install({"summarise": BUILT_IN["summarise"]}, Kind.QUICK_ACTION)
    words = ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", str(shelf.launcher), "generate", "-"]
    done = subprocess.run(words, input="Gr\u00fc\u00dfe".encode(), capture_output=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (3, b"")
    said = done.stderr.decode()
    assert str(shelf.launcher.parent / "mlxd.sock") in said
    assert "mlxd run" in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in shelf.launcher.parent.iterdir()) == ["mlxd-run", "shortcuts.json"]


def test_actions_of_ones_own() -> None:
    """Configured ones join the built-in ones, or take their place; a name becomes a title."""
    own = ShortcutConfig(task="memo", params={"language": "de"})
    text = ShortcutConfig(task="generate", title="Into English", input="text", result="replace")
    found = actions({"voice-memo": own, "summarise": text})
    assert list(found) == [*BUILT_IN, "voice-memo"]
    assert (found["voice-memo"].title, found["voice-memo"].beside) == ("Voice memo with mlxd", True)
    assert found["voice-memo"].params == {"language": "de"}
    assert (found["summarise"].takes, found["summarise"].gives) == (Takes.TEXT, Gives.REPLACE)
    assert not found["summarise"].beside
    assert of_task("noop", title="No", takes="folder").takes is Takes.FOLDER
    for task, title in (("a b", None), ("$(x)", None), ("noop", "x" * 101), ("noop", "a/b")):
        with pytest.raises(InvalidRequest):
            of_task(task, title=title)
    with pytest.raises(InvalidRequest, match=r"shortcuts\.x: 'a/b' cannot be a title"):
        actions({"x": ShortcutConfig(task="t", title="a/b")})
    with pytest.raises(ValueError, match="only text can be replaced"):
        ShortcutConfig(task="t", result="replace")


def test_only_what_says_where_the_home_is_goes_into_the_launcher(home: Home, person: Path) -> None:
    """On Linux that is the XDG folders; nothing else of the shell's environment."""
    environ = {"HOME": str(person), "XDG_STATE_HOME": "/state", "SECRET": "s3cret", "PATH": "/opt"}
    Shelf(home, destination=person / "out", environ=environ, platform="linux").install({}, Kind.QUICK_ACTION)
    text = (home.state / "mlxd-run").read_text()
    assert "XDG_STATE_HOME=/state" in text
    assert "s3cret" not in text
    assert "/opt\n" not in text
    shutil.rmtree(home.state)
