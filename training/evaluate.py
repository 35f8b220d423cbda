"""Judge a trained model of any kind: held-out losses, samples, a round trip. Writes what a model card needs.

    python training/evaluate.py MODEL --data DIR --out DIR [--images N] [--samples N] [--device cuda]

MODEL is what `unsample.load` takes. Writes ``evaluation.json``, ``samples.png`` and ``card.md``, the tables in Markdown, to
the folder given by ``--out``. Losses are of the network's own target and of the noise that it amounts to, at the same
sigma/alpha for every model: losses of the noise compare between models of one space, pixels or the latents of one autoencoder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Images, spread
from rich.progress import track
from torch import Tensor

import unsample as us
from unsample.core.model import PixelCodec
from unsample.core.schedule import AnySchedule, FlowSchedule, Level
from unsample.diagnostics import frechet_jackknife, frechet_null, psnr
from unsample.diagnostics.intervals import bootstrap
from unsample.models.classifier import Classifier, load_classifier
from unsample.pictures import PictureRow, picture_rows

LEVELS = (0, 20, 60, 120, 200, 300, 400, 550, 750, 950)
"""Timesteps of the linear table; other schedules are asked where their sigma/alpha is the same, or next to it."""

CLASSES = (0, 25, 50, 75, 100, 125, 150, 175)
GUIDANCES = (1.0, 2.5)
STEPS, BATCH = 50, 64

Interval = list[float]
"""An estimate and the ends of its 95 % bootstrap interval over images."""


# Held-out loss


def levels_of(schedule: AnySchedule) -> dict[int, Level]:
    """For each of `LEVELS`, the level of a model whose sigma/alpha is nearest to that of the linear table there."""
    linear = us.Schedule.from_betas(us.Schedule.linear_betas())
    wanted = {t: linear.level(t).ratio for t in LEVELS}
    if isinstance(schedule, FlowSchedule):
        return {t: schedule.level(len(schedule) * ratio / (1 + ratio)) for t, ratio in wanted.items()}
    ratios = np.log([schedule.level(t).ratio for t in range(len(schedule))])
    return {t: schedule.level(int(np.abs(ratios - np.log(ratio)).argmin())) for t, ratio in wanted.items()}


def own_error(prediction: str, level: Level) -> float:
    """How large an error of the network's own output is, for one of eps: both are linear in each other at a known state."""
    alpha, sigma = level.alpha, level.sigma
    factors = {"v_prediction": (alpha**2 + sigma**2) / alpha, "flow": (alpha + sigma) / alpha, "sample": sigma / alpha}
    return factors.get(prediction, 1.0)


@torch.no_grad()
def level_losses(model: us.Model, states: Tensor, labels: Sequence[int] | None, level: Level, draw: int) -> Tensor:
    """Each state's MSE of eps at one level, (B,), for clean states (B, C, H, W).

    The noise of the i-th state in a draw is always the same, so two networks are compared on the same noisy states.
    """
    noise = us.ItemNoise(0, range(len(states))).draw(states.shape, stream=f"held out {draw}").to(states)
    noisy = level.alpha * states + level.sigma * noise
    losses = []
    for first in range(0, len(states), BATCH):
        rows = slice(first, first + BATCH)
        eps = model.denoiser(labels and labels[rows])(noisy[rows], level)
        losses.append((eps - noise[rows]).square().mean(dim=(1, 2, 3)).float())
    return torch.cat(losses)


def told(model: us.Model, labels: list[int]) -> dict[str, list[int] | None]:
    """What a model can be told of images: their true classes, no class, or both."""
    classes = getattr(model.conditioner, "classes", model.conditioner)
    ways: dict[str, list[int] | None] = {} if classes is None else {"true_class": labels}
    return ways if classes is not None and getattr(classes, "null", None) is None else {**ways, "no_class": None}


@torch.no_grad()
def held_out(model: us.Model, images: Tensor, labels: list[int]) -> list[dict[str, float]]:
    """Per level, the mean loss of eps with the true class and with none; ``own_``, that of the network's own target."""
    parts = [model.codec.encode(part.to(model.device)) for part in images.split(BATCH)]
    states, rows = torch.cat(parts), []
    for t, level in track(levels_of(model.schedule).items(), "held-out loss"):
        losses = {way: level_losses(model, states, given, level, t) for way, given in told(model, labels).items()}
        means = {way: loss.mean().item() for way, loss in losses.items()}
        factor = own_error(model.prediction, level) ** 2
        first = next(iter(losses.values()))
        rows.append(
            {
                "timestep": level.t,
                "sigma / alpha": round(level.ratio, 4),
                **means,
                "standard_error": first.std().item() / len(first) ** 0.5,
                "predicting_x": (level.alpha**2 * states.square().mean() + (1 - level.sigma) ** 2).item(),
                **{f"own_{way}": factor * mean for way, mean in means.items()},
            }
        )
    return rows


# Samples


