"""A prompt file that says how it wants to be answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes_tasks import FakeContext

from jobs.errors import InvalidInput, InvalidParams
from plugins.generate import Generate, Params

TEXT = "---\nsystem: Be brief.\nmax_tokens: 7\nseed: 3\n---\n\nWhat is it?\n"


def asked(
    tmp_path: Path, text: str, *, task: str = "generate", job: dict[str, Any] | None = None, **params: Any
) -> Any:
    """Return the request that `generate` makes of a file with *text*; *job* is what the job itself was asked for."""
    (tmp_path / "in").mkdir(exist_ok=True)
    path = tmp_path / "in" / "a.md"
    path.write_text(text)
    ctx = FakeContext(tmp_path, task=task)
    ctx.job = ctx.job.model_copy(update={"params": job or {}})
    Generate().run(ctx, Params(file=path, **params))
    return ctx.lm.requests[0]


def test_it_sets_parameters_and_is_no_part_of_the_prompt(tmp_path: Path) -> None:
    """What it says counts more than a default."""
    request = asked(tmp_path, TEXT, max_tokens=99)
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
    ]
    assert (request["max_tokens"], request["seed"]) == (7, 3)


def test_what_the_job_was_asked_for_counts_more(tmp_path: Path) -> None:
    """A person who says so on the command line has the last word; a pipeline's own parameters are others."""
    assert asked(tmp_path, TEXT, job={"max_tokens": 99}, max_tokens=99)["max_tokens"] == 99
    assert asked(tmp_path, TEXT, task="pipeline", job={"max_tokens": 99}, max_tokens=99)["max_tokens"] == 7


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """Then the file is the prompt as it stands."""
    assert asked(tmp_path, TEXT, front_matter=False)["prompt"] == TEXT.strip()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("---\nseed: 1\n---\n \n", InvalidInput, "no text after its front matter"),
        ("---\nmodle: x\n---\nx", InvalidInput, "did you mean 'model'"),
        ("---\ntemperature: 99\n---\nx", InvalidParams, "front matter of .*a.md is not right: temperature: "),
    ],
)
def test_mistakes_end_the_job_with_a_sentence(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    """The file and the parameter are named."""
    with pytest.raises(error, match=message):
        asked(tmp_path, text)


def test_it_may_offer_tools_and_bias_tokens(tmp_path: Path) -> None:
    """As a line of JSON or as TOML tables."""
    plain = '---\ntools: [{"type": "function", "function": {"name": "f"}}]\nlogit_bias: {"5": -100}\n---\nx\n'
    toml = '---\nlogprobs = 2\n[[tools]]\ntype = "function"\nfunction = { name = "f" }\n---\nx\n'
    first, second = asked(tmp_path, plain), asked(tmp_path, toml)
    assert first["tools"] == second["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert (first["logit_bias"], second["logprobs"]) == ({"5": -100.0}, 2)
