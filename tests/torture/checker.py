"""Says what was promised and not kept. Reads the history, the ledger and the files; none of mlxd's code.

**Lost**: acknowledged, and not in the ledger, or without its result at the end. **Unexpected**: in the ledger, and
nobody submitted it. **Doubled**: one key or file that became two jobs, one result written twice, one claim that ran
twice, two executions at once. **Wrong**: there, and not what it should be. **Unfinished**: not lost, not ended.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from torture.history import read
from torture.stub_plugin import expected, expected_output

#: States that never change again.
ENDED = ("succeeded", "failed", "cancelled", "quarantined")
_FIELDS = (
    "id",
    "task",
    "idempotency_key",
    "parent",
    "source_kind",
    "source_detail",
    "state",
    "params",
    "result",
    "outputs",
)


@dataclass
class Verdict:
    """How many promises were broken in each way; *sentences* says which, at most `MOST` of each kind."""

    lost: int = 0
    unexpected: int = 0
    doubled: int = 0
    wrong: int = 0
    unfinished: int = 0
    #: Different jobs that were promised: by an acknowledgement, or as a file in a watched folder.
    promised: int = 0
    sentences: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.unexpected or self.doubled or self.wrong or self.unfinished)

    def add(self, kind: str, sentence: str) -> None:
        """Count a broken promise."""
        count = getattr(self, kind) + 1
        setattr(self, kind, count)
        if count <= MOST:
            self.sentences.append(f"{kind}: {sentence}")


MOST = 20


def check(
    history: Path, *, ledger: Path, executions: Path | None = None, results: Path | None = None, whole: bool = True
) -> Verdict:
    """Hold what clients were told against what there is; to be called when the daemon is still.

    *executions* is the stub's log, *results* the folder of the jobs' own result folders. With *whole* false the ledger
    holds more than the history tells of, and nothing counts as unexpected.
    """
    verdict = Verdict()
    lines, jobs = read(history), _jobs(ledger)
    _Promises(verdict, lines, jobs, results).check(whole=whole)
    if executions is not None:
        _check_executions(verdict, executions)
    if results is not None:
        _check_leftovers(verdict, results)
    return verdict


def _jobs(ledger: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(ledger)) as connection:
        found = connection.execute(f"SELECT {', '.join(_FIELDS)} FROM jobs ORDER BY seq").fetchall()  # noqa: S608 - our own names
    return [_parsed(dict(zip(_FIELDS, row, strict=True))) for row in found]


def _parsed(job: dict[str, Any]) -> dict[str, Any]:
    return job | {name: json.loads(job[name]) if job[name] else {} for name in ("params", "result", "outputs")}


class _Promises:
    """Acknowledgements and files against the ledger's jobs."""

    def __init__(
        self, verdict: Verdict, lines: list[dict[str, Any]], jobs: list[dict[str, Any]], results: Path | None
    ) -> None:
        self._verdict, self._jobs, self._results = verdict, jobs, results
        self._acks = [line for line in lines if line["kind"] == "ack"]
        self._files = [line for line in lines if line["kind"] == "file"]
        self._asked = {line["key"] for line in lines if line["kind"] in ("ack", "unknown")}
        self._places: Counter[str] = Counter()

    def check(self, *, whole: bool) -> None:
        """Look at every promise, then for what nobody asked for."""
        self._check_acks()
        self._check_files()
        if whole:
            self._check_strangers()
        for path, times in self._places.items():
            if times > 1:
                self._verdict.add("doubled", f"{times} jobs say that they wrote {path}")

    def _check_acks(self) -> None:
        by_id = {job["id"]: job for job in self._jobs}
        by_key = defaultdict(list)
        for job in self._jobs:
            if job["idempotency_key"]:
                by_key[job["idempotency_key"]].append(job["id"])
        told: dict[str, set[str]] = defaultdict(set)
        for ack in self._acks:
            told[ack["key"]].add(ack["job"])
        for key, ids in told.items():
            if len(ids | set(by_key[key])) > 1:
                self._verdict.add(
                    "doubled", f"the key {key} became the jobs {', '.join(sorted(ids | set(by_key[key])))}"
                )
        for ack in {ack["job"]: ack for ack in self._acks}.values():
            self._verdict.promised += 1
            self._check_job(by_id.get(ack["job"]), f"{ack['key']} ({ack['job']})", ack["key"], ack["expect"])

    def _check_files(self) -> None:
        by_file = defaultdict(list)
        for job in self._jobs:
            if job["source_kind"] == "folder":
                by_file[job["source_detail"]].append(job)
        for file in self._files:
            self._verdict.promised += 1
            found = by_file[file["path"]]
            if len(found) > 1:
                ids = ", ".join(job["id"] for job in found)
                self._verdict.add("doubled", f"the file {file['path']} became the jobs {ids}")
            self._check_job(found[0] if found else None, file["path"], file["sha256"], file["expect"])

    def _check_strangers(self) -> None:
        ids, paths = {ack["job"] for ack in self._acks}, {file["path"] for file in self._files}
        for job in self._jobs:
            known = job["id"] in ids or job["idempotency_key"] in self._asked or job["source_detail"] in paths
            # A parent's jobs, and deliveries of notices, are of the daemon's own making.
            if not known and job["parent"] is None and job["task"] != "deliver":
                self._verdict.add("unexpected", f"nobody submitted the job {job['id']} ({job['idempotency_key']})")

    def _check_job(self, job: Mapping[str, Any] | None, name: str, key: str, expect: Mapping[str, Any]) -> None:
        wanted = expect.get("state", "succeeded")
        wanted = [wanted] if isinstance(wanted, str) else wanted
        if job is None:
            self._verdict.add("lost", f"{name} is not in the ledger")
        elif job["state"] in wanted:
            if job["state"] == "succeeded":
                self._check_result(job, name, key, expect)
        elif job["state"] in ENDED:
            self._verdict.add("lost", f"{name} is {job['state']} instead of {' or '.join(wanted)}")
        else:
            self._verdict.add("unfinished", f"{name} is still {job['state']}")

    def _check_result(self, job: Mapping[str, Any], name: str, key: str, expect: Mapping[str, Any]) -> None:
        """Hold the result and the files against what the stub, or a known text, has to give."""
        size = expect.get("size", 64)
        text = expect.get("text", expected(key, size) if job["task"] == "stub" else None)
        said = str(job["result"].get("text"))
        if (text is not None and said != text) or ("words" in expect and said.split() != expect["words"].split()):
            self._verdict.add("wrong", f"the text of {name} is {said[:80]!r}")
        digests = []
        for output in job["outputs"]:
            self._places[output["path"]] += 1
            digests.append(self._digest(Path(output["path"]), output, name))
        if job["task"] != "stub":
            for output, digest in zip(job["outputs"], digests, strict=True):
                if digest is None:
                    self._verdict.add("lost", f"the output {output['path']} of {name} is not there")
            return
        wanted = [
            hashlib.sha256(expected_output(key, one, size)).hexdigest() for one in range(expect.get("outputs", 1))
        ]
        for digest in Counter(wanted) - Counter(digests):
            self._verdict.add("lost", f"an output of {name} with the SHA-256 {digest[:12]} is not there")
        for digest in Counter(filter(None, digests)) - Counter(wanted):
            self._verdict.add("wrong", f"{name} has an output too many, SHA-256 {digest[:12]}")
        for digest, times in Counter(digests).items():
            if times > 1:
                self._verdict.add("doubled", f"{name} has the output {str(digest)[:12]} {times} times")
        self._check_folder(job, name)

    def _digest(self, path: Path, output: Mapping[str, Any], name: str) -> str | None:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return None
        if digest != output["sha256"]:
            self._verdict.add("wrong", f"{path} of {name} is not what the ledger says of it")
        return digest

    def _check_folder(self, job: Mapping[str, Any], name: str) -> None:
        """In a job's own folder there are its outputs, each once, and nothing else."""
        own = self._results / job["id"] if self._results else None
        if own is None or not own.is_dir():
            return
        recorded = {Path(output["path"]).name for output in job["outputs"]}
        for path in own.iterdir():
            if path.name not in recorded and not path.name.endswith(".mlxd.json"):
                kind = "wrong" if path.name.startswith(".") else "doubled"
                self._verdict.add(kind, f"{name} left {path}, which it does not know of")


def _check_executions(verdict: Verdict, executions: Path) -> None:
    """One claim runs once, and what a claim does ends before the next one of the same job begins."""
    newest: dict[str, int] = {}
    for line in _lines(executions):
        words = line.split()
        if len(words) < 5 or words[0] not in ("begin", "step", "end"):
            continue
        what, key, fence = words[0], unquote(words[1]), int(words[2])
        last = newest.get(key, 0)
        if what == "begin" and fence <= last:
            verdict.add("doubled", f"claim {fence} of {key} was begun {'twice' if fence == last else f'after {last}'}")
        elif what != "begin" and fence < last:
            verdict.add("doubled", f"claim {fence} of {key} went on ({what}) after claim {last} had begun")
        newest[key] = max(last, fence)


def _check_leftovers(verdict: Verdict, results: Path) -> None:
    for path in results.rglob("*.mlxd-tmp"):
        verdict.add("wrong", f"the temporary file {path} was left behind")


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
