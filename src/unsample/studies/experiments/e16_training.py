"""E16: what training changes: generations and latents of checkpoints from the same noise, beside those of the last one.

Each checkpoint samples from the noise of all others and inverts its own samples. An alignment is read beside chance, its value
where pairs are broken up, because CKA of more values than images is near 1 for anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ... import pictures as plotting
from ...diagnostics import Row, bootstrap
from ...diagnostics._checks import IMAGE_LIMIT
from ...diagnostics.row import PATCH_ROW, format_number
from ...errors import ArgumentError
from ...runs.html import Table
from .checkpoints import find_checkpoints
from .e16_checkpoint import (
    ANGLES,
    FOUND,
    FRECHET,
    IMAGE,
    IMAGES,
    LATENT,
    LATENTS,
    WHITENESS,
    Measured,
    classifier_for,
    measure,
    stage_of,
)
from .findings import Figure, Findings, Judged, curve, judged, numbers, span
from .lab import GENERATED, Lab
from .paired import above_chance, alignment_ratio
from .verdicts import above, below, beside_noise, exceeds, signed, within

EARLY, LATE, SETTLED = 0.2, 0.8, 0.9
"""Settled early: at 20 % of training, alignment with the last checkpoint is above 90 % of that at 80 %; bounds of ours."""

TURN = 5.0
"""Degrees within which we call an angle unchanged."""

ROWS = 6
"""Checkpoints in the figure of images."""


@dataclass(frozen=True)
class Training:
    """Checkpoints of one training beside the last.

    Attributes:
        count: Images per checkpoint, from the same noise.
        steps: N of the grid, up and down.
        coarse: Side of the averaged maps that SVCCA compares: it needs more images than twice their values.
        division: Items to choose from in the assignment.
    """

    count: int
    steps: int
    coarse: int
    division: int

    def run(self, lab: Lab) -> Findings:
        """Tables and curves over training steps, and pictures.

        Raises:
            ArgumentError: No folder of checkpoints, fewer than two in it, or a last one that samples no images.
            ModelError: Checkpoints that are damaged, or of another network.
        """
        if lab.checkpoints is None:
            raise ArgumentError("no checkpoints: give --checkpoints FOLDER, made by training/train.py (its snapshots/)")
        files = find_checkpoints(lab.checkpoints)
        if len(files) < 2:
            raise ArgumentError(f"E16 compares checkpoints: expected two or more, given {len(files)} in {lab.checkpoints}")
        judge, end = classifier_for(lab), max(files)
        last = stage_of(lab, files[end], self.count, self.steps)
        if last.inverted is None:
            raise ArgumentError(f"the generations of {files[end]} cannot be inverted: train on, or raise steps")
        stages: dict[int, Measured] = {}
        for step, file in files.items():
            stage = last if step == end else stage_of(lab, file, self.count, self.steps)
            stages[step] = measure(lab, stage, last, judge, self.coarse, self.division)
        return Findings(
            f"{len(stages)} checkpoints up to step {end}; {self.count} images each, sampled by DDIM in {self.steps} steps "
            f"from the same noise and inverted on the same grid ({self.steps} evaluations each way). Alignment is with the "
            "last checkpoint; in brackets chance, where pairs are broken up, or true noise. SVCCA is of maps averaged to "
            f"{self.coarse} x {self.coarse}; the cosine is of {judge.name if judge else 'pixels'}. A checkpoint whose "
            f"generations exceed {IMAGE_LIMIT:g} is not inverted. 95 % intervals over images: jackknife (CKA, SVCCA, r, "
            "Frechet), Wilson's (shares), bootstrap (the rest).",
            {
                "Generations and the last checkpoint's": _table(stages, IMAGES),
                "Latents and the last checkpoint's": _table(stages, LATENTS),
                "Noise, latent and image": _table(stages, (*ANGLES, *FOUND)),
                "Whiteness of the latents": _table(stages, WHITENESS),
            },
            _figures(stages),
            judged(GENERATED, *_claims(stages)),
            {f"step={step}": numbers(one.rows) for step, one in stages.items()},
        )


def _table(measured: Mapping[int, Measured], names: Sequence[str]) -> Table:
    """By step, chance or true noise in brackets; the last checkpoint where it has a value."""

    def cell(row: Row | None) -> str:
        if row is None:
            return ""
        return str(row) if row.null is None else f"{row} ({format_number(row.null.mean)})"

    kept = [name for name in names if any(name in one.rows for one in measured.values())]
    rows = [(str(step), *(cell(one.rows.get(name)) for name in kept)) for step, one in measured.items()]
    return Table(("step", *kept), tuple(row for row in rows if any(row[1:])))


def _figures(measured: Mapping[int, Measured]) -> tuple[Figure, ...]:
    picked = sorted({list(measured)[round(i * (len(measured) - 1) / (ROWS - 1))] for i in range(ROWS)})
    rows = [plotting.PictureRow(f"step {step}", measured[step].shown) for step in picked]
    panels = [
        _panel(measured, "correlation of the latents", "top-20 r", [PATCH_ROW], noise=True),
        _panel(measured, "variance of the latents", "std", ["std plain", "std other"], noise=True),
    ]
    panels += [_panel(measured, "distance to photographs", "Frechet distance", [FRECHET])] if _any(measured, FRECHET) else []
    return (
        Figure(
            "generations", "The same noise through checkpoints; the last row is the last one's.", plotting.picture_rows(rows)
        ),
        Figure(
            "settling",
            "Alignment with the last checkpoint, as the share of the way from chance (0) to equality (1); and PSNR.",
            plotting.curves(
                _alignment(measured, "generations", [name for name in IMAGES if name != "PSNR, dB"]),
                _alignment(measured, "latents", LATENTS),
                _beside_chance(measured, "generations", "PSNR, dB", ["PSNR, dB"]),
            ),
        ),
        Figure(
            "geometry",
            "Angles of image, noise and latent, and how often noise and image find each other by distance alone.",
            plotting.curves(
                _panel(measured, "triangle", "mean angle, degrees", ANGLES),
                _beside_chance(measured, "assignment", "share of pairs found", FOUND),
            ),
        ),
        Figure("whiteness", "Latents of each checkpoint's own samples.", plotting.curves(*panels)),
    )


def _any(measured: Mapping[int, Measured], name: str) -> bool:
    return any(name in one.rows and not math.isnan(one.rows[name].value) for one in measured.values())


def _panel(measured: Mapping[int, Measured], title: str, up: str, names: Sequence[str], noise: bool = False) -> plotting.Panel:
    """Rows over training; with true noise's interval at the last checkpoint."""
    known = [span(measured[max(measured)].rows[name]) for name in names] if noise else []
    ends = [end for each in known if each for end in each]
    shaded = (min(ends), max(ends)) if ends else None
    return plotting.Panel(title, _curves(measured, names), "training step", up, shaded, log="x")


