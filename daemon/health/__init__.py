"""How the daemon is: doctor and metrics."""
