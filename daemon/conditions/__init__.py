"""What the machine is doing besides, and whether the jobs of a lane may run meanwhile."""
