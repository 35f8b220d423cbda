"""Train a small class-conditional noise-prediction network.

    python training/train.py training/tiny-imagenet-32.toml --data DIR --out DIR [--init MODEL_DIR] [--steps N]

Everything random at a step is drawn from (seed, step), so a run that is stopped and started again gives the same
network as one that was not. Stop it with Ctrl-C or SIGTERM; the same command continues it, with another ``--steps``
if you like: the rate is constant until the cooldown, so the steps already done are the same for every length.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from data import Batches, Images, spread
from diffusers import DDIMScheduler, UNet2DModel
from losses import Log, plot
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

console = Console()

LEVELS = 25
"""Bands of timesteps whose losses are balanced."""


@dataclass(frozen=True)
class Recipe:
    """A recipe file: [model] are arguments of UNet2DModel; [diffusion] and [train] are the fields below."""

    model: dict[str, Any]
    timesteps: int
    beta_start: float
    beta_end: float
    seed: int
    batch: int
    steps: int
    warmup: int
    cooldown: int
    learning_rate: float
    ema: float
    class_drop: float
    balance: bool
    bf16: bool
    channels_last: bool
    compile: bool
    report_every: int
    evaluate_every: int
    checkpoint_every: int
    held_out: int
    snapshots: tuple[float, ...]

    @classmethod
    def load(cls, path: Path, **changes: Any) -> Recipe:
        """Read a recipe file; ``changes`` take the place of its values."""
        tables = tomllib.loads(path.read_text())
        return cls(tables["model"], **{**tables["diffusion"], **tables["train"], **changes})

    @property
    def no_class(self) -> int:
        """The token that stands for no class."""
        return int(self.model["num_class_embeds"]) - 1

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up, constant, then 1 - sqrt down to (almost) zero over the cooldown."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = max(0.0, 1 - (self.steps - step) / self.cooldown) if self.cooldown else 0.0
        return self.learning_rate * rise * (1 - math.sqrt(done))

    def alpha_bar(self) -> Tensor:
        """Signal power left after each timestep, float32 of shape (timesteps,), falling from about 1 to about 0."""
        betas = torch.linspace(self.beta_start, self.beta_end, self.timesteps, dtype=torch.float64)
        return (1 - betas).cumprod(0).float()


def add_noise(images: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Noisy images: (B, 3, H, W) in [-1, 1] and unit noise of the same shape, at alpha_bar of shape (B,)."""
    signal = alpha_bar[:, None, None, None]
    return signal.sqrt() * images + (1 - signal).sqrt() * noise


def random_step(recipe: Recipe, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (count, 3, H, W), timesteps (count,) and which labels to drop (count,), a pure function of (seed, step).

    The timesteps are stratified: each one is uniform, but together they cover the range evenly, which makes the
    gradient less noisy.
    """
    generator = torch.Generator().manual_seed((recipe.seed << 32) + step)
    side = recipe.model["sample_size"]
    noise = torch.randn(count, 3, side, side, generator=generator)
    strata = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timesteps = (strata * recipe.timesteps).long().clamp(max=recipe.timesteps - 1)
    return noise, timesteps, torch.rand(count, generator=generator) < recipe.class_drop


def load_network(folder: Path) -> UNet2DModel:
    """The network of a pipeline directory, or of a directory of its own."""
    part = folder / "unet"
    return UNet2DModel.from_pretrained(part if part.is_dir() else folder, low_cpu_mem_usage=False)


class Trainer:
    """The network, its average, its optimiser, and the number of steps done."""

    def __init__(self, recipe: Recipe, init: Path | None = None) -> None:
        self.recipe, self.done = recipe, 0
        self.warm = init is not None
        torch.manual_seed(recipe.seed)
        self.model = load_network(init) if init else UNet2DModel(**recipe.model)
        self.model.train()
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if recipe.compile else self.model
        self.weights = dict(self.model.named_parameters())
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate)
        self.alpha_bar = recipe.alpha_bar()
        self.level_loss = torch.zeros(LEVELS)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Train on images (B, 3, H, W) in [-1, 1] with labels (B,); return the loss."""
        recipe = self.recipe
        noise, timesteps, drop = random_step(recipe, self.done, len(images))
        labels = labels.masked_fill(drop, recipe.no_class)
        noisy = add_noise(images, noise, self.alpha_bar[timesteps])
        if recipe.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        # On CPUs, flash attention has a slow backward pass.
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16), sdpa_kernel(SDPBackend.MATH):
            guess = self.forward(noisy, timesteps, class_labels=labels).sample
        per_image = (guess.float() - noise).square().mean(dim=(1, 2, 3))
        weight = self.weights_of(timesteps, per_image.detach()) if recipe.balance else torch.ones_like(per_image)
        loss = (weight * per_image).mean()
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate(self.done)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.done += 1
        self.update_average()
        return float(per_image.mean().item())

    def weights_of(self, timesteps: Tensor, losses: Tensor) -> Tensor:
        """One weight per image that makes every noise level count alike: 1 / a running mean of the losses at its level.

        The loss falls by three orders of magnitude from little noise to much. Left to itself, training neglects the noisy
        levels, where a small error in the noise is a large one in the colours of a sample.
        """
        band = timesteps * LEVELS // self.recipe.timesteps
        count = torch.zeros(LEVELS).index_add_(0, band, torch.ones_like(losses))
        mean = torch.zeros(LEVELS).index_add_(0, band, losses) / count.clamp(min=1)
        moved = torch.where(self.level_loss == 0, mean, self.level_loss.lerp(mean, 0.02))
        self.level_loss = torch.where(count > 0, moved, self.level_loss)
        return 1 / self.level_loss[band].clamp(min=1e-8)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights; a run from random weights forgets its first steps sooner."""
        decay = self.recipe.ema if self.warm else min(self.recipe.ema, (1 + self.done) / (10 + self.done))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)

    @torch.no_grad()
    def held_out_loss(self, images: Tensor, labels: Tensor, average: bool = True) -> float:
        """The loss on fixed images, noise and timesteps, of the averaged or the raw weights."""
        noise, timesteps, _ = random_step(self.recipe, 2**31, len(images))
        noisy, total = add_noise(images, noise, self.alpha_bar[timesteps]), 0.0
        weights = self.average if average else self.weights
        for part in torch.split(torch.arange(len(images)), self.recipe.batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
                inputs = (noisy[part], timesteps[part])
                guess = torch.func.functional_call(self.model, weights, inputs, {"class_labels": labels[part]}).sample
            total += (guess.float() - noise[part]).square().mean(dim=(1, 2, 3)).sum().item()
        return total / len(images)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "done": self.done,
            "warm": self.warm,
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "level_loss": self.level_loss,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.done, self.warm = state["done"], state["warm"]
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
            self.average[name].copy_(state["average"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.level_loss = state["level_loss"]

    @torch.no_grad()
    def save_model(self, folder: Path, classes: tuple[str, ...] = ()) -> None:
        """Write the averaged network as a directory that `unsample.load` takes."""
        config = {key: value for key, value in self.model.config.items() if key != "_name_or_path"}  # a path of this machine
        network, recipe = UNet2DModel.from_config(config), self.recipe
        network.load_state_dict(self.average)
        network.save_pretrained(folder / "unet")
        scheduler = DDIMScheduler(recipe.timesteps, beta_start=recipe.beta_start, beta_end=recipe.beta_end, clip_sample=False)
        scheduler.save_pretrained(folder / "scheduler")
        names = list(classes) or [str(index) for index in range(recipe.no_class)]
        write_json(folder / "classes.json", {"names": names, "null": recipe.no_class})
        parts = {"scheduler": ["diffusers", "DDIMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
        write_json(folder / "model_index.json", {"_class_name": "DDIMPipeline", **parts})

    def save_snapshot(self, path: Path) -> None:
        """Write the averaged weights in half precision."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.half().contiguous() for name, weight in self.average.items()}, path)


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file."""
    path.write_text(json.dumps(value, indent=0) + "\n")


def class_names(data: Path) -> tuple[str, ...]:
    """The names in the data's classes.json, {"0": {"name": ...}, ...}; none if there is no such file."""
    file = data / "classes.json"
    if not file.is_file():
        return ()
    given = json.loads(file.read_text())
    return tuple(given[str(index)]["name"] for index in range(len(given)))


