"""How one move is made: a method per file."""

from .base import Moved, Stepper, evaluations_on, is_reversible
from .ddim import DDIM, EvalAt
from .registry import METHODS, Method, parse_method, sampler_of

__all__ = [
    "DDIM",
    "METHODS",
    "EvalAt",
    "Method",
    "Moved",
    "Stepper",
    "evaluations_on",
    "is_reversible",
    "parse_method",
    "sampler_of",
]
