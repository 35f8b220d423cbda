"""What is known of the latents of a dataset, from the sums that were kept of each shard: no latent is read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from .._arguments import takes
from .._arguments import whole as whole_number
from ..diagnostics import Diagnosis, true_noise
from ..diagnostics.fidelity import SSIM_SIDE
from ..diagnostics.streaming.diagnosis import DiagnosisSums
from ..errors import ArgumentError, RunError, one_line, printable
from .arguments import BITS, place
from .plan import INVERT, SUMS, Plan
from .shards import Line, lines_of, read_file
from .store import Store

GROUPS = 10
"""Of shards, for the interval of the correlation across images."""


@takes({"out": place, "seed": whole_number(0, BITS)})
def diagnose(out: str | Path, *, seed: int = 0) -> Diagnosis:
    """All of `unsample.diagnose`, of all latents of the shards that are done, each beside its value on true noise.

    Its values are those of `unsample.diagnose` on all latents at once. Memory is that of the sums of a dozen shards.

    Args:
        out: The folder, or address, of `dataset.invert`.
        seed: Of intervals and nulls.

    Raises:
        RunError: No dataset is there, no shard is done, or the sums of one are damaged.
    """
    store = Store(out)
    plan = Plan.read(store)
    if plan.command != INVERT:
        raise ArgumentError(f"{store.place} holds pictures, made by `unsample {plan.command}`: expected a dataset of noise")
    lines = [line for line in lines_of(store, plan).values() if line.rows]
    if not lines:
        raise RunError(f"no shard of {store.place} is done yet; see `unsample dataset status`")
    whole, groups = DiagnosisSums(), [DiagnosisSums() for _ in range(min(GROUPS, len(lines)))]
    for i, line in enumerate(lines):
        with _damaged(f"the sums of shard {line.shard} of {store.place}"):
            sums = _sums(load(read_file(store, line, SUMS)), line)
            groups[i % len(groups)].merge(sums)
    with _damaged(f"the sums of {store.place}"):
        for group in groups:
            whole.merge(group)
        return whole.diagnosis(groups, seed)


@contextmanager
def _damaged(what: str) -> Iterator[None]:
    """Numbers that the sums of no latents are make others that cannot be: an error in the block is that of the file."""
    try:
        yield
    except RunError:
        raise
    except (SafetensorError, LookupError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise RunError(
            f"{printable(what)} are damaged ({one_line(error, 200)}); delete the file, and give the command that made it again"
        ) from None


def _sums(tensors: Mapping[str, Tensor], line: Line) -> DiagnosisSums:
    """The sums of a file, which are of those names, shapes and types that sums have."""
    images, *sides = tensors["shape"].tolist()
    if images != line.rows or len(sides) != 3 or tensors["coordinates/totals"].shape != tuple(sides):
        raise ValueError(f"expected sums over {line.rows} latents, given {images} of shape {tuple(sides)}")
    known = _example(*sides)
    for name, tensor in tensors.items():
        if name not in known or tensor.dtype != known[name].dtype or tensor.shape not in (known[name].shape, ()):
            raise ValueError(f"unexpected {name} of shape {tuple(tensor.shape)}")
        if not name.startswith("PSNR") and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} is not finite")
    return DiagnosisSums.of(tensors)


@lru_cache(maxsize=1)
def _example(channels: int, height: int, width: int) -> dict[str, Tensor]:
    """The tensors of all sums that are kept of latents of a shape."""
    made, times = DiagnosisSums(), -(-SSIM_SIDE // min(height, width))
    latent = true_noise((1, channels, height, width))
    images = torch.zeros(1, 3, height * times, width * times)
    made.update(latent, images, images, noise=latent)
    return made.tensors()
