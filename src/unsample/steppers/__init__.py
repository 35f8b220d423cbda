"""How one move is made: a method per file."""

from .base import Moved, Stepper, is_reversible
from .ddim import DDIM, EvalAt

__all__ = ["DDIM", "METHODS", "EvalAt", "Moved", "Stepper", "is_reversible"]

METHODS = {"ddim": DDIM}
"""Methods by the name the command line knows them by."""
