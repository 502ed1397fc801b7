"""The checker finds every kind of broken promise; each is planted here, in a ledger made by hand."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from torture.checker import Verdict, check
from torture.history import History
from torture.stub import expected, expected_output


class World:
    """A history, a ledger and result folders that agree with each other until a test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.results, self.executions = folder / "results", folder / "executions.log"
        self.history = History(folder / "history.jsonl")
        self.ledger = folder / "ledger.sqlite3"
        with closing(sqlite3.connect(self.ledger)) as connection:
            connection.execute(
                "CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id, task, idempotency_key, parent, source_kind,"
                " source_detail, state, params, result, outputs)"
            )

    def job(self, job_id: str, key: str, *, outputs: int = 1, **columns) -> None:
        """Write down a job that succeeded."""
        folder = self.results / job_id
        folder.mkdir(parents=True)
        written = []
        for index in range(outputs):
            content = expected_output(key, index)
            (folder / f"stub-{index}.txt").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            written.append({"path": str(folder / f"stub-{index}.txt"), "size": len(content), "sha256": digest})
        row = {"id": job_id, "task": "stub", "idempotency_key": key, "source_kind": "api", "state": "succeeded"}
        row |= {"params": json.dumps({"key": key}), "result": json.dumps({"text": expected(key)})}
        row |= {"outputs": json.dumps(written), **columns}
        self.sql(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())  # noqa: S608

    def good(self) -> None:
        """Two jobs and a file, all as they should be."""
        self.job("j1", "a")
        self.job("j2", "b", outputs=2)
        self.history.ack("j1", "a")
        self.history.ack("j2", "b", outputs=2)
        self.job("j3", "f" * 64, source_kind="folder", source_detail="/in/f.txt", idempotency_key=None)
        self.history.file(Path("/in/f.txt"), "f" * 64)
        self.executions.write_text(
            "begin a 1 10 1.0\nstep a 1 10 1.1 0\nbegin a 2 11 2.0\nend a 2 11 2.1\n"
            "begin b 1 10 1.0\nload stub-a 0 9 1.0\n"
        )

    def sql(self, text: str, *values) -> None:
        with closing(sqlite3.connect(self.ledger)) as connection, connection:
            connection.execute(text, values)

    def check(self) -> Verdict:
        return check(self.history.path, ledger=self.ledger, executions=self.executions, results=self.results)


@pytest.fixture
def world(tmp_path):
    """A world in which every promise was kept."""
    made = World(tmp_path)
    made.good()
    yield made
    made.history.close()


def only(verdict: Verdict, kind: str) -> str:
    """Return the one sentence, which is about *kind*, and the only thing found."""
    counts = {name: getattr(verdict, name) for name in ("lost", "unexpected", "doubled", "wrong", "unfinished")}
    assert counts == dict.fromkeys(counts, 0) | {kind: 1}
    assert not verdict.clean
    (sentence,) = verdict.sentences
    return sentence


def test_nothing_is_found_where_nothing_is_wrong(world):
    """A world that kept its promises is clean, and all its promises were looked at."""
    verdict = world.check()
    assert verdict.clean
    assert verdict.sentences == []
    assert verdict.promised == 3


def test_a_row_that_is_gone_is_lost(world):
    """Acknowledged and not in the ledger."""
    world.sql("DELETE FROM jobs WHERE id = 'j1'")
    assert "a (j1) is not in the ledger" in only(world.check(), "lost")


def test_a_job_that_ended_otherwise_is_lost(world):
    """Acknowledged and failed, though nothing was wrong with it."""
    world.sql("UPDATE jobs SET state = 'failed' WHERE id = 'j1'")
    assert "is failed instead of succeeded" in only(world.check(), "lost")


def test_an_end_that_was_expected_is_right(world):
    """A poisoned job is to be quarantined, and is."""
    world.job("j4", "poison", state="quarantined", outputs=0)
    world.history.ack("j4", "poison", state="quarantined")
    assert world.check().clean


def test_a_file_that_is_gone_is_lost(world):
    """Succeeded says the ledger, and the output is not there."""
    (world.results / "j1" / "stub-0.txt").unlink()
    assert "an output of a (j1)" in only(world.check(), "lost")


def test_a_job_that_waits_is_unfinished(world):
    """After everything became still nothing may wait."""
    world.sql("UPDATE jobs SET state = 'running' WHERE id = 'j1'")
    assert "a (j1) is still running" in only(world.check(), "unfinished")


def test_a_job_that_nobody_submitted_is_unexpected(world):
    """It is in the ledger, and no client knows of it; a refused key counts as not submitted."""
    world.history.refused("c", "429")
    world.job("j4", "c")
    assert "j4" in only(world.check(), "unexpected")


