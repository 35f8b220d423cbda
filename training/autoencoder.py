"""Train the small KL autoencoder between images and the latents of the latent models.

    python training/autoencoder.py training/recipes/tiny-imagenet-64-autoencoder.toml --data DIR --out DIR [--minutes M]

The loss is that of latent diffusion (Rombach et al. 2022) without its adversary: absolute error, a perceptual distance, and a
little of the divergence from a normal distribution. The perceptual distance is our own: of features of the classifier that
comes with unsample, at several depths. Everything random at a step is drawn from (seed, step), so that a run that is stopped
(Ctrl-C, SIGTERM) and continued by the same command ends, on a CPU, with the very network of one that was not.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Batches, Images, spread
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from losses import Log, read_log
from objectives import generator_of
from rich.console import Console
from steps import descend, follow, rate_at, steps_left, stopped_by_signals, write_checkpoint, young
from torch import Tensor
from torch.nn import functional
from trainer import device_of

from unsample.core.reading import read_text, toml_of
from unsample.diagnostics import frechet_jackknife, psnr, ssim
from unsample.diagnostics.intervals import bootstrap
from unsample.models.classifier import ResidualNetwork, load_classifier
from unsample.models.digest import digest_of
from unsample.models.families.autoencoder import AutoencoderCodec
from unsample.pictures import Curve, Panel, PictureRow, curves, picture_rows

console = Console()

SHOWN = 10
"""Validation images on the sheet of reconstructions."""

ENDLESS = sys.maxsize
"""The steps of a run that ends in time, until it is known how many they are."""


@dataclass(frozen=True)
class Recipe:
    """A recipe file: [model] are arguments of AutoencoderKL; [loss] and [train] are the fields below."""

    model: dict[str, Any]
    perceptual: float
    kl: float
    seed: int
    batch: int
    crop: int
    steps: int
    warmup: int
    cooldown: int
    learning_rate: float
    ema: float
    bf16: bool
    channels_last: bool
    report_every: int
    evaluate_every: int
    checkpoint_every: int
    held_out: int
    measured: int

    @classmethod
    def load(cls, path: Path, **changes: Any) -> Recipe:
        """Read a recipe file; ``changes`` take the place of its values."""
        tables = toml_of(read_text(path))
        return cls(tables["model"], **{**tables["loss"], **tables["train"], **changes})

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up, constant, then 1 - sqrt down to (almost) zero over the cooldown."""
        lengths = {"warmup": self.warmup, "cooldown": self.cooldown, "steps": self.steps}
        return rate_at(step, learning_rate=self.learning_rate, **lengths)


def perceptual_distance(judge: ResidualNetwork, a: Tensor, b: Tensor) -> Tensor:
    """How far apart two images look to the classifier, (B,): 0 for equal ones.

    At every depth the features of a pixel are scaled to unit length; squared differences are summed over channels, averaged
    over pixels and depths (as LPIPS, Zhang et al. 2018, without its learned weights). The images are taken at their own size:
    no layer before the mean over pixels minds, and averaged ones would not show whether edges are sharp.
    """
    x = functional.relu(judge.stem_norm(judge.stem(torch.cat([a, b]))))
    depths = [x]
    for block in judge.blocks:
        depths.append(block(depths[-1]))
    pairs = (functional.normalize(depth.float(), dim=1).chunk(2) for depth in depths)
    return torch.stack([(left - right).square().sum(1).mean((1, 2)) for left, right in pairs]).mean(0)


@torch.no_grad()
def standardise(network: AutoencoderKL, means: Tensor, deviations: Tensor) -> None:
    """Change the two 1x1 convolutions about the latents so that each channel has mean 0 and deviation 1, and images stay.

    A channel z with the given mean and deviation becomes (z - mean) / deviation behind the encoder, and z again before the
    decoder. One factor for all channels, as latent diffusion has it, would leave a diffusion model their means to learn.
    """
    into, out = network.quant_conv, network.post_quant_conv
    channels, means, deviations = len(means), means.to(into.weight), deviations.to(into.weight)
    out.bias += out.weight[:, :, 0, 0] @ means
    out.weight *= deviations[None, :, None, None]
    into.weight[:channels] /= deviations[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - means) / deviations
    into.bias[channels:] -= 2 * deviations.log()  # of the posterior's variance


