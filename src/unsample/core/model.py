"""A model: a network, the schedule it was trained on, a codec and a conditioner.

`model.denoiser(conditions, guidance)` gives the eps of a walk and `model.grid(steps)` its levels. `Model.from_callable` makes
one of any function or module; `unsample.models` loads them from files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from .._tensors import Images, Latents
from ..errors import ArgumentError, UnknownNameError
from .callable import AnyNetwork
from .denoiser import Denoiser, Guided, Network, NetworkDenoiser
from .grid import Clean, Grid
from .prediction import Prediction
from .reading import is_index
from .schedule import AnySchedule, FlowSchedule, Schedule
from .spacing import Spacing, parse_spacing

Condition = int | str | None
"""A class index, a class name or a prompt; None is "no condition"."""

Negative = Sequence[Condition] | Mapping[int, Tensor] | None
"""What guidance moves away from: a condition per item, or level -> embeddings of shape (batch, ...); None is no condition."""


@runtime_checkable
class Codec(Protocol):
    """Images in [-1, 1] to latents and back, deterministically: the mode of a posterior, never a sample."""

    @property
    def scale(self) -> int:
        """Image pixels per latent cell, along each side."""

    def encode(self, images: Images) -> Latents:
        """Latents of images."""

    def decode(self, latents: Latents) -> Images:
        """Images of latents."""


@dataclass(frozen=True)
class PixelCodec:
    """The identity: the states of a pixel model are its images."""

    scale: int = 1

    def encode(self, images: Images) -> Images:
        """`images` as they are."""
        return images

    def decode(self, latents: Images) -> Images:
        """`latents` as they are."""
        return latents


@runtime_checkable
class Conditioner(Protocol):
    """Turns the conditions of a batch into the network's input."""

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

    @classmethod
    def of(cls, classes: int | Sequence[str], null: int | None) -> ClassConditioner:
        """That of so many classes, or of classes of these names.

        Raises:
            ArgumentError: No classes, or a null that is neither one of them nor one past the last.
        """
        names = tuple(map(str, range(classes) if isinstance(classes, int) else classes))
        if not names or not (null is None or 0 <= null <= len(names)):
            raise ArgumentError(
                f"expected classes, and null as the index of one of them or one more, given {classes} and {null}"
            )
        return cls(names, null)

    def __call__(self, conditions: Sequence[Condition], device: torch.device) -> torch.Tensor:
        """Class indices; the null index for None."""
        return torch.tensor([self._index(condition) for condition in conditions], device=device)

    def _index(self, condition: Condition) -> int:
        if condition is None:
            if self.null is None:
                raise ArgumentError("this model has no unconditional class: give a label (a class name or index)")
            return self.null
        if isinstance(condition, str) and not is_index(condition.removeprefix("-")):
            if condition not in self.names:
                raise UnknownNameError("class", condition, self.names, see="`unsample inspect MODEL --classes` lists them")
            return self.names.index(condition)
        if not 0 <= int(condition) < len(self.names):
            raise ArgumentError(f"class {condition} is outside this model's classes 0..{len(self.names) - 1}")
        return int(condition)


