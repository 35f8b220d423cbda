"""Can a closed form say how long a forward start must be? It cannot: predicted and measured latents of plain areas.

    python benchmarks/closed_form_start.py --data validation.parquet

The prediction takes the best denoiser of Gaussian data (docs/theory.md, eq. 7) with the variance of a photograph's own plain
areas, walks it with the method itself, and gives the standard deviation of the latent there. Numbers are medians over the
photographs with enough plain area, and the correlation over them of what is predicted with what is measured.
"""

import argparse

import torch

import unsample as us
from unsample.diagnostics import plain_mask
from unsample.pictures.read import read_photos

MIN_PIXELS = 60


def plain_variance(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Half the mean squared difference of touching pixels inside plain areas, per image."""
    total, count = torch.zeros(len(images)), torch.zeros(len(images))
    for axis in (2, 3):
        pairs = (mask.narrow(axis - 1, 1, 31) & mask.narrow(axis - 1, 0, 31))[:, None]
        total += (images.diff(dim=axis).square() * pairs).sum((1, 2, 3))
        count += 3 * pairs.sum((1, 2, 3))
    return (total / count / 2).double()


def predicted(model: us.Model, grid: us.Grid, method: us.Stepper, k: int, variance: torch.Tensor) -> torch.Tensor:
    """Standard deviation at the noisy end of modes of this variance, one each."""
    v = variance.reshape(-1, 1, 1, 1)

    def denoiser(x, level):
        asked = model.schedule.level(int(level.t))
        return asked.sigma * x / (asked.alpha**2 * v + asked.sigma**2)

    x, start = torch.ones_like(v), grid[k]
    for moved in us.walk(denoiser, x, grid.up(k), method):
        x = moved.x
    return x.flatten().abs() * (start.alpha**2 * variance + start.sigma**2).sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="photographs, 32x32 after resizing")
    parser.add_argument("--count", type=int, default=64)
    given = parser.parse_args()
    model = us.load()
    photos = read_photos([given.data], model.image_size, given.count)
    images, ids = torch.stack([photo.pixels for photo in photos]), [photo.id for photo in photos]
    mask, grid = plain_mask(images), model.grid(50)
    enough = mask.sum((1, 2)) >= MIN_PIXELS
    variance = plain_variance(images, mask)[enough]
    print(f"{int(enough.sum())} photographs; variance of their plain areas, median {variance.median():.1e}")
    for text in ("ddim", "ab", "look-ahead"):
        method = us.parse_method(text)
        for k in (1, 2, 3):
            latent = us.invert(model, images, grid=grid, method=method, start=us.ForwardNoise(steps=k), items=ids).latent
            inside = mask[:, None].expand_as(latent)
            measured = ((latent.square() * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))).sqrt()[enough].double()
            guess = predicted(model, grid, method, k, variance)
            related = torch.corrcoef(torch.stack([guess, measured]))[0, 1]
            told = f"predicted {guess.median():.3f}  measured {measured.median():.3f}"
            print(f"{text:12} k={k}  {told}  correlation {related:+.2f}")


if __name__ == "__main__":
    main()
