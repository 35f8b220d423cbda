"""E1: the correlation of noise, latents and images, and how it falls with distance (Table 1 and Figure 2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import Row, autocorrelation, patch_row
from ...runs.html import Table
from .findings import Claim, Figure, Findings, above, bar
from .lab import Lab, Pictures

__all__ = ["Correlation"]

REACH = 8


@dataclass(frozen=True)
class Correlation:
    """Top-20 r of noise, DDIM latents and images."""

    count: int
    steps: int

    def run(self, lab: Lab) -> Findings:
        """One row of r per set of images, and maps of the autocorrelation."""
        found: dict[str, dict[str, Row]] = {}
        maps: dict[str, Tensor] = {}
        claims: list[Claim] = []
        for pictures in lab.sets(self.count, self.steps):
            latent = lab.inverted(pictures, steps=self.steps).latent
            parts = {"noise": pictures.noise, "latent": latent, "image": pictures.pixels}
            found[pictures.name] = {name: patch_row(x) for name, x in parts.items() if x is not None}
            white = {"noise": pictures.noise, "latent": latent}
            maps |= {f"{name}, {pictures.name}": autocorrelation(x, REACH).value for name, x in white.items() if x is not None}
            claims += self._claims(pictures, found[pictures.name])
        floor = next(iter(found.values()))["latent"].null
        bars = {images: {name: bar(row) for name, row in rows.items()} for images, rows in found.items()}
        rows = [(images, name, str(row), row.noise) for images, rows in found.items() for name, row in rows.items()]
        return Findings(
            f"{self.count} images inverted by DDIM in {self.steps} steps. The mean of the 20 largest |Pearson r| across "
            "images in each 8 x 8 patch, with a 95 % jackknife interval; true noise is at the same number of images.",
            {"Top-20 patch correlation": Table(("images", "of", "top-20 r", "true noise"), tuple(rows))},
            (
                Figure(
                    "top20",
                    "Top-20 patch correlation; the grey band is true noise at this number of images.",
                    plotting.bars(bars, "top-20 r", (floor.low, floor.high) if floor else None),
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
            {images: {name: row.to_dict() for name, row in rows.items()} for images, rows in found.items()},
        )

    def _claims(self, pictures: Pictures, rows: dict[str, Row]) -> list[Claim]:
        latent, image = rows["latent"], rows["image"]
        less = latent.high is not None and image.low is not None and latent.high < image.low
        return [
            Claim("DDIM latents are correlated.", f"top-20 r {latent}; noise {latent.noise}", above(latent), pictures.name),
            Claim("... but less than images.", f"latents {latent}, images {image}", less, pictures.name),
        ]


def _without_centre(value: Tensor) -> Tensor:
    """The map without the 1 in its middle, which would hide the rest."""
    hidden = value.clone()
    hidden[hidden.shape[0] // 2, hidden.shape[1] // 2] = torch.nan
    return hidden
