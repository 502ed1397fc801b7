"""Who hears of a job's end: ``[[notify]]`` in the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from daemon.config.folders import Globs, expand, listed
from daemon.config.units import Seconds
from jobs.model import Frozen

#: Kind -> the key that says where to, and nothing else may.
_TARGETS: Final = {"webhook": "url", "command": "command", "shortcut": "shortcut", "notification": None}

Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(listed)]


class NotifyConfig(Frozen):
    """``[[notify]]``: one way of telling that a job has ended."""

    #: Shown with the deliveries, which are jobs. Default: the kind.
    name: str = Field(default="", max_length=64)
    #: How it is told. Default: what the keys below ask for; with none of them a notification.
    kind: Literal["notification", "webhook", "command", "shortcut"] = "notification"
    #: Folder rules whose jobs it is for, as patterns.
    rules: Globs = ()
    #: Schedules whose jobs it is for, as patterns.
    schedules: Globs = ()
    #: Tasks whose jobs it is for wherever they come from, as patterns.
    tasks: Globs = ()
    #: Which ends are told. "failed": also those that were put into quarantine.
    on: Literal["succeeded", "failed", "any"] = "any"
    #: "summary": ids, task, state, output paths, the error's sentence. "result": the task's result as well.
    include: Literal["summary", "result"] = "summary"
    #: Address of a webhook.
    url: str | None = None
    #: File that holds the secret a webhook is signed with.
    secret_file: Path | None = None
    #: Environment variable of the daemon that holds it.
    secret_env: str | None = Field(default=None, min_length=1)
    #: A command's program, as an absolute path, and its arguments.
    command: Words = ()
    #: Name of a shortcut.
    shortcut: str | None = Field(default=None, min_length=1)
    #: Longest time one try may take.
    timeout: Annotated[Seconds, Field(gt=0, le=3600)] = 30.0
    #: How often it is tried before the delivery fails.
    tries: Annotated[int, Field(strict=True, ge=1, le=100)] = 8

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        asked = (kind for kind, key in _TARGETS.items() if key is not None and key in raw)
        kind = raw.get("kind") or next(asked, "notification")
        return {**raw, "kind": kind, "name": raw.get("name") or kind}

    @field_validator("secret_file", mode="before")
    @classmethod
    def _absolute(cls, value: Any, info: ValidationInfo) -> Any:
        return Path(os.path.normpath(expand(value, info))) if isinstance(value, str) and value else value

    @field_validator("command", mode="after")
    @classmethod
    def _program(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value:
            return value
        program = str(expand(value[0], info)) if value[0].startswith("~") else value[0]
        if not program.startswith("/"):
            raise ValueError("the program's absolute path first: the daemon has hardly any PATH")
        return program, *value[1:]

    @field_validator("url", mode="after")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
                raise ValueError("an http or https address without a name or password in it")
        return value

    @field_validator("shortcut", mode="after")
    @classmethod
    def _no_option(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("-"):
            raise ValueError("a shortcut's name that does not begin with '-': the command would take it for an option")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = _TARGETS[self.kind]
        if wanted is not None and not getattr(self, wanted):
            raise ValueError(f"kind = {self.kind!r} to come with the key {wanted!r}")
        others = [key for key in _TARGETS.values() if key and key != wanted and getattr(self, key)]
        secrets = [key for key in ("secret_file", "secret_env") if getattr(self, key)]
        if self.kind != "webhook":
            others += secrets
        elif len(secrets) > 1:
            raise ValueError("either secret_file or secret_env, not both")
        if others:
            raise ValueError(f"kind = {self.kind!r} to come without the key {others[0]!r}")
        return self
