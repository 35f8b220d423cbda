"""Train a small class-conditional diffusion or flow network.

    python training/train.py training/recipes/NAME.toml --data DIR --out DIR [--init MODEL_DIR] [--steps N | --minutes M]

Everything random at a step is drawn from (seed, step), so a run that is stopped and started again gives the same
network as one that was not. Stop it with Ctrl-C or SIGTERM; the same command continues it, with another ``--steps``
if you like: the rate is constant until the cooldown, so the steps already done are the same for every length.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from data import Batches, Images, Latents, class_names, spread
from losses import Log, plot
from networks import check_autoencoder
from objectives import by_band
from recipe import Recipe, RecipeError
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from steps import stopped_by_signals
from torch import Tensor
from trainer import Trainer, device_of

import unsample as us
from unsample.pictures import sheet
from unsample.uses.sample import draw_noise

console = Console()

SHOWN = 8
"""Classes in a sheet of samples, spread over all."""

GUIDANCES = (1.0, 3.0)
"""What a sheet of samples is guided by; two rows each, the second two with the number in place of the class."""


class Run:
    """A training run in a folder: what is done besides the steps themselves, and when."""

    def __init__(self, trainer: Trainer, data: Path, out: Path, autoencoder: Path | None) -> None:
        self.trainer, self.out, self.autoencoder = trainer, out, autoencoder
        self.checkpoint, self.classes = out / "checkpoint.pt", class_names(data)
        train_set, validation = (open_split(trainer.recipe, data, out, split) for split in ("train", "validation"))
        self.count = len(train_set)
        self.batches = Batches(train_set.on(trainer.device), trainer.recipe.batch, trainer.recipe.seed)
        shown = validation.take(spread(validation, trainer.recipe.held_out))
        self.held_out = tuple(part.to(trainer.device) for part in shown)
        if self.checkpoint.exists():
            trainer.load(self.checkpoint)
        self.log, self.losses = Log(out / "loss.csv", trainer.done), list[Tensor]()
        self.log.spent = max(self.log.spent, trainer.seconds)

    def step(self) -> None:
        """One step, and what is due after it."""
        trainer, recipe, before = self.trainer, self.trainer.recipe, self.trainer.share
        self.losses.append(trainer.step(*self.batches(trainer.done)))
        trainer.note_time(self.log.seconds)
        if trainer.done % recipe.report_every == 0:
            self.report()
        if any(before < share <= trainer.share for share in recipe.snapshots):
            trainer.save_snapshot(self.out / "snapshots" / f"step-{trainer.done:06d}.safetensors")
        if recipe.samples_every and trainer.done % recipe.samples_every == 0:
            self.draw_samples()
        if trainer.done % recipe.checkpoint_every == 0:
            trainer.save(self.checkpoint)

    def report(self) -> None:
        """A row of loss.csv, with held-out losses if they are due."""
        loss = round(torch.stack(self.losses).mean().item(), 6)
        self.losses.clear()
        if self.trainer.done % self.trainer.recipe.evaluate_every == 0:
            self.evaluate(loss)
        else:
            self.log.add(self.trainer.done, loss)

    def evaluate(self, loss: float | str = "") -> None:
        """Measure held-out losses, of the averaged and of the raw weights."""
        done = self.trainer.done
        losses, band = self.trainer.held_out_losses(*self.held_out)
        averaged = losses.mean().item()
        raw = self.trainer.held_out_losses(*self.held_out, average=False)[0].mean().item()
        console.print(f"step {done}: held-out loss {averaged:.5f} averaged, {raw:.5f} raw")
        self.log.add(done, loss, round(averaged, 6), round(raw, 6))
        means, counts = (each.tolist() for each in by_band(losses, band))
        self.log.add_levels(done, [round(mean, 6) if count else None for mean, count in zip(means, counts, strict=True)])

    def draw_samples(self) -> None:
        """A sheet of samples of the averaged weights, always of the same noise and classes, by way of `model/`."""
        self.save_model()
        model = us.load(self.out / "model", device=self.trainer.device)
        count = self.trainer.recipe.no_class
        classes = sorted({index * count // SHOWN for index in range(SHOWN)})
        noise, wanted = draw_noise(model, 2 * len(classes)), classes * 2
        try:
            images = [us.sample(model, noise, condition=wanted, guidance=guidance).images for guidance in GUIDANCES]
        except us.errors.DivergenceError as error:
            console.print(f"step {self.trainer.done}: no samples yet: {error}")
            return
        names = [(self.classes or [str(index) for index in range(count)])[index].split(",")[0] for index in classes]
        titles = names * 2 + [f"w = {GUIDANCES[1]:g}"] * 2 * len(names)
        file = self.out / "samples" / f"step-{self.trainer.done:06d}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(sheet(torch.cat(images), titles, columns=len(classes)))

    def save_model(self) -> None:
        """Write `model/`, the averaged weights as a pipeline."""
        self.trainer.save_model(self.out / "model", self.classes, self.autoencoder)

    def finish(self) -> None:
        """What a run leaves when it ends or is stopped; `release/` is `model/` in half precision."""
        self.trainer.save(self.checkpoint)
        self.save_model()
        if self.trainer.is_complete:
            self.trainer.save_model(self.out / "release", self.classes, self.autoencoder, torch.float16)
        target = {"epsilon": "the noise", "flow": "the velocity"}.get(self.trainer.recipe.prediction, "v")
        plot(self.out / "loss.csv", self.out / "loss.png", target)


def open_split(recipe: Recipe, data: Path, out: Path, split: str) -> Images | Latents:
    """The packed images or latents of a split, of the shape that the recipe's network takes."""
    if not recipe.latents:
        return Images.open(data, out / "cache", split, recipe.shape[1])
    latents = Latents.open(data, split)
    if tuple(latents.values.shape[2:]) != recipe.shape:
        raise RecipeError(f"{data} holds latents of shape {tuple(latents.values.shape[2:])}, the recipe's are {recipe.shape}")
    return latents


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    init: Path | None = None,
    *,
    autoencoder: Path | None = None,
    minutes: float | None = None,
    device: str = "auto",
) -> bool:
    """Train until the run's end or until asked to stop; return whether the run is complete.

    Args:
        recipe: What to train, and how.
        data: Folder of parquet shards, or of packed latents.
        out: Folder to write to, and to continue from.
        init: Model folder to start from, instead of random weights.
        autoencoder: Directory of the autoencoder that made the latents.
        minutes: Ends the run in this time instead of after the recipe's steps; the cooldown has the same share of it.
        device: `auto` takes a GPU if there is one.
    """
    check_autoencoder(recipe, autoencoder)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(Trainer(recipe, init, device=device_of(device), minutes=minutes), data, out, autoencoder)
    trainer = run.trainer
    console.print(f"{run.count} items on {trainer.device}, from step {trainer.done} {trainer.end}")
    with stopped_by_signals() as stop, Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as bar:
        if trainer.done == 0:
            run.evaluate()
        task = bar.add_task("training", completed=trainer.done)
        while not trainer.is_complete and not stop.is_set():
            run.step()
            bar.update(task, completed=trainer.done, total=trainer.total)
    run.finish()
    console.print(f"stopped after step {trainer.done}, planned {trainer.end}")
    return trainer.is_complete


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small class-conditional diffusion or flow network.")
    parser.add_argument("recipe", type=Path, help="a TOML file, such as training/recipes/tiny-imagenet-32.toml")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of train-*.parquet and validation-*.parquet, or of latents"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, and to continue from")
    parser.add_argument("--init", type=Path, help="model folder to start from, instead of random weights")
    parser.add_argument("--autoencoder", type=Path, help="directory of the autoencoder, for recipes on latents")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU if there is one")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="instead of the recipe's number of steps")
    length.add_argument("--minutes", type=float, help="end in this time, cooldown included")
    given = parser.parse_args()
    try:
        recipe = Recipe.load(given.recipe)
        recipe = recipe if given.steps is None else replace(recipe, steps=given.steps)
        options = {"autoencoder": given.autoencoder, "minutes": given.minutes, "device": given.device}
        train(recipe, given.data, given.out, given.init, **options)
    except (RecipeError, FileNotFoundError, ValueError, FloatingPointError) as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
