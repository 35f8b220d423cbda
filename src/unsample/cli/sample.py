"""The commands that sample: from true noise, and back from the latents of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ArgumentError, RunError
from ..runs.progress import progress_bar
from .model_options import Chosen, loads_a_model
from .options import (
    CONDITION,
    IN_MEMORY,
    TRAINED,
    AsJson,
    BatchSize,
    Guidance,
    Label,
    Negative,
    Out,
    Seed,
    SpacingOption,
    Steps,
    number,
    place,
    whole,
)
from .show import show_run


@loads_a_model
def sample(
    chosen: Chosen,
    count: Annotated[int, whole(IN_MEMORY, "--count", help="How many pictures.")] = 16,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    seed: Seed = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    negative: Negative = None,
    batch_size: BatchSize = 16,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Pictures from true noise."""
    from ..runs.names import place_of
    from ..runs.sample import sample_images
    from ..runs.settings import SampleSettings

    loaded = chosen.load()
    settings = SampleSettings.of(
        loaded,
        count=count,
        steps=steps,
        spacing=spacing,
        seed=seed,
        guidance=guidance,
        label=label,
        negative=negative,
        batch_size=batch_size,
        **chosen.recorded,
    )
    with progress_bar("sampling") as on_step:
        run = sample_images(loaded, settings, place_of(out, "sample", settings.key), on_step)
    show_run(run, "overview.png", as_json)


@loads_a_model
def reconstruct(
    run: Annotated[Path, typer.Argument(**place("RUN"), help="A run directory of `unsample invert`.")],
    chosen: Chosen,
    start: Annotated[str | None, typer.Option(help="Which of the run's starts; default is its last.")] = None,
    steps: Annotated[int | None, whole(TRAINED, "--steps", help="Moves down; default is as many as went up.")] = None,
    guidance: Annotated[float | None, number(-1000, 1000, "--guidance", help="Default is the run's.")] = None,
    label: Annotated[str | None, typer.Option(*CONDITION, help="Default is the run's; `none` for unconditional.")] = None,
    negative: Negative = None,
    batch_size: BatchSize = 16,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Sample the pictures back from the latents of a run, with its settings or others.

    What the method stored besides the latents is used, unless --steps asks for another grid. The model is the run's; --model
    says where it is now, if it was moved.
    """
    from ..core.stored import Stored
    from ..runs.directory import Run
    from ..runs.inversions import inverted_tensors, settings_of
    from ..runs.manifest import Origin
    from ..runs.names import place_of
    from ..runs.read_back import way_back
    from ..runs.sample import sample_images
    from ..runs.settings import SampleSettings

    source = Run.load(run)
    made = settings_of(source)
    starts = list(made.forward)
    start = starts[-1] if start is None else start
    if start not in starts:
        raise ArgumentError(f"--start: the run in {run} has the starts {', '.join(starts)}, not {start}")
    tensors = inverted_tensors(source)
    latents = tensors[f"latent.{start}"]
    origin = chosen.moved(source.manifest.origin or Origin(source=made.model))
    loaded = chosen.loaded(origin, made.dtype)
    if loaded.digest != made.model_digest:
        raise RunError(f"the run in {run} was made with other weights of {made.model!r}; invert again with these")
    moves = made.steps if steps is None else steps
    method, stored = way_back(source, tensors, start) if moves == made.steps else (None, Stored())
    settings = SampleSettings.of(
        loaded,
        count=len(latents),
        steps=moves,
        spacing=made.spacing,
        guidance=made.guidance if guidance is None else guidance,
        label=made.label if label is None else None if label == "none" else label,
        negative=negative,
        seed=made.seed,
        batch_size=batch_size,
        dtype=made.dtype,
        origin=origin,
        method=method,
        source=f"{start} of {source.manifest.key}",
    )
    names = [item.name for item in source.manifest.items]
    with progress_bar("sampling back") as on_step:
        place = place_of(out, "reconstruct", settings.key)
        done = sample_images(loaded, settings, place, on_step, latents, names, stored)
    show_run(done, "overview.png", as_json)
