"""`docs/api.md` says what the socket serves: every route, every error, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from fakes_socket import FakeService

from daemon.api import create_app
from daemon.problems import ERROR_STATUS

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text()


def test_every_route_is_documented() -> None:
    """The requests in the tables are exactly those of the OpenAPI schema."""
    schema = create_app(FakeService()).openapi()
    served = {(verb.upper(), path) for path, verbs in schema["paths"].items() for verb in verbs}
    told = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) (/[^`?]*)` \|", PAGE, re.MULTILINE))
    assert told == served


def test_every_error_is_documented_with_its_status() -> None:
    """Each error's stable name stands in the row of the status it answers with."""
    rows = dict(re.findall(r"^\| (\d{3}) \| (.+) \|$", PAGE, re.MULTILINE))
    for error, status in ERROR_STATUS.items():
        assert f"`{error.slug}`" in rows.get(str(status), ""), (error.slug, status)
