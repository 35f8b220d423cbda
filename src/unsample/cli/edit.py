"""The commands that make other pictures of photographs: `edit` and `variations`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError, counted
from ..runs.progress import progress_bar
from .model_options import Chosen, loads_a_model
from .options import (
    AT_ONCE,
    BITS,
    DEFAULT,
    TRAINED,
    AsJson,
    BatchSize,
    Label,
    Limit,
    Out,
    SpacingOption,
    Steps,
    Strength,
    Strict,
    check_method,
    check_places,
    check_start,
    number,
    read_first,
    whole,
)
from .photos import is_run, leave, read_given, tell
from .show import print_summary, show_run

if TYPE_CHECKING:
    from ..core.model import Model
    from ..pictures.read import Reading
    from ..runs.directory import Run
    from ..runs.work import Work

Own = "of a run: its own"


def check_editor(text: str) -> None:
    """Refuse what is no attention editor."""
    from ..uses.attention import parse_editor

    parse_editor(text)


Places = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...", help="Pictures, folders, globs; or one run of `unsample invert`.", callback=read_first(check_places)
    ),
]
Targets = Annotated[
    list[str], typer.Option("--to", help="Class or prompt to edit towards; may be given again; `none` is no one.")
]
From = Annotated[str | None, typer.Option("--source", "--from", help=f"Class or prompt of the pictures as they are; {Own}.")]
GuidanceOption = Annotated[
    float, number(-1000, 1000, "--guidance", help="w in eps_source + w (eps_to - eps_source) on the way down.")
]
MaskOption = Annotated[
    str | None, typer.Option("--mask", help="Grey picture, white where the picture may change; or auto (DiffEdit).")
]
EditorOption = Annotated[
    str,
    typer.Option(
        "--editor",
        metavar="prompt|masactrl|stylealigned|p2p",
        help="prompt: another prompt alone. The others, on Stable Diffusion 1, 2 and XL, let targets attend to the picture: "
        "to its content (masactrl), its style, from noise of their own (stylealigned), or with its layout (p2p). With "
        "options: masactrl:from_step=4:from_layer=10, stylealigned:share=0.5:fresh=False, p2p:kind=refine ...",
        callback=read_first(check_editor),
    ),
]
Seeds = Annotated[
    int,
    whole(
        (1_000, "all are drawn on one sheet"),
        "--seeds",
        help="Draws of the start's noise, a way for each; the sheet has the nearest to the picture first.",
    ),
]
MethodOption = Annotated[
    str | None, typer.Option("--method", help=f"As for `unsample invert`; {Own}.", callback=read_first(check_method))
]
StepsOption = Annotated[
    int | None, whole(TRAINED, "--steps", help=f"Moves from one end of the grid to the other (50); {Own}.")
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="Forward start (4%), as for `unsample invert`; of a run: which of its starts.",
        callback=read_first(check_start),
    ),
]
OwnBatchSize = Annotated[int | None, whole(AT_ONCE, "--batch-size", help=f"Pictures per network call (16); {Own}.")]
SeedOption = Annotated[int | None, whole(BITS, "--seed", help=f"Of the start's noise (0); {Own}.", least=-BITS[0])]


@loads_a_model
def edit(
    paths: Places,
    chosen: Chosen,
    to: Targets,
    source: From = None,
    guidance: GuidanceOption = 3.0,
    strength: Strength = 1.0,
    mask: MaskOption = None,
    editor: EditorOption = "prompt",
    seeds: Seeds = 1,
    method: MethodOption = None,
    steps: StepsOption = None,
    spacing: SpacingOption = None,
    start: StartOption = None,
    seed: SeedOption = None,
    batch_size: OwnBatchSize = None,
    limit: Limit = None,
    strict: Strict = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Invert pictures as what they are, and sample them as something else; each beside its reconstruction."""
    from ..runs.edit import Edits
    from ..runs.edit_by_attention import check_attention, check_kept
    from ..runs.work import Work, mask_of
    from ..uses.attention import parse_editor
    from ..uses.attention.hooks import unet_of

    named = parse_editor(editor)
    own = {"--source": source, "--method": method, "--steps": steps, "--spacing": spacing, "--seed": seed, "--limit": limit}
    reading = None
    if len(paths) == 1 and is_run(paths[0]):
        given = chosen.of_a_model + [option for option, value in own.items() if value is not None]
        if given or seeds > 1:
            raise ArgumentError(f"a run has its own {', '.join(given) or 'seed'}: leave that out, or give pictures")
        if named:
            check_kept(Path(paths[0]))
        loading = lambda origin, dtype: chosen.loaded(chosen.moved(origin), dtype)  # noqa: E731
        work = Work.of_run(Path(paths[0]), loading, start, states=bool(mask or named) or strength < 1)
        if batch_size is not None:
            work = replace(work, inversion=work.inversion.model_copy(update={"batch_size": batch_size}))
    else:
        model = chosen.load()
        if named:
            unet_of(model)  # refuses models whose attention cannot be edited
        settings = {"method": method, "steps": steps or 50, "spacing": spacing, "seed": seed or 0}
        settings |= {"label": source, "batch_size": 16 if batch_size is None else batch_size}
        work, reading = _pictures(model, paths, limit, strict, start, chosen, **settings)
    recorded = {"to": to, "edit_guidance": guidance, "strength": strength, "seeds": seeds, "editor": editor.strip()}
    recorded["negative"] = None if work.model.distilled else work.inversion.label
    wanted = _targets(to, work, guidance)
    if named:
        check_attention(named, work, wanted, strength)
    area, recorded_mask = mask_of(mask, work.model)
    work = replace(work, settings={**recorded, **work.settings, "mask": recorded_mask})
    with progress_bar(f"editing {counted(len(work.items), 'picture')}") as on_step:
        run = Edits(work, wanted, guidance, strength, area, seeds, named).run(out, on_step)
    _show(run, as_json, reading)


