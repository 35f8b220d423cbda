"""What training runs have in common: the rate, a step down, the moving average, a whole checkpoint, a soft stop."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def rate_at(step: int, *, learning_rate: float, warmup: int, cooldown: int, steps: int) -> float:
    """The learning rate: linear warm-up, constant, then 1 - sqrt down to (almost) zero over the cooldown."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    done = max(0.0, 1 - (steps - step) / cooldown) if cooldown else 0.0
    return learning_rate * rise * (1 - math.sqrt(done))


def steps_left(done: int, seconds: float, minutes: float) -> int:
    """How many steps fit into what is left of the time, at the pace so far; at least one."""
    return max(1, int(done * (60 * minutes - seconds) / max(seconds, 1e-9)))


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step of the optimiser, its gradient no longer than 1."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([weight for group in optimiser.param_groups for weight in group["params"]], 1.0)
    optimiser.step()


def young(ema: float, done: int) -> float:
    """The decay of an average that forgets the first steps sooner, after `done` of them."""
    return min(ema, (1 + done) / (10 + done))


@torch.no_grad()
def follow(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """Move an average towards the weights, both of the same names in the same order."""
    torch._foreach_lerp_(list(average.values()), list(weights.values()), 1 - decay)


def write_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(dict(state), partial)
    os.replace(partial, path)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of what they do otherwise."""
    stop = threading.Event()
    kept = {name: signal.signal(name, lambda *_: stop.set()) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for name, handler in kept.items():
            signal.signal(name, handler)
