"""The noise schedule a network was trained on: its alpha_bar table, in float64.

This is the only file that knows alpha^2 + sigma^2 = 1. Everywhere else a noise level is a `Level`: the scales `alpha` and
`sigma` of x = alpha * x0 + sigma * noise (docs/theory.md, eq. 1) and the timestep the network is told.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError, ModelError, UnknownNameError

__all__ = ["MIN_ALPHA_BAR", "Level", "Schedule"]

MIN_ALPHA_BAR = 2.0**-24
"""Stand-in for the last alpha_bar of zero-terminal-SNR schedules. At exactly 0 the state holds no signal and eps alone no
longer determines x0, so no move could leave that level; diffusers' Euler scheduler uses the same value."""

Betas = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """One noise level: x = alpha * x0 + sigma * noise, and the time `t` the network is told.

    >>> Level(index=1, t=0, alpha=0.8, sigma=0.4).ratio
    0.5
    """

    index: int
    t: float
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """Noise over signal, S = sigma / alpha."""
        return self.sigma / self.alpha


@dataclass(frozen=True)
class Schedule:
    """A trained table of alpha_bar, one value per timestep, strictly between 0 and 1 and falling.

    >>> schedule = Schedule.from_betas(Schedule.linear_betas())
    >>> len(schedule), round(schedule.level(0).alpha, 5)
    (1000, 0.99995)
    """

    alpha_bar: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        table = np.asarray(self.alpha_bar)
        if table.ndim != 1 or len(table) < 1 or not np.all(np.isfinite(table)):
            raise ArgumentError("alpha_bar must be a non-empty list of finite numbers, one per trained timestep")
        if not (np.all(table > 0) and np.all(table <= 1) and np.all(np.diff(table) < 0)):
            raise ArgumentError("alpha_bar must fall strictly and lie in (0, 1]; check the betas it was computed from")

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def __repr__(self) -> str:
        return f"Schedule(timesteps={len(self)}, digest={self.digest!r})"

    @property
    def digest(self) -> str:
        """A name for the table's exact values: equal digests, equal schedules."""
        return hashlib.sha256(np.asarray(self.alpha_bar, dtype="<f8").tobytes()).hexdigest()[:12]

    def level(self, t: int, index: int = 0) -> Level:
        """The level at trained timestep `t` in [0, len - 1]."""
        if not 0 <= t < len(self):
            raise ArgumentError(f"timestep {t} is outside the trained range 0..{len(self) - 1}")
        return level_of(self.alpha_bar[t], t, index)

    # Constructors

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Betas, *, zero_terminal_snr: bool = False) -> Schedule:
        """alpha_bar_t = prod_{s <= t} (1 - beta_s), in float64."""
        table = np.asarray(betas, dtype=np.float64)
        if table.ndim != 1 or len(table) < 1 or not np.all((table > 0) & (table < 1)):
            raise ArgumentError("betas must be a non-empty list of numbers strictly between 0 and 1")
        alpha_bar = np.cumprod(1.0 - table, dtype=np.float64)
        return cls(tuple((rescale_zero_terminal_snr(alpha_bar) if zero_terminal_snr else alpha_bar).tolist()))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """The schedule of a diffusers scheduler config (any scheduler built on betas).

        Raises:
            ModelError: The config describes no betas.
            UnknownNameError: An unknown `beta_schedule`.
        """
        zero_snr = bool(config.get("rescale_betas_zero_snr", False))
        if config.get("trained_betas") is not None:
            return cls.from_betas(config["trained_betas"], zero_terminal_snr=zero_snr)
        if "beta_schedule" not in config:
            raise ModelError(
                "expected a scheduler config with 'beta_schedule' or 'trained_betas', "
                f"given one with {', '.join(sorted(config)) or 'nothing'}; flow-matching schedulers are not taken yet"
            )
        makers = {
            "linear": cls.linear_betas,
            "scaled_linear": cls.scaled_linear_betas,
            "squaredcos_cap_v2": lambda _start, _end, count: cls.cosine_betas(count),
        }
        kind = str(config["beta_schedule"])
        if kind not in makers:
            raise UnknownNameError("beta_schedule", kind, makers)
        start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
        betas = makers[kind](start, end, int(config.get("num_train_timesteps", 1000)))
        return cls.from_betas(betas, zero_terminal_snr=zero_snr)

    @staticmethod
    def linear_betas(start: float = 1e-4, end: float = 0.02, count: int = 1000) -> Betas:
        """Evenly spaced betas (Ho et al. 2020)."""
        return np.linspace(start, end, count, dtype=np.float64)

    @staticmethod
    def scaled_linear_betas(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> Betas:
        """Evenly spaced in sqrt(beta) (Rombach et al. 2022)."""
        return np.linspace(math.sqrt(start), math.sqrt(end), count, dtype=np.float64) ** 2

    @staticmethod
    def cosine_betas(count: int = 1000, max_beta: float = 0.999) -> Betas:
        """Betas of alpha_bar(s) = cos^2((s + 0.008) / 1.008 * pi / 2), capped (Nichol and Dhariwal 2021, eq. 17)."""
        alpha_bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.asarray(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta), dtype=np.float64)


def level_of(alpha_bar: float, t: float, index: int) -> Level:
    """A variance-preserving level: alpha^2 = alpha_bar, sigma^2 = 1 - alpha_bar."""
    return Level(index, t, math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar))


def rescale_zero_terminal_snr(alpha_bar: Betas) -> Betas:
    """Shift and scale sqrt(alpha_bar) so that it ends at (almost) zero (Lin et al. 2023, algorithm 1).

    The last value is `MIN_ALPHA_BAR`, or less where the one before is already close to it (linear betas: 4e-9), so that the
    table falls to its end.
    """
    if len(alpha_bar) < 2:
        raise ArgumentError("a zero-terminal-SNR schedule needs at least two timesteps, given one")
    root = np.sqrt(alpha_bar)
    table = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return np.append(table[:-1], min(MIN_ALPHA_BAR, table[-2] / 4))
