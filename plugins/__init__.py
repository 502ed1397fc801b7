"""The contract for tasks and runtimes, and the ones that ship with mlxd. Imports jobs, never daemon."""
