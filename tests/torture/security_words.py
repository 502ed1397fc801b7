"""Attacks by words: a thousand secrets that must stay where they belong, and texts that would forge the log."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import psutil
from fakes_acceptance import SpawnedDaemon
from fakes_weights import write_safetensors

from torture.http_stage import socket_of
from torture.row import Control
from torture.security_attack import Attack
from torture.security_plugin import LEAK, SABOTAGE

#: What a job does with its secret; crashes cost a runner each.
WAYS = ("fine", "fine", "raise", "cause", "exit", "done", "refuse", "invalid")
#: Tries to begin a line of its own, to close the JSON, and to steer a terminal.
FORGED = '\n{"level":"error","message":"forged"}\r\x1b[2J\x1b]0;x\x07\x9b31m\u2028\u202e","level":"x'
#: Where the daemon tells of itself.
VIEWS = ("/v1/health", "/v1/doctor", "/metrics", "/v1/models", "/v1/plugins", "/v1/config", "/v1/folders",
         "/v1/schedules", "/v1/tasks", "/openapi.json")  # fmt: skip
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")
#: Of the configuration, which a runner gets; of a webhook; of the shell that started the daemon, which nobody gets.
_ENV_SECRET, _HOOK_SECRET, _SHELL_SECRET = "s3cret-env-0123456789", "s3cret-hook-0123456789", "s3cret-shell-0123456789"


def secrets(count: int, *, seed: int) -> list[str]:
    """Return *count* strings that occur nowhere else."""
    chance = random.Random(f"{seed}-secrets")
    return [f"zq{chance.getrandbits(96):024x}" for _ in range(count)]


@contextmanager
def leaky(*, sabotaged: bool = False) -> Iterator[SpawnedDaemon]:
    """Run a daemon whose plugin quotes its prompts wherever it can; *sabotaged*: one that logs them too."""
    daemon = SpawnedDaemon()
    daemon.traced = False
    model = daemon.home / "leaky"
    model.mkdir()
    (model / "config.json").write_text("{}")
    write_safetensors(model / "model.safetensors", {"w": ("F32", [2])})
    daemon.configure(
        f'[models]\nleaky = {{ path = "{model}", runtime = "leak" }}\n[runner]\nmax_crashes = 1\n'
        f'env = {{ MY_TOKEN = "{_ENV_SECRET}" }}\n[log]\nlevel = "debug"\n[plugins]\nentry_points = "none"\n'
        f'[[notify]]\nurl = "http://127.0.0.1:9/{_HOOK_SECRET}"\ntasks = ["leak"]\non = "failed"\ntries = 1\n'
    )
    for name, source in {"leak": LEAK, **({"aa_sabotage": SABOTAGE} if sabotaged else {})}.items():
        (daemon.home / "plugins" / f"{name}.py").write_text(source)
        (daemon.home / "plugins" / f"{name}.py").chmod(0o600)
    try:
        with patch.dict(os.environ, {"AWS_SECRET_ACCESS_KEY": _SHELL_SECRET}):
            daemon.start()
        yield daemon
    finally:
        daemon.close()


def kept_secrets(count: int, *, crashes: int, seed: int) -> Attack:
    """Give *count* jobs a secret each, and look for all of them wherever they do not belong."""
    found = _found(secrets(count, seed=seed), crashes=crashes, sabotaged=False)
    betrayed = _found(secrets(24, seed=seed + 1), crashes=1, sabotaged=True)
    return Attack(
        name="secrets in prompts, results and the configuration",
        tries=count,
        broken=found,
        control=Control(
            name="a log that tells all", caught=bool(betrayed), evidence="; ".join(betrayed[:3]) or "nothing"
        ),
    )


def _found(words: list[str], *, crashes: int, sabotaged: bool) -> list[str]:
    """Return where secrets turned up."""
    with leaky(sabotaged=sabotaged) as daemon:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket_of(daemon))), base_url="http://m", timeout=60
        ) as http:
            owners = _submitted(http, words, crashes)
            _quiesce(daemon, http)
            loaded = http.post("/v1/models/load", json={"ref": "leaky"})  # the last crash may have taken the runner
            places = {name: http.get(name).text for name in VIEWS}
            places |= {f"the error of job {one}": text for one, text in _errors(http).items()}
            places |= _processes(daemon)
        places |= _files(daemon)
    if not any(place.startswith("the environment of runner") for place in places):
        return [f"there was no runner to look at: {loaded.status_code} {loaded.text}"]
    found = [f"the configuration's secrets are in {place}" for place, text in places.items() if _hook_in(place, text)]
    for word in words:
        found += [
            f"a job's secret is in {place}"
            for place, text in places.items()
            if word in text and not _own(place, owners.get(word))
        ]
    return sorted(set(found))


def _hook_in(place: str, text: str) -> bool:
    # A runner may see the variables that the configuration gives it, and nobody else its environment.
    return (
        _HOOK_SECRET in text
        or _SHELL_SECRET in text
        or (_ENV_SECRET in text and not place.startswith("the environment of runner"))
    )


def _own(place: str, owner: str | None) -> bool:
    """A job's own error may quote its prompt: that is where its person looks."""
    return owner is not None and place == f"the error of job {owner}"


