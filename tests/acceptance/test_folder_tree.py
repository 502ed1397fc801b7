"""A tree of folders with recipes and a daemon that is killed: every file is done exactly once, and comes back."""

from __future__ import annotations

import pytest
from fakes_acceptance import SpawnedDaemon
from fakes_tree import Tree


def test_a_tree_of_files_survives_a_kill(daemon: SpawnedDaemon) -> None:
    """60 mixed files, half dropped before kill -9 and half while it is dead: each is done once, as its folder says.

    Then a dry run tells that all is done, and a job that deleted its input gives it back.
    """
    tree = Tree(daemon)
    daemon.start()
    dropped = tree.drop(30)
    daemon.until(lambda: daemon.client.jobs(source="folder"), "the first job")
    daemon.kill()
    tree.noise()
    dropped += tree.drop(30, first=30)
    daemon.start()
    tree.check(dropped)

    trial = daemon.json("folders", "test", str(tree.root))
    assert trial["would_run"] == 0, trial
    taken = next(one for one in dropped if one.relative.startswith("own/"))
    detail = str(tree.root / taken.relative)
    job = next(job for job in daemon.client.jobs(source="folder", limit=100) if job.source.detail == detail)
    report = daemon.json("revert", job.id)
    assert report["input"]["now"] == detail
    assert (tree.root / taken.relative).is_file()
    assert not any(output.path.exists() for output in job.outputs)
    daemon.ok("folders", "rescan")
    assert daemon.json("folders", "test", detail)["files"][0]["job"] == job.id


@pytest.mark.slow
def test_five_hundred_files_and_two_kills(daemon: SpawnedDaemon) -> None:
    """As above, with files that keep coming while it is killed twice."""
    tree = Tree(daemon)
    daemon.start()
    dropped = []
    for some in (166, 167):
        dropped += tree.drop(some, first=len(dropped))
        enough = len(dropped) - 100
        daemon.until(lambda least=enough: len(daemon.client.jobs(source="folder", limit=1000)) > least, "jobs")
        daemon.kill()
        daemon.start()
    dropped += tree.drop(500 - len(dropped), first=len(dropped))
    tree.noise()
    tree.check(dropped)
