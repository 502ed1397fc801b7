"""Who hears of which end, and what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes_daemon import Bench
from pydantic import ValidationError

from daemon.config.lanes import LaneConfig
from daemon.config.model import Config
from daemon.config.notify import NotifyConfig
from daemon.notify import NOTIFY, Notifier, delivery, matches, quiet_lane, settings, summary
from jobs.errors import InvalidRequest, LedgerUnavailable
from jobs.model import ErrorInfo, Job, Lane, NewJob, OutputFile, Source, State


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def entry(**said: Any) -> NotifyConfig:
    return NotifyConfig.model_validate(said)


def ended(bench: Bench, state: State = State.SUCCEEDED, **said: Any) -> Job:
    """Return a job that ended so; by default one of the folder rule "meetings"."""
    given = {"task": "transcribe", "source": Source(kind="folder", rule="meetings"), **said}
    job = bench.ledger.add(NewJob.model_validate(given))[0]
    claimed = bench.ledger.claim(job.id, "me")
    assert claimed is not None
    error = ErrorInfo(type="invalid-input", message="It is no sound.", facts={"secret": "x"})
    match state:
        case State.FAILED:
            return bench.ledger.fail(job.id, claimed.fence, error, retry_at=None)
        case State.QUARANTINED:
            return bench.ledger.crash(job.id, claimed.fence, error, limit=1)
        case State.CANCELLED:
            return bench.ledger.cancelled(job.id, claimed.fence)
    output = OutputFile(path=Path("/out/talk.txt"), size=5, sha256="0" * 64)
    return bench.ledger.finish(job.id, claimed.fence, {"text": "hello"}, [output])


SCHEDULED = {"source": Source(kind="schedule", rule="nightly"), "task": "batch"}
BY_HAND = {"source": Source(kind="cli")}
RETRIED = {"source": Source(kind="retry", rule="nightly")}


@pytest.mark.parametrize(
    ("said", "job", "yes"),
    [
        ({}, {}, True),
        ({}, SCHEDULED, True),
        ({}, BY_HAND, False),
        ({"rules": "meet*"}, {}, True),
        ({"rules": "meet*"}, SCHEDULED, False),
        ({"rules": "nightly"}, SCHEDULED, False),
        ({"schedules": "nightly"}, SCHEDULED, True),
        ({"schedules": "*"}, {}, False),
        ({"schedules": "nightly"}, RETRIED, True),
        ({"rules": "nightly"}, RETRIED, True),
        ({"tasks": "transcribe"}, BY_HAND, True),
        ({"tasks": "trans*"}, {}, True),
        ({"tasks": "batch"}, {}, False),
        ({"tasks": "batch", "rules": "meetings"}, {}, True),
    ],
)
def test_which_jobs(bench: Bench, said: dict[str, Any], job: dict[str, Any], yes: bool) -> None:
    """By rule, by schedule or by task; with none of them every job of a rule or a schedule."""
    assert matches(entry(**said), ended(bench, **job)) is yes


@pytest.mark.parametrize(
    ("on", "told"),
    [
        ("any", {State.SUCCEEDED, State.FAILED, State.QUARANTINED}),
        ("succeeded", {State.SUCCEEDED}),
        ("failed", {State.FAILED, State.QUARANTINED}),
    ],
)
def test_which_ends(bench: Bench, on: str, told: set[State]) -> None:
    """Success, failure (quarantine is one) or both; what a person cancelled is no news to them."""
    states = (State.SUCCEEDED, State.FAILED, State.QUARANTINED, State.CANCELLED)
    assert {state for state in states if matches(entry(on=on), ended(bench, state))} == told


def test_what_is_told(bench: Bench) -> None:
    """Ids, task, state, output paths and the error's sentence; no parameters, no facts, a result only if asked."""
    told = summary(ended(bench, params={"prompt": "private"}), result=False)
    assert told.keys() == {"job", "task", "state", "source", "rule", "finished_at", "outputs", "error"}
    assert (told["state"], told["outputs"], told["error"]) == ("succeeded", ["/out/talk.txt"], None)
    failed = summary(ended(bench, State.FAILED), result=False)
    assert failed["error"] == {"type": "invalid-input", "message": "It is no sound."}
    assert summary(ended(bench), result=True)["result"] == {"text": "hello"}


def notifier(bench: Bench, *entries: NotifyConfig) -> Notifier:
    return Notifier(config=lambda: Config(notify=entries), add=bench.ledger.add)


