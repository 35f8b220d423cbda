"""Training at toy size: a handful of made-up images and latents, and small recipes of every kind of network."""

import dataclasses
import io
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


@pytest.fixture(autouse=True)
def keep_signal_handlers():
    kept = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    yield
    for name, handler in kept.items():
        signal.signal(name, handler)
