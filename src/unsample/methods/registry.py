"""Every method by its name, with its family and source; how people type one, and which is the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_type_hints

from ..core.corrections import Corrected
from ..core.ddim import DDIM
from ..core.specs import check_options, fitting, parse_spec
from ..core.stepper import Stepper
from ..errors import ArgumentError, UnknownNameError
from .contraction import ContractionAware
from .corrected import Direct, ExactAndGaussian
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
from .starts import parse_start


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


def spelled_out(text: str, eval_at: str | None = None) -> str:
    """A method as people type it, with the name of one in place of `auto`; of DDIM where an `eval_at` goes with it.

    >>> spelled_out("auto:ratio=1.5"), spelled_out("auto", eval_at="source"), spelled_out("ab")
    ('look-ahead:ratio=1.5', 'ddim', 'ab')
    """
    name, colon, options = text.strip().partition(":")
    return ("ddim" if eval_at else AUTO) + colon + options if name == "auto" else text


def parse_method(text: str, **options: Any) -> Stepper | Corrected:
    """A method from what people type: its name, then options, with colons between: `damped:iterations=10:rho=0.5`.

    An option that is itself a method has its own options behind slashes: `exact:method=damped/iterations=10`.

    Raises:
        UnknownNameError: No such method, or no such option of it.
        ArgumentError: An option whose value is not one.

    >>> parse_method("ddim:eval_at=source")
    DDIM(eval_at='source', clip=None)
    """
    name, typed = parse_spec(spelled_out(text, options.get("eval_at")))
    given = {**options, **typed}
    if name not in METHODS:
        raise UnknownNameError("method", name, ["auto", *METHODS], see="`unsample methods` lists them")
    known = {field.name for field in fields(METHODS[name].make)}  # type: ignore[arg-type]
    check_options(f"method {name!r}", given, known)
    kinds = get_type_hints(METHODS[name].make)
    given |= {key: fitting(value, kinds[key]) for key, value in typed.items()}
    if "method" in typed:
        given["method"] = parse_method(str(typed["method"]).replace("/", ":"))
        if not isinstance(given["method"], Stepper):
            raise ArgumentError(f"method {text!r}: expected a method that walks up by itself, given {given['method']}")
    try:
        return METHODS[name](**given)
    except TypeError as error:
        raise ArgumentError(f"method {text!r}: {error}") from None


def method_text(method: Stepper | Corrected) -> str:
    """A method as people type it: `parse_method` reads it back.

    Raises:
        ArgumentError: A method that the registry does not have.

    >>> method_text(parse_method("exact:method=damped/iterations=5")), method_text(LookAhead())
    ('exact:method=damped/iterations=5', 'look-ahead')
    """
    name = next((name for name, entry in METHODS.items() if entry.make is type(method)), None)
    if name is None:
        raise ArgumentError(f"expected a method of `unsample methods`, which has a name, given {method}")
    given = {field.name: getattr(method, field.name) for field in fields(method)}  # type: ignore[arg-type]
    usual = METHODS[name]()
    texts = {
        key: method_text(value).replace(":", "/") if isinstance(value, Stepper) else str(value).replace(" ", "")
        for key, value in given.items()
        if value != getattr(usual, key)
    }
    return ":".join([name, *(f"{key}={text}" for key, text in texts.items())])


def spelled(method: Stepper | Corrected) -> str:
    """`method_text`; empty for a method that has no name."""
    try:
        return method_text(method)
    except ArgumentError:
        return ""


class Typed(NamedTuple):
    """A method and its start as people type them."""

    method: str
    forward: str


DEFAULT = Typed("auto", "4%")
"""What `invert` does if nothing else is said: the best method at equal cost on the bundled model, from the paper's start."""

PAPER = Typed("ddim", "4%")
"""The paper's repair: DDIM with forward diffusion in place of the first 4 % of the moves."""

DEFAULT_METHOD, DEFAULT_START = parse_method(DEFAULT.method), parse_start(DEFAULT.forward)
PAPER_METHOD, PAPER_START = parse_method(PAPER.method), parse_start(PAPER.forward)
