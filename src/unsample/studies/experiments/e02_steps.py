"""E2: the correlation of DDIM latents against the number of steps T: does a finer grid remove it?"""

from __future__ import annotations

from dataclasses import dataclass

from ... import pictures as plotting
from ...diagnostics import Diagnosis
from ...diagnostics.row import PATCH_ROW
from .findings import Claim, Figure, Findings, above, below, lower, panel, table_of
from .lab import Lab

__all__ = ["Steps"]

COLUMNS = {
    "top-20 r": PATCH_ROW,
    "std plain": "std plain",
    "std other": "std other",
    "lag-1 plain": "lag-1 plain",
    "KL to N(0, 1)": "KL to N(0, 1)",
    "PSNR, dB": "PSNR",
}


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
        found: dict[str, dict[float, Diagnosis]] = {}
        for steps in sorted(set(self.steps)):
            for pictures in lab.sets(self.count, steps):
                found.setdefault(pictures.name, {})[steps] = lab.diagnosed(pictures, lab.inverted(pictures, steps=steps))
        return Findings(
            f"{self.count} images inverted by DDIM in T steps and sampled back in T: T evaluations each way, so cost grows. "
            "Generated images are sampled in T steps, too, from the same noise for every T, and change a little with T; "
            "photographs do not. Images in [-1, 1]; 95 % intervals over images (bootstrap; jackknife for r). True noise is at "
            "the same number of images.",
            {
                f"Inversion in T steps, {name}": table_of({f"T = {t}": d for t, d in by_steps.items()}, COLUMNS)
                for name, by_steps in found.items()
            },
            tuple(
                Figure(f"by-steps-{name}", f"Whiteness against the number of steps T, {name}.", _curves(by_steps))
                for name, by_steps in found.items()
            ),
            tuple(claim for name, by_steps in found.items() for claim in _claims(name, by_steps)),
            {name: {f"T={t}": diagnosis.to_dict() for t, diagnosis in by_t.items()} for name, by_t in found.items()},
        )


def _curves(by_steps: dict[float, Diagnosis]) -> plotting.Drawing:
    across = "number of steps T"
    return plotting.curves(
        panel("correlation", across, by_steps, {"top-20 r": PATCH_ROW}, "top-20 r", log="x"),
        panel("variance", across, by_steps, {"plain": "std plain", "other": "std other"}, "std of the latent", log="x"),
    )


def _claims(name: str, by_steps: dict[float, Diagnosis]) -> list[Claim]:
    most, last = max(by_steps), by_steps[max(by_steps)]
    r, std = last[PATCH_ROW], last["std plain"]
    told = [
        Claim(f"Latents are still correlated at T = {most}.", f"top-20 r {r}; noise {r.noise}", above(r), name),
        Claim("... and plain areas still have too little noise.", f"std {std}; noise {std.noise}", below(std), name),
    ]
    if len(by_steps) > 1:
        rows = {steps: diagnosis[PATCH_ROW] for steps, diagnosis in by_steps.items()}
        numbers = ", ".join(f"{row} at T = {steps}" for steps, row in rows.items())
        falls = lower(rows[most], rows[min(rows)])
        told.append(Claim("... but they are less correlated the more steps there are.", f"top-20 r {numbers}", falls, name))
    return told
