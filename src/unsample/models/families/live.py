"""Networks of a live pipeline at work for us: in evaluation, in float32 where they are narrower, and as they were afterwards.

Threads may share a pipeline, so that nothing of a module is changed while another thread uses it: what has to be wider is a
copy, and what was left in train mode is put into evaluation by the first to call it and back by the last to return.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import ModelError
from ..shared import Shared

HARMLESS = ("casting", "autocast", "offloading", "tracker", "parallel")
"""Parts of the names of diffusers' hooks that move weights or cast them, and leave the answer as it is."""


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    trained = [part for part in module.modules() if part.training] if getattr(module, "training", False) else []
    for part in trained:
        part.training = False
    try:
        yield
    finally:
        for part in trained:
            part.training = True


_EVALUATION = Shared(_evaluating)


def evaluating(module: Any) -> AbstractContextManager[None]:
    """A context in which a module is in evaluation: without dropout, with which its answer is another each time."""
    return _EVALUATION(module)


def evaluated(module: Any, *args: Any, **kwargs: Any) -> Any:
    """What a module answers in evaluation."""
    with evaluating(module):
        return module(*args, **kwargs)


class LookedUp(TorchFunctionMode):
    """A context in which this thread, and no other, finds given rows where it looks into certain tables of embeddings.

    Attributes:
        rows: What is found, whatever is looked up, by the `id` of a table.
    """

    def __init__(self, rows: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.rows = rows

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.embedding and id(args[1]) in self.rows:
            return self.rows[id(args[1])]
        return func(*args, **(kwargs or {}))


def check_live(network: Any) -> None:
    """Refuse a denoising network whose answer depends on more than state, time and condition.

    Raises:
        ModelError: It has an IP-Adapter, or a hook that keeps answers or changes them, as diffusers' caches do; parts of it
            are in train mode, but not the whole.
    """
    parts = list(network.modules()) if isinstance(network, nn.Module) else []
    processors = {type(getattr(part, "processor", None)).__name__ for part in parts}
    if any("IPAdapter" in name for name in processors) or network.config.get("encoder_hid_dim_type") == "ip_image_proj":
        raise ModelError(
            f"the {type(network).__name__} has an IP-Adapter, which takes a picture beside the prompt: "
            "call pipeline.unload_ip_adapter() first"
        )
    if not getattr(network, "training", False) and any(_drops_out(part) for part in parts):
        raise ModelError(
            f"parts of the {type(network).__name__} are in train mode and drop out at random: call its eval(), as "
            "pipeline.unet.eval()"
        )
    registries = [vars(part)["_diffusers_hook"] for part in parts if "_diffusers_hook" in vars(part)]
    hooks = {name for registry in registries for name in registry.hooks if not any(kind in name for kind in HARMLESS)}
    if hooks:
        raise ModelError(
            f"the {type(network).__name__} has the hooks {', '.join(sorted(hooks))}, with which its answer is another each "
            "time and no inversion leads back: take them off, a cache by pipeline.transformer.disable_cache()"
        )


def _drops_out(part: nn.Module) -> bool:
    """Whether a module answers at random, as those of a LoRA may that was loaded into a network in evaluation."""
    is_random = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
    return part.training and (is_random or isinstance(part, nn.modules.batchnorm._BatchNorm))


class Widened:
    """A copy of a module whose floating weights are float32, made when it is first used and kept beside it.

    It is made again once the module's weights are others, or elsewhere. A module that is as wide already is its own copy.

    Attributes:
        module: It stays as it is.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._copy: nn.Module | None = None
        self._made_of: Any = None

    def on(self, device: torch.device) -> Any:
        """The copy, on `device`.

        Raises:
            ModelError: Narrow weights that are not in memory.
        """
        module = getattr(self.module, "_orig_mod", self.module)  # what torch.compile wraps
        weights = [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []
        narrow = any(weight.is_floating_point() and weight.dtype.itemsize < 4 for weight in weights)
        if not narrow or getattr(module, "hf_quantizer", None) is not None:
            return self.module
        if any(weight.is_meta for weight in weights):
            raise ModelError(
                f"the weights of {type(module).__name__} are narrower than float32 and not in memory, as under "
                "enable_sequential_cpu_offload: use enable_model_cpu_offload, or an autoencoder in float32"
            )
        settings = {name: value for name, value in vars(module).items() if isinstance(value, (int, float))}  # of tiles, say
        made_of = device, settings, [_state(weight) for weight in weights]
        with _LOCK:
            if self._copy is None or self._made_of != made_of:
                self._copy, self._made_of = _copied(module, device, {}).eval(), made_of
            return self._copy


_LOCK = threading.Lock()


def _state(weight: Tensor) -> tuple[Any, ...]:
    """What changes with the values of a tensor; torch counts no changes of one that was made in inference mode."""
    return id(weight), weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version


def _copied(module: Any, device: torch.device, done: dict[int, nn.Module]) -> nn.Module:
    """A module of the same parts with weights of its own, and without what libraries have put around its functions.

    Those are hooks that move or cast weights, and compiled functions; both belong to the module that they were made for.
    """
    module = getattr(module, "_orig_mod", module)
    if id(module) in done:
        return done[id(module)]
    copied: nn.Module = copy.copy(module)
    done[id(module)] = copied
    functions = [name for name in vars(copied) if callable(getattr(type(copied), name, None))]
    for name in (*functions, "_hf_hook", "_old_forward", "_diffusers_hook", "_compiled_call_impl"):
        vars(copied).pop(name, None)
    vars(copied)["_parameters"] = {
        name: None if weight is None else nn.Parameter(_wide(weight, device), requires_grad=False)
        for name, weight in module._parameters.items()
    }
    vars(copied)["_buffers"] = {
        name: None if buffer is None else _wide(buffer, device) for name, buffer in module._buffers.items()
    }
    vars(copied)["_modules"] = {
        name: None if part is None else _copied(part, device, done) for name, part in module._modules.items()
    }
    return copied


def _wide(weight: Tensor, device: torch.device) -> Tensor:
    weight = weight.detach()
    is_narrow = weight.is_floating_point() and weight.dtype.itemsize < 4
    return weight.to(device, torch.float32 if is_narrow else weight.dtype)