def _alignment(measured: Mapping[int, Measured], title: str, names: Sequence[str]) -> plotting.Panel:
    return plotting.Panel(title, _curves(measured, names, above_chance), "training step", "alignment above chance", log="x")


def _beside_chance(measured: Mapping[int, Measured], title: str, up: str, names: Sequence[str]) -> plotting.Panel:
    """Rows over training, and the chance of the first of them."""
    chance = {step: one.rows[names[0]].null for step, one in measured.items() if names[0] in one.rows}
    known = {step: null.mean for step, null in chance.items() if null}
    curves = [*_curves(measured, names), plotting.Curve("chance", list(known), list(known.values()))]
    return plotting.Panel(title, curves, "training step", up, log="x")


def _curves(
    measured: Mapping[int, Measured], names: Sequence[str], shown: Callable[[Row], Row] = lambda row: row
) -> list[plotting.Curve]:
    lines = []
    for name in (name for name in names if _any(measured, name)):
        rows = {step: one.rows[name] for step, one in measured.items() if name in one.rows}
        lines.append(curve(name.partition(",")[0], list(rows), [shown(row) for row in rows.values()]))
    return lines


def _claims(measured: Mapping[int, Measured]) -> list[Judged]:
    last = max(measured)
    early, late = (
        min((step for step in measured if step < last), key=lambda step: abs(step / last - at)) for at in (EARLY, LATE)
    )
    r, std = measured[last].rows[PATCH_ROW], measured[last].rows["std plain"]
    return [
        *(_settles(measured, what, early, late) for what in (IMAGE, LATENT)),
        _turns(measured, early),
        (
            "Training does not whiten latents: the last checkpoint's are correlated.",
            beside_noise("top-20 r", r),
            above(r),
        ),
        ("... and have too little noise in plain areas.", beside_noise("std", std), below(std)),
    ]


def _settles(measured: Mapping[int, Measured], what: str, early: int, late: int) -> Judged:
    last = max(measured)
    times = f"at {100 * EARLY:.0f} % of training over {100 * SETTLED:.0f} % of the alignment at {100 * LATE:.0f} %"
    sentence = f"{what.capitalize()} settle early ({times})."
    name = f"CKA, {what}"
    first, second = (measured[step].rows.get(name) for step in (early, late))
    if early == late or first is None or second is None or first.null is None or second.null is None:
        return sentence, f"no {what} of checkpoints near both times", None
    ratio = alignment_ratio((measured[early].cka[what], first.null), (measured[late].cka[what], second.null))
    numbers = (
        f"CKA with the last checkpoint ({last} steps): {first} at step {early}, {second} at step {late}, by chance "
        f"{first.noise} and {second.noise}; ratio above chance {ratio}"
    )
    return sentence, numbers, exceeds(ratio, SETTLED)


def _turns(measured: Mapping[int, Measured], early: int) -> Judged:
    last, name = max(measured), ANGLES[2]
    turn = f"it changes by less than {TURN:g} degrees after {100 * EARLY:.0f} % of training"
    sentence = f"The angle at the latent settles early ({turn})."
    then, now = measured[early].angle, measured[last].angle
    if then is None or now is None:
        return sentence, f"no latents at step {early}", None
    change = bootstrap(now - then)
    numbers = f"{measured[early].rows[name]} at step {early}, {measured[last].rows[name]} at step {last}"
    return sentence, f"{numbers}; paired change {signed(change)}", within(change, -TURN, TURN)
