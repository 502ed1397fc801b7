"""`mlxd doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.console import Exit, note, write_json
from daemon.cli.main import Session

if TYPE_CHECKING:
    from daemon.config.model import Config
    from daemon.health.findings import Finding
    from daemon.paths import Home
    from jobs.errors import MlxdError
    from launchd.contract import ServiceStatus


@click.command(short_help="Find out what is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
@click.pass_obj
def doctor(session: Session, /, *, as_json: bool) -> int:
    """Look at everything mlxd needs and say what is wrong and what to do; exit with 1 if something is."""
    from daemon.health.doctor import healthy

    findings = _examine(session.home)
    if as_json:
        write_json([finding.model_dump(mode="json") for finding in findings])
    else:
        _draw(findings)
    return Exit.OK if healthy(findings) else Exit.FAILED


def _examine(home: Home) -> list[Finding]:
    from daemon.cli.client import Client
    from daemon.health.doctor import examine
    from jobs.errors import MlxdError

    config, client = _config(home), Client(home.socket)
    told: dict[str, Any] = {}
    try:
        told = {"health": client.health(), "folders": client.folders(), "plugins": client.plugins()}
    except MlxdError as error:
        told = {"health": error}
    return examine(home, config, find_model=_finder(config), service=_service(home), **told)


def _config(home: Home) -> Config | MlxdError:
    from daemon.config.model import load
    from jobs.errors import MlxdError

    try:
        return load(home.config, home=home)
    except MlxdError as error:
        return error


def _finder(config: Config | MlxdError) -> Any:
    from daemon.models.references import ModelResolver
    from jobs.errors import MlxdError

    if isinstance(config, MlxdError):
        return None
    resolver = ModelResolver(aliases=config.models, defaults=config.defaults.refs())
    runtimes = {ref: runtime for runtime, ref in config.defaults.refs().items()}
    return lambda ref: resolver(ref, runtimes.get(ref, "lm"))


def _service(home: Home) -> ServiceStatus | None:
    from daemon.installation import manager
    from jobs.errors import MlxdError

    try:
        return manager(home).status()
    except MlxdError:
        return None


def _draw(findings: list[Finding]) -> None:
    from daemon.cli.display import table

    table(["", "what", "found"], [(str(one.grade), one.check, one.message) for one in findings])
    for one in findings:
        if one.advice:
            note(f"\n{one.check}: {one.message}\n  {one.advice}")
