"""Pixel-space U-Nets of diffusers: `UNet2DModel` with a DDPM or DDIM scheduler, unconditional or class-conditional."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..errors import ArgumentError, ModelError, UnknownNameError
from ..grid import Grid
from ..model import ClassConditioner, Model
from ..prediction import Prediction
from ..schedule import Schedule

__all__ = ["load_pixel"]


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
            table = {"class_embedding.weight": condition.to(self.unet.dtype)}
            labels = torch.arange(len(condition), device=condition.device)
            options = {"class_labels": labels, "return_dict": False}
            output = torch.func.functional_call(self.unet, table, (state, t), options)[0]
        else:
            output = self.unet(state, t, class_labels=condition, return_dict=False)[0]
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


def load_pixel(
    source: str,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    revision: str | None = None,
) -> Model:
    """A model from a diffusers pipeline directory or hub name with `unet/` and `scheduler/`.

    A `classes.json` beside them, {"names": [...], "null": index}, names the classes and the unconditional one; without it
    the classes are numbered and none is taken to be unconditional.

    Raises:
        ModelError: A part is missing, damaged or of another family.
    """
    from diffusers import DDIMScheduler, UNet2DModel

    try:
        config = DDIMScheduler.load_config(source, subfolder="scheduler", revision=revision)
        unet, loading = UNet2DModel.from_pretrained(
            source,
            subfolder="unet",
            revision=revision,
            use_safetensors=True,
            torch_dtype=dtype,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:  # diffusers, safetensors, torch and the hub each raise their own
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"cannot load {source!r} as a pixel diffusion model (expected unet/ with a UNet2DModel in safetensors and "
            f"scheduler/scheduler_config.json): {reason}"
        ) from None
    astray = [str(key) for keys in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in loading[keys]]
    if astray:  # diffusers would leave these at random
        raise ModelError(f"cannot load {source!r}: its weights do not fit its config.json at {', '.join(astray)[:300]}")
    unet = unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    channels = unet.config.in_channels
    if unet.config.out_channels not in (channels, 2 * channels):
        raise ModelError(
            f"{source!r} maps {channels} to {unet.config.out_channels} channels; "
            f"expected {channels}, or {2 * channels} with a learned variance"
        )
    return Model(
        network=UNet2D(unet, channels),
        shape=(channels, height, width),
        conditioner=_conditioner(source, unet.config.num_class_embeds),
        **_sampler(source, config),
        device=device,
        name=name,
        digest=digest_of(unet),
    )


def _sampler(source: str, config: Any) -> dict[str, Any]:
    """Schedule, prediction and grid settings of a scheduler's config, checked while it is known where they came from."""
    try:
        schedule, prediction = Schedule.from_config(config), config.get("prediction_type", "epsilon")
        if prediction not in get_args(Prediction):
            raise UnknownNameError("prediction type", prediction, get_args(Prediction))
        grid: dict[str, Any] = {
            "spacing": config.get("timestep_spacing", "leading"),
            "steps_offset": config.get("steps_offset", 0),
            "clean": "one" if config.get("set_alpha_to_one", True) else "first",
        }
        Grid.of(schedule, 1, **grid)
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot use the scheduler of {source!r}: {reason}") from None
    return {"schedule": schedule, "prediction": prediction, **grid}


def digest_of(module: torch.nn.Module) -> str:
    """A name for a network's exact weights."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _conditioner(source: str, classes: int | None) -> ClassConditioner | None:
    """The names a directory gives its classes, or their numbers."""
    if classes is None:
        return None
    file = Path(source) / "classes.json"
    if not file.is_file():
        return ClassConditioner(tuple(str(i) for i in range(classes)), null=None)
    try:
        given = json.loads(file.read_text())
        names, null = tuple(map(str, given["names"])), given["null"]
        if len(names) > classes or not (null is None or 0 <= null < classes):
            raise ValueError(f"it names {len(names)} classes, the network has {classes}")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f'{file} is damaged: expected {{"names": [...], "null": index}} ({error})') from None
    return ClassConditioner(names, null)
