"""A home under attack has what a person's has: the launch agent by mlxd's own code, a plugin, a configuration."""

from __future__ import annotations

import plistlib
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from torture.home import MODELS, TortureHome

from daemon.config.model import load
from daemon.models.safety import check_model_folder
from launchd.schema import problems
from plugins.manager import PluginManager


@pytest.fixture
def folder():
    """A folder with a short path."""
    path = Path(tempfile.mkdtemp(prefix="ml-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def test_the_property_list_is_the_programs(folder):
    """It passes the program's own check, names the launcher that `mlxd service install` writes, and fits the home."""
    home = TortureHome(folder, config="drain_seconds = 60")
    described = plistlib.loads(home.plist.read_bytes())
    assert problems(described, file_name=home.plist.name, drain_seconds=60) == []
    launcher = Path(described["ProgramArguments"][0])
    assert launcher.read_text().startswith("#!/bin/sh\n# Written by `mlxd service install`")
    assert described["Sockets"]["http"]["SockPathName"] == str(home.socket)
    assert described["EnvironmentVariables"]["MLXD_HOME"] == str(folder)
    assert described["ExitTimeOut"] == 75  # by the drain of the configuration


def test_the_configuration_holds_and_the_stub_models_pass_the_checks(folder):
    """What a row writes wins over the aliases that are added, and each alias is a folder that may be loaded."""
    home = TortureHome(folder, config='drain_seconds = 7\n[models."stub:b"]\npath = "/elsewhere"\nruntime = "stub"\n')
    config = load(home.paths.config, home=home.paths, environ={})
    assert config.drain_seconds == 7
    assert set(MODELS) == set(config.models)
    assert config.models["stub:b"].path == "/elsewhere"
    check_model_folder(Path(config.models["stub:a"].path))


def test_the_stub_is_a_plugin_without_fault(folder):
    """Task and runtime are offered under their names."""
    manager = PluginManager(files=TortureHome(folder).paths.plugins, entry_points=False)
    manager.load()
    assert "stub" in manager.tasks
    assert "stub" in manager.runtimes
    assert [one.problem for one in manager.status() if one.problem] == []


def test_settle_waits_for_jobs_that_wait_or_run(folder):
    """Blocked and ended jobs are not waited for; without a ledger nothing waits."""
    home = TortureHome(folder)
    assert home.settle(0.0)
    with closing(sqlite3.connect(home.ledger)) as connection, connection:
        connection.execute("CREATE TABLE jobs (state)")
        connection.executemany("INSERT INTO jobs VALUES (?)", [("succeeded",), ("blocked",), ("running",), ("queued",)])
    assert home.unfinished() == 2
    assert not home.settle(0.0)
    with closing(sqlite3.connect(home.ledger)) as connection, connection:
        connection.execute("DELETE FROM jobs WHERE state IN ('running', 'queued')")
    assert home.settle(0.0)
