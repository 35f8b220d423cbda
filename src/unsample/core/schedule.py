"""The noise schedule a network was trained on: its alpha_bar table, in float64, or the straight paths of a flow model.

Only this file assumes alpha^2 + sigma^2 = 1 of tables and alpha + sigma = 1 of flow models. Everywhere else a noise level is a
`Level`: the scales `alpha` and `sigma` of x = alpha * x0 + sigma * noise (docs/theory.md, eq. 1) and the timestep that the
network is given.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from ..errors import ArgumentError, UnknownNameError
from .betas import Betas, cosine_betas, linear_betas, rescale_zero_terminal_snr, scaled_linear_betas
from .specs import Checked, check_fields

MIN_ALPHA = 2.0**-26
"""Stand-in for the alpha of a flow model's noisy end, for the same reason. A move from there is off by this much of the
velocity, and by float64 rounding over this much: both are smallest together, and below float32 rounding."""

TINY_ALPHA = 2.0**-8
"""At levels of smaller alpha, eps is kept and moved in float64, because x0 = (x - sigma eps) / alpha is there a difference of
nearly equal numbers. The noisiest level of linear betas, alpha 0.0064, is not one of them."""

Least = Literal["shifted", "trained", "even"]
"""The cleanest time of a flow model's grid, before the grid is shifted."""


@dataclass(frozen=True)
class Level:
    """One noise level: x = alpha * x0 + sigma * noise, at the timestep `t` that the network is given.

    Attributes:
        index: Its place in a grid.
        t: Timestep: a whole number of a table, any number of a flow model.
        alpha, sigma: Scales of image and noise.
        is_flow: It is a level of a flow model, on the straight path alpha + sigma = 1.

    >>> Level(index=1, t=0, alpha=0.8, sigma=0.4).ratio
    0.5
    """

    index: int
    t: float
    alpha: float
    sigma: float
    is_flow: bool = False

    def __post_init__(self) -> None:
        if not type(self.alpha) is type(self.sigma) is float:  # as in grids, which make thousands
            check_fields(type(self), vars(self))

    @property
    def ratio(self) -> float:
        """Noise over signal, S = sigma / alpha."""
        return self.sigma / self.alpha

    @property
    def tau(self) -> float:
        """Share of noise, sigma / (alpha + sigma), in 0..1: the time t of a flow model."""
        return self.sigma / (self.alpha + self.sigma)


@dataclass(frozen=True)
class Schedule:
    """A trained table of alpha_bar, one value per timestep, strictly between 0 and 1 and falling.

    >>> schedule = Schedule.from_betas(Schedule.linear_betas())
    >>> len(schedule), round(schedule.level(0).alpha, 5)
    (1000, 0.99995)
    """

    alpha_bar: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        table = _table(self.alpha_bar)
        if not len(table) or not np.all(np.isfinite(table)):
            raise ArgumentError("alpha_bar must be a non-empty list of finite numbers, one per trained timestep")
        if not (np.all(table > 0) and np.all(table <= 1) and np.all(np.diff(table) < 0)):
            raise ArgumentError("alpha_bar must fall strictly and lie in (0, 1]; check the betas it was computed from")

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def __repr__(self) -> str:
        return f"Schedule(timesteps={len(self)}, digest={self.digest!r})"

    @property
    def digest(self) -> str:
        """A hash of the table's exact values: equal digests, equal schedules."""
        return hashlib.sha256(np.asarray(self.alpha_bar, dtype="<f8").tobytes()).hexdigest()[:12]

    def level(self, t: float, index: int = 0) -> Level:
        """The level at trained timestep `t`, a whole number in 0..len - 1."""
        t = whole(t)
        if not 0 <= t < len(self):
            raise ArgumentError(f"timestep {t} is outside the trained range 0..{len(self) - 1}")
        return level_of(self.alpha_bar[t], t, index)

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Betas, *, zero_terminal_snr: bool = False) -> Schedule:
        """alpha_bar_t = prod_{s <= t} (1 - beta_s), in float64."""
        table = _table(betas)
        if not len(table) or not np.all((table > 0) & (table < 1)):
            raise ArgumentError("betas must be a non-empty list of numbers strictly between 0 and 1")
        alpha_bar = np.cumprod(1.0 - table, dtype=np.float64)
        return cls(tuple((rescale_zero_terminal_snr(alpha_bar) if zero_terminal_snr else alpha_bar).tolist()))

    linear_betas = staticmethod(linear_betas)
    scaled_linear_betas = staticmethod(scaled_linear_betas)
    cosine_betas = staticmethod(cosine_betas)


