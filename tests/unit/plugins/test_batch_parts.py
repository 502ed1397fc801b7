"""A part of a batch: limits, what failed before, another try, and what was written before a death."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import FakeContext, asked, echo

from jobs.errors import Interrupted, InvalidInput, RequestFailed
from plugins.batch import Batch
from plugins.batch_params import Params
from plugins.task import OnEvent


def run(ctx: FakeContext, **params: Any) -> dict[str, Any]:
    return Batch(clock=lambda: 0.0).run(ctx, Params(**params))


def prompts(folder: Path, count: int = 6) -> Path:
    file = folder / "in.jsonl"
    file.write_text("".join(json.dumps({"id": f"q{number}", "prompt": f"p{number}"}) + "\n" for number in range(count)))
    return file


def statuses(manifest: Path) -> list[str]:
    return [entry["status"] for entry in json.loads(manifest.read_text())["items"]]


def test_a_limit_does_the_first_and_leaves_the_rest(tmp_path: Path) -> None:
    """The manifest says which are left, and the progress counts only what is to be done."""
    ctx = FakeContext(tmp_path / "out")
    result = run(ctx, file=prompts(tmp_path), limit=2)
    assert (result["succeeded"], result["left"], result["text"]) == (2, 4, "2 done, 4 left")
    assert statuses(tmp_path / "out" / "manifest.json") == ["succeeded"] * 2 + ["left"] * 4
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2
    assert ctx.told[-1][:2] == (2, 2)


def test_only_failed_does_what_failed_and_what_was_left(tmp_path: Path) -> None:
    """And nothing else; a second batch over the first one's manifest completes it."""
    file = prompts(tmp_path)

    def refuse(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        if asked(request) == "p1":
            raise RequestFailed("not now")
        return echo(request, on_event)

    run(FakeContext(tmp_path / "out", lm=refuse), file=file, limit=4, retries=0)
    ctx = FakeContext(tmp_path / "again")
    result = run(ctx, file=file, only_failed=tmp_path / "out" / "manifest.json")
    assert sorted(asked(request) for request in ctx.lm.requests) == ["p1", "p4", "p5"]
    assert (result["total"], result["succeeded"]) == (3, 3)
    with pytest.raises(InvalidInput, match="Nothing of"):
        run(FakeContext(tmp_path / "third"), file=file, only_failed=tmp_path / "again" / "manifest.json")
    with pytest.raises(InvalidInput, match="no manifest"):
        run(FakeContext(tmp_path / "fourth"), file=file, only_failed=file)


def test_a_failed_item_is_asked_again_as_often_as_said(tmp_path: Path) -> None:
    """One that comes through at the second try succeeds; the manifest says how often each was asked."""
    times: Counter[str] = Counter()

    def flaky(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        times[asked(request)] += 1
        if asked(request) == "p0" or (asked(request) == "p1" and times["p1"] == 1):
            raise RequestFailed("busy")
        return echo(request, on_event)

    ctx = FakeContext(tmp_path / "out", lm=flaky)
    result = run(ctx, file=prompts(tmp_path, 3), retries=2, concurrency=1)
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["items"]
    assert [(entry["status"], entry.get("attempts")) for entry in entries] == [
        ("failed", 3),
        ("succeeded", 2),
        ("succeeded", None),
    ]
    assert (result["failed"], times) == (1, Counter(p0=3, p1=2, p2=1))


def test_on_error_fail_waits_for_the_last_try(tmp_path: Path) -> None:
    """A batch that fails at once does so after the item was asked again."""

    def refuse(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
        raise RequestFailed("busy")

    ctx = FakeContext(tmp_path / "out", lm=refuse)
    with pytest.raises(RequestFailed, match="Item q0"):
        run(ctx, file=prompts(tmp_path, 1), on_error="fail", retries=1)
    assert len(ctx.lm.requests) == 2


def test_every_item_is_told_as_it_ends(tmp_path: Path) -> None:
    """Who follows the job hears of each item at once, with the file that has its answer."""
    ctx = FakeContext(tmp_path / "out")
    run(ctx, file=prompts(tmp_path, 2))
    told = sorted((data["id"], data["output"]) for kind, data in ctx.emitted if kind == "item")
    assert told == [("q0", "items/000001.txt"), ("q1", "items/000002.txt")]


def test_a_file_written_before_a_death_is_not_made_again(tmp_path: Path) -> None:
    """The checkpoint is behind the disk: what the ledger knows to be this job's own, unchanged file counts as done."""
    file = prompts(tmp_path, 3)
    first = FakeContext(tmp_path / "out")
    run(first, file=file)
    (tmp_path / "out" / "items" / "000002.txt").write_text("edited")
    second = FakeContext(tmp_path / "out", mine=first.intended)
    result = run(second, file=file)
    assert [asked(request) for request in second.lm.requests] == ["p1"]
    assert result["succeeded"] == 3


def test_what_was_answered_while_stopping_is_kept(tmp_path: Path) -> None:
    """Whatever has its file when the job was told to stop is not asked again; everything else is."""
    ctx = FakeContext(tmp_path / "out")

    def stop(_: dict[str, Any]) -> None:
        ctx.stop = Interrupted

    ctx.on_checkpoint = stop
    with pytest.raises(Interrupted):
        run(ctx, file=prompts(tmp_path, 9), concurrency=3)
    written = len(list((tmp_path / "out" / "items").iterdir()))
    assert written >= 1
    again = FakeContext(tmp_path / "out", saved=ctx.saved, mine=ctx.intended)
    run(again, file=tmp_path / "in.jsonl", concurrency=3)
    assert len(again.lm.requests) == 9 - written


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"n": 1}}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def call_a_tool(request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    done = echo(request, on_event)
    return {**done, "reasoning": "Hm."} | ({"tool_calls": [CALL]} if asked(request) == "p1" else {})


def test_what_an_answer_has_beside_its_text_is_kept_and_told(tmp_path: Path) -> None:
    """Calls and thoughts lie in a file beside the text, stand in the results, and are found again after a death."""
    file = prompts(tmp_path, 3)
    first = FakeContext(tmp_path / "out", lm=call_a_tool)

    def stop(saved: dict[str, Any]) -> None:
        if len(saved["done"]) == 2:
            first.interrupt()

    first.on_checkpoint = stop
    with pytest.raises(Interrupted):
        run(first, file=file, tools=TOOLS, concurrency=1)
    assert json.loads((tmp_path / "out/items/000002.parts.json").read_text()) == {
        "reasoning": "Hm.",
        "tool_calls": [CALL],
    }
    for saved in (first.saved, None):  # with the last checkpoint, and with none of it
        again = FakeContext(tmp_path / "out", lm=call_a_tool, saved=saved, mine=first.intended)
        run(again, file=file, tools=TOOLS)
        # p2 may have been asked while p1 was written down; then its answer was kept.
        assert [asked(request) for request in again.lm.requests] in ([["p2"], []] if saved else [["p2"]])
        lines = [json.loads(one) for one in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
        assert [(one["text"], one.get("tool_calls"), one["reasoning"]) for one in lines] == [
            ("P0", None, "Hm."),
            ("P1", [CALL], "Hm."),
            ("P2", None, "Hm."),
        ]
        (tmp_path / "out/items/000003.txt").unlink()
        (tmp_path / "out/manifest.json").unlink()
        (tmp_path / "out/results.jsonl").unlink()


def test_thoughts_do_not_clutter_a_folder(tmp_path: Path) -> None:
    """A folder of prompts gets a second file for an answer only where something was asked for."""
    (tmp_path / "in").mkdir()
    for name in ("p0", "p1"):
        (tmp_path / "in" / f"{name}.txt").write_text(name)
    ctx = FakeContext(tmp_path / "out", lm=call_a_tool)
    run(ctx, folder=tmp_path / "in", tools=TOOLS)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "p0.out.txt",
        "p1.out.parts.json",
        "p1.out.txt",
    ]
