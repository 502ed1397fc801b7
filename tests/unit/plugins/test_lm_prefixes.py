"""Beginnings that several prompts have."""

from __future__ import annotations

from plugins.lm_prefixes import Prefixes


class Layer:
    """A cache of one number a token; trimmable or not."""

    def __init__(self, tokens, *, trimmable=True):
        self.tokens = list(tokens)
        self._trimmable = trimmable

    @property
    def nbytes(self):
        return len(self.tokens)

    def is_trimmable(self):
        return self._trimmable

    def trim(self, count):
        self.tokens = self.tokens[: len(self.tokens) - count]
        return count


def _cache(tokens, **kwargs):
    return [Layer(tokens, **kwargs)]


BASE = list(range(100))


def test_the_longest_beginning_is_found_and_cut_to_what_fits():
    """Of several the longest common one; its copy holds exactly that; the last token is always left over."""
    prefixes = Prefixes(10_000)
    prefixes.keep(BASE[:40], _cache(BASE[:40]))
    prefixes.keep([*BASE[:60], 999, 998], _cache([*BASE[:60], 999, 998]))
    cache, length = prefixes.find([*BASE[:80]])
    assert length == 60
    assert cache[0].tokens == BASE[:60]
    assert prefixes.find(BASE[:60])[1] == 59
    assert prefixes.find([5, *BASE]) == ([], 0)
    assert prefixes.find(BASE[:20]) == ([], 0)


def test_what_cannot_be_cut_serves_only_whole():
    """A cache without `trim` is used when all of it fits, and never otherwise."""
    prefixes = Prefixes(10_000)
    prefixes.keep(BASE[:60], _cache(BASE[:60], trimmable=False))
    assert prefixes.find([*BASE[:50], 7, 8])[1] == 0
    assert prefixes.find(BASE[:61])[1] == 60


def test_a_copy_is_ones_own():
    """Whoever got one may change it; the next one gets what was kept."""
    prefixes = Prefixes(10_000)
    prefixes.keep(BASE[:60], _cache(BASE[:60]))
    prefixes.find(BASE)[0][0].trim(30)
    assert prefixes.find(BASE)[1] == 60


def test_the_least_recently_used_goes_first_and_the_cap_holds():
    """Being found counts as use, age does not; more than everything is not kept at all."""
    prefixes = Prefixes(130)
    one, two, three = ([start, *BASE[:39]] for start in (201, 202, 203))
    for tokens in (one, two, three):
        prefixes.keep(tokens, _cache(tokens))
    prefixes.find([*one, 1])
    four = [204, *BASE[:39]]
    prefixes.keep(four, _cache(four))
    assert [prefixes.find([*tokens, 1])[1] for tokens in (one, two, three, four)] == [40, 0, 40, 40]
    assert prefixes.size <= 130
    prefixes.keep(list(range(1000)), _cache(range(1000)))
    assert prefixes.size <= 130


def test_a_longer_one_replaces_its_own_beginnings():
    """They would only take space: it serves for them too."""
    prefixes = Prefixes(10_000)
    prefixes.keep(BASE[:40], _cache(BASE[:40]))
    prefixes.keep(BASE[:60], _cache(BASE[:60]))
    assert prefixes.size == 60


def test_sharing_is_seen_before_anything_is_computed():
    """The boundary is where two recent prompts part; a prompt shares nothing with itself alone."""
    prefixes = Prefixes(10_000)
    prefixes.see([*BASE[:50], 1])
    assert prefixes.shared([*BASE[:50], 1]) == 0
    prefixes.see([*BASE[:50], 2])
    assert prefixes.shared([*BASE[:50], 1]) == 50
    prefixes.see([*BASE[:50], 1])
    assert prefixes.shared([*BASE[:50], 1]) == 50
    assert prefixes.shared([9, *BASE]) == 0


def test_nothing_is_found_in_another_space():
    """What was computed with an adapter is found with the same one only, and is no common beginning for others."""
    prefixes = Prefixes(10_000)
    prefixes.keep(BASE[:60], _cache(BASE[:60]), "adapter")
    prefixes.keep(BASE[:40], _cache(BASE[:40]))
    assert prefixes.find(BASE, "adapter")[1] == 60
    assert prefixes.find(BASE)[1] == 40
    assert prefixes.find(BASE, "another") == ([], 0)
    prefixes.see(BASE)
    prefixes.see(BASE, "adapter")
    assert prefixes.shared(BASE) == 0
    prefixes.see(BASE[:50])
    assert prefixes.shared(BASE) == 50
    assert prefixes.shared(BASE, "adapter") == 0


class Kept:
    """Notes what it is offered."""

    def __init__(self):
        self.offered = []

    def find(self, tokens, space, *, more_than):
        """Have nothing."""

    def offer(self, tokens, cache, space):
        """Note it."""
        assert cache[0].tokens == list(tokens)
        self.offered.append((len(tokens), space))


def test_only_what_was_of_use_again_is_offered_to_the_disk():
    """Being kept is no use; being found is, as far as it was found; another space is another thing."""
    keeper = Kept()
    prefixes = Prefixes(10_000, keeper=keeper)
    prefixes.keep(BASE, _cache(BASE), "adapter")
    prefixes.find([*BASE[:40], 7, 8])
    assert keeper.offered == []
    prefixes.find([*BASE[:40], 7, 8], "adapter")
    prefixes.find([*BASE[:60], 7, 8], "adapter")
    prefixes.find([*BASE[:50], 7, 8], "adapter")
    assert keeper.offered == [(40, "adapter"), (60, "adapter"), (60, "adapter")]


def test_a_conversation_is_offered_as_a_whole_and_a_template_is_not():
    """The turn after one that was continued will be continued too; an answer to a template is its asker's alone."""
    keeper = Kept()
    prefixes = Prefixes(10_000, keeper=keeper)
    prefixes.keep(BASE[:40], _cache(BASE[:40]))
    prefixes.find([*BASE[:40], 7])
    prefixes.keep([*BASE[:40], 7, 8], _cache([*BASE[:40], 7, 8]), answer=True)
    assert keeper.offered == [(40, ""), (40, "")]

    prefixes.clear()
    keeper.offered.clear()
    prefixes.keep(BASE[:40], _cache(BASE[:40]), answer=True)
    prefixes.find(BASE[:60])
    prefixes.keep(BASE[:80], _cache(BASE[:80]), answer=True)
    assert keeper.offered == [(40, ""), (80, "")]


def test_what_was_never_of_use_goes_first():
    """A row of prompts that have nothing in common drives out no template."""
    prefixes = Prefixes(130)
    prefixes.keep(BASE[:40], _cache(BASE[:40]))
    prefixes.find(BASE)
    for start in range(300, 310):
        prefixes.keep([start, *BASE[:39]], _cache([start, *BASE[:39]]))
    assert prefixes.find(BASE)[1] == 40
    prefixes.allow(60)
    assert prefixes.find(BASE)[1] == 40
    assert prefixes.size <= 60
