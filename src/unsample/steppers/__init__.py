"""How one move is made: a method per file."""

from .base import Moved, Stepper
from .ddim import DDIM, EvalAt

__all__ = ["DDIM", "EvalAt", "Moved", "Stepper"]
