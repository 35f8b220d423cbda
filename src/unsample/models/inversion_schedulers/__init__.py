"""Inversion schedulers: put one in a diffusers pipeline, give it a clean latent, and the pipeline's own loop inverts.

    pipe.scheduler = DDIMInversionScheduler.from_config(pipe.scheduler.config)
    noise = pipe(prompt, latents=x0, guidance_scale=1, output_type="latent").images

They lay out moves on a `Grid`; their base class counts them and `DDIM` makes them. They are classes of diffusers, so importing
this module imports diffusers, and no other module imports this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

from ...core.ddim import EvalAt
from ...core.grid import Grid, Step
from ...core.prediction import Prediction
from ...core.schedule import FlowSchedule
from ...errors import ArgumentError, UnknownNameError
from ..scheduler_config import flow_schedule_of, schedule_of
from .base import InversionScheduler

__all__ = ["DDIMInversionScheduler", "FlowMatchInversionScheduler", "Moves"]

Moves = Literal["grid", "ddim"]
"""From each level of the grid to the next, or the moves that diffusers' `DDIMScheduler` makes, the other way round."""

Floats = Sequence[float] | npt.NDArray[np.floating[Any]]


class DDIMInversionScheduler(InversionScheduler):
    """DDIM inversion of a model trained on a table of betas, for any pipeline of diffusers.

    Made from the config of any scheduler of betas: what counts is what `DDIMScheduler.from_config` makes of it. Settings that
    clip or threshold x0 are kept in the config and not used, because what they clip cannot be undone; neither are the levels
    that other samplers place by themselves, such as Karras sigmas.

    Args:
        num_train_timesteps: T, the trained timesteps.
        beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: The table.
        set_alpha_to_one: The clean end has alpha_bar 1 rather than the first trained value.
        steps_offset: Added to the timesteps of leading spacing.
        prediction_type: What the network predicts: `epsilon`, `v_prediction` or `sample`.
        timestep_spacing: `leading`, `trailing` or `linspace`.
        forward_steps: k; the first k moves are left out, and `forward_start` takes their place.
        eval_at: The level whose time the network is given: the `target` of the move, or its `source`; or `target_time`, which
            converts v and x0 predictions as diffusers' inverse scheduler does.
        moves: `grid`, or `ddim` to undo diffusers' `DDIMScheduler` where it leaves its own grid: linspace spacing, trailing
            with steps that do not divide T, and offsets of T // N or more.

    Raises:
        ArgumentError: A setting out of range.
        ModelError: A config without betas.

    >>> scheduler = DDIMInversionScheduler(forward_steps=1)
    >>> scheduler.set_timesteps(5)
    >>> scheduler.timesteps
    tensor([200, 400, 600, 800])
    """

    _compatibles = [kind.name for kind in KarrasDiffusionSchedulers]  # noqa: RUF012

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Floats | None = None,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
        forward_steps: int = 0,
        eval_at: EvalAt = "target",
        moves: Moves = "grid",
    ) -> None:
        schedule = schedule_of(self.config)
        kind: Any = prediction_type
        for name, given, known in (("prediction type", kind, get_args(Prediction)), ("moves", moves, get_args(Moves))):
            if given not in known:
                raise UnknownNameError(name, given, known)
        self._set_up(schedule, kind)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **settings: Any) -> Any:
        """A scheduler of the config of another, with `settings` of its own: forward_steps, eval_at, moves.

        Raises:
            ModelError: A config without betas, such as a flow scheduler's.
        """
        if isinstance(config, Mapping):
            schedule_of(config)
        return super().from_config(config, return_unused_kwargs, **settings)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Lay out the moves of N steps, of which the first `forward_steps` are not made, with `timesteps` on `device`.

        Raises:
            ArgumentError: Fewer steps than `forward_steps`, or more than were trained.
        """
        config = self.config
        grid = Grid.of(
            self._schedule,
            num_inference_steps,
            spacing=config.timestep_spacing,
            steps_offset=config.steps_offset,
            clean="one" if config.set_alpha_to_one else "first",
        )
        moves = list(grid.up())
        self._follow(grid, moves if config.moves == "grid" else [self._of_ddim(grid, move) for move in moves], device)

    def _of_ddim(self, grid: Grid, move: Step) -> Step:
        """To the same level, from the one T // N timesteps below, wherever the grid's is; below 0 is the clean end."""
        t = int(move.dst.t) - len(self) // grid.steps
        return Step(self._schedule.level(t, move.src.index) if t >= 0 else grid[0], move.dst)