def _submitted(http: httpx.Client, words: list[str], crashes: int) -> dict[str, str]:
    owners = {}
    for number, word in enumerate(words):
        how = "crash" if number < crashes else WAYS[number % len(WAYS)]
        body = {"task": "leak", "params": {"text": f"my password is {word}", "how": how}, "max_failures": 1}
        answer = http.post("/v1/jobs", json=body)
        if answer.status_code == 201:
            owners[word] = answer.json()["id"]
    return owners


def _quiesce(daemon: SpawnedDaemon, http: httpx.Client) -> None:
    def idle() -> bool:
        counts = http.get("/v1/health").json()["counts"]
        return not counts.get("queued") and not counts.get("running")

    daemon.until(idle, "the jobs to end")


def _errors(http: httpx.Client) -> dict[str, str]:
    """Return what stands in each job's error, deliveries included."""
    found, cursor = {}, ""
    while cursor is not None:
        page = http.get("/v1/jobs", params={"limit": 500, **({"cursor": cursor} if cursor else {})}).json()
        found |= {job["id"]: json.dumps(job["error"]) for job in page["jobs"] if job["error"]}
        cursor = page["next"]
    return found


def _processes(daemon: SpawnedDaemon) -> dict[str, str]:
    """Return command lines and environments of the daemon and its runners."""
    assert daemon.process is not None
    main = psutil.Process(daemon.process.pid)
    found = {"the command line of the daemon": " ".join(main.cmdline())}
    for child in main.children(recursive=True):
        found[f"the command line of runner {child.pid}"] = " ".join(child.cmdline())
        found[f"the environment of runner {child.pid}"] = str(child.environ())
    return found


def _files(daemon: SpawnedDaemon) -> dict[str, str]:
    """Return all that was written and is no job's own: logs, standard error, the queue, the lock."""
    logs = [path for path in (daemon.home / "logs").rglob("*") if path.is_file()]
    others = [daemon.home / "daemon.out", *(daemon.home / "state").glob("queue*"), daemon.home / "state" / "mlxd.lock"]
    return {path.name: path.read_bytes().decode(errors="replace") for path in (*logs, *others) if path.exists()}


def forged_logs() -> Attack:
    """Put line ends, colours and JSON into every field a stranger can fill; the log stays one record a line."""
    tries, broken = _log_after_forging(sabotaged=False)
    _, betrayed = _log_after_forging(sabotaged=True)
    return Attack(
        name="forged log lines",
        tries=tries,
        broken=broken,
        control=Control(
            name="nothing is escaped", caught=bool(betrayed), evidence="; ".join(betrayed[:2]) or "nothing"
        ),
    )


def _log_after_forging(*, sabotaged: bool) -> tuple[int, list[str]]:
    with leaky(sabotaged=sabotaged) as daemon:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket_of(daemon))), base_url="http://m", timeout=60
        ) as http:
            bodies = list(_forged_jobs(daemon.home))
            for number, (path, body) in enumerate(bodies):
                keyed = {"content-type": "application/json", "idempotency-key": f"a{number}"}
                http.post(path, content=json.dumps(body), headers=keyed)
            for name in ("a\nforged", "a\x1b[2Jforged.txt", 'a","level":"error.txt', "\u202eforged.wav"):
                inbox = daemon.home / "inbox"
                inbox.mkdir(exist_ok=True)
                (inbox / name).write_text(FORGED)
            http.post("/v1/folders/rescan")
            _quiesce(daemon, http)
        lines = (daemon.home / "logs" / "mlxd.log").read_bytes().decode().splitlines()
        shown = daemon.output
    broken = [f"the log has the line {line[:80]!r}" for line in lines if not _is_record(line)]
    broken += [f"standard error got {match.group()!r}" for match in _CONTROLS.finditer(shown)][:5]
    return len(bodies) + 4, broken


def _forged_jobs(home: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield requests with the forged text in each field."""
    yield from (
        ("/v1/jobs", {"task": "leak", "params": {"text": FORGED, "how": how}}) for how in (*sorted(set(WAYS)), FORGED)
    )
    base = {"task": "leak", "params": {"text": "x", "how": "raise"}}
    for field in ("task", "idempotency_key", "parent", "lane"):
        yield "/v1/jobs", {**base, field: FORGED}
    yield "/v1/jobs", {**base, "source": {"kind": FORGED, "detail": FORGED, "rule": FORGED}}
    yield (
        "/v1/jobs",
        {**base, "placement": {"directory": f"{home}/{FORGED}", "stem": FORGED, "input": f"{home}/{FORGED}"}},
    )
    yield "/v1/models/load", {"ref": FORGED, "runtime": FORGED}
    yield "/v1/models/load", {"ref": f"/{FORGED}"}
    yield "/v1/folders/test", {"path": f"/{FORGED}"}
    yield "/v1/schedules", {"name": FORGED, "task": "leak", "every": "1h"}
    yield "/v1/schedules", {"name": "a", "task": "leak", "every": "1h", "params": {"text": FORGED}, "folder": FORGED}
    yield f"/v1/jobs/{'%0a%1b%5b2J'}/cancel", {}


def _is_record(line: str) -> bool:
    if _CONTROLS.search(line):
        return False
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return (
        isinstance(found, dict)
        and {"time", "level", "message", "logger"} <= set(found)
        and found["message"] != "forged"
    )
