"""Checkpoints of improved-diffusion and guided-diffusion (OpenAI's ADM): a state dict in one file, read without running it.

Network and schedule follow from its flags (`flags`), and every weight is accounted for.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.files import regular
from ...core.model import ClassConditioner, Model
from ...errors import ArgumentError, ModelError
from ..digest import digest_of
from ..families.shapes import state_shape
from ..notes import VARIANCE_DROPPED, clipping_ignored
from ..offload import one_at_a_time
from .flags import CLASSES, Flags, flags_of
from .unet import OpenAIUNet

__all__ = ["FAMILY", "SUFFIXES", "ADMNetwork", "load_openai"]

FAMILY = "ADM (guided-diffusion)"

SUFFIXES = (".pt", ".pth", ".safetensors")
"""Of files that may be such checkpoints."""

NOTES = (clipping_ignored("clip_denoised of its own sampler"), VARIANCE_DROPPED)
"""Of every checkpoint, and of one with a learned variance."""


@dataclass(frozen=True)
class ADMNetwork:
    """The U-Net as a network: casts to its own dtype and back, drops a learned variance.

    Attributes:
        unet: An `OpenAIUNet`.
        pace: The network is given t * pace: 1000 / T where its training rescaled timesteps, else 1.
    """

    unet: Any
    pace: float = 1.0

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Raw prediction of `x`'s shape and dtype; a floating condition is an embedding, (batch, dim), as of `embed`."""
        output: Tensor = self.unet(x, t * self.pace, condition)
        return output[:, :3].to(x.dtype).contiguous()

    def embed(self, labels: Tensor) -> Tensor:
        """The embeddings of class indices, (batch, dim)."""
        rows: Tensor = self.unet.label_emb.weight.detach()
        return rows[labels.to(rows.device)].to(labels.device)


def load_openai(
    file: Path,
    *,
    flags: Flags | None = None,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    offload: bool = False,
    tiling: bool = False,
) -> Model:
    """The model of a checkpoint.

    Its grid is that of `ddimN` in its own `--timestep_respacing` wherever N divides the trained timesteps.

    Args:
        file: A state dict, pickled by torch or in safetensors.
        flags: Those it was trained with; default is what `flags_of` finds.
        name: What it is called; default is the file's.
        size: Height and width of the images; default is `image_size`.
        device: Where the network goes.
        dtype: Precision of the weights; of half precision, that of the inner convolutions.
        offload: Keep the network on the CPU while it is not at work.
        tiling: Refused: there is no autoencoder.

    Raises:
        ModelError: Flags that are not known; a file that is damaged, holds more than tensors, or does not fit its flags.
        ArgumentError: A size that the network cannot take, or tiling.
    """
    if tiling:
        raise ArgumentError(f"model {file.stem!r} has no autoencoder that works in tiles: leave out tiling")
    flags = flags or flags_of(file)
    unet = _filled(file, flags, dtype)
    digest, device = digest_of(unet), torch.device(device)
    if offload:
        one_at_a_time([unet], device)
    else:
        unet.to(device)
    classes = tuple(str(i) for i in range(unet.label_emb.num_embeddings)) if flags.class_cond else ()
    return Model(
        network=ADMNetwork(unet, flags.pace),
        schedule=flags.schedule(),
        shape=state_shape(size, 3, flags.image_size, multiple=2 ** (len(unet.architecture.widths) - 1)),
        prediction="sample" if flags.predict_xstart else "epsilon",
        conditioner=ClassConditioner(classes, null=None) if flags.class_cond else None,
        device=device,
        name=name or file.stem,
        digest=digest,
        family=FAMILY,
        notes=NOTES if flags.learn_sigma else NOTES[:1],
    )