def test_a_delivery_is_a_job_and_made_once(bench: Bench) -> None:
    """Each matching entry makes one job that names the one it is about; told twice it is still one."""
    job = ended(bench)
    tell = notifier(bench, entry(name="a", tries=3), entry(name="b", on="failed"), entry(name="c", include="result"))
    tell(job)
    tell(job)

    made = bench.ledger.find(source=NOTIFY)
    assert [(each.source.rule, each.task, each.parent) for each in made] == [
        ("c", "deliver", job.id),
        ("a", "deliver", job.id),
    ]
    assert (made[1].max_failures, "result" in made[1].params["about"]) == (3, False)
    assert made[0].params["about"]["result"] == {"text": "hello"}


def test_a_delivery_makes_no_delivery(bench: Bench) -> None:
    """The end of a delivery, good or bad, is told to nobody, even by an entry for its own task."""
    tell = notifier(bench, entry(tasks="*"))
    tell(ended(bench))
    (made,) = bench.ledger.find(source=NOTIFY)
    claimed = bench.ledger.claim(made.id, "me")
    assert claimed is not None
    tell(bench.ledger.fail(made.id, claimed.fence, ErrorInfo(type="x", message="y"), retry_at=None))
    by_hand = ended(bench, task="deliver", source=Source(kind="retry", rule="notification"))
    tell(by_hand)
    assert len(bench.ledger.find(source=NOTIFY)) == 1


def test_trouble_does_not_reach_the_job(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A delivery that cannot be made is logged; a ledger that cannot be written is passed on, to be tried again."""
    errors = iter((InvalidRequest("no"), LedgerUnavailable("disk full")))

    def add(new: NewJob) -> None:
        raise next(errors)

    tell = Notifier(config=lambda: Config(notify=(entry(),)), add=add)
    tell(ended(bench))
    assert [getattr(record, "action", "") for record in caplog.records] == ["notify_failed"]
    with pytest.raises(LedgerUnavailable):
        tell(ended(bench))


def test_ends_cut_off_are_told_after_the_start(bench: Bench) -> None:
    """Of the ends before a crash the last ones are told once more, which adds only what was missing; no old ones."""
    ended(bench)
    bench.clock.advance(3600)
    told, cut_off = ended(bench), ended(bench)
    tell = notifier(bench, entry())
    tell(told)

    assert tell.catch_up(bench.ledger) == 2
    assert [each.parent for each in bench.ledger.find(source=NOTIFY)] == [cut_off.id, told.id]
    assert notifier(bench).catch_up(bench.ledger) == 0


def test_deliveries_keep_out_of_lanes_that_wait() -> None:
    """They run in the normal lane, or where no condition holds them back."""
    held = LaneConfig(power="mains")
    assert quiet_lane(Config()) is Lane.NORMAL
    assert quiet_lane(Config(lanes={Lane.NORMAL: held})) is Lane.BATCH
    assert quiet_lane(Config(lanes={Lane.NORMAL: held, Lane.BATCH: held})) is Lane.INTERACTIVE
    assert quiet_lane(Config(lanes=dict.fromkeys(Lane, held))) is Lane.NORMAL


def test_the_kind_follows_from_the_keys(bench: Bench) -> None:
    """An address makes a webhook, a program a command; the name is the kind unless one is given."""
    assert (entry(url="https://x.org").kind, entry(url="https://x.org").name) == ("webhook", "webhook")
    assert entry(command=["/bin/true"], name="n").name == "n"
    assert entry(shortcut="File it").kind == "shortcut"
    assert settings(Config(notify=(entry(),)))["targets"]["notification"]["timeout"] == 30.0
    assert delivery(entry(), ended(bench), Lane.NORMAL).source.detail == "transcribe succeeded"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"kind": "webhook"}, "'url'"),
        ({"kind": "command"}, "'command'"),
        ({"kind": "notification", "url": "https://x.org"}, "without the key 'url'"),
        ({"url": "ftp://x.org"}, "http or https"),
        ({"url": "https://me:pw@x.org"}, "without a name or password"),
        ({"url": "https://x.org", "secret_env": "A", "secret_file": "/b"}, "not both"),
        ({"command": ["done"]}, "absolute path"),
        ({"command": ["/bin/true"], "secret_env": "A"}, "without the key 'secret_env'"),
        ({"shortcut": "-i"}, "begin with '-'"),
        ({"timeout": 0}, "greater than 0"),
    ],
)
def test_wrong_entries_are_refused(said: dict[str, Any], wanted: str) -> None:
    """Each mistake is told with what would be right."""
    with pytest.raises(ValidationError, match=wanted):
        entry(**said)


def test_names_are_distinct() -> None:
    """Two entries of one name are refused: a delivery finds its entry by it."""
    with pytest.raises(ValidationError, match="come twice: notification"):
        Config(notify=(entry(), entry()))
