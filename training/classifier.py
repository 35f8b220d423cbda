"""Train the small classifier that judges generated images.

    python training/classifier.py training/recipes/tiny-imagenet-32-classifier.toml --data DIR --out DIR [--steps N]

Everything random at a step is drawn from (seed, step), so a run that is stopped and started again gives the same network
as one that was not. Stop it with Ctrl-C or SIGTERM; the same command continues it, with another ``--steps`` if the cooldown
has not begun. The network that it ends with has seen the whole cooldown; its last state is what is written, not an average.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Batches, Images, class_names
from losses import Log
from networks import write_json
from rich.console import Console
from safetensors.torch import save_file
from steps import stopped_by_signals, write_checkpoint
from torch import Tensor
from torch.nn import functional

from unsample.core.reading import read_text, toml_of
from unsample.diagnostics.intervals import bootstrap
from unsample.models.classifier import ResidualNetwork, load_classifier

console = Console()


@dataclass(frozen=True)
class Recipe:
    """A recipe file: [model] are arguments of ResidualNetwork; [train] are the fields below."""

    model: dict[str, Any]
    seed: int
    size: int
    batch: int
    steps: int
    warmup: int
    cooldown: int
    learning_rate: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    shift: int
    bf16: bool
    channels_last: bool
    report_every: int
    evaluate_every: int
    checkpoint_every: int

    @classmethod
    def load(cls, path: Path, **changes: Any) -> Recipe:
        """Read a recipe file; ``changes`` take the place of its values."""
        tables = toml_of(read_text(path))
        return cls(tables["model"], **{**tables["train"], **changes})

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up, constant, then linear down to (almost) zero over the cooldown."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (self.steps - step) / self.cooldown) if self.cooldown else 1.0
        return self.learning_rate * rise * fall


def augment(images: Tensor, recipe: Recipe, step: int) -> Tensor:
    """Shift images (B, 3, S, S), mirrored at the border: a pure function of (seed, step)."""
    count, _, side, _ = images.shape
    random = np.random.default_rng([recipe.seed, 1, step])
    offsets = torch.from_numpy(random.integers(-recipe.shift, recipe.shift + 1, (2, count, 1)))
    pixel = torch.arange(side)
    rows, columns = (side - 1 - (side - 1 - (pixel + offsets).abs()).abs()).unbind()
    each = torch.arange(count)[:, None, None]
    return images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Trainer:
    """The network, its optimiser, and the number of steps done."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.done = recipe, 0
        torch.manual_seed(recipe.seed)
        self.model = ResidualNetwork(**recipe.model).train()
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        weights = list(self.model.parameters())
        groups = [
            {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [weight for weight in weights if weight.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Train on images (B, 3, S, S) in [-1, 1] with labels (B,); return the loss."""
        recipe = self.recipe
        images = augment(images, recipe, self.done)
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            logits = self.model(images)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate(self.done)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.done += 1
        return float(loss.item())

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {"done": self.done, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        write_checkpoint(state, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.done = state["done"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])

    def save_model(self, folder: Path, classes: tuple[str, ...] = ()) -> None:
        """Write the network in half precision as a directory that `unsample.models.classifier.load_classifier` takes."""
        folder.mkdir(parents=True, exist_ok=True)
        recipe = self.recipe
        names = list(classes) or [str(index) for index in range(recipe.model["classes"])]
        write_json(folder / "config.json", {"model": recipe.model, "size": recipe.size, "names": names})
        state = {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}
        save_file({name: value.half().contiguous() for name, value in state.items()}, folder / "model.safetensors")


@torch.no_grad()
def judge(network: torch.nn.Module, images: Images, batch: int = 500) -> dict[str, Tensor]:
    """Per image, each (N,): whether its class is the first or among five, the probability of its class, and -log of that."""
    training = network.training
    network.eval()
    parts = np.array_split(np.arange(len(images)), -(-len(images) // batch))
    taken = [(network(pixels), labels) for pixels, labels in map(images.take, parts)]
    network.train(training)
    logits, labels = (torch.cat(each) for each in zip(*taken, strict=True))
    hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    nll = functional.cross_entropy(logits, labels, reduction="none")
    return {"top1": hits[:, 0].float(), "top5": hits.any(1).float(), "alignment": (-nll).exp(), "nll": nll}


def evaluate(folder: Path, validation: Images) -> dict[str, Any]:
    """The written network on the validation images: means with 95 % bootstrap intervals over images."""
    classifier = load_classifier(str(folder), device="cpu")
    values = judge(classifier.network, validation)
    report = {key: [round(number, 4) for number in astuple(bootstrap(value))] for key, value in values.items()}
    parameters = sum(weight.numel() for weight in classifier.network.parameters())
    return {"images": len(validation), "parameters": parameters, "digest": classifier.digest, **report}


def train(recipe: Recipe, data: Path, out: Path) -> bool:
    """Train until ``recipe.steps`` or until asked to stop; return whether the run is complete."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    images = Images.open(data, out / "cache", "train", recipe.size)
    validation = Images.open(data, out / "cache", "validation", recipe.size)
    batches, trainer = Batches(images, recipe.batch, recipe.seed), Trainer(recipe)
    if checkpoint.exists():
        trainer.load(checkpoint)
    log, losses = Log(out / "loss.csv", trainer.done), list[float]()
    console.print(f"{len(images)} images, from step {trainer.done} to {recipe.steps}")
    with stopped_by_signals() as stop:
        while trainer.done < recipe.steps and not stop.is_set():
            losses.append(trainer.step(*batches(trainer.done)))
            held_out: float | str = ""
            if trainer.done % recipe.evaluate_every == 0 or trainer.done == recipe.steps:
                scores = {key: value.mean().item() for key, value in judge(trainer.model, validation).items()}
                held_out = round(scores["nll"], 6)
                console.print(f"step {trainer.done}: " + ", ".join(f"{key} {value:.4f}" for key, value in scores.items()))
            if trainer.done % recipe.report_every == 0 or held_out:
                log.add(trainer.done, round(sum(losses) / len(losses), 6), held_out)
                losses.clear()
            if trainer.done % recipe.checkpoint_every == 0:
                trainer.save(checkpoint)
    trainer.save(checkpoint)
    trainer.save_model(out / "model", class_names(data))
    report = evaluate(out / "model", validation)
    write_json(out / "evaluation.json", report)
    console.print(report)
    console.print(f"stopped after {trainer.done} of {recipe.steps} steps")
    return trainer.done == recipe.steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small classifier that judges generated images.")
    parser.add_argument("recipe", type=Path, help="a TOML file, such as training/recipes/tiny-imagenet-32-classifier.toml")
    parser.add_argument("--data", type=Path, required=True, help="folder of train-*.parquet and validation-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, and to continue from")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number of steps")
    arguments = parser.parse_args()
    changes = {"steps": arguments.steps} if arguments.steps is not None else {}
    train(Recipe.load(arguments.recipe, **changes), arguments.data, arguments.out)


if __name__ == "__main__":
    main()
