"""The task `transcribe`: speech in an audio or video file in; text, subtitles or JSON out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jobs.errors import MlxdError
from plugins.following import follow
from plugins.hookspecs import hookimpl
from plugins.inputs import AbsolutePath, check_file, opening
from plugins.subtitles import FORMATS
from plugins.task import ModelHandle, Task, TaskContext
from plugins.transcribe_record import Record, key_of

#: More segments than this stay out of the job's result, which is one row of the ledger; the json format has them all.
MOST_SEGMENTS: Final = 200


class Params(BaseModel):
    """Parameters of `transcribe`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    file: AbsolutePath = Field(description="Audio or video file with speech in it.")
    model: str | None = Field(default=None, min_length=1, description="Model reference; default: the configured one.")
    language: str | None = Field(
        default=None, min_length=2, max_length=20, description="Language spoken, as 'en'; default: found out."
    )
    task: Literal["transcribe", "translate"] = Field(
        default="transcribe", description="translate: write English whatever is spoken."
    )
    formats: list[Literal["txt", "srt", "vtt", "json"]] = Field(
        default=["txt"], description="Files to write; none at all is allowed."
    )
    initial_prompt: str | None = Field(
        default=None, max_length=10_000, description="Text before the first words: names and spellings to expect."
    )
    word_timestamps: bool = Field(default=False, description="Time each word (in the json format).")
    condition_on_previous_text: bool = Field(
        default=False,
        description="Let each half minute's text guide the next: one after another instead of side by side.",
    )
    temperature: float = Field(default=0.0, ge=0, le=1, description="Randomness; 0 always takes the likeliest token.")

    @field_validator("formats", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Take ``"txt,srt"`` too, and say each format once."""
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        return list(dict.fromkeys(value)) if isinstance(value, list) else value


class Transcribe:
    """Asks a speech model for the words in a file."""

    name = "transcribe"
    summary = "Write down the speech in an audio or video file"
    params: type[BaseModel] = Params
    repeatable = True

    def run(self, ctx: TaskContext, params: Params) -> dict[str, Any]:
        """Send segments to whoever follows, write the formats asked for and return the text with its segments."""
        # Before the model is loaded: a mistyped name should not cost a cold start. A watched link is not followed.
        check_file(params.file, **opening(ctx.job.placement))
        request = {**params.model_dump(exclude={"model", "formats", "file"}), "file": str(params.file)}
        if ctx.job.placement.root is not None:
            request["below"] = str(ctx.job.placement.root)
        with ctx.models(params.model, runtime="whisper") as model:
            transcript = _heard(ctx, model, request)
        ctx.input_read()
        stem = ctx.stem or params.file.stem
        written = [ctx.output(f"{stem}.{form}", FORMATS[form](transcript)) for form in params.formats]
        return {
            **_small(transcript),
            "model": params.model or model.info.get("ref"),
            "outputs": [str(output.path) for output in written],
        }


def _heard(ctx: TaskContext, model: ModelHandle, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the recording says, from where an earlier attempt came to."""
    record = Record(ctx, key_of(request, model.info))
    resume = {"resume": record.state} if record.state else {}
    try:
        return record.whole(follow(model, {**request, **resume}, _teller(ctx, record)))
    except MlxdError:
        # A stale fence refuses this, and then there is nothing to save: the job is somebody else's.
        with suppress(MlxdError):
            record.save(now=True)
        raise


def _teller(ctx: TaskContext, record: Record) -> Callable[[str, Mapping[str, Any]], None]:
    def tell(kind: str, data: Mapping[str, Any]) -> None:
        if kind == "progress":
            total = data.get("total")
            ctx.progress(float(data.get("done", 0)), None if total is None else float(total), unit="s")
        elif kind == "window":
            record.window(data)
        else:
            if kind == "segment":
                record.segment(data)
            ctx.emit(kind, data)

    return tell


def _small(transcript: Mapping[str, Any]) -> dict[str, Any]:
    """Return *transcript* without what would make the ledger's row large."""
    result = dict(transcript)
    segments = result.pop("segments", [])
    result["text"] = str(transcript["text"]).strip()
    result["segment_count"] = len(segments)
    if len(segments) <= MOST_SEGMENTS:
        result["segments"] = [{key: one[key] for key in ("start", "end", "text") if key in one} for one in segments]
    return result


@hookimpl
def mlxd_register_tasks(register: Callable[[Task], None]) -> None:
    """Offer `transcribe`."""
    register(Transcribe())
