"""How fast a recipe trains here: time per step, images per second and memory at its exact shapes, and the time of a run.

    python training/throughput.py training/recipes/NAME.toml [--batches 128 256 512] [--steps 20] [--json]

Whole steps are timed, batches of made-up data included, eager and compiled. On a GPU memory is the peak that torch held; on a
CPU the peak of the process so far, which rises from row to row.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from data import Batches, Images, Latents
from recipe import Recipe, RecipeError
from rich.console import Console
from rich.table import Table
from trainer import Trainer, device_of

ITEMS = 2048
"""Items of made-up data, or as many as a batch has."""

WARM = 3
"""Steps before the clock starts; compilation is in the first."""


@dataclass(frozen=True)
class Speed:
    """A measurement; nothing but the batch where memory ran out.

    Attributes:
        batch: Items of a step.
        compiled: Whether by `torch.compile`.
        milliseconds: Of a step, the median.
        images: Per second.
        memory: Peak, in MiB.
        prepare: Seconds of the first steps, compilation among them.
        minutes: Of the recipe's steps, at this batch.
    """

    batch: int
    compiled: bool
    milliseconds: float | None = None
    images: float | None = None
    memory: float | None = None
    prepare: float | None = None
    minutes: float | None = None


def made_up(recipe: Recipe, count: int) -> Images | Latents:
    """Noise in the place of a packed split."""
    random = np.random.default_rng(0)
    labels = random.integers(0, recipe.no_class, count)
    if recipe.latents:
        return Latents(random.standard_normal((count, 2, *recipe.shape), np.float32).astype(np.float16), labels)
    return Images(random.integers(0, 256, (count, *recipe.shape), np.uint8), labels)


def measure(recipe: Recipe, batch: int, compiled: bool, steps: int, device: torch.device) -> Speed:
    """Time steps of a recipe at a batch size."""
    try:
        return _measure(replace(recipe, batch=batch, compile=compiled), steps, device)
    except torch.cuda.OutOfMemoryError:
        return Speed(batch, compiled)
    finally:
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measure(recipe: Recipe, steps: int, device: torch.device) -> Speed:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(recipe, device=device)
    batches = Batches(made_up(recipe, max(ITEMS, recipe.batch)).on(device), recipe.batch, recipe.seed)

    def timed() -> float:
        start = time.perf_counter()
        trainer.step(*batches(trainer.done)).item()  # waits for the GPU
        return time.perf_counter() - start

    prepare = sum(timed() for _ in range(WARM))
    each = float(np.median([timed() for _ in range(steps)]))
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    minutes = recipe.steps * each / 60
    return Speed(recipe.batch, recipe.compile, 1000 * each, recipe.batch / each, memory, prepare, minutes)


def table(recipe: Recipe, speeds: Sequence[Speed]) -> Table:
    """For people."""
    columns = (
        "batch",
        "",
        "ms per step",
        "images/s",
        "MiB",
        "first steps, s",
        f"{recipe.steps} steps, min",
        "same images, min",
    )
    grid = Table(*columns)
    for one in speeds:
        kind = "compiled" if one.compiled else "eager"
        if one.milliseconds is None:
            grid.add_row(str(one.batch), kind, "out of memory")
            continue
        numbers = (one.milliseconds, one.images, one.memory, one.prepare, one.minutes, one.minutes * recipe.batch / one.batch)
        grid.add_row(str(one.batch), kind, *(f"{number:,.1f}" for number in numbers))
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the steps of a recipe.")
    parser.add_argument("recipe", type=Path, help="a TOML file, such as training/recipes/large/tiny-imagenet-64.toml")
    parser.add_argument(
        "--batches", type=int, nargs="+", help="batch sizes; default is half the recipe's, its own and its double"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps to time at each")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU if there is one")
    parser.add_argument("--only", choices=("eager", "compiled"), help="leave out the other")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    console = Console()
    try:
        recipe, device = Recipe.load(given.recipe), device_of(given.device)
        ways = [compiled for compiled in (False, True) if given.only in (None, "compiled" if compiled else "eager")]
        sizes = sorted(given.batches or (max(1, recipe.batch // 2), recipe.batch, 2 * recipe.batch))
        speeds = [measure(recipe, size, compiled, given.steps, device) for size in sizes for compiled in ways]
    except RecipeError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        sys.exit(2)
    if given.json:
        print(
            json.dumps(
                {"recipe": given.recipe.stem, "device": str(device), "speeds": [asdict(one) for one in speeds]}, indent=1
            )
        )
    else:
        console.print(table(recipe, speeds))


if __name__ == "__main__":
    main()
