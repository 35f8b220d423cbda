"""Ways of inverting, measured side by side on the same photographs.

A way is a method, a start and a number of steps. Each is a resumable run directory, so a comparison can be interrupted and
goes on, and experiments that share a way share its run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from . import jobs, plotting
from .atomic import write_atomically
from .diagnostics import Diagnosis, psnr
from .diagnostics.summary import format_number as number
from .errors import ArgumentError, DivergenceError
from .io import Photo
from .methods import parse_method
from .model import Model
from .progress import progress_bar
from .report import Table
from .settings import InvertSettings
from .starts import parse_start
from .steppers import evaluations_on
from .store import slug

__all__ = ["COLUMNS", "Measured", "Way", "compare", "equal_cost", "measure", "table"]

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
"""Heading of a column -> the diagnostic it shows."""

BRIEF = {name: COLUMNS[name] for name in ("top-20 r", "std plain", "lag-1 plain", "PSNR, dB")}
"""The columns that fit a terminal."""


@dataclass(frozen=True)
class Way:
    """One way of inverting.

    Attributes:
        method: As on the command line: `ddim`, `ddim:eval_at=source`, `fixed-point:iterations=3`.
        forward: As on the command line: `0`, `2`, `4%`, `2@next`.
        steps: N of the grid, up and down.
        title: For people.
    """

    method: str
    forward: str
    steps: int
    title: str
    spacing: str | None = None


@dataclass(frozen=True)
class Measured:
    """What a way gave; no diagnosis if it diverged, and then `failure` says where."""

    diagnosis: Diagnosis | None
    psnr: Tensor | None
    nfe_up: int
    seconds: float
    failure: str = ""


def equal_cost(
    methods: Sequence[str], forwards: Sequence[str], nfe: int, model: Model, spacing: str | None = None
) -> list[Way]:
    """A way for each method and start, with as many steps as `nfe` evaluations on the way up allow.

    Raises:
        ArgumentError: A budget that is too small for a method to make one move.
    """
    return [Way(m, f, _steps(m, f, nfe, model, spacing), f"{m}, {jobs.title(f)}", spacing) for m in methods for f in forwards]


def compare(
    model: Model,
    photos: Sequence[Photo],
    out: Path,
    *,
    methods: Sequence[str],
    forwards: Sequence[str] = ("0", "2"),
    spacing: str | None = None,
    nfe: int = 50,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[Way, Measured]:
    """Each method with each start at equal cost on the way up; `comparison.md`, `.png` and `.json` in `out`.

    The picture has whiteness across (standard deviation in plain areas, 1 for true noise) and reconstruction up. Runs are kept
    in `out`/runs, so an interrupted comparison goes on. A way that diverges is shown as such.
    """
    found = {
        way: measure(model, photos, way, out / "runs", batch_size=batch_size, seed=seed)
        for way in equal_cost(methods, forwards, nfe, model, spacing)
    }
    points = {
        way.title: (m.diagnosis["std plain"].value, m.diagnosis["PSNR"].value) for way, m in found.items() if m.diagnosis
    }
    if points:
        across = f"standard deviation of the latents in plain areas, {len(photos)} pictures, {nfe} evaluations up"
        write_atomically(out / "comparison.png", plotting.tradeoff(points, across, "reconstruction, PSNR in dB", best=1.0))
    rows = [
        {**asdict(way), "nfe_up": m.nfe_up, "seconds": m.seconds, "failure": m.failure}
        | (m.diagnosis.to_dict() if m.diagnosis else {})
        for way, m in found.items()
    ]
    write_atomically(out / "comparison.json", json.dumps({"nfe": nfe, "ways": rows}, indent=1).encode())
    write_atomically(out / "comparison.md", (table(found).markdown() + "\n").encode())
    return found


def _steps(method: str, forward: str, nfe: int, model: Model, spacing: str | None) -> int:
    inversion, start = parse_method(method), parse_start(forward)

    def cost(steps: int) -> int:
        grid = model.grid(steps, spacing)
        try:
            moves = list(grid.up(start.index(grid)))
            return evaluations_on(inversion, moves) if moves else 0
        except ArgumentError:  # the start is longer than this grid
            return 0

    fitting = [steps for steps in range(1, min(nfe + 50, len(model.schedule)) + 1) if 0 < cost(steps) <= nfe]
    if not fitting:
        raise ArgumentError(
            f"{nfe} evaluations are too few for one move of {method} with forward start {forward}; raise --nfe"
        )
    return fitting[-1]


def measure(model: Model, photos: Sequence[Photo], way: Way, runs: Path, *, batch_size: int = 64, seed: int = 0) -> Measured:
    """One way on all photographs; read back if it was run before."""
    settings = InvertSettings.of(
        model,
        steps=way.steps,
        spacing=way.spacing,
        method=way.method,
        forward=(way.forward,),
        batch_size=batch_size,
        seed=seed,
    )
    ids = hashlib.sha256("".join(photo.id for photo in photos).encode()).hexdigest()[:8]
    name = f"{way.method}-{way.forward}-{way.steps}-{way.spacing or 'own'}-{seed}"
    place = runs / f"{model.name}-{model.digest}-{ids}" / slug(name)
    try:
        with progress_bar(way.title) as on_step:
            run, diagnoses = jobs.invert_photos(model, photos, settings, place, on_step)
    except DivergenceError as error:
        return Measured(None, None, 0, 0.0, str(error))
    tensors = run.tensors()
    cost: Any = run.manifest.results["cost"]
    spent = cost[way.forward]
    back = tensors[f"reconstruction.{way.forward}"].clamp(-1, 1)
    (diagnosis,) = diagnoses.values()
    return Measured(diagnosis, psnr(tensors["images"], back), spent["nfe_up"], spent["seconds"])


def table(found: Mapping[Way, Measured], columns: Mapping[str, str] = COLUMNS) -> Table:
    """Ways as rows, diagnostics as columns, true noise last; ± is half the width of a 95 % interval."""
    rows: list[tuple[str, ...]] = []
    null: tuple[str, ...] = ()
    for way, measured in found.items():
        if measured.diagnosis is None:
            rows.append((way.title, str(way.steps), "", "diverged", *[""] * (len(columns) - 1)))
            continue
        cells = [measured.diagnosis[name] for name in columns.values()]
        shown = (_spread(cell.value, cell.low, cell.high) for cell in cells)
        rows.append((way.title, str(way.steps), str(measured.nfe_up), *shown))
        null = null or tuple(_spread(c.null.mean, c.null.low, c.null.high) if c.null else "" for c in cells)
    rows.append(("true noise", "", "", *null))
    return Table(("inversion", "N", "NFE up", *columns), tuple(rows))


def _spread(value: float, low: float | None, high: float | None) -> str:
    return number(value) + ("" if low is None or high is None else f" ± {number((high - low) / 2)}")
