"""The work on shards in one process: reading ahead, the network, and writing, each while the others go on.

A thread reads and decodes batches of the shards to come, this thread calls the network, another adds up and writes. What is on
its way between them is bounded, so that memory grows neither with the images nor with the source.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, Protocol, runtime_checkable

from .plan import Plan
from .shards import Line
from .store import Store

AHEAD, BEHIND = 2, 2
"""Batches that are read before the network wants them, and that wait to be added up."""


@runtime_checkable
class Shard(Protocol):
    """The results of a shard as they come in."""

    def add(self, batch: Any, done: Any) -> None:
        """Take the results of a batch."""

    def close(self, seconds: float) -> Line:
        """Write the shard; its line."""


@runtime_checkable
class Job(Protocol):
    """What is done with shards; the same for every engine."""

    @property
    def plan(self) -> Plan:
        """Of what."""

    @property
    def store(self) -> Store:
        """Where to."""

    def read(self, number: int) -> Iterator[Any]:
        """The batches of a shard, each decoded when it is taken. Called in a thread of its own."""

    def run(self, batch: Any) -> Any:
        """The network's part."""

    def shard(self, number: int) -> Shard:
        """A new shard, without results. Called, as its methods are, in a thread of its own."""


@dataclass
class _Read:
    """A batch of a shard, or its end, or what went wrong."""

    number: int
    batch: Any = None
    error: BaseException | None = None


def work(job: Job, numbers: Iterable[int], on_batch: Callable[[int], object] = lambda _: None) -> Iterator[Line]:
    """The lines of shards, each when it is written.

    Args:
        job: What is done with them.
        numbers: The shards, in this order.
        on_batch: Called with the number of pictures that the network is done with.

    Raises:
        UnsampleError: What reading, the network or writing raises; shards that were written stay.
    """
    stop = threading.Event()
    ahead: Queue[_Read] = Queue(AHEAD)
    reader = threading.Thread(target=_read, args=(job, numbers, ahead, stop), daemon=True)
    reader.start()
    behind: deque[Future[Line | None]] = deque()
    with ThreadPoolExecutor(1) as writer:
        try:
            results, began = _Results(job), time.perf_counter()
            while (read := _next(ahead, reader)) is not None:
                if read.error is not None:
                    raise read.error
                done = None if read.batch is None else job.run(read.batch)
                behind.append(writer.submit(results.take, read, done, time.perf_counter() - began))
                began = time.perf_counter() if read.batch is None else began
                on_batch(0 if read.batch is None else len(read.batch))
                while behind and (len(behind) > BEHIND or behind[0].done()):
                    if (line := behind.popleft().result()) is not None:
                        yield line
            for future in behind:
                if (line := future.result()) is not None:
                    yield line
        finally:
            stop.set()
            for future in behind:
                future.cancel()
            reader.join()


@dataclass
class _Results:
    """The shard whose results come in; used by the writing thread alone."""

    job: Job
    shard: Shard | None = None

    def take(self, read: _Read, done: Any, seconds: float) -> Line | None:
        shard = self.shard or self.job.shard(read.number)
        self.shard = None if read.batch is None else shard
        if read.batch is None:
            return shard.close(seconds)
        shard.add(read.batch, done)
        return None


def _read(job: Job, numbers: Iterable[int], ahead: Queue[_Read], stop: threading.Event) -> None:
    number = -1
    try:
        for number in numbers:
            for batch in job.read(number):
                if not _put(ahead, _Read(number, batch), stop):
                    return
            if not _put(ahead, _Read(number), stop):
                return
    except BaseException as error:  # which the other thread raises
        _put(ahead, _Read(number, error=error), stop)


def _put(ahead: Queue[_Read], read: _Read, stop: threading.Event) -> bool:
    while not stop.is_set():
        with contextlib.suppress(Full):
            ahead.put(read, timeout=0.1)
            return True
    return False


def _next(ahead: Queue[_Read], reader: threading.Thread) -> _Read | None:
    while True:
        try:
            return ahead.get(timeout=0.1)
        except Empty:
            if not reader.is_alive() and ahead.empty():
                return None
