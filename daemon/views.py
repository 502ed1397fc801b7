"""What the daemon shows of itself: values that travel over the socket, and the facade they come from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pydantic import AwareDatetime, Field

from daemon.events import Hub
from daemon.health.findings import Finding
from daemon.schedules.views import SchedulesFacade
from jobs.errors import MlxdError
from jobs.model import After, Frozen, Job, Lane, NewJob, State


class Residency(StrEnum):
    """Where a model stands."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    #: The last load or the runner failed; ``problem`` says why. The next request tries again.
    FAILED = "failed"


class ModelStatus(Frozen):
    """One model the daemon knows of."""

    #: What requests call it: an alias, ``demo:lm``, a path, a hub id.
    ref: str
    runtime: str
    state: Residency = Residency.ABSENT
    #: The runner's process id while there is one.
    pid: int | None = None
    #: Never unloaded to make room, loaded at start.
    pinned: bool = False
    #: Requests under way that keep it loaded.
    leases: int = 0
    #: What the runner occupies now, bytes.
    memory_bytes: int | None = None
    #: What it was expected to need, bytes.
    estimate_bytes: int | None = None
    loaded_at: AwareDatetime | None = None
    last_used: AwareDatetime | None = None
    #: Seconds without use until it is unloaded; -1 for never, 0 for at once.
    keep_alive_s: float | None = None
    #: What the runtime said when it had loaded the model.
    info: dict[str, Any] = Field(default_factory=dict)
    #: Why it cannot be used, if it cannot.
    problem: str | None = None


class FolderState(StrEnum):
    """Whether a watched folder can be used."""

    WATCHING = "watching"
    #: A person said so (`mlxd folders pause`); nothing is taken until `mlxd folders resume`.
    PAUSED = "paused"
    #: Not there, or its volume is not mounted; watched as soon as it appears.
    MISSING = "missing"
    #: The system does not let mlxd in; ``problem`` says how to allow it.
    NEEDS_PERMISSION = "needs_permission"
    #: It does not answer, or its server does not.
    UNREACHABLE = "unreachable"
    #: Its recipe is wrong, or it is no folder.
    BROKEN = "broken"


class FolderStatus(Frozen):
    """One watched folder."""

    path: Path
    state: FolderState = FolderState.WATCHING
    #: How changes are noticed between two rescans: "native", "polling", or "none".
    events: str = "none"
    #: Files whose content is still in a cloud; never opened, taken when they have been downloaded.
    cloud_pending: int = 0
    #: Names of the rules that look at it.
    rules: tuple[str, ...] = ()
    #: Files seen that have not held still long enough yet.
    waiting: int = 0
    #: Files that have become jobs since the daemon started.
    taken: int = 0
    #: Why it is not watched properly (missing, no permission), if it is not.
    problem: str | None = None


class TestVerdict(StrEnum):
    """What would become of a file."""

    __test__ = False  # not pytest's

    WOULD_RUN = "would_run"
    #: The job would be refused or fail at once; ``why`` says what to mend.
    WOULD_FAIL = "would_fail"
    #: Too young for its rule.
    WAITS = "waits"
    #: It, or the same content, has become a job before.
    DONE = "done"
    LEFT_ALONE = "left_alone"
    #: Its content has not been downloaded.
    CLOUD_PENDING = "cloud_pending"


class FileTest(Frozen):
    """What would become of one file."""

    path: Path
    verdict: TestVerdict
    #: The reason, where there is something to say.
    why: str | None = None
    #: Name of the rule that takes it.
    rule: str | None = None
    task: str | None = None
    #: The job's parameters, without the file itself.
    params: dict[str, Any] = Field(default_factory=dict)
    #: Parameters of its sub-folder that the task does not have.
    left_out: tuple[str, ...] = ()
    #: Model -> bytes of memory it will need, None if that is not known.
    models: dict[str, int | None] = Field(default_factory=dict)
    #: Where the results would go, and what they would be called without suffix.
    directory: Path | None = None
    stem: str | None = None
    #: What would become of the file.
    after: After | None = None
    #: How long it would take, None if that is not known, and how that is known.
    seconds: float | None = None
    basis: str = ""
    #: What its models will need together, bytes; None if that is not known.
    memory_bytes: int | None = None
    #: Seconds until it is old enough.
    wait_s: float | None = None
    #: The job it has become.
    job: str | None = None


