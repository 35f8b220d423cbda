"""What the commands `edit` and `variations` do: pictures or a run in, a resumable run directory out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.batching import OnStep
from ..core.model import Model
from ..pictures.edit_sheet import edit_sheet
from ..uses.attention import Named
from ..uses.edit import edit
from ..uses.turning import turning_level
from ..uses.variations import Variations, variations
from .directory import Run
from .edit_by_attention import attended
from .names import slug
from .parts import joined, mean_psnr
from .work import Work

NONE = "none"

COSTS = ("up", "reconstruction", "mask", "edit", "source")
"""Network evaluations per picture: mask and edit of each edit; the source, with an editor, once beside all of them."""


@dataclass(frozen=True, eq=False)
class Edits:
    """A run of `edit`.

    Attributes:
        work: The pictures.
        to: What they are edited towards.
        guidance: Away from what they are.
        strength: The share of the moves that is walked.
        mask: Where they may change.
        seeds: How many draws of the start's noise.
        editor: An attention editor; None for another prompt alone.
    """

    work: Work
    to: Sequence[str | None]
    guidance: float
    strength: float
    mask: Tensor | str | None
    seeds: int
    editor: Named | None = None

    def run(self, out: Path | None, on_step: OnStep) -> Run:
        """The complete run: every batch from every draw, then the pictures and their sheet."""
        work, first = self.work, self.work.inversion.seed
        own = work.start if work.there is None else None
        turning_level(self.strength, work.shared["grid"], own)  # refused before any work
        run, draws = work.open("edit", out), range(first, first + self.seeds)
        if not run.complete:
            self._make(run, draws, on_step)
        run.draw(lambda: self._draw(run, run.tensors(), draws))
        return run

    def _make(self, run: Run, draws: Sequence[int], on_step: OnStep) -> None:
        """Every batch from every draw."""
        work = self.work
        parts = work.parts(run, self._batch, on_step, {f"{seed}.": seed for seed in draws})
        tensors: dict[str, Tensor] = {"images": work.pixels}
        for seed, made in zip(draws, parts, strict=True):
            tensors |= {f"{name}.{seed}": tensor for name, tensor in joined(made).items()}
        first = draws[0]
        spent = torch.stack([tensors[f"nfe.{seed}"].amax(0) for seed in draws]).amax(0).tolist()
        seconds = sum(part.seconds for own in parts for part in own)
        results: dict[str, Any] = {"nfe": dict(zip(COSTS, spent, strict=False)), "seconds": round(seconds, 3)}
        results["starts"] = work.places
        results["psnr"] = mean_psnr(work.pixels, tensors[f"reconstruction.{first}"])
        if len(draws) > 1:
            pairs = [(name or NONE, self._drawn(tensors, i, draws)) for i, name in enumerate(self.to)]
            results["draws"] = [row for name, one in pairs for row in _rows(work, one, draws, name)]
        run.finish(tensors, results)

    def _drawn(self, tensors: dict[str, Tensor], target: int, draws: Sequence[int]) -> Variations:
        """The edits towards a target from each draw, with their distances."""
        made = torch.stack([tensors[f"edit{target}.{seed}"] for seed in draws], dim=1)
        return Variations.of(made, tensors["images"], nfe=0)

    def _batch(self, model: Model, rows: slice, seed: int, on_step: OnStep | None = None) -> dict[str, Tensor]:
        """One inversion of each picture, its reconstruction, and an edit for each target."""
        work, label = self.work, self.work.inversion.label
        numbers = torch.arange(len(work.items), device="cpu")[rows]
        images: Any = work.pixels[rows] if work.there is None else work.there.take(numbers)
        free = self.mask is None and self.editor is None
        everywhere = None if free else torch.ones(model.image_size, device="cpu")  # keeps the pivots
        shared = {**work.shared, "source": label, "strength": self.strength, "seed": seed}
        shared["items"] = [item.id for item in work.items[rows]]
        back = edit(model, images, to=label, guidance=1.0, mask=everywhere, start=work.start, **shared)
        wanted: dict[str, Any] = {"guidance": self.guidance, "mask": self.mask}
        if self.editor is None:
            made = [edit(model, back.trajectory, to=name, **wanted, **shared) for name in self.to]
        else:
            made = attended(work, back.trajectory, shared["items"], self.editor, self.to, seed=seed, **wanted)
        spent = [back.nfe_up, back.nfe_down, max(one.nfe_mask for one in made), max(one.nfe_down for one in made)]
        spent += [] if self.editor is None else [made[0].nfe_down]
        tensors = {"reconstruction": back.images, "nfe": torch.tensor([spent], device="cpu").expand(len(back.images), -1)}
        tensors |= {f"edit{i}": one.images for i, one in enumerate(made)}
        return tensors | {f"mask{i}": one.mask for i, one in enumerate(made) if one.mask is not None}

    def _draw(self, run: Run, tensors: dict[str, Tensor], draws: Sequence[int]) -> None:
        """The edits as files, and a sheet; of several draws those nearest to the picture first."""
        pictures, distances = tensors["images"], list[Tensor]()
        columns = {"picture": pictures, "reconstruction": tensors[f"reconstruction.{draws[0]}"]}
        for i, name in enumerate(self.to):
            folder = f"edits/{i}-{slug(name or NONE)}"
            made = torch.stack([tensors[f"edit{i}.{seed}"] for seed in draws], dim=1)
            if len(draws) == 1:
                columns[name or NONE] = made[:, 0]
                run.write_images(folder, made[:, 0])
                continue
            for j, seed in enumerate(draws):
                run.write_images(f"{folder}/seed-{seed}", made[:, j])
            drawn = Variations.of(made, pictures, nfe=0)
            columns |= _nearest_first(drawn, f"{name or NONE}\n")
            distances.append(drawn.distances)
        run.write_images("reconstructions", columns["reconstruction"])
        _write_sheet(run, columns, distances, draws)


@dataclass(frozen=True)
class Varied:
    """A run of `variations`: `seeds` draws of the start's noise, walked to `strength`, by default the start's level."""

    work: Work
    seeds: int
    strength: float | None

    def run(self, out: Path | None, on_step: OnStep) -> Run:
        """The complete run: every batch, then the pictures and their sheet."""
        work, first = self.work, self.work.inversion.seed
        grid = work.shared["grid"]
        work.start.level(grid)  # refused before any work
        if self.strength is not None:
            turning_level(self.strength, grid, work.start)
        run = work.open("variations", out)
        if not run.complete:
            (parts,) = work.parts(run, self._batch, on_step, {"": first})
            made = joined(parts)
            tensors = {"images": work.pixels, "variations": made["images"], "distances": made["distances"]}
            seconds = round(sum(part.seconds for part in parts), 3)
            results: dict[str, Any] = {"nfe": {"variation": int(made["nfe"].max())}, "seconds": seconds}
            drawn = Variations(made["images"], made["distances"], nfe=0)
            results |= {"starts": work.places, "draws": _rows(work, drawn, range(first, first + self.seeds))}
            run.finish(tensors, results)
        run.draw(lambda: self._draw(run, run.tensors(), first))
        return run

    def _draw(self, run: Run, tensors: dict[str, Tensor], first: int) -> None:
        """The variations as files, and a sheet with those nearest to the picture first."""
        for i in range(self.seeds):
            run.write_images(f"variations/seed-{first + i}", tensors["variations"][:, i])
        columns = _nearest_first(Variations(tensors["variations"], tensors["distances"], nfe=0))
        draws = range(first, first + self.seeds)
        _write_sheet(run, {"picture": tensors["images"], **columns}, [tensors["distances"]], draws)

    def _batch(self, model: Model, rows: slice, seed: int, on_step: OnStep | None = None) -> dict[str, Tensor]:
        """All draws of some pictures."""
        work = self.work
        more: dict[str, Any] = {"condition": work.inversion.label, "strength": self.strength, **work.shared}
        more |= {"items": [item.id for item in work.items[rows]], "start": work.start}
        made = variations(model, work.pixels[rows], seeds=range(seed, seed + self.seeds), **more)
        nfe = torch.full((len(made.images),), made.nfe, device="cpu")
        return {"images": made.images, "distances": made.distances, "nfe": nfe}


def _nearest_first(drawn: Variations, title: str = "") -> dict[str, Tensor]:
    """Columns of a sheet."""
    nearest = drawn.nearest_first
    count = nearest.shape[1]
    return {f"{title}{i + 1} of {count}": nearest[:, i] for i in range(count)}


def _nearest(distances: Tensor, draws: Sequence[int]) -> list[list[tuple[int, float]]]:
    """For each picture its draws with their distances, least first."""
    orders = distances.argsort(dim=1, stable=True).tolist()
    return [[(draws[i], row[i]) for i in order] for order, row in zip(orders, distances.tolist(), strict=True)]


def _rows(work: Work, made: Variations, draws: Sequence[int], to: str = "") -> list[dict[str, Any]]:
    """For each picture which draw is how far from it, for the manifest."""
    each = zip(work.items, _nearest(made.distances, draws), strict=True)
    return [{"picture": item.name, "to": to, "nearest": [[seed, round(far, 6)] for seed, far in row]} for item, row in each]


def _write_sheet(run: Run, columns: dict[str, Tensor], distances: Sequence[Tensor], draws: Sequence[int]) -> None:
    """`overview.png`, with the seeds and distances of draws, nearest first, below them."""
    tables = [_nearest(each, draws) for each in distances]
    notes = [[f"seed {seed}: {far:.3f}" for one in rows for seed, far in one] for rows in zip(*tables, strict=True)]
    run.write("overview.png", edit_sheet([item.name for item in run.manifest.items], columns, notes))
