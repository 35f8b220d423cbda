"""A lab whose truth is known: independent pixels, a plain left half and a textured right half, and their exact network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unsample import Model, Schedule
from unsample import pictures as plotting
from unsample.models.analytic import gaussian
from unsample.studies.experiments import Lab

PLAIN, TEXTURED = 1e-5, 0.1
SIDE = 16


@pytest.fixture(autouse=True)
def no_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sheet of pictures beside the images of a lab takes longer than they do; tests of the command line draw it."""
    monkeypatch.setattr(plotting, "sheet", lambda *given, **named: b"")


@pytest.fixture
def halves() -> Model:
    """Data of variance 1e-5 in the left half and 0.1 in the right one, 3x16x16, independent pixels."""
    variances = torch.full((3, SIDE, SIDE), TEXTURED, dtype=torch.float64)
    variances[..., : SIDE // 2] = PLAIN
    model = gaussian(Schedule.from_betas(Schedule.linear_betas()), variances.flatten(), shape=(3, SIDE, SIDE))
    return replace(model, digest="halves")


@pytest.fixture
def lab(halves: Model, tmp_path: Path) -> Lab:
    return Lab(halves, tmp_path / "cache", batch_size=24)
