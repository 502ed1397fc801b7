"""`mlxd models`."""

from __future__ import annotations

import click

from daemon.cli.console import Exit, note, write, write_json
from daemon.cli.main import Session
from daemon.cli.transport import Transport

#: Seconds that loading a model may take.
_LOADING = 3600.0


@click.group(invoke_without_command=True, short_help="List, load, unload and fetch models.")
@click.option("--json", "as_json", is_flag=True, help="Without a command: print a JSON list.")
@click.pass_context
def models(ctx: click.Context, *, as_json: bool) -> int | None:
    """List, load, unload and fetch models; without a command, list them."""
    return ctx.invoke(list_models, as_json=as_json) if ctx.invoked_subcommand is None else None


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def list_models(session: Session, /, *, as_json: bool = False) -> int:
    """List the models that are configured or resident."""
    found = Transport(session.home.socket).ask("GET", "/v1/models")["models"]
    if as_json:
        write_json(found)
        return Exit.OK
    from daemon.cli.display import ago, duration, size, table

    table(
        ["model", "runtime", "state", "memory", "in use", "last used", "unloads after", ""],
        [
            (
                model["ref"],
                model["runtime"],
                model["state"],
                size(model["memory_bytes"] or model["estimate_bytes"]),
                model["leases"] or "",
                ago(model["last_used"]),
                "never" if model["pinned"] or model["keep_alive_s"] == -1 else duration(model["keep_alive_s"]),
                model["problem"] or "",
            )
            for model in found
        ],
    )
    return Exit.OK


@models.command()
@click.option("--clear", is_flag=True, help="Delete all of it; what is in use is computed again.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.pass_obj
def prefixes(session: Session, /, *, clear: bool, as_json: bool) -> int:
    """Say how much of prompts' beginnings is kept on the disk, or delete it. Needs no daemon."""
    from daemon.cli.display import size
    from plugins.lm_prefix_disk_folder import PrefixFolder

    folder = PrefixFolder(session.home.prefixes, 0)
    held = folder.clear() if clear else folder.held()
    if as_json:
        write_json({"path": str(folder.root), "bytes": held.bytes, "files": held.files, "cleared": clear})
    else:
        what = f"{size(held.bytes)} in {held.files} file{'' if held.files == 1 else 's'}"
        write(f"Deleted {what} from {folder.root}." if clear else f"{what} in {folder.root}.")
    return Exit.OK


@models.command()
@click.argument("model")
@click.option("--runtime", help="lm, whisper, ...; default: by the model.")
@click.option("--pin/--no-pin", default=None, help="Keep it loaded until it is unloaded by hand.")
@click.option("--json", "as_json", is_flag=True, help="Print the model as JSON.")
@click.pass_obj
def load(session: Session, /, *, model: str, runtime: str | None, pin: bool | None, as_json: bool) -> int:
    """Load a model now, and return when it is ready."""
    body = {"ref": model, "runtime": runtime, "pin": pin}
    loaded = Transport(session.home.socket).ask("POST", "/v1/models/load", body=body, patience=_LOADING)
    if as_json:
        write_json(loaded)
    else:
        write(f"{loaded['ref']} {loaded['state']}")
    return Exit.OK


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_obj
def unload(session: Session, /, *, model: str, as_json: bool) -> int:
    """Unload a model as soon as nobody uses it."""
    answer = Transport(session.home.socket).ask("POST", "/v1/models/unload", body={"ref": model}, patience=_LOADING)
    if as_json:
        write_json(answer)
    else:
        note(f"{model} {'is unloaded' if answer['unloaded'] else 'was not loaded'}.")
    return Exit.OK


@models.command()
@click.argument("model")
@click.option("--no-wait", is_flag=True, help="Print the job's id and return.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_obj
def pull(session: Session, /, *, model: str, no_wait: bool, as_json: bool) -> int:
    """Fetch a model from the hub to this machine."""
    transport = Transport(session.home.socket)
    job = transport.ask("POST", "/v1/models/pull", body={"ref": model})
    if no_wait:
        write_json(job) if as_json else write(job["id"])
        return Exit.OK
    from daemon.cli.waiting import finish

    return finish(transport, job, timeout=None, as_json=as_json)
