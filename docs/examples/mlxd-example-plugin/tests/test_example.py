"""How to test a plugin without mlxd: call it, with a small stand-in for the context."""

from mlxd_example_plugin.dictionary import Dictionary
from mlxd_example_plugin.tasks import WordCount, WordCountParams


class Context:
    """The part of the task context that the task under test uses."""

    stem = None

    def __init__(self):
        self.written = {}

    def check(self):
        """Never asked to stop."""

    def output(self, name, data):
        self.written[name] = data


def test_words_are_counted():
    """The commonest word comes first, in the file and in the result."""
    ctx = Context()
    result = WordCount().run(ctx, WordCountParams(text="to be or not to be", top=1))
    assert ctx.written == {"wordcount.words.tsv": "2\tto\n"}
    assert (result["words"], result["different"]) == (6, 4)


def test_the_runtime_serves_two_requests_at_once(tmp_path):
    """Each step does one word of both."""
    (tmp_path / "config.json").write_text('{"words": {"hello": "hallo"}}')
    session = Dictionary().load(tmp_path, {})
    session.submit("a", {"text": "hello"})
    session.submit("b", {"text": "x hello"})
    assert [event[:2] for event in session.step()] == [("a", "token"), ("a", "done"), ("b", "token")]
    assert [event[:2] for event in session.step()] == [("b", "token"), ("b", "done")]
    assert not session.busy
