"""The `mlxd` command. Each subcommand is imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from daemon.cli.console import EXIT_STATUSES, Exit, complain, exit_for_error, is_text, legible
from daemon.paths import Home, find_home
from jobs.errors import MlxdError

#: Name, module below `daemon.cli.commands`, what help says. The order is the one people meet them in.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("demo", "Play the demo with the embedded models."),
    "run": ("run", "Run the daemon here, in the foreground."),
    "submit": ("submit", "Submit a job."),
    "run-task": ("run_task", "Run a task on files or text and print only its result."),
    "jobs": ("jobs", "List jobs."),
    "show": ("jobs", "Show one job."),
    "wait": ("jobs", "Wait for the end of jobs."),
    "cancel": ("jobs", "Take jobs back."),
    "retry": ("jobs", "Try jobs again."),
    "verify": ("provenance", "Check a result against what made it."),
    "rerun": ("provenance", "Do again what made a result."),
    "revert": ("revert", "Take a job back: its input returns, its outputs go to the trash."),
    "logs": ("logs", "Show the daemon's log."),
    "models": ("models", "List, load, unload and fetch models."),
    "folders": ("folders", "List, try out, pause and resume the watched folders, or look through them now."),
    "schedule": ("schedule", "Jobs that come at their time."),
    "plugins": ("plugins", "List plugins and the tasks they offer."),
    "config": ("config", "Check or show the configuration."),
    "reload": ("admin", "Make the daemon read its configuration again."),
    "stop": ("admin", "Make the daemon finish and stop."),
    "status": ("admin", "Show the daemon at a glance."),
    "doctor": ("doctor", "Find out what is wrong."),
    "service": ("service", "Install, start and stop mlxd as a background service."),
    "shortcuts": ("shortcuts", "Install Quick Actions, Services and Shortcuts on a Mac."),
    "selftest": ("selftest", "Check on this machine what mlxd relies on."),
    "completion": ("completion", "Print the shell's completion script."),
}


@dataclass
class Session:
    """What a command gets (``@click.pass_obj``)."""

    home: Home


class LazyGroup(click.Group):
    """Knows its commands' names and one line of help of each without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"daemon.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Exit status: {EXIT_STATUSES}.",
)
@click.option("--home", metavar="DIR", help="Keep everything in this folder (same as MLXD_HOME).")
@click.version_option(package_name="mlxd", prog_name="mlxd")
@click.pass_context
def mlxd(ctx: click.Context, home: str | None) -> None:
    """Keep MLX models resident and run jobs on them, in the background."""
    if home is not None:
        # In the environment, so that what we start lives in the same home.
        os.environ["MLXD_HOME"] = str(Path(home).expanduser().absolute())
    ctx.obj = Session(home=find_home())


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command line *arguments* and return the exit status; whatever goes wrong is one plain sentence."""
    try:
        _refuse_what_is_no_text(arguments)
        status: Any = mlxd.main(args=list(arguments), prog_name="mlxd", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except MlxdError as error:
        complain(error.message)
        return exit_for_error(error)
    except BrokenPipeError:  # `mlxd jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror or error}.")
        return Exit.FAILED
    return int(status) if isinstance(status, int) else Exit.OK


def _refuse_what_is_no_text(arguments: Sequence[str]) -> None:
    """Raise `click.UsageError` for an argument that JSON cannot carry: on Linux a file's name may be any bytes."""
    for argument in arguments:
        if not is_text(argument):
            raise click.UsageError(f"{legible(argument)} is not valid UTF-8. Rename the file, or retype the text.")
