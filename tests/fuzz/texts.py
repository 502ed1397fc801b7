"""Texts: the configuration, front matter, and a job as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from daemon.api.submission import Submission
from daemon.config.model import Config, load
from daemon.paths import find_home
from fuzz.target import Target
from jobs.errors import ConfigError, InvalidInput, MlxdError
from jobs.model import NewJob
from jobs.rows import new_row
from plugins import front_matter

_HOME = find_home({"MLXD_HOME": "/home-of-mlxd"})


def check_config(data: bytes, read: Callable[..., Config]) -> None:
    """Refused as a configuration, naming the file; or a value that JSON can carry, with paths that mean one place."""
    path = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.toml"
    path.write_bytes(data)
    try:
        config = read(path, home=_HOME, environ={"HOME": "/Users/ada"})
    except ConfigError as error:
        _complaint(error, names=str(path))
        json.dumps(error.facts, allow_nan=False).encode()
        return
    finally:
        path.unlink()
    json.dumps(config.model_dump(mode="json"), allow_nan=False).encode()
    assert all(folder.path.is_absolute() for folder in config.folders), "a folder that depends on where one stands"
    address = config.http.address
    assert address is None or address.host in {"127.0.0.1", "::1"}, "a port for everybody"


def _complaint(error: MlxdError, *, names: str = "") -> None:
    """See that *error* is a sentence that can be shown."""
    assert names in error.message, "a complaint does not name the file"
    assert len(error.message) < 10_000, "a complaint without end"
    error.message.encode()


def check_front_matter(data: bytes, split: Callable[[str], front_matter.Said]) -> None:
    """Refused as an input; or the text without its block, and parameters of the few allowed kinds; or untouched."""
    text = data.decode(errors="replace")
    try:
        said = split(text)
    except InvalidInput as error:
        _complaint(error)
        return
    assert text.endswith(said.text), "the text is not what followed"
    assert said.params or said.text == text, "a block is gone, and nothing came of it"
    assert set(said.params) <= set(front_matter.ALLOWED), "a parameter that a file must not set"
    for name, value in said.params.items():
        assert isinstance(value, front_matter.ALLOWED[name]), f"{name} is a {type(value).__name__}"
        assert not isinstance(value, bool), f"{name} is true or false"
    json.dumps(dict(said.params), allow_nan=False, ensure_ascii=False).encode()


def check_job(data: bytes, validate: Callable[[Any], Any]) -> None:
    """Refused as a request; or a job that the ledger can hold and that comes back as it was."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        return  # the application's own 400
    try:
        new: NewJob = validate(raw).new_job()
    except ValidationError:
        return
    told = new.model_dump_json()
    told.encode()
    assert NewJob.model_validate_json(told) == new, "a job changes on its way"
    row = new_row(new, job_id="x", now=datetime(2026, 1, 1, tzinfo=UTC))
    json.dumps([row["params"], row["placement"]], allow_nan=False, ensure_ascii=False).encode()
    for path in (new.placement.directory, new.placement.input):
        assert path is None or path.is_absolute(), "a path that depends on where the daemon stands"
        assert path is None or "\0" not in str(path), "a path that no system call takes"
    if new.not_before is not None:
        new.not_before.astimezone(UTC)


def _any_key(text: str) -> front_matter.Said:
    """Take whatever a file says about itself: the planted bug."""
    opening = front_matter._FENCE.match(text)
    closing = front_matter._END.search(text, opening.end()) if opening else None
    if opening is None or closing is None:
        return front_matter.Said({}, text)
    return front_matter.Said(front_matter._parse(text[opening.end() : closing.start()]), text[closing.end() :])


def _raw_toml(path: Path, **options: Any) -> Config:
    """Let the parser's own complaints through: the planted bug."""
    import tomllib

    tomllib.loads(path.read_bytes().decode())
    return load(path, **options)


class _Plain(NewJob):
    """A job nobody looked at more closely: the planted bug."""

    def new_job(self) -> NewJob:
        return NewJob.model_construct(**{name: getattr(self, name) for name in NewJob.model_fields})


TARGETS = [
    Target("config", check_config, load, {"the parser's own complaint": _raw_toml}),
    Target("front-matter", check_front_matter, front_matter.split, {"any key is taken": _any_key}),
    Target("job", check_job, Submission.model_validate, {"paths as they come": _Plain.model_validate}),
]
