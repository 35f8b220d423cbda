"""A benchmark as a resumable run: entries in batches, edited by every candidate and measured; both are stored as they finish.

Edits are stored as the 8-bit pictures that are measured. Numbers are stored by name, so that one whose network was missing is
computed when the run is resumed. An edit that diverges is left out and reported, and does not affect the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ..._tensors import Images
from ...core.batching import OnStep
from ...core.reading import read_json
from ...errors import RunError, UnsampleError
from ...pictures.overview import ROWS
from ...pictures.read import png_bytes
from ...runs.directory import Run
from ...runs.names import slug
from ...runs.tensor_file import Part
from .benchmark import Benchmark
from .candidates import EditCandidate
from .controls import CODEC, measured_rows, pictures_of
from .layout import Failure
from .scores import Scores

SCORES = "scores.json"


def run_benchmark(bench: Benchmark, run: Run, on_step: OnStep) -> tuple[Scores, list[dict[str, Tensor]], dict[str, Any]]:
    """Every batch, edited and measured; what was finished before is read back.

    Args:
        bench: What to edit, and how.
        run: Its directory, new or interrupted.
        on_step: Called with moves down.

    Returns:
        The scores; row -> picture [1, 3, H, W] of the first entries, for a sheet; and title of a candidate -> its cost.
    """
    working = _Working(bench, run, on_step)
    entries = bench.editable.entries
    for _, batch in run.tiles(working.prefix(bench.candidates[0]), len(entries), bench.batch_size):
        working.batch(batch)
    columns = {one.name: list(torch.cat([part[one.name] for part in working.values])) for one in bench.metrics}
    failed, kinds = (*bench.editable.failed, *working.failed), {entry.key: entry.kind for entry in entries}
    scores = Scores.of(bench.rows, [entry.key for entry in entries], columns, failed, working.reasons, kinds)
    return scores, working.first, working.costs


def read_scores(run: Run) -> Scores:
    """The scores of a complete run.

    Raises:
        RunError: They are missing or damaged.
    """
    try:
        scores = read_json(run.checked(SCORES))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise RunError(f"cannot read {run.path / SCORES} ({reason}); delete the folder and run again") from None
    return Scores.from_dict(scores)


@dataclass(eq=False)
class _Working:
    """The state of a run."""

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
        return sum(candidate.steps for candidate in self.bench.candidates) * len(self.bench.editable.entries)

    def prefix(self, candidate: EditCandidate) -> str:
        """What the keys of a candidate's parts begin with."""
        return f"{slug(candidate.title)}-{self.bench.candidates.index(candidate)}."

    def batch(self, batch: slice) -> None:
        """Edit and measure some entries."""
        images, regions = self.bench.editable.load(batch, self.bench.model.image_size)
        made = {candidate: self._part(candidate, batch) for candidate in self.bench.candidates}
        shown = [self._shown(images[i : i + 1], regions[i : i + 1], made, i) for i in range(len(images))]
        for candidate, part in made.items():
            self._record(candidate, part, batch)
        self.first += shown[: ROWS - len(self.first)]
        self.values.append(self._measured(batch, images, regions, shown))

    def _part(self, candidate: EditCandidate, batch: slice) -> Part:
        key = f"{self.prefix(candidate)}{batch.start:06d}"
        before, count = self.done, batch.stop - batch.start
        report = lambda done, _total: self.on_step(before + done, self.total)  # noqa: E731
        part = self.run.part(key, partial(self.bench.edited, candidate, batch, report), count)
        self.done = before + count * candidate.steps
        self.on_step(self.done, self.total)
        return part

    def _shown(
        self, image: Images, region: Bool[Tensor, "1 height width"], made: Mapping[EditCandidate, Part], index: int
    ) -> dict[str, Images]:
        """Row -> 8-bit picture of an entry, without the edits that failed."""
        codec, edited = self.bench.model.codec, dict[str, Images]()
        if self.bench.has_codec:
            with torch.no_grad():
                edited[CODEC] = codec.decode(codec.encode(image.to(self.bench.model.device))).float().cpu()
        for candidate, part in made.items():
            if bool(part.tensors["fine"][index]):
                edited[candidate.title] = part.tensors["edited"][index : index + 1].float() / 127.5 - 1
        return pictures_of(image, region, edited)

    def _record(self, candidate: EditCandidate, part: Part, batch: slice) -> None:
        """Add the costs and failures of a batch, and write its pictures as files."""
        cost = self.costs.setdefault(candidate.title, {"steps": candidate.steps, "nfe": 0, "nfe_up": 0, "seconds": 0.0})
        cost |= {"nfe": max(cost["nfe"], part.nfe), "nfe_up": max(cost["nfe_up"], part.nfe_up)}
        cost["seconds"] = round(cost["seconds"] + part.seconds, 3)
        folder, refused = self.bench.folders[candidate.title], self.bench.refused.get(candidate.editor, {})
        entries, fine = self.bench.editable.entries[batch], part.tensors["fine"].tolist()
        for entry, pixels, is_fine in zip(entries, part.tensors["edited"], fine, strict=True):
            name = f"{folder}/{self.bench.files[entry.key]}"
            if not is_fine:
                reason = f"the edit left the finite numbers; try a guidance below {self.bench.guidance:g}, or more steps"
                self.failed.append(Failure(entry.key, refused.get(entry.key, reason), candidate.title))
            else:
                self.run.write(name, png_bytes(pixels.float() / 127.5 - 1))

    def _measured(
        self, batch: slice, images: Images, regions: Bool[Tensor, "batch height width"], shown: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Number -> values [B, rows], NaN where there are none; those stored before are read back."""
        key, bench = f"scores.{batch.start:06d}", self.bench
        before = self.run.stored(key, len(images))
        kept = dict(before.tensors) if before else {}
        missing = [metric for metric in bench.metrics if metric.name not in kept]
        measured = [
            measured_rows(entry, image[None], region[None], rows, bench.rows, bench.perception, self.reasons, missing)
            for entry, image, region, rows in zip(bench.editable.entries[batch], images, regions, shown, strict=True)
        ]
        nothing = torch.full((len(bench.rows),), torch.nan, dtype=torch.float64, device="cpu")
        for name in dict.fromkeys(name for values in measured for name in values):
            kept[name] = torch.stack([values.get(name, nothing) for values in measured])
        if any(measured):
            self.run.store(key, Part(kept, 0, 0.0))
        return {metric.name: kept.get(metric.name, nothing.expand(len(images), -1)) for metric in bench.metrics}
