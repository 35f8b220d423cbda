"""Training runs of every kind of network at toy size."""

import dataclasses
import json
from types import SimpleNamespace

import networks
import numpy as np
import pytest
import torch
import train as train_module
from conftest import DIT, LATENT_UNET, assert_same_run, final_state, png
from data import Batches, Images, Latents, pack, shrink, spread
from losses import plot, read_log
from objectives import alpha_bar
from PIL import Image
from recipe import RecipeError
from steps import descend
from train import Run, train
from trainer import Trainer

import unsample as us

KINDS = {
    "pixel": {"prediction": "v_prediction"},
    "pixel flow": {"prediction": "flow"},
    "latent": {"model": LATENT_UNET, "latents": True},
    "latent flow": {"model": LATENT_UNET, "latents": True, "prediction": "flow"},
    "dit": {"model": DIT, "latents": True},
    "flow": {"model": DIT, "latents": True, "prediction": "flow"},
}

PLOT = train_module.plot


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Drawing takes longer than all the rest of a toy's run."""
    monkeypatch.setattr(train_module, "plot", lambda *_: None)


@pytest.fixture
def run(recipe, source, latents, codec):
    """A function that trains a kind of network, with changes to the recipe, in a folder."""

    def run(out, kind="pixel", init=None, minutes=None, **changes):
        changed = dataclasses.replace(recipe, **{**KINDS[kind], **changes})
        data = latents if changed.latents else source
        return train(changed, data, out, init, autoencoder=codec, minutes=minutes, device="cpu")

    return run


# Data


def test_shrink_averages_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    expected = pixels.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(shrink(png(pixels), 4) - expected).max() <= 0.5
    with pytest.raises(ValueError, match="cannot average"):
        shrink(png(pixels), 3)


