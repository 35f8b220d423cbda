"""Shards of pictures to shards of noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..core.model import Model
from ..core.rng import ItemNoise
from ..core.stored import Stored
from ..diagnostics.streaming.diagnosis import DiagnosisSums
from ..errors import ImageError, printable
from ..pictures.read import decode_photo
from ..runs.inversions import levels_of
from ..runs.invert import invert_batch
from ..runs.parts import STORED, stored_of
from ..runs.settings import InvertSettings
from ..runs.tensor_file import tensor_bytes
from .plan import DATA, REJECTED, SUMS, Plan
from .rows import LARGEST, Condition, Row
from .shards import Line, condition_column, table_bytes, write_shard
from .source import Source
from .store import Store

DECODERS = 4
"""Pictures that are decoded at once."""

NULL_STREAM = "null"
"""Of the noise that diagnostics are compared with."""

COLUMNS = {"std": "std", "std plain": "std_plain", "std other": "std_other", "lag-1 plain": "lag1_plain"}
COLUMNS |= {"lag-1 other": "lag1_other", "PSNR": "psnr"}
"""Statistics of each picture that a row has, and what they are called there."""

DIVERGED = "its latent, or what is sampled back, is not finite: take guidance 1, float32, or a forward start"


@dataclass(frozen=True, eq=False)
class Pictures:
    """A batch of pictures, decoded, and those that could not be, with the reason."""

    ids: list[str]
    pixels: Tensor
    conditions: list[Condition]
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids) + len(self.rejected)


@dataclass(frozen=True, eq=False)
class InvertJob:
    """What `dataset invert` does with a shard.

    Attributes:
        model: What inverts.
        settings: How; of one start.
        plan: Of what.
        source: Where from.
        store: Where to.
        strict: Stop at the first picture that cannot be read, or whose latent is not finite.
    """

    model: Model
    settings: InvertSettings
    plan: Plan
    source: Source
    store: Store
    strict: bool = False

    def read(self, number: int) -> Iterator[Pictures]:
        """The pictures of a shard, in batches.

        Raises:
            ImageError: One that cannot be read, if that is to stop the work.
            RunError: The source has changed.
        """
        first, count = self.plan.rows(number)
        ids: list[str] = []
        pixels: list[Tensor] = []
        conditions: list[Condition] = []
        rejected: list[tuple[str, str]] = []
        with ThreadPoolExecutor(DECODERS) as pool:
            for rows in _groups(self.source.rows(first, count), self.settings.batch_size):
                for row, made in zip(rows, pool.map(self._decoded, rows), strict=True):
                    if isinstance(made, str):
                        rejected.append((row.id, made))
                        continue
                    ids.append(row.id)
                    pixels.append(made)
                    conditions.append(row.condition)
                    if len(ids) == self.settings.batch_size:
                        yield Pictures(ids, torch.stack(pixels), conditions, rejected)
                        ids, pixels, conditions, rejected = [], [], [], []
        if ids or rejected:
            yield Pictures(ids, torch.stack(pixels) if pixels else torch.empty(0), conditions, rejected)

    def _decoded(self, row: Row) -> Tensor | str:
        """The pixels of a picture, or why there are none."""
        try:
            if row.fault:
                raise ImageError(row.fault)
            return decode_photo(row.data, printable(row.id), self.model.image_size).pixels
        except ImageError as error:
            if self.strict:
                raise
            return str(error)

    def run(self, batch: Pictures) -> dict[str, Tensor]:
        """The tensors of the batch's rows, in order; those that are not finite have a latent alone."""
        if not batch.ids:
            return {}
        conditions = batch.conditions if self.plan.columns.condition else None
        [start] = self.settings.starts.values()
        back = self.plan.psnr
        return invert_batch(self.model, self.settings, start, batch.pixels, batch.ids, conditions, back=back)

    def shard(self, number: int) -> InvertShard:
        """A shard without rows."""
        return InvertShard(self, number)


