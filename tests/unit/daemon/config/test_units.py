"""Durations and sizes as people write them."""

from __future__ import annotations

import math

import pytest

from daemon.config import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("90", 90),
        (" 5M ", 300),
        (0, 0),
        (2.5, 2.5),
    ],
)
def test_a_duration_is_understood(text: object, seconds: float) -> None:
    """Every way of writing a duration that the document names gives its seconds."""
    assert units.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5 mins", "m", "5m3", "h1", "-5m", -1, True, None, math.inf, math.nan, [5], "1e3", "5µs"]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """Anything else, negative times included, is refused with an example of what is wanted."""
    with pytest.raises(ValueError, match='"1h30m"'):
        units.seconds(text)


@pytest.mark.parametrize("value", [-1, "-2", "-5m", -0.5])
def test_any_negative_keep_alive_means_for_ever(value: object) -> None:
    """Negative keep-alives all mean that the model stays."""
    assert units.keep_alive(value) == units.FOR_EVER


def test_a_keep_alive_that_is_no_duration_is_refused() -> None:
    """The message says what 0 and -1 mean."""
    with pytest.raises(ValueError, match="for ever"):
        units.keep_alive("for ever")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 500_000_000),
        ("12GB", 12_000_000_000),
        ("4GiB", 4 << 30),
        ("1.5k", 1500),
        ("2 tb", 2 * 10**12),
        ("7", 7),
        ("7B", 7),
        (0, 0),
    ],
)
def test_a_size_is_understood(text: object, size: int) -> None:
    """Decimal and binary units give their bytes."""
    assert units.size(text) == size


@pytest.mark.parametrize("text", ["", "big", "-1GB", -1, True, 1.5, "60%", "GB"])
def test_what_is_no_size_is_refused(text: object) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ValueError, match="12GB"):
        units.size(text)


def test_a_share_of_the_memory_is_counted_from_the_machine() -> None:
    """A budget in per cent depends on the machine, one in bytes does not."""
    assert units.budget_bytes(units.budget("60%"), total=1000) == 600
    assert units.budget_bytes(units.budget("12GB"), total=1000) == 12_000_000_000


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "%", "half", None])
def test_an_impossible_share_is_refused(text: object) -> None:
    """A share lies above 0 and at most at 100 per cent."""
    with pytest.raises(ValueError, match="60%"):
        units.budget(text)


def test_the_machine_has_memory() -> None:
    """The physical memory is asked from the system."""
    assert units.physical_memory() > 100 << 20