def test_pack(source, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    images_path, labels_path = pack(source, tmp_path, "train", 8)
    pixels, labels = np.load(images_path), np.load(labels_path)
    assert pixels.shape == (24, 3, 8, 8)
    assert pixels.dtype == np.uint8
    assert labels.tolist() == [0, 1, 2] * 8
    first_of_second_shard = pq.read_table(source / "train-1.parquet")["image"][0].as_py()["bytes"]
    assert np.array_equal(pixels[12], shrink(first_of_second_shard, 8))
    assert {file.name for file in tmp_path.iterdir()} == {"train-8.npy", "train-labels.npy"}

    written = images_path.stat().st_mtime_ns
    pack(source, tmp_path, "train", 8)
    assert images_path.stat().st_mtime_ns == written
    with pytest.raises(FileNotFoundError):
        pack(source, tmp_path, "test", 8)


def test_batches_visit_every_image_once_an_epoch_and_depend_only_on_the_step():
    pixels = np.zeros((10, 3, 2, 2), np.uint8)
    pixels[..., 1] = 255
    images = Images(pixels, np.arange(10))
    batches = Batches(images, size=3, seed=1)
    epochs = [torch.cat([batches(step)[1] for step in steps]).tolist() for steps in (range(3), range(3, 6))]
    assert all(len(set(labels)) == 9 for labels in epochs)
    assert epochs[0] != epochs[1]
    again, labels = Batches(images, size=3, seed=1)(4)
    assert torch.equal(batches(4)[0], again)
    assert torch.equal(batches(4)[1], labels)
    assert (again.min(), again.max()) == (-1, 1)
    lefts = {image[0, 0, 0].item() for step in range(6) for image in batches(step)[0]}
    assert lefts == {-1, 1}, "some are mirrored and some are not"
    with pytest.raises(ValueError, match="at most the 10 images"):
        Batches(images, size=11, seed=1)


def test_batches_of_latents_take_an_image_or_its_mirror():
    """Reference: the batches of images of the same seed: the same items, the same mirrored."""
    pixels = np.zeros((10, 3, 2, 2), np.uint8)
    pixels[..., 1] = 255
    values = np.arange(20).reshape(10, 2, 1, 1, 1).astype(np.float16)
    images, latents = Images(pixels, np.arange(10)), Latents(values, np.arange(10))
    for step in range(6):
        (shown, labels), (taken, own) = (Batches(each, size=3, seed=1)(step) for each in (images, latents))
        assert torch.equal(labels, own)
        assert taken.flatten().tolist() == (2 * labels + (shown[:, 0, 0, 0] == 1)).tolist()
        assert taken.dtype == torch.float32


@pytest.mark.parametrize("kind", [Images, Latents])
def test_batches_of_data_on_a_device_are_those_from_the_disk(kind):
    """Reference: numpy. Tensors on the CPU stand for a GPU's."""
    rng = np.random.default_rng(0)
    shape = (10, 3, 2, 2) if kind is Images else (10, 2, 3, 2, 2)
    values, labels = rng.integers(0, 256, shape).astype(np.uint8 if kind is Images else np.float16), rng.integers(0, 9, 10)
    on_disk, there = kind(values, labels), kind(torch.from_numpy(values), torch.from_numpy(labels))
    for step in range(5):
        for one, other in zip(Batches(on_disk, 4, 0)(step), Batches(there, 4, 0)(step), strict=True):
            assert torch.equal(one, other)


def test_spread_covers_the_split():
    index = spread(Images(np.zeros((100, 3, 1, 1), np.uint8), np.zeros(100, np.int64)), 4)
    assert index.tolist() == [0, 33, 66, 99]


def test_latents_that_are_missing_or_of_another_shape_are_refused(recipe, latents, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"encode\.py"):
        Latents.open(tmp_path, "train")
    larger = dataclasses.replace(recipe, model={**LATENT_UNET, "sample_size": 16}, latents=True)
    with pytest.raises(RecipeError, match=r"latents of shape \(4, 8, 8\)"):
        train_module.open_split(larger, latents, tmp_path, "train")
    np.save(tmp_path / "train-latents.npy", np.zeros((3, 4, 8, 8), np.float16))
    np.save(tmp_path / "train-labels.npy", np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"expected \(N, 1 or 2, C, h, w\)"):
        Latents.open(tmp_path, "train")


# The trainer


def test_average(recipe):
    trainer = Trainer(recipe)
    name, weight = next(iter(trainer.weights.items()))
    before = trainer.average[name].clone()
    with torch.no_grad():
        weight.add_(1.0)
    trainer.warm = True
    trainer.update_average()
    assert torch.allclose(trainer.average[name], before + 1 - recipe.ema, atol=1e-6)
    trainer.warm, trainer.done = False, 1
    trainer.update_average()
    assert torch.allclose(trainer.average[name], weight + (2 / 11) * -recipe.ema, atol=1e-4)


@pytest.mark.parametrize("kind", ["pixel", "latent", "flow"])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(kind, run, tmp_path, stop_after):
    assert run(tmp_path / "whole", kind)
    stop_after(Trainer, 7)
    assert not run(tmp_path / "parts", kind, steps=40)
    assert final_state(tmp_path / "parts")[0] == 7
    stop_after(Trainer, None)
    assert run(tmp_path / "parts", kind)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_checkpoints_of_before_are_still_taken(recipe, tmp_path):
    """Reference: the keys that checkpoints had when only pixel networks were trained; the step after is the same."""
    trainer, other = Trainer(recipe), Trainer(dataclasses.replace(recipe, seed=5))
    batch = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    trainer.step(*batch)
    trainer.save(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    kept = ("done", "warm", "weights", "average", "optimiser", "level_loss")
    torch.save({key: state[key] for key in kept}, tmp_path / "old.pt")
    other.load(tmp_path / "old.pt")
    other.recipe = recipe
    assert torch.equal(trainer.step(*batch), other.step(*batch))
    assert all(torch.equal(weight, other.average[name]) for name, weight in trainer.average.items())


def test_checkpoints_of_another_network_or_objective_are_refused(recipe, tmp_path):
    Trainer(recipe).save(tmp_path / "checkpoint.pt")
    for changes in ({"model": DIT}, {"prediction": "flow"}):
        with pytest.raises(RecipeError, match="another network or prediction"):
            Trainer(dataclasses.replace(recipe, **changes)).load(tmp_path / "checkpoint.pt")


def test_a_run_that_diverges_keeps_its_last_checkpoint(recipe, tmp_path):
    trainer = Trainer(recipe)
    trainer.save(tmp_path / "checkpoint.pt")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    next(iter(trainer.average.values())).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        trainer.save(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


# Runs


def test_what_a_run_leaves(recipe, run, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "plot", PLOT)
    run(tmp_path, samples_every=12)
    rows = read_log(tmp_path / "loss.csv")
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows if row["held_out"] is not None] == [0, 6, 12]
    assert (tmp_path / "loss.png").stat().st_size > 0
    snapshots = sorted(file.name for file in (tmp_path / "snapshots").iterdir())
    assert snapshots == ["step-000006.safetensors", "step-000012.safetensors"]
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == ["step-000012.png"]

    trainer = Trainer(recipe, init=tmp_path / "model")
    _, tensors = final_state(tmp_path)
    for name, weight in trainer.weights.items():
        assert torch.equal(weight, tensors[f"average {name}"]), name
    assert trainer.warm
    half = networks.load_network(recipe, tmp_path / "release")
    assert all(torch.equal(weight, tensors[f"average {name}"].half().float()) for name, weight in half.named_parameters())
    with pytest.raises(RecipeError, match="differ at norm_num_groups"):
        Trainer(dataclasses.replace(recipe, model={**recipe.model, "norm_num_groups": 8}), init=tmp_path / "model")


def test_levels_are_those_of_the_held_out_loss(run, tmp_path, recipe):
    """Reference: the mean over items, of which the bands have one each or none."""
    run(tmp_path)
    rows, levels = (read_log(tmp_path / name) for name in ("loss.csv", "levels.csv"))
    assert [row["step"] for row in levels] == [0, 6, 12]
    by_step = {row["step"]: row["held_out"] for row in rows}
    for row in levels:
        losses = [value for key, value in row.items() if key != "step" and value is not None]
        assert len(losses) == recipe.held_out
        assert np.mean(losses) == pytest.approx(by_step[row["step"]], abs=1e-5)
    plot(tmp_path / "loss.csv", tmp_path / "again.png")
    with Image.open(tmp_path / "again.png") as picture:
        assert picture.width > 1.5 * picture.height


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_learn_something_that_unsample_inverts(kind, run, recipe, tmp_path, source, latents):
    """Reference: the loss of the first steps; the network itself, asked as in training; the images that were inverted."""
    run(tmp_path, kind, steps=24, learning_rate=1e-2, evaluate_every=24, bf16=False)
    losses = [row["held_out_raw"] for row in read_log(tmp_path / "loss.csv") if row["held_out_raw"]]
    assert losses[-1] < 0.8 * losses[0]

    model = us.load(str(tmp_path / "model"))
    changed = dataclasses.replace(recipe, **KINDS[kind])
    assert model.shape == changed.shape
    assert model.prediction == changed.prediction
    assert model.image_size == ((16, 16) if changed.latents else (8, 8))
    x, t = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500])
    network = networks.load_network(changed, tmp_path / "model").eval()
    encoded = model.conditioner(["2", None], torch.device("cpu"))
    with torch.no_grad():
        expected = networks.ask(network, x, t, torch.tensor([2, changed.no_class]))
        torch.testing.assert_close(model.network(x, t, encoded), expected)

    images = torch.rand(2, 3, *model.image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = us.invert(model, images, steps=10, condition=["0", "1"], method=us.core.ddim.DDIM())
    assert found.latent.isfinite().all()
    assert found.latent.shape == (2, *model.shape)


def test_a_pixel_model_has_the_recipes_table_and_names(recipe, tmp_path):
    """Reference: the averaged network itself, and the recipe's own table."""
    trainer = Trainer(recipe)
    trainer.save_model(tmp_path / "model", ("one", "two"))
    model = us.load(str(tmp_path / "model"))
    assert model.conditioner.names == ("one", "two")
    assert model.conditioner.null == recipe.no_class
    torch.testing.assert_close(torch.tensor(model.schedule.alpha_bar).float(), alpha_bar(recipe))
    network = networks.load_network(recipe, tmp_path / "model")
    assert all(torch.equal(weight, trainer.average[name]) for name, weight in network.named_parameters())
    assert "_name_or_path" not in json.loads((tmp_path / "model" / "unet" / "config.json").read_text())


@pytest.mark.parametrize("kind", ["latent", "dit"])
def test_a_latent_model_has_the_codec_and_the_names(kind, recipe, codec, tmp_path):
    """Reference: the autoencoder's own config."""
    trainer = Trainer(dataclasses.replace(recipe, **KINDS[kind]))
    trainer.save_model(tmp_path / "model", ("ant, emmet", "bee", "cow"), codec, torch.float16)
    model = us.load(str(tmp_path / "model"))
    assert (model.codec.factor, model.codec.scale) == (0.7, 2)
    assert model.conditioner.names == ("ant, emmet", "bee", "cow")
    assert model.conditioner([None], torch.device("cpu")).tolist() == [3]


def test_latents_need_their_autoencoder(recipe, latents, codec, tmp_path):
    recipe = dataclasses.replace(recipe, **KINDS["latent"])
    with pytest.raises(RecipeError, match="give --autoencoder"):
        train(recipe, latents, tmp_path / "out", device="cpu")
    with pytest.raises(RecipeError, match="is no autoencoder"):
        train(recipe, latents, tmp_path / "out", autoencoder=tmp_path, device="cpu")
    three = dataclasses.replace(recipe, model={**LATENT_UNET, "in_channels": 3})
    with pytest.raises(RecipeError, match="makes 4 channels"):
        train(three, latents, tmp_path / "out", autoencoder=codec, device="cpu")
    assert not (tmp_path / "out").exists()


# Runs that end in time


@pytest.fixture
def clock(monkeypatch):
    """A clock that a step advances by a second."""
    monkeypatch.setattr("losses.time", SimpleNamespace(monotonic=lambda: clock.now))
    clock.now, step = 0.0, Trainer.step

    def slow(self, *batch):
        clock.now += 1
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "step", slow)