@dataclass(frozen=True)
class Model:
    """A network and everything that is needed to sample and invert with it.

    Attributes:
        network: (x, t, condition) -> raw output.
        schedule: The trained table, or a flow schedule.
        shape: Channels, height and width of a state.
        prediction: What the raw output is.
        codec: Images to states and back.
        conditioner: None for a model without conditions.
        spacing, steps_offset, clean: The grid of the model's own sampler; a flow schedule has its own.
        device: Where the network is.
        name, digest: For manifests: its name, and a hash of its weights.
        family: Which kind of pipeline or checkpoint it was loaded from.
        notes: Settings of its files that are not used, one line each.
        distilled: Guidance is an input of the network, at no extra evaluation, instead of the difference of two predictions.
    """

    network: Network = field(repr=False)
    schedule: AnySchedule
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
    family: str = ""
    notes: tuple[str, ...] = ()
    distilled: bool = False

    @classmethod
    def from_callable(
        cls,
        net: Callable[..., Any],
        *,
        schedule: AnySchedule,
        shape: tuple[int, int, int],
        prediction: Prediction | None = None,
        codec: Codec | None = None,
        classes: int | Sequence[str] | None = None,
        null: int | None = None,
        conditioner: Conditioner | None = None,
        spacing: Spacing = "leading",
        steps_offset: int = 0,
        clean: Clean = "one",
        name: str = "unnamed",
        device: str | torch.device | None = None,
    ) -> Model:
        """The model of any network (docs/any-model.md).

        Args:
            net: A function (x, t), or (x, t, condition), to its raw prediction: a tensor of x's shape, a tuple that begins
                with one, or an object that has one in `.sample`; of twice the channels the second half is dropped, as a
                learned variance. `t` has shape (batch,): a LongTensor with a `Schedule`, floats in 0..trained with a
                `FlowSchedule`. States are float32 or float64; a `torch.nn.Module` is put into eval mode, and called in the
                dtype of its parameters.
            schedule: The table it was trained on, as of `Schedule.from_betas`, or a `FlowSchedule`.
            shape: Channels, height and width of a state.
            prediction: `epsilon`, `v_prediction`, `sample` (x0) or `flow`; default is epsilon, or flow with a `FlowSchedule`.
            codec: Images to states and back; default is that states are images.
            classes: The number of classes, or their names: conditions reach the network as indices, a LongTensor (batch,).
            null: The index that stands for no class, for guidance; it may be one past the last.
            conditioner: Turns conditions of any kind into the network's input, instead of `classes`.
            spacing: Where the levels of its own sampler lie, for a `Schedule`: `leading`, `trailing` or `linspace`.
            steps_offset: Added to the timesteps of `leading` spacing.
            clean: The clean end is the image itself, `one`, or the `first` trained level.
            name: For messages and manifests.
            device: Where states go; default is where the module's parameters are, or the CPU.

        Raises:
            ArgumentError: Settings that do not fit together, or, at its first call, an output of the wrong shape.

        >>> schedule = Schedule.from_betas(Schedule.linear_betas())
        >>> model = Model.from_callable(lambda x, t: 0 * x, schedule=schedule, shape=(3, 8, 8))
        >>> model.denoiser()(torch.ones(1, 3, 8, 8), model.grid(10)[4]).shape
        torch.Size([1, 3, 8, 8])
        """
        if not isinstance(schedule, (Schedule, FlowSchedule)):
            raise ArgumentError(
                f"expected a Schedule or a FlowSchedule, given {type(schedule).__name__}; "
                "unsample.models.scheduler_config.schedule_of(scheduler.config) makes one of a scheduler of diffusers"
            )
        if len(shape) != 3 or min(shape) < 1:
            raise ArgumentError(f"expected the channels, height and width of a state, given shape {shape}")
        prediction = prediction or ("flow" if isinstance(schedule, FlowSchedule) else "epsilon")
        if prediction not in get_args(Prediction):
            raise UnknownNameError("prediction type", prediction, get_args(Prediction))
        if classes is None and null is not None:
            raise ArgumentError(f"null={null} is the index of no class: give classes, too")
        if classes is not None:
            if conditioner is not None:
                raise ArgumentError("expected classes or a conditioner, given both")
            conditioner = ClassConditioner.of(classes, null)
        network = AnyNetwork.of(net, has_conditions=conditioner is not None)
        device = network.device if device is None else torch.device(device)
        codec = codec or PixelCodec()
        return cls(network, schedule, shape, prediction, codec, conditioner, spacing, steps_offset, clean, device, name)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its images."""
        return self.shape[1] * self.codec.scale, self.shape[2] * self.codec.scale

    def grid(self, steps: int, spacing: str | None = None) -> Grid:
        """The levels of the model's own sampler with `steps` moves, or those of another spacing.

        Args:
            steps: N, moves from one end to the other.
            spacing: `leading`, `trailing` or `linspace`, or one of `unsample.core.spacing`: `karras`, `log-snr`, `trdi`.

        Raises:
            ArgumentError: Steps out of range, or a spacing for a flow model, which has its own.
        """
        if isinstance(self.schedule, FlowSchedule):
            if spacing is not None:
                raise ArgumentError(
                    f"model {self.name!r} is a flow model, whose schedule spaces its levels itself: leave out spacing "
                    f"{spacing!r}, or make a grid with Grid.from_sigmas"
                )
            return Grid.of(self.schedule, steps)
        if spacing is None or spacing in get_args(Spacing):
            offset = self.steps_offset if spacing in (None, "leading") else 0
            own: Any = spacing or self.spacing
            return Grid.of(self.schedule, steps, spacing=own, steps_offset=offset, clean=self.clean)
        return Grid.from_timesteps(self.schedule, parse_spacing(spacing, self.schedule, steps), clean=self.clean)

    def denoiser(
        self, conditions: Sequence[Condition] | None = None, guidance: float = 1.0, negative: Negative = None
    ) -> Denoiser:
        """The eps of a batch, with its conditions and guidance bound.

        Args:
            conditions: One per item; None, or None for an item, is unconditional.
            guidance: w in eps_u + w (eps_c - eps_u); 1 is conditional only and costs one evaluation, others two.
            negative: The condition of eps_u. The source's own is negative-prompt inversion: while it is also the condition,
                guidance cancels (Miyake et al. 2023, arXiv 2305.16807). Embeddings by level are those of
                `unsample.null_text`; a level without any is unconditional.

        Raises:
            ArgumentError: Conditions for a model that takes none, or guidance without a condition.
        """
        by_level = negative if isinstance(negative, Mapping) else None
        away = [] if isinstance(negative, Mapping) else negative or []
        wanted = by_level is not None or any(condition is not None for condition in [*(conditions or ()), *away])
        if wanted and self.conditioner is None:
            raise ArgumentError(f"model {self.name!r} takes no condition: leave out the label or choose another model")
        if self.distilled:
            if away or by_level is not None:
                raise ArgumentError(f"model {self.name!r} takes guidance as an input, without a negative: leave out negative")
            distilled: Any = self.network
            return replace(self, network=distilled.guided(guidance))._bound(conditions)
        if guidance != 1 and not wanted and (conditions is None or self.conditioner is None):
            raise ArgumentError(f"guidance {guidance} needs a condition to guide towards: give a label, or guidance 1")
        conditional = self._bound(conditions)
        if guidance == 1:
            return conditional
        null = self._bound(away or (conditions and [None] * len(conditions)))
        if by_level is None:
            return Guided(conditional, null, guidance)
        own = {i: NetworkDenoiser(self.network, self.prediction, rows.to(self.device)) for i, rows in by_level.items()}
        return Guided(conditional, lambda x, level: own.get(level.index, null)(x, level), guidance)

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        """Embeddings of the conditions, floats of shape (batch, ...), which the network takes in their place.

        Raises:
            ArgumentError: A model that takes no condition, or one whose conditions have no embedding.
        """
        encoded = None if self.conditioner is None else self.conditioner(conditions, self.device)
        if isinstance(encoded, Tensor) and encoded.is_floating_point():
            return encoded
        embed: Any = getattr(self.network, "embed", None)
        if encoded is None or embed is None:
            raise ArgumentError(f"model {self.name!r} has no embedding of a condition: choose a network that has")
        embedding: Tensor = embed(encoded)
        return embedding

    def _bound(self, conditions: Sequence[Condition] | None) -> NetworkDenoiser:
        if self.conditioner is None:
            return NetworkDenoiser(self.network, self.prediction)
        encoded = self.conditioner([None] if conditions is None else conditions, self.device)
        return NetworkDenoiser(self.network, self.prediction, encoded)
