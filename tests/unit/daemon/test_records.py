"""Sidecars, recipes and recorded results: `daemon.records` with a real ledger, real tasks and real files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes_records import Office, answer

from daemon.config.model import OutputsConfig
from jobs import provenance
from jobs.errors import InvalidInput, StaleFence
from jobs.model import Job, NewJob, Placement, Source, State


@pytest.fixture(name="office")
def _office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "home", answer("one"), answer("two"), answer("three"))
    yield office
    office.close()


@pytest.fixture(name="inbox")
def _inbox(tmp_path: Path) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


def watched(path: Path, text: str = "What is six by seven?", **more: object) -> NewJob:
    """Return the job that a folder rule makes of a file with *text* at *path*."""
    path.write_text(text)
    params = {"file": str(path), "template": "Answer: {text}", **more.pop("params", {})}  # type: ignore[dict-item]
    placement = Placement(directory=path.parent, stem=path.stem, input=path)
    return NewJob(task="generate", params=params, placement=placement, source=Source(kind="folder"), **more)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sidecar(job: Job) -> provenance.Provenance:
    return provenance.read(provenance.sidecar_of(job.outputs[0].path))


def test_an_output_in_a_watched_folder_says_what_made_it(office: Office, inbox: Path) -> None:
    """The sidecar names input, parameters, template, model with revision, versions, tokens and the output's hash."""
    office.defaults["generate"] = {"max_tokens": 99}
    job = office.do(watched(inbox / "q.txt", params={"seed": 5}))
    made = sidecar(job)
    assert names(inbox) == ["q.out.txt", "q.out.txt.mlxd.json", "q.txt"]
    assert made.input is not None
    assert made.input.sha256 == hashlib.sha256((inbox / "q.txt").read_bytes()).hexdigest()
    assert (made.job, made.task, made.seed) == (job.id, "generate", 5)
    assert made.params == job.params
    assert made.defaults == {"max_tokens": 99}
    assert made.hashes["template"] == hashlib.sha256(b"Answer: {text}").hexdigest()
    assert made.usage == {"prompt_tokens": 7, "completion_tokens": 3}
    (model,) = made.models
    assert (model.ref, model.name, model.runtime) == (None, "default:lm", "lm")
    assert model.revision.startswith("sha256:")
    assert model.quantization == {"bits": 4, "group_size": 64}
    assert {"mlxd", "mlx-lm"} <= set(made.versions)
    assert [(one.name, one.sha256) for one in made.outputs] == [("q.out.txt", job.outputs[0].sha256)]


def test_a_sidecar_is_no_output_of_its_job(office: Office, inbox: Path) -> None:
    """The job lists what its task wrote; the ledger knows the sidecar as its own all the same."""
    job = office.do(watched(inbox / "q.txt"))
    assert [output.path.name for output in job.outputs] == ["q.out.txt"]
    assert office.ledger.is_output(inbox / "q.out.txt.mlxd.json")


@pytest.mark.parametrize("how", ["configuration", "job", "own results folder"])
def test_sidecars_can_be_turned_off(office: Office, inbox: Path, how: str) -> None:
    """For everybody, or for one job; in mlxd's own results folder there is none unless asked for."""
    new = watched(inbox / "q.txt")
    if how == "configuration":
        office.settings = OutputsConfig(provenance=False)
    elif how == "job":
        new = new.model_copy(update={"provenance": False})
    else:
        new = new.model_copy(update={"placement": Placement()})
    job = office.do(new)
    assert job.state is State.SUCCEEDED
    assert not provenance.sidecar_of(job.outputs[0].path).exists()


def test_the_same_bytes_under_another_name_are_not_asked_again(office: Office, inbox: Path) -> None:
    """The second job exists, succeeds with the recorded text under its own names, and says whose it is."""
    first = office.do(watched(inbox / "a.txt"))
    second = office.do(watched(inbox / "b.txt"))
    assert len(office.models.requests) == 1
    assert (second.state, second.result["text"]) == (State.SUCCEEDED, "one")  # type: ignore[index]
    assert second.result["reused_from"] == first.id  # type: ignore[index]
    assert second.result["output"] == str(inbox / "b.out.txt")  # type: ignore[index]
    assert (inbox / "b.out.txt").read_bytes() == (inbox / "a.out.txt").read_bytes()
    assert sidecar(second).reused_from == first.id
    assert sidecar(second).models == sidecar(first).models


