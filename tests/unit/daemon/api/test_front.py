"""What a server of the HTTP interface answers with."""

from __future__ import annotations

import subprocess
import sys

from fakes_socket import FakeService

from daemon.api.front import front

SUBMISSION = {
    "path": "/v1/jobs",
    "method": "POST",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"400")],
}


def test_a_start_does_not_import_the_framework() -> None:
    """All that a daemon needs to take jobs is there without FastAPI, Starlette's responses and anyio."""
    asking = "import sys, daemon.process; print({'fastapi', 'starlette.responses', 'anyio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asking], capture_output=True, text=True, check=True, timeout=50)

    assert done.stdout == "set()\n"


def test_short_ways_know_the_bound_of_a_body() -> None:
    """What is too large for the application is not taken past it."""
    assert front(FakeService()).short.way(SUBMISSION) is not None
    assert front(FakeService(), max_body=399).short.way(SUBMISSION) is None
