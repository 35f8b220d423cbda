"""A benchmark as a resumable run: entries in batches, each edited in every way and measured, both kept as they finish.

Edits are kept as the 8-bit pictures that are measured. Numbers are kept by their names, so that one whose network was missing
is asked for again when the run goes on. An edit that diverges is left out and named, and loses no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ..._typing import Images
from ...core.batching import OnStep, batches
from ...errors import RunError, UnsampleError
from ...pictures.overview import ROWS
from ...pictures.read import png_bytes
from ...runs.directory import Part, Run, slug
from .benchmark import Benchmark
from .candidates import EditCandidate
from .controls import CODEC, PASTED, SOURCE, measured_rows, pasted
from .layout import Failure
from .metrics import eight_bit
from .scores import Scores

__all__ = ["SCORES", "read_scores", "run_benchmark"]

SCORES = "scores.json"


def run_benchmark(bench: Benchmark, run: Run, on_step: OnStep) -> tuple[Scores, list[dict[str, Tensor]], dict[str, Any]]:
    """Every batch, edited and measured; what was finished before is read back.

    Args:
        bench: What to do.
        run: Where, new or interrupted.
        on_step: Told of moves down.

    Returns:
        The scores; row -> picture [1, 3, H, W] of the first entries, for a sheet; and way -> what it cost.
    """
    working = _Working(bench, run, on_step)
    for rows in batches(len(bench.found.entries), bench.batch_size):
        working.batch(rows)
    reasons = {name: str(error) for name, error in working.reasons.items()}
    keys, metrics = [entry.key for entry in bench.found.entries], bench.metrics
    values: dict[str, dict[str, dict[str, float]]] = {}
    for index, row in enumerate(bench.rows):
        columns = {metric.name: torch.cat([part[metric.name][:, index] for part in working.values]) for metric in metrics}
        values[row] = {
            name: {key: value for key, value in zip(keys, column.tolist(), strict=True) if value == value}
            for name, column in columns.items()
        }
    kinds = {entry.key: entry.kind for entry in bench.found.entries}
    failed = (*bench.found.failed, *working.failed)
    return Scores(values, failed, reasons, len(keys), kinds), working.first, working.costs


def read_scores(run: Run) -> Scores:
    """The scores of a complete run.

    Raises:
        RunError: They are missing or damaged.
    """
    try:
        told = json.loads((run.path / SCORES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise RunError(f"cannot read {run.path / SCORES} ({reason}); delete the folder and run again") from None
    return Scores.from_dict(told)


@dataclass
class _Working:
    """What a run has found so far."""

    bench: Benchmark
    run: Run
    on_step: OnStep
    done: int = 0
    values: list[Mapping[str, Tensor]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    reasons: dict[str, UnsampleError] = field(default_factory=dict)
    first: list[dict[str, Tensor]] = field(default_factory=list)
    costs: dict[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Moves down in all."""
        return sum(way.steps for way in self.bench.ways) * len(self.bench.found.entries)

    def batch(self, rows: slice) -> None:
        """Edit and measure some entries."""
        images, regions = self.bench.found.load(rows, self.bench.model.image_size)
        made = {way: self._part(way, rows) for way in self.bench.ways}
        shown = [self._shown(images[i : i + 1], regions[i : i + 1], made, i) for i in range(len(images))]
        for way, part in made.items():
            self._tell(way, part, rows)
        self.first += shown[: ROWS - len(self.first)]
        self.values.append(self._measured(rows, images, regions, shown))

    def _part(self, way: EditCandidate, rows: slice) -> Part:
        key = f"{slug(way.title)}-{self.bench.ways.index(way)}.{rows.start:06d}"
        before, count = self.done, rows.stop - rows.start
        part = self.run.stored(key)
        if part is None:
            told = self.bench.edited(way, rows, lambda done, _total: self.on_step(before + done, self.total))
            part = self.run.store(key, told)
        self.done = before + count * way.steps
        self.on_step(self.done, self.total)
        return part

    def _shown(
        self, image: Images, region: Bool[Tensor, "1 height width"], made: Mapping[EditCandidate, Part], index: int
    ) -> dict[str, Images]:
        """Row -> 8-bit picture of an entry, without the edits that failed."""
        codec, found = self.bench.model.codec, {SOURCE: eight_bit(image)}
        if self.bench.has_codec:
            with torch.no_grad():
                found[CODEC] = eight_bit(codec.decode(codec.encode(image.to(self.bench.model.device))).float().cpu())
        for way, part in made.items():
            if bool(part.tensors["fine"][index]):
                edited = part.tensors["edited"][index : index + 1].float() / 127.5 - 1
                found |= {way.title: edited, PASTED.format(way.title): eight_bit(pasted(image, edited, region))}
        return found

    def _tell(self, way: EditCandidate, part: Part, rows: slice) -> None:
        """Costs and failures of a batch, and its pictures as files."""
        spent = self.costs.setdefault(way.title, {"steps": way.steps, "nfe": 0, "nfe_up": 0, "seconds": 0.0})
        spent |= {"nfe": max(spent["nfe"], part.nfe), "nfe_up": max(spent["nfe_up"], part.nfe_up)}
        spent["seconds"] = round(spent["seconds"] + part.seconds, 3)
        folder, refused = self.bench.folders[way.title], self.bench.refused.get(way.editor, {})
        for entry, pixels, fine in zip(
            self.bench.found.entries[rows], part.tensors["edited"], part.tensors["fine"].tolist(), strict=True
        ):
            name = f"{folder}/{self.bench.files[entry.key]}"
            if not fine:
                reason = f"the edit left the finite numbers; try a guidance below {self.bench.guidance:g}, or more steps"
                self.failed.append(Failure(entry.key, refused.get(entry.key, reason), way.title))
            elif not (self.run.path / name).exists():
                self.run.write(name, png_bytes(pixels.float() / 127.5 - 1))

    def _measured(
        self, rows: slice, images: Images, regions: Bool[Tensor, "batch height width"], shown: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Number -> values [B, rows], NaN where there are none; those found before are read back."""
        key, every = f"scores.{rows.start:06d}", self.bench.rows
        before = self.run.stored(key)
        kept = dict(before.tensors) if before else {}
        wanted = [metric for metric in self.bench.metrics if metric.name not in kept]
        nothing = torch.full((len(images), len(every)), torch.nan, dtype=torch.float64)
        found: dict[str, Tensor] = {}
        for i, entry in enumerate(self.bench.found.entries[rows]):
            region, image = regions[i : i + 1], images[i : i + 1]
            told = measured_rows(entry, image, region, shown[i], self.bench.perception, self.reasons, wanted)
            for name, column in told.items():
                values = [column.get(row, torch.nan) for row in every]
                found.setdefault(name, nothing.clone())[i] = torch.tensor(values, dtype=torch.float64)
        if found:
            kept |= found
            self.run.store(key, Part(kept, 0, 0.0))
        return {metric.name: kept.get(metric.name, nothing) for metric in self.bench.metrics}