def _filled(file: Path, flags: Flags, dtype: torch.dtype) -> OpenAIUNet:
    """The network of `flags` with the weights of `file`, every one of them accounted for."""
    weights = _read(file)
    labels = weights.get("label_emb.weight")
    classes = CLASSES if labels is None or labels.ndim != 2 else len(labels)
    with torch.device("meta"):
        unet = OpenAIUNet(flags.architecture(classes)).narrow(dtype)
    own: dict[str, Tensor] = unet.state_dict()
    _compare(file, flags.image_size, _shapes(own), _shapes(weights))
    cast = {key: weights[key].to(own[key].dtype, copy=True) for key in own}
    astray = [key for key, value in cast.items() if not bool(value.isfinite().all())]
    if astray:
        raise ModelError(f"cannot load {file}: it has values that are not finite in {dtype} in {', '.join(astray)[:200]}")
    unet.load_state_dict(cast, assign=True)
    return unet.eval().requires_grad_(False)


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file; what a pickle names besides is never called."""
    refused = f"cannot load {file}: expected a state dict of floating tensors alone"
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: Any = load_file(regular(file))
        else:
            weights = torch.load(regular(file), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # each library raises its own, and torch's advise to load the file unsafely
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {named[1]}, which could run code" if named else "it is truncated, damaged or of another kind"
        raise ModelError(f"{refused}; {reason}") from None
    if not isinstance(weights, dict) or not weights:
        raise ModelError(f"{refused}, given {'an empty one' if weights == {} else type(weights).__name__}")
    for key, value in weights.items():
        plain = isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided and not value.is_meta
        if not (plain and isinstance(key, str)):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"{refused}, given {kind} at {key!r}")
    return weights


Shapes = Mapping[str, tuple[int, ...]]


def _shapes(weights: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in weights.items()}


def _compare(file: Path, image_size: int, own: Shapes, given: Shapes) -> None:
    """Every parameter in its shape, or an error that names the flags at odds and the first keys."""
    astray = {
        "it lacks": [key for key in own if key not in given],
        "has besides": [key for key in given if key not in own],
        "has in another shape": [key for key in own if key in given and own[key] != given[key]],
    }
    if not any(astray.values()):
        return
    keys = ", ".join(f"{what} {' '.join(names[:3])}" for what, names in astray.items() if names)
    ours, theirs = _flags_shown_by(own, image_size), _flags_shown_by(given, image_size)
    odds = [f"{flag} is {ours[flag]}, the weights say {theirs[flag]}" for flag in theirs if ours[flag] != theirs[flag]]
    raise ModelError(f"{file} does not fit its flags: {'; '.join([*odds, keys])}"[:600])


def _flags_shown_by(shapes: Shapes, image_size: int) -> dict[str, Any]:
    """The flags that can be read off the shapes of weights; none, of another kind of network."""
    try:
        blocks = 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("output_blocks."))
        downs = {int(key.split(".")[1]) for key in shapes if key.startswith("input_blocks.")}
        bare = sorted(set(range(max(downs))) - downs)  # averages, which have no weights
        ups = [re.match(r"output_blocks\.(\d+)\.[12]\.(?:conv|in_layers\.0)\.weight", key) for key in shapes]
        per_level = min([1 + int(up[1]) for up in ups if up] or bare or [blocks])
        starts = range(0, blocks, per_level)  # of levels, the coarsest first
        widths = [shapes[f"output_blocks.{i}.0.out_layers.3.weight"][0] for i in starts][::-1]
        width = shapes["time_embed.0.weight"][1]
        attended = [f"output_blocks.{i}.1.qkv.weight" in shapes for i in starts][::-1]
        return {
            "num_channels": width,
            "class_cond": "label_emb.weight" in shapes,
            "learn_sigma": shapes["out.2.weight"][0] == 6,
            "use_scale_shift_norm": shapes["middle_block.0.emb_layers.1.weight"][0] == 2 * widths[-1],
            "resblock_updown": any(re.match(r"output_blocks\.\d+\.[12]\.in_layers", key) for key in shapes),
            "conv_resample": not bare,
            "num_res_blocks": per_level - 1,
            "channel_mult": ",".join(f"{value / width:g}" for value in widths),
            "attention_resolutions": ",".join(str(image_size >> level) for level, has in enumerate(attended) if has) or "none",
        }
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        return {}
