"""A model: a network, the schedule it was trained on, a codec and a conditioner.

`model.denoiser(condition, guidance)` is what a walk asks for eps and `model.grid(steps)` the levels it visits. How a model is
loaded from files is the business of `unsample.models`; nothing here knows of any library of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args, runtime_checkable

import torch

from .codec import Codec, PixelCodec
from .denoiser import Denoiser, Guided, Network, NetworkDenoiser
from .errors import ArgumentError, UnknownNameError
from .grid import Clean, Grid, Spacing
from .prediction import Prediction
from .schedule import Schedule
from .spacing import parse_spacing

__all__ = ["ClassConditioner", "Condition", "Conditioner", "Model"]

Condition = int | str | None
"""A class index, a class name or a prompt; None is "no condition"."""


@runtime_checkable
class Conditioner(Protocol):
    """Turns the conditions of a batch into what the network takes."""

    def __call__(self, conditions: Sequence[Condition], device: torch.device) -> Any:
        """One row per condition; None gives the unconditional row."""


@dataclass(frozen=True)
class ClassConditioner:
    """Class labels, by index or by name, as a LongTensor of shape (batch,).

    >>> ClassConditioner(("goldfish", "lighthouse"), null=2)(["lighthouse", None, 0], torch.device("cpu"))
    tensor([1, 2, 0])
    """

    names: tuple[str, ...] = field(repr=False)
    null: int | None

    def __call__(self, conditions: Sequence[Condition], device: torch.device) -> torch.Tensor:
        """Class indices; the null index for None."""
        return torch.tensor([self._index(condition) for condition in conditions], device=device)

    def _index(self, condition: Condition) -> int:
        if condition is None:
            if self.null is None:
                raise ArgumentError("this model has no unconditional class: give a label (a class name or index)")
            return self.null
        if isinstance(condition, str) and not condition.removeprefix("-").isdecimal():
            if condition not in self.names:
                raise UnknownNameError("class", condition, self.names)
            return self.names.index(condition)
        if not 0 <= int(condition) < len(self.names):
            raise ArgumentError(f"class {condition} is outside this model's classes 0..{len(self.names) - 1}")
        return int(condition)


@dataclass(frozen=True)
class Model:
    """Everything an inversion needs.

    Attributes:
        network: (x, t, condition) -> raw output.
        schedule: The trained table.
        shape: Channels, height and width of a state.
        prediction: What the raw output is.
        codec: Images to states and back.
        conditioner: None for a model without conditions.
        spacing, steps_offset, clean: The grid of the model's own sampler.
        device: Where the network lives.
        name, digest: For manifests: what it is called, and a hash of its weights.
    """

    network: Network = field(repr=False)
    schedule: Schedule
    shape: tuple[int, int, int]
    prediction: Prediction = "epsilon"
    codec: Codec = field(default_factory=PixelCodec)
    conditioner: Conditioner | None = None
    spacing: Spacing = "leading"
    steps_offset: int = 0
    clean: Clean = "one"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    name: str = "unnamed"
    digest: str = ""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its images."""
        return self.shape[1] * self.codec.scale, self.shape[2] * self.codec.scale

    def grid(self, steps: int, spacing: str | None = None) -> Grid:
        """The levels of the model's own sampler with `steps` moves, or those of another spacing.

        Args:
            steps: N, moves from one end to the other.
            spacing: `leading`, `trailing` or `linspace`, or one of `unsample.spacing`: `karras`, `log-snr`, `trdi`.
        """
        if spacing is None or spacing in get_args(Spacing):
            offset = self.steps_offset if spacing in (None, "leading") else 0
            own: Any = spacing or self.spacing
            return Grid.of(self.schedule, steps, spacing=own, steps_offset=offset, clean=self.clean)
        return Grid.from_timesteps(self.schedule, parse_spacing(spacing, self.schedule, steps), clean=self.clean)

    def denoiser(self, conditions: Sequence[Condition] | None = None, guidance: float = 1.0) -> Denoiser:
        """The eps of a batch, with its conditions and guidance bound.

        Args:
            conditions: One per item; None, or None for an item, is unconditional.
            guidance: w in eps_u + w (eps_c - eps_u); 1 is conditional only and costs one evaluation, others two.

        Raises:
            ArgumentError: Conditions for a model that takes none, or guidance without a condition.
        """
        wanted = conditions is not None and any(condition is not None for condition in conditions)
        if wanted and self.conditioner is None:
            raise ArgumentError(f"model {self.name!r} takes no condition: leave out the label or choose another model")
        if guidance != 1 and not wanted:
            raise ArgumentError(f"guidance {guidance} needs a condition to guide towards: give a label, or guidance 1")
        conditional = self._bound(conditions)
        if guidance == 1 or conditions is None:
            return conditional
        return Guided(conditional, self._bound([None] * len(conditions)), guidance)

    def _bound(self, conditions: Sequence[Condition] | None) -> NetworkDenoiser:
        if self.conditioner is None:
            return NetworkDenoiser(self.network, self.prediction)
        encoded = self.conditioner([None] if conditions is None else conditions, self.device)
        return NetworkDenoiser(self.network, self.prediction, encoded)
