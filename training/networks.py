"""The networks that can be trained: made from a recipe, loaded to start from, saved as a diffusers pipeline.

Both kinds are called with (state, time, class) and saved as the directory that `unsample.load` takes: a U-Net on images as a
`DDIMPipeline`, a U-Net on latents as an `LDMPipeline`, a transformer as a `DiTPipeline`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    ModelMixin,
    UNet2DModel,
)
from recipe import Recipe, RecipeError
from torch import Tensor, nn

KINDS = {"UNet2DModel": ("unet", UNet2DModel), "DiTTransformer2DModel": ("transformer", DiTTransformer2DModel)}
"""Kind -> its part of a pipeline, and its class."""


def build(recipe: Recipe) -> ModelMixin:
    """A network with random weights.

    Raises:
        RecipeError: A kind that is not known, or arguments that it does not take.
    """
    _, kind = part_of(recipe.kind)
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    unknown = sorted(set(recipe.arguments) - known)
    if unknown:
        raise RecipeError(f"[model] has no {', '.join(unknown)}: expected arguments of {recipe.kind}")
    classes = "num_class_embeds" if recipe.kind == "UNet2DModel" else "num_embeds_ada_norm"
    missing = [name for name in ("sample_size", classes) if name not in recipe.model]
    if missing:
        raise RecipeError(f"[model] lacks {', '.join(missing)}")
    try:
        network = kind(**recipe.arguments)
    except (TypeError, ValueError, NotImplementedError, ArithmeticError, LookupError) as error:
        raise RecipeError(f"[model] makes no {recipe.kind}: {' '.join(str(error).split())[:200]}") from None
    if isinstance(network, DiTTransformer2DModel):
        _start_as_identity(network)
    return _told_every_class(network)


def load_network(recipe: Recipe, folder: Path) -> ModelMixin:
    """The network of a pipeline directory, or of a directory of its own, to go on from.

    Raises:
        RecipeError: It is not the recipe's.
    """
    network = read_network(recipe.kind, folder)
    own = {key: network.config.get(key) for key in recipe.arguments}
    astray = [key for key, value in recipe.arguments.items() if _plain(own[key]) != _plain(value)]
    if astray:
        raise RecipeError(f"{folder} is another network than the recipe's: they differ at {', '.join(astray)}")
    return _told_every_class(network)


def part_of(kind: str) -> tuple[str, type[ModelMixin]]:
    """What a kind of network is called in a pipeline, and its class.

    Raises:
        RecipeError: A kind that is not known.
    """
    if kind not in KINDS:
        raise RecipeError(f"[model] kind is {kind!r}: expected {' or '.join(KINDS)}")
    return KINDS[kind]


def read_network(kind: str, folder: Path) -> ModelMixin:
    """The network of this kind in a pipeline directory, or in a directory of its own, in float32.

    Raises:
        RecipeError: There is none, or no such kind.
    """
    part, network = part_of(kind)
    place = folder / part if (folder / part).is_dir() else folder
    try:
        return network.from_pretrained(place, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(f"cannot start from {folder}: {' '.join(str(error).split())[:200]}") from None


def ask(network: Any, x: Tensor, levels: Tensor, labels: Tensor) -> Tensor:
    """The prediction, of the shape of states x (B, C, H, W), at times (B,) for class labels (B,)."""
    prediction: Tensor = network(x, levels, class_labels=labels, return_dict=False)[0]
    return prediction


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _told_every_class(network: ModelMixin) -> ModelMixin:
    """Labels are dropped by the trainer, from (seed, step); a DiT's blocks would each drop others, at random."""
    if isinstance(network, DiTTransformer2DModel):
        for block in network.transformer_blocks:
            block.norm1.emb.class_embedder.dropout_prob = 0.0
    return network


