"""Models from outside. Only this package imports a library of networks, and only when a model is loaded."""

from .classifier import Classifier, load_classifier
from .registry import Card, cards, load

__all__ = ["Card", "Classifier", "cards", "load", "load_classifier"]
