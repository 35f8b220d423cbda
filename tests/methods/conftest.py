"""What the tests against diffusers share."""

import sys
import types

import pytest
import torch


@pytest.fixture
def double(monkeypatch):
    """The states and noise of diffusers' DPM-Solver stay in float64: it is given float64 under the name of float32."""
    from diffusers import DPMSolverMultistepScheduler

    module = sys.modules[DPMSolverMultistepScheduler.__module__]
    monkeypatch.setattr(module, "torch", types.SimpleNamespace(**{**vars(torch), "float32": torch.float64}))
