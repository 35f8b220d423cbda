"""Ray: a pool of actors, each a process somewhere in a cluster with a model of its own.

Ray finds a place for each actor and says when one has died, with its process or its machine; what is done is known from the
shards alone. An actor is given work when its model is loaded, so that one for which there is no place holds nothing up; the
work of one that died goes to whoever is free, and another actor takes its place.
"""

from __future__ import annotations

import os
import platform
import socket
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError, RunError, UnsampleError, counted, one_line
from .shards import Line, line_of
from .work import Job, work

TASK = 4
"""Shards that an actor is given at a time: reading and writing overlap with the network within them."""

TRIES = 4
"""How often actors may die of the same shards, or a place in the pool in loading its model."""

CONNECT = 10.0
"""Seconds in which a cluster answers; Ray itself would try for minutes."""

MEMORY = 2**27
"""Bytes of the store of objects of a cluster that is started here: what goes through it is a line a shard."""


@dataclass(frozen=True)
class Ray:
    """Works in the actors of a Ray cluster.

    Attributes:
        job: A function that can be pickled and makes the job where it is called.
        address: Of the cluster; None takes the one whose address is in RAY_ADDRESS, or else starts one on this machine.
        workers: How many actors; by default one for each GPU, or else for each machine.
        gpus: Of each actor; by default one where there are any.
        cpus: Of each actor, and its threads; by default one beside a GPU, or else a share of its machine's.
        patience: Seconds that a cluster without a machine for an actor is given to grow.
    """

    job: Callable[[], Job]
    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    cpus: float | None = None
    patience: float = 600

    def run(self, numbers: Sequence[int], on_batch: Callable[[int], object]) -> Iterator[Line]:
        """As every engine.

        Raises:
            ArgumentError: Ray is not installed, or there is no cluster.
            RunError: The actors die again and again, or no machine is large enough for one.
            UnsampleError: What an actor raises.
        """
        with _cluster(self.address) as ray:
            count, needs = self._pool(ray)
            size = max(1, min(TASK, -(-len(numbers) // (2 * count))))
            todo = deque(tuple(numbers[first : first + size]) for first in range(0, len(numbers), size))
            pool = _Pool(ray, self.job, needs, min(count, len(todo)))
            try:
                while todo or pool.is_busy:
                    pool.give(todo)
                    if not (lines := pool.wait(todo, self.patience)):
                        continue
                    for line in lines:
                        on_batch(line.rows + line.rejected)
                        yield line
            finally:
                pool.close()

    def _pool(self, ray: Any) -> tuple[int, dict[str, float]]:
        """How many actors, and what each of them needs."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus_there = sum(each.get("GPU", 0) for each in machines)
        gpus = self.gpus if self.gpus is not None else float(gpus_there > 0)
        cpus = [each["CPU"] for each in machines if each.get("CPU", 0) >= 1] or [1]
        count = self.workers or max(1, int(gpus_there / gpus) if gpus else len(cpus))
        share = 1 if gpus else max(1, min(cpus) // -(-count // len(cpus)))
        return count, {"CPU": share if self.cpus is None else self.cpus, "GPU": gpus}


class _Pool:
    """Actors, those that are free, and what the others are at."""

    def __init__(self, ray: Any, job: Callable[[], Job], needs: dict[str, float], count: int) -> None:
        self.ray, self.job, self.needs = ray, job, needs
        self.kind = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"])(_Actor)
        self.at: dict[Any, tuple[int, Any, tuple[int, ...]]] = {}  # by what is waited for: place in the pool, actor, shards
        self.free: list[tuple[int, Any]] = []
        self.deaths: Counter[int | tuple[int, ...]] = Counter()  # of a place in loading, or of shards
        for place in range(count):
            self._start(place)

    @property
    def is_busy(self) -> bool:
        """Whether any actor is at work on shards."""
        return any(shards for _, _, shards in self.at.values())

    def give(self, todo: deque[tuple[int, ...]]) -> None:
        """Shards to those that are free."""
        while todo and self.free:
            place, actor = self.free.pop()
            shards = todo.popleft()
            self.at[actor.work.remote(shards)] = place, actor, shards

    def wait(self, todo: deque[tuple[int, ...]], patience: float) -> list[Line]:
        """The lines of whoever is done next, if it is with shards; the shards of one that died are back in `todo`."""
        done, _ = self.ray.wait(list(self.at), timeout=patience)
        if not done:
            self._check_room()
            return []
        place, actor, shards = self.at.pop(done[0])
        try:
            made = self.ray.get(done[0])
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._bury(place, actor, shards, error)
            if shards:
                todo.append(shards)
            return []
        if isinstance(made, UnsampleError):
            raise made
        self.deaths.pop(shards or place, None)
        self.free.append((place, actor))
        return [Line.model_validate_json(text) for text in made]

    def close(self) -> None:
        """End all actors."""
        for actor in [actor for _, actor in self.free] + [actor for _, actor, _ in self.at.values()]:
            self.ray.kill(actor)

    def _start(self, place: int) -> None:
        actor = self.kind.remote(self.job)
        self.at[actor.load.remote()] = place, actor, ()

    def _bury(self, place: int, actor: Any, shards: tuple[int, ...], error: Exception) -> None:
        self.deaths[shards or place] += 1
        if self.deaths[shards or place] >= TRIES:
            at = f"at shards {', '.join(map(str, shards))}" if shards else "in loading the model"
            said = one_line(error, 10**6)[-200:]
            raise RunError(f"workers died {TRIES} times {at}: out of memory? Shards that are done stay. Ray says: ...{said}")
        self.ray.kill(actor)  # it may only be out of reach
        self._start(place)

    def _check_room(self) -> None:
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(all(each.get(name, 0) >= need for name, need in self.needs.items()) for each in machines):
            needs = " and ".join(f"{need:g} {name}" for name, need in self.needs.items() if need)
            raise RunError(
                f"no machine of the Ray cluster has {needs} for a worker; {counted(len(machines), 'machine')} there"
            )


class _Actor:
    """A process of a cluster, with a job of its own. Errors on purpose are what its methods return."""

    def __init__(self, make: Callable[[], Job]) -> None:
        self.make = make

    def load(self) -> list[str] | UnsampleError:
        """Make the job; no lines."""
        try:
            self.job = self.make()
        except UnsampleError as error:
            return _at(error)
        return []

    def work(self, numbers: Sequence[int]) -> list[str] | UnsampleError:
        """The lines of shards, as text."""
        try:
            store, plan = self.job.store, self.job.plan
            there = [line for number in numbers if (line := line_of(store, number, plan))]  # of an actor that died
            missing = [number for number in numbers if number not in {line.shard for line in there}]
            return [line.model_dump_json() for line in (*there, *work(self.job, missing))]
        except UnsampleError as error:
            return _at(error)


def _at(error: UnsampleError) -> UnsampleError:
    """The same error, which says where it was: perhaps what is missing there is here."""
    error.args = (f"{error} (a worker on {platform.node()})",)
    return error


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; what is started here ends here."""
    try:
        import ray
    except ImportError:
        raise ArgumentError('--engine ray needs Ray: pip install "unsample[ray]"') from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {"include_dashboard": False, "object_store_memory": MEMORY}
    try:
        _reach(address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what later versions of Ray will do
            ray.init(address=address, log_to_driver=False, configure_logging=False, **here)
    except (OSError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"--address: no Ray cluster at {address} ({one_line(error, 200)})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing listens."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
