"""`mlxd completion`."""

from __future__ import annotations

import click

from daemon.cli.console import Exit, write

_HOW = """
Put the script where your shell looks for it:

\b
bash: mlxd completion bash > ~/.local/share/bash-completion/completions/mlxd
zsh:  mlxd completion zsh > "${fpath[1]}/_mlxd"
fish: mlxd completion fish > ~/.config/fish/completions/mlxd.fish
"""


@click.command(short_help="Print the shell's completion script.", epilog=_HOW)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> int:
    """Print the completion script for SHELL."""
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    # Not by `get_completion_class`: bash's is asked for its version by starting it, only to print a template.
    template = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell].source_template
    write(template % {"complete_func": "_mlxd_completion", "complete_var": "_MLXD_COMPLETE", "prog_name": "mlxd"})
    return Exit.OK
