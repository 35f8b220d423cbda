"""unsample: undo a diffusion model's sampling.

    import unsample as us

    model = us.load("tiny-imagenet-32-v")
    images = us.load_images(["photo.jpg"], size=model.image_size)
    trajectory = us.invert(model, images, steps=50, start=us.ForwardNoise(steps=2))
    us.sample(model, trajectory.latent).images

The layers, from the ground up: schedule, grid, prediction, transfer; denoiser, codec, model, trajectory; steppers, starts,
walk; inversion, sampling. Beside them, diagnostics: functions of tensors that never see a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .codec import Codec, PixelCodec
from .denoiser import Counted, Denoiser, Guided, Network, NetworkDenoiser, Recorded, Replayed
from .diagnostics import Diagnosis, diagnose
from .editing import Edit, Variations
from .editors import Edited, MasaCtrl, PromptToPrompt, StyleAligned
from .errors import (
    ArgumentError,
    DivergenceError,
    ImageError,
    ModelError,
    RunError,
    UnknownNameError,
    UnsampleError,
)
from .grid import Grid, Step
from .interpolation import Interpolation, corners, slerp
from .inversion import Reconstruction
from .io import load_images
from .methods import parse_method
from .model import ClassConditioner, Model
from .models import load
from .null_text import NullText, null_text
from .pipelines import edit, edit_attention, interpolate, invert, reconstruct, sample, variations
from .prediction import to_eps, to_x0
from .rng import ItemNoise
from .sampling import Samples, draw_noise
from .schedule import FlowSchedule, Level, Schedule
from .starts import ForwardNoise, FromImage, PlainNoise, Start
from .steppers import DDIM, LookAhead, Moved, Stepper
from .stored import Stored
from .trajectory import Keep, Trajectory
from .transfer import transfer
from .walk import walk

if TYPE_CHECKING:
    from .comparison import Comparison, compare
else:

    def __getattr__(name):
        """`compare` and `Comparison` are loaded when they are asked for: what they stand on would slow the import."""
        if name not in ("Comparison", "compare"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import comparison

        return getattr(comparison, name)


__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "ArgumentError",
    "ClassConditioner",
    "Codec",
    "Comparison",
    "Counted",
    "Denoiser",
    "Diagnosis",
    "DivergenceError",
    "Edit",
    "Edited",
    "FlowSchedule",
    "ForwardNoise",
    "FromImage",
    "Grid",
    "Guided",
    "ImageError",
    "Interpolation",
    "ItemNoise",
    "Keep",
    "Level",
    "LookAhead",
    "MasaCtrl",
    "Model",
    "ModelError",
    "Moved",
    "Network",
    "NetworkDenoiser",
    "NullText",
    "PixelCodec",
    "PlainNoise",
    "PromptToPrompt",
    "Reconstruction",
    "Recorded",
    "Replayed",
    "RunError",
    "Samples",
    "Schedule",
    "Start",
    "Step",
    "Stepper",
    "Stored",
    "StyleAligned",
    "Trajectory",
    "UnknownNameError",
    "UnsampleError",
    "Variations",
    "compare",
    "corners",
    "diagnose",
    "draw_noise",
    "edit",
    "edit_attention",
    "interpolate",
    "invert",
    "load",
    "load_images",
    "null_text",
    "parse_method",
    "reconstruct",
    "sample",
    "slerp",
    "to_eps",
    "to_x0",
    "transfer",
    "variations",
    "walk",
]
