"""Runner processes with real models: the demo language model, and a Whisper with random weights."""

import os
import signal
import threading
from pathlib import Path

import pytest
from fakes_models import tiny_llama, tiny_whisper
from fakes_sound import tone, write_wav

from daemon.models.engine import Engine
from daemon.models.launch import Launch
from daemon.models.references import DEMO_MODELS, ModelResolver
from daemon.models.scheduler import ModelScheduler
from jobs.errors import InvalidInput, InvalidRequest, ModelBroken, RunnerDied
from jobs.model import Lane
from plugins.lm import LmRuntime
from plugins.whisper import WhisperRuntime

pytestmark = pytest.mark.models


def spawn(model, *, on_exit, on_memory):
    launch = Launch(runtime=model.runtime, model=model.path, options=model.options, label=model.ref)
    return Engine(launch, on_exit=lambda _: on_exit(), on_memory=on_memory)


@pytest.fixture(name="models", scope="module")
def _models():
    scheduler = ModelScheduler(
        resolve=ModelResolver(defaults={"lm": "demo:lm"}),
        runtimes={"lm": LmRuntime(), "whisper": WhisperRuntime()},
        spawn=spawn,
        budget=4 * 10**9,
    )
    scheduler.start()
    yield scheduler
    scheduler.stop(10)


def test_the_demo_model_answers_many_at_once(models):
    """Twenty requests on one lease are all served, greedily and alike, and tokens come as events."""
    with models.acquire(None, "lm") as lease:
        pieces = []
        request = {"prompt": "Remind me to call Anna on Monday.", "max_tokens": 40}
        first = lease.submit(request, on_event=lambda kind, data: pieces.append(data["text"])).result()
        calls = [lease.submit(request) for _ in range(20)]
        assert {call.result()["text"] for call in calls} == {first["text"]}
        assert "".join(pieces) == first["text"]
        assert first["finish_reason"] == "stop"
    (status,) = models.status()
    assert status.memory_bytes > 10**7
    assert status.info["model_type"] == "llama"


def test_refusals_travel_with_their_sentence(models):
    """A prompt beyond the context and a wrong schema are the caller's mistakes; the model goes on."""
    with models.acquire("demo:lm", "lm") as lease:
        with pytest.raises(InvalidRequest, match="tokens"):
            lease.submit({"prompt": "word " * 200_000}).result()
        with pytest.raises(InvalidRequest, match="json_schema"):
            lease.submit({"prompt": "x", "json_schema": {"type": "nonsense"}}).result()
        assert lease.submit({"prompt": "Buy milk."}).result()["text"]


def test_kill_9_in_the_middle_of_a_generation_is_survived(models):
    """The call gets `RunnerDied`; the next lease has a new process that answers."""
    begun = threading.Event()
    with models.acquire("demo:lm", "lm", lane=Lane.INTERACTIVE) as lease:
        pid = models.status()[0].pid
        request = {"prompt": "x", "raw": True, "max_tokens": 4000, "temperature": 5.0}
        calls = [lease.submit(request, on_event=lambda kind, data: begun.set()) for _ in range(8)]
        assert begun.wait(30)
        os.kill(pid, signal.SIGKILL)
        outcomes = [_outcome(call) for call in calls]
        assert RunnerDied in outcomes
    with models.acquire("demo:lm", "lm") as lease:
        assert lease.submit({"prompt": "Buy milk."}).result()["text"]
        assert models.status()[0].pid != pid


def _outcome(call):
    try:
        call.result()
    except RunnerDied as error:
        return type(error)
    return None


def test_whisper_serves_from_a_runner(models, tmp_path):
    """A recording is transcribed with progress; a text named .wav is invalid input."""
    folder = tiny_whisper(tmp_path / "w")
    (tmp_path / "text.wav").write_text("no sound " * 100)
    kinds = []
    with models.acquire(str(folder), "whisper") as lease:
        request = {"file": str(write_wav(tmp_path / "a.wav", tone(2))), "temperature": 1.0}
        result = lease.submit(request, on_event=lambda kind, data: kinds.append(kind)).result()
        assert result["duration"] == 2.0
        assert "progress" in kinds
        with pytest.raises(InvalidInput, match="holds text"):
            lease.submit({"file": str(tmp_path / "text.wav")}).result()


def test_a_broken_folder_never_reaches_a_runner(models, tmp_path):
    """Pickles and lying headers are refused by the daemon itself, before a process is started."""
    folder = tiny_llama(tmp_path / "m")
    (folder / "extra.bin").write_bytes(b"pickle")
    with pytest.raises(ModelBroken, match=r"extra\.bin"):
        models.acquire(str(folder), "lm")


def test_a_model_that_mlx_cannot_load_says_why(models, tmp_path):
    """What passes the checks but is no model that mlx-lm knows comes back as the library's own sentence."""
    folder = tiny_llama(tmp_path / "m")
    config = Path(folder, "config.json")
    config.write_text(config.read_text().replace('"llama"', '"no_such_architecture"'))
    with pytest.raises(ModelBroken, match="no_such_architecture"):
        models.acquire(str(folder), "lm")


def test_the_demo_model_is_there():
    """The embedded language model is in its place."""
    assert (DEMO_MODELS / "lm" / "model.safetensors").is_file()
