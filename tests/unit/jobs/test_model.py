"""A job's id."""

from __future__ import annotations

from jobs.model import new_job_id


def test_an_id_is_ten_characters_each_of_which_may_be_any() -> None:
    """Every place takes all of the 32 characters, and no two ids of a few thousand are the same."""
    ids = {new_job_id() for _ in range(2000)}

    assert len(ids) == 2000
    assert {len(one) for one in ids} == {10}
    for place in range(10):
        assert {one[place] for one in ids} == set("0123456789abcdefghjkmnpqrstvwxyz")
