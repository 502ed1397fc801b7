"""The history of what clients were told."""

from __future__ import annotations

import threading

from torture.history import History, read


def test_lines_come_back_in_order(tmp_path):
    """Whatever was noted is read again as it was, with the time of each line."""
    history = History(tmp_path / "h.jsonl")
    history.unknown("a")
    history.ack("1", "a", size=64)
    history.refused("b", "429")
    history.file(tmp_path / "ä.txt", "ab" * 32)
    history.event("kill", pid=4)
    history.close()
    lines = read(history.path)
    assert [line["kind"] for line in lines] == ["unknown", "ack", "refused", "file", "kill"]
    assert (lines[1]["job"], lines[1]["key"], lines[1]["expect"]) == ("1", "a", {"size": 64})
    assert lines[3]["path"].endswith("ä.txt")
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


def test_many_threads_write_whole_lines(tmp_path):
    """No line is torn or lost."""
    history = History(tmp_path / "h.jsonl")
    threads = [
        threading.Thread(target=lambda n=n: [history.ack(f"{n}-{i}", "k" * 500) for i in range(50)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history.close()
    assert len({line["job"] for line in read(history.path)}) == 200
