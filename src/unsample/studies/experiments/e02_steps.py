"""E2: the correlation of DDIM latents against the number of steps T, 10 to 1000 in the paper: does a finer grid remove it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...diagnostics import Diagnosis
from ...diagnostics.row import PATCH_ROW
from .findings import Findings, Judged, columns, joined, judged
from .lab import Lab
from .sweep import Knob
from .verdicts import above, below, beside_noise, lower

KNOB = Knob(
    "T",
    "Inversion in T steps",
    "by-steps",
    "Whiteness against the number of steps T, ",
    columns("top-20 r", "std plain", "std other", "lag-1 plain", "KL to N(0, 1)", "PSNR, dB"),
    {
        "correlation": ({"top-20 r": PATCH_ROW}, "top-20 r"),
        "variance": ({"plain": "std plain", "other": "std other"}, "std of the latent"),
    },
    log="x",
)


@dataclass(frozen=True)
class Steps:
    """DDIM inversion in T steps, sampled back in T steps.

    Attributes:
        count: Images of each set.
        steps: The T to try. Generated images are sampled anew for each, in T steps from the same noise.
    """

    count: int
    steps: tuple[int, ...]

    def run(self, lab: Lab) -> Findings:
        """A table and curves over T for each set of images."""
        diagnoses: dict[str, dict[int, Diagnosis]] = {}
        for steps in sorted(set(self.steps)):
            for pictures in lab.sets(self.count, steps):
                diagnoses.setdefault(pictures.name, {})[steps] = lab.diagnosed(pictures, lab.inverted(pictures, steps=steps))
        setting = (
            f"{self.count} images inverted by DDIM in T steps and sampled back in T: T evaluations each way, so cost grows. "
            "Generated images are sampled in T steps, too, from the same noise for every T, and change a little with T; "
            "photographs do not. Images in [-1, 1]; 95 % intervals over images (bootstrap; jackknife for r). True noise is at "
            "the same number of images."
        )
        return joined(
            KNOB.shown(setting, name, by_steps, "number of steps T", judged(name, *_claims(by_steps)))
            for name, by_steps in diagnoses.items()
        )


def _claims(by_steps: Mapping[int, Diagnosis]) -> list[Judged]:
    most, r = max(by_steps), {steps: diagnosis[PATCH_ROW] for steps, diagnosis in by_steps.items()}
    std = by_steps[most]["std plain"]
    claims: list[Judged] = [
        (f"Latents are still correlated at T = {most}.", beside_noise("top-20 r", r[most]), above(r[most])),
        ("... and plain areas still have too little noise.", beside_noise("std", std), below(std)),
    ]
    if len(r) > 1:
        numbers = ", ".join(f"{row} at T = {steps}" for steps, row in r.items())
        falls = lower(r[most], r[min(r)])
        claims.append(("... but they are less correlated the more steps there are.", f"top-20 r {numbers}", falls))
    return claims