@loads_a_model
def variations(
    paths: Places,
    chosen: Chosen,
    seeds: Seeds = 8,
    start: Annotated[
        str,
        typer.Option(help="Forward start: 2, 10%, sigma=0.3; more differs more.", callback=read_first(check_start)),
    ] = "10%",
    label: Label = None,
    strength: Annotated[
        float | None,
        number(0, 1, "--strength", help="Share of the moves after which to turn around; default: at the forward start."),
    ] = None,
    method: MethodOption = None,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    seed: Annotated[int, whole(BITS, "--seed", help="The first of the draws.", least=-BITS[0])] = 0,
    batch_size: BatchSize = 16,
    limit: Limit = None,
    strict: Strict = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The same pictures from several draws of forward noise, those nearest to the picture first."""
    from ..runs.edit import Varied

    settings: dict[str, Any] = {"method": method, "steps": steps, "spacing": spacing, "seed": seed}
    settings |= {"label": label, "batch_size": batch_size}
    work, reading = _pictures(chosen.load(), paths, limit, strict, start, chosen, **settings)
    work = replace(work, settings={"seeds": seeds, "strength": strength})
    with progress_bar(f"varying {counted(len(work.items), 'picture')}") as on_step:
        run = Varied(work, seeds, strength).run(out, on_step)
    _show(run, as_json, reading)


def _pictures(
    model: Model, places: list[str], limit: int | None, strict: bool, start: str | None, chosen: Chosen, **settings: Any
) -> tuple[Work, Reading]:
    """Pictures to be inverted, and what was left out."""
    from ..runs.settings import InvertSettings
    from ..runs.work import Work

    settings["method"] = settings["method"] or DEFAULT["--method"]
    inversion = InvertSettings.of(model, forward=(start or DEFAULT["--start"],), **chosen.recorded, **settings)
    reading = read_given(places, model.image_size, limit, strict=strict)
    return Work.of_photos(model, inversion, reading.photos), reading


def _targets(to: list[str], work: Work, guidance: float) -> list[str | None]:
    """The conditions of the edits, each of which the model knows."""
    from ..runs.edit import NONE

    if len(set(to)) < len(to):
        raise ArgumentError(f"--to: expected different targets, given {', '.join(to)}")
    wanted = [None if name == NONE else name for name in to]
    for name in wanted if any(wanted) or work.inversion.label is not None else ():
        work.model.denoiser([name], guidance, None if work.model.distilled else [work.inversion.label])
    return wanted


def _show(run: Run, as_json: bool, reading: Reading | None) -> None:
    if reading is not None:
        tell(reading)
        run.reject(reading.rejected)
    if not as_json:
        print_summary(run)
    show_run(run, "overview.png", as_json)
    if reading is not None:
        leave(reading.left_out, len(reading.photos))
