"""How one move is made: a method per file."""

from .base import Moved, Steered, Stepper, evaluations_on, is_reversible
from .ddim import DDIM, EvalAt

__all__ = [
    "DDIM",
    "EvalAt",
    "Moved",
    "Steered",
    "Stepper",
    "evaluations_on",
    "is_reversible",
]
