"""Models from outside. Only this package imports a library of networks, and only when a model is loaded."""

from .registry import Card, cards, load

__all__ = ["Card", "cards", "load"]