def draw(model: us.Model, labels: list[int] | None, count: int, guidance: float) -> Tensor:
    """Samples of true noise, (count, 3, H, W) within [-1, 1], by DDIM, which is Euler's method for a flow."""
    noise, images = us.draw_noise(model, count), []
    for rows in track(
        np.array_split(np.arange(count), -(-count // BATCH)), f"samples, guidance {guidance:g}", disable=count <= BATCH
    ):
        condition = None if labels is None else [labels[row] for row in rows]
        images.append(us.sample(model, noise[rows], steps=STEPS, condition=condition, guidance=guidance).images.cpu())
    return torch.cat(images).clamp(-1, 1)


def judged(model: us.Model, judge: Classifier, validation: Images, count: int) -> dict[str, Any]:
    """Frechet distances of samples to as many photographs with the same classes, beside that of photographs to others."""
    every = np.array_split(np.arange(len(validation)), -(-len(validation) // 500))
    real = torch.cat([judge.features(validation.take(part)[0]).cpu() for part in every])
    chosen = spread(validation, count)
    photographs, labels = validation.take(chosen)
    ways = told(model, labels.tolist())
    given = ways.get("true_class")
    names = getattr(model.conditioner, "names", ())

    def judgement(images: Tensor) -> dict[str, Any]:
        found = frechet_jackknife(judge.features(images).cpu(), real[chosen], features=judge.name, groups=min(10, count // 2))
        said: dict[str, Any] = {"frechet": found.value, "error": found.error, "singular": found.singular}
        return {**said, "alignment": interval(judge.class_alignment(images, labels))} if names == judge.classes else said

    rows = []
    for guidance in GUIDANCES if len(ways) == 2 else (1.0,):
        rows.append({"guidance": guidance, **judgement(draw(model, given, count, guidance))})
    null = frechet_null(real, count)
    report: dict[str, Any] = {"images": count, "rows": rows, "null": [null.mean, null.low, null.high]}
    if not isinstance(model.codec, PixelCodec):
        report["through_the_codec"] = judgement(torch.cat([rebuilt(model, part) for part in photographs.split(BATCH)]))
    if names == judge.classes:
        report["alignment_of_photographs"] = interval(judge.class_alignment(photographs, labels))
    return report


@torch.no_grad()
def rebuilt(model: us.Model, images: Tensor) -> Tensor:
    """What the codec alone makes of images (B, 3, H, W), on the CPU."""
    return model.codec.decode(model.codec.encode(images.to(model.device))).clamp(-1, 1).cpu()


def sheet(model: us.Model, columns: int) -> bytes:
    """A row of samples for each of `CLASSES` at each guidance, of the same noise in every row; as PNG bytes."""
    names = tuple(getattr(model.conditioner, "names", ()))
    classes = [index for index in CLASSES if index < len(names)]
    rows = []
    for guidance in GUIDANCES if len(told(model, [])) == 2 else (1.0,):
        for index in classes or [None]:
            images = draw(model, None if index is None else [index] * columns, columns, guidance)
            name = "" if index is None else f"{names[index].split(',')[0]}, "
            rows.append(PictureRow(f"{name}w={guidance:g}", images, "image"))
    return picture_rows(rows).png


# Round trip


@torch.no_grad()
def round_trip(model: us.Model, images: Tensor, labels: list[int]) -> dict[str, Any]:
    """PSNR of images that plain DDIM inverts, from the image itself, and samples back, told the true class, guidance 1."""
    found: dict[str, list[Tensor]] = {"psnr": []}
    for first in track(range(0, len(images), BATCH), "round trip"):
        part = images[first : first + BATCH].to(model.device)
        condition = told(model, labels[first : first + BATCH]).get("true_class")
        settings: dict[str, Any] = {"steps": STEPS, "method": us.DDIM(), "start": us.FromImage(), "condition": condition}
        back = us.reconstruct(model, part, **settings).images.clamp(-1, 1)
        found["psnr"].append(psnr(part, back))
        if not isinstance(model.codec, PixelCodec):
            alone = rebuilt(model, part).to(part)
            found.setdefault("psnr_of_codec", []).append(psnr(part, alone))
            found.setdefault("psnr_to_codec", []).append(psnr(alone, back))
    return {"images": len(images), "steps": STEPS, **{key: interval(torch.cat(each)) for key, each in found.items()}}


def interval(values: Tensor) -> Interval:
    """The mean of one value per image, with the ends of its interval."""
    return [round(number, 4) for number in astuple(bootstrap(values))]


# The card


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def card(report: dict[str, Any], side: int) -> str:
    """The tables of ``evaluation.json`` in Markdown, for a model of images of so many pixels a side."""
    return "\n\n".join(
        [*_of_losses(report), *_of_samples(report["samples"], report["judge"], side), *_of_trip(report["round_trip"])]
    )


def _of_losses(report: dict[str, Any]) -> list[str]:
    target, first = report["prediction"], report["levels"][0]
    ways = [way for way in ("true_class", "no_class") if way in first]
    own = [] if target == "epsilon" else [f"own_{way}" for way in ways]
    heads = {way: f"eps, {way.replace('_', ' ')}" for way in ways} | {"predicting_x": "x itself"}
    heads |= {key: f"{target}, {key[4:].replace('_', ' ')}" for key in own}
    rows = []
    for row in report["levels"]:
        errors = f"{row[ways[0]]:.3g} ± {2 * row['standard_error']:.1g}"
        others = (f"{row[key]:.3g}" for key in (*ways[1:], *own, "predicting_x"))
        rows.append([f"{row['timestep']:.4g}", f"{row['sigma / alpha']:.3g}", errors, *others])
    return [
        "## Held-out loss",
        f"Mean squared error on {report['images']} validation images, ± two standard errors. eps is the noise; the last\n"
        "column is what the noisy state itself gives, taken for the noise.",
        table(["time", "sigma/alpha", *(heads[key] for key in (*ways, *own, "predicting_x"))], rows),
    ]


def _of_samples(drawn: dict[str, Any], judge: dict[str, Any], side: int) -> list[str]:
    count, said = drawn["images"], {f"samples, guidance {row['guidance']:g}": row for row in drawn["rows"]}
    if "through_the_codec" in drawn:
        said["the same photographs, through the codec"] = drawn["through_the_codec"]
    rows = [[name, f"{row['frechet']:.3g} ± {2 * row['error']:.2g}"] for name, row in said.items()]
    rows.append(["photographs", between(drawn["null"])])
    heads, notes = ["images", "Frechet distance"], []
    if side > judge["size"]:
        notes.append(f"The classifier sees images averaged down to {judge['size']}x{judge['size']}.")
    if drawn["rows"][0]["singular"]:
        notes.append("These are fewer images than there are features: the values are mostly bias.")
    if "alignment_of_photographs" in drawn:
        heads.append("alignment")
        notes.append("Alignment is the mean probability of the wanted class, with its 95 % interval over images.")
        aligned = [*(row["alignment"] for row in said.values()), drawn["alignment_of_photographs"]]
        rows = [[*row, between(value)] for row, value in zip(rows, aligned, strict=True)]
    return [
        "## Samples",
        f"Frechet distance, of features of `{judge['name']}`, from {count} validation photographs: of as many samples,\n"
        f"{STEPS} steps (± two jackknife errors), and of as many other photographs (mean and 95 % range), for which it is\n"
        f"not 0 and falls with their number. {' '.join(notes)}".rstrip(),
        table(heads, rows),
    ]


def _of_trip(trip: dict[str, Any]) -> list[str]:
    meaning = {
        "psnr": "from image to round trip",
        "psnr_of_codec": "from image to what the codec alone makes of it",
        "psnr_to_codec": "from that to round trip",
    }
    return [
        "## Round trip",
        f"{trip['images']} validation images inverted by DDIM, {trip['steps']} steps from the image itself, told their\n"
        "class, and sampled back at guidance 1.",
        table(["PSNR, dB", "mean and 95 % interval"], [[meaning[key], between(trip[key])] for key in meaning if key in trip])
        + "\n",
    ]


def between(value: Interval) -> str:
    """An estimate with the ends of its interval."""
    return "{:.4g} [{:.4g}, {:.4g}]".format(*value)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure held-out losses, samples and a round trip.")
    parser.add_argument("model", help="a name or directory that unsample.load takes")
    parser.add_argument("--data", type=Path, required=True, help="folder of validation-*.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--images", type=int, default=1024, help="how many validation images have their losses measured")
    parser.add_argument(
        "--samples", type=int, default=1024, help="how many samples to judge; at most half the validation images"
    )
    parser.add_argument("--trips", type=int, default=256, help="how many validation images to invert and sample back")
    parser.add_argument("--rows", type=int, default=8, help="how many samples of each class to show")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU if there is one")
    given = parser.parse_args()

    model, judge = us.load(given.model, device=given.device), load_classifier(device=given.device)
    validation = Images.open(given.data, given.out / "cache", "validation", model.image_size[0])
    images, labels = validation.take(spread(validation, min(given.images, len(validation))))
    trips, classes = validation.take(spread(validation, min(given.trips, len(validation))))
    report = {
        "model": model.name,
        "digest": model.digest,
        "prediction": model.prediction,
        "judge": {"name": judge.name, "size": judge.size},
        "images": len(images),
        "levels": held_out(model, images, labels.tolist()),
        "round_trip": round_trip(model, trips, classes.tolist()),
        "samples": judged(model, judge, validation, min(given.samples, len(validation) // 2)),
    }
    (given.out / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.out / "card.md").write_text(card(report, model.image_size[0]))
    (given.out / "samples.png").write_bytes(sheet(model, given.rows))


if __name__ == "__main__":
    main()
