"""The betas that networks are trained with, by formula, and their change for a last level without signal; in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .._arguments import Reader, number, takes, whole
from ..errors import ArgumentError

MIN_ALPHA_BAR = 2.0**-24
"""Stand-in for the last alpha_bar of zero-terminal-SNR schedules. At exactly 0 the state holds no signal and eps alone no
longer determines x0, so no move could leave that level; diffusers' Euler scheduler uses the same value."""

Betas = npt.NDArray[np.float64]

READERS: Mapping[str, Reader] = {"start": number, "end": number, "count": whole(1), "max_beta": number}


@takes(READERS)
def linear_betas(start: float = 1e-4, end: float = 0.02, count: int = 1000) -> Betas:
    """Evenly spaced betas (Ho et al. 2020)."""
    return np.linspace(start, end, count, dtype=np.float64)


@takes(READERS)
def scaled_linear_betas(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> Betas:
    """Evenly spaced in sqrt(beta) (Rombach et al. 2022)."""
    return np.linspace(math.sqrt(start), math.sqrt(end), count, dtype=np.float64) ** 2


@takes(READERS)
def cosine_betas(count: int = 1000, max_beta: float = 0.999) -> Betas:
    """Betas of alpha_bar(s) = cos^2((s + 0.008) / 1.008 * pi / 2), capped (Nichol and Dhariwal 2021, eq. 17)."""
    alpha_bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta), dtype=np.float64)


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
