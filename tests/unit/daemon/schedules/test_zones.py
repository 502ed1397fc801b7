"""Time zones by name, and the machine's own."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from zoneinfo import TZPATH

import pytest

from daemon.schedules.zones import local_zone, zone, zone_name

BERLIN = next((path for path in (Path(root, "Europe/Berlin") for root in TZPATH) if path.exists()), None)


@pytest.mark.parametrize("name", ["Mars/Base", "", "Europe", "../../etc/passwd", "/etc/localtime"])
def test_unknown_zones_are_refused(name: str) -> None:
    """A name that is none, a folder of the database, and a path out of it."""
    with pytest.raises(ValueError, match="a time zone such as"):
        zone(name)


def test_the_environment_comes_first(tmp_path: Path) -> None:
    """TZ wins if it names a zone; nonsense in it, and no file, mean UTC."""
    assert zone_name(local_zone({"TZ": "Asia/Tokyo"}, tmp_path / "none")) == "Asia/Tokyo"
    assert zone_name(local_zone({"TZ": ":Europe/Berlin"}, tmp_path / "none")) == "Europe/Berlin"
    assert local_zone({"TZ": "nonsense"}, tmp_path / "none") is UTC


@pytest.mark.skipif(BERLIN is None, reason="no time zone files on this machine")
def test_the_machines_own(tmp_path: Path) -> None:
    """The link /etc/localtime names the zone; a copy instead of a link still tells the time."""
    root = tmp_path / "var" / "zoneinfo" / "Europe"
    root.mkdir(parents=True)
    (root / "Berlin").write_bytes(BERLIN.read_bytes())
    (tmp_path / "link").symlink_to(root / "Berlin")
    (tmp_path / "copy").write_bytes(BERLIN.read_bytes())

    assert zone_name(local_zone({}, tmp_path / "link")) == "Europe/Berlin"
    assert zone_name(local_zone({}, tmp_path / "copy")) == "localtime"
    assert zone_name(zone(None))
