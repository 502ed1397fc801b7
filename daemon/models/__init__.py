"""Resident models: references, runner processes, and who stays."""
