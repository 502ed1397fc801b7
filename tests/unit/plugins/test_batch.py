"""The task batch."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import DEADLINE_S, FakeContext, asked, echo
from pydantic import ValidationError

from jobs.errors import InputChanged, Interrupted, InvalidInput, InvalidParams, JobCancelled, RequestFailed, RunnerDied
from plugins.batch import Batch
from plugins.batch_params import Params
from plugins.task import OnEvent


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(ctx: FakeContext, *, clock: Clock | None = None, **params: Any) -> dict[str, Any]:
    return Batch(clock=clock or Clock()).run(ctx, Params(**params))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Return a folder of five prompts."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.txt", "b.md", "c.txt", "sub/d.txt", "sub/e.txt"):
        (folder / name).write_text(f"say {name}\n")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def manifest(folder: Path, name: str = "manifest.json") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / name).read_text())
    return loaded


def failing(*words: str) -> Any:
    """Return a script that refuses prompts with one of *words* in them."""

    def script(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        if any(word in asked(request) for word in words):
            raise RequestFailed("too hard")
        return echo(request, on_event)

    return script


def test_a_list_that_changed_while_it_was_read_costs_no_model(tmp_path: Path, out: Path) -> None:
    """All of its items were read before the first is asked."""
    (tmp_path / "items.jsonl").write_text('{"prompt": "a"}\n')
    ctx = FakeContext(out)
    ctx.input_changed = True
    with pytest.raises(InputChanged):
        run(ctx, file=tmp_path / "items.jsonl")
    assert ctx.lm.requests == []


def test_a_folder_gives_an_output_an_item_and_a_manifest(prompts: Path, out: Path) -> None:
    """Outputs mirror the tree, the manifest tells of each item in order, one lease serves them all."""
    ctx = FakeContext(out)
    result = run(ctx, folder=prompts, model="demo:lm", system="s")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.out.txt")) == [
        "a.out.txt",
        "b.out.txt",
        "c.out.txt",
        "sub/d.out.txt",
        "sub/e.out.txt",
    ]
    assert (out / "sub/d.out.txt").read_text() == "SAY SUB/D.TXT\n"
    assert {key: result[key] for key in ("total", "succeeded", "failed", "skipped", "completion_tokens")} == {
        "total": 5,
        "succeeded": 5,
        "failed": 0,
        "skipped": 0,
        "completion_tokens": 10,
    }
    assert result["text"] == "5 done"
    assert ctx.leases == [("lm", "demo:lm")]
    assert ctx.lm.requests[0]["stream"] is False
    assert all(request["messages"][0] == {"role": "system", "content": "s"} for request in ctx.lm.requests)
    told = manifest(out)
    assert (told["model"], told["job"], told["succeeded"]) == ("demo:lm", ctx.job.id, 5)
    assert told["items"][3] == {
        "id": "sub/d.txt",
        "status": "succeeded",
        "output": "sub/d.out.txt",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "finish_reason": "stop",
    }


def test_many_items_are_in_flight_but_never_more_than_asked(prompts: Path, out: Path) -> None:
    """Each of two requests waits until both are there, so they run at once; a third never joins them."""
    barrier, lock = threading.Barrier(2, timeout=DEADLINE_S), threading.Lock()
    flying, most = 0, 0

    def together(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        barrier.wait()
        with lock:
            flying -= 1
        return echo(request, on_event)

    (prompts / "f.txt").write_text("say f")
    result = run(FakeContext(out, lm=together), folder=prompts, concurrency=2)
    assert (result["succeeded"], most) == (6, 2)


def test_a_slow_item_does_not_hold_up_the_others(prompts: Path, out: Path) -> None:
    """The window slides with whichever item ends: the first one ends last, after all the others were answered."""
    others = threading.Semaphore(0)

    def slow_first(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        if "a.txt" in asked(request):
            for _ in range(4):
                assert others.acquire(timeout=DEADLINE_S)
        else:
            others.release()
        return echo(request, on_event)

    assert run(FakeContext(out, lm=slow_first), folder=prompts, concurrency=2)["succeeded"] == 5


def test_a_failed_item_does_not_fail_the_job(prompts: Path, out: Path) -> None:
    """Its reason stands in the manifest; a file that cannot be read is such an item too."""
    (prompts / "c.txt").write_bytes(b"\xff")
    ctx = FakeContext(out, lm=failing("b.md"))
    result = run(ctx, folder=prompts)
    assert (result["succeeded"], result["failed"], result["text"]) == (3, 2, "3 done, 2 failed")
    entries = {entry["id"]: entry for entry in manifest(out)["items"]}
    assert entries["b.md"] == {
        "id": "b.md",
        "status": "failed",
        "attempts": 2,
        "error": {"type": "request-failed", "message": "too hard"},
    }
    assert "not UTF-8" in entries["c.txt"]["error"]["message"]
    assert ctx.told[-1] == (5, 5, "items", "5 of 5 items, 2 failed")


def test_a_job_in_which_every_item_fails_has_failed(prompts: Path, out: Path) -> None:
    """With the first item's reason; the manifest is there all the same."""
    with pytest.raises(RequestFailed, match="All 5 items failed; the first: too hard"):
        run(FakeContext(out, lm=failing("say")), folder=prompts)
    assert manifest(out)["failed"] == 5


