"""One network on the device at a time: text encoder, autoencoder and denoiser take turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def one_at_a_time(networks: Sequence[torch.nn.Module], device: torch.device) -> None:
    """Keep `networks` on the CPU; each moves to `device` when it is called, and the others off it.

    diffusers' own `enable_model_cpu_offload` follows the order of sampling, in which an autoencoder comes last; an inversion
    begins with it, so that it would stay beside the denoiser.
    """
    from accelerate.hooks import ModelHook, add_hook_to_module

    at_work: set[torch.nn.Module] = set()

    class Turn(ModelHook):  # type: ignore[misc]
        execution_device = device  # where diffusers looks for the place of a prompt's tokens

        def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            if module not in at_work:  # even a move to where it is takes milliseconds
                at_work.clear()
                for other in networks:
                    if other is not module:
                        other.to("cpu")
                at_work.add(module.to(device))
            return args, kwargs

    for network in networks:
        network.to("cpu")
        add_hook_to_module(network, Turn())
