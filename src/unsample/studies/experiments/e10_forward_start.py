"""E10: how many of the first inversion steps forward diffusion must replace, and what it costs (Figure 4 and Table 4)."""

from __future__ import annotations

from dataclasses import dataclass

from ... import pictures as plotting
from ...diagnostics import Diagnosis
from ...diagnostics.row import PATCH_ROW
from .findings import Claim, Figure, Findings, below, panel, table_of
from .lab import Inverted, Lab, Pictures
from .paired import change_of_psnr

__all__ = ["ForwardStart"]

COLUMNS = {
    "top-20 r": PATCH_ROW,
    "std plain": "std plain",
    "std other": "std other",
    "lag-1 plain": "lag-1 plain",
    "KL to N(0, 1)": "KL to N(0, 1)",
    "MAE": "MAE",
    "MAE plain": "MAE plain",
    "PSNR, dB": "PSNR",
}

REPAIR, LITTLE = 2, 2.0
"""The k of the paper, and the loss in dB that we call little."""


@dataclass(frozen=True)
class ForwardStart:
    """DDIM from forward starts of k steps.

    Attributes:
        count: Images of each set.
        steps: N of the grid, up and down.
        starts: The k to try; 0 is the usual inversion and must be among them.
    """

    count: int
    steps: int
    starts: tuple[int, ...]

    def run(self, lab: Lab) -> Findings:
        """A table and curves over k for each set of images."""
        found: dict[str, dict[float, Diagnosis]] = {}
        claims: list[Claim] = []
        for pictures in lab.sets(self.count, self.steps):
            ways = {k: lab.inverted(pictures, forward=str(k), steps=self.steps) for k in sorted({0, *self.starts})}
            found[pictures.name] = {k: lab.diagnosed(pictures, way) for k, way in ways.items()}
            claims += self._claims(pictures, ways, found[pictures.name])
        return Findings(
            f"{self.count} images, DDIM inversion with the first k of {self.steps} steps replaced by forward diffusion, "
            "sampled back by DDIM. Images in [-1, 1]; 95 % intervals over images (bootstrap; jackknife for r). Levels "
            "match: x is noised to the level from which it is stepped.",
            {
                f"Forward start of k steps, {name}": table_of({f"k = {k}": d for k, d in by_k.items()}, COLUMNS)
                for name, by_k in found.items()
            },
            tuple(
                Figure(f"by-k-{name}", f"Whiteness and reconstruction against k: {name}.", self._curves(by_k))
                for name, by_k in found.items()
            ),
            tuple(claims),
            {name: {f"k={k}": diagnosis.to_dict() for k, diagnosis in by_k.items()} for name, by_k in found.items()},
        )

    def _curves(self, by_k: dict[float, Diagnosis]) -> plotting.Drawing:
        across = f"k, forward steps of {self.steps}"
        return plotting.curves(
            panel("correlation", across, by_k, {"top-20 r": PATCH_ROW}, "top-20 r"),
            panel("variance", across, by_k, {"plain": "std plain", "other": "std other"}, "std of the latent"),
            panel("reconstruction", across, by_k, {"PSNR": "PSNR"}, "PSNR, dB"),
        )

    def _claims(self, pictures: Pictures, ways: dict[int, Inverted], by_k: dict[float, Diagnosis]) -> list[Claim]:
        usual, told = by_k[0], []
        told.append(
            Claim(
                "DDIM latents of plain areas have too little noise.",
                f"std {usual['std plain']} in plain areas, {usual['std other']} elsewhere; noise {usual['std plain'].noise}",
                below(usual["std plain"]),
                pictures.name,
            )
        )
        if REPAIR not in by_k:
            return told
        mended = by_k[REPAIR]
        r, std, lag = mended[PATCH_ROW], mended["std plain"], mended["lag-1 plain"]
        loss = change_of_psnr(pictures.shown, ways[REPAIR].reconstruction, ways[0].reconstruction)
        return [
            *told,
            Claim(
                f"Replacing the first {REPAIR} steps brings the correlation to its floor.",
                f"top-20 r {usual[PATCH_ROW]} becomes {r}; noise {r.noise}",
                r.is_noise,
                pictures.name,
            ),
            Claim(
                "... and neighbours in plain areas no longer correlate.",
                f"lag-1 {usual['lag-1 plain']} becomes {lag}; noise {lag.noise}",
                lag.is_noise,
                pictures.name,
            ),
            Claim(
                "... and gives plain areas the variance of noise.",
                f"std {usual['std plain']} becomes {std}; noise {std.noise}",
                std.is_noise,
                pictures.name,
            ),
            Claim(
                f"... at little cost in reconstruction (less than {LITTLE:g} dB; the bound is ours).",
                f"paired change of PSNR {loss.estimate:+.2f} dB [{loss.low:+.2f}, {loss.high:+.2f}]",
                loss.low > -LITTLE,
                pictures.name,
            ),
        ]