def train(recipe: Recipe, data: Path, out: Path, init: Path | None = None) -> bool:
    """Train until ``recipe.steps`` or until asked to stop; return whether the run is complete."""
    out.mkdir(parents=True, exist_ok=True)
    side, checkpoint = recipe.model["sample_size"], out / "checkpoint.pt"
    images = Images.open(data, out / "cache", "train", side)
    validation = Images.open(data, out / "cache", "validation", side)
    held_out = validation.take(spread(validation, recipe.held_out))
    batches = Batches(images, recipe.batch, recipe.seed)
    trainer = Trainer(recipe, init)
    if checkpoint.exists():
        trainer.load(checkpoint)
    log, losses, stop = Log(out / "loss.csv", trainer.done), list[float](), threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    marks = {round(fraction * recipe.steps) for fraction in recipe.snapshots}

    def evaluate(loss: float | str = "") -> None:
        averaged, raw = (trainer.held_out_loss(*held_out, average=which) for which in (True, False))
        console.print(f"step {trainer.done}: held-out loss {averaged:.5f} averaged, {raw:.5f} raw")
        log.add(trainer.done, loss, round(averaged, 6), round(raw, 6))

    console.print(f"{len(images)} images, from step {trainer.done} to {recipe.steps}")
    if trainer.done == 0:
        evaluate()
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        task = progress.add_task("training", total=recipe.steps, completed=trainer.done)
        while trainer.done < recipe.steps and not stop.is_set():
            losses.append(trainer.step(*batches(trainer.done)))
            if trainer.done % recipe.report_every == 0:
                loss = round(sum(losses) / len(losses), 6)
                losses.clear()
                if trainer.done % recipe.evaluate_every == 0:
                    evaluate(loss)
                else:
                    log.add(trainer.done, loss)
            if trainer.done in marks:
                trainer.save_snapshot(out / "snapshots" / f"step-{trainer.done:06d}.safetensors")
            if trainer.done % recipe.checkpoint_every == 0:
                trainer.save(checkpoint)
            progress.update(task, completed=trainer.done)
    trainer.save(checkpoint)
    trainer.save_model(out / "model", class_names(data))
    plot(out / "loss.csv", out / "loss.png")
    console.print(f"stopped after {trainer.done} of {recipe.steps} steps")
    return trainer.done == recipe.steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small class-conditional diffusion network.")
    parser.add_argument("recipe", type=Path, help="a TOML file, such as training/tiny-imagenet-32.toml")
    parser.add_argument("--data", type=Path, required=True, help="folder of train-*.parquet and validation-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, and to continue from")
    parser.add_argument("--init", type=Path, help="model folder to start from, instead of random weights")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number of steps")
    arguments = parser.parse_args()
    changes = {"steps": arguments.steps} if arguments.steps is not None else {}
    train(Recipe.load(arguments.recipe, **changes), arguments.data, arguments.out, arguments.init)


if __name__ == "__main__":
    main()
