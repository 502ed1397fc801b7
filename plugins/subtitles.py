"""Formats a transcript as txt, srt, vtt or json; pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

#: ``{"start": seconds, "end": seconds, "text": str}``, with ``words`` if they were asked for.
Segment = Mapping[str, Any]


def txt(transcript: Mapping[str, Any]) -> str:
    """Return one line a segment, as the whisper programs do."""
    lines = [str(segment["text"]).strip() for segment in transcript["segments"]]
    text = "\n".join(line for line in lines if line) or str(transcript["text"]).strip()
    return text + "\n" if text else ""


def srt(transcript: Mapping[str, Any]) -> str:
    """Return SubRip subtitles."""
    cues = _cues(transcript["segments"])
    return "\n".join(
        f"{number}\n{stamp(start, ',')} --> {stamp(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(cues, start=1)
    )


def vtt(transcript: Mapping[str, Any]) -> str:
    """Return WebVTT subtitles."""
    cues = [
        f"{stamp(start, '.')} --> {stamp(end, '.')}\n{_escaped(text)}\n"
        for start, end, text in _cues(transcript["segments"])
    ]
    return "\n".join(["WEBVTT\n", *cues])


def as_json(transcript: Mapping[str, Any]) -> str:
    """Return everything, words included, as JSON."""
    return json.dumps(transcript, ensure_ascii=False, indent=2) + "\n"


#: Format name, which is also the file suffix -> formatter.
FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = MappingProxyType(
    {"txt": txt, "srt": srt, "vtt": vtt, "json": as_json}
)


def stamp(seconds: float, point: str) -> str:
    """Return *seconds* as ``HH:MM:SS<point>mmm``; rounding carries over, a negative time is 0."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _cues(segments: Sequence[Segment]) -> list[tuple[float, float, str]]:
    """Return what players accept: no empty text, no blank line or arrow inside one, no end before its start."""
    found = []
    for segment in segments:
        start, end = float(segment["start"]), float(segment["end"])
        text = "\n".join(line.strip() for line in str(segment["text"]).splitlines() if line.strip())
        if text:
            found.append((start, max(start, end), text.replace("-->", "->")))
    return found


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
