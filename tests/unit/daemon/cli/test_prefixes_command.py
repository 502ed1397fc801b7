"""`mlxd models prefixes`: how much of prompts is kept, and away with it."""

from __future__ import annotations

import json

from daemon.cli.main import run
from plugins.lm_prefix_disk_folder import PrefixFolder


def test_it_is_told_and_deleted_without_a_daemon(tmp_path, monkeypatch, capsys):
    """The numbers are those of the folder, and after --clear there is nothing left."""
    monkeypatch.setenv("MLXD_HOME", str(tmp_path))
    folder = PrefixFolder(tmp_path / "cache" / "prefixes", 1000, left_free=0)
    file, part = folder.reserve("1" * 32, 500)
    with file:
        folder.publish(part)

    assert run(["models", "prefixes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": str(folder.root),
        "bytes": 500,
        "files": 1,
        "cleared": False,
    }
    assert run(["models", "prefixes", "--clear"]) == 0
    assert "1 file" in capsys.readouterr().out
    assert folder.held().files == 0