def test_a_reused_result_serves_again(office: Office, inbox: Path) -> None:
    """When the first job's file is gone, the copy's stands for it; the origin stays named."""
    first = office.do(watched(inbox / "a.txt"))
    office.do(watched(inbox / "b.txt"))
    (inbox / "a.out.txt").unlink()
    third = office.do(watched(inbox / "c.txt"))
    assert len(office.models.requests) == 1
    assert third.result["reused_from"] == first.id  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    ["other bytes", "other parameters", "other model", "output edited", "output gone", "drawn by chance", "refused"],
)
def test_other_work_is_done_anew(office: Office, inbox: Path, change: str) -> None:
    """Whatever has a say in the result must be the same, and the recorded files untouched."""
    params = {"temperature": 0.5} if change == "drawn by chance" else {}
    first = office.do(watched(inbox / "a.txt", params=params))
    second = watched(inbox / "b.txt", params=params)
    if change == "other bytes":
        second = watched(inbox / "b.txt", "And by eight?")
    elif change == "other parameters":
        second = watched(inbox / "b.txt", params={"max_tokens": 3})
    elif change == "other model":
        office.model(office.places["lm"], weights=b"\4\0\0\0\0\0\0\0{  }")
    elif change == "output edited":
        first.outputs[0].path.write_text("mine")
    elif change == "output gone":
        first.outputs[0].path.unlink()
    elif change == "refused":
        second = second.model_copy(update={"reuse": False})
    done = office.do(second)
    assert done.result["text"] == "two"  # type: ignore[index]
    assert "reused_from" not in done.result  # type: ignore[operator]


def test_a_seed_makes_a_draw_repeatable(office: Office, inbox: Path) -> None:
    """A temperature with a seed gives the same again, so the record may stand for it."""
    for name in ("a.txt", "b.txt"):
        office.do(watched(inbox / name, params={"temperature": 0.5, "seed": 1}))
    assert len(office.models.requests) == 1


@pytest.mark.parametrize(
    ("policy", "reuse", "kind", "asked"),
    [
        ("folders", None, "cli", 2),
        ("folders", True, "cli", 1),
        ("always", None, "cli", 1),
        ("always", False, "cli", 2),
        ("never", None, "folder", 2),
        ("folders", None, "folder", 1),
    ],
)
def test_who_takes_recorded_results(
    office: Office, inbox: Path, *, policy: str, reuse: bool | None, kind: str, asked: int
) -> None:
    """The job has the first word, then the configuration; by default watched folders do."""
    office.settings = OutputsConfig(reuse=policy)  # type: ignore[arg-type]
    for name in ("a.txt", "b.txt"):
        new = watched(inbox / name, reuse=reuse)
        office.do(new.model_copy(update={"source": Source(kind=kind)}))
    assert len(office.models.requests) == asked


def test_a_stale_sidecar_makes_way_and_a_strangers_file_does_not(office: Office, inbox: Path) -> None:
    """A sidecar whose output is gone is replaced; another file of that name stays, and the job succeeds."""
    first = office.do(watched(inbox / "a.txt", "x"))
    first.outputs[0].path.unlink()
    second = office.do(watched(inbox / "a.txt", "y"))
    assert sidecar(second).job == second.id
    stranger = inbox / "c.out.txt.mlxd.json"
    stranger.write_text("{}")
    third = office.do(watched(inbox / "c.txt", "z"))
    assert third.state is State.SUCCEEDED
    assert stranger.read_text() == "{}"


def test_an_input_that_changes_meanwhile_is_not_claimed(office: Office, inbox: Path) -> None:
    """The sidecar keeps no hash of an input that was written to while the job ran, and nothing is recorded."""
    submit = office.models.submit

    def meddle(request, **kwargs):
        (inbox / "a.txt").write_text("something else entirely")
        return submit(request, **kwargs)

    office.models.submit = meddle  # type: ignore[method-assign]
    made = sidecar(office.do(watched(inbox / "a.txt")))
    assert made.input is not None
    assert made.input.sha256 is None
    office.do(watched(inbox / "b.txt"))
    assert len(office.models.requests) == 2


