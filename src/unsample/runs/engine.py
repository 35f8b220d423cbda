"""Where the batches of a run are worked on: here, or wherever an engine sends them.

A run hands an engine a function that can be pickled and the arguments of each batch. The engine has the model, so that it is
loaded where the work is done and not sent there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..core.batching import OnStep
from ..core.model import Model

Result = TypeVar("Result")


@runtime_checkable
class Engine(Protocol):
    """Maps a function over batches, one after the other or many at once."""

    def map(
        self, function: Callable[..., Result], batches: Sequence[tuple[Any, ...]], on_step: OnStep | None = None
    ) -> Iterable[Result]:
        """`function(model, *batch)` of each batch, in the order of the batches whatever order they are worked on in.

        Args:
            function: One that can be pickled, so that another process can be given it.
            batches: Arguments besides the model.
            on_step: For `function(..., on_step=on_step)` where this process does the work one batch after the other; other
                engines do without.
        """


@dataclass(frozen=True)
class Local:
    """Works in this process, on one batch after the other, each when its result is taken."""

    model: Model

    def map(
        self, function: Callable[..., Result], batches: Sequence[tuple[Any, ...]], on_step: OnStep | None = None
    ) -> Iterator[Result]:
        """As every engine does."""
        for batch in batches:
            yield function(self.model, *batch, on_step=on_step)
