"""Schedules: jobs that come at their time."""
