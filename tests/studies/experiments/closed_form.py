"""What DDIM makes of a mode of known variance, from the betas alone: no code of the library."""

from __future__ import annotations

import numpy as np


def scales(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """alpha and sigma of the clean level and of as many leading timesteps."""
    table = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    bars = np.concatenate([[1.0], table[np.arange(steps) * (1000 // steps)]])
    return np.sqrt(bars), np.sqrt(1 - bars)


def gain(v: float, src: int, dst: int, at: int, steps: int) -> float:
    """Of one DDIM move on a mode of variance v, eps = sigma x / (alpha^2 v + sigma^2) with the scales of level `at`.

    At the clean level the network is given timestep 0, which is that of level 1.
    """
    alpha, sigma = scales(steps)
    at = max(at, 1)
    eps = sigma[at] / (alpha[at] ** 2 * v + sigma[at] ** 2)
    return alpha[dst] / alpha[src] + (sigma[dst] - alpha[dst] / alpha[src] * sigma[src]) * eps
