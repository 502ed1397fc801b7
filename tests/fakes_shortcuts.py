"""Names that break careless commands, a launcher that records what it gets, and a scripted macOS."""

from __future__ import annotations

import random
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from launchd.contract import Answer

#: Pieces that mean something to a shell, to Python, to a terminal, or to whoever splits words.
PIECES = (
    *(" ", "  ", "\t", "\n", "\r", "'", '"', "\\", "`", "$", "$(touch hit)", "`touch hit`", "; touch hit ;", "&", "|"),
    *(
        "&& touch hit",
        "${HOME}",
        "$@",
        "$*",
        "$1",
        "!",
        "#",
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "~",
        "(",
        ")",
        "<",
        ">",
        "=",
        ":",
    ),
    *(
        "-",
        "--",
        "-rf",
        "--help",
        "-n",
        "%",
        "%s",
        "%00",
        "\\n",
        "\\0",
        "\x01",
        "\x1b[31m",
        "\x7f",
        "''",
        "'\\''",
        "EOF",
    ),
    *(
        "a",
        "memo",
        ".m4a",
        ".",
        "..",
        "\u00fc",
        "u\u0308",
        "\u00e9",
        "e\u0301",
        "\uac00",
        "\u1100\u1161",
        "\ufb01",
        "\u212b",
    ),
    *(
        "\U0001f399",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u202e",
        "\u00a0",
        "\u2028",
        "\u65e5\u672c",
        "\ufeff",
    ),
)
LONGEST = 255


def hostile_names(count: int, *, seed: int = 1) -> list[str]:
    """Return *count* different names that a file may have on a Mac or on Linux."""
    rng = random.Random(seed)
    found: dict[str, None] = dict.fromkeys(
        ["-", "--", "-rf", "--model=x", "a b.m4a", " ", "\n", "'", "~", "$(touch hit)"]
    )
    while len(found) < count:
        name = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 9)))
        if rng.random() < 0.1:
            name = unicodedata.normalize("NFD", name)
        if name not in {".", ".."} and len(name.encode()) <= LONGEST:
            found[name] = None
    return list(found)


def shells() -> list[str]:
    """Return the shells of Automator and Shortcuts that are here."""
    return [path for name in ("sh", "bash", "zsh") if (path := shutil.which(name, path="/bin:/usr/bin"))]


class Recorder:
    """A launcher in a folder with an unkind name: notes its arguments and standard input, then answers."""

    def __init__(self, folder: Path, *, says: str = "result", status: int = 0) -> None:
        place = folder / 'it\'s "the" $(touch hit) folder'
        place.mkdir()
        self.launcher = place / "mlxd-run"
        self._argv, self._stdin = place / "argv", place / "stdin"
        self.folder = folder
        (place / "says").write_text(says)
        script = (
            '#!/bin/sh\nd=${0%/*}\nfor each do printf \'%s\\0\' "$each"; done >"$d/argv"\ncat >"$d/stdin"\n'
            f'cat "$d/says"\necho told >&2\nexit {status}\n'
        )
        self.launcher.write_text(script)
        self.launcher.chmod(0o700)

    def run(
        self, script: str, *, by: str, names: Sequence[str] = (), text: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run *script* as Automator and Shortcuts do."""
        return subprocess.run(
            ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", by, "-c", script, "-", *names],
            input=text,
            capture_output=True,
            check=False,
            timeout=30,
            cwd=self.folder,
        )

    @property
    def argv(self) -> list[bytes]:
        """The arguments of the last call, byte for byte."""
        return self._argv.read_bytes().split(b"\0")[:-1]

    @property
    def stdin(self) -> bytes:
        return self._stdin.read_bytes()

    @property
    def escaped(self) -> bool:
        """Whether a name was run."""
        return any(folder.joinpath("hit").exists() for folder in (self.folder, self.launcher.parent))


class FakeMac:
    """`shortcuts`, `pbs`, `open`, `osascript` and the rest: answers by program, and what was asked."""

    def __init__(self, **answers: Answer | Callable[[list[str]], Answer]) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> Answer:
        words = list(command)
        self.asked.append(words)
        answer = self.answers.get(Path(words[0]).name, Answer(0, "", ""))
        return answer if isinstance(answer, Answer) else answer(words)

    def calls(self, program: str) -> list[list[str]]:
        return [words[1:] for words in self.asked if Path(words[0]).name == program]


def signing(*modes: str) -> Callable[[list[str]], Answer]:
    """Return a `shortcuts` that can sign in these *modes*."""

    def answer(words: list[str]) -> Answer:
        given = dict(zip(words[2::2], words[3::2], strict=True))
        if given["--mode"] not in modes:
            return Answer(1, "", "Error: The operation couldn't be completed.\n(500)")
        Path(given["--output"]).write_bytes(b"AEA1" + Path(given["--input"]).read_bytes())
        return Answer(0, "", "")

    return answer
