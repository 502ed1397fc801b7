"""What a Whisper model is asked: validated parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.model import Lane


class Resume(BaseModel):
    """Where an earlier attempt has come to, as the event ``window`` told in ``state``."""

    model_config = ConfigDict(extra="ignore")

    #: The frame (of 10 ms) to go on from.
    frame: int = Field(ge=0)
    #: Hash of the samples before it: where they are others, everything is done anew.
    digest: str
    language: str | None = None
    #: Tokens of the text before, if it leads what follows.
    context: list[int] = []
    last_speech: float = 0.0
    windows: int = 0


class WhisperRequest(BaseModel):
    """A request to the runtime ``whisper``."""

    model_config = ConfigDict(extra="ignore")

    #: Absolute path of an audio or video file.
    file: Path
    #: A folder above it, below which no link is followed to open it; None: links are followed.
    below: Path | None = None
    #: ISO code or English name; None: detect it.
    language: str | None = None
    #: Names and words to expect.
    initial_prompt: str | None = None
    word_timestamps: bool = False
    #: The first temperature; unsure windows are tried again at higher ones.
    temperature: float = Field(default=0.0, ge=0, le=1)
    task: Literal["transcribe", "translate"] = "transcribe"
    #: Let each window's text lead the next one's: one after another, as mlx_whisper does. Otherwise the recording is
    #: cut in its pauses, and its windows are decoded side by side.
    condition_on_previous_text: bool = False
    resume: Resume | None = None
    #: Added by the runner.
    lane: Lane = Lane.NORMAL


def parse(request: Mapping[str, Any], *, languages: Mapping[str, str], multilingual: bool) -> WhisperRequest:
    """Return *request* validated, its language as a code of *languages* (code to name).

    Raises:
        ValueError: with every mistake in one sentence.

    """
    try:
        asked = WhisperRequest.model_validate(dict(request))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ValueError("; ".join(f"{one['loc'][0]}: {one['msg']}" for one in problems)) from error
    if not asked.file.is_absolute():
        raise ValueError(f"file: an absolute path is wanted, not {str(asked.file)!r}")
    code = _code(asked.language, languages)
    if not multilingual and (code not in (None, "en") or asked.task == "translate"):
        raise ValueError("This model knows English only: it takes no other language and translates nothing.")
    return asked.model_copy(update={"language": code})


def _code(language: str | None, languages: Mapping[str, str]) -> str | None:
    if language is None:
        return None
    wanted = language.strip().lower()
    code = next((code for code, name in languages.items() if wanted in (code, name)), None)
    if code is None:
        raise ValueError(f"language: {language!r} is not one of Whisper's languages (en, de, fr, ...)")
    return code
