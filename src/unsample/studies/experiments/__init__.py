"""The paper's tables and figures as experiments: each measures, draws, and judges the paper's claims.

`registry` knows them all, `recipes/` says at which sizes they run, `lab` makes images and latents once for all of them,
`sweep`, `paired` and `verdicts` compare, `findings` is what they return, and `report` writes it. One file per question.
"""

from __future__ import annotations

from .findings import Claim, Figure, Findings
from .lab import Lab, Pictures
from .registry import EXPERIMENTS, Experiment, Recipe, recipe
from .report import join, open_reports, side_by_side, write

__all__ = [
    "EXPERIMENTS",
    "Claim",
    "Experiment",
    "Figure",
    "Findings",
    "Lab",
    "Pictures",
    "Recipe",
    "join",
    "open_reports",
    "recipe",
    "side_by_side",
    "write",
]
