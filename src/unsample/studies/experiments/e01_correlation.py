"""E1: the correlation of noise, latents and images, and how it falls with distance (Table 1 and Figure 2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import Row, autocorrelation, patch_row
from ...runs.html import Table
from .findings import Claim, Figure, Findings, bar, judged, numbers, span
from .lab import Lab
from .verdicts import above, beside_noise, lower

REACH = 8
"""The largest distance in the maps of the autocorrelation, in pixels: the side of a patch."""


@dataclass(frozen=True)
class Correlation:
    """Top-20 r of noise, DDIM latents and images.

    Attributes:
        count: Images of each set.
        steps: N of the grid, up and down.
    """

    count: int
    steps: int

    def run(self, lab: Lab) -> Findings:
        """One row of r per set of images, and maps of the autocorrelation."""
        measured: dict[str, dict[str, Row]] = {}
        maps: dict[str, Tensor] = {}
        claims: list[Claim] = []
        for pictures in lab.sets(self.count, self.steps):
            name, latent = pictures.name, lab.inverted(pictures, steps=self.steps).latent
            white = {"latent": latent} if pictures.noise is None else {"noise": pictures.noise, "latent": latent}
            measured[name] = {part: patch_row(x) for part, x in {**white, "image": pictures.pixels}.items()}
            maps |= {f"{part}, {name}": autocorrelation(x, REACH).value for part, x in white.items()}
            r, image = measured[name]["latent"], measured[name]["image"]
            claims += judged(
                name,
                ("DDIM latents are correlated.", beside_noise("top-20 r", r), above(r)),
                ("... but less than images.", f"latents {r}, images {image}", lower(r, image)),
            )
        bars = {images: {name: bar(row) for name, row in rows.items()} for images, rows in measured.items()}
        rows = [(images, name, str(row), row.noise) for images, rows in measured.items() for name, row in rows.items()]
        return Findings(
            f"{self.count} images inverted by DDIM in {self.steps} steps. The mean of the 20 largest |Pearson r| across "
            "images in each 8 x 8 patch, with a 95 % jackknife interval; true noise is at the same number of images.",
            {"Top-20 patch correlation": Table(("images", "of", "top-20 r", "true noise"), tuple(rows))},
            (
                Figure(
                    "top20",
                    "Top-20 patch correlation; the grey band is true noise at this number of images.",
                    plotting.bars(bars, "top-20 r", span(next(iter(measured.values()))["latent"])),
                ),
                Figure(
                    "autocorrelation",
                    "Correlation of values at a distance, pooled over images and channels; the centre is 1.",
                    plotting.heatmaps(
                        {name: _without_centre(value) for name, value in maps.items()},
                        "pixels across",
                        "pixels down",
                        extent=(-REACH - 0.5, REACH + 0.5, -REACH - 0.5, REACH + 0.5),
                        around=0.0,
                    ),
                ),
            ),
            tuple(claims),
            numbers(measured),
        )


def _without_centre(value: Tensor) -> Tensor:
    """The map without the 1 in its middle, which would hide the rest."""
    hidden = value.clone()
    hidden[hidden.shape[0] // 2, hidden.shape[1] // 2] = torch.nan
    return hidden