def test_on_error_fail_stops_at_once(prompts: Path, out: Path) -> None:
    """The error names the item; what is in flight is dropped."""
    with pytest.raises(RequestFailed, match=r"Item a\.txt: too hard"):
        run(FakeContext(out, lm=failing("a.txt")), folder=prompts, on_error="fail", concurrency=1)
    assert not (out / "manifest.json").exists()


def test_an_interrupted_batch_goes_on_where_it_stopped(prompts: Path, out: Path) -> None:
    """The next attempt asks only for what is open, and its manifest tells of all items."""
    first = FakeContext(out)

    def stop_after_two(saved: dict[str, Any]) -> None:
        if len(saved["done"]) == 2:
            first.interrupt(Interrupted)

    first.on_checkpoint = stop_after_two
    with pytest.raises(Interrupted):
        run(first, folder=prompts, concurrency=1)
    done = set((first.saved or {})["done"])
    assert len(done) in (2, 3)  # while the second was written down the third was asked; its answer is kept if it came
    second = FakeContext(out, saved=first.saved, mine=first.intended)
    result = run(second, folder=prompts)
    said = {asked(request).removeprefix("say ") for request in second.lm.requests}
    assert said.isdisjoint(done)
    assert (len(said), result["succeeded"], result["completion_tokens"]) == (5 - len(done), 5, 10)
    assert [entry["status"] for entry in manifest(out)["items"]] == ["succeeded"] * 5
    assert sorted(path.name for path in out.rglob("* (2)*")) == []


