"""Names of files, and headers of weights."""

from __future__ import annotations

import json
import os
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.target import Target
from jobs.errors import ModelBroken
from jobs.names import safe_name
from jobs.outputs import OutputWriter
from plugins import weights

ROOT = Path("/root-of-outputs")
_FORBIDDEN = set("/\\:\0") | {chr(code) for code in range(32)} | set("\x7f\u2028\u2029\u202e\u2066\u200f")
_SIZES = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8, "U8": 1, "BOOL": 1}


def check_name(data: bytes, make_safe: Callable[[str], str]) -> None:
    """One visible name: composed, at most 255 bytes, nothing that leads away, and safe names stay as they are."""
    given = data.decode("utf-8", "surrogateescape")
    name = make_safe(given)
    _one_component(name)
    assert make_safe(name) == name, f"{name!r} becomes {make_safe(name)!r} when it is made safe again"


def _one_component(name: str) -> None:
    assert len(name.encode()) <= 255, f"{len(name.encode())} bytes"
    assert unicodedata.normalize("NFC", name) == name, f"{name!r} is not composed"
    assert name not in {"", ".", ".."}, f"{name!r} is no name"
    assert not name.startswith((".", " ")), f"{name!r} hides"
    assert not name.endswith((".", " ")), f"{name!r} ends as other systems do not allow"
    assert not _FORBIDDEN & set(name), f"{name!r} holds what must not be in a name"


def check_place(data: bytes, place: Callable[[str], Path]) -> None:
    """Whatever a task calls its output, it lies under the root, and each part is a safe name."""
    path = place(data.decode("utf-8", "surrogateescape"))
    assert os.path.normpath(path) == str(path), f"{path} is not what it seems"
    assert path != ROOT, "the root itself"
    assert path.is_relative_to(ROOT), f"{path} is not under {ROOT}"
    for part in path.relative_to(ROOT).parts:
        _one_component(part)


def _place(name: str) -> Path:
    return OutputWriter(ROOT, job_id="x", intend=lambda _: None, mine={})._wanted(name)[1]


def check_header(data: bytes, read_header: Callable[[Path], dict[str, Any]]) -> None:
    """Refused in a sentence, or every tensor lies in the file and they fill it without a gap: by reckoning of our own.

    The first byte says whether the rest is the file, or a header that a right length is put before.
    """
    path = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.safetensors"
    if data[:1] < b"\x80":
        room, text = int.from_bytes(data[1:2]), data[2:]
        data = b"_" + len(text).to_bytes(8, "little") + text + bytes(room)
    path.write_bytes(data[1:])
    try:
        tensors = read_header(path)
    except ModelBroken as error:
        if len(error.message) > 1000:
            raise AssertionError("a refusal without end") from error
        return
    finally:
        path.unlink()
    length = int.from_bytes(data[1:9], "little")
    assert length <= len(data) - 9, "a header longer than its file"
    said = json.loads(data[9 : 9 + length])
    assert set(tensors) == set(said) - {"__metadata__"}, "other tensors than the header's"
    spans = sorted((one.begin, one.end) for one in tensors.values())
    assert all(before[1] == after[0] for before, after in zip([(0, 0), *spans], spans, strict=False)), "a gap"
    assert (spans[-1][1] if spans else 0) == len(data) - 9 - length, "the file is not filled"
    for tensor in tensors.values():
        if tensor.dtype in _SIZES:
            assert tensor.elements * _SIZES[tensor.dtype] == tensor.nbytes, "a tensor of another size"


def _believing(path: Path) -> dict[str, Any]:
    """Read as somebody would who believes what the header says about gaps: the planted bug."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = weights._header_length(path, file.read(8), size)
        return weights._tensors(path, file.read(length))


def _not_again(name: str) -> str:
    """Make safe in one pass, as many programs do: the planted bug."""
    return name.replace("/", "_").replace("\0", "_").replace("..", "").strip() or "output"


TARGETS = [
    Target("names", check_name, safe_name, {"one pass of replacing": _not_again}),
    Target("outputs", check_place, _place, {"joined as it came": lambda name: ROOT / name}),
    Target("safetensors", check_header, weights.read_header, {"offsets are believed": _believing}),
]
