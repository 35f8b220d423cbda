"""What guidance does to the way back, and what repairs it.

    python -m unsample.experiments.guidance --data validation.parquet --out docs/results/guidance

Photographs are inverted under their own class, and sampled back under the same class with guidance w. Without guidance that is
a reconstruction. With it the path is another, unless the inversion was guided too, or guidance has nothing to move away from
(negative-prompt inversion), or the unconditional embedding is fitted to the path (null-text).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import models
from ..atomic import write_atomically
from ..diagnostics import bootstrap, psnr
from ..diagnostics.summary import format_number as number
from ..errors import ArgumentError, UnsampleError
from ..inversion import invert
from ..io import read_photos
from ..model import Condition, Model
from ..null_text import null_text
from ..report import Table
from ..sampling import Samples, sample
from ..starts import ForwardNoise
from ..trajectory import Keep, Trajectory

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment and write its report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="a parquet file in the Hugging Face image layout, with labels")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--model", default="tiny-imagenet-32")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=3.0)
    given = parser.parse_args(arguments)
    model = models.load(given.model)
    photos = read_photos([given.data], model.image_size, given.count)
    images, labels = torch.stack([photo.pixels for photo in photos]), _labels(given.data, len(photos))
    rows = []
    for title, run in _ways(model, images, labels, given.steps, given.guidance).items():
        back, fitted = run()
        rows.append((title, back, fitted))
        print(title, number(float(psnr(images, back.images.clamp(-1, 1)).median())), flush=True)
    _write(rows, images, given, model)


def _ways(
    model: Model, images: Tensor, labels: Sequence[Condition], steps: int, guidance: float
) -> dict[str, Callable[[], tuple[Samples, int]]]:
    """Title -> the images sampled back, and the evaluations spent on fitting."""
    grid, one = model.grid(steps), ForwardNoise(steps=1)

    def there(w: float) -> Trajectory:
        return invert(model, images, grid=grid, start=one, condition=labels, guidance=w, keep=Keep("states"))

    free = there(1.0)

    def back(w: float, latent: Tensor = free.latent, negative: Sequence[Condition] | None = None) -> tuple[Samples, int]:
        return sample(model, latent, grid=grid, condition=labels, guidance=w, negative=negative), 0

    def fitted(rate: float) -> tuple[Samples, int]:
        found = null_text(model, images, free, condition=labels, guidance=guidance, rate=rate)
        known = found.embeddings
        return sample(model, free.latent, grid=grid, condition=labels, guidance=guidance, negative=known), found.nfe

    return {
        "no guidance": lambda: back(1.0),
        f"guidance {guidance:g}": lambda: back(guidance),
        f"guidance {guidance:g}, the inversion too": lambda: back(guidance, there(guidance).latent),
        f"guidance {guidance:g}, away from the class itself (negative-prompt)": lambda: back(guidance, negative=labels),
        f"guidance {guidance:g}, null-text, rate 0.01 (published)": lambda: fitted(0.01),
        f"guidance {guidance:g}, null-text, rate 0.1": lambda: fitted(0.1),
    }


def _labels(data: str, count: int) -> list[Condition]:
    import pyarrow.parquet

    if "label" not in pyarrow.parquet.read_schema(data).names:
        raise ArgumentError(f"expected a parquet file with a column 'label', given {data}")
    return list(pyarrow.parquet.read_table(data, columns=["label"]).slice(0, count)["label"].to_pylist())


def _write(rows: Sequence[tuple[str, Samples, int]], images: Tensor, given: argparse.Namespace, model: Model) -> None:
    """`report.md` and `metrics.json`."""
    told, metrics = [], []
    for title, back, fitted in rows:
        values = psnr(images, back.images.clamp(-1, 1))
        span = bootstrap(values)
        mean = f"{number(float(values.mean()))} [{number(span.low)}, {number(span.high)}]"
        told.append((title, mean, number(float(values.min())), str(back.nfe), str(fitted or "")))
        metrics.append({"way": title, "psnr": values.tolist(), "nfe": back.nfe, "nfe_fitting": fitted})
    table = Table(("sampled back with", "PSNR, dB: mean", "worst photo", "NFE down", "NFE to fit"), tuple(told))
    command = f"python -m unsample.experiments.guidance --data DATA --count {len(images)} --steps {given.steps} --out OUT"
    lines = [
        "# Guidance on the way back",
        f"Model `{model.name}` (weights {model.digest}), {len(images)} validation photographs with their own classes, "
        f"N = {given.steps}, inverted by look-ahead from one forward step without guidance unless said; mean over photographs "
        "with a 95 % bootstrap interval. Guidance costs two evaluations a move; fitting takes backward passes besides.",
        f"    {command}",
        table.markdown(),
    ]
    write_atomically(given.out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    write_atomically(given.out / "report.md", ("\n\n".join(lines) + "\n").encode())
    print(given.out / "report.md")


if __name__ == "__main__":
    try:
        main()
    except UnsampleError as error:
        sys.exit(f"unsample: {error}")
