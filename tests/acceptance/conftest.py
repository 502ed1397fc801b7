"""A spawned daemon in a home of its own, used the way people use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes_acceptance import SpawnedDaemon


@pytest.fixture(name="daemon")
def _daemon() -> Iterator[SpawnedDaemon]:
    daemon = SpawnedDaemon()
    yield daemon
    daemon.close()


@pytest.fixture(name="shared", scope="session")
def _shared() -> Iterator[SpawnedDaemon]:
    """One daemon for all tests that only ask it something: its models stay loaded from one test to the next."""
    daemon = SpawnedDaemon()
    daemon.start()
    yield daemon
    daemon.close()
