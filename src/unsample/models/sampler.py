"""A diffusers scheduler, read: the schedule a network was trained on and the levels its own DDIM sampler visits."""

from __future__ import annotations

from typing import Any, get_args

from ..errors import ModelError, UnknownNameError
from ..grid import Grid
from ..prediction import Prediction
from ..schedule import FlowSchedule, Schedule

__all__ = ["flow_of", "sampler_of"]


def sampler_of(scheduler: Any) -> dict[str, Any]:
    """Fields of a `Model`: schedule, prediction, spacing, steps_offset, clean, and notes of what is ignored.

    Any scheduler built on betas will do: what counts is what diffusers' `DDIMScheduler.from_config` makes of its config.

    Raises:
        ModelError: A scheduler without betas, or with settings that make no grid.
    """
    from diffusers import DDIMScheduler

    kind = type(scheduler).__name__
    if "beta_schedule" not in scheduler.config:
        raise ModelError(f"cannot use the scheduler {kind}: expected one with betas, as DDIMScheduler has")
    try:
        config = DDIMScheduler.from_config(scheduler.config).config
        schedule, prediction = Schedule.from_config(config), config["prediction_type"]
        if prediction not in get_args(Prediction):
            raise UnknownNameError("prediction type", prediction, get_args(Prediction))
        grid: dict[str, Any] = {
            "spacing": config["timestep_spacing"],
            "steps_offset": config["steps_offset"],
            "clean": "one" if config["set_alpha_to_one"] else "first",
        }
        Grid.of(schedule, 1, **grid)
    except (ValueError, TypeError, AttributeError, NotImplementedError, ModelError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot use the scheduler {kind}: {reason}") from None
    notes = tuple(
        f"the scheduler's {name} is ignored: what it clips cannot be undone"
        for name in ("clip_sample", "thresholding")
        if config[name]
    )
    return {"schedule": schedule, "prediction": prediction, **grid, "notes": notes}


def flow_of(scheduler: Any, tokens: int, *, even: bool = False) -> FlowSchedule:
    """The schedule of a flow-matching scheduler; `tokens` and `even` are those of `FlowSchedule.from_config`.

    Raises:
        ModelError: Another scheduler, or one with options that change its levels.
    """
    config = {**scheduler.config, "_class_name": type(scheduler).__name__}
    return FlowSchedule.from_config(config, tokens=tokens, even=even)
