"""`launchd.refusals`: each code is a sentence that a person can act on."""

from __future__ import annotations

import pytest

from launchd.refusals import sentence


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (3, "no such process"),
        (5, "input/output error"),
        (17, "earlier copy"),
        (36, "busy"),
        (37, "busy"),
        (112, "Nobody is logged in at the screen"),
        (113, "Login Items"),
        (119, "switched off"),
        (122, "belong to you"),
        (124, "session is ending"),
        (125, "this session"),
        (127, "no launchctl"),
        (134, "kind of session"),
        (155, "xattr -d com.apple.quarantine"),
    ],
)
def test_known_codes_are_explained(code: int, said: str) -> None:
    """The sentence says what was tried, what it means, and the code for a search."""
    text = sentence(code, doing="start the service", said="gibberish")
    assert text.startswith("Could not start the service. ")
    assert said in text
    assert text.endswith(f"(code {code})")
    assert "gibberish" not in text


def test_an_unknown_code_comes_with_what_launchctl_said() -> None:
    """What we do not know is passed on, on one line."""
    assert sentence(99, doing="stop", said="Strange\n  things") == (
        "Could not stop. launchctl ended with 99: Strange things. (code 99)"
    )
    assert sentence(99, doing="stop") == "Could not stop. launchctl ended with 99. (code 99)"
