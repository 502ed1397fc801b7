"""The task transcribe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import FakeContext, hear
from pydantic import ValidationError

from jobs.errors import InputChanged, Interrupted, InvalidInput
from jobs.model import Placement
from plugins.task import OnEvent
from plugins.transcribe import MOST_SEGMENTS, Params, Transcribe


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "memo.flac"
    path.parent.mkdir()
    path.write_bytes(b"fLaC")
    return path


def run(ctx: FakeContext, **params: Any) -> dict[str, Any]:
    return Transcribe().run(ctx, Params(**params))


def test_speech_becomes_text(tmp_path: Path, audio: Path) -> None:
    """Segments reach the follower, progress is seconds of audio, the text is written after the input's name."""
    ctx = FakeContext(tmp_path / "out")
    result = run(ctx, file=audio, model="demo:whisper")
    assert result["text"] == "Call Anna on Monday. Buy milk."
    assert (result["language"], result["duration"], result["model"]) == ("en", 3.0, "demo:whisper")
    assert result["segments"][1] == {"start": 1.5, "end": 3.0, "text": " Buy milk."}
    assert [kind for kind, _ in ctx.emitted] == ["segment", "segment"]
    assert ctx.told == [(1.5, 3.0, "s", ""), (3.0, 3.0, "s", "")]
    assert (tmp_path / "out" / "memo.txt").read_text() == "Call Anna on Monday.\nBuy milk.\n"
    assert result["outputs"] == [str(tmp_path / "out" / "memo.txt")]
    assert ctx.leases == [("whisper", "demo:whisper")]


def test_a_recording_that_changed_while_it_was_heard_leaves_no_text(tmp_path: Path, audio: Path) -> None:
    """It is read until the model has heard its end; what was heard may be of two recordings then."""
    ctx = FakeContext(tmp_path / "out")
    ctx.input_changed = True
    with pytest.raises(InputChanged):
        run(ctx, file=audio)
    assert len(ctx.whisper.requests) == 1
    assert not (tmp_path / "out" / "memo.txt").exists()


def test_the_request_carries_every_choice(tmp_path: Path, audio: Path) -> None:
    """The runtime's documented request, nothing more, nothing less."""
    ctx = FakeContext(tmp_path)
    run(
        ctx,
        file=audio,
        language="de",
        initial_prompt="Änne",
        word_timestamps=True,
        task="translate",
        condition_on_previous_text=False,
    )
    assert ctx.whisper.requests == [
        {
            "file": str(audio),
            "language": "de",
            "initial_prompt": "Änne",
            "word_timestamps": True,
            "temperature": 0.0,
            "task": "translate",
            "condition_on_previous_text": False,
        }
    ]


def test_all_formats_are_written_once(tmp_path: Path, audio: Path) -> None:
    """A list or a comma-separated text; doubles count once; none at all writes nothing."""
    out = tmp_path / "out"
    run(FakeContext(out, stem="call"), file=audio, formats="txt, srt,vtt,json,txt")
    assert sorted(path.name for path in out.iterdir()) == ["call.json", "call.srt", "call.txt", "call.vtt"]
    assert json.loads((out / "call.json").read_text())["duration"] == 3.0
    assert run(FakeContext(tmp_path / "none"), file=audio, formats=[])["outputs"] == []


