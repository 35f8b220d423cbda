"""Score-based U-Nets with exploding variance (NCSN++, Song et al. 2021): x0 + s noise, s up to a thousand, images in [0, 1].

Divided by sqrt(1 + s^2) their states are those of any other model, with alpha_bar = 1 / (1 + s^2), and the score they predict
is -eps / s. So they walk the same grid by the same `transfer`: what diffusers samples by random steps here goes by DDIM's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._tensors import Images
from ...core.model import Model
from ...core.schedule import Schedule
from ...errors import ModelError
from .live import evaluated
from .shapes import Size, halvings, state_shape


@dataclass(frozen=True, eq=False)
class Score:
    """A diffusers `UNet2DModel` that predicts the score, as a network that predicts eps.

    Attributes:
        unet: It takes a state of unscaled signal, and its s.
        ratios: s at every timestep of the table, shape (timesteps,).
    """

    unet: Any
    ratios: Tensor

    def __call__(self, x: Tensor, t: Tensor, condition: None) -> Tensor:
        """Eps of `x`'s shape and dtype."""
        s = self.ratios.to(x)[t]
        wide = s[:, None, None, None]
        state, dtype = (1 + wide**2).sqrt() * x, self.unet.dtype
        score: Tensor = evaluated(self.unet, state.to(dtype), s.to(dtype), return_dict=False)[0]
        return -wide * score.to(x.dtype)


@dataclass(frozen=True)
class UnitInterval:
    """Images in [-1, 1] to states in [0, 1] and back."""

    scale: int = 1

    def encode(self, images: Images) -> Images:
        """(images + 1) / 2."""
        return (images + 1) / 2

    def decode(self, latents: Images) -> Images:
        """2 latents - 1."""
        return 2 * latents - 1


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of a `ScoreSdeVePipeline`."""
    unet, config = pipeline.unet, pipeline.scheduler.config
    if not config.get("sigma_max") or (config.get("sigma_min") or 0) <= 0:  # others have them too, as None
        raise ModelError(
            f"expected a ScoreSdeVeScheduler with sigma_min and sigma_max, given {type(pipeline.scheduler).__name__}"
        )
    if unet.config.time_embedding_type != "fourier":
        raise ModelError("expected a network that takes the noise itself (time_embedding_type fourier), given another")
    ratios = np.geomspace(config.sigma_min, config.sigma_max, config.num_train_timesteps)
    return Model(
        network=Score(unet, torch.from_numpy(ratios)),
        schedule=Schedule(tuple((1 / (1 + ratios**2)).tolist())),
        shape=state_shape(size, unet.config.in_channels, unet.config.sample_size, multiple=halvings(unet.config)),
        codec=UnitInterval(),
        spacing="linspace",
    )
