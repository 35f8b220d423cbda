"""Images for training: parquet shards of JPEGs packed once into flat arrays, and batches that depend only on the step.

A packed split is two files: ``<split>-<size>.npy``, uint8 of shape (N, 3, size, size), and ``<split>-labels.npy``,
int64 of shape (N,), in the order of the shards.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def shrink(jpeg: bytes, size: int) -> NDArray[np.uint8]:
    """Decode one square image and average it down to (3, size, size), uint8; its side must be a multiple of size."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    if image.width != image.height or image.width % size:
        raise ValueError(f"cannot average a {image.width}x{image.height} image down to {size}x{size}")
    return np.asarray(image.reduce(image.width // size)).transpose(2, 0, 1)


def _read_shard(shard: Path, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    table = pq.read_table(shard, columns=["image", "label"])
    images = [shrink(row["bytes"], size) for row in table["image"].to_pylist()]
    return np.stack(images), table["label"].to_numpy().astype(np.int64)


def _save(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array so that the file is either whole or absent."""
    partial = path.with_suffix(".partial.npy")
    np.save(partial, array)
    os.replace(partial, path)


def pack(source: Path, cache: Path, split: str, size: int) -> tuple[Path, Path]:
    """Pack ``source/<split>-*.parquet`` into ``cache`` unless that is done already; return (images, labels) paths."""
    images_path, labels_path = cache / f"{split}-{size}.npy", cache / f"{split}-labels.npy"
    if images_path.exists() and labels_path.exists():
        return images_path, labels_path
    shards = sorted(source.glob(f"{split}-*.parquet"))
    if not shards:
        raise FileNotFoundError(f"no {split}-*.parquet in {source}")
    cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(_read_shard, shards, [size] * len(shards)))
    _save(labels_path, np.concatenate([labels for _, labels in parts]))
    _save(images_path, np.concatenate([images for images, _ in parts]))
    return images_path, labels_path


@dataclass(frozen=True)
class Images:
    """A packed split, read from disk as needed.

    pixels: uint8 (N, 3, size, size).  labels: int64 (N,).
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @classmethod
    def open(cls, source: Path, cache: Path, split: str, size: int) -> Images:
        """Pack ``source/<split>-*.parquet`` into ``cache`` if need be, and map the result into memory."""
        images_path, labels_path = pack(source, cache, split, size)
        return cls(np.load(images_path, mmap_mode="r"), np.load(labels_path))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The images at ``index`` as float32 in [-1, 1], (B, 3, size, size), and their labels, int64 (B,)."""
        pixels = torch.from_numpy(self.pixels[index])
        return pixels.float() / 127.5 - 1, torch.from_numpy(self.labels[index])


@dataclass(frozen=True)
class Batches:
    """Shuffled, randomly mirrored batches: ``batches(step)`` is a pure function of (seed, step).

    Every epoch visits the images in a new order and leaves out the last incomplete batch.
    """

    images: Images
    size: int
    seed: int

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The images of a step, (size, 3, side, side) in [-1, 1], and their labels, (size,)."""
        epoch, position = divmod(step, len(self.images) // self.size)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
        chosen = order[position * self.size : (position + 1) * self.size]
        pixels, labels = self.images.take(chosen)
        mirror = torch.from_numpy(np.random.default_rng([self.seed, epoch, position]).random(self.size) < 0.5)
        return torch.where(mirror[:, None, None, None], pixels.flip(-1), pixels), labels


def spread(images: Images, count: int) -> NDArray[np.int64]:
    """``count`` indices evenly spread over the split (its shards may be sorted by class)."""
    return np.linspace(0, len(images) - 1, count).astype(np.int64)
