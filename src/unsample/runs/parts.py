"""The parts of a run: its batches, worked on by an engine and stored as they finish, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.batching import OnStep
from ..core.stored import Stored
from ..diagnostics import psnr
from ..errors import RunError
from ..pictures.read import Photo
from .directory import Run
from .engine import Engine
from .manifest import Item
from .tensor_file import Part

STORED = "stored."
"""What names of tensors begin with that a method stored beside a latent."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Items that are worked on together.

    Attributes:
        key: The name of the part.
        rows: Which items of the run.
        arguments: What the function of a batch takes besides the model.
        moves: What a progress bar counts until it is finished.
    """

    key: str
    rows: slice
    arguments: tuple[Any, ...]
    moves: int

    @property
    def count(self) -> int:
        """How many items."""
        return int(self.rows.stop - self.rows.start)


def made_parts(
    run: Run,
    engine: Engine,
    function: Callable[..., Tensors],
    batches: Sequence[Batch],
    on_step: OnStep | None = None,
    received: Callable[[Batch, Tensors], Tensors] = lambda _, tensors: tensors,
) -> list[Part]:
    """The parts of all batches, in their order; those that an earlier attempt finished are read back.

    Args:
        run: Where they are stored.
        engine: What maps `function(model, *arguments)` over the others.
        function: A batch's tensors, one row per item.
        batches: What to do.
        on_step: Called with (moves done, moves in all).
        received: What is stored of a batch's tensors; may raise, so that nothing is.
    """
    missing = [batch.arguments for batch in batches if run.stored(batch.key, batch.count) is None]
    total, done = sum(batch.moves for batch in batches), 0

    def report(moves: int, _total: int = 0) -> None:
        if on_step is not None:
            on_step(done + moves, total)

    results, parts = iter(engine.map(function, missing, report)), []

    def take(batch: Batch) -> Tensors:
        return received(batch, next(results))

    for batch in batches:
        parts.append(run.part(batch.key, partial(take, batch), batch.count))
        report(batch.moves)
        done += batch.moves
    return parts


def joined(parts: Sequence[Part]) -> dict[str, Tensor]:
    """The tensors of all parts, item after item; what a method stored at levels of some alone is zero for the others.

    Raises:
        RunError: Parts that do not have the same tensors.
        ArgumentError: What the method stored of items with different starts cannot be kept together.
    """
    names = [[name for name in part.tensors if not name.startswith(STORED)] for part in parts]
    common = [name for name in names[0] if all(name in each for each in names)]
    if any(set(each) - {"nfe", "timestep"} - set(common) for each in names):  # parts of older versions lack these
        raise RunError("the parts of the run do not have the same tensors; delete its folder and run again")
    stored = Stored.cat([stored_of(part.tensors) for part in parts], [part.rows for part in parts])
    tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in common}
    return tensors | {f"{STORED}{name}": tensor for name, tensor in stored.tensors().items()}


def stored_of(tensors: Tensors, steps: int = 0) -> Stored:
    """What a method stored, among the tensors of a batch: those called `stored.*`."""
    return Stored.of({name.removeprefix(STORED): tensor for name, tensor in tensors.items() if name.startswith(STORED)}, steps)


def item_of(photo: Photo) -> Item:
    """A photograph as a manifest names it."""
    width, height = photo.original
    notes = [*photo.notes, *([photo.reduced] if photo.reduced else [])]
    return Item(name=photo.name, id=photo.id, width=width, height=height, notes=notes)


def mean_psnr(images: Tensor, back: Tensor) -> float:
    """Over pictures sampled back, in dB; equal ones, whose PSNR is infinite, count as 200."""
    return round(float(psnr(images, back.clamp(-1, 1)).clamp(max=200).mean()), 3)


def cost_of(parts: Sequence[Part]) -> dict[str, float]:
    """Network evaluations of the item that took most, and seconds in all."""
    spent = {"nfe": max(part.nfe for part in parts), "nfe_up": max(part.nfe_up for part in parts)}
    return {**spent, "seconds": round(sum(part.seconds for part in parts), 3)}
