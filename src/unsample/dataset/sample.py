"""Shards of noise to shards of pictures: the same ones back, or others under another condition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.model import Model
from ..core.stored import Stored
from ..errors import DivergenceError, one_line
from ..pictures.read import png_bytes
from ..runs.parts import STORED, stored_of
from ..runs.sample import sample_batch
from ..runs.settings import SampleSettings
from .plan import DATA, REJECTED, Plan
from .rows import Condition
from .shards import (
    Line,
    column_tensor,
    condition_column,
    damaged,
    picture_column,
    read_rows,
    table_bytes,
    write_shard,
)
from .store import Store

DIVERGED = "the sample is not finite: take a smaller guidance, more steps, or float32"


@dataclass(frozen=True, eq=False)
class Noises:
    """A batch of latents, and what their method keeps beside them."""

    ids: list[str]
    latents: Tensor
    conditions: list[Condition]
    stored: Stored

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class SampleJob:
    """What `dataset sample` does with a shard.

    Attributes:
        model: What samples.
        settings: How; with its label, or else each row's own condition.
        plan: Of the pictures.
        source: The latents.
        store: Where to.
        own: Whether each row is sampled under its own condition.
        lines: The shards of the latents.
        reuses: Whether what the method keeps is used; it belongs to the steps of the inversion.
    """

    model: Model
    settings: SampleSettings
    plan: Plan
    source: Store
    store: Store
    own: bool
    lines: dict[int, Line]
    reuses: bool = True

    def read(self, number: int) -> Iterator[Noises]:
        """The latents of a shard, in batches.

        Raises:
            RunError: They are missing or damaged.
        """
        from pyarrow import ArrowException

        if not self.lines[number].rows:
            return
        line = self.lines[number]
        table = read_rows(self.source, line, DATA, line.rows, "id")
        names = [name for name in table.schema.names if name.startswith(STORED)] if self.reuses else []
        size = self.settings.batch_size
        for first in range(0, table.num_rows, size):
            rows = table.slice(first, size)
            ids = rows["id"].to_pylist()
            try:
                tensors = {name: torch.from_numpy(column_tensor(rows[name]).copy()) for name in ("latent", *names)}
                stored = stored_of(tensors)
                conditions = rows["condition"].to_pylist() if self.own else [None] * len(ids)
            except (KeyError, TypeError, ValueError, ArrowException) as error:
                raise damaged(self.source, line, one_line(error, 200)) from None
            latent, shape = tensors["latent"], tuple(self.model.shape)
            if latent.shape[1:] != shape or not latent.is_floating_point() or not bool(torch.isfinite(latent).all()):
                raise damaged(self.source, line, f"expected finite latents of shape {shape}, given {tuple(latent.shape[1:])}")
            if not all(one is None or isinstance(one, (int, str)) for one in conditions):
                raise damaged(self.source, line, "expected classes or captions as conditions")
            yield Noises(ids, latent.float(), conditions, stored)

    def run(self, batch: Noises) -> dict[str, Tensor] | None:
        """The pictures; None if one is not finite."""
        condition = batch.conditions if self.own else self.settings.label
        negative, stored = self.settings.negative, batch.stored
        try:
            return sample_batch(self.model, self.settings, batch.latents, condition, negative, stored)
        except DivergenceError:
            return None

    def shard(self, number: int) -> SampleShard:
        """A shard without rows."""
        return SampleShard(self, number)


@dataclass(eq=False)
class SampleShard:
    """The pictures of a shard."""

    job: SampleJob
    number: int
    ids: list[str] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    nfe: list[int] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def add(self, batch: Noises, done: dict[str, Tensor] | None) -> None:
        """Keep the pictures of a batch, as PNG files."""
        if done is None and len(batch) > 1:  # one by one, to leave out the fewest
            for i, name in enumerate(batch.ids):
                one = Noises([name], batch.latents[i : i + 1], [batch.conditions[i]], batch.stored.take(slice(i, i + 1)))
                self.add(one, self.job.run(one))
            return
        if done is None:
            self.rejected += batch.ids
            return
        self.ids += batch.ids
        self.pictures += [png_bytes(picture) for picture in done["samples"]]
        own = self.job.own
        self.conditions += batch.conditions if own else [self.job.settings.label] * len(batch)
        self.nfe += done["nfe"].tolist()

    def close(self, seconds: float) -> Line:
        """Write the shard's files and its line."""
        files: dict[str, bytes] = {}
        if self.ids:
            columns: dict[str, Any] = {"id": self.ids}
            columns["image"] = picture_column(self.pictures)
            if any(one is not None for one in self.conditions) or self.job.own:
                kind: type = int if all(isinstance(one, int) for one in self.conditions if one is not None) else str
                columns["condition"] = condition_column(self.conditions, kind)
            columns["nfe"] = torch.tensor(self.nfe, dtype=torch.int32)
            files[DATA] = table_bytes(columns, {"unsample": self.job.plan.text, "huggingface": _features(columns)})
        if self.rejected:
            files[REJECTED] = table_bytes({"id": self.rejected, "reason": [DIVERGED] * len(self.rejected)}, {})
        rows, rejected = len(self.ids), len(self.rejected)
        return write_shard(
            self.job.store, self.number, files, rows=rows, rejected=rejected, nfe=sum(self.nfe), seconds=seconds
        )


def _features(columns: dict[str, Any]) -> str:
    """What Hugging Face's datasets reads to show pictures as pictures."""
    kinds = {
        "image": {"_type": "Image"},
        "id": {"dtype": "string", "_type": "Value"},
        "nfe": {"dtype": "int32", "_type": "Value"},
    }
    if "condition" in columns:
        kinds["condition"] = {"dtype": str(columns["condition"].type), "_type": "Value"}
    return json.dumps({"info": {"features": {name: kinds[name] for name in columns}}})
