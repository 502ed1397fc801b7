"""Telling by a program: exact command lines, hostile texts, and programs that fail or hang."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.errors import Interrupted, InvalidRequest, RequestFailed
from plugins.deliver import Deliver, DeliverParams
from plugins.deliver_programs import command, notification, run, shortcut

HOSTILE = '-x "; display dialog "hi" & `id` $(id)\n<b>ü</b>'
ABOUT: dict[str, Any] = {
    "job": "aaaaaaaaaa",
    "task": "transcribe",
    "state": "succeeded",
    "outputs": ["/out/talk.txt"],
    "error": None,
}
FAILED = {**ABOUT, "state": "failed", "error": {"type": "x", "message": HOSTILE}}
TARGET: dict[str, Any] = {"timeout": 30.0}


def context(check: Callable[[], None] = lambda: None, settings: dict[str, Any] | None = None) -> Any:
    return SimpleNamespace(check=check, settings=settings or {}, job=SimpleNamespace(id="dddddddddd"))


class FakeRun:
    """Keeps what it was asked to run, and the text of a file that is the last argument."""

    def __init__(self, outcome: int | Exception = 0) -> None:
        self.outcome = outcome
        self.argv: list[str] = []
        self.data = b""
        self.file = ""

    def __call__(self, argv: Sequence[str], data: bytes, timeout: float, check: Callable[[], None]) -> int:
        self.argv, self.data, self.timeout = list(argv), data, timeout
        if argv[-2:-1] == ["-i"]:
            self.file = Path(argv[-1]).read_text()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_a_notification_on_a_mac() -> None:
    """The texts are arguments of a fixed script, never part of it; none of them can be taken for an option."""
    fake = FakeRun()
    assert notification(TARGET, FAILED, context(), run=fake, system="darwin") == "Shown."
    assert fake.argv == [
        "/usr/bin/osascript",
        "-e",
        "on run argv",
        "-e",
        "display notification (item 3 of argv) with title (item 1 of argv) subtitle (item 2 of argv)",
        "-e",
        "end run",
        "mlxd",
        "transcribe failed",
        " ".join(HOSTILE.split()),
    ]


def test_a_notification_on_linux() -> None:
    """The body is escaped, for it may hold markup, and stands behind the end of the options."""
    fake = FakeRun()
    notification(TARGET, {**FAILED, "error": {"message": "a <b> & c"}}, context(), run=fake, system="linux")
    assert fake.argv == [
        "/usr/bin/notify-send",
        "--app-name=mlxd",
        "--",
        "mlxd: transcribe failed",
        "a &lt;b&gt; &amp; c",
    ]


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, "talk.txt"),
        ({"outputs": [f"/o/{n}.txt" for n in range(5)]}, "0.txt, 1.txt, 2.txt …"),
        ({"outputs": []}, "Job aaaaaaaaaa"),
        ({"result": {"text": "one\ntwo"}}, "one two"),
        ({"result": {"text": "x" * 300}}, "x" * 199 + "…"),
        ({"result": {"items": 3}}, "talk.txt"),
    ],
)
def test_what_a_notification_shows(more: dict[str, Any], shown: str) -> None:
    """The names of the outputs, the beginning of the text if that is told, or the job's id."""
    fake = FakeRun()
    notification(TARGET, {**ABOUT, **more}, context(), run=fake, system="darwin")
    assert fake.argv[-1] == shown


def test_a_notification_elsewhere() -> None:
    """A system without notifications says so at once; a missing program says what to install."""
    with pytest.raises(InvalidRequest, match="plan9"):
        notification(TARGET, ABOUT, context(), run=FakeRun(), system="plan9")
    missing = FakeRun(FileNotFoundError(2, "No such file or directory"))
    with pytest.raises(InvalidRequest, match=r"notify-send cannot be run: No such file.*libnotify"):
        notification(TARGET, ABOUT, context(), run=missing, system="linux")


