"""A file that holds still becomes a job: once, durably, or the file waits.

What has been taken is remembered in the ledger, never only here. Two keys speak for a file:

1. its *place* (path, device, inode, size, time of change): an unchanged file is recognised without reading it;
2. its *content* with what the rule does to it: a touched file is not done twice, unless the folder says ``again``, or
   it failed before: then putting it there once more is asking for another try. A copy, or a file of another name, is a
   job of its own, which takes the recorded result (`daemon.reuse`): nothing that is put there goes unanswered.

A changed rule applies to files that come from now on: the place key knows nothing of rules.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from daemon.config.folders import FolderConfig, RuleConfig
from daemon.folders.identity import (
    Facts,
    FileChanged,
    HashingStopped,
    content_digest,
    content_key,
    name_key,
    open_still,
    place_key,
    read_head,
)
from daemon.folders.rules import Takes, anything, fingerprint, new_job
from jobs.accepting import SeenFile
from jobs.errors import InvalidInput, InvalidParams, JobNotFound, LedgerUnavailable, MlxdError, QueueFull
from jobs.failpoints import reach
from jobs.model import Job, NewJob, State
from jobs.provenance import is_own_output
from plugins import front_matter

log: Final = logging.getLogger(__name__)

#: Digests kept of files that could not be handed in yet, so that trying again does not mean reading again.
_KEPT_DIGESTS: Final = 1000
#: A task that has this parameter lets a prompt file speak for itself.
FRONT_MATTER: Final = "front_matter"


class Submit(Protocol):
    """What the service offers: write the job down together with *seen*, the folder and the keys of its file."""

    def __call__(self, new: NewJob, *, seen: SeenFile | None = None) -> tuple[Job, bool]:
        """Return the job and whether it is new."""


class Memory(Protocol):
    """What intake needs of the ledger."""

    def seen(self, folder: Path, key: str) -> str | None:
        """Return the id of the job that was made of this key."""

    def remember(self, folder: Path, key: str, job_id: str) -> None:
        """Note that this key was made into that job."""

    def get(self, job_id: str) -> Job:
        """Return a job; `JobNotFound` if it was cleaned away."""

    def is_output(self, path: Path) -> bool:
        """Tell whether a job wrote this file."""


class Verdict(Enum):
    """What came of a file."""

    #: It is a job now.
    TAKEN = "taken"
    #: It was one before.
    KNOWN = "known"
    #: We wrote it ourselves.
    OUTPUT = "output"
    #: It is not as it was: let it settle again.
    CHANGED = "changed"
    #: It went away.
    GONE = "gone"
    #: This file cannot be used; look again at the next rescan.
    REFUSED = "refused"
    #: No file of this rule can be used as things are.
    RULE = "rule"
    #: Nothing can be taken at the moment; the same file later.
    LATER = "later"


class Outcome(NamedTuple):
    """What came of a file, and why."""

    verdict: Verdict
    job: Job | None = None
    #: A sentence for people.
    reason: str = ""


class Intake:
    """Turns files into jobs. May be called from several threads, never for one file from two."""

    def __init__(
        self,
        *,
        submit: Submit,
        ledger: Memory,
        takes: Takes = anything,
        defaults: Callable[[str], Mapping[str, Any]] = lambda _task: {},
    ) -> None:
        """*takes* gives the names of a task's parameters, *defaults* what ``[tasks.<task>]`` says of them."""
        self._submit = submit
        self._takes = takes
        self._defaults = defaults
        self._ledger = ledger
        self._stopping = threading.Event()
        self._digests: dict[Path, tuple[Facts, str]] = {}

    def interrupt(self) -> None:
        """Give up reading large files: the daemon stops, they are taken after its next start."""
        self._stopping.set()

    def file(self, folder: FolderConfig, path: Path, *, rule: RuleConfig, facts: Facts) -> Outcome:
        """Make the job that *rule* of *folder* makes of the file *path*, which held still as *facts* say."""
        try:
            return self._file(folder, path, rule, facts)
        except (FileChanged, HashingStopped):
            return Outcome(Verdict.CHANGED)
        except (QueueFull, LedgerUnavailable) as error:
            return Outcome(Verdict.LATER, reason=error.message)
        except MlxdError as error:
            return Outcome(Verdict.RULE, reason=f"rule {rule.name!r} cannot be used: {error.message}")
        except (FileNotFoundError, NotADirectoryError):
            return Outcome(Verdict.GONE)
        except OSError as error:
            return _unreadable(path, error)

    def _file(self, folder: FolderConfig, path: Path, rule: RuleConfig, facts: Facts) -> Outcome:
        if not _is_text(path):
            return Outcome(Verdict.REFUSED, reason=f"{path.name!r}: the name is not valid UTF-8")
        reach("file.settled")
        place = place_key(path, facts)
        if self._ledger.seen(folder.path, place):
            return Outcome(Verdict.KNOWN)
        if self._is_output(path):
            return Outcome(Verdict.OUTPUT)
        if folder.again:
            os.close(open_still(path, facts, folder.path))
            return self._hand_in(folder, path, rule, facts, place)
        return self._by_content(folder, path, rule, facts)

    def _by_content(self, folder: FolderConfig, path: Path, rule: RuleConfig, facts: Facts) -> Outcome:
        key = content_key(self._digest(folder, path, facts), fingerprint(rule, self._takes))
        reach("file.read")
        place = place_key(path, facts)
        own = self._own_key(folder, path, key)
        failed = False
        known = self._ledger.seen(folder.path, own)
        if known and not (failed := self._failed(known)):
            self._ledger.remember(folder.path, place, known)
            self._digests.pop(path, None)
            log.info("The same content was done before.", extra={"action": "file_known", "job_id": known})
            return Outcome(Verdict.KNOWN)
        # The content's key names the failed job, until there is the next one.
        outcome = self._hand_in(folder, path, rule, facts, place if failed else own)
        reach("file.taken")
        self._digests.pop(path, None)
        if failed and outcome.job is not None:
            self._ledger.remember(folder.path, own, outcome.job.id)
        # Both keys were written with a new job; if it was there before, this place becomes known too.
        if outcome.verdict is Verdict.KNOWN and outcome.job is not None:
            self._ledger.remember(folder.path, place, outcome.job.id)
        return outcome

    def known(self, folder: FolderConfig, path: Path, rule: RuleConfig, facts: Facts) -> str | None:
        """Return the id of the job that the file has become, None if `file` would make one of it. Notes nothing.

        Raises:
            FileChanged, OSError: it is not as *facts* say, or cannot be read.

        """
        if done := self._ledger.seen(folder.path, place_key(path, facts)):
            return done
        if folder.again:
            return None
        digest = content_digest(path, facts, root=folder.path, stopping=self._stopping.is_set)
        key = content_key(digest, fingerprint(rule, self._takes))
        done = self._ledger.seen(folder.path, self._own_key(folder, path, key))
        return None if done is None or self._failed(done) else done

    def is_output(self, path: Path) -> bool:
        """Tell whether mlxd wrote the file *path* itself."""
        return self._is_output(path)

    def prepared(self, folder: FolderConfig, path: Path, rule: RuleConfig, facts: Facts) -> NewJob:
        """Return the job that *rule* makes of the file *path*; reads the beginning of a prompt file.

        Raises:
            InvalidInput: the file's front matter has a mistake in it.
            FileChanged, OSError: it is not as *facts* say, or cannot be read.

        """
        said = self._said(folder, path, rule, facts)
        changed = facts.mtime_ns / 1e9
        return new_job(folder, rule, path, changed=changed, said=said, takes=self._takes)

    def _hand_in(self, folder: FolderConfig, path: Path, rule: RuleConfig, facts: Facts, key: str) -> Outcome:
        plain = new_job(folder, rule, path, changed=facts.mtime_ns / 1e9, takes=self._takes)
        try:
            new = self.prepared(folder, path, rule, facts)
        except InvalidInput:
            new = plain
        # The place in the same transaction: if mlxd died before it was known, and the job fails, the file, of which
        # nothing changed, would be taken for one that a person put there again.
        place = place_key(path, facts)
        seen: SeenFile = (folder.path, key) if key == place else (folder.path, key, place)
        try:
            job, created = self._submit(new, seen=seen)
        except InvalidParams:
            if new == plain:
                raise
            # A mistake in the file is the file's: its job fails and says so beside it, and the rule goes on.
            job, created = self._submit(plain, seen=seen)
        if created:
            log.info("Took a file.", extra={"action": "file_taken", "job_id": job.id, "rule": rule.name})
        return Outcome(Verdict.TAKEN if created else Verdict.KNOWN, job)

    def _said(self, folder: FolderConfig, path: Path, rule: RuleConfig, facts: Facts) -> Mapping[str, Any]:
        """Return what a prompt file says about itself, if its task reads that."""
        names = self._takes(rule.task)
        chosen = {**self._defaults(rule.task), **rule.params}
        if names is None or FRONT_MATTER not in names or chosen.get(FRONT_MATTER) is False:
            return {}
        said = front_matter.of_file(path, lambda path, most: read_head(path, facts, most, folder.path))
        return {key: value for key, value in said.items() if key in names}

    def _own_key(self, folder: FolderConfig, path: Path, key: str) -> str:
        """Return by which key the file *path* is known: its content's, or if another file has that, with its name."""
        named = f"{key}:{name_key(path)}"
        if self._ledger.seen(folder.path, named):
            return named
        first = self._ledger.seen(folder.path, key)
        return key if first is None or self._made_of(first, path) else named

    def _made_of(self, job_id: str, path: Path) -> bool:
        """Tell whether the job was made of the file at *path*; one that was cleaned away may have been."""
        try:
            return self._ledger.get(job_id).source.detail in (str(path), None)
        except JobNotFound:
            return True

    def _failed(self, job_id: str) -> bool:
        try:
            return self._ledger.get(job_id).state in (State.FAILED, State.CANCELLED)
        except JobNotFound:
            return False

    def _digest(self, folder: FolderConfig, path: Path, facts: Facts) -> str:
        known = self._digests.get(path)
        if known is not None and known[0] == facts:
            os.close(open_still(path, facts, folder.path))
            return known[1]
        digest = content_digest(path, facts, root=folder.path, stopping=self._stopping.is_set)
        if len(self._digests) >= _KEPT_DIGESTS:
            self._digests.clear()
        self._digests[path] = (facts, digest)
        return digest

    def _is_output(self, path: Path) -> bool:
        """Ask for the name as it is, and as we write names: HFS+ and some servers give them back decomposed."""
        composed = Path(unicodedata.normalize("NFC", str(path)))
        if self._ledger.is_output(path) or (composed != path and self._ledger.is_output(composed)):
            return True
        # Another Mac's, or an earlier ledger's.
        return is_own_output(path)


def _is_text(path: Path) -> bool:
    """Tell whether the name can be written down; a file system may hold any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(path: Path, error: OSError) -> Outcome:
    if error.errno in (errno.ELOOP, errno.ENXIO):  # became a link, or a socket: O_NOFOLLOW and open(2) say so
        return Outcome(Verdict.GONE)
    if error.errno in (errno.ENFILE, errno.EMFILE):
        return Outcome(Verdict.LATER, reason=f"{path.name}: {error.strerror}")
    return Outcome(Verdict.REFUSED, reason=f"{path.name}: {describe(error)}")


def describe(error: OSError) -> str:
    """Return why the system refused; macOS' privacy protection says EPERM where ordinary permissions say EACCES."""
    if error.errno == errno.EPERM and sys.platform == "darwin":
        return (
            "macOS does not let mlxd in (System Settings > Privacy & Security > Files and Folders, or Full Disk Access)"
        )
    return error.strerror or str(error)
