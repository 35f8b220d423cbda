"""E12 on the bundled model and by hand; E13 on a network whose variations are known in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.core.rng import ItemNoise
from unsample.models.classifier import load_classifier
from unsample.runs.directory import Run
from unsample.studies.experiments import Lab, recipe, write
from unsample.studies.experiments.e12_editing import Editing, _Edits
from unsample.studies.experiments.e13_varied import StochasticEditing
from unsample.studies.experiments.lab import labelled

from .closed_form import gain


@pytest.fixture(scope="module")
def bundled():
    return us.load(device="cpu")


def test_edits_are_judged_by_hand(bundled, tmp_path):
    """Reference: noise and latents resampled by `us.sample`, distances and the classifier's probabilities one by one."""
    lab = Lab(bundled, tmp_path / "cache", batch_size=2)
    found = Editing(3, 3, 2.0, ("1",)).run(lab)
    pictures, labels = labelled(lab, 3, 3)
    assert labels == [0, 66, 133]
    targets, judge = [100, 166, 33], load_classifier(device="cpu")
    ids = [photo.id for photo in pictures.photos]
    known = {"method": us.DDIM(), "condition": labels, "steps": 3, "items": ids}
    latents = {
        "noise": pictures.noise,
        "DDIM": us.invert(bundled, pictures.pixels, start=us.FromImage(), **known).latent,
        "DDIM, k = 1": us.invert(bundled, pictures.pixels, start=us.ForwardNoise(steps=1), **known).latent,
    }
    for title, latent in latents.items():
        images = us.sample(bundled, latent, steps=3, condition=targets, guidance=2.0).images.clamp(-1, 1)
        apart = [float((a - b).square().mean().sqrt()) for a, b in zip(images, pictures.shown, strict=True)]
        back = us.sample(bundled, latent, steps=3, condition=labels).images.clamp(-1, 1)
        moved = [float((a - b).square().mean().sqrt()) for a, b in zip(images, back, strict=True)]
        assert found.metrics["ways"][title]["change"] == pytest.approx(moved, abs=1e-4)
        odds = [float(judge.probabilities(one[None])[0, target]) for one, target in zip(images, targets, strict=True)]
        assert found.metrics["ways"][title]["distance"] == pytest.approx(apart, abs=1e-4)
        assert found.metrics["ways"][title]["alignment"] == pytest.approx(odds, abs=1e-4)
    page = write(Run.open(tmp_path / "E12", "experiment", {}, []), recipe("E12"), "smoke", lab, found)
    assert page.read_text().count("<img") == 2


def test_claims_follow_from_the_ways(bundled, tmp_path, monkeypatch):
    """Edits that are invented: latents obey half as much as noise, the forward start nearly as much."""
    lab = Lab(bundled, tmp_path / "cache", batch_size=4)
    ramp = torch.linspace(0.2, 0.3, 4)
    made = {"noise": 1.0, "DDIM": 0.5, "DDIM, k = 1": 0.9, "look-ahead, k = 1": 0.6}
    monkeypatch.setattr(_Edits, "distances", {title: share * ramp for title, share in made.items()})
    monkeypatch.setattr(_Edits, "changes", {title: share * ramp for title, share in made.items()})
    monkeypatch.setattr(_Edits, "alignments", {title: share * ramp for title, share in made.items()})
    claims = Editing(4, 2, 2.0, ("1",)).run(lab).claims
    assert [claim.holds for claim in claims] == [True, True, False] * 3
    assert claims[1].numbers.startswith("80 % [80, 80]")


def test_a_model_of_other_classes_is_refused(toy, lab, tmp_path):
    for model in (replace(toy(), digest="toy"), lab.model):
        with pytest.raises(us.ArgumentError, match="knows the classes of tiny-imagenet-32"):
            Editing(3, 3, 2.0, ("1",)).run(Lab(model, tmp_path / "cache"))


def test_variations_of_a_linear_model_are_the_noise_times_a_gain(lab, tmp_path):
    """eps = sigma x / (alpha^2 v + sigma^2) for pixels of variance v: DDIM from level k multiplies x_k by a known gain."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(96, 160, (16, 16, 3)).astype(np.uint8)).save(tmp_path / "data" / f"{i}.png")
    lab = replace(lab, data=(str(tmp_path / "data"),))
    found = StochasticEditing(3, 6, 3, (1, 3)).run(lab)
    photographs, grid = lab.photographs(3), lab.model.grid(6)
    images, ids = photographs.pixels, [photo.id for photo in photographs.photos]
    for k in (1, 3):
        moves = [[gain(v, level, level - 1, level, 6) for level in range(k, 0, -1)] for v in [1e-5] * 8 + [0.1] * 8]
        down = torch.tensor(moves, dtype=torch.float64).prod(1)
        draws = [ItemNoise(seed, ids).draw(images.shape) for seed in range(3)]
        made = torch.stack([down * (grid[k].alpha * images + grid[k].sigma * noise) for noise in draws], dim=1).clamp(-1, 1)
        pairs = [(made[:, i] - made[:, j]).square().flatten(1).mean(1).sqrt() for i, j in ((0, 1), (0, 2), (1, 2))]
        far = (made - images[:, None]).square().flatten(2).mean(2).sqrt().mean(1)
        reported = found.metrics[str(k)]
        assert reported["nfe"] == (us.LookAhead().evaluations(6 - k) + 6, k)
        whole = max(reported["skipped"])  # how far going up and back may move a result
        assert reported["diversity"] == pytest.approx(torch.stack(pairs).mean(0).tolist(), abs=2 * whole + 1e-6)
        assert reported["fidelity"] == pytest.approx(far.tolist(), abs=2 * whole + 1e-6)
    some, further, away, little = found.claims
    assert some.holds is True
    assert further.holds is True
    assert away.holds is True
    assert ("k = 1" in little.numbers, "k = 3" in little.numbers) == (True, True)
    page = write(Run.open(tmp_path / "E13", "experiment", {}, []), recipe("E13"), "smoke", lab, found)
    assert page.read_text().count("<img") == 2


def test_one_draw_has_nothing_to_differ_from(lab):
    with pytest.raises(us.ArgumentError, match="seeds: expected at least 2"):
        StochasticEditing(3, 6, 1, (1,)).run(lab)


def test_two_draws_are_enough(lab):
    found = StochasticEditing(2, 3, 2, (1, 2)).run(lab)
    assert len(found.figures) == 2
