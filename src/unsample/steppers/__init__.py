"""How one move is made: a method per file."""

from .base import Moved, Steered, Stepper, evaluations_on, is_reversible
from .ddim import DDIM, EvalAt
from .look_ahead import LookAhead

__all__ = [
    "DDIM",
    "EvalAt",
    "LookAhead",
    "Moved",
    "Steered",
    "Stepper",
    "evaluations_on",
    "is_reversible",
]
