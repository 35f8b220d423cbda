"""A run is the same wherever its batches are worked on, and in whatever order."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pytest
import torch

import unsample as us
from unsample.pictures.read import demo_photos, read_photos
from unsample.runs.engine import Engine, Local
from unsample.runs.invert import invert_batch, invert_run
from unsample.runs.settings import InvertSettings


@dataclass(frozen=True)
class Reversed:
    """The last batch first."""

    model: us.Model

    def map(self, function, batches, on_step=None):
        return [function(self.model, *batch) for batch in reversed(batches)][::-1]


@dataclass(frozen=True)
class Pool:
    """Another process, which loads the model itself and is given the function and its arguments."""

    model: us.Model

    def map(self, function, batches, on_step=None):
        spawning = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawning, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(_on_the_bundled_model, [(function, *batch) for batch in batches])


def _on_the_bundled_model(task):
    function, *batch = task
    return function(us.load(device="cpu", size=(8, 8)), *batch)


@pytest.fixture(scope="module")
def model():
    return us.load(device="cpu", size=(8, 8))


def inverted(model, place, engine=None, on_step=None, **settings):
    """A run of three photographs in batches of two, from two starts."""
    asked = InvertSettings.of(model, steps=2, batch_size=2, forward=("0", "1"), **settings)
    return invert_run(model, read_photos(demo_photos()[:3], model.image_size), asked, place, on_step, engine)


@pytest.mark.parametrize(("engine", "keep"), [(Local, "all"), (Reversed, "all"), (Pool, "latent")])
def test_runs_are_bit_identical(model, tmp_path, engine, keep):
    """Reference: the run without an engine, every file of it but the manifest, which has times."""
    whole = inverted(model, tmp_path / "whole", keep=keep)
    assert isinstance(engine(model), Engine)
    found = inverted(model, tmp_path / "found", engine(model), keep=keep)
    files = sorted(file.relative_to(whole.path) for file in whole.path.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(found.path) for file in found.path.rglob("*") if file.is_file())
    assert len(files) == (6 if keep == "all" else 2)
    for file in files:
        if file.name != "manifest.json":
            assert (whole.path / file).read_bytes() == (found.path / file).read_bytes(), file
    assert [whole.manifest.results["cost"][start]["nfe"] for start in ("0", "1")] == [
        found.manifest.results["cost"][start]["nfe"] for start in ("0", "1")
    ]


@pytest.mark.parametrize("method", ["auto", "edict", "exact", "edit-friendly"])
def test_a_batch_is_a_pure_function_that_can_be_pickled(model, method):
    """Reference: the same batch without pickling."""
    settings = InvertSettings.of(model, method=method, steps=2, forward=("1",), keep="all", label="goldfish")
    pixels = torch.zeros(2, 3, 8, 8)
    batch = (settings, settings.starts["1"], pixels, ["a", "b"])
    expected = invert_batch(model, *batch)
    function, again = pickle.loads(pickle.dumps((invert_batch, batch)))
    found = function(model, *again)
    assert found.keys() == expected.keys() >= {"latent", "reconstruction", "start", "nfe", "nfe_up"}
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert len(tensor) == 2
    assert again[0] == settings
    assert torch.equal(pixels, torch.zeros(2, 3, 8, 8))


def test_a_run_goes_on_under_another_engine(model, tmp_path):
    """Reference: the run that was never interrupted; what was finished is not made again."""

    @dataclass(frozen=True)
    class Stops:
        def map(self, function, batches, on_step=None):
            yield from list(Reversed(model).map(function, batches))[:1]
            raise KeyboardInterrupt

    whole = inverted(model, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        inverted(model, tmp_path / "run", Stops())
    assert [file.name for file in (tmp_path / "run" / "parts").iterdir()] == ["0.000000.safetensors"]
    seen = []

    @dataclass(frozen=True)
    class Counts:
        def map(self, function, batches, on_step=None):
            seen.extend(batches)
            return Local(model).map(function, batches)

    run = inverted(model, tmp_path / "run", Counts())
    assert len(seen) == 3
    assert (run.path / "latents.safetensors").read_bytes() == (whole.path / "latents.safetensors").read_bytes()


@pytest.mark.parametrize("engine", [Local, Reversed])
def test_progress_ends_at_all_moves(model, tmp_path, engine):
    """3 pictures, 2 moves up and 2 down from the clean end, one less from start 1."""
    steps = []
    inverted(model, tmp_path / "run", engine(model), lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert steps[-1] == (3 * (4 + 3), 3 * (4 + 3))
    assert len({done for done, _ in steps}) == (2 * (4 + 3) if engine is Local else 4)
