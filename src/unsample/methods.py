"""Every method by the name the command line knows it by, with its family, its source and how to write its options."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from .corrected import Corrected, Direct, ExactAndGaussian
from .errors import ArgumentError, UnknownNameError
from .grid import Grid
from .steppers.base import Stepper, is_reversible
from .steppers.contraction import ContractionAware
from .steppers.ddim import DDIM
from .steppers.explicit import EasyInv, Heun, Midpoint
from .steppers.implicit import Anderson, AveragedFixedPoint, DampedFixedPoint, FixedPoint
from .steppers.multistep import AdamsBashforth, DPMSolverPP
from .steppers.optimised import GradientDescent, GradientThenFixedPoint
from .steppers.renoise import ReNoise
from .steppers.reversible import BDIA, EDICT, OBELM

__all__ = ["METHODS", "Method", "inversion_of", "moves_of", "parse_method", "sampler_of"]


@dataclass(frozen=True)
class Method:
    """A method of the registry; calling it makes a stepper."""

    make: Callable[..., Stepper | Corrected]
    family: str
    source: str

    def __call__(self, **options: Any) -> Stepper | Corrected:
        """The method, with `options` for its fields."""
        return self.make(**options)


METHODS: dict[str, Method] = {
    "ddim": Method(DDIM, "explicit", "Song et al. 2021"),
    "heun": Method(Heun, "explicit", "Karras et al. 2022, alg. 1"),
    "midpoint": Method(Midpoint, "explicit", "explicit midpoint; Wang et al. 2025 (RF-Solver)"),
    "easyinv": Method(EasyInv, "explicit", "Zhang et al. 2025"),
    "ab": Method(AdamsBashforth, "multistep", "Adams-Bashforth in sigma/alpha"),
    "dpm++": Method(DPMSolverPP, "multistep", "Lu et al. 2022"),
    "fixed-point": Method(FixedPoint, "implicit", "Pan et al. 2023 (AIDI); Meiri et al. 2023 (FPI)"),
    "averaged": Method(AveragedFixedPoint, "implicit", "Pan et al. 2023 (AIDI-E)"),
    "damped": Method(DampedFixedPoint, "implicit", "Hong et al. 2024 (order 1)"),
    "anderson": Method(Anderson, "implicit", "Pan et al. 2023 (AIDI-A)"),
    "contraction-aware": Method(ContractionAware, "implicit", "ours: evaluations where 1 - 1/r is large"),
    "renoise": Method(ReNoise, "implicit", "Garibi et al. 2024"),
    "gradient": Method(GradientDescent, "optimised", "gradient descent on the residual"),
    "gradient-first": Method(GradientThenFixedPoint, "optimised", "arXiv 2606.03111"),
    "edict": Method(EDICT, "reversible", "Wallace et al. 2023"),
    "bdia": Method(BDIA, "reversible", "Zhang et al. 2024"),
    "o-belm": Method(OBELM, "reversible", "Wang et al. 2024"),
    "direct": Method(Direct, "corrected", "Ju et al. 2024 (PnP Inversion)"),
    "exact": Method(ExactAndGaussian, "corrected", "ours: any inversion, and the one map its sampler misses"),
}
"""Method name -> how to make it, what kind it is, and where it is from."""


def parse_method(text: str, **options: Any) -> Stepper | Corrected:
    """A method from what people type: its name, then options, with colons between: `damped:iterations=10:rho=0.5`.

    An option that is itself a method has its own options behind slashes: `exact:method=damped/iterations=10`.

    Raises:
        UnknownNameError: No such method, or no such option of it.
        ArgumentError: An option whose value is not one.

    >>> parse_method("ddim:eval_at=source")
    DDIM(eval_at='source', clip=None)
    """
    name, *pairs = text.strip().split(":")
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    given = dict(options)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ArgumentError(f"expected options like {name}:name=value, given {pair!r}")
        given[key.strip().replace("-", "_")] = _value(value.strip())
    known = [field.name for field in fields(METHODS[name].make)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise UnknownNameError(f"option of method {name!r}:", key, known or ["none"])
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
    return method if is_reversible(method) else DDIM()


def inversion_of(method: Stepper | Corrected) -> Stepper | None:
    """What walks up; None for a path of forward diffusion alone."""
    return method.inversion if isinstance(method, Corrected) else method


def moves_of(method: Stepper | Corrected, grid: Grid, first: int, last: int) -> int:
    """Moves of an inversion from level `first` to level `last`, those on the way down to record corrections included."""
    up = 0 if inversion_of(method) is None else last - first
    return up + (grid.steps if isinstance(method, Corrected) else 0)


def _value(text: str) -> Any:
    """A number, a tuple, True, False or None as Python writes them; anything else is a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
