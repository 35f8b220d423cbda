"""The result of an inversion: latents, the states and eps kept on the way, and the maps that lead back exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .._tensors import brief, check_rows
from ..errors import ArgumentError, RunError, UnknownNameError
from .files import regular, write_atomically
from .grid import Grid
from .reading import json_of, whole_of
from .schedule import Level
from .specs import Checked
from .stepper import Moved, Stepper
from .stored import TAKE, Stored, check_like

What = Literal["latent", "states", "eps", "all"]

_BY_LEVEL = ("states", "eps", "residuals")
"""Fields of `Trajectory` and `Keeper` that map a level to tensors of one row per item."""

_BY_ITEM = ("starts", "costs", "start_levels")
"""Fields of `Trajectory` with a value per item, or none."""


@dataclass(frozen=True)
class Keep(Checked):
    """What an inversion keeps besides the latents.

    Attributes:
        what: `latent` (nothing else), `states`, `eps`, or `all` (both).
        every: Keep every n-th move, counted from the clean end; the last is always kept.
        device: Where kept tensors are put; the CPU by default, so that many of them do not fill an accelerator.

    >>> Keep("states", every=10)
    Keep(what='states', every=10, device='cpu')
    """

    what: What = "latent"
    every: int = 1
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise UnknownNameError("thing to keep", self.what, get_args(What))
        try:
            torch.device(self.device)
        except RuntimeError:
            raise ArgumentError(f"expected the device that kept tensors are put on, given {self.device!r}") from None
        if self.every < 1:
            raise ArgumentError(f"keep every n-th move with n of at least 1, given {self.every}")

    def wants(self, index: int, last: int) -> bool:
        """Whether the move that ends at level `index` is kept."""
        return self.what != "latent" and (index % self.every == 0 or index == last)


@brief
@dataclass(frozen=True, eq=False)
class Trajectory:
    """The latents of an inversion and what was kept on the way.

    Attributes:
        latent: States at level `index`, shape (batch, channels, height, width).
        start: Level the walk started from (k of a forward start); of one between two levels, the lower.
        index: Level it ended at; N unless stopped before.
        nfe: Network evaluations per item.
        states: Level index -> states there; the starting state is among them if it is at a level of the grid.
        eps: Index of a move's noisier end -> the eps the move used.
        residuals: The same keys -> residual per item, for implicit methods.
        meta: Anything a manifest should say; JSON values.
        stored: What the method keeps of each image to return to it exactly, for `sample(stored=...)`.
        starts: Level each item started from, where they differ; `start` is then the lowest.
        costs: Network evaluations of each item, where they differ; `nfe` is then the most.
        start_levels: The level that each item started from, of the grid or between two of its levels.
        grid: The levels it is a walk of.
        sampler: What samples back from where it ended; of a trajectory read from a file None.
        method: The method it was found by, as on the command line; empty if it has no name.
        schedule: Digest of the model's schedule.
    """

    latent: Tensor
    start: int
    index: int
    nfe: int
    states: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    eps: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    residuals: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)
    stored: Stored = field(default_factory=Stored, repr=False)
    starts: tuple[int, ...] = field(default=(), repr=False)
    costs: tuple[int, ...] = field(default=(), repr=False)
    start_levels: tuple[Level, ...] = field(default=(), repr=False)
    grid: Grid | None = None
    sampler: Stepper | None = None
    method: str = ""
    schedule: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_rows(self.latent, "latent")
        for name in ("states", "eps", "residuals"):
            for level, tensor in getattr(self, name).items():
                check_like(f"{name} of level {level}", tensor, self.latent.shape[: 1 if name == "residuals" else None])
        self.stored.check_items(self.latent)
        for name in _BY_ITEM:
            if len(getattr(self, name)) not in (0, len(self)):
                raise ArgumentError(f"expected {name} of {len(self)} items, given {len(getattr(self, name))}; {TAKE}")

    def __len__(self) -> int:
        return len(self.latent)

    @property
    def finite(self) -> Tensor:
        """Which items stayed finite, shape (batch,)."""
        return torch.isfinite(self.latent).flatten(1).all(dim=1)

    @classmethod
    def cat(cls, parts: Sequence[Trajectory]) -> Trajectory:
        """Batches of one inversion, joined; of what was kept on the way, the levels that all items have."""
        first = parts[0]
        if len(parts) == 1:
            return first

        def join(name: str) -> dict[int, Tensor]:
            common = [i for i in getattr(first, name) if all(i in getattr(part, name) for part in parts)]
            return {i: torch.cat([getattr(part, name)[i] for part in parts]) for i in common}

        starts = tuple(start for part in parts for start in part.starts or (part.start,) * len(part))
        costs = tuple(cost for part in parts for cost in part.costs or (part.nfe,) * len(part))
        kept: Any = {name: join(name) for name in _BY_LEVEL}
        return replace(
            first,
            latent=torch.cat([part.latent for part in parts]),
            start=min(starts),
            nfe=max(costs),
            **kept,
            stored=Stored.cat([part.stored for part in parts], [len(part) for part in parts]),
            starts=starts if len(set(starts)) > 1 else (),
            costs=costs if len(set(costs)) > 1 else (),
            start_levels=tuple(level for part in parts for level in part.start_levels),
        )

    def take(self, rows: Tensor) -> Trajectory:
        """The items `rows`, in that order, with all that is kept of them."""
        kept: Any = {name: {i: tensor[rows] for i, tensor in getattr(self, name).items()} for name in _BY_LEVEL}
        for name in _BY_ITEM:
            each = getattr(self, name)
            kept[name] = tuple(each[i] for i in rows.tolist()) if each else ()
        return replace(self, latent=self.latent[rows], **kept, stored=self.stored.take(rows))

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with a JSON header; it appears whole or not at all."""
        write_atomically(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file that `save` writes."""
        tensors = {"latent": self.latent}
        for name in _BY_LEVEL:
            tensors |= {f"{name}.{i}": tensor for i, tensor in getattr(self, name).items()}
        tensors |= {f"stored.{name}": tensor for name, tensor in self.stored.tensors().items()}
        header = {"start": self.start, "index": self.index, "nfe": self.nfe, "meta": dict(self.meta)}
        header |= {"starts": self.starts, "costs": self.costs, "method": self.method, "schedule": self.schedule}
        header |= {"start_levels": [astuple(level) for level in self.start_levels], "stored_steps": self.stored.steps}
        header["grid"] = [astuple(level) for level in self.grid.levels] if self.grid else None
        # Clones, since the last state is the latent; contiguous, since safetensors takes no other layout.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        data: bytes = save(tensors, metadata={"unsample": json.dumps(header)})
        return data

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read a file written by `save`.

        Raises:
            RunError: Missing, truncated, or not a trajectory.
        """
        try:
            with safe_open(str(regular(path)), framework="pt") as file:
                header = json_of((file.metadata() or {})["unsample"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            kept: Any = {name: {} for name in (*_BY_LEVEL, "stored")}
            latent = tensors.pop("latent")
            for name, tensor in tensors.items():
                kind, index = name.split(".", 1)
                kept[kind][index if kind == "stored" else whole_of(index)] = tensor
            stored = Stored.of(kept.pop("stored"), header.pop("stored_steps", 0))
            for name in ("starts", "costs"):
                header[name] = tuple(header[name])
            header["start_levels"] = tuple(Level(*level) for level in header.get("start_levels", ()))
            levels = header.pop("grid", None)  # files of earlier versions have none
            grid = Grid(tuple(Level(*level) for level in levels)) if levels else None
            return cls(latent, **header, **kept, stored=stored, grid=grid)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise RunError(f"{path} is not a trajectory written by unsample ({error}); make it again") from None


@brief
@dataclass(eq=False)
class Keeper:
    """Keeps of the moves of one walk what `Keep` says."""

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
        there, noisier = moved.step.dst.index, max(moved.step.src.index, moved.step.dst.index)
        if moved.residual is not None:
            self.residuals[noisier] = moved.residual.to(self.keep.device)
        if self.keep.what in ("states", "all") and self.keep.wants(there, self.last):
            self.states[there] = moved.x.to(self.keep.device)
        if self.keep.what in ("eps", "all") and self.keep.wants(noisier, self.last):
            self.eps[noisier] = moved.eps.to(self.keep.device)
