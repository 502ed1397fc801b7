"""Attacks by files: hostile names of outputs, and model folders that would like to run code."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import runpy
import struct
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from daemon.models.references import ResolvedModel
from daemon.models.sizes import Sizes
from jobs.errors import ModelBroken, OutputError
from jobs.outputs import OutputWriter
from plugins.runtime import Estimate
from torture.row import Control
from torture.security_attack import Attack

_PIECES = (
    "..", ".", "/", "//", "\\", "\0", "~", "etc", "passwd", ".ssh", "a", "b.txt", "C:", "CON", "nul.txt", "%2e%2e",
    "\u202e", "\u2066", "\u0301", "\u1100\u1161", "\ufeff", "\u200b", "\udc80", "\n", "\r", "\t", "\x1b[2J", " ", "...",
    "ä" * 100, "x" * 260, "-rf", "$(id)", "`id`", ";", "|", ".mlxd-tmp", ".mlxd.json", "link", "\uff0f", "\u2215",
    "trap", "%2f",
)  # fmt: skip


def names(count: int, *, seed: int) -> Iterator[str]:
    """Yield *count* names that want to get out, hide, or be something else."""
    chance = random.Random(f"{seed}-names")
    yield from ("../escaped.txt", "/escaped.txt", "link/escaped.txt", "a/../../escaped.txt", "trap", "", "/", "..")
    for _ in range(count - 8):
        yield "".join(chance.choice(_PIECES) + chance.choice(("", "", "/")) for _ in range(chance.randrange(1, 9)))


def hostile_names(count: int, folder: Path, *, seed: int) -> Attack:
    """Write *count* outputs for real, beside a link that leads out; nothing outside may come or change."""
    root, outside = folder / "root", folder / "outside"
    for place in (root, outside):
        place.mkdir(parents=True)
    (outside / "victim.txt").write_text("mine")
    (root / "link").symlink_to(outside)
    (root / "trap").symlink_to(outside / "victim.txt")
    writer = OutputWriter(root, job_id="attack", intend=lambda _: None, mine={})
    broken, refused = [], 0
    for number, name in enumerate(names(count, seed=seed)):
        content = f"{number}".encode()
        try:
            written = writer.write(name, content)
        except OutputError:
            refused += 1
            continue
        broken += _misplaced(name, written.path, root, content)
        written.path.unlink(missing_ok=True)
    found = {path.relative_to(folder).as_posix() for path in outside.rglob("*")} | {
        path.name for path in folder.iterdir()
    }
    if found != {"outside/victim.txt", "root", "outside"} or (outside / "victim.txt").read_text() != "mine":
        broken.append(f"something outside the root came or changed: {sorted(found)[:5]}")
    return Attack(
        name="hostile names of outputs",
        tries=count,
        broken=broken,
        control=_joined(count, folder / "control", seed),
        notes=[f"{refused} of {count} names were refused: they lead through the link that was put there"],
    )


def _misplaced(name: str, path: Path, root: Path, content: bytes) -> list[str]:
    real = Path(os.path.realpath(path))
    faults = {
        "lies outside the root": not real.is_relative_to(root) or real == root,
        "is a link": path.is_symlink(),
        "has another content": not path.is_symlink() and path.read_bytes() != content,
        "has a name of more than 255 bytes": len(os.fsencode(path.name)) > 255,
        "is not composed": unicodedata.normalize("NFC", path.name) != path.name,
        "hides": path.name.startswith("."),
        "has a control character in it": any(unicodedata.category(char) in {"Cc", "Cs"} for char in path.name),
    }
    return [f"{name[:60]!r} {fault}: {path}" for fault, true in faults.items() if true]


def _joined(count: int, folder: Path, seed: int) -> Control:
    """Join names as they come: by reckoning only, for some of them lead to the system's own files; one is written."""
    root = folder / "root"
    root.mkdir(parents=True)
    out = sum(not Path(os.path.normpath(f"{root}/{name}")).is_relative_to(root) for name in names(count, seed=seed))
    (root / "../escaped.txt").write_text("out")
    escaped = (folder / "escaped.txt").exists()
    return Control(name="names joined as they come", caught=escaped and out > 0, evidence=f"{out} of {count} got out")


class Bait(NamedTuple):
    """One way to make a model's folder run code or hurt its reader."""

    name: str
    spring: Callable[[Path, Path], None]


