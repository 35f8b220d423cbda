"""What the commands `edit` and `variations` do: pictures or a run in, a resumable run directory out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cli.invert import short_hash
from ..cli.model_options import Chosen
from ..core.batching import OnStep, batches
from ..core.model import Model
from ..core.trajectory import Trajectory
from ..methods.starts import parse_start
from ..pictures import read as io
from ..pictures.edit_sheet import edit_sheet
from ..uses.attention import Named
from ..uses.attention.hooks import unet_of
from ..uses.edit import edit, turning_level
from ..uses.masks import read_mask
from ..uses.variations import Variations, variations
from .directory import Item, Part, Run, slug
from .edit_by_attention import attended
from .invert import item_of
from .read_back import read_inverted
from .settings import InvertSettings

__all__ = ["Edits", "Work", "mask_of", "of_pictures", "of_run", "varied"]

NONE, AUTO = "none", "auto"

COSTS = ("up", "reconstruction", "mask", "edit", "source")
"""Network evaluations per picture: mask and edit of each edit; the source, with an editor, once beside all of them."""


@dataclass(frozen=True)
class Work:
    """Pictures, a model, and how they are, or were, inverted."""

    model: Model
    inversion: InvertSettings
    items: Sequence[Item]
    pixels: Tensor
    settings: Mapping[str, Any]
    there: Trajectory | None = None

    def open(self, command: str, out: Path | None) -> Run:
        """The run directory, new or resumed."""
        settings = {**self.inversion.model_dump(mode="json"), **self.settings}
        key = short_hash(json.dumps(settings, sort_keys=True), *(item.id for item in self.items))
        place = out or Path("runs") / f"{command}-{key}"
        return Run.open(place, command, settings, self.items, self.inversion.origin)

    @property
    def shared(self) -> dict[str, Any]:
        """Arguments of `edit` and `variations` alike."""
        return {"grid": self.inversion.grid(self.model), "method": self.inversion.inversion()}

    def batches(self) -> list[slice]:
        """Rows that are worked on together."""
        return list(batches(len(self.items), self.inversion.batch_size))


@dataclass(frozen=True)
class Edits:
    """A run of `edit`."""

    work: Work
    to: Sequence[str | None]
    guidance: float
    strength: float
    mask: Tensor | str | None
    seeds: int
    editor: Named | None = None

    def run(self, out: Path | None, on_step: OnStep) -> Run:
        """Every batch from every draw, then the pictures and their sheet."""
        own = parse_start(self.work.inversion.forward[-1]) if self.work.there is None else None
        turning_level(self.strength, self.work.inversion.grid(self.work.model), own)  # refused before any work
        run, first = self.work.open("edit", out), self.work.inversion.seed
        if run.complete:
            return run
        draws, rows = range(first, first + self.seeds), self.work.batches()
        tensors: dict[str, Tensor] = {"images": self.work.pixels}
        seconds = 0.0
        for seed in draws:
            parts = []
            for each in rows:
                parts.append(_part(run, f"{seed}.{each.start:06d}", partial(self._batch, each, seed)))
                on_step((seed - first) * len(self.work.items) + min(each.stop, len(self.work.items)), self.total)
            tensors |= {f"{name}.{seed}": torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}
            seconds += sum(part.seconds for part in parts)
        self._draw(run, tensors, draws)
        spent = torch.stack([tensors[f"nfe.{seed}"].amax(0) for seed in draws]).amax(0).tolist()
        run.finish(tensors, {"nfe": dict(zip(COSTS, spent, strict=False)), "seconds": round(seconds, 3)})
        return run

    @property
    def total(self) -> int:
        """Pictures to invert."""
        return self.seeds * len(self.work.items)

    def _batch(self, rows: slice, seed: int) -> dict[str, Tensor]:
        """One inversion of each picture, its reconstruction, and an edit for each target."""
        work, label = self.work, self.work.inversion.label
        images: Any = work.pixels[rows] if work.there is None else work.there.take(torch.arange(len(work.items))[rows])
        free = self.mask is None and self.editor is None
        everywhere = None if free else torch.ones(work.model.image_size)  # keeps the pivots
        shared = {**work.shared, "source": label, "strength": self.strength, "seed": seed}
        shared["items"] = [item.id for item in work.items[rows]]
        start = parse_start(work.inversion.forward[-1])
        back = edit(work.model, images, to=label, guidance=1.0, mask=everywhere, start=start, **shared)
        wanted: dict[str, Any] = {"guidance": self.guidance, "mask": self.mask}
        if self.editor is None:
            made = [edit(work.model, back.trajectory, to=name, **wanted, **shared) for name in self.to]
        else:
            made = attended(work, back.trajectory, shared["items"], self.editor, self.to, seed=seed, **wanted)
        spent = [back.nfe_up, back.nfe_down, max(one.nfe_mask for one in made), max(one.nfe_down for one in made)]
        spent += [] if self.editor is None else [made[0].nfe_down]
        tensors = {"reconstruction": back.images, "nfe": torch.tensor([spent]).expand(len(back.images), -1)}
        tensors |= {f"edit{i}": one.images for i, one in enumerate(made)}
        return tensors | {f"mask{i}": one.mask for i, one in enumerate(made) if one.mask is not None}

    def _draw(self, run: Run, tensors: Mapping[str, Tensor], draws: Sequence[int]) -> None:
        pictures, notes = tensors["images"], list[Tensor]()
        columns = {"picture": pictures, "reconstruction": tensors[f"reconstruction.{draws[0]}"]}
        for i, name in enumerate(self.to):
            folder = f"edits/{i}-{slug(name or NONE)}"
            made = torch.stack([tensors[f"edit{i}.{seed}"] for seed in draws], dim=1)
            if len(draws) == 1:
                columns[name or NONE] = made[:, 0]
                _pictures(run, folder, made[:, 0])
                continue
            for j, seed in enumerate(draws):
                _pictures(run, f"{folder}/seed-{seed}", made[:, j])
            found = Variations.of(made, pictures, nfe=0)
            columns |= {f"{name or NONE}\n{j + 1} of {len(draws)}": found.nearest_first[:, j] for j in range(len(draws))}
            notes.append(found.distances.sort(dim=1).values)
        told = [[f"{value:.3f}" for value in row] for row in torch.cat(notes, dim=1).tolist()] if notes else ()
        run.write("overview.png", edit_sheet([item.name for item in self.work.items], columns, told))


def varied(work: Work, seeds: int, strength: float | None, out: Path | None, on_step: OnStep) -> Run:
    """A run of `variations`."""
    start, grid = parse_start(work.inversion.forward[-1]), work.inversion.grid(work.model)
    turning_level(start.index(grid) / grid.steps if strength is None else strength, grid, start)  # refused before any work
    run, first = work.open("variations", out), work.inversion.seed
    if run.complete:
        return run

    def batch(rows: slice) -> dict[str, Tensor]:
        more: dict[str, Any] = {"condition": work.inversion.label, "strength": strength, **work.shared}
        more |= {"items": [item.id for item in work.items[rows]], "start": start}
        made = variations(work.model, work.pixels[rows], seeds=range(first, first + seeds), **more)
        return {"images": made.images, "distances": made.distances, "nfe": torch.full((len(made.images),), made.nfe)}

    parts = []
    for rows in work.batches():
        parts.append(_part(run, f"{rows.start:06d}", partial(batch, rows)))
        on_step(min(rows.stop, len(work.items)), len(work.items))
    found = {name: torch.cat([part.tensors[name] for part in parts]) for name in ("images", "distances", "nfe")}
    nfe = int(found["nfe"].max())
    nearest = Variations(found["images"], found["distances"], nfe).nearest_first
    for i in range(seeds):
        _pictures(run, f"variations/seed-{first + i}", found["images"][:, i])
    titles = {f"{i + 1} of {seeds}": nearest[:, i] for i in range(seeds)}
    notes = [[f"{value:.3f}" for value in row.sort().values.tolist()] for row in found["distances"]]
    run.write("overview.png", edit_sheet([item.name for item in work.items], {"picture": work.pixels, **titles}, notes))
    tensors = {"images": work.pixels, "variations": found["images"], "distances": found["distances"]}
    run.finish(tensors, {"nfe": {"variation": nfe}, "seconds": round(sum(part.seconds for part in parts), 3)})
    return run


def of_pictures(places: Sequence[str], chosen: Chosen, limit: int | None, *, attends: bool = False, **settings: Any) -> Work:
    """Pictures to be inverted; `attends` refuses models whose attention cannot be edited."""
    model = chosen.load()
    if attends:
        unet_of(model)
    inversion = InvertSettings.of(model, dtype=chosen.dtype, origin=chosen.origin, **settings)
    photos = io.read_photos(places, model.image_size, limit)
    return Work(model, inversion, [item_of(photo) for photo in photos], torch.stack([photo.pixels for photo in photos]), {})


def of_run(place: Path, chosen: Chosen, forward: str | None, strength: float, masked: bool) -> Work:
    """The inversions of a run of `invert`, with the states that it kept where they are needed."""
    found = read_inverted(
        Run.load(place),
        forward,
        states=masked or strength < 1,
        loading=lambda origin, dtype: replace(chosen, dtype=dtype).loaded(origin),
    )
    manifest = found.run.manifest
    settings = {"reuses": short_hash(manifest.model_dump_json(include={"settings", "items"}))}
    return Work(found.model, found.settings, manifest.items, found.images, settings, found.trajectory)


def mask_of(mask: str | None, model: Model) -> tuple[Tensor | str | None, str | None]:
    """A mask, and what the manifest says of it."""
    if mask is None or mask == AUTO:
        return mask, mask
    area = read_mask(mask, model.image_size)
    return area, short_hash(repr(area.tolist()))


def _part(run: Run, key: str, make: Callable[[], Mapping[str, Tensor]]) -> Part:
    """A batch: read back if it was finished before, made and stored otherwise."""
    stored = run.stored(key)
    if stored is not None:
        return stored
    began = time.perf_counter()
    tensors = {name: tensor.cpu() for name, tensor in make().items()}
    return run.store(key, Part(tensors, int(tensors["nfe"].max()), time.perf_counter() - began))


def _pictures(run: Run, folder: str, images: Tensor) -> None:
    for index, (item, image) in enumerate(zip(run.manifest.items, images, strict=True)):
        run.write(f"{folder}/{index:04d}-{slug(Path(item.name).stem)}.png", io.png_bytes(image))
