"""Models that somebody else puts on this machine."""

import time

import pytest
from fakes_weights import write_safetensors

from daemon.models.arrivals import STILL_S, arrived


def fill(folder):
    """Make a sound model folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_safetensors(folder / "model.safetensors", {"w": ("F32", [2, 2])})


@pytest.fixture(name="later")
def _later():
    """A time at which what is written now has held still long enough."""
    return time.time() + STILL_S + 1


def test_a_folder_counts_when_it_is_whole_and_still(tmp_path, later):
    """A copy that is under way is not taken: the job that waits for it would fail."""
    facts = {"path": str(tmp_path / "m")}
    assert not arrived(facts, now=later)
    fill(tmp_path / "m")
    assert not arrived(facts)
    assert arrived(facts, now=later)
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert not arrived(facts, now=later)


def test_a_model_in_the_hubs_cache(tmp_path, later):
    """What another program fetched into the cache is found by its id."""
    facts, environ = {"model": "org/name"}, {"HF_HUB_CACHE": str(tmp_path)}
    assert not arrived(facts, environ=environ, now=later)
    home = tmp_path / "models--org--name"
    fill(home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    assert arrived(facts, environ=environ, now=later)


@pytest.mark.parametrize("facts", [{}, {"model": "demo:lm"}, {"model": None}, {"path": "\0"}])
def test_what_names_no_place_never_arrives(facts):
    """Jobs that are blocked for another reason stay so."""
    assert not arrived(facts)
