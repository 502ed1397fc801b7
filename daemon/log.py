"""The one place where logging is configured.

A record is a sentence, a stable ``action`` for programs, and the context of the job (``Job.log_context``)::

    log.info("Took the job back into the queue.", extra={"action": "job_released", **job.log_context})

The file under ``home.logs`` holds one JSON object a line, mode 0600, rotated by size; a daemon in the foreground
also says the same as text on standard error. What users give and get (prompts, texts, parameters, results) stays out
of both, and no value can start a new line or move the cursor of the terminal that shows the log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
import sys
import traceback
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any, Final

from daemon.paths import Home

#: Name of the current log file in ``home.logs``; older ones are ``mlxd.log.1`` (newest) and so on.
FILE_NAME: Final = "mlxd.log"

_OURS: Final = ("daemon", "jobs", "plugins", "launchd", "mlxd")
# Fields that carry what users gave or got, whoever logs them. The length is enough to debug with.
_PRIVATE: Final = frozenset(
    {
        "prompt",
        "messages",
        "system",
        "content",
        "text",
        "params",
        "request",
        "result",
        "output",
        "tokens",
        "initial_prompt",
    }
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LONGEST: Final = 2000  # characters of one value
_LONGEST_FOREIGN: Final = 300  # characters of an exception that is not ours: it may quote its input
# Control characters (C0, DEL, C1 with its one-byte CSI), line and paragraph separators, direction overrides, and
# lone surrogates, which no UTF-8 file can hold.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def log_file(home: Home) -> Path:
    """Return the path of the current log file."""
    return home.logs / FILE_NAME


def configure(
    home: Home, *, level: str | int = "INFO", foreground: bool, max_bytes: int = 10_000_000, keep: int = 5
) -> None:
    """Send our log to *home*'s file and, in the *foreground*, to standard error; calling it again replaces the set-up.

    Our own loggers and plugins named ``mlxd.*`` speak from *level* on, everybody else from WARNING on. A file holds
    *max_bytes* bytes and *keep* older ones are kept. A log file that cannot be opened never stops the daemon: it says
    so on standard error and logs there instead.
    """
    release()
    root = logging.getLogger()
    file_handler = _open_file(log_file(home), max_bytes, keep)
    if file_handler is not None:
        root.addHandler(file_handler)
    if foreground or file_handler is None:
        root.addHandler(_TextHandler(sys.stderr))
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper() if isinstance(level, str) else level)
    logging.captureWarnings(capture=True)


def problem() -> str | None:
    """Return why the log file cannot be written (any more), None if it can."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _FileHandler) and handler.problem is not None:
            handler.try_again()
            return handler.problem
    return None


def release() -> None:
    """Close what `configure` opened."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _FileHandler | _TextHandler)]:
        root.removeHandler(handler)
        handler.close()
    logging.captureWarnings(capture=False)


def escaped(text: str) -> str:
    """Return *text* with everything that could break a line or steer a terminal written as an escape."""
    return _UNSAFE.sub(lambda match: _escape(match.group()), text)


def render(line: str) -> str:
    """Return one *line* of the log file as text for people; a line that is no record comes back escaped."""
    try:
        facts = json.loads(line)
        when, grade, sentence = facts.pop("time"), facts.pop("level"), facts.pop("message")
    except (ValueError, KeyError, AttributeError, TypeError):
        return escaped(line.rstrip("\n"))
    return _as_text(str(when), str(grade), str(sentence), facts)


class _FileHandler(RotatingFileHandler):
    """A rotating file that only its owner can read, and whose trouble is said once instead of with each record."""

    #: Why the last record could not be written.
    problem: str | None = None

    def _open(self) -> IO[Any]:  # type: ignore[override]  # the base class says TextIOWrapper, which is an IO[str]
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, 0o600)
        os.fchmod(descriptor, 0o600)  # the file may be older than this rule
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the base class's signature
        news, self.problem = self.problem is None, f"The log file {self.baseFilename} cannot be written: "
        self.problem += str(sys.exc_info()[1])
        if news:
            _complain(self.problem)

    def try_again(self) -> None:
        """Write what could not be written, if that works now."""
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError):
            self.stream = self.stream or self._open()  # type: ignore[assignment]  # see `_open`
            self.flush()
            self.problem = None

    def close(self) -> None:
        # What cannot be written is lost; whoever stops, or reads the configuration again, has nothing to do with it.
        with contextlib.suppress(OSError):
            super().close()


class _TextHandler(logging.StreamHandler[Any]):
    """Records as text for people."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.setFormatter(_TextFormatter())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Stay silent: standard error is gone (a closed terminal), and there is nowhere left to say it."""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": _sentence(record),
            "logger": record.name,
            "pid": record.process,
            **_facts(record),
        }
        line = json.dumps(facts, ensure_ascii=False, default=str)
        # Inside JSON strings only: the structure itself is plain ASCII.
        return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", line)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _as_text(_time(record), record.levelname.lower(), _sentence(record), _facts(record))


