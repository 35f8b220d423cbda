"""Inversion schedulers: put one in a diffusers pipeline, give it a clean latent, and the pipeline's own loop inverts.

    pipe.scheduler = DDIMInversionScheduler.from_config(pipe.scheduler.config)
    noise = pipe(prompt, latents=x0, guidance_scale=1, output_type="latent").images

They lay out moves on a `Grid`; their base class counts them and `DDIM` makes them. They are classes of diffusers, so importing
this module imports diffusers, and no other module imports this one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from math import exp
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

from ..._arguments import warn
from ...core.ddim import EvalAt
from ...core.grid import Clean, Grid, Step
from ...core.prediction import Prediction
from ...core.schedule import FlowSchedule, Schedule
from ...errors import ArgumentError, UnknownNameError
from ..scheduler_config import flow_schedule_of, schedule_of
from ..scheduler_settings import CLIPPING
from .arguments import refuse_others, rising
from .base import InversionScheduler

__all__ = ["DDIMInversionScheduler", "FlowMatchInversionScheduler", "Moves"]

Moves = Literal["grid", "ddim"]
"""From each level of the grid to the next, or the moves that diffusers' `DDIMScheduler` makes, the other way round."""

Floats = Sequence[float] | npt.NDArray[np.floating[Any]]

_DEFAULTS = "_use_default_values"
"""Where a config of diffusers lists the settings nobody gave, which `from_config` takes the new class's defaults for."""


_OF_THE_NETWORK = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
    "prediction_type",
)
"""Settings that say what the network was trained on."""


