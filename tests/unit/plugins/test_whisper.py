"""The runtime whisper: the spectrogram, the window rules, the session. Judged by mlx_whisper's own transcribe."""

import importlib
import itertools
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from fakes_models import drain, tiny_whisper
from fakes_sound import tone, write_wav
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from daemon.models.references import DEMO_MODELS
from jobs.model import Lane
from plugins import mlx_process, whisper_net
from plugins import whisper_windows as windows
from plugins.whisper import WhisperRuntime
from plugins.whisper_pace import Pace
from plugins.whisper_request import parse
from plugins.whisper_session import WhisperSession

LANGUAGES = {"en": "english", "de": "german"}

# -- without a model --------------------------------------------------------------------------------------------------


def test_temperatures_rise_to_one():
    """From the first in steps of 0.2; one alone stays alone."""
    assert windows.temperatures(0.0) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert windows.temperatures(0.5) == (0.5, 0.7, 0.9)
    assert windows.temperatures(1.0) == (1.0,)


def attempt(**more):
    fair = {"tokens": [], "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}
    return windows.Attempt(**{**fair, **more})


def test_doubtful_windows_are_tried_again_and_silent_ones_skipped():
    """Loops and guesses get another temperature, silence does not; confident speech is never silence."""
    assert not windows.needs_another(attempt())
    assert windows.needs_another(attempt(compression_ratio=3.0))
    assert windows.needs_another(attempt(avg_logprob=-2.0))
    assert not windows.needs_another(attempt(avg_logprob=-2.0, no_speech_prob=0.9))
    assert windows.is_silent(attempt(avg_logprob=-2.0, no_speech_prob=0.9))
    assert not windows.is_silent(attempt(no_speech_prob=0.9))


def test_a_window_is_cut_at_pairs_of_timestamps():
    """0 is the token of 0.00 s below: pieces end at pairs, and what follows the last pair is decoded again."""
    cut = windows.cut([1000, 7, 1100, 1100, 8, 1200, 1200], size=3000, first_timestamp=1000)
    assert [(one.start, one.end) for one in cut.pieces] == [(0.0, 2.0), (2.0, 4.0)]
    assert (cut.advance, cut.closed) == (400, False)
    closed = windows.cut([1000, 7, 1100, 1100, 8, 1200], size=3000, first_timestamp=1000)
    assert (len(closed.pieces), closed.advance, closed.closed) == (2, 3000, True)


def test_a_window_always_moves_on():
    """A pair at zero, which would repeat the window for ever, counts as its whole length."""
    assert windows.cut([1000, 7, 1000, 1000], size=2000, first_timestamp=1000).advance == 2000
    assert windows.cut([], size=2000, first_timestamp=1000).advance == 2000


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({}, "file"),
        ({"file": "relative.wav"}, "absolute"),
        ({"file": "/a.wav", "language": "klingon"}, "klingon"),
        ({"file": "/a.wav", "language": "de"}, "English only"),
        ({"file": "/a.wav", "task": "translate"}, "English only"),
        ({"file": "/a.wav", "task": "sing"}, "task"),
        ({"file": "/a.wav", "temperature": 2}, "temperature"),
    ],
)
def test_a_wrong_request_is_refused_by_name(request_, match):
    """The message names the field, and an English model says what it is."""
    with pytest.raises(ValueError, match=match):
        parse(request_, languages=LANGUAGES, multilingual=False)


def test_languages_are_known_by_code_and_name():
    """German, de and DE are one language; none means detect."""
    for name in ("de", "German", " DE "):
        assert parse({"file": "/a", "language": name}, languages=LANGUAGES, multilingual=True).language == "de"
    assert parse({"file": "/a"}, languages=LANGUAGES, multilingual=True).language is None


