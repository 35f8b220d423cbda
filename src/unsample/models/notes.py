"""Notes of a model: what its files ask for and no inversion can do."""

from __future__ import annotations

VARIANCE_DROPPED = "the network's learned variance is dropped: a deterministic move has none"


def clipping_ignored(setting: str) -> str:
    """The note for a setting that clips x0, as `clip_sample` does."""
    return f"{setting} is ignored: what it clips cannot be undone"
