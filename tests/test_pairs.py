from itertools import chain

import pytest

from .pairs import cover_pairs, pairs_of


@pytest.mark.parametrize(
    ("counts", "most"), [((2, 3), 6), ((2, 2, 2), 4), ((7, 6, 2, 3), 48), ((3, 6, 2, 3), 22), ((1, 4), 4)], ids=str
)
def test_a_cover_holds_every_pair_in_fewer_cases(counts, most):
    """Reference: the pairs of the whole product; no cover is smaller than the product of the two largest parameters."""
    cases = cover_pairs(*map(range, counts))
    first, second = sorted(counts)[-2:]
    assert first * second <= len(cases) <= most
    everything = [()]
    for count in counts:
        everything = [(*case, value) for case in everything for value in range(count)]
    assert set(cases) <= set(everything)
    held, needed = (set(chain.from_iterable(map(pairs_of, each))) for each in (cases, everything))
    assert held == needed


def test_a_cover_is_the_same_each_time_and_holds_any_values():
    assert cover_pairs("ab", [None, 1], ((1, 2),)) == cover_pairs("ab", [None, 1], ((1, 2),))
    assert set(cover_pairs("ab", {"x": 0})) == {("a", "x"), ("b", "x")}
