"""The base class of inversion schedulers: it counts the moves of a diffusers pipeline's loop, and `DDIM` makes them.

Levels and moves are this library's, the names of the methods those of diffusers, which this module imports as it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from torch import Tensor

from ..._arguments import warn
from ...core.ddim import DDIM
from ...core.grid import Grid, Step
from ...core.prediction import Prediction, to_eps
from ...core.schedule import AnySchedule, Level, Schedule
from ...core.starts import ForwardNoise
from ...core.transfer import transfer
from ...errors import ArgumentError, counted

CLEAN = Level(0, 0, 1.0, 0.0)

_OF_NOISE = ("s_tmin", "s_tmax", "s_noise")
"""Arguments of `step` that matter only with `s_churn`."""


class InversionScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A diffusers scheduler that makes the moves it is given, one a call of `step`."""

    order = 1
    init_noise_sigma = 1.0

    def _set_up(self, schedule: AnySchedule, prediction: Prediction) -> None:
        """Keep the settings of the config; there are no moves yet."""
        steps = self.config.forward_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ArgumentError(f"forward_steps must be a whole number from 0 on, given {steps!r}")
        self._schedule, self._prediction, self._method = schedule, prediction, DDIM(self.config.eval_at)
        self._dtype = torch.long if isinstance(schedule, Schedule) else torch.float32  # of timesteps
        self._moves: tuple[Step, ...] = ()
        self._levels: tuple[Level, ...] = ()  # before each move and after the last
        self._warned: set[str] = set()  # arguments of `step` that were ignored
        self.num_inference_steps: int | None = None
        self.timesteps = torch.empty(0)
        self.step_index: int | None = None
        self.begin_index: int | None = None

    def _follow(self, grid: Grid, moves: Sequence[Step], device: str | torch.device | None) -> None:
        """Make these moves from now on, but for the first ones, which the forward start replaces."""
        first = ForwardNoise(steps=self.config.forward_steps).level(grid).index
        self._moves = tuple(moves)[first:]
        self._levels = (*(move.src for move in moves), moves[-1].dst)[first:]
        times = [(move.src if self._method.eval_at == "source" else move.dst).t for move in self._moves]
        self.timesteps = torch.tensor(times, dtype=self._dtype, device=device)
        self.num_inference_steps = len(moves)
        self.step_index = self.begin_index = None

    def __len__(self) -> int:
        return len(self._schedule)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Make the move `begin_index` of `timesteps` first; pipelines call it."""
        self.begin_index = begin_index

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """`sample` unchanged: pipelines call it before every evaluation of the network."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Any = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> SchedulerOutput | tuple[Tensor]:
        """One move up (docs/theory.md, eq. 4): the states one level up, called `prev_sample` as in every scheduler.

        Args:
            model_output: The network's raw output for `sample` at `timestep`; a learned variance behind it is dropped.
            timestep: The one of `timesteps` whose turn it is. Only the first is looked at, to find where the loop begins.
            sample: States, shape (batch, ...); half precision is computed in float32.
            eta: Ignored with a warning unless it is 0: a move up draws no noise.
            use_clipped_model_output: Not used: nothing is clipped.
            generator: Not used: there is no noise.
            variance_noise: Not used, for the same reason.
            return_dict: Whether the result has a name or is a tuple of one.
            **others: What other schedulers take, such as s_churn; ignored with a warning where it is set.

        Raises:
            ArgumentError: Before `set_timesteps`, after the last move, or for an output of another shape.
        """
        self._ignore({"eta": eta, **{name: value for name, value in others.items() if name not in _OF_NOISE}})
        index = self._index(timestep)
        output = model_output
        if sample.ndim > 1 and output.shape == (len(sample), 2 * sample.shape[1], *sample.shape[2:]):
            output = output[:, : sample.shape[1]]
        if output.shape != sample.shape:
            raise ArgumentError(f"expected an output of the sample's shape {tuple(sample.shape)}, given {tuple(output.shape)}")
        wide = torch.promote_types(sample.dtype, torch.float32)
        moved = self._method.step(
            lambda x, level: to_eps(output.to(wide), x, level, self._prediction), sample.to(wide), self._moves[index]
        )
        self.step_index = index + 1
        state = moved.x.to(sample.dtype)
        return SchedulerOutput(prev_sample=state) if return_dict else (state,)

    def _ignore(self, given: Mapping[str, Any]) -> None:
        """Warn of the arguments that would change a sampler's result, each once."""
        for name, value in given.items():
            if not (value is None or (isinstance(value, (int, float)) and not value) or name in self._warned):
                self._warned.add(name)
                said = value if isinstance(value, (int, float, str)) else type(value).__name__
                warn(f"{type(self).__name__}.step ignores {name}={said}: its moves are those of DDIM")

    def _index(self, timestep: Tensor | float) -> int:
        """Which move it is: counted, because a timestep may come twice (the clean level and the first trained one are 0)."""
        if self.num_inference_steps is None:
            raise ArgumentError("this scheduler has no timesteps yet: call set_timesteps first")
        index = self.begin_index if self.step_index is None else self.step_index
        if index is None:
            places = (self.timesteps == torch.as_tensor(timestep).to(self.timesteps.device).flatten()[0]).nonzero()
            if not len(places):
                raise ArgumentError(f"timestep {timestep} is none of this scheduler's: walk through its timesteps in order")
            index = int(places[0])
        if not 0 <= index < len(self._moves):
            raise ArgumentError(f"all {len(self._moves)} moves are made: call set_timesteps before another walk")
        return index

    def forward_start(self, x0: Tensor, noise: Tensor) -> Tensor:
        """The states to begin with (docs/theory.md, eq. 6): `x0` noised to the level that the first move leaves from.

        That is one level below the one that the first of `timesteps` names, unless eval_at is "source". Without
        `forward_steps` it is `x0` itself.

        Args:
            x0: Clean states, any shape.
            noise: Standard normal, of the same shape.

        Raises:
            ArgumentError: Before `set_timesteps`, which is what decides the levels, or for noise of another shape.
        """
        if self.num_inference_steps is None:
            raise ArgumentError("the level of a forward start depends on the number of steps: call set_timesteps first")
        if noise.shape != x0.shape:
            raise ArgumentError(f"expected noise of the shape {tuple(x0.shape)} of x0, given {tuple(noise.shape)}")
        return self._at_move(0, x0, noise)

    def _at_move(self, index: int, x0: Tensor, noise: Tensor) -> Tensor:
        """`x0` noised to where a move begins, or the last one ends; as it is at the clean end."""
        is_image = index + self.config.forward_steps == 0
        return x0 if is_image else transfer(x0, noise, Step(CLEAN, self._levels[index]))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor | float) -> Tensor:
        """`original_samples` with `noise` at the levels of `timesteps`, one or one per item.

        In a pipeline that has set where the scheduler begins (image to image), at the level that its first move leaves
        from, whatever the timestep; at the level that the timestep names, they would be one too far.
        """
        if self.begin_index is not None and self._levels:
            return self._at_move(self.begin_index if self.step_index is None else self.step_index, original_samples, noise)
        count, times = len(original_samples), torch.as_tensor(timesteps).to(self._dtype).flatten().tolist()
        if len(times) not in (1, count):
            raise ArgumentError(
                f"expected one timestep or one per item: {counted(count, 'item')}, {counted(len(times), 'timestep')}"
            )
        moves = [Step(CLEAN, self._schedule.level(t)) for t in times] * (count // len(times))
        return torch.stack([transfer(x, eps, move) for x, eps, move in zip(original_samples, noise, moves, strict=True)])
