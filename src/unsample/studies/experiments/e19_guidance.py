"""E19: what classifier-free guidance does to reconstruction, and what repairs it (ours).

Images are inverted under their own class, and sampled back under it with guidance w. Without guidance that is a
reconstruction. With it the path is another, unless the inversion was guided too, or guidance has nothing to move away from
(negative-prompt inversion), or the unconditional embedding is fitted to the path (null-text).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ... import pictures as plotting
from ...core.model import Condition
from ...core.starts import ForwardNoise
from ...core.trajectory import Keep, Trajectory
from ...diagnostics import Diagnosis, Interval, area_sums, bootstrap, diagnose, plain_area
from ...diagnostics.row import format_number as number
from ...errors import ArgumentError
from ...methods.look_ahead import LookAhead
from ...pictures import Column
from ...runs.html import Table
from ...uses.null_text import null_text
from ...uses.sample import sample
from .findings import Figure, Findings, Judged, bar, columns, judged, numbers, table_of
from .lab import Lab, Pictures, labelled
from .paired import PSNR_CAP, bootstrapped, capped_psnr, gap_closed
from .verdicts import both, exceeds, falls_short, percent, row_of, signed, within

METHOD, START = LookAhead(), ForwardNoise(steps=1)

COLUMNS = columns("top-20 r", "std plain", "std other", "lag-1 plain")

CLOSE, EQUAL, EQUALLY = 1.0, 0.1, 0.02
"""The loss in dB that we call mended, the difference in dB and in standard deviation that we call none."""

PUBLISHED, SHOWN = 0.01, 8
"""The rate of null-text; how many images the figure shows."""


@dataclass(frozen=True)
class Guidance:
    """Guided sampling back from unguided and guided inversions.

    Attributes:
        count: Images.
        steps: N of the grid, up and down.
        guidance: w in eps_u + w (eps_c - eps_u).
        rates: Of Adam, each a null-text optimisation; the published one is 0.01.
    """

    count: int
    steps: int
    guidance: float
    rates: tuple[float, ...]

    def run(self, lab: Lab) -> Findings:
        """A row and a reconstruction for each way of sampling back.

        Raises:
            ArgumentError: A model without classes, or labels that are not among them.
        """
        pictures, labels = labelled(lab, self.count, self.steps)
        returns = _Returns(lab, pictures, labels, self.steps, self.guidance, self.rates)
        diagnoses = {f"w = {w:g}": diagnose(returns.latent(w), images=pictures.shown) for w in (1.0, self.guidance)}
        return Findings(
            self._setting(pictures, bool(returns.rates)),
            {"The way back": _table(returns), "Latents": table_of(diagnoses, COLUMNS, "inverted with guidance")},
            (
                Figure("psnr", "What each way back returns.", _chart(returns)),
                Figure(
                    "pictures", "Images, and what each way returns.", plotting.picture_rows(_rows(returns)), bool(lab.data)
                ),
            ),
            judged(pictures.name, *_claims(returns)),
            _metrics(returns, diagnoses),
        )

    def _setting(self, pictures: Pictures, fits: bool) -> str:
        whose = "images sampled under classes spread over the model's (no photographs with labels were given)"
        whose = "photographs with their own classes" if pictures.noise is None else whose
        return (
            f"{len(pictures)} {whose}, N = {self.steps}, guidance w = {self.guidance:g}; inverted by look-ahead from one "
            "forward step, without guidance unless said, and sampled back by DDIM. Guidance costs two evaluations a move, up "
            "as down; fitting takes backward passes besides. PSNR of images in [-1, 1], mean over images with a bootstrap "
            f"interval of 95 %, at most {PSNR_CAP:g} dB an image."
            + " This model has no embedding of a class to fit: no null-text."
            * (not fits)
        )


@dataclass(frozen=True, eq=False)
class _Returns:
    """What each way of sampling back returns, computed once for each batch."""

    lab: Lab
    pictures: Pictures
    labels: Sequence[Condition]
    steps: int
    guidance: float
    wanted_rates: tuple[float, ...]

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """Of null-text; none if the model has no embedding to fit."""
        try:
            self.lab.model.embed([None])
        except ArgumentError:
            return ()
        return self.wanted_rates

    @cached_property
    def back(self) -> dict[str, dict[str, Tensor]]:
        """Title -> `images`, evaluations per image `down`, and to `fit`."""
        w = f"guidance {self.guidance:g}"
        return {
            "no guidance": self._sampled("plain", 1.0),
            w: self._sampled("guided", self.guidance),
            f"{w}, the inversion too": self._sampled("guided both ways", self.guidance, self.guidance),
            f"{w}, away from the class itself (negative-prompt)": self._sampled("negative", self.guidance, negative=True),
            **{_fitted(w, rate): self._fit(rate) for rate in self.rates},
        }

    @cached_property
    def psnr(self) -> dict[str, Tensor]:
        """Title -> PSNR of each image."""
        images = self.pictures.shown
        return {title: capped_psnr(images, back["images"].clamp(-1, 1)) for title, back in self.back.items()}

    @property
    def std_change(self) -> Interval:
        """Of the deviation in plain areas, by guidance on the way up."""
        plain = plain_area(self.pictures.shown, self.latent(1.0))
        stds = [area_sums(self.latent(w), plain).pooled("std") for w in (self.guidance, 1.0)]
        return bootstrapped(stds, lambda guided, free: guided - free)

    def latent(self, w: float) -> Tensor:
        """Of an inversion with guidance w."""

        def compute(rows: slice) -> dict[str, Tensor]:
            return {"latent": self._there(rows, w).latent}

        return self._streamed("inversion under classes", compute, up=w)["latent"]

    def _sampled(self, what: str, w: float, up: float = 1.0, negative: bool = False) -> dict[str, Tensor]:
        latent = self.latent(up)

        def compute(rows: slice) -> dict[str, Tensor]:
            return self._down(latent[rows], rows, w, self.labels[rows] if negative else None)

        return self._streamed(f"way back, {what}", compute, up=up, down=w, negative=negative)

    def _fit(self, rate: float) -> dict[str, Tensor]:
        model, grid = self.lab.model, self.lab.model.grid(self.steps)

        def compute(rows: slice) -> dict[str, Tensor]:
            there = self._there(rows, 1.0, Keep("states"))
            known: dict[str, Any] = {"condition": self.labels[rows], "guidance": self.guidance, "rate": rate, "grid": grid}
            fitted = null_text(model, self.pictures.pixels[rows], there, **known)
            return self._down(there.latent, rows, self.guidance, fitted.embeddings, fitted.nfe)

        return self._streamed("way back, null-text", compute, down=self.guidance, rate=rate)

    def _there(self, rows: slice, w: float, keep: Keep = Keep()) -> Trajectory:
        known: dict[str, Any] = {"method": METHOD, "start": START, "condition": self.labels[rows], "guidance": w}
        return self.lab.trajectory(self.pictures, rows, keep=keep, grid=self.lab.model.grid(self.steps), **known)

    def _down(self, latent: Tensor, rows: slice, w: float, negative: Any, fit: int = 0) -> dict[str, Tensor]:
        grid = self.lab.model.grid(self.steps)
        back = sample(self.lab.model, latent, grid=grid, condition=self.labels[rows], guidance=w, negative=negative)
        nfe = {"down": back.nfe, "fit": fit}
        spent = {name: torch.full((len(latent),), count, device="cpu") for name, count in nfe.items()}
        return {"images": back.images, **spent}

    def _streamed(self, what: str, compute: Any, **settings: Any) -> dict[str, Tensor]:
        known = {"steps": self.steps, "labels": list(self.labels), "method": str(METHOD), "start": str(START)}
        return self.lab.streamed(what, self.pictures, compute, **known, **settings)


def _fitted(w: str, rate: float) -> str:
    return f"{w}, null-text, rate {rate:g}{' (published)' * (rate == PUBLISHED)}"


def _table(returns: _Returns) -> Table:
    rows = []
    for title, back in returns.back.items():
        values = returns.psnr[title]
        spent = (str(int(back[name].max())) for name in ("down", "fit"))
        rows.append((title, str(row_of("PSNR", bootstrap(values))), number(float(values.min())), *spent))
    return Table(("sampled back with", "PSNR, dB: mean", "worst image", "NFE down", "NFE to fit"), tuple(rows))


def _chart(returns: _Returns) -> plotting.Drawing:
    rows = {title: {"PSNR": bar(bootstrap(values))} for title, values in returns.psnr.items()}
    return plotting.forest([Column("PSNR of the way back, dB", rows)])


def _rows(returns: _Returns) -> list[plotting.PictureRow]:
    shown = {"image": returns.pictures.shown, **{title: back["images"].clamp(-1, 1) for title, back in returns.back.items()}}
    return [plotting.PictureRow(title, images[:SHOWN]) for title, images in shown.items()]


def _claims(returns: _Returns) -> list[Judged]:
    """Paired over images."""
    none, guided, too, away, *fitted = returns.psnr
    lost, mended, same = (_change(returns, ours, theirs) for ours, theirs in ((guided, none), (too, none), (away, none)))
    white = returns.std_change
    claims: list[Judged] = [
        ("Guidance spoils the way back.", f"paired change of PSNR {signed(lost, ' dB')}", falls_short(lost, 0)),
        (
            f"Inverting with the same guidance mends it (to {CLOSE:g} dB; the bound is ours).",
            f"{signed(mended, ' dB')} against no guidance",
            exceeds(mended, -CLOSE),
        ),
        (
            f"... and leaves plain areas as white (to {EQUALLY:g} in standard deviation; the bound is ours).",
            f"paired change of std plain by guidance on the way up {signed(white)}",
            within(white, -EQUALLY, EQUALLY),
        ),
        (
            f"Moving away from the class itself mends it for any inversion (to {EQUAL:g} dB): guidance then cancels.",
            f"{signed(same, ' dB')} against no guidance",
            within(same, -EQUAL, EQUAL),
        ),
    ]
    for title in fitted:
        rate, gain, rest = title.rpartition(", ")[2], _change(returns, title, guided), _change(returns, too, title)
        share = (
            f", {percent(gap_closed(*(returns.psnr[each] for each in (title, guided, none))))} of the loss"
            if lost.high < 0
            else ""
        )
        claims.append(
            (
                f"Fitting the unconditional embedding ({rate}) brings some of it back, and less than inverting with guidance.",
                f"{signed(gain, ' dB')}{share}; inverting with guidance {signed(rest, ' dB')} more",
                both(exceeds(gain, 0), exceeds(rest, 0)),
            )
        )
    return claims


def _change(returns: _Returns, ours: str, theirs: str) -> Interval:
    return bootstrap(returns.psnr[ours] - returns.psnr[theirs])


def _metrics(returns: _Returns, diagnoses: Mapping[str, Diagnosis]) -> dict[str, Any]:
    spent = {title: {name: int(back[name].max()) for name in ("down", "fit")} for title, back in returns.back.items()}
    return {
        "ways": {title: {"psnr": values.tolist(), "nfe": spent[title]} for title, values in returns.psnr.items()},
        "latents": numbers(diagnoses),
    }
