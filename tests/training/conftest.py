"""Training at toy size: a handful of made-up images and latents, and small recipes of every kind of network."""

import dataclasses
import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "training"))

UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 4,
    "num_class_embeds": 4,
}

LATENT_UNET = {**UNET, "in_channels": 4, "out_channels": 4}

DIT = {
    "kind": "DiTTransformer2DModel",
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_embeds_ada_norm": 3,
}

TOY = {
    "batch": 4,
    "steps": 12,
    "warmup": 2,
    "cooldown": 4,
    "report_every": 2,
    "evaluate_every": 6,
    "checkpoint_every": 5,
    "held_out": 8,
    "snapshots": (0.5, 1.0),
    "related_classes": False,
}


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A folder with two training shards of 12 images and a validation shard of 8, all 16x16, of three classes."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder, rng = tmp_path_factory.mktemp("parquet"), np.random.default_rng(0)
    for name, count in (("train-0", 12), ("train-1", 12), ("validation-0", 8)):
        images = [{"bytes": png(rng.integers(0, 256, (16, 16, 3), np.uint8)), "path": "x"} for _ in range(count)]
        table = pa.table({"image": images, "label": (np.arange(count) % 3).tolist()})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="session")
def latents(tmp_path_factory):
    """A folder of packed latents, (N, 2, 4, 8, 8), of three classes, each noise about a level of its own."""
    folder, rng = tmp_path_factory.mktemp("latents"), np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 8)):
        labels = np.arange(count) % 3
        values = 0.3 * rng.standard_normal((count, 2, 4, 8, 8)) + (labels[:, None, None, None, None] - 1)
        np.save(folder / f"{split}-latents.npy", values.astype(np.float16))
        np.save(folder / f"{split}-labels.npy", labels)
    return folder


@pytest.fixture(scope="session")
def codec(tmp_path_factory):
    """The directory of a small `AutoencoderKL` with random weights, 16x16 images to 8x8 latents."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.7,
    )
    folder = tmp_path_factory.mktemp("codec")
    vae.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe():
    """The recipe of the bundled model with an 8x8 network."""
    from recipe import Recipe

    path = ROOT / "training" / "recipes" / "tiny-imagenet-32.toml"
    return dataclasses.replace(Recipe.load(path, prediction="epsilon"), model=UNET, **TOY)


@pytest.fixture
def folder_of(tmp_path):
    """A function that makes a folder for a run, with the images and labels of both splits packed already."""

    def folder(name, **splits):
        cache = tmp_path / name / "cache"
        cache.mkdir(parents=True)
        for split, pixels in splits.items():
            np.save(cache / f"{split}-{pixels.shape[-1]}.npy", pixels)
            np.save(cache / f"{split}-labels.npy", np.arange(len(pixels)) % 3)
        return tmp_path / name

    return folder


@pytest.fixture
def stop_after(monkeypatch):
    """A function that has the next runs of a trainer interrupted after a step, or no longer (None)."""
    steps = {}

    def stop_after(trainer, last):
        step = steps.setdefault(trainer, trainer.step)

        def step_and_stop(self, *batch):
            loss = step(self, *batch)
            if self.done == last:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

        monkeypatch.setattr(trainer, "step", step_and_stop)

    return stop_after


def final_state(out):
    """Steps done and every tensor of a run's checkpoint, named by its keys."""
    tensors = {}

    def collect(value, *keys):
        if isinstance(value, torch.Tensor):
            tensors[" ".join(map(str, keys))] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(inner, *keys, key)

    state = torch.load(out / "checkpoint.pt", weights_only=True)
    collect(state)
    return state["done"], tensors


def assert_same_run(one, other):
    (steps, tensors), (other_steps, other_tensors) = final_state(one), final_state(other)
    assert steps == other_steps
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name


@pytest.fixture(autouse=True)
def keep_signal_handlers():
    kept = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    yield
    for name, handler in kept.items():
        signal.signal(name, handler)
