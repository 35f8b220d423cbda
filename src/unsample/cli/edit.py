"""The commands that make other pictures of photographs: `edit` and `variations`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError
from ..runs.progress import counted, progress_bar
from .model_options import Chosen, loads_a_model
from .options import DEFAULT, AsJson, BatchSize, Label, Limit, Out, SpacingOption, Strict
from .photos import leave, read_given, record_rejected
from .show import show_run

if TYPE_CHECKING:
    from ..core.model import Model
    from ..pictures.read import Reading
    from ..runs.directory import Run
    from ..runs.work import Work

__all__ = ["edit", "variations"]

Own = "of a run: its own"

Places = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="Pictures, folders, globs; or one run of `unsample invert`.")
]
Targets = Annotated[
    list[str], typer.Option("--to", help="Class or prompt to edit towards; may be given again; `none` is no one.")
]
From = Annotated[str | None, typer.Option("--from", help=f"Class or prompt of the pictures as they are; {Own}.")]
GuidanceOption = Annotated[float, typer.Option(help="w in eps_from + w (eps_to - eps_from) on the way down.")]
Strength = Annotated[float, typer.Option(help="Share of the moves that is walked, 0 to 1; less stays closer to the picture.")]
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
    ),
]
Seeds = Annotated[
    int,
    typer.Option(min=1, help="Draws of the start's noise, a way for each; the sheet has the nearest to the picture first."),
]
MethodOption = Annotated[str | None, typer.Option("--method", help=f"As for `unsample invert`; {Own}.")]
StepsOption = Annotated[int | None, typer.Option("--steps", help=f"Moves from one end of the grid to the other (50); {Own}.")]
Forward = Annotated[str | None, typer.Option("--forward", help="Forward start (4%); of a run: which of its starts.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help=f"Of the start's noise (0); {Own}.")]


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
    forward: Forward = None,
    seed: SeedOption = None,
    batch_size: BatchSize = 16,
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
    own = {"--from": source, "--method": method, "--steps": steps, "--spacing": spacing, "--seed": seed, "--limit": limit}
    reading = None
    if len(paths) == 1 and os.path.isfile(Path(paths[0]) / "manifest.json"):
        given = [option for option, value in own.items() if value is not None]
        if given or seeds > 1:
            raise ArgumentError(f"a run has its own {', '.join(given) or 'seed'}: leave that out, or give pictures")
        if named:
            check_kept(Path(paths[0]))
        loading = lambda origin, dtype: replace(chosen, dtype=dtype).loaded(origin)  # noqa: E731
        work = Work.of_run(Path(paths[0]), loading, forward, states=bool(mask or named) or strength < 1)
    else:
        model = chosen.load()
        if named:
            unet_of(model)  # refuses models whose attention cannot be edited
        settings = {"method": method, "steps": steps or 50, "spacing": spacing, "seed": seed or 0}
        settings |= {"label": source, "batch_size": batch_size}
        work, reading = _pictures(model, paths, limit, strict, forward, chosen, **settings)
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
    forward: Annotated[str, typer.Option("--forward", help="Forward start: 2, 10%, sigma=0.3; more differs more.")] = "10%",
    label: Label = None,
    strength: Annotated[
        float | None, typer.Option(help="Share of the moves after which to turn around; default: at the forward start.")
    ] = None,
    method: MethodOption = None,
    steps: Annotated[int, typer.Option(help="Moves from one end of the grid to the other.")] = 50,
    spacing: SpacingOption = None,
    seed: Annotated[int, typer.Option(help="The first of the draws.")] = 0,
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
    work, reading = _pictures(chosen.load(), paths, limit, strict, forward, chosen, **settings)
    work = replace(work, settings={"seeds": seeds, "strength": strength})
    with progress_bar(f"varying {counted(len(work.items), 'picture')}") as on_step:
        run = Varied(work, seeds, strength).run(out, on_step)
    _show(run, as_json, reading)


def _pictures(
    model: Model, places: list[str], limit: int | None, strict: bool, forward: str | None, chosen: Chosen, **settings: Any
) -> tuple[Work, Reading]:
    """Pictures to be inverted, and what was left out."""
    from ..runs.settings import InvertSettings
    from ..runs.work import Work

    settings["method"] = settings["method"] or DEFAULT["--method"]
    inversion = InvertSettings.of(model, forward=(forward or DEFAULT["--forward"],), **chosen.recorded, **settings)
    reading = read_given(places, model.image_size, limit, strict=strict)
    return Work.of_photos(model, inversion, reading.photos), reading


def _targets(to: list[str], work: Work, guidance: float) -> list[str | None]:
    """The conditions of the edits, each of which the model knows."""
    from ..runs.edit import NONE

    if len(set(to)) < len(to):
        raise ArgumentError(f"--to: expected different targets, given {', '.join(to)}")
    wanted = [None if name == NONE else name for name in to]
    for name in wanted:
        work.model.denoiser([name], guidance, None if work.model.distilled else [work.inversion.label])
    return wanted


def _show(run: Run, as_json: bool, reading: Reading | None) -> None:
    if reading is not None:
        record_rejected(run, reading)
    spent: Any = run.manifest.results["nfe"]
    if not as_json:
        print("network evaluations per picture: " + ", ".join(f"{name} {count}" for name, count in spent.items()))
    show_run(run, "overview.png", as_json)
    if reading is not None:
        leave(reading)
