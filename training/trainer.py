"""One step of training, and everything needed to make the next: network, average, optimiser, and the plan of the run.

A step is the same on every device: its numbers are drawn where they are used, nothing waits for the GPU. On a CPU the same
(recipe, step) gives the same network to the bit; on a GPU sums are made in an order that varies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from classes import relate_classes
from networks import ask, build, load_network, save_pipeline
from objectives import LEVELS, Noising, add_noise, alpha_bar, balance, draw, noising, target_of
from recipe import Recipe, RecipeError
from safetensors.torch import save_file
from steps import descend, follow, steps_left, write_checkpoint, young
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

HELD_OUT = 2**31
"""The step whose noise held-out losses are measured with; no run is so long."""

CPU = torch.device("cpu")

ENDLESS = sys.maxsize
"""The steps of a run that ends in time, until it is known how many they are."""


def device_of(name: str) -> torch.device:
    """The device of a name; `auto` is a GPU if there is one."""
    found = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)
    if found.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    return found


class Trainer:
    """The network, its average, its optimiser, and the number of steps done.

    With `minutes`, the number of steps is found while it trains: see `note_time`.
    """

    def __init__(
        self,
        recipe: Recipe,
        init: Path | None = None,
        *,
        device: torch.device = CPU,
        minutes: float | None = None,
    ) -> None:
        if minutes is not None and minutes <= 0:
            raise RecipeError(f"expected minutes above 0, given {minutes:g}")
        self.device, self.done, self.seconds = device, 0, 0.0
        self.minutes, self.hot = minutes, 1 - recipe.cooldown / recipe.steps
        self.recipe = recipe if minutes is None else replace(recipe, steps=ENDLESS)
        self.planned = False
        self.warm = init is not None
        torch.manual_seed(recipe.seed)
        self.model: Any = (load_network(recipe, init) if init else build(recipe)).to(device).train()
        if recipe.related_classes:
            relate_classes(self.model, recipe)
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if recipe.compile else self.model
        self.weights = dict(self.model.named_parameters())
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        fused = {"fused": True} if device.type == "cuda" else {}
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate, **fused)
        self.table = alpha_bar(recipe).to(device)
        self.level_loss = torch.zeros(LEVELS, device=device)

    # The plan

    @property
    def total(self) -> int | None:
        """Steps of the whole run; None while that is not known."""
        return None if self.recipe.steps == ENDLESS else self.recipe.steps

    @property
    def end(self) -> str:
        """When the run ends, in words."""
        return f"to {self.total}" if self.total else f"for {self.minutes:g} minutes"

    @property
    def is_complete(self) -> bool:
        """Whether every step is done."""
        return self.done >= self.recipe.steps

    @property
    def share(self) -> float:
        """How much of the run is done, 0..1."""
        if self.total is not None:
            return self.done / self.total
        return min(self.seconds / (60 * (self.minutes or 0)), self.hot)

    def note_time(self, seconds: float) -> None:
        """Learn how long the run took so far; where it is to end in time, begin the cooldown when that is due.

        The cooldown gets the share of the time that it has of the recipe's steps: as many steps as fit into what is left, at
        the pace so far. Checkpoints keep its length: from there on the run no longer depends on the clock.
        """
        self.seconds = seconds
        if self.total is None and self.minutes is not None and seconds >= self.hot * 60 * self.minutes - 1e-6:
            left = steps_left(self.done, seconds, self.minutes)
            self.recipe, self.planned = replace(self.recipe, steps=self.done + left, cooldown=left), True

    # A step

    def step(self, x0: Tensor, labels: Tensor) -> Tensor:
        """Train on states (B, *shape) with labels (B,); return the loss, which a GPU may still be at work on."""
        recipe = self.recipe
        noise, places, drop = draw(recipe, self.done, len(x0), self.device)
        levels = noising(recipe, places, self.table)
        labels = labels.masked_fill(drop, recipe.no_class)
        noisy = add_noise(x0, noise, levels)
        if recipe.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        with self._fast():
            guess = ask(self.forward, noisy, levels.t, labels)
        each = (guess.float() - target_of(recipe.prediction, x0, noise, levels)).square().mean(dim=(1, 2, 3))
        weight = torch.ones_like(each)
        if recipe.balance:
            self.level_loss, weight = balance(self.level_loss, each.detach(), levels.band)
        descend(self.optimiser, (weight * each).mean(), recipe.rate(self.done))
        self.done += 1
        self.update_average()
        return each.detach().mean()

    @contextmanager
    def _fast(self) -> Iterator[None]:
        """In the recipe's precision; on CPUs without flash attention, whose backward pass is slow there."""
        attention = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16), attention:
            yield

    def update_average(self) -> None:
        """Move the average towards the weights; a run from random weights forgets its first steps sooner."""
        follow(self.average, self.weights, self.recipe.ema if self.warm else young(self.recipe.ema, self.done))

    @torch.no_grad()
    def held_out_losses(self, x0: Tensor, labels: Tensor, average: bool = True) -> tuple[Tensor, Tensor]:
        """The loss of each item, (N,), and its band, (N,), at fixed noise and levels, of the averaged or the raw weights."""
        recipe = self.recipe
        noise, places, _ = draw(recipe, HELD_OUT, len(x0), self.device)
        levels = noising(recipe, places, self.table)
        weights = self.average if average else self.weights
        losses = []
        for rows in torch.arange(len(x0), device=self.device).split(recipe.batch):
            part: Noising = levels[rows]
            inputs = (add_noise(x0[rows], noise[rows], part), part.t)
            named = {"class_labels": labels[rows], "return_dict": False}
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
                guess = torch.func.functional_call(self.model, weights, inputs, named)[0]
            target = target_of(recipe.prediction, x0[rows], noise[rows], part)
            losses.append((guess.float() - target).square().mean(dim=(1, 2, 3)))
        return torch.cat(losses), levels.band

    # Files

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            FloatingPointError: Weights are not finite; the checkpoint that is there stays.
        """
        if not all(bool(weight.isfinite().all()) for weight in self.average.values()):
            raise FloatingPointError(
                f"training diverged before step {self.done}: lower learning_rate; {path} is kept as it was"
            )
        state = {
            "done": self.done,
            "warm": self.warm,
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "level_loss": self.level_loss,
            "prediction": self.recipe.prediction,
            "seconds": self.seconds,
            "plan": [self.recipe.steps, self.recipe.cooldown] if self.planned else None,
        }
        write_checkpoint(state, path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Continue from a checkpoint; an end that was planned stays as planned.

        Raises:
            RecipeError: It is of another network or another objective.
        """
        state = torch.load(path, weights_only=True, map_location=self.device)
        shapes = ({name: weight.shape for name, weight in weights.items()} for weights in (self.weights, state["weights"]))
        same = len({tuple(sorted(each.items())) for each in shapes}) == 1
        if not same or state.get("prediction", self.recipe.prediction) != self.recipe.prediction:
            raise RecipeError(f"{path} is of another network or prediction than this recipe's: choose another --out")
        self.done, self.warm, self.seconds = state["done"], state["warm"], state.get("seconds", 0.0)
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
            self.average[name].copy_(state["average"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.level_loss = state["level_loss"]
        if state.get("plan"):
            steps, cooldown = state["plan"]
            self.recipe, self.planned = replace(self.recipe, steps=steps, cooldown=cooldown), True

    def save_model(
        self,
        folder: Path,
        classes: tuple[str, ...] = (),
        autoencoder: Path | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Write the averaged network as a directory that `unsample.load` takes."""
        save_pipeline(folder, self.recipe, self.model, self.average, classes=classes, autoencoder=autoencoder, dtype=dtype)

    def save_snapshot(self, path: Path) -> None:
        """Write the averaged weights in half precision."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.half().contiguous() for name, weight in self.average.items()}, path)
