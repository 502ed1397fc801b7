"""Decoding: any audio or video in, 16 kHz mono out, clear sentences for what is neither."""

import os
from contextlib import closing

import numpy as np
import pytest
from fakes_sound import encode, tone, write_wav

from plugins.audio import PIECE, RATE, Sound


def hear(path):
    """Return the samples and the sound."""
    sound = Sound(path)
    return np.concatenate(list(sound.pieces())), sound


def test_a_wav_of_16_khz_comes_as_it_is(tmp_path):
    """Sample for sample, as Whisper's own loader has it."""
    samples = tone(1.0)
    heard, sound = hear(write_wav(tmp_path / "a.wav", samples))
    assert heard.dtype == np.int16
    assert np.array_equal(heard, samples)
    assert (sound.samples, sound.duration, sound.notes) == (RATE, 1.0, [])


def test_other_rates_and_channels_are_brought_to_one(tmp_path):
    """Stereo at 44.1 kHz becomes mono at 16 kHz with the same pitch and length."""
    heard, _ = hear(write_wav(tmp_path / "a.wav", tone(2.0, rate=44_100), rate=44_100, channels=2))
    assert len(heard) == pytest.approx(2 * RATE, abs=200)
    loudest = np.argmax(np.abs(np.fft.rfft(heard))) * RATE / len(heard)
    assert loudest == pytest.approx(440, abs=2)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8", "pcm_alaw", "adpcm_ima_wav"])
def test_a_wav_is_read_in_large_packets_and_says_the_same(tmp_path, monkeypatch, codec):
    """Few packets make few fights for Python's lock; of whatever kind, not a sample is another than without that."""
    path = encode(tmp_path / "a.wav", tone(20.0), codec)
    large, sound = hear(path)
    monkeypatch.setattr("plugins.audio._options", lambda _file: {})
    small, other = hear(path)
    assert np.array_equal(large, small)
    assert (sound.duration, sound.notes) == (other.duration, other.notes)


def test_a_wav_of_half_a_minute_is_few_packets(tmp_path):
    """About fifteen, where FFmpeg makes 469 by itself; those of another format are as they are."""
    files = write_wav(tmp_path / "a.wav", tone(30.0)), encode(tmp_path / "a.flac", tone(30.0), "flac")
    counts = []
    for path in files:
        with closing(Sound(path)) as sound:
            counts.append(len(list(sound._frames_and_end())))
    assert counts[0] < 20 < counts[1]


def test_a_long_sound_comes_in_pieces(tmp_path):
    """No piece is much longer than ten seconds."""
    sizes = [len(piece) for piece in Sound(write_wav(tmp_path / "a.wav", tone(70))).pieces()]
    assert sum(sizes) == 70 * RATE
    assert len(sizes) == 7
    assert max(sizes) < PIECE + RATE


@pytest.mark.parametrize(
    ("name", "codec"), [("a.flac", "flac"), ("a.mp3", "mp3"), ("a.ogg", "libopus"), ("a.m4a", "aac")]
)
def test_common_formats_are_decoded(tmp_path, name, codec):
    """Lossless and lossy, each in its container, with the right length and pitch."""
    heard, _ = hear(encode(tmp_path / name, tone(2.0), codec))
    assert len(heard) == pytest.approx(2 * RATE, abs=2500)
    loudest = np.argmax(np.abs(np.fft.rfft(heard))) * RATE / len(heard)
    assert loudest == pytest.approx(440, abs=3)


def test_a_videos_sound_is_taken(tmp_path):
    """A film with a sound track is as good as a sound file; one without says so."""
    heard, _ = hear(encode(tmp_path / "a.mp4", tone(1.0), "aac", picture=True))
    assert len(heard) == pytest.approx(RATE, abs=2500)
    silent = encode(tmp_path / "b.mp4", tone(0), "aac", picture=True)
    with pytest.raises(ValueError, match="no sound track"):
        Sound(silent)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        ("This is no sound, it is a létter.\n".encode() * 50, "holds text, not sound"),
        (bytes(range(256)) * 20, "no audio or video"),
        (b"RIFF\xff\xff\xff\x7fWAVE", "no audio or video|no sound track|without a single sample"),
    ],
)
def test_what_is_no_sound_says_so(tmp_path, content, match):
    """Empty files, texts with a sound's name, noise and mere headers."""
    path = tmp_path / "memo.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        list(Sound(path).pieces())
    assert "memo.wav" in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    """Missing files, folders and named pipes, which would block, are told apart."""
    os.mkfifo(tmp_path / "pipe.wav")
    for name, match in [("gone.wav", "No such file"), ("pipe.wav", "not a file"), (".", "not a file|directory")]:
        with pytest.raises(ValueError, match=match):
            Sound(tmp_path / name)


@pytest.mark.parametrize(("name", "codec"), [("a.wav", None), ("a.flac", "flac")])
def test_a_truncated_sound_gives_what_is_there_and_a_note(tmp_path, name, codec):
    """Half a file is heard up to its end, and the note says that it is cut short."""
    path = tmp_path / name
    encode(path, tone(20), codec) if codec else write_wav(path, tone(20))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    heard, sound = hear(path)
    assert 5 * RATE < len(heard) < 15 * RATE
    assert "cut short" in " ".join(sound.notes)


def test_a_stream_of_unknown_length_is_not_cut_short(tmp_path):
    """A WAV written to a pipe announces the largest length there is: that is no truncation."""
    path = write_wav(tmp_path / "a.wav", tone(1))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    heard, sound = hear(path)
    assert len(heard) == RATE
    assert sound.notes == []


def test_damage_in_the_middle_is_skipped_and_told(tmp_path):
    """Broken frames cost their own sound only."""
    path = encode(tmp_path / "a.flac", tone(20, pitch=333.3), "flac")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = os.urandom(2000)
    path.write_bytes(content)
    heard, sound = hear(path)
    assert len(heard) > 10 * RATE
    assert sound.notes or len(heard) == pytest.approx(20 * RATE, rel=0.1)


def test_a_sound_without_samples_is_refused(tmp_path):
    """A valid file of length zero has nothing to transcribe."""
    with pytest.raises(ValueError, match=r"single sample|no audio|no sound"):
        list(Sound(write_wav(tmp_path / "a.wav", tone(0))).pieces())
