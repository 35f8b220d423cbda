"""The flags of improved-diffusion and guided-diffusion, which make a network and its noise schedule.

A checkpoint holds weights alone. Its flags are those that its sampling script is called with: known by name for the published
files, read from a JSON file beside any other.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ...core.reading import number_of, read_json
from ...core.schedule import Schedule
from ...errors import ArgumentError, ModelError, UnknownNameError, one_line
from .unet import Architecture

CLASSES = 1000
"""Of a class-conditional network whose weights do not show it; they are those of ImageNet."""

MULTIPLIERS = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
"""channel_mult by image_size."""

IGNORED = (
    *("dropout", "use_checkpoint", "use_fp16", "use_kl", "sigma_small", "rescale_learned_sigmas"),
    *("timestep_respacing", "clip_denoised", "use_ddim", "batch_size", "num_samples", "model_path"),
)
"""Flags of training, of precision, of the variance and of its own sampler, which no inversion needs."""


@dataclass(frozen=True)
class Flags:
    """The command-line flags of both codes that make a network and its schedule, with their defaults.

    An empty `channel_mult` stands for the one that goes with `image_size`, -1 for a number of heads that follows from another
    flag. `conv_resample` is no flag there, but an option of the network. `rescale_timesteps` has to be given unless there are
    1000 diffusion steps, of which it makes nothing else: it is on by default in improved-diffusion, off in guided-diffusion.

    Raises:
        ModelError: A value that makes no network or no schedule.

    >>> Flags(image_size=32, attention_resolutions=(16, 8)).architecture().attention
    frozenset({1, 2})
    """

    image_size: int = 64
    num_channels: int = 128
    num_res_blocks: int = 2
    channel_mult: tuple[float, ...] = ()
    attention_resolutions: tuple[float, ...] = (16, 8)
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    conv_resample: bool = True
    class_cond: bool = False
    learn_sigma: bool = False
    predict_xstart: bool = False
    noise_schedule: str = "linear"
    diffusion_steps: int = 1000
    rescale_timesteps: bool | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "num_channels", "num_res_blocks", "num_heads", "diffusion_steps"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, given {getattr(self, name)}")
        if not self.channel_mult and self.image_size not in MULTIPLIERS:
            raise ModelError(f"image_size {self.image_size} has no channel_mult of its own: give one")
        for name in ("num_heads_upsample", "num_head_channels"):
            if getattr(self, name) < 1 and getattr(self, name) != -1:
                raise ModelError(f"{name} must be at least 1, or -1, given {getattr(self, name)}")
        if not all(0 < value < math.inf for value in (*self.channel_mult, *self.attention_resolutions)):
            raise ModelError("channel_mult and attention_resolutions must be positive numbers")
        if self.rescale_timesteps is None and self.diffusion_steps != 1000:
            raise ModelError(
                "rescale_timesteps is missing, whose default is not the same in both codes: true, that of improved-diffusion, "
                f"gives the network times below 1000; false, that of guided-diffusion, times up to {self.diffusion_steps - 1}"
            )

    @property
    def pace(self) -> float:
        """What the network is given for each timestep."""
        return 1000 / self.diffusion_steps if self.rescale_timesteps else 1.0

    def architecture(self, classes: int = CLASSES) -> Architecture:
        """The network's; attention is where a level's resolution is one of `attention_resolutions`."""
        multipliers = self.channel_mult or MULTIPLIERS[self.image_size]
        factors = {self.image_size // resolution for resolution in self.attention_resolutions}
        return Architecture(
            num_channels=self.num_channels,
            channel_mult=multipliers,
            num_res_blocks=self.num_res_blocks,
            attention=frozenset(level for level in range(len(multipliers)) if 2**level in factors),
            num_heads=self.num_heads,
            num_heads_upsample=self.num_heads if self.num_heads_upsample == -1 else self.num_heads_upsample,
            num_head_channels=None if self.num_head_channels == -1 else self.num_head_channels,
            use_scale_shift_norm=self.use_scale_shift_norm,
            resblock_updown=self.resblock_updown,
            use_new_attention_order=self.use_new_attention_order,
            conv_resample=self.conv_resample,
            classes=classes if self.class_cond else 0,
            outputs=6 if self.learn_sigma else 3,
        )

    def schedule(self) -> Schedule:
        """Betas of a cosine, or from 0.1 / T to 20 / T, evenly spaced."""
        count = self.diffusion_steps
        if self.noise_schedule == "cosine":
            return Schedule.from_betas(Schedule.cosine_betas(count))
        if self.noise_schedule != "linear":
            raise ModelError(f"noise_schedule must be linear or cosine, given {self.noise_schedule!r}")
        try:
            return Schedule.from_betas(Schedule.linear_betas(0.1 / count, 20 / count, count))
        except ArgumentError as error:
            raise ModelError(f"diffusion_steps {count} are too few for a linear noise_schedule: {error}") from None


_IMPROVED = Flags(learn_sigma=True, noise_schedule="cosine", diffusion_steps=4000, num_res_blocks=3, rescale_timesteps=True)
_IMPROVED_LSUN = Flags(image_size=256, num_heads=1, learn_sigma=True, use_scale_shift_norm=False, attention_resolutions=(16,))
_CIFAR = replace(_IMPROVED, image_size=32)
_GUIDED = Flags(
    image_size=256,
    num_channels=256,
    attention_resolutions=(32, 16, 8),
    num_head_channels=64,
    resblock_updown=True,
    learn_sigma=True,
)
_GUIDED_64 = replace(
    _GUIDED, image_size=64, num_channels=192, num_res_blocks=3, use_new_attention_order=True, noise_schedule="cosine"
)

PUBLISHED = {
    "cifar10_uncond_50M_500K": _CIFAR,
    "cifar10_uncond_vlb_50M_500K": _CIFAR,
    "imagenet64_uncond_100M_1500K": _IMPROVED,
    "imagenet64_uncond_vlb_100M_1500K": _IMPROVED,
    "imagenet64_cond_270M_250K": replace(_IMPROVED, num_channels=192, class_cond=True, rescale_timesteps=False),
    "lsun_uncond_100M_1200K_bs128": _IMPROVED_LSUN,
    "lsun_uncond_100M_2400K_bs64": _IMPROVED_LSUN,
    "64x64_diffusion": replace(_GUIDED_64, class_cond=True),
    "128x128_diffusion": replace(_GUIDED, image_size=128, num_heads=4, num_head_channels=-1, class_cond=True),
    "256x256_diffusion": replace(_GUIDED, class_cond=True),
    "256x256_diffusion_uncond": _GUIDED,
    "512x512_diffusion": replace(_GUIDED, image_size=512, class_cond=True),
    "lsun_bedroom": _GUIDED,
    "lsun_cat": _GUIDED,
    "lsun_horse": _GUIDED,
    "lsun_horse_nodropout": _GUIDED,
}
"""The flags of the published files, by name without .pt, from the READMEs of improved-diffusion and guided-diffusion."""


def published(name: str) -> Flags:
    """The flags of a published file.

    Raises:
        UnknownNameError: None of that name.

    >>> published("cifar10_uncond_50M_500K").diffusion_steps
    4000
    """
    if name not in PUBLISHED:
        raise UnknownNameError("published checkpoint", name, PUBLISHED)
    return PUBLISHED[name]


def flags_of(file: Path) -> Flags:
    """The flags of a checkpoint: in a JSON file of its stem beside it, or those of its published name.

    Raises:
        ModelError: Neither, or a JSON file that is not one of flags.
    """
    beside = file.with_suffix(".json")
    if not beside.is_file():
        if file.stem in PUBLISHED:
            return PUBLISHED[file.stem]
        raise ModelError(
            f"the flags of {file} are not known: write those its sampling script is called with into {beside.name} beside it, "
            'such as {"image_size": 256, "num_channels": 256, "learn_sigma": true, "attention_resolutions": "32,16,8"}'
        )
    try:
        given = read_json(beside)
        if not isinstance(given, dict):
            raise ValueError("expected a JSON object of flags")
        flags = Flags(**{name: _value(name, value) for name, value in given.items() if name not in IGNORED})
        flags.architecture(), flags.schedule()  # what makes neither is refused here
        return flags
    except (ValueError, OSError, ModelError) as error:
        raise ModelError(f"cannot use the flags in {beside}: {one_line(error, 500)}") from None


def _value(name: str, given: Any) -> Any:
    """A flag's value as `Flags` has it: numbers in a row may be written "32,16,8", as on a command line."""
    defaults = {field.name: field.default for field in fields(Flags)} | {"rescale_timesteps": False}
    if name not in defaults:
        raise UnknownNameError("flag", name, defaults)
    if isinstance(defaults[name], tuple):
        parts = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
        try:
            return tuple(
                int(value) if value.is_integer() else value for value in (number_of(str(part)) for part in parts if part != "")
            )
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f'{name} must be numbers such as "32,16,8", given {given!r}') from None
    if type(given) is not type(defaults[name]):
        raise ValueError(f"{name} must be of the kind of {json.dumps(defaults[name])}, given {json.dumps(given)}")
    return given
