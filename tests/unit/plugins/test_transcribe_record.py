"""The checkpoint of a transcription: what it keeps, when it holds, how often it is written."""

from fakes_tasks import FakeContext

from plugins.transcribe_record import Record, key_of


def _window(frame, text, *, since=0.0, last=False):
    return {"text": text, "since": since, "last": last, "state": {"frame": frame, "digest": "d"}}


def _segment(text):
    return {"start": 0.0, "end": 1.0, "text": text}


def test_another_attempt_goes_on_and_the_texts_are_joined(tmp_path):
    """Segments and text of both attempts make the result; a segment whose window did not end is not kept."""
    ctx = FakeContext(tmp_path)
    record = Record(ctx, "k")
    assert record.state is None
    record.segment(_segment("One."))
    record.window(_window(2900, " One."))
    record.segment(_segment("Lost."))
    ctx.saved = ctx.checkpoints[-1]

    again = Record(ctx, "k")
    assert again.state == {"frame": 2900, "digest": "d"}
    again.segment(_segment("Two."))
    again.window(_window(5000, " Two.", since=29.0, last=True))
    result = again.whole({"text": "Two.", "segments": [_segment("Two.")], "since": 29.0, "duration": 50.0})
    assert result["text"] == "One. Two."
    assert result["segments"] == [_segment("One."), _segment("Two.")]


def test_what_was_kept_is_dropped_when_the_sound_is_another(tmp_path):
    """The runtime says that it began at the beginning: then so does the text."""
    ctx = FakeContext(tmp_path)
    record = Record(ctx, "k")
    record.window(_window(2900, " One."))
    ctx.saved = ctx.checkpoints[-1]
    again = Record(ctx, "k")
    again.window(_window(2000, " Other."))
    assert ctx.checkpoints[-1]["text"] == " Other."
    assert again.whole({"text": "Other.", "segments": [], "since": 0.0})["text"] == "Other."


def test_other_work_does_not_go_on_from_it(tmp_path):
    """Another parameter, model or version of the checkpoint begins anew."""
    ctx = FakeContext(tmp_path)
    Record(ctx, "k").window(_window(2900, " One."))
    ctx.saved = ctx.checkpoints[-1]
    assert Record(ctx, "other").state is None
    ctx.saved = {**ctx.checkpoints[-1], "version": 0}
    assert Record(ctx, "k").state is None
    keys = {
        key_of({"file": "/a", "language": language}, {"ref": "r", "files": files, "batch": batch})
        for language in ("en", "de")
        for files in ("x", "y")
        for batch in (1, 2)
    }
    assert len(keys) == 4


def test_a_long_recording_is_not_written_at_every_window(tmp_path):
    """Up to 200 segments each window is saved, beyond that one a second, the last one never: its result follows."""
    now = [0.0]
    ctx = FakeContext(tmp_path)
    record = Record(ctx, "k", clock=lambda: now[0])
    for number in range(300):
        record.segment(_segment("a"))
        record.window(_window(number + 1, " a"))
        now[0] += 0.1
    assert 200 < len(ctx.checkpoints) < 215
    record.window(_window(301, " a", last=True))
    count = len(ctx.checkpoints)
    record.save(now=True)
    assert len(ctx.checkpoints) == count + 1
    record.save(now=True)
    assert len(ctx.checkpoints) == count + 1
