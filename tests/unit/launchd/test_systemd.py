"""`launchd.systemd`: the units, and what is done with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes_service import ScriptedRun, sample_spec

from launchd.contract import Answer, ServiceFailure, Standing
from launchd.systemd import SystemdController, quoted, render_service, render_socket

ANALYZE = shutil.which("systemd-analyze") or ""
HOSTILE = 'a "b" %h $HOME \\x'


def controller(root: Path, table: dict[tuple[str, ...], list[int | Answer]], *, installed: bool = True):
    run = ScriptedRun(table)
    made = SystemdController(sample_spec(root), units=root / "units", uid=os.getuid(), run=run)
    if installed:
        (root / "units").mkdir()
        made.definition.write_text("installed before")
    return made, run


@pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["plain", HOSTILE])
def test_systemd_has_nothing_to_say_about_the_units(name: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` accepts both units without a word, also with hostile paths and values."""
    spec = sample_spec(tmp_path / name, environment={"HOME": "/root", "X": HOSTILE})
    for folder in (spec.state, spec.logs):
        folder.mkdir(parents=True)
    spec.launcher.write_text("#!/bin/sh\n")
    spec.launcher.chmod(0o700)
    units = tmp_path / "units"
    units.mkdir()
    (units / "mlxd.service").write_text(render_service(spec))
    (units / "mlxd.socket").write_text(render_socket(spec))
    done = subprocess.run(
        [ANALYZE, "--user", "verify", units / "mlxd.service", units / "mlxd.socket"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stderr + done.stdout == ""  # it ends with 0 even for a key that it does not know
    assert done.returncode == 0


def test_the_unit_says_what_the_launch_agent_says(tmp_path: Path) -> None:
    """Same program, same patience, same privacy, same sockets on both systems."""
    spec = sample_spec(tmp_path)
    service, socket = render_service(spec), render_socket(spec)
    for line in (
        f'ExecStart="/bin/sh" "{spec.launcher}" "run" "--supervised"',
        "Restart=on-failure",
        "TimeoutStopSec=45",
        "KillMode=mixed",
        "UMask=0077",
        f'Environment="HOME={tmp_path}"',
        f"StandardError=append:{spec.logs}/agent.err",
        "WantedBy=default.target",
    ):
        assert line in service.splitlines()
    for line in (f"ListenStream={spec.socket}", "SocketMode=0600", "DirectoryMode=0700", "FileDescriptorName=http"):
        assert line in socket.splitlines()


def test_words_mean_nothing_to_systemd() -> None:
    """Quotes, backslashes and specifiers are escaped; a control character is refused."""
    assert quoted('a"b\\c%d') == '"a\\"b\\\\c%%d"'
    with pytest.raises(ServiceFailure, match="control character"):
        quoted("a\nExecStart=/bin/evil")


def test_a_socket_that_no_mac_would_take_is_refused(tmp_path: Path) -> None:
    """The same limit on both systems, and nothing is written before it is checked."""
    run = ScriptedRun({})
    spec = sample_spec(tmp_path, socket=Path("/" + "x" * 103))
    with pytest.raises(ServiceFailure, match=r"103 bytes.*MLXD_HOME"):
        SystemdController(spec, units=tmp_path / "units", uid=os.getuid(), run=run).install()
    assert run.calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_dollar_in_the_path_is_no_variable(tmp_path: Path) -> None:
    """In a command line systemd expands $NAME, in a path it does not."""
    service = render_service(sample_spec(tmp_path / "$HOME"))
    assert f'"{tmp_path}/$$HOME/state/mlxd-agent"' in service
    assert f"WorkingDirectory={tmp_path}/$HOME/state" in service


@pytest.mark.parametrize(
    ("facts", "standing", "pid"),
    [
        ({"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "MainPID": "7"}, Standing.RUNNING, 7),
        ({"LoadState": "loaded", "ActiveState": "deactivating", "MainPID": "7"}, Standing.RUNNING, 7),
        (
            {"LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "MainPID": "0"},
            Standing.STOPPED,
            None,
        ),
        ({"LoadState": "loaded", "ActiveState": "failed", "ExecMainStatus": "3"}, Standing.STOPPED, None),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, Standing.NOT_LOADED, None),
        ({"Strange": "1"}, Standing.UNKNOWN, None),
    ],
)
def test_status_is_what_systemd_shows(
    facts: dict[str, str], standing: Standing, pid: int | None, tmp_path: Path
) -> None:
    """The properties are read; without them it is "cannot tell"."""
    answer = Answer(0, "".join(f"{name}={value}\n" for name, value in facts.items()), "")
    made, _ = controller(tmp_path, {("--user", "show"): [answer]})
    status = made.status()
    assert (status.standing, status.pid) == (standing, pid)
    assert status.last_exit == (3 if "ExecMainStatus" in facts else None)


def test_without_units_nothing_is_asked(tmp_path: Path) -> None:
    """No file, no service; and start, stop, restart name the command that installs."""
    made, run = controller(tmp_path, {}, installed=False)
    assert made.status().standing is Standing.NOT_INSTALLED
    for verb in (made.start, made.stop, made.restart):
        with pytest.raises(ServiceFailure, match="mlxd service install"):
            verb()
    assert run.calls == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(1, "", "Failed to connect to bus: No medium found"), "loginctl enable-linger"),
        (Answer(1, "", "$DBUS_SESSION_BUS_ADDRESS and $XDG_RUNTIME_DIR not defined"), "loginctl enable-linger"),
        (Answer(127, "", "systemctl: command not found"), "no systemctl here"),
        (Answer(5, "", "Unit is\n  masked."), "Unit is masked."),
        (Answer(4, "", ""), "nothing more"),
    ],
)
def test_refusals_say_what_to_do(answer: Answer, said: str, tmp_path: Path) -> None:
    """Errors are sentences with systemd's status; a status that cannot be had is "cannot tell"."""
    made, _ = controller(tmp_path, {("--user",): [answer]})
    with pytest.raises(ServiceFailure, match="Could not start the service") as caught:
        made.start()
    assert said in str(caught.value)
    assert caught.value.code == answer.code
    assert made.status().standing is Standing.UNKNOWN


def test_the_socket_is_named_first(tmp_path: Path) -> None:
    """Stopping the service alone would leave a socket that starts it again."""
    made, run = controller(tmp_path, {})
    made.stop()
    assert run.calls[0] == ("--user", "stop", "mlxd.socket", "mlxd.service")
