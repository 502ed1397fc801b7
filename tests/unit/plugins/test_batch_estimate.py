"""What a batch will take, told before it runs."""

from __future__ import annotations

from pathlib import Path

from plugins.batch_estimate import Pace, estimate, pace
from plugins.batch_params import Params
from plugins.items import from_folder, from_jsonl


def done(model: str = "m", *, items: int = 10, tokens: int = 200, seconds: int = 20) -> dict[str, object]:
    return {
        "started_at": "2026-01-02T03:00:00Z",
        "finished_at": f"2026-01-02T03:00:{seconds:02}Z",
        "result": {"model": model, "succeeded": items, "completion_tokens": tokens},
    }


def test_pace_is_that_of_the_same_model() -> None:
    """Batches of another model, without an answer, or without times say nothing."""
    jobs = [done(), done(items=30, tokens=200), done("other"), done(items=0), done(seconds=0), {"result": None}]
    found = pace(jobs, "m")
    assert found == Pace(batches=2, items=40, completion_tokens=400, seconds=40.0)
    assert found is not None
    assert (found.items_per_second, found.tokens_per_item) == (1.0, 10.0)
    assert pace([done("other")], "m") is None
    assert pace([done("other")], None) is not None


def test_a_file_is_counted_by_its_lines() -> None:
    """Broken lines apart, what the limit leaves apart, four bytes to a token; nothing is known of the time yet."""
    items = from_jsonl(
        '{"prompt": "12345678"}\nbroken\n{"messages": [{"content": "1234"}], "max_tokens": 7}\n', template=None
    )
    told = estimate(items, Params(file=Path("/x.jsonl"), max_tokens=100, system="1234"), None)
    assert (told["items"], told["broken"], told["left"]) == (2, 1, 0)
    assert (told["prompt_tokens"], told["completion_tokens_most"]) == ((8 + 4 + 4 + 4) // 4, 107)
    assert (told["seconds"], told["completion_tokens"]) == (None, None)
    assert "line 2" in told["problems"][0]
    limited = estimate(items, Params(file=Path("/x.jsonl"), limit=1), None)
    assert (limited["items"], limited["left"]) == (1, 1)


def test_time_and_tokens_follow_the_pace(tmp_path: Path) -> None:
    """Items by items a second, tokens by tokens an item, never more than the most."""
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("12345678")
    items = from_folder(tmp_path, globs=["*.txt"], recursive=True)
    known = Pace(batches=1, items=10, completion_tokens=200, seconds=5.0)
    told = estimate(items, Params(folder=tmp_path, max_tokens=50), known)
    assert (told["prompt_tokens"], told["completion_tokens"], told["seconds"]) == (8, 80, 2.0)
    assert estimate(items, Params(folder=tmp_path, max_tokens=5), known)["completion_tokens"] == 20


def test_tools_and_calls_are_read_too() -> None:
    """They go through the chat template into the prompt; a message without text counts as none."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    plain = '{"messages": [{"role": "user", "content": "1234"}, {"role": "assistant", "content": null'
    items = from_jsonl(plain + "}]}\n" + plain + ', "tool_calls": [{"function": {"name": "f"}}]}]}\n', template=None)
    few = estimate(items[:1], Params(file=Path("/x.jsonl")), None)["prompt_tokens"]
    more = estimate(items[1:], Params(file=Path("/x.jsonl")), None)["prompt_tokens"]
    most = estimate(items[1:], Params(file=Path("/x.jsonl"), tools=tools), None)["prompt_tokens"]
    assert few == 1 < more < most