def _open_file(path: Path, max_bytes: int, keep: int) -> _FileHandler | None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _FileHandler(path, maxBytes=max_bytes, backupCount=keep, encoding="utf-8")
    except OSError as error:
        _complain(f"The log file {path} cannot be opened ({error.strerror}); logging to standard error instead.")
        return None
    handler.setFormatter(_JsonFormatter())
    return handler


def _complain(sentence: str) -> None:
    stream = sys.stderr
    if stream is not None:
        with contextlib.suppress(OSError):  # it may lie on the same full disk
            stream.write(f"mlxd: {escaped(sentence)}\n")
            stream.flush()


def _sentence(record: logging.LogRecord) -> str:
    return _cut(record.getMessage(), _LONGEST)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was logged beside the sentence, without what is private."""
    facts = {name: _fact(name, value) for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info and record.exc_info[1] is not None:
        facts["error"] = _error(record.exc_info[1])
    return facts


def _fact(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if name in _PRIVATE:
        return f"[{len(value)} withheld]" if hasattr(value, "__len__") else "[withheld]"
    if isinstance(value, dict):
        return {str(key): _fact(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_fact(name, each) for each in value]
    return _cut(str(value), _LONGEST)


def _error(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    facts: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _error_message(error),
        "trace": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        facts["cause"] = {"type": type(cause).__name__, "message": _error_message(cause)}
    return facts


def _error_message(error: BaseException) -> str:
    """Return what *error* says without the values it quotes.

    Ours are written for it. Of others only those are told that speak of the system and not of their input: pydantic
    shows what it was given, SQLAlchemy its parameters, and what a task raises may hold the whole prompt.
    """
    if isinstance(getattr(error, "slug", None), str):
        return _cut(_text(error), _LONGEST)
    if hasattr(error, "statement") and (original := getattr(error, "orig", None)) is not None:
        return _cut(_text(original), _LONGEST_FOREIGN)
    if isinstance(error, OSError | sqlite3.Error | ImportError):
        # An operating system's error without its file name, which anybody may have chosen.
        return _cut(getattr(error, "strerror", None) or _text(error), _LONGEST_FOREIGN)
    return _places(error) or f"[{len(_text(error))} characters withheld]"


def _places(error: BaseException) -> str | None:
    """Return what pydantic complains of, and where, without what it was given; None if it is not pydantic's."""
    if not callable(listed := getattr(error, "errors", None)):
        return None
    try:
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['type']}" for each in listed(include_input=False))
    except (TypeError, KeyError):
        return "[withheld]"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error may fail at saying what it is
        return ""


def _as_text(when: str, level: str, sentence: str, facts: dict[str, Any]) -> str:
    shown = [f"{name}={_shown(value)}" for name, value in facts.items() if name not in {"error", "logger", "pid"}]
    lines = [f"{when} {level.upper():<8}{escaped(sentence)}" + (f"  [{' '.join(shown)}]" if shown else "")]
    if isinstance(error := facts.get("error"), dict):
        lines.append(f"    {error.get('type')}: {escaped(str(error.get('message')))}")
        lines += [f"      at {escaped(str(frame))}" for frame in error.get("trace", ())]
    elif error is not None:
        lines[0] += f"  {_shown(error)}"
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _escape(character: str) -> str:
    """Return *character* as Python would write it in a string literal."""
    return character.encode("unicode_escape").decode("ascii")
