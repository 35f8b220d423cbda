"""Images and latents for training: flat arrays, and batches that depend only on the step.

A packed split of images, made once of parquet shards of JPEGs, is two files: ``<split>-<size>.npy``, uint8 of shape
(N, 3, size, size), and ``<split>-labels.npy``, int64 of shape (N,), in the order of the shards. One of latents, made by
encode.py, is ``<split>-latents.npy``, float16 of shape (N, 1 or 2, C, h, w), and labels. On a GPU all of it is moved there.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsample.pictures.decode import open_picture


def shrink(jpeg: bytes, size: int) -> NDArray[np.uint8]:
    """Decode one square image and average it down to (3, size, size), uint8; its side must be a multiple of size."""
    image = open_picture(jpeg).convert("RGB")
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


def _rows(array: NDArray[Any] | Tensor, index: NDArray[np.int64]) -> Tensor:
    """The rows at ``index`` where the array is: in memory or on the disk, or on a device."""
    if isinstance(array, Tensor):
        return array[_on(index, array.device)]
    return torch.from_numpy(array[index])


def _on(values: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


@dataclass(frozen=True)
class Images:
    """A packed split, read from disk as needed, or on a device.

    pixels: uint8 (N, 3, size, size).  labels: int64 (N,).
    """

    pixels: NDArray[np.uint8] | Tensor
    labels: NDArray[np.int64] | Tensor

    @classmethod
    def open(cls, source: Path, cache: Path, split: str, size: int) -> Images:
        """Pack ``source/<split>-*.parquet`` into ``cache`` if need be, and map the result into memory."""
        images_path, labels_path = pack(source, cache, split, size)
        return cls(np.load(images_path, mmap_mode="r"), np.load(labels_path))

    def __len__(self) -> int:
        return len(self.labels)

    def on(self, device: torch.device) -> Images:
        """All of it on a device; on the CPU it stays on the disk."""
        if device.type == "cpu":
            return self
        return Images(torch.as_tensor(np.asarray(self.pixels)).to(device), torch.as_tensor(self.labels).to(device))

    def take(self, index: NDArray[np.int64], mirror: NDArray[np.bool_] | None = None) -> tuple[Tensor, Tensor]:
        """The images at ``index`` as float32 in [-1, 1], (B, 3, size, size), some of them mirrored, and their labels, (B,)."""
        pixels = _rows(self.pixels, index).float() / 127.5 - 1
        if mirror is not None:
            pixels = torch.where(_on(mirror, pixels.device)[:, None, None, None], pixels.flip(-1), pixels)
        return pixels, _rows(self.labels, index)


@dataclass(frozen=True)
class Latents:
    """A packed split of latents, read from disk as needed, or on a device.

    values: float16 (N, 1, C, h, w), scaled as the network sees them, or (N, 2, C, h, w), with mirrors.  labels: int64 (N,).
    """

    values: NDArray[np.float16] | Tensor
    labels: NDArray[np.int64] | Tensor

    @classmethod
    def open(cls, source: Path, split: str) -> Latents:
        """Map ``<split>-latents.npy`` into memory, as training/encode.py writes it, with ``<split>-labels.npy``."""
        files = [source / f"{split}-{what}.npy" for what in ("latents", "labels")]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"no {file.name} in {source}: make it with training/encode.py")
        values, labels = np.load(files[0], mmap_mode="r"), np.load(files[1]).astype(np.int64)
        if values.ndim != 5 or values.shape[1] not in (1, 2) or len(values) != len(labels):
            raise ValueError(f"{files[0]}: expected (N, 1 or 2, C, h, w) and N labels, given {values.shape} and {len(labels)}")
        return cls(values, labels)

    def __len__(self) -> int:
        return len(self.labels)

    def on(self, device: torch.device) -> Latents:
        """All of it on a device; on the CPU it stays on the disk."""
        if device.type == "cpu":
            return self
        return Latents(torch.as_tensor(np.asarray(self.values)).to(device), torch.as_tensor(self.labels).to(device))

    def take(self, index: NDArray[np.int64], mirror: NDArray[np.bool_] | None = None) -> tuple[Tensor, Tensor]:
        """The latents at ``index`` as float32, (B, C, h, w), some of the mirrored image if there are any, and labels, (B,)."""
        which = np.zeros(len(index), np.int64) if mirror is None or self.values.shape[1] == 1 else mirror.astype(np.int64)
        if isinstance(self.values, Tensor):
            values = self.values[_on(index, self.values.device), _on(which, self.values.device)]
        else:
            values = torch.from_numpy(self.values[index, which])
        return values.float(), _rows(self.labels, index)


@dataclass(frozen=True)
class Batches:
    """Shuffled, randomly mirrored batches: ``batches(step)`` is a pure function of (seed, step).

    Every epoch visits the images in a new order and leaves out the last incomplete batch.
    """

    images: Images | Latents
    size: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.images) < self.size:
            raise ValueError(f"expected a batch of at most the {len(self.images)} images there are, given {self.size}")

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The images of a step, (size, 3, side, side) in [-1, 1], or latents, (size, C, h, w), and their labels, (size,)."""
        epoch, position = divmod(step, len(self.images) // self.size)
        chosen = _order(self.seed, epoch, len(self.images))[position * self.size : (position + 1) * self.size]
        mirror = np.random.default_rng([self.seed, epoch, position]).random(self.size) < 0.5
        return self.images.take(chosen, mirror)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of an epoch; drawn once, for the steps of an epoch share it."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def spread(images: Images | Latents, count: int) -> NDArray[np.int64]:
    """``count`` indices evenly spread over the split (its shards may be sorted by class)."""
    return np.linspace(0, len(images) - 1, count).astype(np.int64)


def class_names(data: Path) -> tuple[str, ...]:
    """The names in the data's classes.json, {"0": {"name": ...}, ...}; none if there is no such file."""
    file = data / "classes.json"
    if not file.is_file():
        return ()
    given = json.loads(file.read_text())
    return tuple(given[str(index)]["name"] for index in range(len(given)))
