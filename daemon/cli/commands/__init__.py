"""The subcommands of `mlxd`, imported when they are called."""
