"""A scripted ``launchctl`` and ``systemctl``: real executables for a PATH, with a state on disk and no clock.

Time passes by counting calls: a job that was booted out answers ``print`` as a living one so many more times.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launchd.agent import AgentSpec
from launchd.contract import Answer

_LAUNCHCTL = """\
#!{python} -IS
import json, sys
from pathlib import Path
here = Path({folder!r})
state = json.loads((here / "state.json").read_text())
words = sys.argv[1:]
verb = words[0]

def end(code, out="", err=""):
    state["calls"].append(words)
    (here / "state.json").write_text(json.dumps(state))
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)

scripted = state["script"].get(verb, [])
if scripted:
    code = scripted.pop(0)
    if code:
        end(code, err="scripted refusal")

if verb == "print":
    parts = words[1].split("/")
    domain = "/".join(parts[:2])
    if domain not in state["domains"]:
        end(112, err="Could not find domain for " + domain)
    if len(parts) == 2:
        end(0, domain + " = {{ }}")
    job = state["loaded"].get(words[1])
    if job is None:
        end(113, err="Could not find service")
    if job["leaving"] is not None:
        job["leaving"] -= 1
        if job["leaving"] < 0:
            del state["loaded"][words[1]]
            end(113, err="Could not find service")
    end(0, state["print"].get("text") or job["text"])
if verb == "print-disabled":
    lines = ['"%s" => %s' % (label, "disabled" if off else "enabled") for label, off in state["disabled"].items()]
    end(0, "disabled services = {{\\n\\t" + "\\n\\t".join(lines) + "\\n}}\\n")
if verb == "enable":
    state["disabled"][words[1].split("/")[2]] = False
    end(0)
if verb == "bootout":
    job = state["loaded"].get(words[1])
    if job is None:
        end(3, err="Boot-out failed: 3: No such process")
    job["leaving"] = state["leave_after"]
    end(0)
if verb == "bootstrap":
    import plistlib
    domain, path = words[1:]
    if domain not in state["domains"]:
        end(112)
    label = plistlib.loads(Path(path).read_bytes())["Label"]
    name = domain + "/" + label
    if state["disabled"].get(label):
        end(119)
    if name in state["loaded"]:
        end(5 if state["loaded"][name]["leaving"] is not None else 17, err="already there")
    text = name + " = {{\\n\\tstate = not running\\n\\tlast exit code = (never exited)\\n}}"
    state["loaded"][name] = {{"leaving": None, "text": text, "plist": Path(path).read_text()}}
    end(0)
if verb == "kickstart":
    name = words[-1]
    if name not in state["loaded"]:
        end(113)
    state["loaded"][name]["text"] = name + " = {{\\n\\tstate = running\\n\\n\\tpid = 4711\\n\\tlast exit code = 0\\n}}"
    end(0, "service spawned with pid: 4711")
end(64, err="unknown verb " + verb)
"""

_SYSTEMCTL = """\
#!{python} -IS
import json, sys
from pathlib import Path
here = Path({folder!r})
state = json.loads((here / "state.json").read_text())
words = sys.argv[1:]
assert words[0] == "--user"
verb = words[1]

def end(code, out="", err=""):
    state["calls"].append(words[1:])
    (here / "state.json").write_text(json.dumps(state))
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)

if state["broken"]:
    end(1, err=state["broken"])
if verb == "start":
    state["facts"].update(LoadState="loaded", ActiveState="active", SubState="running", MainPID="4711")
elif verb == "stop":
    state["facts"].update(ActiveState="inactive", SubState="dead", MainPID="0")
elif verb == "daemon-reload":
    state["facts"]["LoadState"] = "loaded"
elif verb == "show":
    end(0, "".join(k + "=" + v + "\\n" for k, v in state["facts"].items()))
elif verb not in ("enable", "disable"):
    end(1, err="Unknown command verb " + verb)
end(0)
"""


class FakeManager:
    """A fake executable in *folder* (put it first in PATH), its state, and the calls it got."""

    def __init__(self, folder: Path, name: str, template: str, state: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._state_file = folder / "state.json"
        self._state_file.write_text(json.dumps(state))
        self.executable = folder / name
        self.executable.write_text(template.format(python=sys.executable, folder=str(folder)))
        self.executable.chmod(0o700)

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._state_file.read_text())
        return state

    def change(self, **changes: Any) -> None:
        self._state_file.write_text(json.dumps({**self.state, **changes}))

    @property
    def calls(self) -> list[list[str]]:
        calls: list[list[str]] = self.state["calls"]
        return calls

    @property
    def verbs(self) -> list[str]:
        """The verbs that were called, without the questions."""
        return [call[0] for call in self.calls if not call[0].startswith(("print", "show"))]


class FakeLaunchctl(FakeManager):
    """launchd as far as launchctl shows it."""

    def __init__(self, folder: Path, *, uid: int, screen: bool = True, leave_after: int = 0) -> None:
        domains = [f"user/{uid}", *([f"gui/{uid}"] if screen else [])]
        state = {
            "domains": domains,
            "loaded": {},
            "disabled": {},
            "leave_after": leave_after,
            "script": {},
            "print": {},
            "calls": [],
        }
        super().__init__(folder, "launchctl", _LAUNCHCTL, state)


class FakeSystemctl(FakeManager):
    """systemd's user manager as far as systemctl shows it."""

    def __init__(self, folder: Path) -> None:
        state = {"facts": {"LoadState": "not-found", "ActiveState": "inactive"}, "broken": "", "calls": []}
        super().__init__(folder, "systemctl", _SYSTEMCTL, state)


class ScriptedRun:
    """A `launchd.contract.Run` that answers from a table: command words -> answers in turn, the last one for ever."""

    def __init__(self, table: Mapping[tuple[str, ...], Sequence[int | Answer]]) -> None:
        self._table = {words: list(answers) for words, answers in table.items()}
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str]) -> Answer:
        words = tuple(command[1:])
        self.calls.append(words)
        for length in range(len(words), 0, -1):  # the most specific entry answers
            if answers := self._table.get(words[:length]):
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                return answer if isinstance(answer, Answer) else Answer(answer, "", "")
        return Answer(0, "", "")


class FakeTime:
    """A clock that only moves when somebody pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def sample_spec(root: Path, **changes: Any) -> AgentSpec:
    """A service whose files lie under *root*."""
    facts: dict[str, Any] = {
        "program": ("/bin/echo",),
        "state": root / "state",
        "logs": root / "logs",
        "socket": Path("/tmp/mlxd-sample/mlxd.sock"),  # short: pytest's own folders are too long on a Mac
        "environment": {"HOME": str(root)},
    }
    return AgentSpec(**{**facts, **changes})
