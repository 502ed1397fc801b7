"""Transcript formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.subtitles import FORMATS, as_json, srt, stamp, txt, vtt


def transcript(*segments: tuple[float, float, str]) -> dict[str, Any]:
    return {
        "text": " ".join(text.strip() for _, _, text in segments),
        "language": "en",
        "duration": 9.0,
        "segments": [{"start": start, "end": end, "text": text} for start, end, text in segments],
    }


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "00:00:00,000"),
        (1.5, "00:00:01,500"),
        (59.9996, "00:01:00,000"),
        (3599.9999, "01:00:00,000"),
        (360_000, "100:00:00,000"),
        (-0.2, "00:00:00,000"),
    ],
)
def test_a_time_carries_when_it_is_rounded(seconds: float, said: str) -> None:
    """59.9996 s is a minute, not 00:00:60,000, which players refuse."""
    assert stamp(seconds, ",") == said


@settings(deadline=None)  # a loaded machine is no finding
@given(st.floats(min_value=0, max_value=1e6))
def test_a_time_is_always_well_formed(seconds: float) -> None:
    """Minutes and seconds stay below 60, and the value survives to half a millisecond."""
    hours, minutes, rest = stamp(seconds, ".").split(":")
    assert int(minutes) < 60
    assert float(rest) < 60
    assert int(hours) * 3600 + int(minutes) * 60 + float(rest) == pytest.approx(seconds, abs=6e-4)


def test_srt_numbers_its_cues_and_parts_them_by_a_blank_line() -> None:
    """This is the whole of the format."""
    assert srt(transcript((0, 1.5, " Hello."), (1.5, 3, " Bye."))) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n00:00:01,500 --> 00:00:03,000\nBye.\n"
    )


def test_vtt_has_its_header_and_escapes_markup() -> None:
    """WebVTT reads & and < as markup; text must come out as it was said."""
    assert vtt(transcript((0, 1, "R&D <now>"))) == ("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nR&amp;D &lt;now&gt;\n")


def test_what_would_break_a_cue_is_repaired() -> None:
    """Empty cues are left out and not numbered, arrows and blank lines inside one vanish, an end never precedes."""
    text = srt(transcript((0, 1, "  "), (2, 1, "a --> b\n\nc")))
    assert text == "1\n00:00:02,000 --> 00:00:02,000\na -> b\nc\n"


def test_txt_is_a_line_a_segment() -> None:
    """As whisper's own programs write it; with no segments the text alone, with nothing said nothing."""
    assert txt(transcript((0, 1, " Hello."), (1, 2, " "), (2, 3, " Bye."))) == "Hello.\nBye.\n"
    assert txt({"text": " Hello.", "segments": []}) == "Hello.\n"
    assert txt({"text": " ", "segments": []}) == ""


def test_silence_is_valid_in_every_format() -> None:
    """A recording in which nobody speaks gives empty files that their programs still open."""
    silent = transcript()
    assert [FORMATS[form](silent) for form in ("txt", "srt", "vtt")] == ["", "", "WEBVTT\n"]


def test_json_keeps_everything_readable() -> None:
    """Words and their times survive, letters are not escaped."""
    words = {"text": "Grüße", "segments": [{"start": 0, "end": 1, "text": "Grüße", "words": [{"word": "Grüße"}]}]}
    assert json.loads(as_json(words)) == words
    assert "Grüße" in as_json(words)
