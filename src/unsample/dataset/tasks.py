"""The three tasks with a dataset that call or count a network's work: `invert`, `sample` and `status`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core.batching import OnStep
from ..core.model import Condition, Model
from ..errors import ArgumentError, RunError
from ..methods.registry import DEFAULT
from ..runs.manifest import Origin, versions
from ..runs.settings import InvertSettings, SampleSettings
from .actors import Ray
from .card import card
from .engines import Engine, Local, Rank, check_engine
from .invert import InvertJob
from .jobs import invert_job, sample_job, settings_of
from .loading import Loading
from .plan import CARD, Plan, digest_of
from .rows import Columns
from .sample import SampleJob
from .shards import check_parquet
from .source import Source
from .status import Status
from .store import Store
from .work import Job

DTYPES = ("float32", "float16")
SHARD, MOST = 1024, 1_000_000


def status(out: str | Path) -> Status:
    """What is done of a dataset: shards, rows, pictures left out, rate and time left.

    Raises:
        RunError: No dataset is there.
    """
    store = Store(out)
    return Status.of(store, Plan.read(store))


def invert(
    model: Model | str | Path,
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    engine: str = "local",
    shard: int = SHARD,
    limit: int | None = None,
    image_column: str = "image",
    id_column: str | None = None,
    condition_column: str | None = None,
    latents: str = "float32",
    psnr: bool = False,
    strict: bool = False,
    start: str | int = DEFAULT.forward,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "float32",
    loading: Loading | None = None,
    address: str | None = None,
    workers: int | None = None,
    on_images: OnStep | None = None,
    **settings: Any,
) -> Status:
    """The noise of all pictures of `source`, in shards of parquet files in `out`.

    What is there already is not made again, so an interrupted call goes on by the same call. A picture that cannot be read is
    left out and listed with its reason. The noise of a row depends on (seed, id) alone: engines, number of workers, size of
    shards and restarts change nothing but rounding, and not that at the same batch size.

    Args:
        model: A name or folder, as `unsample.load` takes it, which each worker loads; or a `Model`, for the engine local.
        source: Folders, globs, parquet files (in the Hugging Face image layout) or WebDataset tar files; paths here, or
            addresses that fsspec opens (`s3://`, `gs://`, `hf://` ...).
        out: The folder, or an address.
        engine: `local`, `torchrun` (this process is one of those that torchrun or srun started), or `ray`.
        shard: Pictures of a file.
        limit: At most so many pictures, the first ones.
        image_column: Of a parquet file.
        id_column: A column of a parquet file whose values are the ids; all must differ.
        condition_column: Classes or captions: a column of a parquet file, or `cls`, `txt`, `json.caption` of a tar file.
        latents: How they are kept, `float32` or `float16`.
        psnr: Also sample each picture back, N more evaluations, and keep its PSNR.
        strict: Stop at the first picture that cannot be read, or whose latent is not finite.
        start: One, as on the command line.
        batch_size: Pictures a network call.
        device: For a name.
        dtype: Of the network, for a name.
        loading: In place of name, device and dtype.
        address: Of a Ray cluster.
        workers: Actors of Ray; by default one a GPU, or one a machine without any.
        on_images: Called with (pictures done, pictures to do) for progress: of this process, without those that were there.
        settings: `steps`, `method`, `eval_at`, `spacing`, `guidance`, `label`, `seed`, as `unsample invert` has them.

    Returns:
        The status of `out`.

    Raises:
        ArgumentError: Settings that do not fit.
        ImageError: No pictures, files of several kinds, ids that are not different, or with `strict` a picture.
        RunError: `out` holds something else, or cannot be written, or the source changes.
    """
    check_engine(engine, address, workers)
    check_parquet()
    if latents not in DTYPES:
        raise ArgumentError(f"--latents: expected one of {', '.join(DTYPES)}, given {latents!r}")
    if isinstance(shard, bool) or not isinstance(shard, int) or not 1 <= shard <= MOST:
        raise ArgumentError(f"--shard: expected a whole number from 1 to {MOST:,}, given {shard!r}")
    if settings.get("label") is not None and condition_column is not None:
        raise ArgumentError("expected one condition for all or a column of them, given both: leave out --label or the column")
    rank = Rank.here() if engine == "torchrun" else Rank()
    store = Store(out)
    Plan.find(store)
    columns = Columns(image_column, id_column, condition_column)
    places = [str(place) for place in ([source] if isinstance(source, (str, Path)) else source)]
    pieces = Source.of(places, columns)
    pieces.check_ids()
    own = None if condition_column is None else next(pieces.rows(0, 1)).condition
    loading, loaded = _loaded(model, loading, rank, engine, device, dtype)
    common: dict[str, Any] = {"batch_size": batch_size, "dtype": loading.dtype, "origin": loading.origin}
    checked = _checked(InvertSettings, loaded, own, forward=(str(start).strip(),), **common, **settings)
    plan = Plan(
        command="dataset invert",
        settings=checked.model_dump(mode="json"),
        origin=loading.origin,
        places=places,
        columns=columns,
        source=digest_of(pieces),
        images=min(len(pieces), len(pieces) if limit is None else limit),
        shard=shard,
        dtype=latents,
        psnr=psnr,
        versions=versions(),
    )
    job = InvertJob(loaded, checked, plan, pieces, store, strict)
    made = partial(invert_job, store.address, loading, batch_size, strict)
    workers_of = _engine(engine, job, made, address, workers)
    with store.held(shared=rank.count > 1):
        plan.open(store, pieces)
        return _run(store, plan, workers_of, rank, on_images)


def sample(
    source: str | Path,
    out: str | Path | None = None,
    *,
    model: Model | str | Path | None = None,
    engine: str = "local",
    steps: int | None = None,
    guidance: float | None = None,
    label: str | None = None,
    negative: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str | None = None,
    loading: Loading | None = None,
    address: str | None = None,
    workers: int | None = None,
    on_images: OnStep | None = None,
) -> Status:
    """Pictures sampled from the noise of a dataset, a shard of them for each of its shards.

    Args:
        source: A dataset of `invert`, complete.
        out: The folder; by default `samples` in it.
        model: Where the model is now, if it was moved.
        engine: As `invert`.
        steps: Moves down; by default as many as went up, and what the method stored is then used.
        guidance: By default that of the inversion.
        label: A condition for all rows, or `none`; by default each row's own.
        negative: What guidance moves away from.
        batch_size: Latents a network call.
        device: As `invert`.
        dtype: As `invert`; by default that of the inversion.
        loading: As `invert`.
        address: As `invert`.
        workers: As `invert`.
        on_images: As `invert`.

    Raises:
        RunError: The dataset is not complete, or `out` holds something else.
    """
    check_engine(engine, address, workers)
    check_parquet()
    rank = Rank.here() if engine == "torchrun" else Rank()
    noise = Store(source)
    there = Status.of(noise, Plan.read(noise))
    if there.plan.command != "dataset invert":
        raise ArgumentError(f"{noise.place} holds pictures: expected a dataset of noise")
    if not there.complete:
        raise RunError(f"{noise.place} is not complete ({there}); give the command that makes it again to finish it")
    inverted = settings_of(InvertSettings, there.plan)
    if loading is None and not isinstance(model, Model):
        origin = there.plan.origin or Origin(source=inverted.model)
        origin = origin if model is None else origin.model_copy(update={"source": str(model)})
        loading = Loading(origin, device, dtype or inverted.dtype)
    loading, loaded = _loaded(
        model if isinstance(model, Model) else "", loading, rank, engine, device, dtype or inverted.dtype
    )
    if loaded.digest != inverted.model_digest:
        raise RunError(f"{noise.place} was made with other weights of {loaded.name!r}; give that model")
    own = label is None and there.plan.columns.condition is not None
    same = steps in (None, inverted.steps)
    checked = _checked(
        SampleSettings,
        loaded,
        next(iter(there.lines.values())).condition if own else None,
        count=there.rows,
        steps=inverted.steps if steps is None else steps,
        spacing=inverted.spacing,
        guidance=inverted.guidance if guidance is None else guidance,
        label=inverted.label if label is None else None if label == "none" else label,
        negative=negative,
        seed=inverted.seed,
        method=inverted.method if same else None,
        batch_size=batch_size,
        dtype=loading.dtype,
        origin=loading.origin,
    )
    place = f"{str(source).rstrip('/')}/samples" if out is None else str(out)
    plan = Plan(
        command="dataset sample",
        settings=checked.model_dump(mode="json"),
        origin=loading.origin,
        places=[noise.address],
        columns=Columns(condition="condition" if own else None),
        source=there.plan.key,
        images=there.plan.images,
        shard=there.plan.shard,
        versions=versions(),
    )
    store = Store(place)
    job = SampleJob(loaded, checked, plan, noise, store, own, dict(there.lines), same)
    workers_of = _engine(engine, job, partial(sample_job, store.address, loading, batch_size), address, workers)
    with store.held(shared=rank.count > 1):
        plan.open(store)
        return _run(store, plan, workers_of, rank, on_images)


def _checked(kind: type[Any], model: Model, condition: Condition, **settings: Any) -> Any:
    """Settings checked against a model, of which each row has a condition of its own, such as `condition`, or none has."""
    if condition is None:
        return kind.of(model, **settings)
    return kind.of(model, **{**settings, "label": str(condition)}).model_copy(update={"label": None})


def _loaded(
    model: Model | str | Path, loading: Loading | None, rank: Rank, engine: str, device: str, dtype: str
) -> tuple[Loading, Model]:
    if isinstance(model, Model):
        if engine == "ray":
            raise ArgumentError("--engine ray: expected a name or folder of a model, which each worker loads, given a Model")
        return Loading(Origin(source=model.name), device, dtype), model
    loading = loading or Loading(Origin(source=str(model)), device, dtype)
    if rank.count > 1 and loading.device == "auto":
        loading = replace(loading, device=rank.device)
    planning = replace(loading, device="cpu") if engine == "ray" else loading  # which works nowhere but in its actors
    return loading, planning.load()


def _engine(name: str, job: Job, made: Callable[[], Job], address: str | None, workers: int | None) -> Engine:
    if name == "ray":
        return Ray(made, address, workers)
    return Local(job)


def _run(store: Store, plan: Plan, engine: Engine, rank: Rank, on_images: OnStep | None) -> Status:
    there = Status.of(store, plan)
    missing = list(rank.share(there.missing))
    done, total = 0, sum(plan.rows(number)[1] for number in missing)

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        if on_images is not None:
            on_images(done, total)

    on_batch(0)
    for _ in engine.run(missing, on_batch) if missing else ():
        pass
    there = Status.of(store, plan)
    if set(missing) - set(there.lines):
        raise RunError(f"what the workers wrote is not in {store.place}: expected a place that all of them share")
    if there.complete and there.rows:
        store.write(CARD, card(store, there).encode())
    return there