def test_a_command() -> None:
    """The command runs as it is written, with what is told as one line of JSON on standard input."""
    fake = FakeRun()
    target = {"command": ["/usr/local/bin/done", "--quiet", "$HOME"], "timeout": 5.0}
    assert command(target, FAILED, context(), run=fake) == "done ran."
    assert (fake.argv, fake.timeout) == (["/usr/local/bin/done", "--quiet", "$HOME"], 5.0)
    assert fake.data.endswith(b"\n")
    assert json.loads(fake.data) == FAILED


def test_a_shortcut() -> None:
    """Its input is a file with the JSON, or with the text of the result; the file is gone afterwards."""
    fake = FakeRun()
    target = {"shortcut": "File it", "timeout": 5.0}
    shortcut(target, ABOUT, context(), run=fake, system="darwin")
    assert fake.argv[:4] == ["/usr/bin/shortcuts", "run", "File it", "-i"]
    assert (Path(fake.argv[4]).name, json.loads(fake.file)) == ("aaaaaaaaaa.json", ABOUT)
    assert not Path(fake.argv[4]).exists()

    shortcut(target, {**ABOUT, "result": {"text": "grüß dich"}}, context(), run=fake, system="darwin")
    assert (Path(fake.argv[4]).name, fake.file) == ("aaaaaaaaaa.txt", "grüß dich")
    with pytest.raises(InvalidRequest, match="macOS only"):
        shortcut(target, ABOUT, context(), run=fake, system="linux")


def test_failure_is_tried_again() -> None:
    """A status other than 0 and a timeout may pass, and are retryable; a program that is not there is not."""
    target = {"command": ["/x"], "timeout": 2.0}
    for outcome, said in ((3, "/x ended with status 3"), (TimeoutError(), "/x did not end within 2 s")):
        with pytest.raises(RequestFailed, match=said):
            command(target, ABOUT, context(), run=FakeRun(outcome))
    with pytest.raises(InvalidRequest, match="/x cannot be run"):
        command(target, ABOUT, context(), run=FakeRun(PermissionError(13, "Permission denied")))


def test_a_real_program(tmp_path: Path) -> None:
    """A program gets its input whole, however long; what it prints goes nowhere; its status comes back."""
    out = tmp_path / "out"
    program = "import sys, pathlib; print('x'); pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read()); exit(7)"
    data = b"a" * 1_000_000
    assert run([sys.executable, "-c", program, str(out)], data, 30, lambda: None) == 7
    assert out.read_bytes() == data
    assert run([sys.executable, "-c", "pass"], data, 30, lambda: None) == 0, "one that does not read is no fault"


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """After the time allowed the whole group is gone: the pipe that its child holds open closes."""
    fifo = tmp_path / "fifo"
    script = f"exec 3>'{fifo}'; (sleep 60) & sleep 60"
    import os

    os.mkfifo(fifo)
    ended = threading.Event()

    def listen() -> None:
        fifo.read_bytes()  # until nobody has it open any more
        ended.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with pytest.raises(TimeoutError):
        run(["/bin/sh", "-c", script], b"", 0.3, lambda: None)
    assert ended.wait(20)


def test_a_stop_ends_the_program() -> None:
    """When the daemon drains, the program is killed and the delivery goes back to be done again."""

    def check() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        run(["/bin/sh", "-c", "sleep 60"], b"", 60, check)


def test_the_entry_decides() -> None:
    """The task looks its entry up when it runs; one that is gone fails for good."""
    sent: list[Any] = []
    task = Deliver({"command": lambda target, about, ctx: sent.append((target, about)) or "sent"})
    entry = {"kind": "command", "command": ["/x"]}
    ctx = context(settings={"targets": {"hook": entry}})
    assert task.run(ctx, DeliverParams(notify="hook", about=ABOUT)) == {"text": "sent"}
    assert sent == [(entry, ABOUT)]
    assert task.run(ctx, DeliverParams(notify="hook"))
    assert sent[1][1]["job"] == "test"
    with pytest.raises(InvalidRequest, match="no \\[\\[notify\\]\\] entry called 'gone'"):
        task.run(ctx, DeliverParams(notify="gone"))
