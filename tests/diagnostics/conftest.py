"""What diagnostics tests share."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from unsample.diagnostics import _checks as _border


@pytest.fixture
def smallest_blocks(monkeypatch):
    """A function after which every statistic works through one item at a time."""

    def shrink() -> None:
        one = partial(_border.blocks, budget=1)
        for name, module in list(sys.modules.items()):
            if name.startswith("unsample.diagnostics") and name != _border.__name__ and hasattr(module, "blocks"):
                monkeypatch.setattr(module, "blocks", lambda items, values, budget=1: one(items, values))

    return shrink
