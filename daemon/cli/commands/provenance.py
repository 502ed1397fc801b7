"""`mlxd verify|rerun`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.console import Exit, absolute, note, write, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport, job_path

if TYPE_CHECKING:
    from daemon.cli.verifying import Resolve
    from daemon.paths import Home

_SAID = {
    "same": "as it was",
    "changed": "CHANGED",
    "missing": "GONE",
    "unreadable": "CANNOT BE READ",
    "none": "not recorded",
}


@click.command(short_help="Check a result against what made it.")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def verify(session: Session, /, *, file: str, as_json: bool) -> int:
    """Say whether FILE, its input and the models that made it are as they were; exit with 1 if one is not.

    It reads the .mlxd.json beside FILE and needs no daemon.
    """
    from daemon.cli.verifying import verify as check

    found = check(absolute(file), _resolver(session.home))
    if as_json:
        write_json(found)
    else:
        _draw(found)
    return Exit.OK if found["ok"] else Exit.FAILED


@click.command(short_help="Do again what made a result.")
@click.argument("file")
@click.option("-o", "--output", metavar="DIR", help="Where the new result goes; default: beside the first one.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the end; print the result.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="With --wait: stop waiting (124).")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_obj
def rerun(session: Session, /, *, file: str, output: str | None, timeout: float | None, **options: bool) -> int:
    """Submit the job that made FILE once more: same task, input, parameters and model.

    Where nothing is drawn by chance (temperature 0, or a seed) the same bytes come out.
    """
    from daemon.cli.repeating import again
    from jobs.provenance import find

    _, made, _ = find(absolute(file))
    transport = Transport(session.home.socket)
    params = made.params if made.params is not None else transport.ask("GET", job_path(made.job))["params"]
    config = transport.ask("GET", "/v1/config")
    body = again(made, params, config, directory=absolute(output) if output is not None else None)
    job = transport.ask("POST", "/v1/jobs", body=body)
    if options["wait"] or timeout is not None:
        from daemon.cli.waiting import finish

        return finish(transport, job, timeout=timeout, as_json=options["as_json"])
    if options["as_json"]:
        write_json(job)
    else:
        write(job["id"])
    return Exit.OK


def _resolver(home: Home) -> Resolve:
    from daemon.config.model import Config, load
    from daemon.models.references import ModelResolver
    from jobs.errors import ConfigError

    try:
        config = load(home.config, home=home)
    except ConfigError:  # a mistake in it is not what was asked about
        config = Config()
    return ModelResolver(aliases=config.models, defaults=config.defaults.refs())


def _draw(found: dict[str, Any]) -> None:
    from daemon.cli.display import details

    details(
        {
            "file": f"{found['file']}: {_SAID[found['output']['state']]}",
            "input": f"{found['input']['path']}: {_SAID[found['input']['state']]}" if found["input"]["path"] else "",
            "models": [
                f"{one['model']} ({one['revision'][:19]}): {_SAID[one['state']]}"
                + (f" ({one['why']})" if "why" in one else "")
                for one in found["models"]
            ],
            "made by": f"{found['task']}, job {found['job']}, {found['done']}",
            "told by": found["provenance"],
        }
    )
    for name, version in found["versions"].items():
        note(f"{name} was {version['then']} and is {version['now'] or 'not installed'}: a rerun may differ.")
