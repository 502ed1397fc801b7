"""`mlxd verify` and `mlxd rerun`: what they find, and what they submit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes_records import Office, answer

from daemon.cli.repeating import again
from daemon.cli.verifying import verify
from jobs import provenance
from jobs.errors import InvalidInput
from jobs.model import Job, NewJob, Placement


@pytest.fixture(name="office")
def _office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "home", answer("one"), answer("one"))
    yield office
    office.close()


@pytest.fixture(name="made")
def _made(office: Office, tmp_path: Path) -> Job:
    """Return a job that answered a text file in a folder of its own."""
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "q.txt"
    file.write_text("What?")
    office.defaults["generate"] = {"max_tokens": 9}
    placement = Placement(directory=file.parent, stem="q", input=file)
    return office.do(NewJob(task="generate", params={"file": str(file), "system": "Be brief."}, placement=placement))


def found(office: Office, job: Job) -> dict[str, Any]:
    return verify(job.outputs[0].path, office.resolve)


def repeated(job: Job, config: dict[str, Any], directory: Path | None = None) -> dict[str, Any]:
    made = provenance.read(provenance.sidecar_of(job.outputs[0].path))
    assert made.params is not None
    return again(made, made.params, config, directory=directory)


def test_an_untouched_result_is_in_order(office: Office, made: Job) -> None:
    """Output, input and model are the same, and the finding names the job."""
    told = found(office, made)
    assert (told["ok"], told["job"], told["task"]) == (True, made.id, "generate")
    assert (told["output"]["state"], told["input"]["state"], told["models"][0]["state"]) == ("same",) * 3
    assert told["versions"] == {}


@pytest.mark.parametrize(
    ("part", "change", "state"),
    [
        ("output", "edit", "changed"),
        ("output", "remove", "missing"),
        ("input", "edit", "changed"),
        ("input", "remove", "missing"),
        ("models", "edit", "changed"),
        ("models", "remove", "missing"),
    ],
)
def test_each_change_is_named(office: Office, made: Job, *, part: str, change: str, state: str) -> None:
    """What is another one or gone is said of that part, and nothing of the others."""
    paths = {"output": made.outputs[0].path, "input": made.placement.input, "models": None}
    path = paths[part]
    if path is not None:
        path.write_text("other") if change == "edit" else path.unlink()
    elif change == "edit":
        office.model(office.places["lm"], weights=b"\4\0\0\0\0\0\0\0{  }")
    else:
        del office.places["lm"]
    told = found(office, made)
    states = {"output": told["output"], "input": told["input"], "models": told["models"][0]}
    assert {name: one["state"] for name, one in states.items() if one["state"] != "same"} == {part: state}
    assert not told["ok"]


def test_an_input_that_was_put_away_is_found(office: Office, made: Job) -> None:
    """A rule that moves inputs into done/ does not break the chain."""
    path = made.placement.input
    assert path is not None
    (path.parent / "done").mkdir()
    path.rename(path.parent / "done" / "q (2).txt")
    assert found(office, made)["input"] == {"state": "same", "path": str(path.parent / "done" / "q (2).txt")}
    assert repeated(made, {})["params"]["file"] == str(path.parent / "done" / "q (2).txt")


def test_a_rerun_asks_for_the_same_whatever_the_configuration_says_now(made: Job, tmp_path: Path) -> None:
    """Defaults and default models that changed since are said by the job itself; those that did not are left out."""
    same = {"tasks": {"generate": {"max_tokens": 9}}, "defaults": {"lm": "default:lm"}}
    body = repeated(made, same)
    assert body["params"] == made.params
    assert (body["task"], body["parent"], body["reuse"]) == ("generate", made.id, False)
    assert body["placement"] == {"directory": str(tmp_path / "in"), "stem": "q"}
    body = repeated(made, {"tasks": {}, "defaults": {"lm": "another"}}, tmp_path / "out")
    assert body["params"] == {**made.params, "max_tokens": 9, "model": "default:lm"}
    assert body["placement"]["directory"] == str(tmp_path / "out")


def test_a_rerun_gives_the_same_bytes_under_a_free_name(office: Office, made: Job) -> None:
    """The model is asked again, and the first result is left alone."""
    body = repeated(made, {"tasks": office.defaults, "defaults": {"lm": "default:lm"}})
    job = office.do(NewJob.model_validate(body))
    assert len(office.models.requests) == 2
    assert office.models.requests[0] == office.models.requests[1]
    assert [output.path.name for output in (*made.outputs, *job.outputs)] == ["q.out.txt", "q.out (2).txt"]
    assert job.outputs[0].sha256 == made.outputs[0].sha256


def test_a_rerun_refuses_another_input(made: Job) -> None:
    """The same work cannot be done with another file, and the error says which one is needed."""
    assert made.placement.input is not None
    made.placement.input.write_text("another")
    with pytest.raises(InvalidInput, match="another one now"):
        repeated(made, {})
