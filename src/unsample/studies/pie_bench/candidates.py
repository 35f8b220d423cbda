"""Edits to measure at equal cost: each has as many steps as the network evaluations of plain DDIM allow, up and down together.

Methods with more evaluations per move get fewer moves, and so do attention editors, which evaluate the source as well.
Other comparisons hold the way up alone equal; an edit pays for both, and with guidance twice for the way down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from ...core.grid import Grid, Step
from ...core.model import Model
from ...errors import ArgumentError
from ...methods.registry import parse_method
from ...methods.starts import parse_start
from ...uses.attention import EDITORS, PROMPT, Named, parse_editor, samples_from_latent
from ...uses.attention.hooks import unet_of
from ..compare.budget import Candidate, methods_and_starts, most_steps


@dataclass(frozen=True)
class EditCandidate(Candidate):
    """A candidate that edits.

    Attributes:
        editor: As on the command line: `prompt`, which is none, or `masactrl:from_step=4`.
    """

    editor: str = PROMPT

    @property
    def settings(self) -> list[str | int | None]:
        """For a manifest; `prompt` is left out, so that runs from before there were editors resume."""
        return [self.method, self.forward, self.steps, self.spacing, *_if_attention(self.editor)]


def budget_of(model: Model, steps: int, guidance: float) -> int:
    """Network evaluations per image of an edit by plain DDIM of `steps` moves.

    Raises:
        ArgumentError: A number of steps for which the model has no grid.
    """
    return evaluations_of(model, "ddim", "0", model.grid(steps), guidance)


def evaluations_of(model: Model, method: str, forward: str, grid: Grid, guidance: float, editor: str = PROMPT) -> int:
    """Network evaluations per image of an edit, up and down; of a start that tries several levels, the first alone.

    With an attention editor the way down is that of the source and of its target, each with guidance. An upper bound where a
    reversible method remembers its last answer: bdia and o-belm need a move less.

    Raises:
        ArgumentError: An unknown method, start or editor, or one that leaves no move.
    """
    moves = list(grid.up(parse_start(forward).level(grid)))
    if not moves:
        raise ArgumentError(f"forward start {forward} leaves no move of {grid.steps}; use a smaller one")
    return _cost(model, method, guidance, editor)(grid, moves)


def _cost(model: Model, method: str, guidance: float, editor: str) -> Callable[[Grid, list[Step]], int]:
    """From a grid and the moves up on it to the evaluations of an edit."""
    inversion = parse_method(method)
    sampler = inversion.sampler
    down = (1 if guidance == 1 or model.distilled else 2) * (1 if parse_editor(editor) is None else 2)
    return lambda grid, moves: inversion.evaluations_on(moves) + down * sampler.evaluations_on(list(grid.up()))


def listed_editors(text: str) -> tuple[str, ...]:
    """Editors as people type them, split at commas before the name of an editor; other commas belong to options.

    >>> listed_editors("prompt, p2p:words=red,old:weights=2,1, masactrl")
    ('prompt', 'p2p:words=red,old:weights=2,1', 'masactrl')
    """
    names = "|".join([PROMPT, *EDITORS])
    return tuple(part.strip() for part in re.split(rf",(?=\s*(?:{names})\b)", text))


def edits_at_equal_cost(
    model: Model,
    methods: Iterable[str],
    forwards: Iterable[str],
    steps: int,
    guidance: float,
    spacing: str | None = None,
    editors: Iterable[str] = (PROMPT,),
) -> tuple[EditCandidate, ...]:
    """A candidate for each method, start and editor, with as many steps as `budget_of` allows.

    A method whose path is forward diffusion alone has no start and is listed once.

    Raises:
        ArgumentError: An unknown method, start, spacing or editor, too few evaluations for one of them, or a method that no
            attention editor can follow.
        ModelError: An attention editor, and a model without text attention.
    """
    budget, methods = budget_of(model, steps, guidance), list(methods)
    grid = cache(lambda n: model.grid(n, spacing))
    grid(steps)  # refuses an unknown spacing
    spellings: dict[Named | None, str] = {}
    for text in editors:
        spellings.setdefault(parse_editor(text), text.strip())
    _check_editors(model, methods, spellings.values())
    limit, candidates = min(budget, len(model.schedule)), []  # each step down costs at least one evaluation
    for method, forward, title in methods_and_starts(methods, forwards):
        for editor in spellings.values():
            cost, extra = _cost(model, method, guidance, editor), _if_attention(editor)
            most = most_steps(parse_start(forward), grid, cost, budget, limit)
            if not most:
                given = ", ".join([f"{method} from {forward}", *extra])
                raise ArgumentError(f"{budget} evaluations, up and down, are too few for {given}; raise --steps")
            candidates.append(EditCandidate(method, forward, most, ", ".join([title, *extra]), spacing, editor=editor))
    return tuple(candidates)


def _if_attention(editor: str) -> list[str]:
    return [] if editor == PROMPT else [editor]


def _check_editors(model: Model, methods: Iterable[str], editors: Iterable[str]) -> None:
    attention = [editor for editor in editors if editor != PROMPT]
    if not attention:
        return
    unet_of(model)
    for method in methods:
        if not samples_from_latent(parse_method(method)):
            raise ArgumentError(
                f"editor {attention[0]!r}: targets walk down from the latent alone, and {method} stores more than that: "
                "choose other methods, like ddim or direct, or --editor prompt"
            )
