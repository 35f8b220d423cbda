"""What the tasks have in common: settings checked, the model loaded, an engine chosen, and the missing shards made by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.batching import OnStep
from ..core.model import Condition, Model
from ..errors import ArgumentError, RunError, counted, printable
from ..runs.loading import Loading
from ..runs.manifest import Origin
from ..runs.progress import progress_line
from .actors import Ray
from .card import card
from .engines import Engine, Local, Rank
from .plan import CARD, DONE, MOST, Plan, shard_name
from .status import Status
from .store import Store
from .work import Job


def shared_store(place: str | Path, engine: str) -> Store:
    """Where a task writes.

    Raises:
        ArgumentError: A place in the memory of this process, for workers in others.
    """
    store = Store(place)
    if engine != "local" and not store.outlives:
        raise ArgumentError(f"--engine {engine}: expected a place that all workers share, given {printable(store.place)}")
    return store


def check_shards(images: int, shard: int) -> None:
    """Refuse more shards than a dataset has.

    Raises:
        ArgumentError: So small ones.
    """
    if images > MOST * shard:
        least = f"at least {-(-images // MOST):,} pictures a shard of {images:,}"
        raise ArgumentError(f"--shard: expected {least}, given {shard:,}; a dataset has at most {MOST:,} shards")


def checked_settings(kind: type[Any], model: Model, condition: Condition, **settings: Any) -> Any:
    """Settings checked against a model, of which each row has a condition of its own, such as `condition`, or none has."""
    if condition is None:
        return kind.of(model, **settings)
    return kind.of(model, **{**settings, "label": str(condition)}).model_copy(update={"label": None})


def loaded_model(
    model: Model | str | Path, loading: Loading | None, rank: Rank, engine: str, device: str, dtype: str
) -> tuple[Loading, Model]:
    """The model of a task, and where its workers load it.

    Raises:
        ArgumentError: A live model, for workers elsewhere.
    """
    if isinstance(model, Model):
        if engine == "ray":
            raise ArgumentError("--engine ray: expected a name or folder of a model, which each worker loads, given a Model")
        return Loading(Origin(source=model.name), device, dtype), model
    loading = loading or Loading(Origin(source=str(model)), device, dtype)
    if rank.count > 1 and loading.device == "auto":
        loading = replace(loading, device=rank.device)
    planning = replace(loading, device="cpu") if engine == "ray" else loading  # which works nowhere but in its actors
    return loading, planning.load()


def engine_of(name: str, job: Job, made: Callable[[], Job], address: str | None, workers: int | None) -> Engine:
    """The engine of a name."""
    if name == "ray":
        return Ray(made, address, workers)
    return Local(job)


def run(store: Store, plan: Plan, engine: Engine, rank: Rank, on_images: OnStep | None) -> Status:
    """Have the shards made that are missing; the status afterwards.

    Raises:
        RunError: What workers wrote is not here.
    """
    there = Status.of(store, plan)
    missing = list(rank.share(there.missing))
    others = {shard_name(number): plan.rows(number)[1] for number in set(there.missing) - set(missing)}
    own, elsewhere, total = 0, 0, sum(plan.rows(number)[1] for number in there.missing)

    def on_batch(count: int) -> None:
        nonlocal own
        own += count
        if on_images is not None:
            on_images(own + elsewhere, total)

    on_batch(0)
    for made, line in enumerate(engine.run(missing, on_batch) if missing else (), 1):
        if others:  # what the other processes have done meanwhile
            names = store.sizes(DONE)
            elsewhere = sum(count for name, count in others.items() if f"{name}.json" in names)
        left_out = f", {line.rejected} left out" if line.rejected else ""
        whole = f"{made} of {len(missing)}{f' of process {rank.number + 1}' if rank.count > 1 else ''}"
        progress_line(f"shard {line.shard} is done, {counted(line.rows, 'picture')}{left_out}, {line.seconds:.0f} s; {whole}")
    there = Status.of(store, plan)
    if set(missing) - set(there.lines):
        raise RunError(f"what the workers wrote is not in {store.place}: expected a place that all of them share")
    if there.complete and there.rows:
        store.write(CARD, card(store, there).encode())
    return there
