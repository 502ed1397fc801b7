"""The end of a log file, and what is added to it."""

from daemon.cli.tailing import follow, tail


def test_tail_gives_the_last_lines(tmp_path):
    """The last so many, all or those that mention something; a missing file has none."""
    log = tmp_path / "log"
    assert tail(log, 5) == []
    log.write_text("one a\ntwo b\nthree a\n")
    assert tail(log, 2) == ["two b", "three a"]
    assert tail(log, 5, about="a") == ["one a", "three a"]


def test_follow_goes_through_rotation(tmp_path):
    """New lines come whole, also after the file was put aside and made anew, and none is lost in between."""
    log = tmp_path / "log"
    log.write_text("old\n")

    def put_aside():
        with log.open("a") as file:
            file.write("last words\n")
        log.rename(tmp_path / "log.1")

    steps = [
        lambda: log.open("a").close(),
        lambda: append("half"),
        lambda: append(" a line\nskipped\n"),
        put_aside,
        lambda: log.write_text("new a\n"),
        lambda: append("a end\n"),
    ]

    def append(text):
        with log.open("a") as file:
            file.write(text)

    lines = follow(log, about="a", pause=lambda: steps.pop(0)())  # noqa: PLW0108 - a new step each time
    assert [next(lines) for _ in range(4)] == ["half a line", "last words", "new a", "a end"]
    lines.close()


def test_follow_waits_for_a_file(tmp_path):
    """A file that comes later is read from its beginning."""
    log = tmp_path / "log"
    lines = follow(log, pause=lambda: log.write_text("first\n"))
    assert next(lines) == "first"
    lines.close()