def test_a_run_in_time_cools_down_for_its_share(clock, recipe, source, tmp_path, monkeypatch):
    """Reference: at a step a second, 18 seconds are 18 steps, of which a third (4 of 12) cool down, as in the recipe."""
    rates = []
    monkeypatch.setattr("trainer.descend", lambda optimiser, loss, rate: (rates.append(rate), descend(optimiser, loss, rate)))
    assert train(recipe, source, tmp_path, minutes=0.3, device="cpu")
    expected = dataclasses.replace(recipe, steps=18, cooldown=6)
    assert rates == [expected.rate(step) for step in range(18)]
    assert sorted(file.stem for file in (tmp_path / "snapshots").iterdir()) == ["step-000009", "step-000018"]


@pytest.mark.parametrize("at", [5, 10])
def test_a_run_in_time_may_be_interrupted(at, clock, recipe, source, tmp_path, stop_after):
    """Reference: the same run in one piece; what was planned outlasts another --minutes."""
    assert train(recipe, source, tmp_path / "whole", minutes=0.2, device="cpu")
    stop_after(Trainer, at)
    assert not train(recipe, source, tmp_path / "parts", minutes=0.2, device="cpu")
    stop_after(Trainer, None)
    assert train(recipe, source, tmp_path / "parts", minutes=0.2 if at < 8 else None, device="cpu")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_in_no_time_is_refused_and_a_short_one_ends(clock, recipe, source, tmp_path):
    with pytest.raises(RecipeError, match="minutes above 0"):
        Trainer(recipe, minutes=0)
    assert train(recipe, source, tmp_path, minutes=1e-6, device="cpu")
    assert final_state(tmp_path)[0] == 2


def test_samples_that_diverge_do_not_end_a_run(recipe, source, tmp_path, monkeypatch):
    def diverge(*args, **kwargs):
        raise us.errors.DivergenceError("not finite")

    monkeypatch.setattr(us, "sample", diverge)
    run = Run(Trainer(recipe), source, tmp_path, None)
    run.draw_samples()
    assert not (tmp_path / "samples").exists()
    assert (tmp_path / "model" / "model_index.json").is_file()
