"""Ways of inverting, and what each gives on the same photographs.

A way is a method, a start and a number of steps. Each is a resumable run directory, so a comparison can be interrupted and
goes on, and experiments that share a way share its run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.grid import Grid, Step
from ...core.model import Model
from ...core.stepper import evaluations_on
from ...diagnostics import Diagnosis, Row, psnr
from ...diagnostics.medians import PSNR_MEDIAN, medians
from ...errors import ArgumentError, DivergenceError
from ...methods.registry import inversion_of, parse_method
from ...methods.starts import Start, parse_start
from ...pictures.read import Photo
from ...runs import invert as jobs
from ...runs import report as results
from ...runs.directory import Run, slug
from ...runs.progress import progress_bar
from ...runs.settings import InvertSettings

__all__ = ["MIN_MOVES", "Measured", "Way", "equal_cost", "measure", "run_way"]

MIN_MOVES = 2
"""Fewest moves up that are an inversion; a method that cannot afford them is too expensive."""


@dataclass(frozen=True)
class Way:
    """One way of inverting.

    Attributes:
        method: As on the command line: `ddim`, `ddim:eval_at=source`, `fixed-point:iterations=3`.
        forward: As on the command line: `0`, `2`, `4%`, `2@next`.
        steps: N of the grid, up and down; 0 if the budget is too small for the method.
        title: For people.
        spacing: Of the grid; None is the model's own.
    """

    method: str
    forward: str
    steps: int
    title: str
    spacing: str | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """What a way gave.

    Attributes:
        diagnosis: The run's, and the medians over photos; None after a failure.
        psnr: Of each photo, in dB.
        nfe_up: Network evaluations per photo until the latent and what is stored with it are known.
        seconds: Up and down, all photos.
        failure: What went wrong, and after a colon where.
        stored: What is kept of a photo besides its latent, in latents.
    """

    diagnosis: Diagnosis | None
    psnr: Tensor | None
    nfe_up: int
    seconds: float
    failure: str = ""
    stored: float = 0.0

    @property
    def place(self) -> tuple[Row, Row] | None:
        """The rows `std plain` and `median PSNR`; None if there are none."""
        if self.diagnosis is None or math.isnan(self.diagnosis["std plain"].value):
            return None
        return self.diagnosis["std plain"], self.diagnosis[PSNR_MEDIAN]


def equal_cost(
    methods: Iterable[str], forwards: Iterable[str], nfe: int, model: Model, spacing: str | None = None
) -> list[Way]:
    """A way for each method and start, with as many steps as `nfe` evaluations on the way up allow; 0 if it allows too few.

    Raises:
        ArgumentError: A method, start or spacing that is none, or a budget too small for two moves of any method.
    """
    model.grid(MIN_MOVES, spacing)  # refuses what is no spacing
    grid = cache(lambda steps: model.grid(steps, spacing))
    ways = []
    for method in dict.fromkeys(methods):
        starts = inversion_of(parse_method(method)) is not None
        for forward in dict.fromkeys(forwards if starts else ["0"]):
            steps = _steps(method, forward, nfe, grid, len(model.schedule))
            title = results.title(forward) if starts else "forward diffusion alone"
            ways.append(Way(method, forward, steps, f"{method}, {title}", spacing))
    if not any(way.steps for way in ways):
        raise ArgumentError(f"{nfe} evaluations are too few for {MIN_MOVES} moves of {ways[0].method}; raise --nfe")
    return ways


def _steps(method: str, forward: str, nfe: int, grid: Callable[[int], Grid], trained: int) -> int:
    inversion, start = parse_method(method), parse_start(forward)
    most = 0
    for steps in range(1, trained + 1):
        moves = _moves(start, grid, steps)
        if len(moves) > nfe:
            break
        if len(moves) >= MIN_MOVES and evaluations_on(inversion, moves) <= nfe:
            most = steps
    if not most and all(len(_moves(start, grid, steps)) < MIN_MOVES for steps in range(1, trained + 1)):
        raise ArgumentError(f"forward start {forward} leaves fewer than {MIN_MOVES} moves on any grid; use a smaller one")
    return most


def _moves(start: Start, grid: Callable[[int], Grid], steps: int) -> list[Step]:
    """Those that the start leaves; none if it is longer than the grid, or no grid has so many steps."""
    try:
        return list(grid(steps).up(start.index(grid(steps))))
    except ArgumentError:
        return []


def run_way(model: Model, photos: Sequence[Photo], way: Way, runs: Path, *, batch_size: int = 64, seed: int = 0) -> Run:
    """The complete run of one way on all photographs; not repeated if it was run before.

    Raises:
        ArgumentError: A method or start that does not fit the model.
        DivergenceError: A latent is not finite.
    """
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
    with progress_bar(way.title) as on_step:
        return jobs.invert_run(model, photos, settings, place, on_step)


def measure(model: Model, photos: Sequence[Photo], way: Way, runs: Path, *, batch_size: int = 64, seed: int = 0) -> Measured:
    """What one way gives on all photographs; a failure is told, not raised."""
    if not way.steps:
        return Measured(None, None, 0, 0.0, "too expensive for this budget")
    try:
        run = run_way(model, photos, way, runs, batch_size=batch_size, seed=seed)
    except (ArgumentError, DivergenceError) as error:
        failure = "diverged" if isinstance(error, DivergenceError) else "refused"
        return Measured(None, None, 0, 0.0, f"{failure}: {error}")
    tensors = run.tensors()
    images, latent = tensors["images"], tensors[f"latent.{way.forward}"]
    back = tensors[f"reconstruction.{way.forward}"].clamp(-1, 1)
    cost: Any = run.manifest.results["cost"]
    spent = cost[way.forward]
    (diagnosis,) = results.diagnose_tensors(tensors, [way.forward]).values()
    diagnosis = replace(diagnosis, rows=(*diagnosis.rows, *medians(latent, images, back)))
    stored = sum(tensor[0].numel() for key, tensor in tensors.items() if key.startswith("stored.")) / latent[0].numel()
    return Measured(diagnosis, psnr(images, back), spent["nfe_up"], spent["seconds"], stored=stored)
