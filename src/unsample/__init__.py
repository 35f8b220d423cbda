"""unsample: undo a diffusion model's sampling.

    import unsample as us

    model = us.load("tiny-imagenet-32-v")
    images = us.load_images(["photo.jpg"], size=model.image_size)
    trajectory = us.invert(model, images, steps=50, start=us.ForwardNoise(steps=2))
    us.sample(model, trajectory).images

The layers, from the ground up: schedule, grid, prediction, transfer; denoiser, codec, model, trajectory; steppers, starts,
walk; inversion, sampling. Beside them, diagnostics: functions of tensors that never see a model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

if sys.argv[:1] == ["-m"] and ("-m", "unsample") in pairwise(sys.orig_argv):  # `python -m unsample`, which loads this first
    from unsample_command import quiet

    quiet()

from .core.ascend import ascend, descend
from .core.corrections import Recorded, Replayed
from .core.ddim import DDIM
from .core.denoiser import Counted, Denoiser, Guided, Network, NetworkDenoiser
from .core.grid import Grid, Step
from .core.model import ClassConditioner, Codec, Model, PixelCodec
from .core.prediction import to_eps, to_x0
from .core.rng import ItemNoise
from .core.schedule import FlowSchedule, Level, Schedule
from .core.starts import ForwardNoise, FromImage, Start
from .core.stepper import Moved, Stepper
from .core.stored import Stored
from .core.trajectory import Keep, Trajectory
from .core.transfer import transfer
from .core.walk import walk
from .diagnostics import Diagnosis, diagnose
from .errors import ArgumentError, DivergenceError, ImageError, ModelError, RunError, UnknownNameError, UnsampleError
from .methods.look_ahead import LookAhead
from .methods.registry import parse_method
from .methods.starts import AutoStart, PlainNoise
from .models import load
from .pictures.read import load_images
from .uses.attention import AttentionEdit, MasaCtrl, PromptToPrompt, StyleAligned, edit_attention
from .uses.edit import Edit, edit
from .uses.interpolate import Interpolation, interpolate
from .uses.invert import Reconstruction, invert, reconstruct
from .uses.null_text import NullText, null_text
from .uses.paths import corners, slerp
from .uses.sample import Samples, draw_noise, sample
from .uses.variations import Variations, variations

if TYPE_CHECKING:
    from . import dataset
    from .runs.read_back import read_run
    from .studies.compare import Comparison, compare
else:
    _LAZY = {"Comparison": "studies.compare", "compare": "studies.compare", "read_run": "runs.read_back", "dataset": "dataset"}

    def __getattr__(name):
        """What stands on run directories is loaded when it is first used: pydantic would slow the import."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_LAZY[name]}")
        return module if name == _LAZY[name] else getattr(module, name)


__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "ArgumentError",
    "AttentionEdit",
    "AutoStart",
    "ClassConditioner",
    "Codec",
    "Comparison",
    "Counted",
    "Denoiser",
    "Diagnosis",
    "DivergenceError",
    "Edit",
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
    "ascend",
    "compare",
    "corners",
    "dataset",
    "descend",
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
    "read_run",
    "reconstruct",
    "sample",
    "slerp",
    "to_eps",
    "to_x0",
    "transfer",
    "variations",
    "walk",
]