class Trainer:
    """The autoencoder, its average, its optimiser, and the number of steps done."""

    def __init__(self, recipe: Recipe, device: torch.device, minutes: float | None = None) -> None:
        self.device, self.done, self.minutes = device, 0, minutes
        self.recipe = recipe if minutes is None else replace(recipe, steps=ENDLESS)
        self.hot = 1 - recipe.cooldown / recipe.steps
        torch.manual_seed(recipe.seed)
        self.model = AutoencoderKL(**recipe.model).to(device).train()
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.weights = dict(self.model.named_parameters())
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0)
        self.judge = load_classifier(device=device).network

    @property
    def is_complete(self) -> bool:
        """Whether every step is done."""
        return self.done >= self.recipe.steps

    def note_time(self, seconds: float) -> None:
        """In a run that ends in time, begin the cooldown when its share of the time is left: of as many steps as will fit."""
        if self.minutes is not None and self.recipe.steps == ENDLESS and seconds >= self.hot * 60 * self.minutes:
            left = steps_left(self.done, seconds, self.minutes)
            self.recipe = replace(self.recipe, steps=self.done + left, cooldown=left)

    def losses(self, images: Tensor, rebuilt: Tensor) -> Tensor:
        """Absolute error and perceptual distance, each (B,), as rows."""
        error = (rebuilt - images).abs().mean((1, 2, 3))
        if not self.recipe.perceptual:
            return torch.stack([error, torch.zeros_like(error)])
        return torch.stack([error, perceptual_distance(self.judge, rebuilt, images)])

    def step(self, images: Tensor) -> Tensor:
        """Train on images (B, 3, H, W) in [-1, 1]; return the loss, which may still be on its way from the GPU.

        Of each image it sees a square of `crop` pixels a side, at a place that is drawn per step: the network is
        convolutions, so that what it learns of squares holds for images of any size.
        """
        recipe = self.recipe
        generator = generator_of(recipe.seed, self.done, torch.device("cpu"))
        room = images.shape[-1] - recipe.crop
        top, left = torch.randint(room + 1, (2,), generator=generator).tolist() if room else (0, 0)
        images = self._placed(images[..., top : top + recipe.crop, left : left + recipe.crop])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
            moments = self.model.encode(images).latent_dist.parameters
            posterior = DiagonalGaussianDistribution(moments.float())
            rebuilt = self.model.decode(posterior.sample(generator)).sample
            error, seen = self.losses(images, rebuilt.float())
        loss = (error + recipe.perceptual * seen + recipe.kl * posterior.kl() / images[0].numel()).mean()
        descend(self.optimiser, loss, recipe.rate(self.done))
        self.done += 1
        follow(self.average, self.weights, young(recipe.ema, self.done))
        return loss.detach()

    @torch.no_grad()
    def held_out_loss(self, images: Tensor, average: bool = True) -> float:
        """Error and weighted perceptual distance of images rebuilt from posterior means, by averaged or raw weights."""
        weights, total = self.average if average else self.weights, 0.0
        for part in self._placed(images).split(self.recipe.batch):
            rebuilt = torch.func.functional_call(self.model, weights, (part,)).sample
            error, seen = self.losses(part, rebuilt)
            total += (error + self.recipe.perceptual * seen).sum().item()
        return total / len(images)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        state = {"done": self.done, "weights": weights, "average": self.average, "optimiser": self.optimiser.state_dict()}
        if self.minutes is not None and self.recipe.steps != ENDLESS:
            state["plan"] = [self.recipe.steps, self.recipe.cooldown]
        write_checkpoint(state, path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.done = state["done"]
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
            self.average[name].copy_(state["average"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        if "plan" in state and self.minutes is not None:
            self.recipe = replace(self.recipe, steps=state["plan"][0], cooldown=state["plan"][1])

    @torch.no_grad()
    def save_model(self, folder: Path, images: Images) -> dict[str, Any]:
        """Write the averaged autoencoder in half precision, its latents standardised; return what they were before.

        Measured are the posterior means of training images, channel by channel.
        """
        network = AutoencoderKL(**{**self.recipe.model, "scaling_factor": 1.0})
        network.load_state_dict(self.average)
        network.to(self.device).eval()
        parts = np.array_split(spread(images, min(self.recipe.measured, len(images))), -(-self.recipe.measured // 256))
        codec = AutoencoderCodec.of(network)
        latents = torch.cat([codec.encode(images.take(part)[0].to(self.device)).cpu() for part in parts if len(part)])
        deviations, means = torch.std_mean(latents, dim=(0, 2, 3))
        standardise(network, means, deviations)
        network.half().save_pretrained(folder)
        moments = {"means": means, "standard_deviations": deviations}
        return {"images": len(latents), **{key: [round(one, 4) for one in value.tolist()] for key, value in moments.items()}}

    def _placed(self, images: Tensor) -> Tensor:
        form = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        return images.to(self.device, memory_format=form)


@torch.no_grad()
def evaluate(folder: Path, validation: Images, sheet: Path) -> dict[str, Any]:
    """The written autoencoder on all validation images, with 95 % bootstrap intervals over images; ``sheet`` shows a few."""
    judge = load_classifier()
    network = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).to(judge.device).eval()
    codec, values, features = AutoencoderCodec.of(network), [], []
    for part in np.array_split(np.arange(len(validation)), -(-len(validation) // 250)):
        images = validation.take(part)[0]
        rebuilt = codec.decode(codec.encode(images.to(judge.device))).clamp(-1, 1).cpu()
        values.append(torch.stack([psnr(images, rebuilt), ssim(images, rebuilt)]))
        features.append(torch.stack([judge.features(images), judge.features(rebuilt)]).cpu())
    report = {key: _rounded(bootstrap(value)) for key, value in zip(("psnr", "ssim"), torch.cat(values, 1), strict=True)}
    both = torch.cat(features, 1)
    distance = frechet_jackknife(both[1], both[0], features=judge.name, groups=min(10, len(validation) // 2))
    shown = validation.take(spread(validation, SHOWN))[0]
    latents = codec.encode(shown.to(judge.device))
    rows = (PictureRow("photographs", shown, "image"), PictureRow("rebuilt", codec.decode(latents).cpu(), "image"))
    sheet.write_bytes(picture_rows((*rows, PictureRow("latents", latents.cpu(), "latent"))).png)
    return {
        "images": len(validation),
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "digest": digest_of(network),
        "scaling_factor": network.config.scaling_factor,
        **report,
        "frechet": {
            "value": round(distance.value, 3),
            "error": round(distance.error or 0.0, 3),
            "features": distance.features,
        },
    }


def _rounded(interval: Any) -> list[float]:
    return [round(number, 4) for number in astuple(interval)]


def plot(log: Path, picture: Path) -> None:
    """Draw the loss curve of a ``loss.csv``."""
    rows, lines = read_log(log), []
    for key, name in (("loss", "training"), ("held_out_raw", "held out"), ("held_out", "held out, averaged weights")):
        points = [(row["step"], row[key]) for row in rows if row[key] is not None]
        if points:
            lines.append(Curve(name, *zip(*points, strict=True)))
    picture.write_bytes(curves(Panel("", lines, "step", "loss", log="y", marks=False)).png)


def train(recipe: Recipe, data: Path, out: Path, minutes: float | None = None, device: str = "auto") -> bool:
    """Train until ``recipe.steps``, or for so many minutes, or until asked to stop; return whether the run is complete."""
    out.mkdir(parents=True, exist_ok=True)
    side, checkpoint = recipe.model["sample_size"], out / "checkpoint.pt"
    images, validation = (Images.open(data, out / "cache", split, side) for split in ("train", "validation"))
    held_out, _ = validation.take(spread(validation, recipe.held_out))
    trainer = Trainer(recipe, device_of(device), minutes)
    if checkpoint.exists():
        trainer.load(checkpoint)
    batches = Batches(images.on(trainer.device), recipe.batch, recipe.seed)
    log, losses = Log(out / "loss.csv", trainer.done), list[Tensor]()
    console.print(f"{len(images)} images, from step {trainer.done}, on {trainer.device}")
    with stopped_by_signals() as stop:
        while not trainer.is_complete and not stop.is_set():
            losses.append(trainer.step(batches(trainer.done)[0]))
            trainer.note_time(log.seconds)
            looks = trainer.done % recipe.evaluate_every == 0 or trainer.is_complete
            if looks or trainer.done % recipe.report_every == 0:
                pair = [round(trainer.held_out_loss(held_out, which), 6) for which in (True, False)] if looks else ["", ""]
                log.add(trainer.done, round(torch.stack(losses).mean().item(), 6), *pair)
                losses.clear()
            if looks:
                console.print(f"step {trainer.done}: held-out loss {pair[0]} averaged, {pair[1]} raw")
            if trainer.done % recipe.checkpoint_every == 0:
                trainer.save(checkpoint)
    trainer.save(checkpoint)
    latents = trainer.save_model(out / "model", images)
    report = {"steps": trainer.done, **evaluate(out / "model", validation, out / "reconstructions.png"), "latents": latents}
    (out / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(out / "loss.csv", out / "loss.png")
    console.print(report)
    console.print("complete" if trainer.is_complete else f"stopped after {trainer.done} steps")
    return trainer.is_complete


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small KL autoencoder of the latent models.")
    parser.add_argument("recipe", type=Path, help="a TOML file, such as training/recipes/tiny-imagenet-64-autoencoder.toml")
    parser.add_argument("--data", type=Path, required=True, help="folder of train-*.parquet and validation-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, and to continue from")
    parser.add_argument("--perceptual", type=float, help="instead of the recipe's weight; 0 leaves the classifier out")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU if there is one")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="instead of the recipe's number of steps")
    length.add_argument("--minutes", type=float, help="end in this time, cooldown included")
    given = parser.parse_args()
    changes = {name: value for name in ("steps", "perceptual") if (value := getattr(given, name)) is not None}
    train(Recipe.load(given.recipe, **changes), given.data, given.out, given.minutes, given.device)


if __name__ == "__main__":
    main()
