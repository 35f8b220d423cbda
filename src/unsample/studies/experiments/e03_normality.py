"""E3: are latents standard normal and white? Divergence, moments, the Shapiro-Wilk test, quantiles and spectrum.

A latent may have the moments of noise and still not be white, or be white and have the wrong spread in places: no number alone
says that a latent is noise, so all are given beside their value on true noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import (
    Interval,
    Null,
    RadialSpectrum,
    kl_per_coordinate,
    low_frequency_null,
    low_frequency_power,
    normality_rejection,
    nulls,
    pooled_moments,
    quantile_quantile,
    radial_spectrum,
    rejection_null,
    spectrum_sums,
)
from ...diagnostics.null import student_reach
from ...diagnostics.row import Row
from ...runs.html import Table
from .findings import Figure, Findings, Judged, judged, numbers
from .lab import DDIM_LATENT, Lab, Pictures
from .paired import GROUPS, without_each_group
from .verdicts import above, beside_noise, lower, row_of

Values = dict[str, Tensor]
Rows = dict[str, dict[str, Row]]

KL, PER_COORDINATE, REJECTED = "KL to N(0, 1)", "KL by coordinate", "Shapiro-Wilk rejects"
SPECTRUM, LOW = "rms of power - 1", "low-frequency power"
NORMAL_REACH = 1.96
"""Standard deviations that hold 95 % of a normal distribution to either side."""

POOLED = {KL: "kl", "mean": "mean", "std": "std", "excess kurtosis": "kurtosis"}


@dataclass(frozen=True)
class Normality:
    """Noise, DDIM latents and latents of a forward start, against N(0, 1).

    Attributes:
        count: Images of each set.
        steps: N of the grid, up and down.
        repair: Steps of the forward start; the paper replaces 2 of 50.
    """

    count: int
    steps: int
    repair: int

    def run(self, lab: Lab) -> Findings:
        """A table, quantiles and spectra for each set of images."""
        values = {pictures.name: self._values(lab, pictures) for pictures in lab.sets(self.count, self.steps)}
        measured = {name: _measured(parts) for name, parts in values.items()}
        return Findings(
            self._setting(),
            {f"Against N(0, 1), {name}": _table(rows) for name, rows in measured.items()},
            (
                Figure(
                    "quantiles",
                    "Quantiles of all values less those of N(0, 1): 0 is normal, a slope is a spread, a bend is a shape.",
                    plotting.curves(*(_quantile_panel(name, parts) for name, parts in values.items())),
                ),
                Figure(
                    "spectrum",
                    "Mean power at each spatial frequency: 1 is white.",
                    plotting.curves(*(_spectrum_panel(name, parts) for name, parts in values.items())),
                ),
            ),
            tuple(claim for name, rows in measured.items() for claim in judged(name, *self._claims(rows))),
            numbers(measured),
        )

    def _setting(self) -> str:
        return (
            f"{self.count} images inverted by DDIM in {self.steps} steps, with and without the first {self.repair} replaced "
            "by forward diffusion. Divergences in nats, from mean and variance alone: of all values, and the mean over "
            "coordinates of that across images (about 1 / count on noise). Shapiro-Wilk: the share of latents rejected at "
            "level 0.05; it takes a latent's values as independent. Power is that of a spatial frequency, 1 on white noise: "
            "the rms of its departure over radial bins, weighted by their modes, and its mean at wavelengths above 8 pixels. "
            "95 % intervals over images (bootstrap; exact for the test; delete-a-group jackknife by coordinate, for the rms "
            "and for quantiles). True noise is of the same shape and count, with the interval that holds 95 % of draws."
        )

    def _values(self, lab: Lab, pictures: Pictures) -> Values:
        """What is measured, by the name of its column."""
        latents = lab.latents(pictures, self.steps, self.repair, DDIM_LATENT, f"forward start, k = {self.repair}")
        return latents if pictures.noise is None else {**latents, "noise": pictures.noise}

    def _claims(self, measured: Rows) -> list[Judged]:
        usual, repaired, *_ = measured.values()

        def fails(sentence: str, row: str) -> Judged:
            return sentence, beside_noise(row, usual[row]), above(usual[row])

        def change(row: str) -> str:
            return beside_noise(row, usual[row], repaired[row])

        def mends(sentence: str, row: str) -> Judged:
            return sentence, change(row), repaired[row].is_noise

        closer = f"{self.repair} steps of forward diffusion come closer to it."
        return [
            fails("DDIM latents are not standard normal.", KL),
            fails("... nor are their coordinates, across images.", PER_COORDINATE),
            fails("... nor is the shape of their values normal.", REJECTED),
            fails("... nor is their spectrum white.", SPECTRUM),
            (closer, change(KL), lower(repaired[KL], usual[KL])),
            mends("... and cannot be told from it by the divergence of all values,", KL),
            mends("... of their coordinates,", PER_COORDINATE),
            mends("... by the shape of their values,", REJECTED),
            mends("... or by their spectrum.", SPECTRUM),
        ]


def _measured(parts: Values) -> Rows:
    """The rows of each part, beside true noise of the same shape and count."""
    null = nulls(_simulated, next(iter(parts.values())).shape)
    return {name: _rows(x, null) for name, x in parts.items()}


def _simulated(x: Tensor) -> dict[str, float]:
    """The statistics whose null has no closed form."""
    pooled = pooled_moments(x)
    return {name: pooled[key].value for name, key in POOLED.items()} | {
        PER_COORDINATE: float(_kl_by_coordinate(x)),
        SPECTRUM: float(_departure(radial_spectrum(x))),
    }


def _rows(x: Tensor, null: Mapping[str, Null]) -> dict[str, Row]:
    spans = {name: pooled_moments(x)[key].interval() for name, key in POOLED.items()}
    shape = (x.shape[1], x.shape[2], x.shape[3])
    by_coordinate = _interval(*_jackknife(_kl_by_coordinate, x))
    departure = _interval(*_jackknife(lambda rows: _departure(RadialSpectrum(rows, shape)), spectrum_sums(x)))
    return {
        KL: row_of(KL, spans[KL], null[KL], "nats"),
        PER_COORDINATE: row_of(PER_COORDINATE, by_coordinate, null[PER_COORDINATE], "nats"),
        **{name: row_of(name, span, null[name]) for name, span in spans.items() if name != KL},
        REJECTED: row_of(REJECTED, normality_rejection(x), rejection_null(len(x)), "of latents"),
        SPECTRUM: row_of(SPECTRUM, departure, null[SPECTRUM]),
        LOW: row_of(LOW, low_frequency_power(x).interval(), low_frequency_null(x.shape)),
    }


def _interval(value: Tensor, reach: Tensor) -> Interval:
    return Interval(float(value), float(value - reach), float(value + reach))


def _departure(spectrum: RadialSpectrum) -> Tensor:
    """Root of the mean of (power - 1)^2 over the modes of all bins."""
    return ((spectrum.power - 1).square() * spectrum.freedom).sum().div(spectrum.freedom.sum()).sqrt()


def _kl_by_coordinate(x: Tensor) -> Tensor:
    return kl_per_coordinate(x).mean()


def _jackknife(statistic: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A statistic, and half of its 95 % interval by the delete-a-group jackknife (as `top_k_jackknife`).

    A bootstrap repeats images, which makes a divergence across images larger than it is.
    """
    replicates = torch.stack([statistic(x[kept]) for kept in without_each_group(len(x))]).double()
    return statistic(x), student_reach(GROUPS - 1) * ((GROUPS - 1) * replicates.var(0, correction=0)).sqrt()