# -- on real models ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="tiny", scope="module")
def _tiny(tmp_path_factory):
    mlx_process.prepare()
    WhisperRuntime().load(tiny_whisper(tmp_path_factory.mktemp("w")), {}).close()
    return tiny_whisper(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(name="session", scope="module")
def _session(tiny):
    session = WhisperRuntime().load(tiny, {})
    yield session
    session.close()


@pytest.fixture(name="reference", scope="module")
def _reference(session):
    """mlx_whisper's transcribe, on the session's model."""
    sys.modules.pop("mlx_whisper.transcribe", None)
    stub = types.ModuleType("mlx_whisper.timing")
    stub.add_word_timestamps = None
    real = sys.modules.get("mlx_whisper.timing")
    sys.modules["mlx_whisper.timing"] = stub
    module = importlib.import_module("mlx_whisper.transcribe")
    if real is None:
        del sys.modules["mlx_whisper.timing"]
    else:
        sys.modules["mlx_whisper.timing"] = real
    module.ModelHolder.model, module.ModelHolder.model_path = session._model, "here"
    return lambda samples, **more: module.transcribe(
        samples.astype(np.float32) / 32768, path_or_hf_repo="here", fp16=False, language="en", **more
    )


@pytest.mark.models
@pytest.mark.parametrize("samples", [200, 5000, 480_000])
def test_a_windows_spectrogram_is_whispers_own(session, samples):
    """The first window has the same numbers as mlx_whisper's, at the edges too."""
    import mlx.core as mx
    from mlx_whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

    from plugins import mel

    sound = (np.random.default_rng(samples).normal(size=samples) * 3000).astype(np.int16)
    size = samples // mel.HOP
    expected = log_mel_spectrogram(sound.astype(np.float32) / 32768, 80, padding=N_SAMPLES)[:size]
    found = mel.window(sound, before=0, size=size, n_mels=80)
    assert found.shape == (mel.WINDOW, 80)
    assert mx.allclose(found, pad_or_trim(expected, mel.WINDOW, axis=-2), atol=1e-5)


@pytest.mark.models
def test_a_window_in_the_middle_looks_at_its_neighbours(session):
    """With the samples before and after it a window's frames are those of the whole recording."""
    import mlx.core as mx
    from mlx_whisper.audio import log_mel_spectrogram

    from plugins import mel

    sound = (np.random.default_rng(1).normal(size=200_000) * 3000).astype(np.int16)
    whole = log_mel_spectrogram(sound.astype(np.float32) / 32768, 80)
    start = 300 * mel.HOP
    found = mel.window(sound[start - mel.REACH :], before=mel.REACH, size=500, n_mels=80)
    assert mx.allclose(found[:500], whole[300:800], atol=1e-5)


FIRST = 50363


def _fixed(tokens):
    """Odd numbers are text, even ones timestamps (twice the token)."""
    return [FIRST + token // 2 if token % 2 == 0 else token for token in tokens]


PLAIN = ([0, 401, 100], -0.1, 0.0)


class Script:
    """mlx_whisper's decoder as it would say what it was told to; then one plain sentence a window."""

    def __init__(self, results):
        from mlx_whisper.decoding import DecodingResult, compression_ratio
        from mlx_whisper.tokenizer import get_tokenizer

        self.made, self.ratio = DecodingResult, compression_ratio
        self.tokenizer = get_tokenizer(multilingual=False)
        self.results = list(results)
        self.prompts = []

    def __call__(self, model, mel, options):
        self.prompts.append(list(options.prompt or []))
        tokens, logprob, silence = self.results.pop(0) if self.results else PLAIN
        fixed = _fixed(tokens)
        text = self.tokenizer.decode(fixed).strip()
        return self.made(
            audio_features=None,
            language="en",
            tokens=fixed,
            avg_logprob=logprob,
            compression_ratio=self.ratio(text),
            no_speech_prob=silence,
            temperature=options.temperature,
        )


class ScriptedRows:
    """`plugins.whisper_rows.Rows` that say what they were told to, all at the next step."""

    def __init__(self, results=()):
        self.results = list(results)
        self.prompts = []
        self.rows = []
        self.hated = []
        self.most = 0

    def __len__(self):
        return len(self.rows)

    def join(self, rows):
        for row in rows:
            self.prompts.append(list(row.prompt[1:-1]))
            if self.hated and list(row.prompt[1:-1]) == self.hated:
                raise RuntimeError("boom")
        self.rows += rows
        self.most = max(self.most, len(self.rows))

    def step(self):
        ended, self.rows = self.rows, []
        for row in ended:
            tokens, logprob, row.no_speech_prob = self.results.pop(0) if self.results else PLAIN
            row.tokens = _fixed(tokens)
            row.logprob = logprob * (len(tokens) + 1)
        return ended

    def leave(self, rows):
        self.rows = [row for row in self.rows if row not in rows]


@pytest.fixture(name="scripted", scope="module")
def _scripted(session):
    """Make a session on the tiny model whose windows are silent inside and say what the test wants."""
    import mlx.core as mx

    def make(*results, **more):
        rows = ScriptedRows(results)
        seams = {"rows": lambda: rows, "encode": lambda _, mels: mx.zeros((len(mels), 1500, 64)), **more}
        return WhisperSession(session._model, half=False, **seams), rows

    return make


def _results():
    stamp = st.integers(1, 1500).map(lambda n: 2 * n)
    word = st.sampled_from([301, 543, 1001, 2001])
    tokens = st.one_of(
        st.lists(st.one_of(stamp, word), max_size=9).map(lambda rest: [0, *rest]),
        st.just([0, *[1001] * 40, 200]),  # a loop: the compression ratio says so
    )
    return st.tuples(tokens, st.sampled_from([-0.1, -0.1, -2.0]), st.sampled_from([0.0, 0.0, 0.9]))


@pytest.mark.models
@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # a busy machine is no mistake
)
@given(results=st.lists(_results(), max_size=12), prompt=st.sampled_from([None, "Anna, Peter"]))
def test_windows_are_strung_together_as_mlx_whisper_does(tmp_path_factory, scripted, reference, results, prompt):
    """One after another, for any decoder output: same prompts, segments, text, silence and fallbacks."""
    from mlx_whisper.whisper import Whisper

    for tokens, *_ in results:
        assume(not any(a % 2 == b % 2 == 0 and a == 0 for a, b in itertools.pairwise(tokens)))
    sound = tone(40)
    path = write_wav(tmp_path_factory.mktemp("sound") / "a.wav", sound)
    with pytest.MonkeyPatch.context() as patch:
        theirs = Script(results)
        patch.setattr(Whisper, "decode", lambda *given: theirs(*given))  # noqa: PLW0108 - a function becomes a method
        expected = reference(sound, condition_on_previous_text=True, initial_prompt=prompt)
    session, ours = scripted(*results)
    session.submit("x", {"file": str(path), "condition_on_previous_text": True, "initial_prompt": prompt})
    told = drain(session)["x"]

    result = told[-1][1]
    assert ours.prompts == [_led(prompt) for prompt in theirs.prompts]
    assert result["text"] == expected["text"].strip()
    assert [(one["start"], one["end"], one["text"]) for one in result["segments"]] == [
        (round(one["start"], 3), round(one["end"], 3), one["text"].strip())
        for one in expected["segments"]
        if one["text"]
    ]
    assert [data for kind, data in told if kind == "segment"] == result["segments"]


def _led(prompt):
    """Return what is between the first and the last token fed, as the tiny model (64 places) takes it."""
    return prompt[-31:]


@pytest.mark.models
@pytest.mark.parametrize("tokens", [[0, 301, 0, 0], [0, 301, 2, 2]])
@pytest.mark.parametrize("previous", [False, True])
def test_a_decoder_that_goes_round_in_circles_comes_to_an_end(tmp_path, scripted, tokens, previous):
    """Equal timestamps at zero, and steps of 20 ms, would take for ever or nearly; here the windows are bounded."""
    session, rows = scripted(*[(tokens, -0.1, 0.0)] * 10_000)
    path = str(write_wav(tmp_path / "a.wav", tone(65)))
    session.submit("x", {"file": path, "condition_on_previous_text": previous})
    assert drain(session)["x"][-1][0] == "done"
    assert len(rows.prompts) < 65 + 25


def _until_heard(session, lane, *, windows):
    """Wait until so many windows of the lane's first recording were read."""
    line = session._lines[lane]
    while not line.open or len(line.open[0].ready(windows)) < windows:
        session._heard.clear()
        session._listen(line)
        if not line.open or len(line.open[0].ready(windows)) < windows:
            assert session._heard.wait(20)


def _until_all_heard(session, lane):
    """Wait until every open recording of the lane has a window."""
    line = session._lines[lane]
    while not all(job.ready(1) for job in line.open):
        session._heard.clear()
        session._listen(line)
        if not all(job.ready(1) for job in line.open):
            assert session._heard.wait(20)


def _talk(seconds, pause):
    """Return a tone with *pause* seconds of silence at the end of every ten."""
    sound = tone(seconds)
    for end in range(10, seconds + 1, 10):
        sound[int((end - pause) * 16_000) : end * 16_000] = 0
    return sound


@pytest.mark.models
def test_a_long_recording_is_cut_in_its_pauses(tmp_path, scripted):
    """Windows end in pauses, are worked on together, and are told in the order of time with checkpoints between."""
    session, rows = scripted(*[([0, 401, 100], -0.1, 0.0)] * 20, batch=8)
    session._pace.places = lambda: 8
    session._pace.group = lambda: 8
    session.submit("x", {"file": str(write_wav(tmp_path / "a.wav", _talk(100, 0.6))), "lane": "normal"})
    _until_heard(session, "normal", windows=4)
    told = drain(session)["x"]
    starts = [data["start"] for kind, data in told if kind == "segment"]
    assert starts == sorted(starts)
    assert starts == pytest.approx([0, 29.7, 59.55, 79.75], abs=0.1)  # too little of the last pause is in reach
    assert rows.most >= 3
    marks = [data["state"]["frame"] for kind, data in told if kind == "window"]
    assert marks == [round(100 * start) for start in starts[1:]] + [10_000]
    assert [data["last"] for kind, data in told if kind == "window"] == [False, False, False, True]


@pytest.mark.models
def test_a_new_recording_begins_at_once_and_an_urgent_one_goes_first(tmp_path, scripted):
    """Beside a long recording a newcomer of the same lane gets its turn; an interactive one overtakes both."""
    session, _ = scripted(batch=1)
    path = str(write_wav(tmp_path / "a.wav", tone(65)))
    session._pace.places = lambda: 2
    for name in ("a", "b"):
        session.submit(name, {"file": path, "lane": "batch", "condition_on_previous_text": True})
    session._listen(session._lines["batch"])
    _until_all_heard(session, "batch")  # a turn is for who has something to do
    told: list[tuple[str, str, dict]] = []
    while {event[0] for event in told if event[1] == "window"} != {"a", "b"}:
        told += session.step()
    assert not any(event[1] == "done" for event in told)
    short = str(write_wav(tmp_path / "short.wav", tone(20)))
    session.submit("person", {"file": short, "lane": "interactive"})
    _until_heard(session, "interactive", windows=1)
    told = []
    while session.busy:
        told += session.step()
    ends = [event[0] for event in told if event[1] == "done"]
    assert ends[0] == "person"
    result = next(event[2] for event in told if event[:2] == ("person", "done"))
    assert (result["duration"], result["language"], result["notes"]) == (20.0, "en", [])
    assert result["realtime_factor"] > 0
    progress = [(data["done"], data["total"]) for name, kind, data in told if (name, kind) == ("a", "progress")]
    assert progress[-1] == (65.0, 65.0)
    assert progress == sorted(progress)


@pytest.mark.models
@pytest.mark.parametrize(
    ("lane", "waited", "together"), [("normal", 0.2, 2), ("normal", 0.3, 1), ("interactive", 0.0, 1)]
)
def test_on_a_gpu_the_first_window_waits_a_moment_for_company(tmp_path, scripted, lane, waited, together):
    """While another recording is just being read, for a quarter of a second; never in the interactive lane."""
    now = [0.0]
    session, rows = scripted(batch=8, clock=lambda: now[0])
    session._pace = Pace(8, on_cpu=False)
    session._pace.encoded(1, 0.01)  # so that two are worth a try
    path = str(write_wav(tmp_path / "a.wav", tone(20)))
    session.submit("a", {"file": path, "lane": lane})
    _until_heard(session, lane, windows=1)
    with session._readers.held(0), session._readers.held(0):
        session.submit("b", {"file": path, "lane": lane})
        session.step()
        assert (rows.most == 0) == (lane == "normal")
        now[0] = waited
        session.step()
        assert (rows.most == 0) == (together == 2)
    if together == 2:
        _until_all_heard(session, lane)
    assert {events[-1][0] for events in drain(session).values()} == {"done"}
    assert rows.most == together


@pytest.mark.models
def test_one_bad_file_hurts_nobody(tmp_path, scripted):
    """Missing and broken files are invalid input, a decoder's failure is one request's, cancelled ones vanish."""
    session, rows = scripted()
    rows.hated = session._tokenizer.encode(" x")
    session._pace.places = lambda: 4
    session._pace.group = lambda: 4
    (tmp_path / "text.wav").write_text("no sound at all " * 20)
    good = str(write_wav(tmp_path / "good.wav", tone(5)))
    session.submit("text", {"file": str(tmp_path / "text.wav")})
    session.submit("boom", {"file": good, "initial_prompt": "x"})
    session.submit("good", {"file": good})
    session.submit("gone", {"file": good})
    session.cancel("gone")
    session.cancel("unknown")
    told = drain(session)

    assert told["text"] == [("error", {"type": "invalid-input", "message": "text.wav holds text, not sound."})]
    assert told["boom"][-1][0] == "error"
    assert "boom" in told["boom"][-1][1]["message"]
    assert told["good"][-1][0] == "done"
    assert "gone" not in told


@pytest.mark.models
def test_a_real_decoder_runs_through_all_temperatures(tmp_path, session):
    """Random weights give doubtful windows: the fallback ends, twice with the same text, and says nothing odd."""
    path = str(write_wav(tmp_path / "a.wav", tone(3)))
    session.submit("a", {"file": path})
    session.submit("b", {"file": path})
    told = drain(session)
    assert told["a"][-1][0] == "done"
    assert told["a"][-1][1]["text"] == told["b"][-1][1]["text"]
    json.dumps(told, allow_nan=False)
    with pytest.raises(ValueError, match="file"):
        session.submit("c", {})


@pytest.mark.models
def test_the_language_is_detected_from_the_first_window(tmp_path):
    """A multilingual model without a language is asked as mlx_whisper asks it; closing drops unfinished files."""
    from plugins import mel

    session = WhisperRuntime().load(tiny_whisper(tmp_path / "m", multilingual=True, bits=4), {})
    assert session.info["multilingual"] is True
    sound = tone(2)
    window = mel.window(sound, before=0, size=200, n_mels=80)
    _, probabilities = session._model.detect_language(window)
    path = str(write_wav(tmp_path / "a.wav", sound))
    session.submit("x", {"file": path, "temperature": 1.0})
    assert drain(session)["x"][-1][1]["language"] == max(probabilities, key=probabilities.get)
    session.submit("y", {"file": path})
    list(session.step())
    session.close()
    assert not session.busy


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_words_have_times_and_are_plain_json(tmp_path, scripted):
    """Word timestamps come from mlx_whisper's aligner, lie within the sound, and grow."""
    session, _ = scripted(([0, 15947, 1001, 100, 100], -0.1, 0.0), encode=whisper_net.encode)
    session.submit("x", {"file": str(write_wav(tmp_path / "a.wav", tone(4))), "word_timestamps": True})
    result = drain(session)["x"][-1][1]
    json.dumps(result, allow_nan=False)
    words = result["segments"][0]["words"]
    assert words
    assert all(0 <= word["start"] <= word["end"] <= 4.1 for word in words)
    assert set(words[0]) == {"word", "start", "end", "probability"}


@pytest.mark.models
def test_the_number_format_is_checked(tiny):
    """Half precision on request, nonsense refused."""
    session = WhisperRuntime().load(tiny, {"dtype": "float16"})
    assert session.info["dtype"] == "float16"
    session.close()
    with pytest.raises(ValueError, match="dtype"):
        WhisperRuntime().load(tiny, {"dtype": "int8"})


@pytest.mark.models
def test_neither_torch_nor_numba_is_imported_to_transcribe(tmp_path, tiny):
    """In a fresh process a transcription imports mlx_whisper without its two heavy companions."""
    path = write_wav(tmp_path / "a.wav", tone(1))
    script = (
        "import sys\nfrom pathlib import Path\nfrom plugins.whisper import WhisperRuntime\n"
        f"session = WhisperRuntime().load(Path({str(tiny)!r}), {{}})\n"
        f"session.submit('x', {{'file': {str(path)!r}, 'temperature': 1.0}})\n"
        "kinds = []\n"
        "while session.busy:\n    kinds += [event[1] for event in session.step()]\n"
        "print(kinds[-1], [name for name in ('torch', 'numba', 'scipy') if name in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "done []"


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not (DEMO_MODELS / "whisper" / "config.json").exists(), reason="the demo model is not trained yet")
def test_the_demo_model_hears_what_mlx_whisper_hears(tmp_path, demo_samples):
    """On real speech the transcription equals mlx_whisper.transcribe's on the same model."""
    session = WhisperRuntime().load(DEMO_MODELS / "whisper", {})
    module = importlib.import_module("mlx_whisper.transcribe")
    module.ModelHolder.model, module.ModelHolder.model_path = session._model, "demo"
    for path in demo_samples:
        session.submit("x", {"file": str(path), "language": "en"})
        ours = drain(session)["x"][-1][1]["text"]
        from plugins.audio import Sound

        samples = np.concatenate(list(Sound(path).pieces()))
        samples = samples.astype(np.float32) / 32768
        theirs = module.transcribe(samples, path_or_hf_repo="demo", fp16=False, language="en")["text"]
        assert ours == theirs.strip()
        assert ours
    session.close()


@pytest.fixture(name="demo_samples")
def _demo_samples():
    found = sorted((DEMO_MODELS / "samples").glob("*.flac"))
    if not found:
        pytest.skip("there are no spoken samples")
    return found


class Reading:
    """A recording of which so many windows have been heard."""

    def __init__(self, windows):
        self.windows = windows

    def ready(self, _wanted):
        return [None] * self.windows


def test_a_lone_window_waits_a_moment_for_those_being_read(scripted):
    """On a GPU, a quarter of a second from when it was there; a wait that came to nothing is not held against the next.

    Nobody waits in the lane of those who wait for an answer, nor when no other recording is being read.
    """
    now = [0.0]
    session, _ = scripted(clock=lambda: now[0])
    session._pace = Pace(16, on_cpu=False)
    line, first, second = session._lines[Lane.NORMAL], Reading(1), Reading(0)
    line.open.extend([first, second])
    assert session._can_work(Lane.INTERACTIVE, line)
    assert not session._can_work(Lane.NORMAL, line)
    now[0] = 0.3
    assert session._can_work(Lane.NORMAL, line)
    first.windows = 0  # cancelled
    assert not session._can_work(Lane.NORMAL, line)
    now[0], first.windows = 9.0, 1
    assert not session._can_work(Lane.NORMAL, line)
    second.windows = 1
    assert session._can_work(Lane.NORMAL, line)
    line.open.clear()
