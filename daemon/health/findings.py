"""What `mlxd doctor` found: values, nothing else."""

from __future__ import annotations

from enum import StrEnum

from jobs.model import Frozen


class Grade(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    #: It works, but may surprise.
    NOTE = "note"
    #: Something will not work.
    PROBLEM = "problem"


class Finding(Frozen):
    """One thing that was looked at."""

    #: Stable name of what was looked at, for programs: "python", "inbox", ...
    check: str
    grade: Grade
    #: A sentence: what was found.
    message: str
    #: What to do about it; empty if nothing.
    advice: str = ""
    #: Stable name of the fault, for programs: "folder-denied", "service-stale", ...; empty where there is none.
    fault: str = ""


def ok(check: str, message: str) -> Finding:
    """Say that all is well."""
    return Finding(check=check, grade=Grade.OK, message=message)


def note(check: str, message: str, advice: str = "", *, fault: str = "") -> Finding:
    """Say what may surprise."""
    return Finding(check=check, grade=Grade.NOTE, message=message, advice=advice, fault=fault)


def problem(check: str, message: str, advice: str, *, fault: str = "") -> Finding:
    """Say what will not work, and what to do; the fault is called *fault*, or as the check."""
    return Finding(check=check, grade=Grade.PROBLEM, message=message, advice=advice, fault=fault or check)
