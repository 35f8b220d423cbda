"""A lab whose truth is known: independent pixels, a plain left half and a textured right half, and their exact network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unsample import Model, Schedule
from unsample import pictures as plotting
from unsample.models.analytic import bench_field, gaussian
from unsample.studies.experiments import Lab
from unsample.studies.experiments.lab import RoundTrip

PLAIN, TEXTURED = 1e-5, 0.1
SIDE = 16


@pytest.fixture(autouse=True)
def no_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sheet of pictures beside the images of a lab takes longer than they do; tests of the command line draw it."""
    monkeypatch.setattr(plotting, "sheet", lambda *given, **named: b"")


@pytest.fixture
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, but in tests whose name says that they are drawn: drawing takes most of the time."""
    if "drawn" not in request.node.name:
        for name in ("bars", "curves", "heatmaps", "picture_rows", "triangles"):
            monkeypatch.setattr(plotting, name, lambda *given, **named: plotting.Drawing(b"", b""))


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch):
    """A function that lets every inversion return one latent."""

    def give(latent: torch.Tensor) -> None:
        monkeypatch.setattr(Lab, "inverted", lambda *given, **named: RoundTrip(latent, latent.clamp(-1, 1), 6))

    return give


@pytest.fixture(scope="session")
def halves() -> Model:
    """Data of variance 1e-5 in the left half and 0.1 in the right one, 3x16x16, independent pixels."""
    variances = torch.full((3, SIDE, SIDE), TEXTURED, dtype=torch.float64)
    variances[..., : SIDE // 2] = PLAIN
    model = gaussian(Schedule.from_betas(Schedule.linear_betas()), variances.flatten(), shape=(3, SIDE, SIDE))
    return replace(model, digest="halves")


@pytest.fixture
def lab(halves: Model, tmp_path: Path) -> Lab:
    return Lab(halves, tmp_path / "cache", batch_size=24)


@pytest.fixture(scope="module")
def kept_lab(halves: Model, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The same, kept for all tests of a file."""
    return Lab(halves, tmp_path_factory.mktemp("cache"), batch_size=24)


@pytest.fixture(scope="session")
def field_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A smooth Gaussian field, one channel of 16x16, plain in one half."""
    return Lab(replace(bench_field()[0], digest="bench"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def pixels() -> Model:
    """Independent pixels of variance 0.2, 3x16x16."""
    model = gaussian(Schedule.from_betas(Schedule.linear_betas()), torch.full((768,), 0.2), shape=(3, SIDE, SIDE))
    return replace(model, digest="pixels")
