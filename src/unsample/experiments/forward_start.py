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

from .. import models, plotting
from ..atomic import write_atomically
from ..comparison import Measured, Way, measure, table
from ..diagnostics import Diagnosis, Interval, bootstrap
from ..diagnostics.summary import format_number as number
from ..errors import DivergenceError, UnsampleError
from ..io import read_photos
from ..model import Model

__all__ = ["Claim", "claims", "main"]

R = "top-20 patch correlation"


@dataclass(frozen=True)
class Claim:
    """A sentence, the numbers it rests on, and whether they bear it out."""

    sentence: str
    numbers: str
    holds: bool


PLAIN = ("ddim", "0", "DDIM, shifted (the usual)")
PAPER = ("ddim", "2", "forward k=2, shifted (the paper)")
SLIP = ("ddim", "2@next", "forward k=2 at the next level, shifted (the slip)")
WAYS = (
    PLAIN,
    PAPER,
    SLIP,
    ("ddim:eval_at=source", "0", "DDIM, matched"),
    ("ddim:eval_at=source", "1", "forward k=1, matched"),
    ("ddim:eval_at=source", "2", "forward k=2, matched"),
    ("ab", "1", "forward k=1, two-step Adams-Bashforth"),
)


def claims(plain: Measured, paper: Measured, slip: Measured) -> list[Claim]:
    """The paper's sentences, judged by the numbers of its three ways."""
    usual, mended, slipped = _diagnosis(plain), _diagnosis(paper), _diagnosis(slip)
    std, fixed, slip_std = usual["std plain"], mended["std plain"], slipped["std plain"]
    corr, repaired = usual[R], mended[R]
    lag, lag_fixed = usual["lag-1 plain"], mended["lag-1 plain"]
    loss, slip_loss = _difference(paper, plain), _difference(slip, paper)
    return [
        Claim(
            "DDIM latents of plain areas have too little noise (claims 1 and 2).",
            f"std {_span(std)} in plain areas against {_span(usual['std other'])} elsewhere; noise {_null(std)}",
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
    parser.add_argument(
        "--data", required=True, help="photographs: a parquet file in the Hugging Face image layout, or a folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--model", default="tiny-imagenet-32")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runs", type=Path, default=Path("runs/forward-start"))
    given = parser.parse_args(arguments)
    model = models.load(given.model)
    photos = read_photos([given.data], model.image_size, given.count)
    given.count = len(photos)
    ways = [Way(method, forward, given.steps, title) for method, forward, title in WAYS]
    found = {way: measure(model, photos, way, given.runs, batch_size=given.batch_size) for way in ways}
    write(found, given.out, model, given)


def write(found: Mapping[Way, Measured], out: Path, model: Model, given: argparse.Namespace) -> None:
    """`report.md`, `metrics.json` and `tradeoff.png`."""
    by_title = {way.title: measured for way, measured in found.items()}
    judged = claims(by_title[PLAIN[2]], by_title[PAPER[2]], by_title[SLIP[2]])
    diagnoses = {title: _diagnosis(measured) for title, measured in by_title.items()}
    floor = diagnoses[PLAIN[2]][R].null
    points = {title: (diagnosis[R].value, diagnosis["PSNR"].value) for title, diagnosis in diagnoses.items()}
    across = f"{R} of the latents, {given.count} images"
    picture = plotting.tradeoff(points, across, "reconstruction, PSNR in dB", floor.mean if floor else 0)
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
        "ways": [{**asdict(w), "nfe_up": m.nfe_up, "seconds": m.seconds, **_diagnosis(m).to_dict()} for w, m in found.items()],
        "claims": [asdict(claim) for claim in judged],
    }
    write_atomically(out / "tradeoff.png", picture)
    write_atomically(out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    write_atomically(out / "report.md", ("\n\n".join(lines) + "\n").encode())
    print(out / "report.md")


def _diagnosis(measured: Measured) -> Diagnosis:
    if measured.diagnosis is None:
        raise DivergenceError(measured.failure)
    return measured.diagnosis


def _difference(ours: Measured, theirs: Measured) -> Interval:
    """Paired change of PSNR, mean over images."""
    if ours.psnr is None or theirs.psnr is None:
        raise DivergenceError(ours.failure or theirs.failure)
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
