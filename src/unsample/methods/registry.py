"""Every method by the name the command line knows it by, with its family, its source and how to write its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..core.ddim import DDIM, sampler_for
from ..core.grid import Grid
from ..core.specs import check_options, parse_spec
from ..core.stepper import Stepper
from ..errors import ArgumentError, UnknownNameError
from .contraction import ContractionAware
from .corrected import Corrected, Direct, ExactAndGaussian
from .drawn_paths import CycleDiffusion, EditFriendly, LEditsPP
from .explicit import EasyInv, Heun, Midpoint
from .fixed_point import Anderson, AveragedFixedPoint, DampedFixedPoint, FixedPoint
from .flow import FireFlow, RFInversion, RFSolver
from .look_ahead import LookAhead, UniInv
from .multistep import AdamsBashforth, DPMSolverPP
from .optimised import GradientDescent, GradientThenFixedPoint
from .regularised import Pix2PixZero
from .renoise import ReNoise
from .reversible import BDIA, EDICT, OBELM

__all__ = ["AUTO", "METHODS", "Method", "inversion_of", "moves_of", "parse_method", "sampler_of"]


@dataclass(frozen=True)
class Method:
    """A method of the registry; calling it makes a stepper.

    Attributes:
        references: Keys of `references.bib`: the works that `source` names, and those that its sampler is from if not DDIM.
    """

    make: Callable[..., Stepper | Corrected]
    family: str
    source: str
    references: tuple[str, ...] = ()

    def __call__(self, **options: Any) -> Stepper | Corrected:
        """The method, with `options` for its fields."""
        return self.make(**options)


METHODS: dict[str, Method] = {
    "ddim": Method(DDIM, "explicit", "Song et al. 2021; Dhariwal and Nichol 2021", ("song2021ddim", "dhariwal2021beat")),
    "heun": Method(Heun, "explicit", "Karras et al. 2022, alg. 1", ("karras2022edm",)),
    "midpoint": Method(Midpoint, "explicit", "explicit midpoint; Wang et al. 2025 (RF-Solver)", ("wang2025rfsolver",)),
    "easyinv": Method(EasyInv, "explicit", "Zhang et al. 2025", ("zhang2025easyinv",)),
    "ab": Method(AdamsBashforth, "multistep", "Hairer et al. 1993 (Adams-Bashforth), in sigma/alpha", ("hairer1993ode",)),
    "dpm++": Method(DPMSolverPP, "multistep", "Lu et al. 2022", ("lu2022dpmpp",)),
    "fixed-point": Method(
        FixedPoint, "implicit", "Pan et al. 2023 (AIDI); Meiri et al. 2023 (FPI)", ("pan2023aidi", "meiri2023fpi")
    ),
    "averaged": Method(AveragedFixedPoint, "implicit", "Pan et al. 2023 (AIDI-E)", ("pan2023aidi",)),
    "damped": Method(DampedFixedPoint, "implicit", "Hong et al. 2024 (order 1)", ("hong2024exact",)),
    "anderson": Method(
        Anderson, "implicit", "Walker and Ni 2011; Pan et al. 2023 (AIDI-A)", ("walker2011anderson", "pan2023aidi")
    ),
    "contraction-aware": Method(
        ContractionAware, "implicit", "ours: evaluations where 1 - 1/r is large", ("unsample", "pan2023aidi", "meiri2023fpi")
    ),
    "renoise": Method(ReNoise, "implicit", "Garibi et al. 2024", ("garibi2024renoise",)),
    "gradient": Method(GradientDescent, "optimised", "gradient descent; like Zuo et al. 2025", ("zuo2025precise",)),
    "gradient-first": Method(GradientThenFixedPoint, "optimised", "Zeng et al. 2026", ("zeng2026inverting",)),
    "pix2pix-zero": Method(Pix2PixZero, "regularised", "Parmar et al. 2023", ("parmar2023zero",)),
    "edict": Method(EDICT, "reversible", "Wallace et al. 2023", ("wallace2023edict",)),
    "bdia": Method(BDIA, "reversible", "Zhang et al. 2024", ("zhang2024bdia",)),
    "o-belm": Method(OBELM, "reversible", "Wang et al. 2024", ("wang2024belm",)),
    "direct": Method(Direct, "corrected", "Ju et al. 2024 (PnP Inversion)", ("ju2024pnp",)),
    "exact": Method(ExactAndGaussian, "corrected", "ours: any inversion, and the one map its sampler misses", ("unsample",)),
    "edit-friendly": Method(
        EditFriendly, "stochastic", "Huberman-Spiegelglas et al. 2024", ("huberman2024edit", "song2021ddim", "ho2020ddpm")
    ),
    "cyclediffusion": Method(
        CycleDiffusion, "stochastic", "Wu and De la Torre 2023", ("wu2023cyclediffusion", "song2021ddim", "ho2020ddpm")
    ),
    "ledits++": Method(LEditsPP, "stochastic", "Brack et al. 2024 (LEDITS++)", ("brack2024leditspp", "lu2022dpmpp")),
    "rf-solver": Method(RFSolver, "flow", "Wang et al. 2025", ("wang2025rfsolver",)),
    "fireflow": Method(FireFlow, "flow", "Deng et al. 2025", ("deng2025fireflow",)),
    "uni-inv": Method(UniInv, "flow", "Jiao et al. 2026", ("jiao2026uniedit",)),
    "rf-inversion": Method(RFInversion, "flow", "Rout et al. 2025", ("rout2025rfinversion",)),
    "look-ahead": Method(LookAhead, "flow", "ours: Uni-Inv's look ahead, along a bent line", ("unsample", "jiao2026uniedit")),
}
"""Method name -> how to make it, what kind it is, and where it is from."""


AUTO = "look-ahead"
"""What `auto` stands for: the best of all at equal cost on the bundled model (docs/choosing.md)."""


def parse_method(text: str, **options: Any) -> Stepper | Corrected:
    """A method from what people type: its name, then options, with colons between: `damped:iterations=10:rho=0.5`.

    An option that is itself a method has its own options behind slashes: `exact:method=damped/iterations=10`.

    Raises:
        UnknownNameError: No such method, or no such option of it.
        ArgumentError: An option whose value is not one.

    >>> parse_method("ddim:eval_at=source")
    DDIM(eval_at='source', clip=None)
    """
    name, given = parse_spec(text)
    name, given = AUTO if name == "auto" else name, {**options, **given}
    if name not in METHODS:
        raise UnknownNameError("method", name, ["auto", *METHODS])
    known = [field.name for field in fields(METHODS[name].make)]  # type: ignore[arg-type]
    check_options(f"method {name!r}", given, known)
    if isinstance(given.get("method"), str):
        given["method"] = parse_method(given["method"].replace("/", ":"))
    try:
        return METHODS[name](**given)
    except TypeError as error:
        raise ArgumentError(f"method {text!r}: {error}") from None


def sampler_of(method: Stepper | Corrected) -> Stepper:
    """What samples back from the latents of `method`: itself if it is reversible, DDIM otherwise."""
    if isinstance(method, Corrected):
        return method.sampler
    return sampler_for(method)


def inversion_of(method: Stepper | Corrected) -> Stepper | None:
    """What walks up; None for a path of forward diffusion alone."""
    return method.inversion if isinstance(method, Corrected) else method


def moves_of(method: Stepper | Corrected, grid: Grid, first: int, last: int) -> int:
    """Moves of an inversion from level `first` to level `last`, those on the way down to record corrections included."""
    up = 0 if inversion_of(method) is None else last - first
    return up + (grid.steps if isinstance(method, Corrected) else 0)