class FolderTest(Frozen):
    """A dry run: what would become of a watched folder's files. Nothing was written."""

    folder: Path
    state: FolderState
    problem: str | None = None
    rules: tuple[str, ...] = ()
    files: tuple[FileTest, ...] = ()
    #: Files that are not listed, because there are so many.
    more: int = 0
    would_run: int = 0
    #: How long the listed files would take one after another; None if that is not known.
    seconds: float | None = None
    #: What all models of the listed files will need together, bytes; None if that is not known.
    memory_bytes: int | None = None


class RevertedFile(Frozen):
    """What came of one file of a job that was taken back."""

    #: Where it was before the revert, for the input: before the job.
    path: Path
    #: Where it is now, if it is anywhere.
    now: Path | None = None
    #: Why it was left alone, if it was.
    why: str | None = None


class RevertReport(Frozen):
    """What taking a job back did."""

    job: str
    #: The input, back at its place.
    input: RevertedFile | None = None
    #: Outputs that went to the trash.
    trashed: tuple[RevertedFile, ...] = ()
    #: Files that were left as they are, each with the reason.
    kept: tuple[RevertedFile, ...] = ()
    #: The job had been taken back before, and nothing was left to do.
    already: bool = False


class PluginStatus(Frozen):
    """One plugin, loaded or broken."""

    name: str
    #: "builtin", "entry-point" or "file".
    kind: str
    tasks: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    #: Why it is not in use, if it is not.
    problem: str | None = None


class TaskInfo(Frozen):
    """One kind of job that can be submitted."""

    name: str
    summary: str = ""
    #: JSON schema of its parameters.
    params: dict[str, Any] = Field(default_factory=dict)
    #: The plugin that offers it.
    plugin: str = ""


class Condition(StrEnum):
    """How the daemon feels."""

    OK = "ok"
    #: It serves, but something needs a person; ``problems`` says what.
    DEGRADED = "degraded"
    #: It is stopping and takes no new jobs.
    DRAINING = "draining"


class LaneStatus(Frozen):
    """A lane whose jobs run only under conditions."""

    lane: Lane
    #: Why its jobs are held back, if they are.
    waiting: str | None = None
    #: When that ends, if only the clock stands in the way.
    until: AwareDatetime | None = None
    #: Conditions that cannot be checked on this machine, and so count as fulfilled.
    unread: tuple[str, ...] = ()


class MemoryStatus(Frozen):
    """Memory, in bytes."""

    #: What resident models may use together.
    budget_bytes: int | None = None
    #: What they use or are expected to use.
    used_bytes: int | None = None
    #: The daemon's own resident set.
    daemon_bytes: int | None = None
    #: How short memory is: "normal", "warn" (caches trimmed, the batch lane begins nothing) or "critical" (idle models
    #: unloaded, the batch lane steps aside).
    level: str = "normal"
    #: Why it is not normal.
    reason: str | None = None
    #: What the runners really occupied together when it was last looked at; nobody looks while nothing is loaded.
    footprint_bytes: int | None = None


class Health(Frozen):
    """The daemon at a glance."""

    status: Condition = Condition.OK
    version: str
    pid: int
    #: Seconds.
    uptime_s: float
    #: The folder that holds ledger and socket.
    home: str
    #: Jobs by state.
    counts: dict[State, int] = Field(default_factory=dict)
    #: Old jobs that were forgotten so far.
    forgotten: int = 0
    models: tuple[ModelStatus, ...] = ()
    memory: MemoryStatus = MemoryStatus()
    #: The lanes that have conditions.
    lanes: tuple[LaneStatus, ...] = ()
    problems: tuple[str, ...] = ()


