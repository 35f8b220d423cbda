"""The training recipe at toy size: an 8x8 network on a handful of made-up images."""

import dataclasses
import io
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

import evaluate  # noqa: E402
import train as train_module  # noqa: E402
from data import Batches, Images, pack, shrink, spread  # noqa: E402
from losses import read_log  # noqa: E402
from train import Recipe, Trainer, train  # noqa: E402

import unsample as us  # noqa: E402

ROOT = Path(__file__).parents[2]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A folder with two training shards of 12 images and a validation shard of 8, all 16x16."""
    folder, rng = tmp_path_factory.mktemp("parquet"), np.random.default_rng(0)
    for name, count in (("train-0", 12), ("train-1", 12), ("validation-0", 8)):
        images = [{"bytes": png(rng.integers(0, 256, (16, 16, 3), np.uint8)), "path": "x"} for _ in range(count)]
        table = pa.table({"image": images, "label": (np.arange(count) % 3).tolist()})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.fixture
def recipe():
    model = {
        "sample_size": 8,
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "norm_num_groups": 4,
        "num_class_embeds": 4,
    }
    toy = {"batch": 4, "steps": 12, "warmup": 2, "cooldown": 4, "report_every": 2, "evaluate_every": 6}
    toy |= {"checkpoint_every": 5, "held_out": 8, "snapshots": (0.5, 1.0)}
    return dataclasses.replace(Recipe.load(ROOT / "training" / "tiny-imagenet-32.toml"), model=model, **toy)


@pytest.fixture(autouse=True)
def keep_signal_handlers():
    kept = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    yield
    for name, handler in kept.items():
        signal.signal(name, handler)


def final_state(out):
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    return state["done"], {**state["weights"], **{f"average {name}": value for name, value in state["average"].items()}}


def assert_same_run(one, other):
    (steps, tensors), (other_steps, other_tensors) = final_state(one), final_state(other)
    assert steps == other_steps
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name


def test_shrink_averages_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    expected = pixels.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(shrink(png(pixels), 4) - expected).max() <= 0.5
    with pytest.raises(ValueError, match="cannot average"):
        shrink(png(pixels), 3)


def test_pack(source, tmp_path):
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


def test_spread_covers_the_split():
    index = spread(Images(np.zeros((100, 3, 1, 1), np.uint8), np.zeros(100, np.int64)), 4)
    assert index.tolist() == [0, 33, 66, 99]


def test_rate(recipe):
    recipe = dataclasses.replace(recipe, steps=100, warmup=10, cooldown=20, learning_rate=1.0)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[80:]))
    assert 0 < rates[-1] < 0.05
    longer = dataclasses.replace(recipe, steps=1000)
    assert [longer.rate(step) for step in range(80)] == rates[:80]


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


def test_an_interrupted_run_ends_like_an_uninterrupted_one(recipe, source, tmp_path, monkeypatch):
    assert train(recipe, source, tmp_path / "whole")

    step = Trainer.step

    def step_and_stop(self, *batch):
        loss = step(self, *batch)
        if self.done == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(Trainer, "step", step_and_stop)
    assert not train(dataclasses.replace(recipe, steps=40), source, tmp_path / "parts")
    assert final_state(tmp_path / "parts")[0] == 7
    monkeypatch.setattr(Trainer, "step", step)
    assert train(recipe, source, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_what_a_run_leaves(recipe, source, tmp_path):
    train(recipe, source, tmp_path)
    rows = read_log(tmp_path / "loss.csv")
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows if row["held_out"] is not None] == [0, 6, 12]
    assert (tmp_path / "loss.png").stat().st_size > 0
    snapshots = sorted(file.name for file in (tmp_path / "snapshots").iterdir())
    assert snapshots == ["step-000006.safetensors", "step-000012.safetensors"]

    trainer = Trainer(recipe, init=tmp_path / "model")
    _, tensors = final_state(tmp_path)
    for name, weight in trainer.weights.items():
        assert torch.equal(weight, tensors[f"average {name}"]), name
    assert trainer.warm


def test_a_few_steps_learn_something(recipe, source, tmp_path):
    recipe = dataclasses.replace(recipe, steps=60, learning_rate=3e-3, evaluate_every=60)
    train(recipe, source, tmp_path)
    losses = [row["held_out_raw"] for row in read_log(tmp_path / "loss.csv") if row["held_out_raw"]]
    assert losses[-1] < 0.8 * losses[0]


def test_evaluate(recipe, source, tmp_path, monkeypatch):
    Trainer(recipe).save_model(tmp_path / "model")
    monkeypatch.setattr(evaluate, "CLASSES", (0, 1, 2))
    arguments = f"evaluate {tmp_path / 'model'} --data {source} --out {tmp_path} --images 8 --rows 1"
    monkeypatch.setattr(sys, "argv", arguments.split())
    evaluate.main()
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["timestep"] for row in report["levels"]] == list(evaluate.LEVELS)
    # untrained, it guesses about nothing
    assert all(row["true_class"] == pytest.approx(1, abs=0.5) for row in report["levels"]), (
        "untrained, it guesses about nothing"
    )
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.width > 100


def test_the_model_directory_is_one_that_unsample_loads(recipe, source, tmp_path):
    """Reference: the averaged network itself, and the recipe's own table."""
    trainer = Trainer(recipe)
    trainer.save_model(tmp_path / "model", ("one", "two"))
    model = us.load(str(tmp_path / "model"))
    assert model.conditioner.names == ("one", "two")
    assert model.conditioner.null == recipe.no_class
    table = torch.tensor(model.schedule.alpha_bar)
    torch.testing.assert_close(table.float(), recipe.alpha_bar())
    network = train_module.load_network(tmp_path / "model")
    assert all(torch.equal(weight, trainer.average[name]) for name, weight in network.named_parameters())


def test_balanced_weights_make_every_level_count_alike(recipe):
    """Reference: losses that are a known function of the level."""
    trainer = Trainer(recipe)
    timesteps = torch.arange(0, recipe.timesteps, recipe.timesteps // 200)
    losses = torch.exp(-8 * timesteps / recipe.timesteps)
    for _ in range(300):
        weights = trainer.weights_of(timesteps, losses)
    parts = (weights * losses).reshape(train_module.LEVELS, -1).mean(1)
    torch.testing.assert_close(parts, torch.ones_like(parts), rtol=1e-3, atol=0)
