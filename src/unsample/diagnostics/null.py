"""The value of a statistic on true noise of the same shape: the zero of every diagnostic.

Few diagnostics are 0 on Gaussian noise: the mean of the largest correlations falls with the number of images, a divergence
is positive, a standard deviation in a small area scatters. So each is printed beside its null.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._checks import check_at_least


@dataclass(frozen=True)
class Null:
    """The distribution of a statistic on true noise.

    The interval is Student's, so it is rough for a skewed statistic: that of a divergence reaches below 0.

    Attributes:
        mean: Mean over the draws.
        std: Standard deviation of one draw.
        low: Lower end of the 95 % prediction interval: where one more draw of true noise falls.
        high: Its upper end.

    >>> null = Null.from_values([0.9, 1.0, 1.1])
    >>> round(null.mean, 3), round(null.std, 3), round(null.low, 3), round(null.high, 3)
    (1.0, 0.1, 0.503, 1.497)
    """

    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Null:
        """The null of a statistic with these values on independent draws (two or more)."""
        check_at_least(len(values), 2, "draws")
        table = torch.tensor(values, dtype=torch.float64, device="cpu")
        mean, std = float(table.mean()), float(table.std())
        return cls.normal(mean, std, draws=len(values), freedom=len(values) - 1)

    @classmethod
    def normal(cls, mean: float, std: float, *, draws: float, freedom: int) -> Null:
        """The null with Student's prediction interval, `std` being known to `freedom` degrees of freedom."""
        reach = student_reach(freedom) * std * math.sqrt(1 + 1 / draws)
        return cls(mean, std, mean - reach, mean + reach)


def true_noise(shape: Sequence[int], *, seed: int = 0, draw: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise of `shape`, float32, a function of (seed, draw) and of the shape.

    The generator's seed is hashed: with `torch.manual_seed(seed)` the null of a test latent made with the same seed would be
    that latent itself. Drawn on the CPU, so devices agree.

    >>> true_noise((2, 3), seed=1).shape
    torch.Size([2, 3])
    """
    key = hashlib.sha256(f"null\0{seed}\0{draw}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(key[:8], "little", signed=True))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu").to(device)


def null(
    statistic: Callable[[Tensor], float],
    shape: Sequence[int],
    draws: int = 8,
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
) -> Null:
    """The distribution of `statistic` on `draws` independent batches of true noise of `shape`.

    Args:
        statistic: From a tensor of `shape` to a number.
        shape: Shape of the whole batch, images included.
        draws: Two or more; eight give the spread to a quarter.
        seed: The same seed gives the same null.
        device: Where the statistic is computed.

    Raises:
        ArgumentError: Fewer than two draws.

    >>> spread = null(lambda x: float(x.std()), (64, 3, 8, 8))
    >>> spread.low < 1 < spread.high
    True
    """
    return nulls(lambda x: {"": statistic(x)}, shape, draws, seed, device=device)[""]


def nulls(
    statistics: Callable[[Tensor], Mapping[str, float]],
    shape: Sequence[int],
    draws: int = 8,
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
) -> dict[str, Null]:
    """`null` for several statistics of the same draws, by name.

    >>> table = nulls(lambda x: {"mean": float(x.mean()), "std": float(x.std())}, (64, 3, 8, 8))
    >>> sorted(table), abs(table["mean"].mean) < 0.01
    (['mean', 'std'], True)
    """
    check_at_least(draws, 2, "draws")
    rows = [statistics(true_noise(shape, seed=seed, draw=draw, device=device)) for draw in range(draws)]
    return {name: Null.from_values([row[name] for row in rows]) for name in rows[0]}


def permutations(items: int, draws: int, seed: int, device: torch.device) -> list[Tensor]:
    """`draws` random orders of `items`; the same seed gives the same."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randperm(items, generator=generator, device="cpu").to(device) for _ in range(draws)]


def student_reach(freedom: int) -> float:
    """Half the width of a 95 % interval in standard errors, for an error known to `freedom` degrees of freedom.

    >>> round(student_reach(9), 3)
    2.262
    """
    from scipy.special import stdtrit  # half a second, which `import unsample` should not cost

    return float(stdtrit(freedom, 0.975))