class ReloadReport(Frozen):
    """What a reload of the configuration did."""

    #: Keys whose new value is in use now.
    changed: tuple[str, ...] = ()
    #: Keys whose new value needs a restart.
    needs_restart: tuple[str, ...] = ()


class FoldersFacade(Protocol):
    """What the socket asks about watched folders. Every method may raise any `jobs.errors.MlxdError`."""

    def test(self, path: Path, *, limit: int) -> FolderTest:
        """Tell what would become of a file or folder, listing at most *limit* files; nothing is written."""

    def pause(self, path: Path) -> FolderStatus:
        """Take nothing of a watched folder until `resume`."""

    def resume(self, path: Path) -> FolderStatus:
        """Go on with a watched folder."""

    def revert(self, job_id: str) -> RevertReport:
        """Bring a job's input back and put its outputs into the trash."""


class ServiceFacade(Protocol):
    """Everything the socket asks of the daemon. Every method may raise any `jobs.errors.MlxdError`.

    Called on worker threads, several at once.
    """

    @property
    def hub(self) -> Hub:
        """Return the live events."""

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Validate and write down *new*; False means the idempotency key was known and this is the job it gave."""

    def submit_all(self, news: Sequence[NewJob]) -> list[tuple[Job, bool] | MlxdError]:
        """Do what `submit` does for each of *news*; return what it would return or raise."""
        return [_tried(self.submit, new) for new in news]

    def get(self, job_id: str) -> Job:
        """Return a job by its id or a unique beginning of it."""

    def find(
        self,
        *,
        states: Collection[State] = (),
        task: str | None = None,
        lane: Lane | None = None,
        source: str | None = None,
        rule: str | None = None,
        parent: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """Return jobs, newest first; *before* is the ``seq`` to continue after."""

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""

    def cancel(self, job_id: str) -> Job:
        """Take a job back; a running one stops at its next step."""

    def retry(self, job_id: str) -> Job:
        """Give a blocked or quarantined job another chance; repeat an ended one as a new job with ``parent`` set."""

    def models(self) -> list[ModelStatus]:
        """Return the models that are configured or resident."""

    def load(self, ref: str, *, runtime: str | None = None, pin: bool | None = None) -> ModelStatus:
        """Load a model now and return when it is ready."""

    def unload(self, ref: str) -> bool:
        """Unload a model as soon as nobody uses it; False if it was not loaded."""

    def pull(self, ref: str) -> Job:
        """Submit the job that fetches a model to this machine."""

    def folders(self) -> list[FolderStatus]:
        """Return the watched folders."""

    @property
    def folder_desk(self) -> FoldersFacade:
        """Return whom to ask about watched folders besides these."""

    def rescan(self) -> int:
        """Look through all watched folders now; return how many files are waiting or were taken."""

    @property
    def schedules(self) -> SchedulesFacade:
        """Return whom to ask about schedules."""

    def plugins(self) -> list[PluginStatus]:
        """Return the plugins, broken ones too."""

    def tasks(self) -> list[TaskInfo]:
        """Return the kinds of jobs."""

    def health(self) -> Health:
        """Return the daemon at a glance."""

    def doctor(self) -> list[Finding]:
        """Examine the set-up as the daemon sees it."""

    def metrics(self) -> str:
        """Return Prometheus' text format."""

    def reload(self) -> ReloadReport:
        """Read the configuration again and use what can be used without a restart."""

    def config(self) -> dict[str, Any]:
        """Return the configuration in force, as JSON."""

    def shutdown(self) -> None:
        """Begin to drain and stop; return at once."""


def _tried(submit: Callable[[NewJob], tuple[Job, bool]], new: NewJob) -> tuple[Job, bool] | MlxdError:
    try:
        return submit(new)
    except MlxdError as error:
        return error


def public_job(job: Job) -> dict[str, Any]:
    """Return *job* as programs see it: in ``--json``, in answers and in ``state`` events."""
    return job.model_dump(mode="json")
