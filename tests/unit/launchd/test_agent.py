"""`launchd.agent`: what the property list says."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes_service import sample_spec
from hypothesis import given
from hypothesis import strategies as st

from launchd.agent import AgentSpec, describe, render
from launchd.schema import problems

SAMPLE = Path(__file__).parents[3] / "launchd" / "io.mlxd.agent.plist"
ADA = AgentSpec(
    program=("/Users/ada/.local/share/uv/tools/mlxd/bin/mlxd",),
    state=Path("/Users/ada/Library/Application Support/mlxd/state"),
    logs=Path("/Users/ada/Library/Logs/mlxd"),
    socket=Path("/Users/ada/Library/Application Support/mlxd/state/mlxd.sock"),
    environment={"HOME": "/Users/ada"},
)


def test_the_sample_is_what_is_rendered() -> None:
    """The committed sample shows, byte for byte, what an install writes for the user "ada"."""
    assert render(ADA) == SAMPLE.read_bytes()


def test_every_key_has_the_value_and_type_that_launchd_wants() -> None:
    """The rendered list, read back, is launchd's table: true is not 1, 0600 is 384, the environment is strings."""
    found = plistlib.loads(render(ADA))
    expected = {
        "Label": "io.mlxd.agent",
        "ProgramArguments": [
            "/Users/ada/Library/Application Support/mlxd/state/mlxd-agent",
            "run",
            "--supervised",
        ],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 45,
        "ProcessType": "Interactive",
        "LimitLoadToSessionType": "Aqua",
        "Sockets": {
            "http": {
                "SockPathName": "/Users/ada/Library/Application Support/mlxd/state/mlxd.sock",
                "SockPathMode": 384,
            }
        },
        "EnvironmentVariables": {
            "HOME": "/Users/ada",
            "LANG": "en_US.UTF-8",
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONUNBUFFERED": "1",
        },
        "StandardOutPath": "/Users/ada/Library/Logs/mlxd/agent.out",
        "StandardErrorPath": "/Users/ada/Library/Logs/mlxd/agent.err",
        "WorkingDirectory": "/Users/ada/Library/Application Support/mlxd/state",
        "Umask": 63,
        "SoftResourceLimits": {"NumberOfFiles": 4096},
    }
    assert found == expected
    assert found["RunAtLoad"] is True
    assert found["KeepAlive"]["SuccessfulExit"] is False


@pytest.mark.skipif(not shutil.which("plistutil"), reason="plistutil is not installed: make system-deps")
def test_another_parser_reads_the_same(tmp_path: Path) -> None:
    """libplist, which has nothing to do with Python, takes the sample and gives the same values back in binary."""
    binary = tmp_path / "agent.bin"
    subprocess.run(["plistutil", "-i", SAMPLE, "-f", "bin", "-o", binary], check=True, capture_output=True)  # noqa: S607
    assert binary.read_bytes().startswith(b"bplist00")
    assert plistlib.loads(binary.read_bytes()) == plistlib.loads(SAMPLE.read_bytes())


@pytest.mark.skipif(not shutil.which("plutil"), reason="plutil belongs to macOS")
def test_apples_parser_accepts_it() -> None:
    """The tool that comes with macOS finds nothing wrong with the sample."""
    subprocess.run(["plutil", "-lint", SAMPLE], check=True, capture_output=True)  # noqa: S607


@pytest.mark.parametrize(("drain", "patience"), [(0, 45), (30, 45), (31, 46), (120, 135)])
def test_launchd_waits_longer_than_the_drain(drain: int, patience: int, tmp_path: Path) -> None:
    """ExitTimeOut grows with the drain and is at least ten seconds more."""
    assert describe(sample_spec(tmp_path, drain_seconds=drain))["ExitTimeOut"] == patience
    assert patience >= drain + 10


def test_without_a_screen_the_session_types_say_so(tmp_path: Path) -> None:
    """An install over SSH must also load in a background session."""
    assert describe(sample_spec(tmp_path, headless=True))["LimitLoadToSessionType"] == ["Aqua", "Background"]


