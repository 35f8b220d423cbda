"""Who works on the shards: this process, this process among others that torchrun or slurm started, or the actors of Ray.

An engine is told which shards are missing and has them made by `unsample.dataset.work.work`, here or elsewhere. It does not
know what is in a shard, and keeps no account of what is done: that is the shards' own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..errors import ArgumentError, RunError, UnsampleError, one_line
from .shards import Line
from .work import Job, work

ENGINES = ("local", "torchrun", "ray")

RANKS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
"""What torchrun and `accelerate launch`, and slurm's srun, tell each process: its number, how many there are, its GPU."""

TASK = 4
"""Shards that an actor is given at a time: reading and writing overlap with the network within them."""


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
                if 0 <= number < count:
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


@dataclass(frozen=True)
class Ray:
    """Works in the actors of a Ray cluster, each of which loads the model once.

    A task of an actor that dies is given to it again when Ray has restarted it; of its shards, those that were written stay.
    A shard may be made twice, and the same bytes come out.

    Attributes:
        job: A function that can be pickled and makes the job where it is called.
        address: Of the cluster; None starts one on this machine, or takes the one whose address is in RAY_ADDRESS.
        workers: How many actors; by default one for each GPU, or one.
        gpus: Of each actor.
        cpus: Of each actor.
    """

    job: Callable[[], Job]
    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    cpus: float = 1

    def run(self, numbers: Sequence[int], on_batch: Callable[[int], object]) -> Iterator[Line]:
        """As every engine.

        Raises:
            ArgumentError: Ray is not installed, or there is no cluster.
            RunError: An actor cannot be kept alive.
        """
        ray = self._started()
        gpus_there = ray.cluster_resources().get("GPU", 0)
        gpus = self.gpus if self.gpus is not None else float(gpus_there > 0)
        count = self.workers or max(1, int(gpus_there / gpus) if gpus else 1)
        size = max(1, min(TASK, -(-len(numbers) // (2 * count))))
        tasks = [list(numbers[first : first + size]) for first in range(0, len(numbers), size)]
        actor = ray.remote(num_cpus=self.cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(_Actor)
        actors = [actor.remote(self.job) for _ in range(min(count, len(tasks)))]
        try:
            pool = ray.util.ActorPool(actors)
            for task in tasks:
                pool.submit(lambda each, numbers: each.work.remote(numbers), task)
            while pool.has_next():
                for line in _received(ray, pool):
                    on_batch(line.rows + line.rejected)
                    yield line
        finally:
            for each in actors:
                ray.kill(each)

    def _started(self) -> Any:
        try:
            import ray
        except ImportError:
            raise ArgumentError('--engine ray needs Ray: pip install "unsample[ray]"') from None
        if not ray.is_initialized():
            try:
                ray.init(address=self.address, log_to_driver=False, include_dashboard=False, configure_logging=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ArgumentError(f"--address: no Ray cluster there ({one_line(error, 200)})") from None
        return ray


class _Actor:
    """A process of a cluster, with a job of its own."""

    def __init__(self, make: Callable[[], Job]) -> None:
        try:
            self.job: Job | UnsampleError = make()
        except UnsampleError as error:  # raised here it would only be tried again
            self.job = error

    def work(self, numbers: Sequence[int]) -> list[str] | UnsampleError:
        """The lines of shards, as text, or the error on purpose that ended the work."""
        if isinstance(self.job, UnsampleError):
            return self.job
        try:
            there = [line for number in numbers if (line := self.job.done(number))]  # before this actor was restarted
            missing = [number for number in numbers if number not in {line.shard for line in there}]
            return [line.model_dump_json() for line in (*there, *work(self.job, missing))]
        except UnsampleError as error:
            return error


def _received(ray: Any, pool: Any) -> list[Line]:
    try:
        made = pool.get_next_unordered()
    except ray.exceptions.RayError as error:
        raise RunError(f"the workers cannot be kept alive ({one_line(error, 200)}); shards that are done stay") from None
    if isinstance(made, UnsampleError):
        raise made
    return [Line.model_validate_json(text) for text in made]


def check_engine(name: str) -> None:
    """Refuse what is no engine.

    Raises:
        ArgumentError: Its name is not known.
    """
    if name not in ENGINES:
        raise ArgumentError(f"--engine: expected one of {', '.join(ENGINES)}, given {name!r}")
