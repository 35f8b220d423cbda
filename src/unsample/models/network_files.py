"""A network of a folder: made from its config without weights, then filled from safetensors, every weight accounted for.

`from_pretrained` of diffusers and of transformers does the same with switches that hold for the whole process: what other
threads make meanwhile has no weights, or another precision. What is made here concerns this thread alone. Their functions are
called only for checkpoints with quantised weights, or with names of weights from before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..core.files import regular
from ..errors import ModelError
from .configs import check_config

_FILE = re.compile(
    r"(?:model|diffusion_pytorch_model)"
    r"(?:-[0-9]+-of-(?P<old_count>[0-9]+))?(?:\.(?P<variant>\w+?))?(?:-[0-9]+-of-(?P<count>[0-9]+))?\.safetensors"
)
"""Names of weights: of one file or of several, of a variant or none; before 2024 the variant followed the number."""

_PREFIX = "text_model."
"""Of the weights of CLIP's text encoder in some versions of transformers, and not in others."""


class _EmptyOnMeta(TorchFunctionMode):
    """Parameters, which torch's layers make by `torch.empty`, take no memory; buffers, which are computed, are as ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def without_weights(kind: Any, folder: Path, name: str) -> Any:
    """The network of `config.json` in a folder, its parameters on the meta device.

    Raises:
        ModelError: A config that is refused.
    """
    config = check_config(folder / "config.json", name)
    own = getattr(kind, "config_class", None)
    with _EmptyOnMeta():
        network = kind.from_config(config) if own is None else kind(own.from_pretrained(folder, local_files_only=True))
    return network.eval()


def read_network(kind: Any, folder: Path, name: str, dtype: torch.dtype, variant: str | None) -> nn.Module:
    """The network of a folder in `dtype` on the CPU, for evaluation; text encoders may come with the rest of their model.

    Raises:
        ModelError: A config that is refused; weights that are missing, or do not fit it.
    """
    if variant is None and not has_weights(folder, None) and has_weights(folder, "fp16"):
        variant = "fp16"
    files = _files(folder, variant)
    config = check_config(folder / "config.json", name)
    network = without_weights(kind, folder, name)
    weights = _renamed(network, _read(files))
    computed = not any(buffer.is_meta for buffer in network.buffers())
    if "quantization_config" in config or not computed or not weights.keys() >= _needed(network, weights):
        network, missing, unexpected = _by_its_library(kind, folder, dtype, variant)
    else:
        missing, unexpected = _fill(network, weights, dtype)
    astray = missing if name.startswith("text_encoder") else [*missing, *unexpected]
    if astray:
        raise ModelError(f"cannot load {folder}: its weights do not fit its config.json at {', '.join(astray)[:300]}")
    complete: nn.Module = network.eval().requires_grad_(False)
    return complete


def has_weights(folder: Path, variant: str | None) -> bool:
    """Whether there are weights without a variant, or of this one."""
    return any(match["variant"] == variant for match in _matches(folder).values())


def _matches(folder: Path) -> dict[Path, re.Match[str]]:
    matches = {file: _FILE.fullmatch(file.name) for file in sorted(folder.glob("*.safetensors"))}
    return {file: match for file, match in matches.items() if match}


def _files(folder: Path, variant: str | None) -> list[Path]:
    """The files of a variant's weights, all of them."""
    own = {file: match for file, match in _matches(folder).items() if match["variant"] == variant}
    counts = {match["count"] or match["old_count"] for match in own.values()}
    several = sorted(count for count in counts if count)  # taken before a lone file, as diffusers does
    files = [file for file, match in own.items() if not several or (match["count"] or match["old_count"]) == several[0]]
    expected = int(several[0]) if several else 1
    if len(files) != expected:
        what = "weights in safetensors" + (f" of variant {variant!r}" if variant else "")
        raise ModelError(
            f"cannot load {folder}: expected its {what} in {expected} files, given {len(files)}: download it again"
        )
    return files


def _read(files: list[Path]) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for file in files for name, tensor in load_file(regular(file)).items()}


def _renamed(network: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names that this version of its library gives them."""
    fix = getattr(network, "_fix_state_dict_keys_on_load", None)  # diffusers': attention of autoencoders before 2023
    weights = weights if fix is None else dict(fix(weights) or weights)
    own = network.state_dict()
    renamed = {}
    for name, tensor in weights.items():
        others = (name, name.removeprefix(_PREFIX), _PREFIX + name)
        renamed[next((other for other in others if other in own), name)] = tensor
    return renamed


def _shared(network: nn.Module) -> list[list[str]]:
    """The names of each parameter; several, where layers share it."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return list(names.values())


def _needed(network: nn.Module, weights: Mapping[str, Tensor]) -> set[str]:
    """The names of the weights that fill a network: of a shared one, any of its names."""
    parameters = {next((name for name in names if name in weights), names[0]) for names in _shared(network)}
    every = {name for names in _shared(network) for name in names}
    return parameters | (set(network.state_dict()) - every)


def _fill(network: Any, weights: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[list[str], list[str]]:
    """Have a network take its weights; the names of those of another shape, and of those it has no use for."""
    own = network.state_dict()
    wrong = [name for name, tensor in weights.items() if name in own and own[name].shape != tensor.shape]
    if wrong:
        return wrong, []
    for names in _shared(network):
        given = weights[next(name for name in names if name in weights)]
        filled = nn.Parameter(_cast(network, names[0], given, dtype), requires_grad=False)
        for name in names:
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner), leaf, filled)
    for name, buffer in network.named_buffers():
        if name in own and name in weights:
            buffer.data = _cast(network, name, weights[name], dtype)
    return [], [name for name in weights if name not in own]


def _cast(network: Any, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in `dtype`, or in float32 where its library keeps it so."""
    kept = list(getattr(network, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        kept += getattr(network, "_keep_in_fp32_modules", None) or ()
    half = dtype in (torch.float16, torch.bfloat16)
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.float32 if half and {*kept} & {*name.split(".")} else dtype)


def _by_its_library(
    kind: Any, folder: Path, dtype: torch.dtype, variant: str | None
) -> tuple[nn.Module, list[str], list[str]]:
    """The network as its library reads it, the names of the weights that it lacks, and of those it has no use for."""
    network, loading = kind.from_pretrained(
        folder,
        torch_dtype=dtype,
        use_safetensors=True,
        variant=variant,
        local_files_only=True,
        low_cpu_mem_usage=True,
        output_loading_info=True,
    )
    lacking = [str(key) for keys in ("missing_keys", "mismatched_keys") for key in loading[keys]]
    return network, lacking, [str(key) for key in loading["unexpected_keys"]]
