"""Every method by the name the command line knows it by, with its family, its source and how to write its options."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..errors import ArgumentError, UnknownNameError
from .base import Stepper, is_reversible
from .contraction import ContractionAware
from .ddim import DDIM
from .explicit import EasyInv, Heun, Midpoint
from .implicit import Anderson, AveragedFixedPoint, DampedFixedPoint, FixedPoint
from .multistep import AdamsBashforth, DPMSolverPP
from .optimised import GradientDescent, GradientThenFixedPoint
from .renoise import ReNoise
from .reversible import BDIA, EDICT, OBELM

__all__ = ["METHODS", "Method", "parse_method", "sampler_of"]


@dataclass(frozen=True)
class Method:
    """A method of the registry; calling it makes a stepper."""

    make: Callable[..., Stepper]
    family: str
    source: str

    def __call__(self, **options: Any) -> Stepper:
        """The stepper, with `options` for its fields."""
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
}
"""Method name -> how to make it, what kind it is, and where it is from."""


def parse_method(text: str, **options: Any) -> Stepper:
    """A method from what people type: its name, then options, with colons between: `damped:iterations=10:rho=0.5`.

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
    try:
        return METHODS[name](**given)
    except TypeError as error:
        raise ArgumentError(f"method {text!r}: {error}") from None


def sampler_of(method: Stepper) -> Stepper:
    """What samples back from the latents of `method`: itself if it is reversible, DDIM otherwise."""
    return method if is_reversible(method) else DDIM()


def _value(text: str) -> Any:
    """A number, a tuple, True, False or None as Python writes them; anything else is a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