def killing(*words: str, **facts: Any) -> Any:
    """Return a script whose runner dies of prompts with one of *words* in them."""

    def script(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        if any(word in asked(request) for word in words):
            raise RunnerDied("It was ended by SIGSEGV.", **facts)
        return echo(request, on_event)

    return script


def test_an_item_that_kills_its_runner_fails_at_the_third_death(prompts: Path, out: Path) -> None:
    """It is tried again alone, on a new lease, after the others; these are done, and the job succeeds."""
    ctx = FakeContext(out, lm=killing("c.txt"))
    result = run(ctx, folder=prompts, concurrency=1)

    assert (result["succeeded"], result["failed"]) == (4, 1)
    told = [(asked(request), alone) for request, alone in zip(ctx.lm.requests, ctx.lm.alone, strict=True)]
    assert [alone for prompt, alone in told if "c.txt" in prompt] == [False, True, True]
    assert not any(alone for prompt, alone in told if "c.txt" not in prompt)
    assert len(ctx.leases) == 3, "a dead runner's lease serves nobody; after the last death nothing was left to do"
    (entry,) = [entry for entry in manifest(out)["items"] if entry["status"] == "failed"]
    assert (entry["id"], entry["attempts"], entry["error"]["type"]) == ("c.txt", 3, "request-failed")
    assert "died 3 times" in entry["error"]["message"]
    assert "SIGSEGV" in entry["error"]["message"]


def test_items_that_were_there_when_a_runner_died_are_done_alone(prompts: Path, out: Path) -> None:
    """One death is everybody's who was aboard; asked alone, the innocent ones are answered and nothing fails."""
    all_there = threading.Barrier(5)

    def first_dies(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        if len(ctx.lm.requests) <= 5 and not any(ctx.lm.alone):
            all_there.wait(DEADLINE_S)
            raise RunnerDied(jobs=1, requests=5)
        return echo(request, on_event)

    ctx = FakeContext(out, lm=first_dies)
    assert run(ctx, folder=prompts)["succeeded"] == 5
    assert ctx.lm.alone == [False] * 5 + [True] * 5


def test_an_item_that_never_reached_the_runner_is_no_suspect(prompts: Path, out: Path) -> None:
    """What the runner had not yet been given when it died is asked again like any other."""
    came_late: list[str] = []

    def late(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        if not came_late:
            came_late.append(asked(request))
            raise RunnerDied(jobs=0, requests=0)
        return echo(request, on_event)

    ctx = FakeContext(out, lm=late)
    assert run(ctx, folder=prompts, concurrency=1)["succeeded"] == 5
    assert not any(ctx.lm.alone)
    assert not any("deaths" in saved for saved in ctx.checkpoints)


def test_a_model_that_kills_every_runner_is_the_daemons_matter(prompts: Path, out: Path) -> None:
    """Three items convicted in a row with no answer in between: the job itself dies, and knows them the next time."""
    ctx = FakeContext(out, lm=killing("say"))
    with pytest.raises(RunnerDied):
        run(ctx, folder=prompts, concurrency=1)
    assert sorted((ctx.saved or {})["deaths"].values(), reverse=True)[:3] == [3, 3, 3]

    again = FakeContext(out, saved=ctx.saved, mine=ctx.intended)
    assert run(again, folder=prompts)["succeeded"] == 2, "those with three deaths are not asked again"
    assert all(again.lm.alone)


def test_finished_items_are_saved_when_the_runner_dies(prompts: Path, out: Path) -> None:
    """What was answered before the model proved hopeless is not asked again."""
    ctx = FakeContext(out, lm=killing("c.txt", "d.txt", "e.txt"))
    with pytest.raises(RunnerDied):
        run(ctx, folder=prompts, concurrency=1)
    assert set((ctx.saved or {})["done"]) == {"a.txt", "b.md"}


def test_an_output_that_was_taken_away_is_made_again(prompts: Path, out: Path) -> None:
    """The checkpoint is believed only as far as the file is there."""
    first = FakeContext(out)
    run(first, folder=prompts)
    (out / "b.out.txt").unlink()
    second = FakeContext(out, saved=first.saved, mine=first.intended)
    run(second, folder=prompts)
    assert [asked(request) for request in second.lm.requests] == ["say b.md"]


def test_a_batch_that_is_all_done_asks_for_no_model(prompts: Path, out: Path) -> None:
    """A crash after the last item costs the next attempt nothing but the manifest."""
    first = FakeContext(out)
    run(first, folder=prompts)
    second = FakeContext(out, saved=first.saved, mine=first.intended)
    assert run(second, folder=prompts)["succeeded"] == 5
    assert second.leases == []


def test_a_checkpoint_of_another_version_is_not_believed(prompts: Path, out: Path) -> None:
    """After an update the batch starts over rather than misread."""
    assert run(FakeContext(out, saved={"version": 0, "done": {"a.txt": []}}), folder=prompts)["succeeded"] == 5


def test_cancelling_drops_what_is_in_flight(prompts: Path, out: Path) -> None:
    """Every request under way is cancelled, none is started any more, the lease is given back."""
    started = threading.Semaphore(0)

    def waits(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        started.release()
        assert request["cancelled"].wait(DEADLINE_S)
        return {}

    ctx = FakeContext(out, lm=waits)

    def cancel() -> None:
        for _ in range(3):
            assert started.acquire(timeout=DEADLINE_S)
        ctx.interrupt(JobCancelled)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(JobCancelled):
        run(ctx, folder=prompts, concurrency=3)
    canceller.join()
    assert len(ctx.lm.calls) == 3
    assert ctx.leased == 0
    assert not (out / "manifest.json").exists()


def test_large_batches_checkpoint_once_a_second(tmp_path: Path, out: Path) -> None:
    """Up to 500 finished items each round is saved; beyond, writing the growing list so often would be quadratic."""
    lines = tmp_path / "in.jsonl"
    lines.write_text("".join(json.dumps({"prompt": f"p{n}"}) + "\n" for n in range(510)))
    ctx = FakeContext(out)
    run(ctx, file=lines, concurrency=8)
    assert 1 < len(ctx.checkpoints) <= 501
    assert len(ctx.checkpoints[-1]["done"]) == 510


def test_progress_tells_items_and_tokens_a_second(prompts: Path, out: Path) -> None:
    """Speed counts the tokens of this attempt only."""
    clock = Clock()

    def second_each(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        clock.now += 1
        return echo(request, on_event)

    ctx = FakeContext(out, lm=second_each)
    run(ctx, clock=clock, folder=prompts, concurrency=1)
    assert ctx.told[0] == (0, 5, "items", "0 of 5 items")
    assert ctx.told[-1] == (5, 5, "items", "5 of 5 items, 2 tokens/s")


def test_jsonl_gives_results_in_input_order(tmp_path: Path, out: Path) -> None:
    """Each line may set its own sampling, system and chat; broken lines are told with their number."""
    lines = tmp_path / "in.jsonl"
    lines.write_text(
        '{"id": "x", "prompt": "one", "max_tokens": 5, "system": "own"}\n'
        "nonsense\n"
        '{"messages": [{"role": "system", "content": "m"}, {"role": "user", "content": "two"}]}\n'
        '{"prompt": "three", "temprature": 1}\n'
        '{"prompt": "four", "model": "other"}\n'
        '{"id": "y"}\n'
    )
    ctx = FakeContext(out, stem="in")
    result = run(ctx, file=lines, system="shared", temperature=0.5, max_tokens=9, concurrency=1)
    assert (result["succeeded"], result["failed"]) == (2, 4)
    first, second = ctx.lm.requests
    assert (first["max_tokens"], first["temperature"], first["messages"][0]["content"]) == (5, 0.5, "own")
    assert (second["max_tokens"], [one["content"] for one in second["messages"]]) == (9, ["m", "two"])
    told = [json.loads(line) for line in (out / "in.results.jsonl").read_text().splitlines()]
    assert [(one["id"], one.get("text")) for one in told] == [
        ("x", "ONE"),
        ("2", None),
        ("3", "TWO"),
        ("4", None),
        ("5", None),
        ("y", None),
    ]
    assert told[0]["line"] == 1
    assert told[1]["error"]["message"].startswith("line 2 is not JSON")
    assert "line 4: temprature: there is no such parameter" in told[3]["error"]["message"]
    assert "the model is the same for the whole batch" in told[4]["error"]["message"]
    assert "line 6: params: exactly one of prompt and messages" in told[5]["error"]["message"]
    assert (out / "in.items/000001.txt").read_text() == "ONE\n"
    assert manifest(out, "in.manifest.json")["items"][0]["output"] == "in.items/000001.txt"


def test_csv_fills_the_template(tmp_path: Path, out: Path) -> None:
    """A row is a prompt; the shared system text goes before each."""
    table = tmp_path / "in.csv"
    table.write_text("id,name\n7,Bo\n8,Al\n")
    ctx = FakeContext(out)
    run(ctx, file=table, template="greet {name}", system="s")
    assert {asked(request) for request in ctx.lm.requests} == {"greet Bo", "greet Al"}
    assert [json.loads(line)["id"] for line in (out / "results.jsonl").read_text().splitlines()] == ["7", "8"]


def test_json_answers_are_checked_item_by_item(tmp_path: Path, out: Path) -> None:
    """An answer that is not JSON fails its item; a line may bring a schema of its own."""
    lines = tmp_path / "in.jsonl"
    own = {"type": "array"}
    lines.write_text(json.dumps({"prompt": "[1]", "json_schema": own}) + '\n{"prompt": "no"}\n')
    ctx = FakeContext(out)
    result = run(ctx, file=lines, format="json", concurrency=1)
    assert [request["json_schema"] for request in ctx.lm.requests] == [own, {"type": "object"}]
    assert (result["succeeded"], result["failed"]) == (1, 1)
    assert (out / "items/000001.json").read_text() == "[\n  1\n]\n"
    assert json.loads((out / "results.jsonl").read_text().splitlines()[0])["json"] == [1]


def test_results_survive_an_output_that_vanished(tmp_path: Path, out: Path) -> None:
    """Somebody who tidies up while a batch runs loses that text only."""
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    ctx = FakeContext(out)

    def tidy(saved: dict[str, Any]) -> None:
        (out / "items/000001.txt").unlink(missing_ok=True)

    ctx.on_checkpoint = tidy
    run(ctx, file=lines, concurrency=1)
    told = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [one["text"] for one in told] == [None, "B"]


def test_only_new_leaves_out_what_has_an_output_already(prompts: Path, out: Path) -> None:
    """An output that is younger than its prompt is kept; a prompt changed since is done again."""
    run(FakeContext(out), folder=prompts)
    later = (out / "c.out.txt").stat().st_mtime + 10
    os.utime(prompts / "c.txt", (later, later))
    ctx = FakeContext(out)
    result = run(ctx, folder=prompts, only_new=True)
    assert (result["succeeded"], result["skipped"], result["text"]) == (1, 4, "1 done, 4 skipped")
    assert [asked(request) for request in ctx.lm.requests] == ["say c.txt"]


def test_only_new_of_an_empty_folder_is_no_failure(tmp_path: Path, out: Path) -> None:
    """Nothing new is what a schedule finds on most nights."""
    (tmp_path / "none").mkdir()
    ctx = FakeContext(out)
    result = run(ctx, folder=tmp_path / "none", only_new=True)
    assert (result["succeeded"], result["failed"], result["text"]) == (0, 0, "0 done")
    assert ctx.lm.requests == []


def test_only_new_knows_the_outputs_of_later_jobs(prompts: Path, out: Path) -> None:
    """A changed prompt's second output, beside the first, counts: the next job does not do it over again."""
    run(FakeContext(out), folder=prompts)
    (out / "c.out (2).txt").write_text("SAY C, BY THE SECOND JOB")
    later = (out / "c.out.txt").stat().st_mtime + 10
    os.utime(prompts / "c.txt", (later, later))
    os.utime(out / "c.out (2).txt", (later + 1, later + 1))
    ctx = FakeContext(out)

    assert run(ctx, folder=prompts, only_new=True)["skipped"] == 5
    assert ctx.lm.requests == []


def test_a_folder_takes_a_template(prompts: Path, out: Path) -> None:
    """Its text stands for {text}."""
    ctx = FakeContext(out)
    run(ctx, folder=prompts, globs=["a*"], template="Title: {text}")
    assert asked(ctx.lm.requests[0]) == "Title: say a.txt"


def test_a_folder_without_prompts_fails(tmp_path: Path, out: Path) -> None:
    """And a file that is no batch at all."""
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInput, match="Nothing in"):
        run(FakeContext(out), folder=tmp_path / "none")
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(InvalidParams, match="uses no column"):
        run(FakeContext(out), file=tmp_path / "a.csv", template="{b}")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "exactly one of folder and file"),
        ({"folder": "/a", "file": "/b.csv"}, "exactly one of folder and file"),
        ({"file": "/a.xlsx"}, "must be a .jsonl or a .csv"),
        ({"file": "/a.csv"}, "needs a template"),
        ({"folder": "/a", "template": "x"}, "no {text} in it"),
        ({"folder": "/a", "concurrency": 0}, "greater than or equal to 1"),
        ({"folder": "a"}, "absolute path"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], said: str) -> None:
    """Before the job is accepted, in words."""
    with pytest.raises(ValidationError, match=said.replace("{", r"\{")):
        Params(**params)
