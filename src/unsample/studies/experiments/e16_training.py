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
from ...diagnostics.row import PATCH_ROW, format_number
from ...errors import ArgumentError
from ...runs.html import Table
from ...uses.invert import BEYOND_PIXELS
from .aligned import above_chance, settled
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
    Told,
    classifier_for,
    measure,
    stage_of,
)
from .findings import Claim, Figure, Findings, above, below, curve
from .lab import GENERATED, Lab
from .paired import exceeds, signed

__all__ = ["Training"]

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
        told: dict[int, Told] = {}
        for step, file in files.items():
            stage = last if step == end else stage_of(lab, file, self.count, self.steps)
            told[step] = measure(lab, stage, last, judge, self.coarse, self.division)
        return Findings(
            f"{len(told)} checkpoints up to step {end}; {self.count} images each, sampled by DDIM in {self.steps} steps from "
            f"the same noise and inverted on the same grid ({self.steps} evaluations each way). Alignment is with the last "
            "checkpoint; in brackets chance, where pairs are broken up, or true noise. SVCCA is of maps averaged to "
            f"{self.coarse} x {self.coarse}; the cosine is of {judge.name if judge else 'pixels'}. A checkpoint whose "
            f"generations exceed {BEYOND_PIXELS:g} is not inverted. 95 % intervals over images: jackknife (CKA, SVCCA, r, "
            "Frechet), Wilson's (shares), bootstrap (the rest).",
            {
                "Generations and the last checkpoint's": _table(told, IMAGES),
                "Latents and the last checkpoint's": _table(told, LATENTS),
                "Noise, latent and image": _table(told, (*ANGLES, *FOUND)),
                "Whiteness of the latents": _table(told, WHITENESS),
            },
            _figures(told),
            tuple(_claims(told)),
            {f"step={step}": {name: row.to_dict() for name, row in one.rows.items()} for step, one in told.items()},
        )


def _table(told: Mapping[int, Told], names: Sequence[str]) -> Table:
    """By step, chance or true noise in brackets; the last checkpoint where it has a value."""

    def cell(row: Row | None) -> str:
        if row is None:
            return ""
        return str(row) if row.null is None else f"{row} ({format_number(row.null.mean)})"

    kept = [name for name in names if any(name in one.rows for one in told.values())]
    rows = [(str(step), *(cell(one.rows.get(name)) for name in kept)) for step, one in told.items()]
    return Table(("step", *kept), tuple(row for row in rows if any(row[1:])))


def _figures(told: Mapping[int, Told]) -> tuple[Figure, ...]:
    picked = sorted({list(told)[round(i * (len(told) - 1) / (ROWS - 1))] for i in range(ROWS)})
    rows = [plotting.Row(f"step {step}", told[step].shown) for step in picked]
    panels = [
        _panel(told, "correlation of the latents", "top-20 r", [PATCH_ROW], noise=True),
        _panel(told, "variance of the latents", "std", ["std plain", "std other"], noise=True),
    ]
    panels += [_panel(told, "distance to photographs", "Frechet distance", [FRECHET])] if _any(told, FRECHET) else []
    return (
        Figure("generations", "The same noise through checkpoints; the last row is the last one's.", plotting.pictures(rows)),
        Figure(
            "settling",
            "Alignment with the last checkpoint, as the share of the way from chance (0) to equality (1); and PSNR.",
            plotting.curves(
                _alignment(told, "generations", [name for name in IMAGES if name != "PSNR, dB"]),
                _alignment(told, "latents", LATENTS),
                _beside_chance(told, "generations", "PSNR, dB", ["PSNR, dB"]),
            ),
        ),
        Figure(
            "geometry",
            "Angles of image, noise and latent, and how often noise and image find each other by distance alone.",
            plotting.curves(
                _panel(told, "triangle", "mean angle, degrees", ANGLES),
                _beside_chance(told, "assignment", "share of pairs found", FOUND),
            ),
        ),
        Figure("whiteness", "Latents of each checkpoint's own samples.", plotting.curves(*panels)),
    )


def _any(told: Mapping[int, Told], name: str) -> bool:
    return any(name in one.rows and not math.isnan(one.rows[name].value) for one in told.values())


