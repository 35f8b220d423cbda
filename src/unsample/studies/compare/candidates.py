"""The inversions that a comparison measures, and what each gives on the same photographs.

Each is a resumable run directory, so an interrupted comparison continues, and experiments share the runs of equal inversions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from torch import Tensor

from ..._tensors import brief
from ...core.grid import Grid
from ...core.model import Model
from ...diagnostics import Diagnosis, Row, psnr
from ...diagnostics.medians import PSNR_MEDIAN, medians
from ...errors import ArgumentError, DivergenceError
from ...methods.registry import parse_method
from ...methods.starts import parse_start
from ...pictures.read import Photo
from ...runs import invert as jobs
from ...runs import report as results
from ...runs.directory import Run
from ...runs.manifest import short_hash
from ...runs.names import slug
from ...runs.progress import progress_bar
from ...runs.settings import InvertSettings, precision_of
from .budget import MIN_MOVES, Candidate, methods_and_starts, most_steps, moves_left


@brief
@dataclass(frozen=True, eq=False)
class Measured:
    """What an inversion gave on all photographs.

    Attributes:
        diagnosis: That of the run, and the medians over photos; None after a failure.
        psnr: Of each photo, in dB.
        nfe_up: Network evaluations per photo until the latent and what is stored with it are known.
        seconds: Up and down, all photos.
        failure: What went wrong, and the details after a colon; empty after a success.
        stored: Size of what is stored for a photo besides its latent, in latents.
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
    methods: Iterable[str],
    forwards: Iterable[str],
    nfe: int,
    model: Model,
    spacing: str | None = None,
    label: str | None = None,
    guidance: float = 1.0,
) -> list[Candidate]:
    """Each method from each start, with as many steps as `nfe` evaluations on the way up allow; 0 if it allows too few.

    Raises:
        ArgumentError: An unknown method, start, spacing or condition, or a budget too small for two moves of any method.
    """
    model.grid(MIN_MOVES, spacing)  # refuses an unknown spacing
    model.denoiser(None if label is None else [label], guidance)  # and an unknown condition
    each = 1 if guidance == 1 or model.distilled else 2
    grid = cache(lambda steps: model.grid(steps, spacing))
    candidates = [
        Candidate(
            method, forward, _steps(method, forward, nfe // each, grid, len(model.schedule)), title, spacing, label, guidance
        )
        for method, forward, title in methods_and_starts(methods, forwards)
    ]
    if not any(candidate.steps for candidate in candidates):
        raise ArgumentError(f"{nfe} evaluations are too few for {MIN_MOVES} moves of {candidates[0].method}; raise --nfe")
    return candidates


def _steps(method: str, forward: str, nfe: int, grid: Callable[[int], Grid], trained: int) -> int:
    inversion, start = parse_method(method), parse_start(forward)
    most = most_steps(start, grid, lambda _, moves: inversion.evaluations_on(moves), nfe, trained)
    if not most and all(len(moves_left(start, grid, steps)) < MIN_MOVES for steps in range(1, trained + 1)):
        raise ArgumentError(f"forward start {forward} leaves fewer than {MIN_MOVES} moves on any grid; use a smaller one")
    return most


def run_candidate(
    model: Model, photos: Sequence[Photo], candidate: Candidate, runs: Path, *, batch_size: int = 64, seed: int = 0
) -> Run:
    """The complete run of one candidate on all photographs; not repeated if it was run before.

    Raises:
        ArgumentError: A method or start that does not fit the model.
        DivergenceError: A latent is not finite.
    """
    settings = InvertSettings.of(
        model,
        steps=candidate.steps,
        spacing=candidate.spacing,
        method=candidate.method,
        label=candidate.label,
        guidance=candidate.guidance,
        forward=(candidate.forward,),
        batch_size=batch_size,
        seed=seed,
        dtype=precision_of(model),
    )
    ids = hashlib.sha256("".join(photo.id for photo in photos).encode()).hexdigest()[:8]
    name = f"{candidate.method}-{candidate.forward}-{candidate.steps}-{candidate.spacing or 'own'}-{seed}"
    if candidate.label is not None or candidate.guidance != 1:
        name += f"-{candidate.guidance:g}-{short_hash(str(candidate.label))}"
    name += "" if settings.dtype == "float32" else f"-{settings.dtype}"
    place = runs / f"{model.name}-{model.digest}-{ids}" / slug(name)
    with progress_bar(candidate.title) as on_step:
        return jobs.invert_run(model, photos, settings, place, on_step)


def measure_candidate(
    model: Model, photos: Sequence[Photo], candidate: Candidate, runs: Path, *, batch_size: int = 64, seed: int = 0
) -> Measured:
    """What one candidate gives on all photographs; a failure is returned, not raised."""
    if not candidate.steps:
        return Measured(None, None, 0, 0.0, "too expensive for this budget")
    try:
        run = run_candidate(model, photos, candidate, runs, batch_size=batch_size, seed=seed)
    except (ArgumentError, DivergenceError) as error:
        failure = "diverged" if isinstance(error, DivergenceError) else "refused"
        return Measured(None, None, 0, 0.0, f"{failure}: {error}")
    tensors = run.tensors()
    images, latent = tensors["images"], tensors[f"latent.{candidate.forward}"]
    back = tensors[f"reconstruction.{candidate.forward}"].clamp(-1, 1)
    spent = run.manifest.costs[candidate.forward]
    (diagnosis,) = results.diagnose_tensors(tensors, [candidate.forward]).values()
    diagnosis = replace(diagnosis, rows=(*diagnosis.rows, *medians(latent, images, back)))
    stored = sum(tensor[0].numel() for key, tensor in tensors.items() if key.startswith("stored.")) / latent[0].numel()
    return Measured(diagnosis, psnr(images, back), int(spent["nfe_up"]), spent["seconds"], stored=stored)
