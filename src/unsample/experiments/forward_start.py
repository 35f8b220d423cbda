"""Does a forward start repair DDIM inversion, and at what price?

The paper's Sections 3.2 and 4 (E7, E10, E17 and E18 of docs/theory.md's list).

    python -m unsample.experiments.forward_start --data validation.parquet --out docs/results/forward-start

Photographs the model never saw are inverted in several ways and sampled back by plain DDIM with as many steps. Each way is a
resumable run directory under --runs, so the experiment can be interrupted and goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import jobs, models, plotting
from ..atomic import write_atomically
from ..diagnostics import Diagnosis, Interval, bootstrap, psnr
from ..diagnostics.summary import format_number as number
from ..errors import UnsampleError
from ..io import read_parquet
from ..progress import progress_bar
from ..report import Table
from ..settings import InvertSettings
from ..store import Run, slug

__all__ = ["Claim", "Way", "main"]


@dataclass(frozen=True)
class Way:
    """One way of inverting; `title` is what the paper or the field calls it."""

    title: str
    forward: str
    eval_at: str


@dataclass(frozen=True)
class Claim:
    """A sentence, the numbers it rests on, and whether they bear it out."""

    sentence: str
    numbers: str
    holds: bool


PLAIN = Way("DDIM, shifted (the usual)", "0", "target")
PAPER = Way("forward k=2, shifted (the paper)", "2", "target")
SLIP = Way("forward k=2 at the next level, shifted (the slip)", "2@next", "target")
WAYS = (
    PLAIN,
    Way("forward k=1, shifted", "1", "target"),
    PAPER,
    Way("forward k=3, shifted", "3", "target"),
    SLIP,
    Way("DDIM, matched", "0", "source"),
    Way("forward k=1, matched", "1", "source"),
    Way("forward k=2, matched", "2", "source"),
)
COLUMNS = {
    "top-20 r": "top-20 patch correlation",
    "std plain": "std plain",
    "std other": "std other",
    "lag-1 plain": "lag-1 plain",
    "lag-1 other": "lag-1 other",
    "kurtosis": "excess kurtosis",
    "PSNR, dB": "PSNR",
    "SSIM": "SSIM",
    "MAE": "MAE",
    "MAE plain": "MAE plain",
}


@dataclass(frozen=True)
class Measured:
    """What one way gave."""

    diagnosis: Diagnosis
    psnr: torch.Tensor
    nfe: int


def measure(model: Any, photos: Sequence[Any], way: Way, steps: int, runs: Path, batch_size: int) -> Measured:
    """One way on all photographs; read back if it was run before."""
    settings = InvertSettings.of(model, steps=steps, forward=(way.forward,), eval_at=way.eval_at, batch_size=batch_size)
    place = runs / f"{model.name}-{model.digest}" / f"{len(photos)}x{steps}-{way.eval_at}-{slug(way.forward)}"
    with progress_bar(way.title) as on_step:
        run, diagnoses = jobs.invert_photos(model, photos, settings, place, on_step)
    tensors = Run.load(place).tensors()
    back = tensors[f"reconstruction.{way.forward}"].clamp(-1, 1)
    cost: Any = run.manifest.results["cost"]
    nfe_up = cost[way.forward]["nfe"] - steps
    return Measured(next(iter(diagnoses.values())), psnr(tensors["images"], back), nfe_up)


def table(found: Mapping[Way, Measured]) -> Table:
    """Ways as rows, diagnostics as columns, true noise last; estimates with half-widths of their 95 % intervals."""
    rows = []
    for way, measured in found.items():
        cells = []
        for name in COLUMNS.values():
            row = measured.diagnosis[name]
            half = "" if row.low is None or row.high is None else f" ± {number((row.high - row.low) / 2)}"
            cells.append(number(row.value) + half)
        rows.append((way.title, str(measured.nfe), *cells))
    last = next(iter(found.values())).diagnosis
    nulls = [last[name].null for name in COLUMNS.values()]
    rows.append(
        ("true noise", "", *(number(null.mean) + f" ± {number((null.high - null.low) / 2)}" if null else "" for null in nulls))
    )
    return Table(("inversion", "NFE up", *COLUMNS), tuple(rows))


def claims(found: Mapping[Way, Measured]) -> list[Claim]:
    """The paper's sentences, judged by the numbers."""
    plain, paper, slip = found[PLAIN], found[PAPER], found[SLIP]
    std, fixed = plain.diagnosis["std plain"], paper.diagnosis["std plain"]
    corr, repaired = plain.diagnosis["top-20 patch correlation"], paper.diagnosis["top-20 patch correlation"]
    lag, lag_fixed = plain.diagnosis["lag-1 plain"], paper.diagnosis["lag-1 plain"]
    loss, slip_loss = _difference(paper, plain), _difference(slip, paper)
    slip_std = slip.diagnosis["std plain"]
    return [
        Claim(
            "DDIM latents of plain areas have too little noise (claims 1 and 2).",
            f"std {_span(std)} in plain areas against {_span(plain.diagnosis['std other'])} elsewhere; noise {_null(std)}",
            bool(std.high is not None and std.null and std.high < std.null.low),
        ),
        Claim(
            "DDIM latents are correlated (claim 1).",
            f"top-20 r {_span(corr)}, lag-1 in plain areas {_span(lag)}; noise {_null(corr)} and {_null(lag)}",
            bool(corr.low is not None and corr.null and corr.low > corr.null.high),
        ),
        Claim(
            "Replacing the first 2 of 50 steps brings the patch correlation to its floor (claim 5).",
            f"top-20 r {_span(repaired)} against a floor of {_null(repaired)}",
            bool(repaired.is_noise),
        ),
        Claim(
            "... and neighbours in plain areas no longer correlate (claim 5).",
            f"lag-1 {_span(lag_fixed)}; noise {_null(lag_fixed)}",
            bool(lag_fixed.is_noise),
        ),
        Claim(
            "... and gives plain areas the variance of noise (claim 5).",
            f"std {_span(fixed)} in plain areas; noise {_null(fixed)}",
            bool(fixed.is_noise),
        ),
        Claim(
            "... at little cost in reconstruction: less than 2 dB (claim 5; the bound is ours).",
            f"paired change of PSNR {loss.estimate:+.2f} dB [{loss.low:+.2f}, {loss.high:+.2f}]",
            loss.low > -2,
        ),
        Claim(
            "Noising to the next level, as some published code does, whitens latents and spoils reconstructions (E18).",
            f"std in plain areas {_span(slip_std)} instead of {_span(fixed)}; paired change of PSNR "
            f"{slip_loss.estimate:+.2f} dB [{slip_loss.low:+.2f}, {slip_loss.high:+.2f}]",
            abs(slip_std.value - 1) < abs(fixed.value - 1) and slip_loss.high < 0,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment and write its report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="parquet file in the Hugging Face image layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--model", default="tiny-imagenet-32")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--runs", type=Path, default=Path("runs/forward-start"))
    given = parser.parse_args(arguments)
    model = models.load(given.model)
    photos = read_parquet(given.data, model.image_size, given.count)
    found = {way: measure(model, photos, way, given.steps, given.runs, given.batch_size) for way in WAYS}
    write(found, given.out, model, given)


def write(found: Mapping[Way, Measured], out: Path, model: Any, given: argparse.Namespace) -> None:
    """`report.md`, `metrics.json` and `tradeoff.png`."""
    judged = claims(found)
    r = "top-20 patch correlation"
    floor = found[PLAIN].diagnosis[r].null
    points = {w.title: (m.diagnosis[r].value, m.diagnosis["PSNR"].value) for w, m in found.items()}
    picture = plotting.tradeoff(
        points,
        f"top-20 patch correlation of the latents, {given.count} images",
        "reconstruction, PSNR in dB",
        floor.mean if floor else 0,
    )
    command = f"python -m unsample.experiments.forward_start --data DATA --count {given.count} --steps {given.steps} --out OUT"
    lines = [
        "# A forward start against DDIM inversion",
        f"Model `{model.name}` (weights {model.digest}, schedule {model.schedule.digest}), {given.count} validation "
        f"photographs at {model.image_size[1]}x{model.image_size[0]} that it never saw, unconditional, N = {given.steps}, "
        f"leading grid, seed 0; sampled back by plain DDIM with {given.steps} steps. Images in [-1, 1]. ± is half the width "
        "of a 95 % interval: over images (bootstrap; jackknife for r), for true noise over draws. Only true noise of the same "
        "count is a floor for r.",
        f"    {command}",
        table(found).markdown(),
        "![whiteness against reconstruction](tradeoff.png)",
        "## Claims",
        "\n".join(f"- **{'holds' if c.holds else 'does not hold'}** {c.sentence} {c.numbers}." for c in judged),
    ]
    metrics = {
        "model": model.name,
        "digest": model.digest,
        "count": given.count,
        "steps": given.steps,
        "ways": {w.title: {**asdict(w), "nfe_up": m.nfe, **m.diagnosis.to_dict()} for w, m in found.items()},
        "claims": [asdict(claim) for claim in judged],
    }
    write_atomically(out / "tradeoff.png", picture)
    write_atomically(out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    write_atomically(out / "report.md", ("\n\n".join(lines) + "\n").encode())
    print(out / "report.md")


def _difference(ours: Measured, theirs: Measured) -> Interval:
    """Paired change of PSNR, mean over images."""
    return bootstrap(ours.psnr - theirs.psnr)


def _span(row: Any) -> str:
    return f"{number(row.value)} [{number(row.low)}, {number(row.high)}]"


def _null(row: Any) -> str:
    return f"{number(row.null.mean)} [{number(row.null.low)}, {number(row.null.high)}]"


if __name__ == "__main__":
    try:
        main()
    except UnsampleError as error:
        sys.exit(f"unsample: {error}")
