"""A diffusers scheduler, read: the schedule a network was trained on and the levels its own sampler visits.

Some networks come with either kind of scheduler, one of betas or one of flow matching: `either_of` tells them apart.
"""

from __future__ import annotations

from typing import Any, get_args

from ..core.grid import Grid
from ..core.prediction import Prediction
from ..core.schedule import FlowSchedule, Schedule
from ..errors import ModelError, UnknownNameError

__all__ = ["either_of", "flow_of", "sampler_of"]


def either_of(scheduler: Any, tokens: int | None = None) -> dict[str, Any]:
    """Fields of a `Model`: those of `sampler_of`, or, with a flow-matching scheduler, schedule and prediction of a flow model.

    Its network then predicts the velocity and is told 1000 t. Diffusers' own pipelines of these networks cannot sample with
    such a scheduler; what counts is the scheduler's own Euler step.

    Args:
        scheduler: One of betas, or a `FlowMatchEulerDiscreteScheduler`.
        tokens: How many the network makes of a state, on which a dynamic shift depends; None for a network without tokens.

    Raises:
        ModelError: Another scheduler, settings that make no grid, or a dynamic shift without tokens.
    """
    if "FlowMatch" not in type(scheduler).__name__:
        return sampler_of(scheduler)
    if tokens is None and scheduler.config.get("use_dynamic_shifting"):
        raise ModelError("a U-Net has no tokens for its scheduler's use_dynamic_shifting to count: give a fixed shift")
    return {"schedule": flow_of(scheduler, tokens), "prediction": "flow"}


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
    if "base_image_seq_len" in scheduler.config:  # DDIMPipeline does so without a word
        raise ModelError(f"the pipeline has made a {kind} of a flow-matching scheduler: save the network as a DDPMPipeline")
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
        if scheduler.config.get(name)  # not of `config`, where DDIMScheduler's defaults stand for what others lack
    )
    return {"schedule": schedule, "prediction": prediction, **grid, "notes": notes}


def flow_of(scheduler: Any, tokens: int | None, *, even: bool = False) -> FlowSchedule:
    """The schedule of a flow-matching scheduler; `tokens` and `even` are those of `FlowSchedule.from_config`.

    Raises:
        ModelError: Another scheduler, or one with options that change its levels.
    """
    config = {**scheduler.config, "_class_name": type(scheduler).__name__}
    return FlowSchedule.from_config(config, tokens=tokens, even=even)
