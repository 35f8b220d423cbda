"""Ways of editing at equal cost: each has as many steps as the network evaluations of plain DDIM allow, up and down together.

Ways that look closer at each move get fewer moves, and so do attention editors, which evaluate the source beside its target.
Other comparisons hold the way up alone equal; an edit pays for both, and with guidance for the way down twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ...core.grid import Grid
from ...core.model import Model
from ...core.stepper import evaluations_on
from ...errors import ArgumentError
from ...methods.registry import inversion_of, parse_method, sampler_of
from ...methods.starts import parse_start
from ...runs.report import title
from ...uses.attention import EDITORS, PROMPT, Named, parse_editor, walks_from_the_latent
from ...uses.attention.hooks import unet_of

__all__ = ["MIN_MOVES", "EditWay", "budget_of", "evaluations_of", "listed_editors", "ways_at_equal_cost"]

MIN_MOVES = 2
"""Fewest moves up that are an inversion."""


@dataclass(frozen=True)
class EditWay:
    """One way of editing.

    Attributes:
        method: As on the command line: `ddim`, `fixed-point:iterations=3`.
        forward: Its start, as on the command line: `0`, `2`, `4%`.
        steps: N of the grid, up and down.
        title: For people.
        spacing: Of the grid; None is the model's own.
        editor: As on the command line: `prompt`, which is none, or `masactrl:from_step=4`.
    """

    method: str
    forward: str
    steps: int
    title: str
    spacing: str | None = None
    editor: str = PROMPT

    @property
    def settings(self) -> list[str | int | None]:
        """For a manifest; without the editor if it is none, as before there were any."""
        return [self.method, self.forward, self.steps, self.spacing, *([] if self.editor == PROMPT else [self.editor])]


def budget_of(model: Model, steps: int, guidance: float) -> int:
    """Network evaluations per image of an edit by plain DDIM of `steps` moves.

    Raises:
        ArgumentError: A number of steps that the model has no grid of.
    """
    return evaluations_of(model, "ddim", "0", model.grid(steps), guidance)


def evaluations_of(model: Model, method: str, forward: str, grid: Grid, guidance: float, editor: str = PROMPT) -> int:
    """Network evaluations per image of an edit, up and down; of a start that tries several, the first alone.

    With an attention editor the way down is that of the source and of its target, each with guidance. An upper bound where a
    reversible method remembers its last answer: bdia and o-belm need a move less.

    Raises:
        ArgumentError: A method, start or editor that is none, or one that leaves no move.
    """
    parsed = parse_method(method)
    moves = list(grid.up(parse_start(forward).index(grid)))
    if not moves:
        raise ArgumentError(f"forward start {forward} leaves no move of {grid.steps}; use a smaller one")
    each = 1 if guidance == 1 or model.distilled else 2
    each *= 1 if parse_editor(editor) is None else 2
    return evaluations_on(parsed, moves) + each * evaluations_on(sampler_of(parsed), list(grid.up()))


def listed_editors(text: str) -> tuple[str, ...]:
    """Editors as people type them, split at commas that a name of an editor follows; other commas are of their options.

    >>> listed_editors("prompt, p2p:words=red,old:weights=2,1, masactrl")
    ('prompt', 'p2p:words=red,old:weights=2,1', 'masactrl')
    """
    names = "|".join([PROMPT, *EDITORS])
    return tuple(part.strip() for part in re.split(rf",(?=\s*(?:{names})\b)", text))


def ways_at_equal_cost(
    model: Model,
    methods: Iterable[str],
    forwards: Iterable[str],
    steps: int,
    guidance: float,
    spacing: str | None = None,
    editors: Iterable[str] = (PROMPT,),
) -> tuple[EditWay, ...]:
    """A way for each method, start and editor, with as many steps as `budget_of` allows.

    A method whose path is forward diffusion alone has no start and is listed once.

    Raises:
        ArgumentError: A method, start, spacing or editor that is none, too few evaluations for one of them, or a method that
            no attention editor can follow.
        ModelError: An attention editor, and a model without text attention.
    """
    budget, ways = budget_of(model, steps, guidance), []
    model.grid(steps, spacing)  # refuses what is no spacing
    methods, editors = list(dict.fromkeys(methods)), _different(editors)
    _check_editors(model, methods, editors)
    for method in methods:
        starts = inversion_of(parse_method(method)) is not None
        for forward in dict.fromkeys(forwards if starts else ["0"]):
            parse_start(forward)
            for editor in editors:
                way = _Way(model, method, forward, guidance, spacing, editor)
                called = [method, title(forward) if starts else "forward diffusion alone", *_named(editor)]
                ways.append(EditWay(method, forward, way.most_steps(budget), ", ".join(called), spacing, editor))
    return tuple(ways)


def _different(editors: Iterable[str]) -> list[str]:
    """Without those that are another, written otherwise."""
    found: dict[Named | None, str] = {}
    for text in editors:
        found.setdefault(parse_editor(text), text.strip())
    return list(found.values())


def _named(editor: str) -> list[str]:
    return [] if editor == PROMPT else [editor]


def _check_editors(model: Model, methods: Iterable[str], editors: Iterable[str]) -> None:
    attention = [editor for editor in editors if editor != PROMPT]
    if not attention:
        return
    unet_of(model)
    for method in methods:
        if not walks_from_the_latent(parse_method(method)):
            raise ArgumentError(
                f"editor {attention[0]!r}: targets walk down from the latent alone, and {method} stores more than that: "
                "choose other methods, like ddim or direct, or --editor prompt"
            )


@dataclass(frozen=True)
class _Way:
    """All that a way's cost depends on, but for its steps."""

    model: Model
    method: str
    forward: str
    guidance: float
    spacing: str | None
    editor: str

    def most_steps(self, budget: int) -> int:
        """Of those that `budget` evaluations allow."""
        most = 0
        for steps in range(1, min(budget, len(self.model.schedule)) + 1):
            try:
                grid = self.model.grid(steps, self.spacing)
                cost = evaluations_of(self.model, self.method, self.forward, grid, self.guidance, self.editor)
                moves = steps - parse_start(self.forward).index(grid)
            except ArgumentError:  # a start longer than this grid, or a number of steps that no grid has
                continue
            if moves >= MIN_MOVES and cost <= budget:
                most = steps
        if not most:
            told = ", ".join([f"{self.method} from {self.forward}", *_named(self.editor)])
            raise ArgumentError(f"{budget} evaluations, up and down, are too few for {told}; raise --steps")
        return most
