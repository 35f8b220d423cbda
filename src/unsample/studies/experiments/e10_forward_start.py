"""E10: how many of the first inversion steps forward diffusion must replace, and what it costs (Figure 4 and Table 4)."""

from __future__ import annotations

from dataclasses import dataclass

from ...diagnostics.row import PATCH_ROW
from .findings import Findings, Judged, columns, joined, judged
from .lab import Lab, Pictures
from .sweep import Knob, Sweep
from .verdicts import below, beside_noise, exceeds, signed

KNOB = Knob(
    "k",
    "Forward start of k steps",
    "by-k",
    "Whiteness and reconstruction against k: ",
    columns("top-20 r", "std plain", "std other", "lag-1 plain", "KL to N(0, 1)", "MAE", "MAE plain", "PSNR, dB"),
    {
        "correlation": ({"top-20 r": PATCH_ROW}, "top-20 r"),
        "variance": ({"plain": "std plain", "other": "std other"}, "std of the latent"),
        "reconstruction": ({"PSNR": "PSNR"}, "PSNR, dB"),
    },
)

REPAIR, LITTLE = 2, 2.0
"""The k of the paper, and the loss in dB that we call little."""


@dataclass(frozen=True)
class ForwardStart:
    """DDIM from forward starts of k steps.

    Attributes:
        count: Images of each set.
        steps: N of the grid, up and down.
        starts: The k to try; 0, the usual inversion, is tried as well.
    """

    count: int
    steps: int
    starts: tuple[int, ...]

    def run(self, lab: Lab) -> Findings:
        """A table and curves over k for each set of images."""
        return joined(self._of(lab, pictures) for pictures in lab.sets(self.count, self.steps))

    def _of(self, lab: Lab, pictures: Pictures) -> Findings:
        settings = {k: ("ddim", str(k)) for k in sorted({0, *self.starts})}
        swept = Sweep.inverted(lab, pictures, settings, self.steps)
        setting = (
            f"{self.count} images, DDIM inversion with the first k of {self.steps} steps replaced by forward diffusion, "
            "sampled back by DDIM. Images in [-1, 1]; 95 % intervals over images (bootstrap; jackknife for r). Levels "
            "match: x is noised to the level from which it is stepped."
        )
        name, across = pictures.name, f"k, forward steps of {self.steps}"
        return KNOB.shown(setting, name, swept.diagnoses, across, judged(name, *_claims(swept)))


def _claims(swept: Sweep[int]) -> list[Judged]:
    usual = swept[0]
    plain = f"std {usual['std plain']} in plain areas, {usual['std other']} elsewhere; noise {usual['std plain'].noise}"
    claims: list[Judged] = [("DDIM latents of plain areas have too little noise.", plain, below(usual["std plain"]))]
    if REPAIR not in swept.trips:
        return claims
    repairs = {
        f"Replacing the first {REPAIR} steps brings the correlation to its floor.": ("top-20 r", PATCH_ROW),
        "... and neighbours in plain areas no longer correlate.": ("lag-1", "lag-1 plain"),
        "... and gives plain areas the variance of noise.": ("std", "std plain"),
    }
    for sentence, (words, name) in repairs.items():
        row = swept[REPAIR][name]
        claims.append((sentence, beside_noise(words, usual[name], row), row.is_noise))
    cheap = f"... at little cost in reconstruction (less than {LITTLE:g} dB; the bound is ours)."
    loss = swept.gain("PSNR", REPAIR, 0)
    return [*claims, (cheap, f"paired change of PSNR {signed(loss, ' dB')}", exceeds(loss, -LITTLE))]