@dataclass(frozen=True)
class FlowSchedule(Checked):
    """Straight paths from image to noise: x = (1 - t) x0 + t noise, t in 0..1 (Liu et al. 2023; Lipman et al. 2023).

    The network is given t * `trained`, a float, and predicts the velocity noise - x0 (prediction type `flow`). Every t has a
    level; alpha is at least `MIN_ALPHA`.

    Attributes:
        trained: The timestep that stands for t = 1.
        shift: s of t' = s t / (1 + (s - 1) t), which moves the levels of a grid towards noise (Esser et al. 2024).
        least: The N times of a grid are even before they are shifted, from 1 down to the least trained one, 1 / trained,
            which itself has been shifted (`shifted`: diffusers with a fixed shift) or has not (`trained`: with one that
            depends on the image's size), or down to 1 / N (`even`: FLUX's pipeline).

    >>> schedule = FlowSchedule(shift=3.0)
    >>> [round(t, 1) for t in schedule.timesteps(4)]
    [8.9, 602.2, 857.7, 1000.0]
    >>> schedule.level(250.0).alpha
    0.75
    """

    trained: int = 1000
    shift: float = 1.0
    least: Least = "shifted"

    def __post_init__(self) -> None:
        if self.least not in get_args(Least):
            raise UnknownNameError("least time", self.least, get_args(Least))
        if self.trained < 1 or self.shift <= 0:
            raise ArgumentError(
                f"a flow schedule needs trained of at least 1 and a positive shift, given {self.trained} and {self.shift}"
            )

    def __len__(self) -> int:
        return self.trained

    @property
    def digest(self) -> str:
        """A hash of its settings: equal digests, equal schedules."""
        return hashlib.sha256(f"flow {self.trained} {float(self.shift)!r} {self.least}".encode()).hexdigest()[:12]

    def level(self, t: float, index: int = 0) -> Level:
        """The level of timestep `t`, in 0..trained."""
        if not 0 <= t <= self.trained:
            raise ArgumentError(f"timestep {t} is outside the trained range 0..{self.trained}")
        alpha = max(1.0 - t / self.trained, MIN_ALPHA)
        return Level(index, float(t), alpha, 1.0 - alpha, is_flow=True)

    def shifted(self, t: float) -> float:
        """The time s t / (1 + (s - 1) t), of a time in 0..1."""
        return min(self.shift * t / (1 + (self.shift - 1) * t), 1.0)  # rounding may pass 1

    def timesteps(self, steps: int) -> list[float]:
        """The N rising timesteps of diffusers' FlowMatchEulerDiscreteScheduler; the noisiest is t = 1."""
        check_steps(steps)
        least = 1 / (steps if self.least == "even" else self.trained)
        times = np.linspace(1.0, self.shifted(least) if self.least == "shifted" else least, steps)[::-1]
        return [self.trained * self.shifted(float(t)) for t in times]


AnySchedule = Schedule | FlowSchedule
"""The schedules that a grid can be made of."""


def _table(values: Any) -> Betas:
    """A list of numbers; an empty one for anything else."""
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([])
    return table if table.ndim == 1 else np.array([])


def check_steps(steps: Any, trained: int | None = None) -> None:
    """Raise an `ArgumentError` for a number of steps that is no whole number from 1 to `trained`, if there is such a limit."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= (trained or steps):
        limit = "on" if trained is None else f"to {trained} (the trained timesteps)"
        raise ArgumentError(f"steps must be a whole number from 1 {limit}, given {steps!r}")


def whole(t: float) -> int:
    """A timestep of a table, which is a whole number of any type; an `ArgumentError` for one between the trained ones.

    >>> whole(3.0)
    3
    """
    if t % 1 != 0:
        nearest = f", such as {math.floor(t)} and {math.ceil(t)}" if math.isfinite(t) else ""
        raise ArgumentError(f"expected timesteps of the trained table, whole numbers{nearest}, given {t}: round them")
    return int(t)


def level_of(alpha_bar: float, t: float, index: int) -> Level:
    """A variance-preserving level: alpha^2 = alpha_bar, sigma^2 = 1 - alpha_bar."""
    return Level(index, t, math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar))
