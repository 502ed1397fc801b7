"""`launchd.control`: the order, the codes, the retries, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes_service import FakeTime, ScriptedRun, sample_spec

from launchd import refusals
from launchd.contract import Answer, ServiceFailure, Standing
from launchd.control import ServiceController

UID = 501
GUI, USER = f"gui/{UID}", f"user/{UID}"
AGENT = "io.mlxd.agent"
RUNNING = Answer(0, "x = {\n\tstate = running\n\tpid = 4711\n\tlast exit code = 0\n}", "")
ABSENT = {("print", f"{USER}/{AGENT}"): [113], ("print", f"{GUI}/{AGENT}"): [113]}


class Bench:
    """A controller, and everything that it touches."""

    def __init__(self, root: Path, monkey_uid: int, table: dict[tuple[str, ...], list[int | Answer]]) -> None:
        self.time = FakeTime()
        self.run = ScriptedRun(table)
        self.spec = sample_spec(root)
        self.agents = root / "LaunchAgents"
        self.controller = ServiceController(
            self.spec, agents=self.agents, uid=monkey_uid, run=self.run, pause=self.time.pause, clock=self.time.clock
        )

    @property
    def doings(self) -> list[tuple[str, ...]]:
        return [call for call in self.run.calls if not call[0].startswith("print")]


@pytest.fixture
def bench(tmp_path: Path):
    """Make a bench whose launchctl answers from a table; files belong to whoever runs the test."""

    def make(table: dict[tuple[str, ...], list[int | Answer]]) -> Bench:
        made = Bench(tmp_path, UID, {**ABSENT, **table})
        made.agents.mkdir(exist_ok=True)
        made.controller.definition.write_text("installed before")
        return made

    return make


def test_start_switches_on_before_anything_else(bench) -> None:
    """The record that a service is switched off survives an uninstall, so `enable` comes first, `kickstart` last."""
    made = bench({})
    made.controller.start()
    assert [call[0] for call in made.doings] == ["enable", "bootstrap", "kickstart"]
    assert made.doings[1] == ("bootstrap", GUI, str(made.controller.definition))
    assert made.doings[2] == ("kickstart", "-p", f"{GUI}/{AGENT}")


def test_a_living_job_is_waited_for_before_it_is_replaced(bench) -> None:
    """`bootout` answers while the process still drains; nothing is bootstrapped until launchd has forgotten the job."""
    # living, then 20 polls of draining, then gone
    made = bench({("print", f"{GUI}/{AGENT}"): [*[RUNNING] * 21, 113]})
    made.controller.restart()
    calls = made.run.calls
    bootout, bootstrap = calls.index(("bootout", f"{GUI}/{AGENT}")), calls.index(made.doings[-2])
    polls = [call for call in calls[bootout:bootstrap] if call[0] == "print"]
    assert len(polls) >= 21
    assert [call[0] for call in made.doings] == ["enable", "bootout", "bootstrap", "kickstart"]
    assert made.time.now == pytest.approx(20 * 0.25)


def test_a_job_that_never_ends_is_not_overwritten(bench) -> None:
    """If the process is still there after ExitTimeOut and a margin, that is an error, and no bootstrap was tried."""
    made = bench({("print", f"{GUI}/{AGENT}"): [RUNNING]})
    with pytest.raises(ServiceFailure, match="did not end within 60 s"):
        made.controller.restart()
    assert "bootstrap" not in [call[0] for call in made.doings]
    assert made.time.now >= 60


@pytest.mark.parametrize("code", [5, 36, 37])
def test_passing_refusals_are_repeated(code: int, bench) -> None:
    """5, 36 and 37 mean "busy": the call is repeated with growing pauses until it is taken."""
    made = bench({("bootstrap",): [code, code, code, 0]})
    made.controller.start()
    assert [call[0] for call in made.doings].count("bootstrap") == 4
    assert made.time.pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("code", [5, 36, 37])
def test_repeating_ends(code: int, bench) -> None:
    """After six tries in about 15 seconds the refusal is told."""
    made = bench({("bootstrap",): [code]})
    with pytest.raises(ServiceFailure) as caught:
        made.controller.start()
    assert caught.value.code == code
    assert [call[0] for call in made.doings].count("bootstrap") == 6
    assert made.time.now == pytest.approx(15.5)


@pytest.mark.parametrize("code", [3, 112, 113, 119, 122, 124, 125, 127, 134, 155])
def test_lasting_refusals_are_told_at_once(code: int, bench) -> None:
    """A refusal that does not pass is not repeated, and its sentence says what to do."""
    made = bench({("bootstrap",): [code]})
    with pytest.raises(ServiceFailure) as caught:
        made.controller.start()
    assert [call[0] for call in made.doings].count("bootstrap") == 1
    assert str(caught.value) == refusals.sentence(code, doing="hand the service to launchd")
    assert caught.value.code == code


def test_a_copy_loaded_meanwhile_is_taken_out_first(bench) -> None:
    """17 (exists) would leave launchd with the old definition: the copy is booted out, then it is tried once more."""
    made = bench({("bootstrap",): [17, 0], ("print", f"{GUI}/{AGENT}"): [113, 113, RUNNING, 113]})
    made.controller.start()
    assert [call[0] for call in made.doings] == ["enable", "bootstrap", "bootout", "bootstrap", "kickstart"]


@pytest.mark.parametrize("code", [0, 3, 36, 113])
def test_stop_takes_a_job_that_goes_by_itself_for_stopped(code: int, bench) -> None:
    """Between the question and the bootout the job may end: that is what was wanted."""
    made = bench({("print", f"{GUI}/{AGENT}"): [RUNNING, 113], ("bootout",): [code]})
    assert made.controller.stop().standing is Standing.NOT_LOADED


def test_a_refused_stop_is_told(bench) -> None:
    """Any other answer to bootout is an error."""
    made = bench({("print", f"{GUI}/{AGENT}"): [RUNNING], ("bootout",): [Answer(1, "", "Operation  not\npermitted")]})
    with pytest.raises(ServiceFailure, match=r"Could not stop the service\. .*1: Operation not permitted"):
        made.controller.stop()


def test_a_running_service_is_only_kicked(bench) -> None:
    """Starting what runs changes nothing: no bootout, no bootstrap."""
    made = bench({("print", f"{GUI}/{AGENT}"): [RUNNING]})
    assert made.controller.start().pid == 4711
    assert [call[0] for call in made.doings] == ["kickstart"]


def test_over_ssh_the_users_own_session_serves(bench) -> None:
    """Without anybody at the screen `gui/UID` does not exist (112), and everything goes to `user/UID`."""
    made = bench({("print", GUI): [112], ("print", f"{GUI}/{AGENT}"): [112]})
    made.controller.start()
    assert [call for call in made.doings if GUI in " ".join(call)] == []
    assert made.doings[1][:2] == ("bootstrap", USER)


def test_a_copy_in_the_other_session_is_ended_too(bench) -> None:
    """What was once installed over SSH must not go on beside the copy at the screen."""
    made = bench({("print", f"{USER}/{AGENT}"): [RUNNING, 113]})
    made.controller.start()
    assert ("bootout", f"{USER}/{AGENT}") in made.doings


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_what_is_not_installed_cannot_be_started(verb: str, bench) -> None:
    """The message names the command that installs."""
    made = bench({})
    made.controller.definition.unlink()
    with pytest.raises(ServiceFailure, match="mlxd service install"):
        getattr(made.controller, verb)()
    assert made.doings == []


@pytest.mark.parametrize(
    ("gui", "user", "installed", "standing"),
    [
        (RUNNING, 113, True, Standing.RUNNING),
        (113, RUNNING, True, Standing.RUNNING),
        (112, RUNNING, True, Standing.RUNNING),
        (RUNNING, 113, False, Standing.RUNNING),
        (Answer(0, "\tstate = not running\n\tlast exit code = 78: EX_CONFIG\n", ""), 113, True, Standing.STOPPED),
        (Answer(0, "\tstate = spawn scheduled\n", ""), 113, True, Standing.STOPPED),
        (Answer(0, "a new format", ""), 113, True, Standing.UNKNOWN),
        (Answer(0, "\tstate = running\n", ""), 113, True, Standing.UNKNOWN),
        (Answer(0, "", ""), 113, True, Standing.UNKNOWN),
        (113, 113, True, Standing.NOT_LOADED),
        (113, 113, False, Standing.NOT_INSTALLED),
        (112, 113, False, Standing.NOT_INSTALLED),
        (112, 113, True, Standing.UNKNOWN),
        (112, 112, True, Standing.UNKNOWN),
        (112, 112, False, Standing.UNKNOWN),
        (127, 127, True, Standing.UNKNOWN),
        (127, 127, False, Standing.UNKNOWN),
        (1, 113, True, Standing.UNKNOWN),
    ],
)
def test_status_never_says_more_than_launchd_did(gui, user, installed: bool, standing: Standing, bench) -> None:
    """Only 113 means "not loaded"; anything that cannot be read is "cannot tell"."""
    made = bench({("print", f"{GUI}/{AGENT}"): [gui], ("print", f"{USER}/{AGENT}"): [user]})
    if not installed:
        made.controller.definition.unlink()
    status = made.controller.status()
    assert status.standing is standing
    assert status.definition == (made.controller.definition if installed else None)
    assert ("Cannot tell" in status.detail) == (standing is Standing.UNKNOWN)


def test_status_reads_how_the_last_process_ended(bench) -> None:
    """The exit code is told, also where launchd explains it in words behind the number."""
    answer = Answer(0, "\tstate = not running\n\tlast exit code = 78: EX_CONFIG\n", "")
    made = bench({("print", f"{GUI}/{AGENT}"): [answer]})
    status = made.controller.status()
    assert status.last_exit == 78
    assert status.pid is None
    assert "ended with 78" in status.detail


@pytest.mark.parametrize("word", ["true", "disabled"])
def test_a_service_switched_off_by_the_person_is_told_as_such(word: str, bench) -> None:
    """`print` hides it, `print-disabled` has it, in an older and a newer wording."""
    listing = Answer(0, f'disabled services = {{\n\t"{AGENT}" => {word}\n}}', "")
    made = bench({("print-disabled", GUI): [listing]})
    status = made.controller.status()
    assert status.standing is Standing.DISABLED
    assert "mlxd service install" in status.detail


def test_another_services_switch_is_not_ours(bench) -> None:
    """The label is matched as it is: its dots are no wildcards, and ours is not its suffix."""
    listing = Answer(0, '\t"ioxmlxdxagent" => disabled\n\t"x.io.mlxd.agent" => disabled\n', "")
    made = bench({("print-disabled",): [listing]})
    assert made.controller.status().standing is Standing.NOT_LOADED
