"""`launchd.folder_action`: the binding through System Events."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes_shortcuts import FakeMac

from launchd.contract import Answer, ServiceFailure
from launchd.folder_action import bind, unbind

FOLDER, WORKFLOW = Path('/Users/ada/it\'s "here" $(x)'), Path("/Users/ada/Library/It's.workflow")


def test_paths_are_arguments_and_never_source() -> None:
    """The script is the same whatever the folder is called; osascript gets its name as an argument."""
    mac = FakeMac(osascript=lambda words: Answer(0, {"bind": "bound\n", "unbind": "unbound\n"}[words[5]], ""))
    bind(FOLDER, WORKFLOW, run=mac)
    unbind(FOLDER, WORKFLOW, run=mac)
    one, two = mac.calls("osascript")
    assert one[:3] == two[:3] == ["-l", "JavaScript", "-e"]
    assert one[3] == two[3]
    assert "ada" not in one[3]
    assert (one[4:], two[4:]) == (
        ["bind", str(FOLDER), str(WORKFLOW)],
        ["unbind", str(FOLDER), str(WORKFLOW)],
    )


@pytest.mark.parametrize(
    "answer", [Answer(1, "", "execution error: Not authorised (-1743)"), Answer(0, "unbound\n", "")]
)
def test_a_refusal_says_where_to_allow_it(answer: Answer) -> None:
    """Usually it is the permission; and there is a way by hand."""
    with pytest.raises(ServiceFailure, match="Privacy & Security > Automation"):
        bind(FOLDER, WORKFLOW, run=FakeMac(osascript=answer))