class DDIMInversionScheduler(InversionScheduler):
    """DDIM inversion of a model trained on a table of betas, for any pipeline of diffusers.

    Made from the config of any scheduler of betas: its table counts, and what `DDIMScheduler.from_config` makes of the rest.
    Not used are the levels that other samplers place by themselves, such as Karras sigmas.

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
        clip_sample, thresholding: False, as what they clip cannot be undone; `from_config` leaves them out with a warning.
        clip_sample_range, dynamic_thresholding_ratio, sample_max_value: Kept for the samplers that are made of this config.

    Raises:
        ArgumentError: A setting out of range, or one that clips.
        ModelError: A config without betas.

    >>> scheduler = DDIMInversionScheduler(forward_steps=1)
    >>> scheduler.set_timesteps(5)
    >>> scheduler.timesteps
    tensor([200, 400, 600, 800])
    """

    _compatibles = [kind.name for kind in KarrasDiffusionSchedulers if kind.name != "EDMEulerScheduler"]  # noqa: RUF012
    _schedule: Schedule

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
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
    ) -> None:
        clips = [name for name in CLIPPING if self.config[name]]
        if clips:
            raise ArgumentError(f"expected {clips[0]}=False, given True: what it clips cannot be undone, so leave it out")
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
        if not isinstance(config, Mapping):
            return super().from_config(config, return_unused_kwargs, **settings)
        schedule_of(config)
        clips = {name: True for name in CLIPPING if config.get(name) and name not in settings}
        kept = {name: value for name, value in _with_its_table(config, cls).items() if name not in clips}
        made = super().from_config(kept, return_unused_kwargs, **settings)
        if clips:
            warn(f"{cls.__name__} leaves out {' and '.join(clips)}: what it clips cannot be undone")
            scheduler = made[0] if return_unused_kwargs else made
            defaults = [name for name in scheduler.config[_DEFAULTS] if name not in clips]
            scheduler.register_to_config(**clips, **{_DEFAULTS: defaults})  # for the samplers that are made of this config
        return made

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha_bar at every trained timestep, in float32."""
        return torch.tensor(self._schedule.alpha_bar, dtype=torch.float32)

    @property
    def betas(self) -> Tensor:
        """Beta at every trained timestep, in float32."""
        table = np.asarray(self._schedule.alpha_bar)
        return torch.tensor(1 - table / np.concatenate(([1.0], table[:-1])), dtype=torch.float32)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Iterable[float] | Tensor | None = None,
        **others: Any,
    ) -> None:
        """Lay out the moves of N steps, of which the first `forward_steps` are not made, with `timesteps` on `device`.

        Args:
            num_inference_steps: N.
            device: Where `timesteps` shall be.
            timesteps: Instead of N: trained timesteps that fall, as the sampler visits them.
            **others: Refused, but for None: sigmas and mu of other schedulers.

        Raises:
            ArgumentError: Fewer steps than `forward_steps`, more than were trained, or timesteps that do not fall.
        """
        config = self.config
        refuse_others(others, "num_inference_steps or timesteps")
        clean: Clean = "one" if config.set_alpha_to_one else "first"
        if timesteps is None:
            steps: Any = num_inference_steps
            spacing, offset = config.timestep_spacing, config.steps_offset
            grid = Grid.of(self._schedule, steps, spacing=spacing, steps_offset=offset, clean=clean)
        elif config.moves == "ddim":
            raise ArgumentError("moves='ddim' undoes DDIMScheduler, which takes no timesteps: give num_inference_steps")
        else:
            trained = range(len(self))
            times = rising("timesteps", timesteps, num_inference_steps, trained.__contains__, f"0..{trained[-1]}")
            grid = Grid.from_timesteps(self._schedule, times, clean=clean)
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
        shift_terminal, use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, invert_sigmas, stochastic_sampling: Only
            None or False, because they change levels or moves.
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

    _compatibles = ["FlowMatchEulerDiscreteScheduler"]  # noqa: RUF012

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
        shift_terminal: float | None = None,
        use_karras_sigmas: bool | None = False,
        use_exponential_sigmas: bool | None = False,
        use_beta_sigmas: bool | None = False,
        invert_sigmas: bool = False,
        stochastic_sampling: bool = False,
    ) -> None:
        if time_shift_type not in ("exponential", "linear"):
            raise UnknownNameError("time_shift_type", time_shift_type, ("exponential", "linear"))
        self._set_up(flow_schedule_of({**self.config, "use_dynamic_shifting": False}), "flow")

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **settings: Any) -> Any:
        """A scheduler of the config of diffusers' flow scheduler, with `settings` of its own: forward_steps, eval_at.

        Raises:
            ModelError: A config of another scheduler, or with settings that change its levels in other ways.
        """
        if isinstance(config, Mapping):
            flow_schedule_of({**config, "use_dynamic_shifting": False})
        return super().from_config(config, return_unused_kwargs, **settings)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Iterable[float] | Tensor | None = None,
        mu: float | None = None,
        **others: Any,
    ) -> None:
        """Lay out the moves of N steps, of which the first `forward_steps` are not made. Pipelines know what to give.

        Args:
            num_inference_steps: N.
            device: Where `timesteps` shall be.
            sigmas: Instead of N: levels t in (0, 1], falling, before they are shifted.
            mu: Of a dynamic shift; not used with a fixed one.
            **others: Refused, but for None: timesteps, which diffusers' scheduler gives the network unshifted.

        Raises:
            ArgumentError: Fewer steps than `forward_steps`, sigmas that do not fall, or no mu where it is needed.
        """
        refuse_others(others, "num_inference_steps or sigmas")
        schedule = self._shifting(mu)
        if sigmas is None:
            grid = Grid.of(schedule, num_inference_steps)  # type: ignore[arg-type]
        else:
            levels = rising("sigmas", sigmas, num_inference_steps, lambda sigma: 0 < sigma <= 1, "(0, 1]")
            grid = Grid.from_sigmas(schedule, [schedule.shifted(sigma) for sigma in levels])
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


def _with_its_table(config: Mapping[str, Any], cls: type[Any]) -> dict[str, Any]:
    """The config with the betas of its own class even where nobody gave them: `from_config` would take those of `cls`.

    The defaults of LCMScheduler, for one, are another table.
    """
    ours = {name: parameter.default for name, parameter in inspect.signature(cls.__init__).parameters.items()}
    same = [name for name in config.get(_DEFAULTS, ()) if name not in _OF_THE_NETWORK or config.get(name) == ours[name]]
    return {**config, _DEFAULTS: same}
