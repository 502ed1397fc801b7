"""What people see: tables and a progress bar. Imports rich, so it is imported only to draw."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from daemon.cli.console import shown
from daemon.cli.waiting import Screen, Typing

_COLOURS: Final = {
    "succeeded": "green",
    "ready": "green",
    "ok": "green",
    "running": "cyan",
    "loading": "cyan",
    "failed": "red",
    "problem": "red",
    "blocked": "yellow",
    "quarantined": "yellow",
    "degraded": "yellow",
    "note": "yellow",
    "cancelled": "dim",
    "absent": "dim",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_NO_LIMIT: Final = 10_000
_KILO: Final = 1000


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, console: Console | None = None) -> None:
    """Print a table; on a terminal long values fold, in a pipe nothing is cut or broken."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    (console or _console()).print(drawn)


def details(pairs: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print names and values below each other, the parts of a list too; empty values are left out."""
    out = console or _console()
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        if value in (None, "", [], ()):
            continue
        for number, part in enumerate(value if isinstance(value, list) else [value]):
            label = f"{'' if number else name:<{width}}  "
            out.print(Text(label, style="bold").append_text(_cell(part)), soft_wrap=True)


def ago(moment: str | None, *, now: datetime | None = None) -> str:
    """Return an ISO time as how long ago it was."""
    if not moment:
        return ""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 1 else "now"


def duration(seconds: float | None) -> str:
    """Return seconds for people."""
    if seconds is None:
        return ""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else f"{seconds:.2g} s"
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError  # pragma: no cover - a minute and more was handled by the loop


def size(number: float | None) -> str:
    """Return bytes for people."""
    if number is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if number < _KILO:
            return f"{number:.3g} {unit}"
        number /= _KILO
    return f"{number:.3g} TB"


def speed(progress: Mapping[str, Any]) -> str:
    """Return a job's pace: tokens a second, or the multiple of real time for audio."""
    rate, unit = progress.get("rate"), progress.get("unit") or ""
    if not rate:
        return ""
    return f"{rate:.1f}x real time" if unit == "s" else f"{rate:.1f} {unit}/s"


class Bar(Screen):
    """A progress bar on standard error."""

    def __init__(self, *, console: Console | None = None) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}"),
            TextColumn("{task.fields[pace]}", style="cyan"),
            TimeElapsedColumn(),
            console=console or Console(file=sys.stderr, highlight=False),
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("queued", total=None, amount="", pace="")

    def see(self, kind: str, data: dict[str, Any]) -> None:
        """Draw where the job stands."""
        if kind == "state":
            stands = f"waiting: {data['waiting']}" if data.get("waiting") else data["state"]
            self._progress.update(self._task, description=shown(f"{data['task']}: {stands}"))
            data = data.get("progress") or {}
        if kind in {"state", "progress"} and data:
            self._draw(data)
        elif kind in {"token", "reasoning"} and data.get("n"):
            thinking = ", thinking" if kind == "reasoning" else ""
            self._progress.update(self._task, amount=f"{data['n']} tokens{thinking}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _draw(self, data: Mapping[str, Any]) -> None:
        done, total, unit = float(data.get("done") or 0), data.get("total"), data.get("unit") or ""
        amount = f"{done:.4g}" + (f"/{total:.4g}" if total else "") + f" {unit}"
        fields: dict[str, Any] = {"completed": done, "total": total, "pace": speed(data)}
        if data.get("message"):
            fields["description"] = shown(str(data["message"]))
        self._progress.update(self._task, amount=amount.strip() if done or total else "", **fields)


class TypingWithBar(Typing):
    """A bar until the first text comes; then the text has the terminal to itself."""

    def __init__(self, *, console: Console | None = None) -> None:
        super().__init__()
        self._bar: Bar | None = Bar(console=console)

    def see(self, kind: str, data: dict[str, Any]) -> None:
        """Take one event."""
        if kind == "token" and self._bar is not None:
            self._bar.__exit__()
            self._bar = None
        if self._bar is not None:
            self._bar.see(kind, data)
        super().see(kind, data)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()


def _cell(value: Any) -> Text:
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = shown("" if value is None else str(value))
    return Text(text, style=_COLOURS.get(text, ""))


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _NO_LIMIT)
