"""Who works on the shards: this process, this process among others that torchrun or slurm started, or Ray (`actors`).

An engine is told which shards are missing and has them made by `unsample.dataset.work.work`, here or elsewhere. It does not
know what is in a shard, and keeps no account of what is done: that is the shards' own.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..errors import ArgumentError
from .shards import Line
from .work import Job, work

ENGINES = ("local", "torchrun", "ray")

RANKS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
"""What torchrun and `accelerate launch`, and slurm's srun, tell each process: its number, how many there are, its GPU."""


@dataclass(frozen=True)
class Rank:
    """This process among all that work on the same dataset.

    >>> list(Rank(1, 3).share([0, 1, 2, 3, 4, 5, 6, 7]))
    [1, 4, 7]
    """

    number: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Rank:
        """As torchrun or slurm say.

        Raises:
            ArgumentError: Neither started this process, or what they say cannot be.
        """
        for names in RANKS:
            if all(name in os.environ for name in names[:2]):
                try:
                    number, count, local = (int(os.environ.get(name, "0")) for name in names)
                except ValueError:
                    raise ArgumentError(f"expected whole numbers in {', '.join(names)}: start with torchrun or srun") from None
                if not 0 <= number < count or local < 0:
                    given = ", ".join(f"{name}={os.environ.get(name, '0')}" for name in names)
                    raise ArgumentError(f"expected a number of a process from 0 below how many there are, given {given}")
                return cls(number, count, local)
        raise ArgumentError(
            "--engine torchrun: this process was started by neither torchrun nor srun; give "
            "`torchrun --standalone --nproc-per-node 8 -m unsample dataset invert ...`, or leave out --engine"
        )

    def share(self, numbers: Iterable[int]) -> Iterator[int]:
        """Its shards: every process can tell, without asking, which are whose."""
        return (number for number in numbers if number % self.count == self.number)

    @property
    def device(self) -> str:
        """Its own GPU, where there are any."""
        import torch

        return f"cuda:{self.local % torch.cuda.device_count()}" if torch.cuda.is_available() else "auto"


@runtime_checkable
class Engine(Protocol):
    """Makes shards."""

    def run(self, numbers: Sequence[int], on_batch: Callable[[int], object]) -> Iterator[Line]:
        """The lines of shards as they are done, in any order.

        Args:
            numbers: Those that are missing.
            on_batch: Called with the number of pictures done since it was last called.
        """


@dataclass(frozen=True)
class Local:
    """Works in this process."""

    job: Job

    def run(self, numbers: Sequence[int], on_batch: Callable[[int], object]) -> Iterator[Line]:
        """As every engine."""
        return work(self.job, numbers, on_batch)


def check_engine(name: str, address: str | None = None, workers: int | None = None) -> None:
    """Refuse what is no engine, or cannot be one here.

    Raises:
        ArgumentError: Its name is not known, it is not installed, or the options are another's.
    """
    if name not in ENGINES:
        raise ArgumentError(f"--engine: expected one of {', '.join(ENGINES)}, given {name!r}")
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise ArgumentError('--engine ray needs Ray: pip install "unsample[ray]"')
    if name != "ray" and (address is not None or workers is not None):
        raise ArgumentError(f"--address and --workers are of --engine ray, not {name}; leave them out")
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise ArgumentError(f"--workers: expected a whole number from 1, given {workers!r}")
