"""E16 on three untrained networks saved as snapshots, and its measures on tensors whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import unsample as us
from unsample.diagnostics import true_noise
from unsample.studies.experiments import Lab, recipe
from unsample.studies.experiments import e16_checkpoint as stages
from unsample.studies.experiments.e16_training import Training

STEPS_DONE = (10, 20, 80, 100)


@pytest.fixture(scope="module")
def lab(save_tiny, tmp_path_factory):
    """Snapshots on the line between two random networks, 80 % of the way at step 80."""
    folder = tmp_path_factory.mktemp("training")
    save_tiny(folder / "model", scheduler={"num_train_timesteps": 100})  # so little noise that any network samples images
    model = us.load(str(folder / "model"))
    final = model.network.unet.state_dict()
    generator = torch.Generator().manual_seed(0)
    other = {key: weight + 0.05 * torch.randn(weight.shape, generator=generator) for key, weight in final.items()}
    (folder / "snapshots").mkdir()
    for step in STEPS_DONE:
        weights = {key: torch.lerp(other[key], final[key], step / STEPS_DONE[-1]).half().contiguous() for key in final}
        save_file(weights, folder / "snapshots" / f"step-{step:06d}.safetensors")
    return Lab(model, folder / "cache", batch_size=20, checkpoints=folder)


@pytest.fixture(scope="module")
def found(lab):
    return Training(count=36, steps=3, coarse=2, division=18).run(lab)


def stage(lab, step):
    return stages.stage_of(lab, lab.checkpoints / "snapshots" / f"step-{step:06d}.safetensors", 36, 3)


def row(found, step, name):
    return found.metrics[f"step={step}"][name]


def test_all_checkpoints_start_from_the_same_noise(lab):
    noises = [stage(lab, step).pictures.source for step in STEPS_DONE]
    assert all(torch.equal(noises[0], noise) for noise in noises[1:])


def test_alignment_is_that_of_the_samples_and_latents(lab, found):
    """Reference: the definitions, in numpy, of what the checkpoint samples with the library's plain functions."""
    from unsample.studies.experiments.checkpoints import load_checkpoint

    outcome = {}
    for step in (20, 100):
        model = load_checkpoint(lab.checkpoints / "snapshots" / f"step-{step:06d}.safetensors", lab.model)
        noise = us.uses.sample.draw_noise(model, 36)
        images = us.sample(model, noise, steps=3).images
        latent = us.invert(model, images, steps=3, method=us.DDIM(), start=us.FromImage()).latent
        outcome[step] = images.clamp(-1, 1).double().numpy(), latent.double().numpy()
    for which, name in enumerate(("generations", "latents")):
        a, b = (outcome[step][which].reshape(36, -1) for step in (20, 100))
        a, b = a - a.mean(0), b - b.mean(0)
        cka = np.square(a.T @ b).sum() / np.sqrt(np.square(a.T @ a).sum() * np.square(b.T @ b).sum())
        assert row(found, 20, f"CKA, {name}")["value"] == pytest.approx(cka, rel=1e-4)
    a, b = (outcome[step][0] for step in (20, 100))
    error = 10 * np.log10(4 / np.square(a - b).mean((1, 2, 3)))
    assert row(found, 20, "PSNR, dB")["value"] == pytest.approx(error.mean(), rel=1e-4)


def test_angles_are_those_of_a_loop(lab, found):
    """Reference: arc cosines, item by item."""
    made = stage(lab, 80)
    angles = []
    for image, noise, latent in zip(made.pictures.pixels, made.pictures.source, made.inverted.latent, strict=True):
        u, v = ((one - latent).double().flatten() for one in (image, noise))
        angles.append(torch.rad2deg(torch.arccos(u @ v / (u.norm() * v.norm()))))
    assert row(found, 80, "angle at the latent")["value"] == pytest.approx(float(torch.stack(angles).mean()), abs=1e-4)


def test_nearness_grows_with_training_and_the_last_is_not_compared_with_itself(found):
    near = [row(found, step, "CKA, generations")["value"] for step in STEPS_DONE[:-1]]
    assert near == sorted(near)
    assert "CKA, generations" not in found.metrics["step=100"]
    assert "std plain" in found.metrics["step=100"]