class _Pickled:
    """Runs code when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self._canary,)


def _config(**more: Any) -> Callable[[Path, Path], None]:
    def spring(folder: Path, canary: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", **more}))
        (folder / "evil.txt").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")

    return spring


def _code(name: str) -> Callable[[Path, Path], None]:
    def spring(folder: Path, canary: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")

    return spring


def _pickle(name: str) -> Callable[[Path, Path], None]:
    def spring(folder: Path, canary: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(_Pickled(canary)))

    return spring


def _header(text: str, *, room: int = 0, length: int | None = None) -> Callable[[Path, Path], None]:
    def spring(folder: Path, canary: Path) -> None:
        size = len(text.encode()) if length is None else length
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + text.encode() + bytes(room))

    return spring


_T = '"dtype":"F32","shape":[2],"data_offsets":'
BAITS = (
    *(Bait(f"code in {name}", _code(name)) for name in ("modeling_x.py", "tokenization.PY", "sub/x.py", "__init__.py")),
    *(Bait(f"a pickle, {name}", _pickle(name)) for name in ("pytorch_model.bin", "a.pkl", "b.PT", "c.pth")),
    Bait("model_file", _config(model_file="evil.txt")),
    Bait("auto_map", _config(auto_map={"AutoModel": "evil.X"})),
    Bait("auto_map further down", _config(text_config={"auto_map": {"AutoModel": "evil.X"}})),
    Bait("a header of 2^63 bytes", _header("{}", length=(1 << 63) + 2)),
    Bait("a header longer than the file", _header("{}", length=99)),
    Bait("overlapping tensors", _header(f'{{"a":{{{_T}[0,8]}},"b":{{{_T}[4,12]}}}}', room=12)),
    Bait("a tensor beyond the end", _header(f'{{"a":{{{_T}[0,8]}}}}', room=4)),
    Bait("a gap", _header(f'{{"a":{{{_T}[8,16]}}}}', room=16)),
    Bait("a name twice", _header(f'{{"a":{{{_T}[0,8]}},"a":{{{_T}[0,8]}}}}', room=8)),
    Bait("deep JSON", _header('{"a":' + "[" * 100_000)),
    Bait("numbers without end", _header('{"a":{"dtype":"U8","shape":[' + ",".join(["9" * 4000] * 50) + "]}}")),
    Bait("a negative shape", _header('{"a":{"dtype":"F32","shape":[-2,-1],"data_offsets":[0,8]}}', room=8)),
    Bait("a pipe", lambda folder, _: os.mkfifo(folder / "pipe.safetensors")),
    Bait("a deep configuration", lambda folder, _: (folder / "config.json").write_text("[" * 100_000) and None),
)  # fmt: skip


def model_folders(count: int, folder: Path, *, seed: int) -> Attack:
    """Offer *count* folders to the scheduler's gate: each is refused before a runner could be started."""
    chance, canary = random.Random(f"{seed}-models"), folder / "canary"
    folder.mkdir()
    sizes = Sizes(lambda: {"lm": _Estimates()})
    broken, ran = [], 0
    for number in range(count):
        place = _sound(folder / str(number))
        baits = [BAITS[number % len(BAITS)], *chance.sample(BAITS, chance.randrange(2))]
        for bait in baits:
            with contextlib.suppress(OSError):
                bait.spring(place, canary)
        shown = " and ".join(bait.name for bait in baits)
        try:
            sizes(ResolvedModel(ref="attack", runtime="lm", path=place))
            broken.append(f"accepted: {shown}")
        except ModelBroken:
            pass
        if canary.exists():
            broken.append(f"code was run: {shown}")
            canary.unlink()
        ran += _trusting(place, canary)
    control = Control(
        name="a loader that trusts",
        caught=ran > count // 4,
        evidence=f"{ran} of {count} folders ran code or were believed",
    )
    try:
        sizes(ResolvedModel(ref="honest", runtime="lm", path=_sound(folder / "honest")))
    except ModelBroken as error:
        broken.append(f"an honest model was refused: {error}")
    return Attack(name="hostile model folders", tries=count, broken=broken, control=control)


class _Estimates:
    def estimate(self, path: Path, options: Any) -> Estimate:
        return Estimate(1, 1)


def _sound(place: Path) -> Path:
    place.mkdir()
    (place / "config.json").write_text('{"model_type": "llama"}')
    _header(f'{{"a":{{{_T}[0,8]}}}}', room=8)(place, place)
    return place


def _trusting(place: Path, canary: Path) -> bool:
    """Load as careless libraries do; return whether the folder's code was run, or its header believed."""
    for path in [one for one in place.rglob("*") if one.is_file()]:
        with contextlib.suppress(Exception):
            if path.suffix.lower() == ".py" or path.name == "evil.txt":
                runpy.run_path(str(path))
            elif path.suffix.lower() in {".bin", ".pkl", ".pt", ".pth", ".ckpt"}:
                pickle.loads(path.read_bytes())  # noqa: S301 - that is the attack
    if canary.exists():
        canary.unlink()
        return True
    with contextlib.suppress(OSError, ValueError, RecursionError, struct.error, TypeError):
        raw = (place / "model.safetensors").read_bytes()
        return bool(json.loads(raw[8 : 8 + min(struct.unpack("<Q", raw[:8])[0], len(raw))]))
    return False
