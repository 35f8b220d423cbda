"""The three tasks with a dataset that call or count a network's work: `invert`, `sample` and `status`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .._arguments import takes, warn
from ..core.batching import OnStep
from ..core.corrections import Corrected
from ..core.model import Model
from ..core.starts import Start
from ..core.stepper import Stepper
from ..errors import ArgumentError, RunError, counted
from ..methods.registry import DEFAULT
from ..runs.loading import Loading
from ..runs.manifest import Origin, versions
from ..runs.settings import InvertSettings, SampleSettings
from .arguments import READERS, SAMPLE_READERS, place
from .engines import Rank, check_engine
from .invert import InvertJob
from .jobs import invert_job, sample_job, settings_of
from .plan import INVERT, SAMPLE, Plan, digest_of, pieces_bytes
from .rows import Columns
from .running import check_shards, checked_settings, engine_of, loaded_model, run, shared_store
from .sample import SampleJob
from .shards import check_parquet
from .source import Source
from .status import Status
from .store import Store

DTYPES = ("float32", "float16")
SHARD = 1024


@takes({"out": place})
def status(out: str | Path) -> Status:
    """What is done of a dataset: shards, rows, pictures left out, rate and time left.

    Raises:
        RunError: No dataset is there.
    """
    store = Store(out)
    return Status.of(store, Plan.read(store))


@takes(READERS)
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
    method: str | Stepper | Corrected = DEFAULT.method,
    eval_at: str | None = None,
    steps: int = 50,
    spacing: str | None = None,
    start: str | int | Start = DEFAULT.forward,
    guidance: float = 1.0,
    label: str | int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "float32",
    loading: Loading | None = None,
    address: str | None = None,
    workers: int | None = None,
    on_images: OnStep | None = None,
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
        method: As on the command line, or an object.
        eval_at: The level that the network is given on the way up, `target` or `source`.
        steps: Moves, 1 to 10,000.
        spacing: Of the grid; by default the model's.
        start: One, as on the command line, or an object.
        guidance: 1 is conditional only.
        label: A condition of all pictures.
        seed: Of noise, with the id of each picture.
        batch_size: Pictures a network call.
        device: For a name.
        dtype: Of the network, for a name.
        loading: In place of name, device and dtype.
        address: Of a Ray cluster.
        workers: Actors of Ray; by default one a GPU, or one a machine without any.
        on_images: Called with (pictures done, pictures to do) for progress: of this process, without those that were there.

    Returns:
        The status of `out`.

    Raises:
        ArgumentError: What is none of these, or settings that do not fit.
        ImageError: No pictures, files of several kinds, ids that are not different, or with `strict` a picture.
        RunError: `out` holds something else, or cannot be written, or the source changes.
    """
    check_engine(engine, address, workers)
    check_parquet()
    if latents not in DTYPES:
        raise ArgumentError(f"--latents: expected one of {', '.join(DTYPES)}, given {latents!r}")
    if label is not None and condition_column is not None:
        raise ArgumentError("expected one condition for all or a column of them, given both: leave out --label or the column")
    rank = Rank.here() if engine == "torchrun" else Rank()
    store = shared_store(out, engine)
    Plan.find(store)
    columns = Columns(image_column, id_column, condition_column)
    places: Any = source  # a list, as it was read
    pieces = Source.of(places, columns)
    pieces.check_ids()
    images = min(len(pieces), limit or len(pieces))
    check_shards(images, shard)
    if pieces.passed_over and not rank.number:
        warn(f"{counted(pieces.passed_over, 'file or sample', 'files or samples')} of the source passed over: no pictures")
    own = None if condition_column is None else next(iter(pieces.rows(0, 1))).condition
    loading, loaded = loaded_model(model, loading, rank, engine, device, dtype)
    checked = checked_settings(
        InvertSettings,
        loaded,
        own,
        method=method,
        eval_at=eval_at,
        steps=steps,
        spacing=spacing,
        forward=(start,),
        guidance=guidance,
        label=label,
        seed=seed,
        batch_size=batch_size,
        dtype=loading.dtype,
        origin=loading.origin,
    )
    listed = pieces_bytes(pieces)
    plan = Plan(
        command=INVERT,
        settings=checked.model_dump(mode="json"),
        origin=loading.origin,
        places=places,
        columns=columns,
        source=digest_of(pieces),
        pieces=hashlib.sha256(listed).hexdigest(),
        images=images,
        shard=shard,
        dtype=latents,
        psnr=psnr,
        versions=versions(),
    )
    job = InvertJob(loaded, checked, plan, pieces, store, strict)
    made = partial(invert_job, store.address, loading, batch_size, strict)
    chosen = engine_of(engine, job, made, address, workers)
    with store.held(shared=rank.count > 1):
        plan.open(store, listed)
        return run(store, plan, chosen, rank, on_images)


@takes(SAMPLE_READERS)
def sample(
    source: str | Path,
    out: str | Path | None = None,
    *,
    model: Model | str | Path | None = None,
    engine: str = "local",
    steps: int | None = None,
    guidance: float | None = None,
    label: str | int | None = None,
    negative: str | int | None = None,
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
    if there.plan.command != INVERT:
        raise ArgumentError(f"{noise.place} holds pictures: expected a dataset of noise")
    if not there.complete:
        raise RunError(f"{noise.place} is not complete ({there}); give the command that makes it again to finish it")
    inverted = settings_of(InvertSettings, there.plan)
    if loading is None and not isinstance(model, Model):
        origin = there.plan.origin or Origin(source=inverted.model)
        origin = origin if model is None else origin.model_copy(update={"source": str(model)})
        loading = Loading(origin, device, dtype or inverted.dtype)
    loading, loaded = loaded_model(
        model if isinstance(model, Model) else "", loading, rank, engine, device, dtype or inverted.dtype
    )
    if loaded.digest != inverted.model_digest:
        raise RunError(f"{noise.place} was made with other weights of {loaded.name!r}; give that model")
    own = label is None and there.plan.columns.condition is not None
    same = steps in (None, inverted.steps)
    checked = checked_settings(
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
    store = shared_store(f"{str(source).rstrip('/')}/samples" if out is None else out, engine)
    plan = Plan(
        command=SAMPLE,
        settings=checked.model_dump(mode="json"),
        origin=loading.origin,
        places=[noise.address],
        columns=Columns(condition="condition" if own else None),
        source=there.plan.key,
        images=there.plan.images,
        shard=there.plan.shard,
        versions=versions(),
    )
    job = SampleJob(loaded, checked, plan, noise, store, own, dict(there.lines), same)
    chosen = engine_of(engine, job, partial(sample_job, store.address, loading, batch_size), address, workers)
    with store.held(shared=rank.count > 1):
        plan.open(store)
        return run(store, plan, chosen, rank, on_images)
