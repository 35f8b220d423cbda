"""The noise levels a trajectory visits, and the moves between them.

`grid[0]` is the clean end, `grid[1]` ... `grid[N]` have trained timesteps in rising order. Inversion walks `grid.up()`,
sampling walks `grid.down()`; there is no inverse schedule. A move names both of its ends as levels, so that nothing can be
noised to one level and then moved as if at another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, get_args

from .._arguments import number, one_of, several, takes, text, whole
from ..errors import ArgumentError, UnknownNameError
from .schedule import AnySchedule, FlowSchedule, Level, Schedule, level_of
from .spacing import Spacing, even

Clean = Literal["one", "first"]

a_schedule = one_of("a Schedule or a FlowSchedule", Schedule, FlowSchedule)


@dataclass(frozen=True)
class Step:
    """A move from level `src` to level `dst`; up is towards noise."""

    src: Level
    dst: Level

    @property
    def is_up(self) -> bool:
        """Whether the move goes towards noise."""
        return self.dst.index > self.src.index


@dataclass(frozen=True)
class Grid:
    """Noise levels from clean to noisy, `levels[i].index == i`.

    Attributes:
        levels: From clean to noisy.
        schedule: What they are levels of; None for a grid made by hand.
        offset: What was added to each timestep of `leading` spacing.

    >>> from unsample import Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), steps=4)
    >>> [level.t for level in grid.levels]
    [0, 0, 250, 500, 750]
    >>> [(step.src.index, step.dst.index) for step in grid.up(start=2)]
    [(2, 3), (3, 4)]
    """

    levels: tuple[Level, ...]
    schedule: AnySchedule | None = field(default=None, repr=False, compare=False)
    offset: int = field(default=0, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.levels, (tuple, list)) or not all(isinstance(level, Level) for level in self.levels):
            raise ArgumentError("expected the levels of a grid as a tuple of Level(...)")
        if len(self.levels) < 2:
            raise ArgumentError("a grid needs at least one move, that is two levels")
        if [level.index for level in self.levels] != list(range(len(self.levels))):
            raise ArgumentError("the levels of a grid must be numbered 0, 1, 2, ... from clean to noisy")
        ratios = [level.ratio for level in self.levels]
        if any(b < a for a, b in pairwise(ratios)):
            raise ArgumentError("the levels of a grid must run from clean to noisy")

    def __repr__(self) -> str:
        return f"Grid of {self.steps} moves, timesteps {self[1].t:g} to {self[-1].t:g}"

    @property
    def steps(self) -> int:
        """N, the number of moves from one end to the other."""
        return len(self.levels) - 1

    def __getitem__(self, index: int) -> Level:
        return self.levels[index]

    def __len__(self) -> int:
        return len(self.levels)

    def up(self, start: int | Level = 0, stop: int | None = None) -> Iterator[Step]:
        """The moves towards noise from level `start` to level `stop` (default: the noisy end).

        From a `Level` between two of the grid's, as of `at`, the first move leads to the next one above.
        """
        first = start if isinstance(start, Level) else self[self._index(start)]
        stop = self._index(self.steps if stop is None else stop)
        return (Step(src, dst) for src, dst in pairwise([first, *self.levels[first.index + 1 : stop + 1]]))

    def down(self, start: int | None = None, stop: int = 0) -> Iterator[Step]:
        """The moves towards the image from level `start` (default: the noisy end) to level `stop`."""
        start, stop = self._index(self.steps if start is None else start), self._index(stop)
        return (Step(self[i], self[i - 1]) for i in range(start, stop, -1))

    def at(self, t: float) -> Level:
        """The level of a timestep: the grid's own if it has it, or else one between two of its levels.

        The index is then that of the level below: so many moves lead down from there, and one more from in between. Beyond the
        noisy end it is that end.

        Raises:
            ArgumentError: A grid made by hand, which has no schedule.

        >>> from unsample import Schedule
        >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), steps=4)
        >>> grid.at(250) is grid[2], grid.at(20).index, [step.dst.t for step in grid.up(grid.at(20))]
        (True, 1, [250, 500, 750])
        """
        if self.schedule is None:
            raise ArgumentError("a grid made by hand has no levels but its own: make it by Grid.of or Grid.from_timesteps")
        above = next((level for level in self.levels[1:] if level.t >= t), self[-1])
        return self.schedule.level(t, above.index - 1) if above.t > t else above

    def _index(self, index: int) -> int:
        if not 0 <= whole()("level", index) <= self.steps:
            raise ArgumentError(f"level {index} is outside this grid of levels 0..{self.steps}")
        return index

    @classmethod
    @takes({"schedule": a_schedule, "spacing": text, "steps_offset": whole(), "clean": text})
    def of(
        cls,
        schedule: AnySchedule,
        steps: int,
        *,
        spacing: Spacing = "leading",
        steps_offset: int = 0,
        clean: Clean = "one",
    ) -> Grid:
        """A grid of `steps` moves with the timesteps that diffusers' schedulers of the same settings use.

        A flow schedule spaces its levels itself: it takes none of the last three arguments.

        Args:
            schedule: The trained table, or a flow schedule.
            steps: N >= 1; it need not divide the number of trained timesteps.
            spacing: Where the timesteps lie: `leading` (0, T/N, ...), `trailing` (..., T-1) or `linspace` (0, ..., T-1).
            steps_offset: Added to every timestep of `leading` spacing (Stable Diffusion uses 1).
            clean: The clean end has alpha_bar `one`, or the `first` trained value (diffusers: set_alpha_to_one).

        Raises:
            ArgumentError: Too few or too many steps, or an offset that leaves the trained range.
        """
        if isinstance(schedule, FlowSchedule):
            if spacing != "leading" or steps_offset != 0:
                raise ArgumentError("a flow schedule spaces its levels itself: leave out spacing and steps_offset")
            return cls.from_timesteps(schedule, schedule.timesteps(steps), clean=clean)
        timesteps = even(len(schedule), steps, spacing, steps_offset)
        return replace(cls.from_timesteps(schedule, timesteps, clean=clean), offset=steps_offset)

    @classmethod
    @takes({"schedule": a_schedule, "timesteps": several(number), "clean": text})
    def from_timesteps(cls, schedule: AnySchedule, timesteps: Sequence[float], *, clean: Clean = "one") -> Grid:
        """A grid through any rising list of trained timesteps; those of a table are whole numbers.

        Raises:
            ArgumentError: Timesteps that do not rise, are outside the trained range, or between those of a table.
        """
        if not len(timesteps) or any(b <= a for a, b in pairwise(timesteps)):
            raise ArgumentError("timesteps must be a non-empty, strictly rising list")
        if clean not in get_args(Clean):
            raise UnknownNameError("clean level", clean, get_args(Clean))
        if isinstance(schedule, FlowSchedule):
            if clean != "one":
                raise ArgumentError("the clean end of a flow schedule is the image itself: leave out clean")
            return cls((schedule.level(0.0), *(schedule.level(float(t), i) for i, t in enumerate(timesteps, 1))), schedule)
        bottom = level_of(1.0 if clean == "one" else schedule.alpha_bar[0], 0, 0)
        return cls((bottom, *(schedule.level(t, i) for i, t in enumerate(timesteps, 1))), schedule)

    @classmethod
    @takes({"schedule": one_of("a FlowSchedule", FlowSchedule), "sigmas": several(number)})
    def from_sigmas(cls, schedule: FlowSchedule, sigmas: Sequence[float]) -> Grid:
        """A grid through any strictly rising list of a flow model's noise levels t in (0, 1], taken as they are: not shifted.

        >>> from unsample import FlowSchedule
        >>> [level.t for level in Grid.from_sigmas(FlowSchedule(), [0.25, 0.5, 1.0]).levels]
        [0.0, 250.0, 500.0, 1000.0]
        """
        return cls.from_timesteps(schedule, [len(schedule) * float(sigma) for sigma in sigmas])
