"""A few cases of a product of parameters in place of all of them: every pair of values of any two parameters occurs."""

from itertools import combinations, product


def cover_pairs(*parameters):
    """Cases, one value of each parameter, that hold every pair; always the same ones.

    Greedy: the next case is the first in the product's order that has the most pairs not held so far.
    """
    places = [range(len(list(values))) for values in parameters]
    missing = {((i, a), (j, b)) for i, j in combinations(range(len(places)), 2) for a, b in product(places[i], places[j])}
    cases = list(product(*places))
    chosen = []
    while missing:
        best = max(cases, key=lambda case: len(pairs_of(case) & missing))
        missing -= pairs_of(best)
        chosen.append(best)
    return [tuple(list(values)[i] for values, i in zip(parameters, case, strict=True)) for case in chosen]


def pairs_of(case):
    """The pairs that a case holds, each value with the place of its parameter."""
    return set(combinations(enumerate(case), 2))
