"""FLUX.1 (Black Forest Labs 2024): a flow model, a transformer on 2x2 patches of the latents of a KL codec.

The network takes a prompt as T5's tokens and one vector pooled by CLIP. FLUX dev is distilled: it takes guidance as a number.
FLUX schnell takes none, and is guided as other models are, away from the prompt "".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ...core.model import Model
from ...errors import ModelError
from ..scheduler_config import read_scheduler
from .autoencoder import AutoencoderCodec
from .live import evaluated
from .prompts import Embedding, PromptConditioner
from .shapes import Size, state_shape


@dataclass(frozen=True)
class PackedTransformer:
    """A diffusers `FluxTransformer2DModel` as a network of states (batch, channels, height, width), their sides even.

    Attributes:
        transformer: It takes tokens, one for each 2x2 patch.
        guidance: The number it takes as its guidance; None for a network that takes none.
    """

    transformer: Any
    guidance: float | None = None

    def guided(self, guidance: float) -> PackedTransformer:
        """The same network with this guidance."""
        return replace(self, guidance=guidance)

    def __call__(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Velocity, of `x`'s shape and dtype, at times in 0..1000."""
        dtype = self.transformer.dtype
        patches = pixel_unshuffle(x.to(dtype), 2)
        text = condition["tokens"].to(dtype)
        output: Tensor = evaluated(
            self.transformer,
            hidden_states=patches.flatten(2).transpose(1, 2),
            timestep=t.to(dtype) / 1000,  # rounded, then divided, as the pipeline does
            guidance=None if self.guidance is None else torch.full((len(x),), self.guidance, device=x.device),
            pooled_projections=condition["pooled"].to(dtype),
            encoder_hidden_states=text,
            txt_ids=torch.zeros((text.shape[1], 3), device=x.device),
            img_ids=_places(patches.shape[2], patches.shape[3], x.device),
            return_dict=False,
        )[0]
        return pixel_shuffle(output.transpose(1, 2).reshape(patches.shape), 2).to(x.dtype)


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of a `FluxPipeline`."""
    transformer, codec = pipeline.transformer, AutoencoderCodec.of(pipeline.vae)
    inputs, outputs = transformer.config.in_channels, transformer.out_channels
    if outputs != inputs or inputs % 4:
        raise ModelError(
            f"the network maps {inputs} to {outputs} channels; expected as many, four to a latent's: "
            "networks for inpainting or control images are not inverted"
        )
    shape = state_shape(size, inputs // 4, pipeline.default_sample_size, multiple=2, scale=codec.scale)
    distilled = bool(transformer.config.guidance_embeds)
    return Model(
        network=PackedTransformer(transformer, 1.0 if distilled else None),
        shape=shape,
        codec=codec,
        conditioner=PromptConditioner(partial(_encode, pipeline)),
        distilled=distilled,
        **read_scheduler(pipeline.scheduler, flow=True, tokens=(shape[1] // 2) * (shape[2] // 2), even=True),
    )


def _encode(pipeline: Any, prompt: str | None) -> Embedding:
    tokens, pooled, _ = pipeline.encode_prompt(prompt or "", device=pipeline._execution_device)
    return {"tokens": tokens, "pooled": pooled}


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each patch is: (0, row, column), shape (rows * columns, 3)."""
    down, across = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return torch.cartesian_prod(torch.zeros(1, device=device), down.float(), across.float())