def _quantile_panel(name: str, parts: Values) -> plotting.Panel:
    def quantiles(x: Tensor) -> Tensor:
        return quantile_quantile(x).values

    first = quantile_quantile(next(iter(parts.values())))
    normal, reach = first.normal, NORMAL_REACH * first.null_std
    lines = [_line("true noise", normal, 0 * normal, -reach, reach)]
    for part, x in parts.items():
        reached, spread = _jackknife(quantiles, x)
        lines.append(_line(part, normal, reached - normal, reached - normal - spread, reached - normal + spread))
    return plotting.Panel(name, lines, "quantile of N(0, 1)", "quantile of the values, less that of N(0, 1)")


def _spectrum_panel(name: str, parts: Values) -> plotting.Panel:
    first = radial_spectrum(next(iter(parts.values())))
    lines = [_line("true noise", first.frequencies, torch.ones_like(first.power), *first.null_interval())]
    for part, x in parts.items():
        spectrum = radial_spectrum(x)
        lines.append(_line(part, spectrum.frequencies, spectrum.power, *spectrum.interval()))
    return plotting.Panel(name, lines, "spatial frequency, cycles per pixel", "power", log="y")


def _line(name: str, x: Tensor, y: Tensor, low: Tensor, high: Tensor) -> plotting.Curve:
    return plotting.Curve(name, x.tolist(), y.tolist(), low.tolist(), high.tolist())


def _table(parts: Rows) -> Table:
    """Statistics as rows, true noise last."""
    names = list(next(iter(parts.values())))
    rows = [(name, *(str(rows[name]) for rows in parts.values()), next(iter(parts.values()))[name].noise) for name in names]
    return Table(("", *parts, "true noise"), tuple(rows))
