"""Judge a trained model: its held-out loss at several noise levels, and a sheet of samples.

    python training/evaluate.py MODEL --data DIR --out DIR

MODEL is what `unsample.load` takes. Writes ``evaluation.json`` and ``samples.png`` to the folder given by ``--out``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from data import Images, spread
from rich.progress import track
from torch import Tensor

import unsample as us
from unsample.plotting import sheet
from unsample.sampling import draw_noise

LEVELS = (0, 20, 60, 120, 200, 300, 400, 550, 750, 950)
CLASSES = (0, 25, 50, 75, 100, 125, 150, 175)
BATCH = 64


@torch.no_grad()
def level_losses(model: us.Model, images: Tensor, labels: list[int] | None, t: int) -> Tensor:
    """Each image's noise-prediction MSE at one timestep, (B,), for images (B, 3, H, W) in [-1, 1].

    The noise of the i-th image at a level is always the same, so two networks are compared on the same noisy images.
    """
    level = model.schedule.level(t)
    noise = us.ItemNoise(0, range(len(images))).draw(images.shape, stream=f"held out {t}")
    noisy = level.alpha * images + level.sigma * noise
    losses = []
    for first in range(0, len(images), BATCH):
        rows = slice(first, first + BATCH)
        eps = model.denoiser(labels and labels[rows])(noisy[rows], level)
        losses.append((eps - noise[rows]).square().mean(dim=(1, 2, 3)))
    return torch.cat(losses)


def held_out(model: us.Model, images: Tensor, labels: list[int]) -> list[dict[str, float]]:
    """The mean loss at each level with the true class and with none, and the standard error of the mean."""
    rows = []
    for t in track(LEVELS, "held-out loss"):
        given, blank = level_losses(model, images, labels, t), level_losses(model, images, None, t)
        level = model.schedule.level(t)
        rows.append(
            {
                "timestep": t,
                "sigma / alpha": round(level.ratio, 4),
                "true_class": given.mean().item(),
                "no_class": blank.mean().item(),
                "standard_error": given.std().item() / len(images) ** 0.5,
                "predicting_x": (level.alpha**2 * images.square().mean() + (1 - level.sigma) ** 2).item(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure held-out losses and draw samples.")
    parser.add_argument("model", help="a name or directory that unsample.load takes")
    parser.add_argument("--data", type=Path, required=True, help="folder of validation-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--images", type=int, default=1024, help="how many validation images to use")
    parser.add_argument("--rows", type=int, default=4, help="how many samples of each class to draw")
    arguments = parser.parse_args()

    model = us.load(arguments.model)
    validation = Images.open(arguments.data, arguments.out / "cache", "validation", model.image_size[0])
    images, labels = validation.take(spread(validation, arguments.images))
    rows = held_out(model, images, labels.tolist())
    (arguments.out / "evaluation.json").write_text(json.dumps({"images": len(images), "levels": rows}, indent=1) + "\n")

    classes = list(CLASSES) * arguments.rows
    noise = draw_noise(model, len(classes))
    samples = [us.sample(model, noise, condition=classes, guidance=guidance).images for guidance in (1.0, 2.5)]
    (arguments.out / "samples.png").write_bytes(sheet(torch.cat(samples)))


if __name__ == "__main__":
    main()
