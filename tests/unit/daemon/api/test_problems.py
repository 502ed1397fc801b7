"""Errors as problem+json, both ways."""

import json

import pytest

from daemon.api.problems import ERROR_STATUS, encode, error_from, headers_for, problem_of, status_of
from jobs import errors


def tree(kind=errors.MlxdError):
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == "jobs.errors":
            yield from tree(child)


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_has_a_status_and_survives_the_journey(kind):
    """Each class of the tree stands in the table, and its problem document gives the same error back."""
    assert kind in ERROR_STATUS
    document = json.loads(encode(problem_of(kind("What happened.", job="abc", detail="hidden"))))
    back = error_from(document, status=document["status"])
    assert type(back) is kind
    assert back.message == "What happened."
    assert back.facts == {"job": "abc"}
    assert document["type"] == "urn:mlxd:" + kind.slug


def test_slugs_are_unique():
    """A slug names one class."""
    assert len({kind.slug for kind in tree()}) == len(ERROR_STATUS)


def test_an_unlisted_class_answers_as_its_parent():
    """A plugin's own error is no surprise."""

    class Odd(errors.JobConflict):
        """Odd."""

    assert status_of(Odd()) == 409


def test_unknown_types_are_read_by_their_status():
    """An answer of an unknown type is the caller's mistake below 500 and the daemon's above."""
    assert type(error_from({"type": "urn:mlxd:not-found", "detail": "x"}, status=404)) is errors.InvalidRequest
    assert type(error_from({}, status=500)) is errors.MlxdError
    assert error_from({}, status=500).message == "The daemon answered 500."
    assert error_from({"title": "Oh", "message": "x"}, status=500).message == "Oh"


def test_waiting_helps_is_said():
    """Backpressure carries Retry-After, from the facts if they say."""
    assert headers_for(429, {}) == {"Retry-After": "5"}
    assert headers_for(429, {"retry_after_s": 0.2}) == {"Retry-After": "1"}
    assert headers_for(404, {}) == {}
