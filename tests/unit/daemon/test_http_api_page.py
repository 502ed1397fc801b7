"""The documentation of the HTTP API says what the code does."""

import re
from pathlib import Path

import pytest
from fakes_socket import FakeService

from daemon.api.app import create_app
from daemon.api.front import MAX_BODY
from daemon.api.problems import ERROR_STATUS
from daemon.api.submission import MAX_DEPTH
from daemon.cli.console import Exit

PAGE = Path(__file__).parents[3] / "docs" / "http-api.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="tested from an installed wheel, without the documentation")


def test_every_route_is_on_the_page():
    """Each path of the schema is documented with its method."""
    page = PAGE.read_text().replace("{which}", "{which}").replace("{id}", "{job_id}")
    for path, methods in create_app(FakeService()).openapi()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page, path


def test_every_error_is_on_the_page_with_its_status():
    """Each type stands in the row of its status."""
    rows = {}
    for statuses, text in re.findall(r"^\| ([\d, ]+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE):
        rows |= dict.fromkeys(map(int, statuses.split(",")), text)
    for kind, status in ERROR_STATUS.items():
        assert f"`{kind.slug}`" in rows[status], kind


def test_numbers_on_the_page_are_true():
    """Limits and exit statuses."""
    page = PAGE.read_text()
    assert f"at most {MAX_BODY >> 20} MiB" in page
    assert f"at most {MAX_DEPTH} levels" in page
    section = page[page.index("exit statuses") :]
    assert {int(number) for number in re.findall(r"\b(\d+) \(", section)} == set(Exit)
