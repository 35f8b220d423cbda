"""Contexts that threads share: what concerns all of them is set by the first to enter, and put back by the last to leave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


class Shared:
    """One context for each key, however many threads are in it.

    Attributes:
        make: The context of a key.
    """

    def __init__(self, make: Callable[[Any], AbstractContextManager[Any]]) -> None:
        self.make = make
        self._lock = threading.Lock()
        self._entered: dict[int, tuple[int, AbstractContextManager[Any]]] = {}

    @contextmanager
    def __call__(self, key: Any = None) -> Iterator[None]:
        """In the context of `key`, an object that lives as long."""
        with self._lock:
            count, context = self._entered.get(id(key), (0, None))
            if context is None:
                context = self.make(key)
                context.__enter__()
            self._entered[id(key)] = count + 1, context
        try:
            yield
        finally:
            with self._lock:
                count, context = self._entered.pop(id(key))
                if count > 1:
                    self._entered[id(key)] = count - 1, context
                else:
                    context.__exit__(None, None, None)
