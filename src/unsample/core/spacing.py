"""Where the timesteps of a grid lie: evenly, as diffusers spaces them, or not, for `Grid.from_timesteps`.

Each function returns `steps` strictly rising trained timesteps, the last of them the noisiest. Where several uneven times
round to the same trained timestep, the later ones move up to the next free one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from .._arguments import number
from ..errors import ArgumentError, UnknownNameError, shortened
from .schedule import Schedule, check_steps
from .specs import parse_spec

Times = npt.NDArray[np.float64]
Spacing = Literal["leading", "trailing", "linspace"]


def even(trained: int, steps: int, spacing: Spacing = "leading", offset: int = 0) -> list[int]:
    """The timesteps of an even spacing of so many `trained` ones, rounded as diffusers rounds them; `offset` is of `leading`.

    >>> even(1000, 4), even(1000, 4, "trailing"), even(1000, 4, "linspace")
    ([0, 250, 500, 750], [249, 499, 749, 999], [0, 333, 666, 999])
    """
    check_steps(steps, trained)
    if spacing == "leading":
        timesteps = np.arange(steps) * (trained // steps) + offset
    elif spacing == "trailing":
        timesteps = np.round(np.arange(trained, 0, -trained / steps))[:steps][::-1] - 1
    elif spacing == "linspace":
        timesteps = np.round(np.linspace(0, trained - 1, steps))
    else:
        raise UnknownNameError("spacing", spacing, get_args(Spacing))
    result = [int(t) for t in timesteps]
    if result[-1] >= trained or result[0] < 0:
        raise ArgumentError(
            f"steps={steps} with steps_offset={offset} leads to timestep {result[-1]}, beyond the trained {trained - 1}; "
            "use fewer steps or a smaller offset"
        )
    return result


def leading(schedule: Schedule, steps: int, offset: float = 0) -> list[int]:
    """The timesteps offset, offset + T // N, ... of diffusers' leading spacing; the first is that of a start of one step.

    >>> leading(Schedule.from_betas(Schedule.linear_betas()), 4, offset=3)
    [3, 253, 503, 753]
    """
    return even(len(schedule), steps, offset=int(offset))


def power(schedule: Schedule, steps: int, exponent: float = 1.05, first: int = 0) -> list[int]:
    """t_k = t_1 + (t_K - t_1) ((k-1)/(K-1))^exponent, t_K the last trained timestep (Sun et al. 2026, TRDI, global part).

    More than 1 puts more levels near the clean end.

    >>> power(Schedule.from_betas(Schedule.linear_betas()), 5, exponent=2)
    [0, 62, 250, 562, 999]
    """
    last = len(schedule) - 1
    if not exponent > 0 or not 0 <= first < len(schedule):
        raise ArgumentError(f"expected a positive exponent and a first timestep in 0..{last}, given {exponent} and {first}")
    return _rising(first + (last - first) * _fractions(schedule, steps) ** exponent, schedule, first)


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> list[int]:
    """Timesteps of even steps in S^(1/rho), S = sigma/alpha, between the trained ends (Karras et al. 2022, eq. 5).

    >>> karras(Schedule.from_betas(Schedule.linear_betas()), 5)
    [0, 142, 593, 843, 999]
    """
    if not rho > 0:
        raise ArgumentError(f"expected a positive rho, given {rho}")
    ratio = _ratios(schedule)
    low, high = ratio[ratio > 0][0] ** (1 / rho), ratio[-1] ** (1 / rho)
    return _nearest((low + (high - low) * _fractions(schedule, steps)) ** rho, schedule)


def log_snr(schedule: Schedule, steps: int) -> list[int]:
    """Timesteps of even steps in log S = log(sigma/alpha) between the trained ends: every move has the same r.

    Only as far as the trained timesteps allow: the cleanest are far apart in log S.

    >>> log_snr(Schedule.from_betas(Schedule.linear_betas()), 5)
    [0, 30, 302, 722, 999]
    """
    ratio = _ratios(schedule)
    low, high = np.log(ratio[ratio > 0][0]), np.log(ratio[-1])
    return _nearest(np.exp(low + (high - low) * _fractions(schedule, steps)), schedule)


def _fractions(schedule: Schedule, steps: int) -> Times:
    """`steps` even fractions that end at 1."""
    check_steps(steps, len(schedule))
    return np.linspace(1.0, 0.0, steps)[::-1]


def _ratios(schedule: Schedule) -> Times:
    """S at every trained timestep; it rises."""
    table = np.asarray(schedule.alpha_bar)
    return np.asarray(np.sqrt((1 - table) / table))


def _nearest(ratios: Times, schedule: Schedule) -> list[int]:
    """Timesteps of these S, interpolated in log S."""
    table = _ratios(schedule)
    known = np.flatnonzero(table > 0)
    return _rising(np.interp(np.log(ratios), np.log(table[known]), known), schedule)


def _rising(times: Times, schedule: Schedule, first: int = 0) -> list[int]:
    """Rising times to strictly rising whole ones, within first..last trained."""
    count = np.arange(len(times))
    if first + len(times) > len(schedule):
        raise ArgumentError(f"{len(times)} steps do not fit between timesteps {first} and {len(schedule) - 1}")
    slack = np.maximum.accumulate(np.round(times).astype(int) - count)
    return [int(t) for t in np.minimum(slack, len(schedule) - len(times)) + count]


SPACINGS: dict[str, Callable[..., list[int]]] = {"leading": leading, "trdi": power, "karras": karras, "log-snr": log_snr}
"""Name -> function of (schedule, steps); `trdi` is the global part of timestep rescheduling."""


def parse_spacing(text: str, schedule: Schedule, steps: int) -> list[int]:
    """The timesteps of a spacing given as text, with options after colons: `karras`, `karras:rho=3`, `trdi:exponent=1.1`.

    Raises:
        ArgumentError: An unknown spacing, an option that it does not have, or a value that is no number.

    >>> parse_spacing("karras:rho=7", Schedule.from_betas(Schedule.linear_betas()), 5)
    [0, 142, 593, 843, 999]
    """
    name, options = parse_spec(text)
    if name not in SPACINGS:
        raise UnknownNameError("spacing", name, [*get_args(Spacing), *SPACINGS])
    try:
        values = {key: number(f"{key} of spacing {name!r}", value) for key, value in options.items()}
        return SPACINGS[name](schedule, steps, **values)
    except ArgumentError:
        raise
    except (ValueError, TypeError, ArithmeticError):
        raise ArgumentError(f"expected a spacing like karras or karras:rho=7, given {shortened(repr(text))}") from None
