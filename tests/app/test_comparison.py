"""Ways of inverting side by side: equal cost, shared runs, failures shown."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import unsample as us
from unsample import comparison, jobs
from unsample.io import demo_photos, read_photos
from unsample.methods import METHODS, parse_method
from unsample.starts import parse_start
from unsample.steppers import evaluations_on


@pytest.fixture(scope="module")
def model():
    return us.load()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("forward", ["0", "2", "4%"])
def test_equal_cost_spends_the_budget_and_no_more(model, method, forward):
    """Reference: one step more would not fit."""
    (way,) = comparison.equal_cost([method], [forward], 60, model)

    def cost(steps: int) -> int:
        grid = model.grid(steps)
        return evaluations_on(parse_method(method), list(grid.up(parse_start(forward).index(grid))))

    assert cost(way.steps) <= 60 < cost(way.steps + 1)


def test_a_budget_too_small_is_refused(model):
    with pytest.raises(us.ArgumentError, match="too few for one move of gradient"):
        comparison.equal_cost(["gradient"], ["0"], 10, model)


def test_compare_writes_table_picture_and_json(unsample, tmp_path):
    photos = [str(photo) for photo in demo_photos()[:2]]
    methods = ("ddim", "renoise:iterations=1:average=(0,1)", "bdia")
    done = unsample("compare", *photos, "--methods", ",".join(methods), "--nfe", 4, "--forward", "0,1", "--out", tmp_path)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "comparison.json").read_text())["ways"]
    assert [(way["method"], way["forward"]) for way in found] == [(m, f) for m in methods for f in ("0", "1")]
    assert [way["steps"] for way in found] == [4, 5, 2, 3, 4, 5]
    assert all(way["nfe_up"] == 4 for way in found)
    assert "true noise" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_a_way_measured_before_is_read_back(model, tmp_path, monkeypatch):
    photos = read_photos(demo_photos()[:2], model.image_size)
    way = comparison.Way("ddim", "1", 3, "once")
    first = comparison.measure(model, photos, way, tmp_path)
    monkeypatch.setattr(jobs, "invert", None)
    again = comparison.measure(model, photos, way, tmp_path)
    assert torch.equal(first.psnr, again.psnr)


def test_divergence_is_shown_not_hidden(model, tmp_path, monkeypatch):
    real = jobs.invert

    def spoiled(*given, **named):
        trajectory = real(*given, **named)
        trajectory.latent[0] = torch.inf
        return trajectory

    monkeypatch.setattr(jobs, "invert", spoiled)
    photos = read_photos(demo_photos()[:2], model.image_size)
    found = comparison.compare(model, photos, tmp_path, methods=["ddim"], forwards=["1"], nfe=2)
    assert next(iter(found.values())).failure
    assert "diverged" in comparison.table(found).markdown()


def test_a_reversible_method_reconstructs_exactly_with_its_memory(unsample, tmp_path):
    """A run samples back with the method's own memory: to rounding error, whatever the latent is like."""
    unsample("invert", demo_photos()[0], "--method", "bdia", "--steps", 10, "--forward", "1", "--out", tmp_path / "run")
    rows = json.loads(unsample("diagnose", tmp_path / "run", "--json").out)["forward start 1"]["rows"]
    mae = next(row["value"] for row in rows if row["name"] == "MAE")
    x1_noise = us.load().grid(10)[1].sigma  # what remains is the forward start's own noise, undone by the last move
    assert mae < 5 * x1_noise
    assert unsample("reconstruct", tmp_path / "run", "--out", tmp_path / "back").code == 0
    again = load_file(tmp_path / "back" / "latents.safetensors")["samples"]
    assert torch.equal(again, load_file(tmp_path / "run" / "latents.safetensors")["reconstruction.1"])


def test_methods_lists_every_method(unsample):
    listed = json.loads(unsample("methods", "--json").out)
    assert [row["method"] for row in listed] == list(METHODS)
    assert all(row["source"] for row in listed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ddim:eval_at", "options like"),
        ("ddim:speed=3", "unknown option"),
        ("heun:order=1", "unknown option"),
        ("nope", "unknown"),
    ],
)
def test_methods_people_mistype(text, says):
    with pytest.raises(us.ArgumentError, match=says):
        parse_method(text)
