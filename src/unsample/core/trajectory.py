"""What an inversion leaves behind, and how much of the way is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ArgumentError, RunError, UnknownNameError
from .files import write_atomically
from .stepper import Moved
from .stored import Stored

__all__ = ["Keep", "Trajectory"]

What = Literal["latent", "states", "eps", "all"]


@dataclass(frozen=True)
class Keep:
    """Which parts of the way are kept besides its end.

    Attributes:
        what: `latent` (nothing else), `states`, `eps`, or `all` (both).
        every: Keep every n-th move, counted from the clean end; the last is always kept.
        device: Where kept tensors live; the CPU by default, so that a long way does not fill an accelerator.

    >>> Keep("states", every=10)
    Keep(what='states', every=10, device='cpu')
    """

    what: What = "latent"
    every: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise UnknownNameError("thing to keep", self.what, get_args(What))
        if self.every < 1:
            raise ArgumentError(f"keep every n-th move with n of at least 1, given {self.every}")

    def wants(self, index: int, last: int) -> bool:
        """Whether the move that ends at level `index` is kept."""
        return self.what != "latent" and (index % self.every == 0 or index == last)


@dataclass(frozen=True)
class Trajectory:
    """The end of an inversion and what was kept on the way.

    Attributes:
        latent: States at level `index`, shape (batch, channels, height, width).
        start: Level the walk started from (k of a forward start).
        index: Level it ended at; N unless stopped part-way.
        nfe: Network evaluations per item.
        states: Level index -> states there; the starting state is among them.
        eps: Index of a move's noisier end -> the eps the move used.
        residuals: The same keys -> residual per item, for implicit methods.
        meta: Anything a manifest should say; JSON values.
        stored: What the method keeps of each image to find the way back, for `sample(stored=...)`.
        starts: Level each item started from, where they differ; `start` is then the lowest.
        costs: Network evaluations of each item, where they differ; `nfe` is then the most.
    """

    latent: Tensor
    start: int
    index: int
    nfe: int
    states: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    eps: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    residuals: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    meta: Mapping[str, Any] = field(default_factory=dict)
    stored: Stored = field(default_factory=Stored, repr=False)
    starts: tuple[int, ...] = ()
    costs: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.latent)

    @property
    def finite(self) -> Tensor:
        """Which items stayed finite, shape (batch,)."""
        return torch.isfinite(self.latent).flatten(1).all(dim=1)

    @classmethod
    def cat(cls, parts: Sequence[Trajectory]) -> Trajectory:
        """Batches of one inversion, joined; of what was kept on the way, the levels that all items passed."""
        first = parts[0]
        if len(parts) == 1:
            return first

        def join(name: str) -> dict[int, Tensor]:
            common = [i for i in getattr(first, name) if all(i in getattr(part, name) for part in parts)]
            return {i: torch.cat([getattr(part, name)[i] for part in parts]) for i in common}

        starts = tuple(start for part in parts for start in part.starts or (part.start,) * len(part))
        costs = tuple(cost for part in parts for cost in part.costs or (part.nfe,) * len(part))
        return cls(
            torch.cat([part.latent for part in parts]),
            min(starts),
            first.index,
            max(costs),
            **{name: join(name) for name in ("states", "eps", "residuals")},
            meta=first.meta,
            stored=Stored.cat([part.stored for part in parts]),
            starts=starts if len(set(starts)) > 1 else (),
            costs=costs if len(set(costs)) > 1 else (),
        )

    def take(self, rows: Tensor) -> Trajectory:
        """The items `rows`, in that order."""
        kept: Any = {
            name: {i: tensor[rows] for i, tensor in getattr(self, name).items()} for name in ("states", "eps", "residuals")
        }
        starts, costs = (tuple(each[i] for i in rows.tolist()) if each else () for each in (self.starts, self.costs))
        return replace(self, latent=self.latent[rows], **kept, stored=self.stored.take(rows), starts=starts, costs=costs)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with a JSON header; it appears whole or not at all."""
        tensors = {"latent": self.latent}
        for name in ("states", "eps", "residuals"):
            tensors |= {f"{name}.{i}": tensor for i, tensor in getattr(self, name).items()}
        tensors |= {f"stored.{name}": tensor for name, tensor in self.stored.tensors().items()}
        header = {"start": self.start, "index": self.index, "nfe": self.nfe, "meta": dict(self.meta)}
        header |= {"starts": self.starts, "costs": self.costs}
        # Clones, since the last state is the latent; contiguous, since safetensors takes no other layout.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_atomically(Path(path), save(tensors, metadata={"unsample": json.dumps(header)}))

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read a file written by `save`.

        Raises:
            RunError: Missing, truncated, or not a trajectory.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                header = json.loads((file.metadata() or {})["unsample"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            kept: Any = {"states": {}, "eps": {}, "residuals": {}}
            latent = tensors.pop("latent")
            stored = Stored.of(
                {name.removeprefix("stored."): tensors.pop(name) for name in list(tensors) if name.startswith("stored.")}
            )
            for name, tensor in tensors.items():
                kind, index = name.split(".")
                kept[kind][int(index)] = tensor
            where = (header["start"], header["index"], header["nfe"])
            starts, costs = tuple(header["starts"]), tuple(header["costs"])
            return cls(latent, *where, **kept, meta=header["meta"], stored=stored, starts=starts, costs=costs)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise RunError(f"{path} is not a trajectory written by unsample ({error}); make it again") from None


@dataclass
class Keeper:
    """Collects what `Keep` wants from the moves of one walk."""

    keep: Keep
    last: int
    states: dict[int, Tensor] = field(default_factory=dict)
    eps: dict[int, Tensor] = field(default_factory=dict)
    residuals: dict[int, Tensor] = field(default_factory=dict)

    def begin(self, index: int, x: Tensor) -> None:
        """The state before the first move."""
        if self.keep.what in ("states", "all"):
            self.states[index] = x.to(self.keep.device)

    def take(self, moved: Moved) -> None:
        """One move."""
        index = moved.step.dst.index
        if moved.residual is not None:
            self.residuals[index] = moved.residual
        if not self.keep.wants(index, self.last):
            return
        if self.keep.what in ("states", "all"):
            self.states[index] = moved.x.to(self.keep.device)
        if self.keep.what in ("eps", "all"):
            self.eps[index] = moved.eps.to(self.keep.device)
