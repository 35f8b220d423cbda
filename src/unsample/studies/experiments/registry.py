"""All experiments by their number in docs/results, and their recipes: the question, and the sizes at which they run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ...core.files import expanded
from ...core.reading import read_text, toml_of
from ...errors import ArgumentError, UnknownNameError, one_line
from .e01_correlation import Correlation
from .e02_steps import Steps
from .e03_normality import Normality
from .e04_patterns import Patterns
from .e05_line import Line
from .e06_triangle import TriangleOf
from .e07_plain_areas import PlainAreas
from .e08_step_error import StepError
from .e09_swap import Swap
from .e10_forward_start import ForwardStart
from .e11_interpolation import Interpolation
from .e12_editing import Editing
from .e13_varied import StochasticEditing
from .e14_prior_methods import PriorMethods
from .e15_assignment import AssignmentOf
from .e16_training import Training
from .e17_photographs import Photographs
from .e18_conventions import Conventions
from .e19_guidance import Guidance
from .findings import Findings
from .lab import Lab

Size = Literal["smoke", "cpu", "paper"]

SIZES: tuple[Size, ...] = ("smoke", "cpu", "paper")
"""For a test of the plumbing, for a laptop, and the paper's number of images and steps."""


@runtime_checkable
class Experiment(Protocol):
    """A frozen dataclass whose fields are the values of a size in its recipe."""

    def run(self, lab: Lab) -> Findings:
        """Measure, draw and judge."""


EXPERIMENTS: dict[str, type[Any]] = {
    "E1": Correlation,
    "E2": Steps,
    "E3": Normality,
    "E4": Patterns,
    "E5": Line,
    "E6": TriangleOf,
    "E7": PlainAreas,
    "E8": StepError,
    "E9": Swap,
    "E10": ForwardStart,
    "E11": Interpolation,
    "E12": Editing,
    "E13": StochasticEditing,
    "E14": PriorMethods,
    "E15": AssignmentOf,
    "E16": Training,
    "E17": Photographs,
    "E18": Conventions,
    "E19": Guidance,
}
"""Number -> the experiment."""


class Recipe(BaseModel):
    """A recipe file.

    Attributes:
        id: Number of the experiment.
        title: What it is about.
        question: What it is to answer.
        paper: The paper's numbers or shape.
        sizes: Size -> values of the experiment's fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    question: str
    paper: str
    sizes: Mapping[Size, Mapping[str, Any]]

    def make(self, size: str) -> Experiment:
        """The experiment at a size.

        Raises:
            UnknownNameError: No such size.
            ArgumentError: Values that the experiment does not take.
        """
        if size not in self.sizes:
            raise UnknownNameError("size", size, self.sizes)
        values = self.sizes[size]  # type: ignore[index]
        try:
            made: Experiment = TypeAdapter(EXPERIMENTS[self.id]).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "values"
            raise ArgumentError(f"recipe {self.id}, size {size}: {name}: {first['msg'].lower()}") from None
        return made


def recipe(name: str) -> Recipe:
    """The recipe of an experiment, by its number, or of a TOML file.

    Raises:
        UnknownNameError: No such experiment.
        ArgumentError: A file that is not a recipe.

    >>> recipe("E1").title
    'Latents are correlated'
    """
    path = expanded(name)
    if path.suffix == ".toml":
        try:
            text = read_text(path)
        except FileNotFoundError:
            text = ""
        except (OSError, ValueError) as error:
            raise ArgumentError(f"{name} is not a recipe ({one_line(error, 200)})") from None
        if not text.strip():
            raise ArgumentError(f"expected a recipe file, given {name}, which is missing or empty")
    elif name.upper() in EXPERIMENTS:
        text = (files(__package__) / "recipes" / f"{name.upper()}.toml").read_text()
    else:
        raise UnknownNameError("experiment", name, EXPERIMENTS)
    try:
        read = Recipe.model_validate(toml_of(text))
    except ValueError as error:  # of TOML, and of values
        raise ArgumentError(f"{name} is not a recipe ({one_line(error, 200)})") from None
    if read.id not in EXPERIMENTS:
        raise UnknownNameError("experiment", read.id, EXPERIMENTS)
    return read