def test_many_outputs_share_one_sidecar(office: Office, inbox: Path, tmp_path: Path) -> None:
    """A batch of twenty has one, beside its manifest, and each of its files is found in it."""
    office.models.outcomes = [answer(str(number)) for number in range(20)]
    items = inbox / "p.jsonl"
    items.write_text("".join(json.dumps({"prompt": f"p{number}"}) + "\n" for number in range(20)))
    out = tmp_path / "out"
    job = office.do(NewJob(task="batch", params={"file": str(items)}, placement=Placement(directory=out)))
    assert job.state is State.SUCCEEDED
    assert [path.name for path in out.rglob("*.mlxd.json")] == ["manifest.json.mlxd.json"]
    path, made, entry = provenance.find(out / "items" / "000007.txt")
    assert (path.name, made.job) == ("manifest.json.mlxd.json", job.id)
    assert entry.sha256 == hashlib.sha256((out / "items" / "000007.txt").read_bytes()).hexdigest()


def test_a_file_without_a_sidecar_says_where_they_are(tmp_path: Path) -> None:
    """Nobody says what made it: the error tells when sidecars are written."""
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InvalidInput, match="watched folders"):
        provenance.find(tmp_path / "x.txt")


def test_an_output_moved_together_with_its_sidecar_is_known(office: Office, inbox: Path, tmp_path: Path) -> None:
    """The pair may be carried elsewhere, and another mlxd knows the file for an output by it."""
    job = office.do(watched(inbox / "q.txt"))
    there = tmp_path / "there"
    there.mkdir()
    for path in (job.outputs[0].path, provenance.sidecar_of(job.outputs[0].path)):
        path.rename(there / path.name)
    assert provenance.find(there / "q.out.txt")[2].sha256 == job.outputs[0].sha256
    assert provenance.is_own_output(there / "q.out.txt")
    assert not provenance.is_own_output(there / "q.txt")


def test_an_attempt_that_died_before_its_end_leaves_one_sidecar(office: Office, inbox: Path) -> None:
    """The success could not be written down: the next attempt replaces output and sidecar and numbers neither."""
    finish, office.ledger.finish = office.ledger.finish, failing  # type: ignore[method-assign]
    job = office.do(watched(inbox / "q.txt"))
    assert job.state is State.RUNNING
    assert names(inbox) == ["q.out.txt", "q.out.txt.mlxd.json", "q.txt"]
    office.ledger.finish = finish  # type: ignore[method-assign]
    office.ledger.recover("another")
    office.executor.execute(job.id)
    done = office.ledger.get(job.id)
    assert (done.state, done.outputs[0].path.read_text()) == (State.SUCCEEDED, "two\n")
    assert names(inbox) == ["q.out.txt", "q.out.txt.mlxd.json", "q.txt"]
    assert sidecar(done).outputs[0].sha256 == done.outputs[0].sha256


def failing(*_: object, **__: object) -> Job:
    raise StaleFence("somebody else is about to do it again")


def test_a_sidecar_stands_for_its_file(office: Office, inbox: Path) -> None:
    """Naming the sidecar is naming the file that it tells of."""
    job = office.do(watched(inbox / "q.txt"))
    path = provenance.sidecar_of(job.outputs[0].path)
    assert provenance.find(path) == provenance.find(job.outputs[0].path)


def test_a_transcript_keeps_its_suffixes_under_another_stem(office: Office, inbox: Path) -> None:
    """Every format comes with the copy, named after it, and a memo's steps do too."""
    heard = {"text": " Call Anna.", "segments": [{"start": 0.0, "end": 1.0, "text": " Call Anna."}], "duration": 1.0}
    office.models.outcomes = [heard]
    for name in ("a.wav", "b.wav"):
        (inbox / name).write_bytes(b"sound")
        placement = Placement(directory=inbox, stem=name[0], input=inbox / name)
        params = {"file": str(inbox / name), "formats": ["txt", "srt"]}
        new = NewJob(task="transcribe", params=params, placement=placement, source=Source(kind="folder"))
        job = office.do(new)
    assert len(office.models.requests) == 1
    assert sorted(output.path.name for output in job.outputs) == ["b.srt", "b.txt"]
    assert job.result["outputs"] == [str(inbox / "b.txt"), str(inbox / "b.srt")]  # type: ignore[index]
    assert sidecar(job).usage == {"audio_seconds": 1.0}
