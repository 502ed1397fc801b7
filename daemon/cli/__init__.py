"""The `mlxd` command and the client it stands on."""
