"""What is known of the latents of a dataset, from the sums that were kept of each shard: no latent is read again."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from ..diagnostics import Diagnosis
from ..diagnostics.streaming.diagnosis import DiagnosisSums
from ..errors import ArgumentError, RunError
from .plan import SUMS, Plan
from .shards import lines_of, read_file
from .store import Store

GROUPS = 10
"""Of shards, for the interval of the correlation across images."""


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
    if plan.command != "dataset invert":
        raise ArgumentError(f"{store.place} holds pictures, made by `unsample {plan.command}`: expected a dataset of noise")
    lines = [line for line in lines_of(store, plan).values() if line.rows]
    if not lines:
        raise RunError(f"no shard of {store.place} is done yet; see `unsample dataset status`")
    whole, groups = DiagnosisSums(), [DiagnosisSums() for _ in range(min(GROUPS, len(lines)))]
    for i, line in enumerate(lines):
        try:
            sums = DiagnosisSums.of(load(read_file(store, line, SUMS)))
        except (SafetensorError, KeyError) as error:
            raise RunError(f"the sums of shard {line.shard} of {store.place} are damaged ({error})") from None
        groups[i % len(groups)].merge(sums)
    for group in groups:
        whole.merge(group)
    return whole.diagnosis(groups, seed)
