"""The task pull: a child process fetches, the task tells how far it is and what went wrong."""

import io
import json
import logging
import sys
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from jobs.errors import InvalidRequest, JobCancelled, RequestFailed
from plugins import pull, pull_child
from plugins.pull import PullParams, PullTask


class Context:
    """Remembers progress; cancels after some of it."""

    def __init__(self, cancel_after=None):
        self.told = []
        self.cancel_after = cancel_after
        self.log = logging.getLogger("test")

    def check(self):
        if self.cancel_after is not None and len(self.told) >= self.cancel_after:
            raise JobCancelled

    def progress(self, done, total=None, *, unit="", message=""):
        self.told.append((done, total, unit, message))


def run(script, *, model="org/name", context=None):
    """Run the task with a child that is *script*."""
    asked = []

    def command(repo, revision):
        asked.append((repo, revision))
        return [sys.executable, "-c", script]

    context = context or Context()
    result = PullTask(command).run(context, PullParams(model=model))
    return result, context.told, asked


def test_progress_and_the_folder_are_told():
    """Bytes come as progress, what libraries print is ignored, the result is the model's folder."""
    script = """
print('{"done": 5, "total": 10}'); print('chatter'); print('[1]'); print('{"other": 1}')
print('{"path": "/cache/x", "bytes": 10}')
"""
    result, told, asked = run(script, model="org/name@v1")
    assert told == [(5, 10, "bytes", "fetching org/name@v1")]
    assert result == {"text": "/cache/x", "path": "/cache/x", "model": "org/name@v1", "bytes": 10}
    assert asked == [("org/name", "v1")]


@pytest.mark.parametrize(
    ("script", "error", "match"),
    [
        ("""print('{"error": "no such model", "final": true}')""", InvalidRequest, "no such model"),
        ("""print('{"error": "no network", "final": false}')""", RequestFailed, "no network"),
        ("""raise SystemExit(4)""", RequestFailed, "ended with 4"),
    ],
)
def test_failures_say_whether_trying_again_helps(script, error, match):
    """A model that does not exist is the caller's mistake, a network that is away is not."""
    with pytest.raises(error, match=match) as caught:
        run(script)
    assert caught.value.retryable is (error is RequestFailed)


def test_a_cancelled_job_ends_the_download():
    """The child is killed at the next sign of life."""
    script = """
import time
while True:
    print('{"done": 1, "total": 9}', flush=True)
    time.sleep(0.01)
"""
    with pytest.raises(JobCancelled):
        run(script, context=Context(cancel_after=3))


@pytest.mark.parametrize("model", ["demo:lm", "/models/x", "name", "a/b/c", "../x", "org/..", "org/name@../../x"])
def test_only_hub_ids_can_be_pulled(model):
    """What is here already or no id at all is refused before anything is started."""
    with pytest.raises(ValidationError, match="hub id"):
        PullParams(model=model)


def test_the_child_runs_isolated_and_the_task_is_registered():
    """The command line is ours with -I, and the plugin offers the task."""
    command = pull._command("org/name", "main")
    assert command[1:] == ["-I", "-m", "plugins.pull_child", "org/name", "main"]
    found = []
    pull.mlxd_register_tasks(found.append)
    assert found[0].name == "pull"


def hub(tmp_path, *, error=None):
    """A hub library with one model."""
    files = [("config.json", 10), ("model.safetensors", 90), ("code.py", 1000)]

    def download(repo, *, revision, allow_patterns):
        assert "*.safetensors" in allow_patterns
        assert not any(one.endswith((".py", ".bin")) for one in allow_patterns)
        if error:
            raise error
        blobs = tmp_path / "models--org--name" / "blobs"
        blobs.mkdir(parents=True)
        (blobs / "a").write_bytes(bytes(60))
        return "/cache/snapshot"

    return SimpleNamespace(
        constants=SimpleNamespace(HF_HUB_CACHE=str(tmp_path)),
        utils=SimpleNamespace(
            filter_repo_objects=lambda items, *, allow_patterns, key: [
                one for one in items if not key(one).endswith("py")
            ]
        ),
        HfApi=lambda: SimpleNamespace(
            model_info=lambda repo, *, revision, files_metadata: SimpleNamespace(
                siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in files]
            )
        ),
        snapshot_download=download,
    )


def said(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_child_counts_only_what_it_fetches(tmp_path):
    """The total leaves out what is not fetched; the path comes last."""
    out = io.StringIO()
    assert pull_child.main(["org/name", "main"], hub=hub(tmp_path), out=out) == 0
    assert said(out) == [{"done": 0, "total": 100}, {"path": "/cache/snapshot", "bytes": 100}]


def test_the_child_measures_what_has_arrived(tmp_path):
    """Progress is the size of the folder that the files arrive in, at most the total."""
    out = io.StringIO()
    (tmp_path / "part").write_bytes(bytes(30))
    teller = pull_child._Teller(out, tmp_path, 100)
    teller._tell()
    teller._total = 20
    teller._tell()
    assert said(out) == [{"done": 30, "total": 100}, {"done": 20, "total": 20}]


def test_the_child_tells_about_once_a_second(tmp_path, monkeypatch):
    """The thread tells again and again until the download is over."""
    monkeypatch.setattr(pull_child, "_EVERY_S", 0.001)
    out = io.StringIO()
    with pull_child._Teller(out, tmp_path, 100) as _:
        while len(out.getvalue().splitlines()) < 3:
            pass
    count = len(said(out))
    assert count >= 3
    assert len(said(out)) == count


def test_the_child_ends_with_its_daemon(tmp_path, monkeypatch):
    """When nobody hears it any more, the download ends at once, not when it is complete."""

    class Deaf(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    class Ended(BaseException):
        """What the test has instead of the process's end."""

    def end(status):
        raise Ended(status)

    monkeypatch.setattr(pull_child, "_EVERY_S", 0)
    monkeypatch.setattr("os._exit", end)
    with pytest.raises(Ended, match="1"):
        pull_child._Teller(Deaf(), tmp_path, 100)._run()


@pytest.mark.parametrize(("status", "final"), [(404, True), (401, True), (500, False), (None, False)])
def test_the_child_tells_errors_in_a_line(tmp_path, status, final):
    """The first line of what the library says, and whether it is of use to try again."""

    class Gone(Exception):
        response = SimpleNamespace(status_code=status)

    out = io.StringIO()
    assert pull_child.main(["org/name", "main"], hub=hub(tmp_path, error=Gone("not there\nadvice")), out=out) == 1
    assert said(out)[-1] == {"error": "not there", "final": final}
    assert pull_child._sentence(Gone()) == "Gone"