def test_a_long_transcript_stays_out_of_the_ledger(tmp_path: Path, audio: Path) -> None:
    """Beyond 200 segments the result keeps text and count; words are only in the json file."""

    def long(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        one = {"start": 0.0, "end": 1.0, "text": "a", "words": [{"word": "a"}]}
        count = request["initial_prompt"]
        return {"text": "a", "language": "en", "duration": 1.0, "segments": [one] * int(count)}

    few = run(FakeContext(tmp_path, whisper=long), file=audio, initial_prompt=str(MOST_SEGMENTS))
    assert len(few["segments"]) == few["segment_count"] == MOST_SEGMENTS
    assert "words" not in few["segments"][0]
    many = run(FakeContext(tmp_path, whisper=long), file=audio, initial_prompt=str(MOST_SEGMENTS + 1))
    assert "segments" not in many
    assert many["segment_count"] == MOST_SEGMENTS + 1


def test_progress_without_a_known_length(tmp_path: Path, audio: Path) -> None:
    """A stream whose length nobody knows still tells how far it is."""

    def endless(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        on_event("progress", {"done": 30.0})
        return hear(request, lambda *_: None)

    ctx = FakeContext(tmp_path, whisper=endless)
    run(ctx, file=audio)
    assert ctx.told == [(30.0, None, "s", "")]


def test_a_bad_file_costs_no_model(tmp_path: Path, audio: Path) -> None:
    """Missing, empty, a folder, a link in a watched folder: refused before a model is leased."""
    ctx = FakeContext(tmp_path)
    empty = tmp_path / "empty.wav"
    empty.touch()
    link = tmp_path / "link.flac"
    link.symlink_to(audio)
    watched = FakeContext(tmp_path, placement=Placement(input=link))
    for context, path, said in [
        (ctx, tmp_path / "nowhere.wav", "does not exist"),
        (ctx, empty, "is empty"),
        (ctx, tmp_path, "is a folder"),
        (watched, link, "is a link"),
    ]:
        with pytest.raises(InvalidInput, match=said):
            run(context, file=path)
        assert context.leases == []
    assert run(ctx, file=link)["text"]


def _by_windows(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Hear three windows of ten seconds, those after the place to go on from."""
    at = request.get("resume", {}).get("frame", 0)
    since = at / 100
    segments, texts = [], []
    for end in range(at + 1000, 4000, 1000):
        text = f" Window {end // 1000}."
        segments.append({"start": end / 100 - 10, "end": end / 100, "text": text.strip()})
        on_event("segment", segments[-1])
        state = {"frame": end, "digest": f"d{end}", "language": "en"}
        on_event("window", {"text": text, "since": since, "last": end == 3000, "state": state})
        on_event("progress", {"done": end / 100, "total": 30.0})
        texts.append(text)
    return {
        "text": "".join(texts).strip(),
        "language": "en",
        "duration": 30.0,
        "segments": segments,
        "since": since,
    }


@pytest.mark.parametrize("windows", [1, 2])
def test_an_interrupted_transcription_goes_on_at_the_next_window(tmp_path: Path, audio: Path, windows: int) -> None:
    """The next attempt asks from the last checkpoint on; files and result are those of an undisturbed run."""
    whole = run(FakeContext(tmp_path / "whole", whisper=_by_windows), file=audio, formats=["json", "txt"])

    stopped = FakeContext(tmp_path / "out", whisper=_by_windows)

    def stop(_: Mapping[str, Any]) -> None:
        if len(stopped.checkpoints) == windows:
            raise Interrupted

    stopped.on_checkpoint = stop
    with pytest.raises(Interrupted):
        run(stopped, file=audio, formats=["json", "txt"])
    again = FakeContext(tmp_path / "out", whisper=_by_windows, saved=stopped.checkpoints[-1])
    result = run(again, file=audio, formats=["json", "txt"])

    assert again.whisper.requests[0]["resume"]["frame"] == 1000 * windows
    assert {**result, "outputs": []} == {**whole, "outputs": []}
    for name in ("memo.json", "memo.txt"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_checkpoint_is_for_the_same_work(tmp_path: Path, audio: Path) -> None:
    """With another parameter nothing is kept, and a short recording writes no checkpoint at all."""
    first = FakeContext(tmp_path, whisper=_by_windows)
    run(first, file=audio, formats=[])
    assert len(first.checkpoints) == 2
    other = FakeContext(tmp_path, whisper=_by_windows, saved=first.checkpoints[-1])
    run(other, file=audio, formats=[], language="de")
    assert "resume" not in other.whisper.requests[0]
    short = FakeContext(tmp_path)
    run(short, file=audio, formats=[])
    assert short.checkpoints == []


@pytest.mark.parametrize("params", [{}, {"file": "a.wav"}, {"file": "/a", "formats": ["doc"]}, {"file": "/a", "x": 1}])
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any]) -> None:
    """Before the job is accepted."""
    with pytest.raises(ValidationError):
        Params(**params)
