"""Pixel-space U-Nets of diffusers: `UNet2DModel` with a scheduler of betas or of flow matching, class-conditional or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.model import ClassConditioner, Model
from ...errors import ArgumentError
from ..scheduler_config import read_scheduler
from .live import LookedUp, evaluated
from .shapes import Size, halvings, noise_channels, state_shape


@dataclass(frozen=True)
class UNet2D:
    """A diffusers `UNet2DModel` as a network: casts to its own dtype and back, drops a learned variance."""

    unet: Any
    channels: int

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Raw prediction of `x`'s shape and dtype; a floating condition is an embedding, (batch, dim), as of `embed`."""
        state = x.to(self.unet.dtype, memory_format=torch.channels_last)
        output: Tensor
        if condition is not None and condition.is_floating_point():  # a table of classes in which item i is class i
            labels = torch.arange(len(condition), device=condition.device)
            with LookedUp({id(self.unet.class_embedding.weight): condition.to(self.unet.dtype)}):
                output = evaluated(self.unet, state, t, class_labels=labels, return_dict=False)[0]
        else:
            output = evaluated(self.unet, state, t, class_labels=condition, return_dict=False)[0]
        return output[:, : self.channels].to(x.dtype).contiguous()

    def embed(self, labels: Tensor) -> Tensor:
        """The embeddings of class indices, (batch, dim), in the network's dtype.

        Raises:
            ArgumentError: A network that computes them instead of looking them up.
        """
        table = self.unet.class_embedding
        if not isinstance(table, torch.nn.Embedding):
            raise ArgumentError(f"expected a network with a table of classes, given one with {type(table).__name__}")
        return table.weight.detach()[labels]


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of a `DDPMPipeline` or `DDIMPipeline`; its classes are numbered, and none is taken to be unconditional."""
    unet, config = pipeline.unet, pipeline.unet.config
    channels = noise_channels(config.in_channels, config.out_channels)
    names = None if config.num_class_embeds is None else tuple(str(i) for i in range(config.num_class_embeds))
    return Model(
        network=UNet2D(unet, channels),
        shape=state_shape(size, channels, config.sample_size, multiple=halvings(config)),
        conditioner=None if names is None else ClassConditioner(names, null=None),
        **read_scheduler(pipeline.scheduler, flow=None),
    )
