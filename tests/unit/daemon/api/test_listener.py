"""Binding the socket so that nobody else comes near it."""

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from fakes_socket import short_folder

from daemon.api.listener import Origin, bind, check_length, listen, prepare_folder
from jobs.errors import AlreadyRunning, ConfigError


@pytest.fixture
def folder():
    with short_folder() as made:
        yield made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def listening(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_folder_and_socket_are_ours_alone(folder):
    """The folder is made 0700, the socket 0600, and both whatever the umask is."""
    before = os.umask(0)
    try:
        with bind(folder / "state" / "s") as listener:
            assert mode(folder / "state") == 0o700
            assert mode(listener.path) == 0o600
            assert listener.origin is Origin.OWN
    finally:
        os.umask(before)


def test_closing_removes_the_socket_we_made(folder):
    """After close the file is gone; close may be repeated."""
    listener = bind(folder / "s")
    listener.close()
    listener.close()
    assert not (folder / "s").exists()


def test_closing_leaves_another_mlxds_socket(folder):
    """A socket that somebody else has put in our place stays."""
    listener = bind(folder / "s")
    (folder / "s").unlink()
    with listening(folder / "s"):
        listener.close()
        assert (folder / "s").exists()


def test_a_dead_socket_is_replaced(folder):
    """What a killed daemon left behind is in nobody's way."""
    listening(folder / "s").close()
    with bind(folder / "s") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(listener.path))


def test_a_live_socket_is_respected(folder):
    """When somebody answers there, we do not start, and their socket stays."""
    with listening(folder / "s"):
        with pytest.raises(AlreadyRunning, match="Another mlxd answers"):
            bind(folder / "s")
        assert (folder / "s").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses such a connection like one to a dead socket")
def test_a_live_socket_with_a_full_backlog_is_respected(folder):
    """Too busy to accept is alive."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(folder / "s"))
        busy.listen(0)
        first.connect(str(folder / "s"))
        with socket.socket(socket.AF_UNIX) as second:
            second.settimeout(0)
            with pytest.raises(BlockingIOError):
                second.connect(str(folder / "s"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("daemon.api.listener._PROBE_SECONDS", 0.01)
                with pytest.raises(AlreadyRunning):
                    bind(folder / "s")


def test_a_plain_file_is_never_removed(folder):
    """Something that is no socket is left alone, and the message names it."""
    (folder / "s").write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        bind(folder / "s")
    assert (folder / "s").read_text() == "precious"


def test_a_long_path_says_what_to_do(folder):
    """The limit is macOS' on every platform, counted in bytes."""
    check_length(Path("/" + "x" * 102))
    for path in (Path("/" + "x" * 103), Path("/" + "é" * 52)):
        with pytest.raises(ConfigError, match="Set MLXD_HOME to a shorter folder"):
            bind(path)


def test_a_readable_folder_is_closed_to_others(folder):
    """A folder of ours that others may look into is tightened."""
    (folder / "state").mkdir(mode=0o755)
    prepare_folder(folder / "state")
    assert mode(folder / "state") == 0o700


def test_a_folder_that_others_may_write_to_is_refused(folder):
    """Somebody may have put something there already: a person should look."""
    (folder / "state").mkdir()
    (folder / "state").chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        prepare_folder(folder / "state")


def test_a_linked_folder_is_refused(folder):
    """A link can be turned to point elsewhere."""
    (folder / "real").mkdir(mode=0o700)
    (folder / "state").symlink_to(folder / "real")
    with pytest.raises(ConfigError, match="is a link"):
        prepare_folder(folder / "state")


def test_another_users_folder_is_refused(folder, monkeypatch):
    """A folder of another user is not ours to listen in."""
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="another user"):
        prepare_folder(folder)


def test_a_folder_that_cannot_be_made_says_why(folder):
    """A file where the folder should be gives one clear sentence."""
    (folder / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot make the folder"):
        prepare_folder(folder / "file" / "state")


def test_a_link_to_nowhere_is_in_the_way(folder):
    """A dangling link in the socket's place is named, not followed and not removed."""
    (folder / "s").symlink_to("/nowhere/at/all")
    with pytest.raises(ConfigError, match="s is in the way and is no socket"):
        bind(folder / "s")
    assert (folder / "s").is_symlink()


def test_a_socket_that_cannot_be_bound_says_why(folder):
    """A folder in the place of the socket is named in the error."""
    (folder / "s").mkdir()
    with pytest.raises(ConfigError, match="s is in the way"):
        bind(folder / "s")


def test_the_order_is_launchd_systemd_own(folder):
    """A socket that was handed over is used, keeps its file at the end, and is reported with its own path."""
    with listening(folder / "given") as given:
        listener = listen(folder / "s", environ={}, launchd=lambda: [given])
        assert (listener.origin, listener.path) == (Origin.LAUNCHD, folder / "given")
        listener.close()
        assert (folder / "given").exists()


def test_systemd_comes_second(folder, monkeypatch):
    """Without launchd the socket of systemd is used."""
    with listening(folder / "given") as given:
        monkeypatch.setattr("daemon.api.listener.systemd_sockets", lambda _environ: [given])
        listener = listen(folder / "s", environ={}, launchd=list)
        assert listener.origin is Origin.SYSTEMD


def test_without_a_service_manager_we_bind(folder, caplog):
    """Supervised without a hand-over is told in the log, and served all the same."""
    caplog.set_level("INFO")
    with listen(folder / "s", environ={}, supervised=True, launchd=list) as listener:
        assert listener.origin is Origin.OWN
    assert "handed over no socket" in caplog.text
