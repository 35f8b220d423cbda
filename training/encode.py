"""Pack the latents that the latent models are trained on.

    python training/encode.py AUTOENCODER --data DIR --out DIR [--mirrors] [--bf16]

AUTOENCODER is a directory as `training/autoencoder.py` writes it. Each split becomes ``<split>-latents.npy``, float16 of shape
(N, 1, C, h, w), and ``<split>-labels.npy``, int64 of shape (N,). With --mirrors it is (N, 2, C, h, w), an image's latents and
those of its mirror, which has its own, because no autoencoder commutes with mirroring quite: for runs of many epochs.

They are posterior means, times the scaling factor, as `unsample.load` encodes images: what is inverted later is what was
trained on, and each run is trained on the same numbers. In float16 a value is off by less than 0.05 %; computed with --bf16,
in half the time, by about 0.5 %.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from data import Images
from diffusers import AutoencoderKL
from rich.progress import track
from torch import Tensor

from unsample.models.digest import digest_of
from unsample.models.families.autoencoder import AutoencoderCodec

SPLITS = ("train", "validation")

BATCH = 256


@torch.no_grad()
def encode(codec: AutoencoderCodec, images: Tensor, mirrors: bool) -> Tensor:
    """The scaled latents, float16 (B, 1 or 2, C, h, w), of images (B, 3, H, W) in [-1, 1], and of their mirrors."""
    images = images.to(codec.vae.device)
    views = [images, images.flip(-1)] if mirrors else [images]
    return torch.stack([codec.encode(view) for view in views], dim=1).half().cpu()


def write_split(codec: AutoencoderCodec, images: Images, out: Path, split: str, *, mirrors: bool = False) -> Path:
    """Write the latents and the labels of a split so that each file is whole or absent; where the latents are."""
    path, partial = out / f"{split}-latents.npy", out / f"{split}-latents.partial.npy"
    array: np.memmap | None = None
    for first in track(range(0, len(images), BATCH), f"{split} latents"):
        rows = np.arange(first, min(first + BATCH, len(images)))
        latents = encode(codec, images.take(rows)[0], mirrors)
        if array is None:
            shape = (len(images), *latents.shape[1:])
            array = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        array[rows] = latents.numpy()
    if array is None or not np.isfinite(array[:: max(1, len(array) // 1000)]).all():
        raise ValueError(f"{split}: no latents, or some that are not finite")
    array.flush()
    labels = out / f"{split}-labels.npy"
    np.save(labels.with_suffix(".partial.npy"), images.labels)
    os.replace(labels.with_suffix(".partial.npy"), labels)
    os.replace(partial, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack the latents of an autoencoder.")
    parser.add_argument("autoencoder", type=Path, help="directory of an AutoencoderKL")
    parser.add_argument("--data", type=Path, required=True, help="folder of train-*.parquet and validation-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; the packed images are kept in its cache")
    parser.add_argument("--mirrors", action="store_true", help="also the latents of mirrored images: twice the time and space")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = AutoencoderKL.from_pretrained(arguments.autoencoder, torch_dtype=torch.float32)
    digest, codec = digest_of(vae), AutoencoderCodec.of(vae.eval().requires_grad_(False).to(device))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with torch.autocast(device, torch.bfloat16, enabled=arguments.bf16):
        for split in SPLITS:
            images = Images.open(arguments.data, arguments.out / "cache", split, vae.config.sample_size)
            write_split(codec, images, arguments.out, split, mirrors=arguments.mirrors)
    names = arguments.data / "classes.json"
    if names.is_file():  # the trainer looks for it beside its data
        (arguments.out / names.name).write_bytes(names.read_bytes())
    about = {"autoencoder": digest, "scaling_factor": codec.factor}
    (arguments.out / "latents.json").write_text(json.dumps(about) + "\n")


if __name__ == "__main__":
    main()