def _panel(told: Mapping[int, Told], title: str, up: str, names: Sequence[str], noise: bool = False) -> plotting.Panel:
    """Rows over training; with true noise's interval at the last checkpoint."""
    known = [told[max(told)].rows[name].null for name in names] if noise else []
    ends = [end for null in known if null for end in (null.low, null.high)]
    span = (min(ends), max(ends)) if ends else None
    return plotting.Panel(title, _curves(told, names), "training step", up, span, log="x")


def _alignment(told: Mapping[int, Told], title: str, names: Sequence[str]) -> plotting.Panel:
    return plotting.Panel(title, _curves(told, names, above_chance), "training step", "alignment above chance", log="x")


def _beside_chance(told: Mapping[int, Told], title: str, up: str, names: Sequence[str]) -> plotting.Panel:
    """Rows over training, and the chance of the first of them."""
    chance = {step: one.rows[names[0]].null for step, one in told.items() if names[0] in one.rows}
    known = {step: null.mean for step, null in chance.items() if null}
    curves = [*_curves(told, names), plotting.Curve("chance", list(known), list(known.values()))]
    return plotting.Panel(title, curves, "training step", up, log="x")


def _curves(
    told: Mapping[int, Told], names: Sequence[str], shown: Callable[[Row], Row] = lambda row: row
) -> list[plotting.Curve]:
    lines = []
    for name in (name for name in names if _any(told, name)):
        rows = {step: one.rows[name] for step, one in told.items() if name in one.rows}
        lines.append(curve(name.partition(",")[0], list(rows), [shown(row) for row in rows.values()]))
    return lines


def _claims(told: Mapping[int, Told]) -> list[Claim]:
    last = max(told)
    early, late = (min((step for step in told if step < last), key=lambda step: abs(step / last - at)) for at in (EARLY, LATE))
    r, std = told[last].rows[PATCH_ROW], told[last].rows["std plain"]
    return [
        *(_settles(told, what, early, late) for what in (IMAGE, LATENT)),
        _turns(told, early),
        Claim(
            "Training does not whiten latents: the last checkpoint's are correlated.",
            f"top-20 r {r}; noise {r.noise}",
            above(r),
            GENERATED,
        ),
        Claim("... and have too little noise in plain areas.", f"std {std}; noise {std.noise}", below(std), GENERATED),
    ]


def _settles(told: Mapping[int, Told], what: str, early: int, late: int) -> Claim:
    last = max(told)
    times = f"at {100 * EARLY:.0f} % of training over {100 * SETTLED:.0f} % of the alignment at {100 * LATE:.0f} %"
    sentence = f"{what.capitalize()} settle early ({times})."
    name = f"CKA, {what}"
    first, second = (told[step].rows.get(name) for step in (early, late))
    if early == late or first is None or second is None or first.null is None or second.null is None:
        return Claim(sentence, f"no {what} of checkpoints near both times", None, GENERATED)
    found = settled((told[early].cka[what], first.null), (told[late].cka[what], second.null))
    numbers = (
        f"CKA with the last checkpoint ({last} steps): {first} at step {early}, {second} at step {late}, by chance "
        f"{first.noise} and {second.noise}; ratio above chance {found}"
    )
    return Claim(sentence, numbers, exceeds(found, SETTLED), GENERATED)


def _turns(told: Mapping[int, Told], early: int) -> Claim:
    last, name = max(told), ANGLES[2]
    turn = f"it changes by less than {TURN:g} degrees after {100 * EARLY:.0f} % of training"
    sentence = f"The angle at the latent settles early ({turn})."
    then, now = told[early].angle, told[last].angle
    if then is None or now is None:
        return Claim(sentence, f"no latents at step {early}", None, GENERATED)
    change = bootstrap(now - then)
    beyond = change.low > TURN or change.high < -TURN
    within = change.low > -TURN and change.high < TURN
    return Claim(
        sentence,
        f"{told[early].rows[name]} at step {early}, {told[last].rows[name]} at step {last}; paired change {signed(change)}",
        True if within else False if beyond else None,
        GENERATED,
    )
