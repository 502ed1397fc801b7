"""What a submitter may send."""

import pytest
from pydantic import ValidationError

from daemon.api.submission import MAX_DEPTH, Submission, check_json
from jobs.model import NewJob


def nested(levels):
    value = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_a_submission_becomes_a_new_job():
    """What is sound comes out as the plain value, equal to one made directly."""
    said = {"task": "generate", "params": {"prompt": "ü", "n": [1, 2.5, None, True]}, "lane": "batch", "priority": 3}
    assert Submission.model_validate(said).new_job() == NewJob.model_validate(said)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}, nested(MAX_DEPTH)])
def test_what_json_should_not_carry_is_refused(bad):
    """No NaN, no half characters (in keys neither), no bottomless nesting."""
    with pytest.raises(ValidationError):
        Submission.model_validate({"task": "generate", "params": {"x": bad}})


def test_reasonable_nesting_is_fine():
    """A schema of ordinary depth passes."""
    check_json(nested(MAX_DEPTH - 2))


@pytest.mark.parametrize("key", ["directory", "input"])
def test_places_are_absolute(key):
    """The daemon runs elsewhere: a relative path would mean another folder to it than to its submitter."""
    with pytest.raises(ValidationError, match="'notes' must be an absolute path"):
        Submission.model_validate({"task": "generate", "placement": {key: "notes"}})
    assert Submission.model_validate({"task": "generate", "placement": {key: "/notes"}}).new_job().task == "generate"
    with pytest.raises(ValidationError, match="must be an absolute path"):
        Submission.model_validate({"task": "generate", "placement": {key: "/notes\0"}})


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_utc_cannot_tell_is_refused(when):
    """The ledger writes down UTC; a day before the first or after the last one was an error of the daemon's once."""
    with pytest.raises(ValidationError, match="between the years"):
        Submission.model_validate({"task": "generate", "not_before": when})