@torch.no_grad()
def _start_as_identity(network: DiTTransformer2DModel) -> None:
    """The weights DiT starts from (Peebles and Xie 2023, adaLN-Zero), which diffusers leaves to whoever trains."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for block in network.transformer_blocks:
        time = block.norm1.emb.timestep_embedder
        nn.init.normal_(time.linear_1.weight, std=0.02)
        nn.init.normal_(time.linear_2.weight, std=0.02)
        nn.init.zeros_(block.norm1.linear.weight)
    nn.init.zeros_(network.proj_out_1.weight)
    nn.init.zeros_(network.proj_out_2.weight)


def check_autoencoder(recipe: Recipe, folder: Path | None) -> None:
    """Refuse a recipe on latents without the directory of the `AutoencoderKL` that made them.

    Raises:
        RecipeError: None was given where one is needed, or one of another number of channels.
    """
    if not recipe.latents:
        return
    if folder is None:
        raise RecipeError("this recipe trains on latents: give --autoencoder DIR, the AutoencoderKL that made them")
    try:
        channels = json.loads((folder / "config.json").read_text())["latent_channels"]
    except (OSError, ValueError, LookupError):
        raise RecipeError(f"{folder} is no autoencoder: expected the directory of an AutoencoderKL") from None
    if channels != recipe.shape[0]:
        raise RecipeError(f"{folder} makes {channels} channels, the recipe's network takes {recipe.shape[0]}")


def save_pipeline(
    folder: Path,
    recipe: Recipe,
    network: ModelMixin,
    weights: Mapping[str, Tensor],
    *,
    classes: tuple[str, ...] = (),
    autoencoder: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `weights` for `network` as a directory that `unsample.load` takes, in the precision `dtype`.

    Args:
        folder: The directory to write.
        recipe: What the network was trained by.
        network: Its shape.
        weights: Its weights, by name.
        classes: Names of the classes; numbers if there are none.
        autoencoder: The directory of the autoencoder of a recipe on latents.
        dtype: Of the weights in the files.
    """
    part, kind = KINDS[recipe.kind]
    _write(folder / part, kind, network.config, weights, dtype)
    parts = {part: ["diffusers", recipe.kind]}
    if autoencoder is not None and recipe.latents:
        codec = AutoencoderKL.from_pretrained(autoencoder)
        name = "vqvae" if part == "unet" else "vae"
        _write(folder / name, AutoencoderKL, codec.config, codec.state_dict(), dtype)
        parts[name] = ["diffusers", "AutoencoderKL"]
    scheduler = _scheduler(recipe)
    scheduler.save_pretrained(folder / "scheduler")
    parts["scheduler"] = ["diffusers", type(scheduler).__name__]
    names = list(classes) or [str(index) for index in range(recipe.no_class)]
    index = {"_class_name": _pipeline(recipe), **parts}
    if part == "transformer":
        index["id2label"] = {str(number): name for number, name in enumerate(names)}
    else:
        write_json(folder / "classes.json", {"names": names, "null": recipe.no_class})
    write_json(folder / "model_index.json", index)


def _pipeline(recipe: Recipe) -> str:
    if recipe.kind == "DiTTransformer2DModel":
        return "DiTPipeline"
    if recipe.latents:
        return "LDMPipeline"
    return "DDPMPipeline" if recipe.prediction == "flow" else "DDIMPipeline"  # the latter makes a DDIMScheduler of any


def _scheduler(recipe: Recipe) -> Any:
    if recipe.prediction == "flow":
        return FlowMatchEulerDiscreteScheduler(recipe.timesteps, shift=1.0)
    return DDIMScheduler(
        recipe.timesteps,
        beta_start=recipe.beta_start,
        beta_end=recipe.beta_end,
        clip_sample=False,
        prediction_type=recipe.prediction,
    )


def _write(folder: Path, kind: type, config: Mapping[str, Any], weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    copy = kind.from_config({key: value for key, value in config.items() if key != "_name_or_path"})  # a path of this machine
    copy.load_state_dict({name: weight.detach().cpu() for name, weight in weights.items()})
    in_dtype = nn.Module.to(copy, dtype)  # diffusers' own `to` warns of what it leaves in float32, which is nothing here
    in_dtype.save_pretrained(folder, max_shard_size="15MB")


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file."""
    path.write_text(json.dumps(value, indent=0) + "\n")
