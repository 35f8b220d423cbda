"""Models from outside. Only this package imports a library of networks, and only when a model is loaded."""

from .cards import Card, cards
from .classifier import Classifier, load_classifier
from .download import fetch
from .inspect import Inspection, inspect_model
from .load import load

__all__ = ["Card", "Classifier", "Inspection", "cards", "fetch", "inspect_model", "load", "load_classifier"]
