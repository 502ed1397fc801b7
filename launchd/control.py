"""launchd, driven by launchctl in the one order that works.

Installing is: files, ``enable``, ``bootout``, wait until the service is unknown, ``bootstrap``, ``kickstart``.

* ``bootout`` returns while the process is still draining, and a ``bootstrap`` over a living job silently keeps the old
  definition: so the code polls ``print`` until it answers 113.
* An uninstall leaves the "switched off" record behind: so every start begins with ``enable``.
* ``load`` and ``unload`` always answer 0: never used.
* Without a session at the screen (SSH) ``gui/UID`` does not exist: then ``user/UID`` serves.
* What ``print`` writes is no interface. Whatever cannot be read is "cannot tell", never "not running".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from launchd import refusals
from launchd.agent import AgentSpec, render
from launchd.contract import Answer, Run, ServiceFailure, ServiceStatus, Standing, run_command
from launchd.files import launcher_text, private_folder, remove, write_file

# bootstrap answers 5, 36 or 37 while launchd is busy with the job's former life; six tries span about 15 s.
_RETRY_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
_POLL_S: Final = 0.25
_POLL_MARGIN_S: Final = 15.0  # beyond ExitTimeOut, for launchd's own work

_PID: Final = re.compile(r"^\s*pid = (\d+)$", re.MULTILINE)
_STATE: Final = re.compile(r"^\s*state = ([a-z ]+)$", re.MULTILINE)
_LAST_EXIT: Final = re.compile(r"^\s*last exit code = (-?\d+)", re.MULTILINE)


class ServiceController:
    """The launch agent of one user.

    *agents* is ``~/Library/LaunchAgents``; *run*, *pause* and *clock* are the ways out.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        agents: Path,
        uid: int,
        run: Run = run_command,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._uid = uid
        self._run = run
        self._pause = pause
        self._clock = clock
        #: The property list's path.
        self.definition = agents / f"{spec.label}.plist"

    def install(self) -> ServiceStatus:
        """Write launcher and property list, replace whatever launchd holds, and start."""
        domain = self._domain()
        self._write(headless=domain.startswith("user/"))
        self._load(domain)
        return self.status()

    def uninstall(self) -> ServiceStatus:
        """Stop the service and remove its files."""
        self._unload()
        remove(self.definition)
        remove(self._spec.launcher)
        return self.status()

    def start(self) -> ServiceStatus:
        """Have the installed service running."""
        self._require_definition()
        domain = self._domain()
        if self._print(domain).code == 0:
            self._do("kickstart", "-p", f"{domain}/{self._spec.label}", doing="start the service")
        else:
            self._load(domain)
        return self.status()

    def stop(self) -> ServiceStatus:
        """Take the service out of launchd: as long as launchd holds its socket, any client would start it again."""
        self._unload()
        return self.status()

    def restart(self) -> ServiceStatus:
        """Stop, wait for the drain, start."""
        self._require_definition()
        self._load(self._domain())
        return self.status()

    def status(self) -> ServiceStatus:
        """Say where the service stands, as far as launchd tells."""
        installed = self.definition.exists()
        answers = {domain: self._print(domain) for domain in self._domains()}
        for domain, answer in answers.items():
            if answer.code == 0:
                return _parsed(answer.out, domain=domain, definition=self.definition if installed else None)
        if not installed and refusals.UNKNOWN_SERVICE in [answer.code for answer in answers.values()]:
            return self._absent(installed=False)
        if any(answer.code != refusals.UNKNOWN_SERVICE for answer in answers.values()):
            said = " and ".join(f"{answer.code} for {domain}" for domain, answer in answers.items())
            detail = f"Cannot tell: launchctl answered {said} (112 means that nobody is logged in at the screen)."
            return ServiceStatus(Standing.UNKNOWN, detail, definition=self.definition if installed else None)
        return self._absent(installed=installed)

    def _absent(self, *, installed: bool) -> ServiceStatus:
        if not installed:
            return ServiceStatus(Standing.NOT_INSTALLED, "Not installed. Install it with: mlxd service install")
        if self._switched_off():
            return ServiceStatus(
                Standing.DISABLED,
                "Installed, but switched off. Switch it on again with: mlxd service install",
                definition=self.definition,
            )
        return ServiceStatus(
            Standing.NOT_LOADED,
            "Installed, but launchd does not know it until the next login. It was stopped, or 'mlxd-agent' was "
            "switched off under Login Items. Start it with: mlxd service start",
            definition=self.definition,
        )

    def _switched_off(self) -> bool:
        # `print` does not show it; older systems write "true", newer ones "disabled".
        form = re.compile(rf'"{re.escape(self._spec.label)}" => (?:true|disabled)')
        answers = [self._run(["launchctl", "print-disabled", domain]) for domain in self._domains()]
        return any(answer.code == 0 and form.search(answer.out) for answer in answers)

    def _write(self, *, headless: bool) -> None:
        spec = replace(self._spec, headless=headless)
        try:
            data = render(spec)
        except ValueError as error:
            raise ServiceFailure(str(error)) from error
        private_folder(spec.state, uid=self._uid)  # launchd binds the socket there, so it must be ours before
        private_folder(spec.logs, uid=self._uid)  # launchd opens the log files there, or silently does not start
        write_file(spec.launcher, launcher_text(spec.program).encode(), mode=0o700)
        write_file(self.definition, data, mode=0o644)

    def _load(self, domain: str) -> None:
        service = f"{domain}/{self._spec.label}"
        self._do("enable", service, doing="switch the service on")
        self._unload()
        self._bootstrap(domain)
        self._do("kickstart", "-p", service, doing="start the service")

    def _bootstrap(self, domain: str) -> None:
        doing = "hand the service to launchd"
        answer = self._launchctl("bootstrap", domain, str(self.definition))
        if answer.code == refusals.EXISTS:  # somebody loaded it meanwhile: launchd would keep the old definition
            self._unload()
            answer = self._launchctl("bootstrap", domain, str(self.definition))
        if answer.code:
            raise _failure(answer, doing)

    def _unload(self) -> None:
        for domain in self._domains():
            self._bootout(domain)

    def _bootout(self, domain: str) -> None:
        if self._print(domain).code in {refusals.UNKNOWN_SERVICE, refusals.NO_SUCH_DOMAIN}:
            return
        answer = self._run(["launchctl", "bootout", f"{domain}/{self._spec.label}"])
        gone = {refusals.NO_SUCH_PROCESS, refusals.UNKNOWN_SERVICE, refusals.NO_SUCH_DOMAIN}
        if answer.code not in {0, *gone, *refusals.IN_PROGRESS}:
            raise _failure(answer, "stop the service")
        self._await_absence(domain)

    def _await_absence(self, domain: str) -> None:
        patience = self._spec.stop_seconds + _POLL_MARGIN_S
        deadline = self._clock() + patience
        while self._print(domain).code not in {refusals.UNKNOWN_SERVICE, refusals.NO_SUCH_DOMAIN}:
            if self._clock() >= deadline:
                raise ServiceFailure(
                    f"The service did not end within {patience:.0f} s. Look for it with: mlxd service status"
                )
            self._pause(_POLL_S)

    def _domain(self) -> str:
        """Return the session to run in: the one at the screen, or without one the user's own."""
        screen, user = self._domains()
        return screen if self._run(["launchctl", "print", screen]).code == 0 else user

    def _domains(self) -> tuple[str, str]:
        return f"gui/{self._uid}", f"user/{self._uid}"

    def _print(self, domain: str) -> Answer:
        return self._run(["launchctl", "print", f"{domain}/{self._spec.label}"])

    def _do(self, *words: str, doing: str) -> None:
        answer = self._launchctl(*words)
        if answer.code:
            raise _failure(answer, doing)

    def _launchctl(self, *words: str) -> Answer:
        """Run launchctl, again and again while it answers that it is busy."""
        answer = self._run(["launchctl", *words])
        for pause in _RETRY_PAUSES_S:
            if answer.code not in refusals.PASSING:
                break
            self._pause(pause)
            answer = self._run(["launchctl", *words])
        return answer

    def _require_definition(self) -> None:
        if not self.definition.exists():
            raise ServiceFailure("The service is not installed. Install it with: mlxd service install")


def _failure(answer: Answer, doing: str) -> ServiceFailure:
    return ServiceFailure(refusals.sentence(answer.code, doing=doing, said=answer.err or answer.out), code=answer.code)


def _parsed(text: str, *, domain: str, definition: Path | None) -> ServiceStatus:
    """Read what ``launchctl print`` wrote; a line that is missing or new leads to "cannot tell"."""
    pid, state, last = _PID.search(text), _STATE.search(text), _LAST_EXIT.search(text)
    last_exit = int(last[1]) if last else None
    if pid is not None:
        return ServiceStatus(Standing.RUNNING, f"Running in {domain}.", int(pid[1]), last_exit, definition)
    if state is None or state[1] == "running":
        detail = f"Cannot tell: launchd knows the service in {domain}, but says it in words that are new to mlxd."
        return ServiceStatus(Standing.UNKNOWN, detail, None, last_exit, definition)
    ended = "" if last_exit is None else f" The last process ended with {last_exit}."
    detail = f"Known to launchd in {domain}, no process at the moment ({state[1].strip()}).{ended}"
    return ServiceStatus(Standing.STOPPED, detail, None, last_exit, definition)