@given(
    root=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
        lambda s: "/" not in s
    ),
    value=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
)
def test_hostile_names_arrive_unchanged(root: str, value: str) -> None:
    """Quotes, tags, emoji and dollars in paths and in the environment come out of the XML as they went in."""
    spec = sample_spec(Path("/") / root, environment={"HOME": f"/{root}", "X": value})
    found = plistlib.loads(render(spec))
    assert found["ProgramArguments"][0] == str(spec.launcher)
    assert found["EnvironmentVariables"]["X"] == value


def test_a_list_that_launchd_would_not_take_is_not_rendered(tmp_path: Path) -> None:
    """Rendering refuses with every problem in the message."""
    spec = sample_spec(tmp_path, socket=Path("/" + "x" * 200), process_type="Turbo")
    with pytest.raises(ValueError, match=r"ProcessType .*Interactive.*103 bytes|103 bytes.*") as caught:
        render(spec)
    assert "ProcessType" in str(caught.value)
    assert "103 bytes" in str(caught.value)


GOOD = describe(ADA)
SOCKET = GOOD["Sockets"]["http"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Label": "io.mlxd agent"}, "letters, digits"),
        ({"Label": "<x>"}, "letters, digits"),
        ({"ProgramArguments": []}, "absolute path"),
        ({"ProgramArguments": ["mlxd", "run"]}, "absolute path"),
        ({"ProgramArguments": ["~/mlxd-agent"]}, "absolute path"),
        ({"ProgramArguments": ["/bin/x", 1]}, "absolute path"),
        ({"ProgramArguments": ["/usr/bin/python3.12"]}, "python"),
        ({"RunAtLoad": 1}, "true or false"),
        ({"KeepAlive": True}, "SuccessfulExit"),
        ({"KeepAlive": {"Crashed": True}}, "SuccessfulExit"),
        ({"ThrottleInterval": "10"}, "whole number"),
        ({"ThrottleInterval": True}, "whole number"),
        ({"ExitTimeOut": 0}, "whole number"),
        ({"ExitTimeOut": 39}, "too short for a drain of 30 s"),
        ({"ProcessType": "interactive"}, "one of"),
        ({"LimitLoadToSessionType": ["Aqua", "Screen"]}, "Aqua"),
        ({"LimitLoadToSessionType": []}, "Aqua"),
        ({"EnvironmentVariables": {"A": 1}}, "strings only"),
        ({"StandardOutPath": "~/Library/Logs/x"}, "absolute path"),
        ({"WorkingDirectory": "$HOME"}, "absolute path"),
        ({"Umask": "077"}, "whole number"),
        ({"SoftResourceLimits": {"NumberOfFiles": 10}}, "256 or more"),
        ({"Sockets": {}}, "103 bytes"),
        ({"Sockets": {"http": "/x"}}, "103 bytes"),
        ({"Sockets": {"http": {**SOCKET, "SockPathMode": "0600"}}}, "103 bytes"),
        ({"Sockets": {"http": {**SOCKET, "SockPathMode": 0o666}}}, "103 bytes"),
        ({"Sockets": {"http": {**SOCKET, "SockPathName": "/" + "x" * 103}}}, "103 bytes"),
        ({"Sockets": {"http": {**SOCKET, "SockType": "stream"}}}, "103 bytes"),
        ({"WatchPaths": ["/tmp"]}, "Unknown key WatchPaths"),
        ({"Label": "other"}, "The file is called"),
    ],
)
def test_each_mistake_is_named(changes: dict[str, object], said: str) -> None:
    """Whatever launchd would ignore, refuse or cut short is found, and the sentence names it."""
    found = problems({**GOOD, **changes}, file_name="io.mlxd.agent.plist", drain_seconds=30)
    assert len(found) == 1
    assert said in found[0]


def test_what_must_be_there_is_missed() -> None:
    """A list without label or program is no service."""
    assert problems({}, file_name="x.plist", drain_seconds=30) == ["Label is missing.", "ProgramArguments is missing."]


def test_the_longest_path_that_fits_is_taken() -> None:
    """103 bytes fit, counted in bytes and not in characters."""
    fits = {**GOOD, "Sockets": {"http": {**SOCKET, "SockPathName": "/" + "x" * 102}}}
    assert not problems(fits, file_name="io.mlxd.agent.plist", drain_seconds=30)
    long = {**GOOD, "Sockets": {"http": {**SOCKET, "SockPathName": "/" + "ü" * 52}}}
    assert problems(long, file_name="io.mlxd.agent.plist", drain_seconds=30)