@dataclass(eq=False)
class InvertShard:
    """The rows of a shard, and the sums over them."""

    job: InvertJob
    number: int
    batches: list[dict[str, Any]] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    sums: DiagnosisSums = field(default_factory=DiagnosisSums)

    def add(self, batch: Pictures, done: dict[str, Tensor]) -> None:
        """Keep the rows of a batch; leave out what is not finite."""
        self.rejected += batch.rejected
        if not done:
            return
        dtype = getattr(torch, self.job.plan.dtype)
        while not bool((finite := _finite(done, dtype)).all()):  # what is sampled back is known when all latents are finite
            batch, done = self._rest(batch, finite)
            if not done:
                return
        latent = done["latent"].to(dtype)
        seed, shape = self.job.settings.seed, latent.shape
        noise = ItemNoise(seed, batch.ids).draw(tuple(shape), stream=NULL_STREAM)
        back = done["reconstruction"].clamp(-1, 1) if "reconstruction" in done else None  # as a viewer shows it
        each = self.sums.update(latent.float(), batch.pixels, back, noise=noise)
        grid = self.job.settings.grid(self.job.model)
        levels = levels_of(done["start"], done["timestep"], grid)
        rows: dict[str, Any] = {"id": batch.ids, "latent": latent}
        if self.job.plan.columns.condition:
            rows["condition"] = batch.conditions
        rows["start_timestep"] = done["timestep"]
        rows["start_ratio"] = torch.tensor([level.ratio for level in levels], dtype=torch.float64)
        rows["nfe"] = done["nfe_up"].to(torch.int32)
        rows["seed"] = torch.full((len(latent),), seed)
        rows |= {COLUMNS[name]: values.float() for name, values in each.items() if name in COLUMNS}
        self.batches.append(rows)
        self.stored.append(stored_of(done, grid.steps))

    def _rest(self, batch: Pictures, finite: Tensor) -> tuple[Pictures, dict[str, Tensor]]:
        """The pictures whose latents are finite, worked on again by themselves."""
        bad = [(name, DIVERGED) for name, fine in zip(batch.ids, finite.tolist(), strict=True) if not fine]
        if self.job.strict:
            raise ImageError(f"{printable(bad[0][0])}: {DIVERGED}")
        self.rejected += bad
        kept = [i for i, fine in enumerate(finite.tolist()) if fine]
        ids, conditions = [batch.ids[i] for i in kept], [batch.conditions[i] for i in kept]
        rest = replace(batch, ids=ids, pixels=batch.pixels[kept] if kept else batch.pixels, conditions=conditions)
        return rest, self.job.run(rest)

    def close(self, seconds: float) -> Line:
        """Write the shard's files and its line."""
        counts = [len(rows["id"]) for rows in self.batches]
        files, nfe = {}, 0
        if self.batches:
            columns = _joined(self.batches)
            nfe = int(columns["nfe"].sum())
            if "condition" in columns:
                columns["condition"] = condition_column(columns["condition"], self.job.source.condition_kind)
            stored = Stored.cat(self.stored, counts).tensors()
            columns |= {f"{STORED}{name}": tensor for name, tensor in stored.items()}
            files[DATA] = table_bytes(columns, {"unsample": self.job.plan.text})
            files[SUMS] = tensor_bytes(self.sums.tensors(), {})
        if self.rejected:
            names, reasons = zip(*self.rejected, strict=True)
            files[REJECTED] = table_bytes({"id": list(names), "reason": list(reasons)}, {})
        known: dict[str, Any] = {"rows": sum(counts), "rejected": len(self.rejected), "nfe": nfe}
        known["condition"] = self.batches[0].get("condition", [None])[0] if self.batches else None
        return write_shard(self.job.store, self.number, files, seconds=seconds, **known)


def _finite(done: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Which rows are finite, as far as is known, their latents as they are kept."""
    kept = {**done, "latent": done["latent"].to(dtype)}
    each = [torch.isfinite(kept[name]).flatten(1).all(1) for name in ("latent", "reconstruction") if name in kept]
    return torch.stack(each).all(0)


def _joined(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The columns of all batches."""
    joined: dict[str, Any] = {}
    for name, first in batches[0].items():
        parts = [rows[name] for rows in batches]
        joined[name] = torch.cat(parts) if isinstance(first, Tensor) else [each for part in parts for each in part]
    return joined


def _groups(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Rows, so many at a time, or fewer where pictures are large."""
    group: list[Row] = []
    held = 0
    for row in rows:
        group.append(row)
        held += len(row.data)
        if len(group) == size or held > LARGEST:
            yield group
            group, held = [], 0
    if group:
        yield group
