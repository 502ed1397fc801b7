"""`daemon.log`: one file of JSON lines, one stream of text, and what never gets into either."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import stat
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from daemon import log
from daemon.paths import Home, find_home
from jobs.errors import RequestFailed
from jobs.model import Job

log_here = logging.getLogger("daemon.test")


@pytest.fixture
def home(tmp_path: Path):
    """Give a home of its own, and take logging down afterwards as it was before."""
    root = logging.getLogger()
    before = (
        root.level,
        {name: logging.getLogger(name).level for name in ("daemon", "jobs", "plugins", "launchd", "mlxd")},
    )
    yield find_home({"MLXD_HOME": str(tmp_path)})
    log.release()
    root.setLevel(before[0])
    for name, level in before[1].items():
        logging.getLogger(name).setLevel(level)


class Screen:
    """What standard error has shown so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._seen = ""

    def getvalue(self) -> str:
        self._seen += self._capsys.readouterr().err
        return self._seen


@pytest.fixture
def screen(capsys) -> Screen:
    """Catch standard error."""
    return Screen(capsys)


def records(home: Home) -> list[dict]:
    return [json.loads(line) for line in log.log_file(home).read_text(encoding="utf-8").split("\n")[:-1]]


def fail(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


def job() -> Job:
    return Job(
        id="abc", seq=1, task="generate", params={"prompt": "my secret"}, created_at=datetime(2026, 1, 1, tzinfo=UTC)
    )


def test_a_line_has_sentence_action_and_job(home: Home) -> None:
    """One JSON object a line: time in UTC, level, sentence, action, and the job without its parameters."""
    log.configure(home, foreground=False)
    log_here.info("Took job %s back.", "abc", extra={"action": "job_released", **job().log_context})
    (found,) = records(home)
    assert datetime.fromisoformat(found.pop("time")).tzinfo is UTC or found
    assert found == {
        "level": "info",
        "message": "Took job abc back.",
        "logger": "daemon.test",
        "pid": os.getpid(),
        "action": "job_released",
        "job": "abc",
        "task": "generate",
        "state": "queued",
        "attempt": 0,
    }


def test_only_the_owner_reads_the_log(home: Home) -> None:
    """File 0600, folder 0700, also where an older file was open to others, and after a rotation."""
    log.configure(home, foreground=False, max_bytes=300, keep=2)
    for number in range(20):
        log_here.info("Line %d.", number)
    files = sorted(home.logs.iterdir())
    assert [each.name for each in files] == ["mlxd.log", "mlxd.log.1", "mlxd.log.2"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert stat.S_IMODE(home.logs.stat().st_mode) == 0o700
    assert all(each.stat().st_size <= 300 for each in files)
    files[0].chmod(0o644)
    log.configure(home, foreground=False)
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_levels_are_ours_and_theirs(home: Home) -> None:
    """We speak from the level that was asked for, libraries from WARNING on."""
    log.configure(home, level="debug", foreground=False)
    log_here.debug("ours")
    logging.getLogger("mlxd.someplugin").debug("a plugin's")
    logging.getLogger("uvicorn").info("theirs")
    logging.getLogger("uvicorn").warning("their warning")
    log.configure(home, level="error", foreground=False)
    log_here.warning("not asked for")
    assert [each["message"] for each in records(home)] == ["ours", "a plugin's", "their warning"]


def test_configuring_again_replaces(home: Home, screen: Screen) -> None:
    """A reload doubles nothing and leaves no file open."""
    for _ in range(3):
        log.configure(home, foreground=True)
    log_here.info("Once.")
    assert len(records(home)) == 1
    assert screen.getvalue().count("Once.") == 1


def test_the_foreground_shows_text(home: Home, screen: Screen) -> None:
    """People see the time, the level, the sentence, and the context in brackets."""
    log.configure(home, foreground=True)
    log_here.warning("Careful.", extra={"action": "care", "count": 3})
    line = screen.getvalue()
    assert line.endswith("Z WARNING Careful.  [action=care count=3]\n")


def test_the_background_is_silent(home: Home, screen: Screen) -> None:
    """Under launchd standard error goes to a file that nobody rotates: nothing is written there."""
    log.configure(home, foreground=False)
    log_here.error("Only in the file.")
    assert screen.getvalue() == ""


def test_warnings_are_logged(home: Home) -> None:
    """What Python warns of goes to the log instead of a lost standard error."""
    log.configure(home, foreground=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "old thing" in records(home)[0]["message"]


@pytest.mark.parametrize(
    "name",
    ["prompt", "messages", "text", "content", "params", "result", "output", "system", "initial_prompt", "request"],
)
def test_what_users_give_and_get_stays_out(name: str, home: Home, screen: Screen) -> None:
    """A field that carries content is withheld, also inside a mapping; only its length is told."""
    log.configure(home, foreground=True)
    log_here.info("Hello.", extra={name: "my secret", "facts": {name: ["my secret"], "n": 1}})
    assert "secret" not in log.log_file(home).read_text()
    assert "secret" not in screen.getvalue()
    assert records(home)[0][name] == "[9 withheld]"
    assert records(home)[0]["facts"] == {name: "[1 withheld]", "n": 1}


def test_counts_are_not_content(home: Home) -> None:
    """Numbers pass whatever their field is called; an object that has no length is withheld."""
    log.configure(home, foreground=False)
    log_here.info("Done.", extra={"tokens": 12, "result": None, "output": object()})
    found = records(home)[0]
    assert (found["tokens"], found["result"], found["output"]) == (12, None, "[withheld]")


def test_an_error_says_where_and_not_what_was_in_it(home: Home, screen: Screen) -> None:
    """Type, sentence and places are logged; pydantic's and SQLAlchemy's quotes of the input are not."""

    class Params(BaseModel):
        count: int

    log.configure(home, foreground=True)
    try:
        Params(count="my secret")  # type: ignore[arg-type]
    except ValidationError:
        log_here.exception("Refused.")
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(text("select * from nowhere where x = :x"), {"x": "my secret"})
    except OperationalError:
        log_here.exception("Database.")
    finally:
        engine.dispose()
    refused, database = records(home)
    assert refused["error"]["message"] == "count: int_parsing"
    assert refused["error"]["type"] == "ValidationError"
    assert "test_log.py" in refused["error"]["trace"][0]
    assert database["error"]["message"] == "no such table: nowhere"
    assert "secret" not in screen.getvalue() + log.log_file(home).read_text()
    assert "    ValidationError: count: int_parsing\n      at " in screen.getvalue()


def test_an_errors_cause_is_told(home: Home) -> None:
    """The chain has one more link; a foreign message is withheld, it may quote a prompt; ours is not."""
    log.configure(home, foreground=False)
    try:
        fail(RequestFailed("y" * 1000), ValueError("x" * 1000))
    except RequestFailed:
        log_here.exception("Bad.")
    error = records(home)[0]["error"]
    assert error["message"] == "y" * 1000
    assert error["cause"] == {"type": "ValueError", "message": "[1000 characters withheld]"}


def test_an_error_that_lists_errors_in_its_own_way(home: Home) -> None:
    """A foreign `errors` method that is not pydantic's does not break logging; the message is withheld."""

    class OddError(Exception):
        def errors(self) -> list[str]:
            return ["x"]

    log.configure(home, foreground=False)
    log_here.error("Odd.", exc_info=OddError("my secret"))
    assert records(home)[0]["error"]["message"] == "[withheld]"


@given(st.text(st.characters(), max_size=60))
def test_no_value_breaks_a_line_or_steers_a_terminal(value: str) -> None:
    """Whatever is logged, a line stays a line, JSON gives it back, and no control character reaches a screen."""
    record = logging.makeLogRecord(
        {"name": "daemon", "levelname": "INFO", "msg": "%s", "args": (value,), "path": value}
    )
    line, shown = log._JsonFormatter().format(record), log._TextFormatter().format(record)
    for written in (line, shown, log.render(line)):
        assert not log._UNSAFE.search(written)
        assert len(written.splitlines()) == 1
    assert json.loads(line)["message"] == value
    assert json.loads(line)["path"] == value


def test_the_file_can_be_read_by_people(home: Home, screen: Screen) -> None:
    """Rendering a line of the file gives what the foreground showed; what is no record comes back harmless."""
    log.configure(home, foreground=True)
    try:
        fail(RequestFailed("No.\x1b[31m"))
    except RequestFailed:
        log_here.exception("Hi.", extra={"action": "x", "path": Path("/tmp")})
    assert log.render(log.log_file(home).read_text()) + "\n" == screen.getvalue()
    for odd in ("garbage\x1b[2J\n", "[]", "17", '{"time": 1}', ""):
        assert log.render(odd) == log.escaped(odd.rstrip("\n"))
    line = '{"time":"t","level":"info","message":"m","error":"job-not-found"}'
    assert log.render(line) == "t INFO    m  job-not-found"


def test_a_log_that_cannot_be_opened_stops_nothing(home: Home, screen: Screen) -> None:
    """The daemon goes on and logs to standard error, saying why; a link in place of the file is not followed."""
    home.logs.write_text("a file where the folder should be")
    log.configure(home, foreground=False)
    log_here.info("Still here.")
    assert "cannot be opened (File exists)" in screen.getvalue()
    assert "Still here." in screen.getvalue()
    home.logs.unlink()
    home.logs.mkdir()
    log.log_file(home).symlink_to(home.state / "elsewhere")
    log.configure(home, foreground=False)
    assert "Too many levels of symbolic links" in screen.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_said_once(home: Home, screen: Screen) -> None:
    """Records that cannot be written are lost with one sentence, not with a traceback each."""
    log.configure(home, foreground=False)
    (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, log._FileHandler)]
    handler.stream.close()
    handler.stream = open("/dev/full", "w", encoding="utf-8", buffering=1)  # noqa: PTH123, SIM115 - closed below
    try:
        for _ in range(3):
            log_here.info("a long line " * 100)
        assert screen.getvalue().count("cannot be written") == 1
        assert "No space left" in screen.getvalue()
        assert "No space left" in str(log.problem())
        # Reading the configuration again, or stopping, does not trip over what could not be written.
        log.configure(home, foreground=False)
        log_here.info("There is space.")
    finally:
        log.release()
    assert log.problem() is None
    assert records(home)[-1]["message"] == "There is space."


def test_a_log_on_a_full_disk_goes_on_by_itself(home: Home, monkeypatch) -> None:
    """The problem is told while it lasts, and no longer, even if nothing more is logged."""
    monkeypatch.setattr(sys, "stderr", None)
    log.configure(home, foreground=False)
    (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, log._FileHandler)]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(handler, "flush", full)
        log_here.info("Lost or late.")
        assert "No space left" in str(log.problem())
    assert log.problem() is None


def test_a_closed_terminal_stops_nothing(home: Home, monkeypatch) -> None:
    """When standard error is gone the file still gets its lines."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(home, foreground=True)
    stream.close()
    log_here.info("To the file.")
    assert records(home)[0]["message"] == "To the file."


def test_without_any_standard_error_nothing_fails(home: Home, monkeypatch) -> None:
    """A process started without standard error may have trouble with its log and still lives."""
    monkeypatch.setattr(sys, "stderr", None)
    home.logs.write_text("")
    log.configure(home, foreground=False)
    log_here.info("Nowhere.")