def test_a_job_whose_answer_was_cut_off_may_be_there(world):
    """Nobody knows, so both are right."""
    world.history.unknown("c")
    assert world.check().clean
    world.job("j4", "c")
    assert world.check().clean


def test_a_key_that_became_two_jobs_is_doubled(world):
    """The client was told two different jobs for one key."""
    world.job("j4", "a", idempotency_key=None)
    world.history.ack("j4", "a")
    assert "the key a became the jobs j1, j4" in only(world.check(), "doubled")


def test_a_key_that_became_another_job_unseen_is_doubled(world):
    """The client was told one job for its key, and the ledger has another one."""
    world.sql("UPDATE jobs SET idempotency_key = NULL WHERE id = 'j1'")
    world.job("j4", "a")
    assert "the key a became the jobs j1, j4" in only(world.check(), "doubled")


def test_a_file_that_became_two_jobs_is_doubled(world):
    """One file, one job."""
    world.job("j4", "f" * 64, source_kind="folder", source_detail="/in/f.txt", idempotency_key=None)
    assert "/in/f.txt" in only(world.check(), "doubled")


def test_a_file_without_a_job_is_lost(world):
    """It was put there, and nothing came of it."""
    world.history.file(Path("/in/g.txt"), "0" * 64)
    assert "/in/g.txt is not in the ledger" in only(world.check(), "lost")


def test_a_second_copy_of_an_output_is_doubled(world):
    """A numbered twin beside the output is a result written twice."""
    (world.results / "j1" / "stub-0 (2).txt").write_bytes(expected_output("a", 0))
    assert "stub-0 (2).txt" in only(world.check(), "doubled")


def test_an_output_of_two_jobs_is_doubled(world):
    """Two jobs claim one path."""
    world.sql("UPDATE jobs SET outputs = (SELECT outputs FROM jobs WHERE id = 'j1'), params = '{}' WHERE id = 'j3'")
    verdict = world.check()
    assert verdict.doubled == 1
    assert any("2 jobs say that they wrote" in sentence for sentence in verdict.sentences)


def test_an_output_with_other_content_is_wrong(world):
    """The file on disk is not what the ledger promised, and so the promised one is lost."""
    (world.results / "j1" / "stub-0.txt").write_text("torn")
    verdict = world.check()
    assert (verdict.wrong, verdict.lost) == (2, 1)
    assert any("is not what the ledger says of it" in sentence for sentence in verdict.sentences)


def test_a_wrong_text_is_wrong(world):
    """Another job's answer."""
    world.sql("UPDATE jobs SET result = ? WHERE id = 'j1'", json.dumps({"text": expected("b")}))
    assert "the text of a (j1)" in only(world.check(), "wrong")


def test_a_known_text_of_another_task_is_held_against_it(world):
    """What the demo models say is known."""
    world.job("j4", "g", task="generate", outputs=0, result=json.dumps({"text": "Paris"}))
    world.history.ack("j4", "g", text="London")
    assert "'Paris'" in only(world.check(), "wrong")


def test_words_may_differ_in_their_spaces(world):
    """A transcript has a line for each segment; its words are what was promised."""
    world.job("j4", "g", task="transcribe", outputs=0, result=json.dumps({"text": "one\ntwo  three"}))
    world.history.ack("j4", "g", words="one two three")
    assert world.check().clean
    world.history.ack("j4", "g", words="one two four")
    assert "one" in only(world.check(), "wrong")


def test_a_file_of_another_task_that_is_gone_is_lost(world):
    """What any task wrote has to be there."""
    world.job("j4", "g", task="generate")
    world.history.ack("j4", "g")
    (world.results / "j4" / "stub-0.txt").unlink()
    assert "stub-0.txt of g (j4) is not there" in only(world.check(), "lost")


def test_a_temporary_file_left_behind_is_wrong(world):
    """Half a result is no result; told by the job it lies with, and by itself."""
    (world.results / "j1" / ".stub-0.txt.j1.mlxd-tmp").write_text("half")
    verdict = world.check()
    assert (verdict.wrong, verdict.lost, verdict.doubled) == (2, 0, 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("begin a 2 12 3.0", "claim 2 of a was begun twice"),
        ("begin a 1 12 3.0", "claim 1 of a was begun after 2"),
        ("end a 1 10 3.0", "claim 1 of a went on (end) after claim 2 had begun"),
    ],
)
def test_two_executions_at_once_are_doubled(world, line, said):
    """A claim runs once, and an older one does not go on beside a newer one."""
    with world.executions.open("a") as file:
        file.write(f"{line}\n")
    assert said in only(world.check(), "doubled")
