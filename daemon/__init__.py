"""The running program: knows every other package, is known by none."""
