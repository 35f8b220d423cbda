"""What diagnostics tests share: small blocks, refusals, references by the definition."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from unsample.diagnostics import _checks
from unsample.errors import ArgumentError


@pytest.fixture
def smallest_blocks(monkeypatch):
    """A function after which every statistic works through `budget` values, at least one item, at a time."""

    def shrink(budget: int = 1) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("unsample.diagnostics") and module is not _checks and hasattr(module, "blocks"):
                monkeypatch.setattr(module, "blocks", lambda items, values, _=0: _checks.blocks(items, values, budget))

    return shrink


@pytest.fixture
def refuses(untyped):
    """A function that asserts that a call is refused with a message, type checks being off."""

    def refuses(call, says) -> None:
        with pytest.raises(ArgumentError, match=says):
            call()

    return refuses


def jackknife_of(statistic, count, groups):
    """Standard error by leaving out each group in turn; `statistic` is of the indices that are kept."""
    left = np.array([statistic(np.flatnonzero(np.arange(count) % groups != group)) for group in range(groups)])
    return math.sqrt((groups - 1) / groups * ((left - left.mean()) ** 2).sum())


def naive_distances(states, noise, latent, points):
    """Of each item to each point of the line from noise to latent, one by one."""
    rows = zip(*(t.double() for t in (states, noise, latent)), strict=True)
    return [[(x - (n + a * (z - n))).norm().item() for a in np.linspace(0, 1, points)] for x, n, z in rows]