def test_settling_is_the_ratio_above_chance(found):
    """Reference: by hand from the rows; 20 and 80 of 100 steps are there."""
    early, late = (row(found, step, "CKA, generations") for step in (20, 80))
    ratio = np.divide(*((x["value"] - x["null"]["mean"]) / (1 - x["null"]["mean"]) for x in (early, late)))
    claim = found.claims[0]
    assert f"ratio above chance {ratio:.4g} [" in claim.numbers
    assert claim.sentence.startswith("Generations settle early")
    assert claim.holds in (True, False, None)


def test_a_checkpoint_whose_samples_cannot_be_inverted_is_told_without_latents(lab, monkeypatch):
    monkeypatch.setattr(stages, "IMAGE_LIMIT", 1e-3)
    assert stage(lab, 10).inverted is None
    monkeypatch.undo()
    wild = replace(stage(lab, 10), inverted=None)
    reported = stages.measure(lab, wild, stage(lab, 100), None, 2, 36)
    assert reported.angle is None
    assert set(reported.rows) == {"CKA, generations", "SVCCA, generations", "cosine, generations", "PSNR, dB"}


@pytest.mark.parametrize("remove", [STEPS_DONE[1:], STEPS_DONE])
def test_too_few_checkpoints_are_refused(lab, tmp_path, remove):
    for step in set(STEPS_DONE) - set(remove):
        file = f"step-{step:06d}.safetensors"
        (tmp_path / file).write_bytes((lab.checkpoints / "snapshots" / file).read_bytes())
    with pytest.raises(us.errors.UnsampleError, match=r"two or more|no checkpoints"):
        Training(8, 2, 2, 8).run(replace(lab, checkpoints=tmp_path))


def test_without_a_folder_it_says_what_to_give(lab):
    with pytest.raises(us.ArgumentError, match="--checkpoints FOLDER") as error:
        recipe("E16").make("smoke").run(replace(lab, checkpoints=None))
    assert "\n" not in str(error.value)


def test_all_leaves_it_out_without_checkpoints(unsample, halves, monkeypatch, tmp_path):
    from unsample import models
    from unsample.studies import experiments

    few = {name: experiments.EXPERIMENTS[name] for name in ("E1", "E16")}
    monkeypatch.setattr(experiments, "EXPERIMENTS", few)
    monkeypatch.setattr(models, "load", lambda *names, **options: halves)
    done = unsample("experiment", "all", "--size", "smoke", "--out", tmp_path / "out", "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    assert "E16 is left out: no checkpoints: give --checkpoints FOLDER" in done.err
    assert (tmp_path / "out" / "E1" / "report.md").is_file()
    assert not (tmp_path / "out" / "E16").exists()


def test_the_distance_to_photographs_is_at_equal_numbers(lab, tmp_path, monkeypatch):
    """Reference: the distance of the same features, computed by hand; the null needs photographs of its own."""
    from unsample.diagnostics import frechet
    from unsample.models.classifier import Classifier, ResidualNetwork
    from unsample.pictures.read import Photo, Reading

    torch.manual_seed(0)
    network = ResidualNetwork([4, 6], [1, 2], 3).eval()
    judge = Classifier(network, ("a", "b", "c"), 8, torch.device("cpu"), "tiny", "0")
    photos = [Photo.of(image.clamp(-1, 1), f"{i}") for i, image in enumerate(true_noise((50, 3, 8, 8), draw=9) / 3)]
    some = lambda places, size, count, strict: Reading(photos[:count])  # noqa: E731
    monkeypatch.setattr("unsample.studies.experiments.lab.read_all", some)
    shown = stage(lab, 100).pictures.shown
    (found,) = stages._quality(replace(lab, data=("some.png",)), shown, judge).values()
    features = [judge.features(x) for x in (shown[:25], torch.stack([photo.pixels for photo in photos[:25]]))]
    assert found.value == pytest.approx(frechet(*features, features="tiny").value, rel=1e-6)
    assert "25 and 25 images" in found.note
    assert found.null.mean > 0
    del photos[30:]
    (few,) = stages._quality(replace(lab, data=("some.png",)), shown, judge).values()
    assert np.isnan(few.value)
    assert stages._quality(lab, shown, judge) == stages._quality(replace(lab, data=("some.png",)), shown, None) == {}