class FlowMatchInversionScheduler(InversionScheduler):
    """Inversion of a flow model by Euler steps, for any pipeline of diffusers with a `FlowMatchEulerDiscreteScheduler`.

    Args:
        num_train_timesteps: The time that the network is given at t = 1.
        shift: Moves levels towards noise.
        use_dynamic_shifting: The shift is not `shift` but comes from mu, which pipelines make of the image's size.
        base_shift, max_shift, base_image_seq_len, max_image_seq_len: Kept for pipelines, which read them.
        time_shift_type: The shift is exp(mu), `exponential`, or mu, `linear`.
        forward_steps: k; the first k moves are left out, and `forward_start` takes their place.
        eval_at: The level whose time the network is given: the `target` of the move, or its `source`.

    Raises:
        ArgumentError: A setting out of range.

    >>> scheduler = FlowMatchInversionScheduler(shift=3.0)
    >>> scheduler.set_timesteps(4)
    >>> scheduler.timesteps
    tensor([   8.9286,  602.1505,  857.6923, 1000.0000])
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        time_shift_type: str = "exponential",
        forward_steps: int = 0,
        eval_at: EvalAt = "target",
    ) -> None:
        if time_shift_type not in ("exponential", "linear"):
            raise UnknownNameError("time_shift_type", time_shift_type, ("exponential", "linear"))
        self._set_up(FlowSchedule(num_train_timesteps, shift), "flow")

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **settings: Any) -> Any:
        """A scheduler of the config of diffusers' flow scheduler, with `settings` of its own: forward_steps, eval_at.

        Raises:
            ModelError: A config of another scheduler, or with settings that change its levels in other ways.
        """
        if isinstance(config, Mapping) and config.get("_class_name") != cls.__name__:
            flow_schedule_of({**config, "use_dynamic_shifting": False})
        return super().from_config(config, return_unused_kwargs, **settings)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Floats | None = None,
        mu: float | None = None,
    ) -> None:
        """Lay out the moves of N steps, of which the first `forward_steps` are not made. Pipelines know what to give.

        Args:
            num_inference_steps: N.
            device: Where `timesteps` shall be.
            sigmas: Instead of N: levels t in (0, 1], falling, before they are shifted.
            mu: Of a dynamic shift; not used with a fixed one.

        Raises:
            ArgumentError: Fewer steps than `forward_steps`, sigmas that do not fall, or no mu where it is needed.
        """
        schedule = self._shifting(mu)
        if sigmas is None:
            grid = Grid.of(schedule, num_inference_steps)  # type: ignore[arg-type]
        else:
            falling = [float(sigma) for sigma in sigmas]
            falls = all(a > b for a, b in pairwise((*falling, 0.0))) and falling and falling[0] <= 1
            if not falls or num_inference_steps not in (None, len(falling)):
                count = num_inference_steps or "some"
                raise ArgumentError(f"expected {count} sigmas that fall within (0, 1], given {falling}")
            grid = Grid.from_sigmas(schedule, [schedule.shifted(sigma) for sigma in reversed(falling)])
        self._follow(grid, list(grid.up()), device)

    def _shifting(self, mu: float | None) -> FlowSchedule:
        """The schedule of the config's own shift, or of the one that mu stands for."""
        config = self.config
        if not config.use_dynamic_shifting:
            return FlowSchedule(config.num_train_timesteps, config.shift)
        if mu is None:
            raise ArgumentError("expected mu, because this config has use_dynamic_shifting: give set_timesteps the pipeline's")
        return FlowSchedule(config.num_train_timesteps, exp(mu) if config.time_shift_type == "exponential" else mu, "trained")

    def scale_noise(self, sample: Tensor, timestep: Tensor | float, noise: Tensor) -> Tensor:
        """`add_noise`, as pipelines of flow models call it."""
        return self.add_noise(sample, noise, timestep)
