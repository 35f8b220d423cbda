"""The parts of a diffusers pipeline, read from a directory: safetensors only, every weight accounted for, no code from it.

`model_index.json` names a class for each part. Only classes of diffusers and transformers themselves are made, and only for
the parts a family needs: safety checkers, feature extractors and the rest stay on the disk.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError, one_line
from .configs import check_config, read_json
from .families import OPTIONAL
from .network_files import read_network, without_weights
from .shared import Shared


def read_index(path: Path) -> dict[str, Any]:
    """What `model_index.json` says; a directory with `unet/` and `scheduler/` alone is a `DDPMPipeline`.

    Raises:
        ModelError: It is missing or damaged.
    """
    file = path / "model_index.json"
    if not file.is_file():
        for part in ("unet/config.json", "scheduler/scheduler_config.json"):
            if not (path / part).is_file():
                raise ModelError(
                    f"{path} is not a diffusers pipeline: expected model_index.json, or {part}, in it; "
                    "save one with save_pretrained"
                )
        kind = read_json(path / "scheduler/scheduler_config.json").get("_class_name", "DDIMScheduler")
        parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", kind]}
        return {"_class_name": "DDPMPipeline", **parts}
    index = read_json(file)
    if not isinstance(index.get("_class_name"), str):
        raise ModelError(f"{file} is damaged: expected the class of a pipeline under _class_name; save the pipeline again")
    return index


def read_pipeline(
    path: Path,
    index: Mapping[str, Any],
    parts: tuple[str, ...],
    *,
    dtype: torch.dtype,
    variant: str | None = None,
    weights: bool = True,
) -> Any:
    """The pipeline of `index` with only `parts` in it, its networks in `dtype` on the CPU, autoencoders at least float32.

    Args:
        path: A directory as `save_pretrained` writes it.
        index: What `read_index` found there.
        parts: The parts to read.
        dtype: Precision of the networks.
        variant: `fp16` reads the files of that name; without it they are taken where there are no others.
        weights: False makes the networks from their configs alone, on the meta device, and leaves text encoders out.

    Raises:
        ModelError: A part is missing, damaged, tampered with, or not in safetensors.
    """
    import diffusers

    read = {}
    with quiet():
        kind = getattr(diffusers, index["_class_name"])
        for part in parts:
            if weights or not part.startswith(("text_encoder", "tokenizer")):
                read[part] = _part(path, part, index, dtype, variant, weights)
        expected = inspect.signature(kind.__init__).parameters
        given = {name: index[name] for name in expected if name in index and not isinstance(index[name], list)}
        absent = {
            name: None
            for name, parameter in expected.items()
            if name not in ("self", *read, *given) and parameter.default is parameter.empty
        }
        if "requires_safety_checker" in expected:
            given["requires_safety_checker"] = False
        with _reading(path / "model_index.json", f"expected the settings of a {kind.__name__}"):
            return kind(**absent, **given, **read)


def _part(path: Path, name: str, index: Mapping[str, Any], dtype: torch.dtype, variant: str | None, weights: bool) -> Any:
    entry = index.get(name)
    if name in OPTIONAL and entry == [None, None]:
        return None
    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)):
        raise ModelError(f"{path} lacks its part {name}: model_index.json says {entry!r}; save the whole pipeline")
    kind, folder = _class(path, name, *entry), _folder(path, name)
    if not issubclass(kind, torch.nn.Module):
        if name == "scheduler":
            check_config(folder / "scheduler_config.json")
        with _reading(folder, f"expected a {kind.__name__}"):
            return kind.from_pretrained(folder, local_files_only=True)
    if dtype.itemsize < 4 and name in ("vae", "vqvae", "movq"):
        dtype = torch.float32
    with _reading(folder, f"expected config.json of a {kind.__name__} and its weights in safetensors"):
        return read_network(kind, folder, name, dtype, variant) if weights else without_weights(kind, folder, name)


def _folder(path: Path, part: str) -> Path:
    """Its own folder, or, in the oldest pipelines of one network alone, that of the pipeline."""
    if (path / part).is_dir():
        return path / part
    if part in ("unet", "scheduler") and (path / f"{'scheduler_' if part == 'scheduler' else ''}config.json").is_file():
        return path
    raise ModelError(f"{path} lacks the folder {part}/ that its model_index.json names; save or download it again")


def _class(path: Path, part: str, library: str, name: str) -> type[Any]:
    """The class of a part; only such as the part can be, for others may run code that comes with a model."""
    import diffusers
    import transformers

    if library not in ("diffusers", "transformers"):
        raise ModelError(
            f"model_index.json of {path} takes {part} from {library!r}: expected diffusers or transformers; "
            "code that comes with a model is never run"
        )
    bases = {
        "scheduler": diffusers.SchedulerMixin,
        "tokenizer": transformers.PreTrainedTokenizerBase,
        "text_encoder": transformers.PreTrainedModel,
    }
    base = bases.get(part.rstrip("_23"), diffusers.ModelMixin)
    source = diffusers if library == "diffusers" else transformers
    kind = getattr(source, name, None)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ModelError(
            f"model_index.json of {path} names {library}.{name} for {part}: expected a {base.__name__} of the installed "
            f"{library} {source.__version__}; a newer one may have it"
        )
    return kind


@contextmanager
def _reading(place: Path, expected: str) -> Iterator[None]:
    """An error of any library becomes one line that names the file or folder, and what was expected there."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # diffusers, transformers, safetensors and torch each raise their own
        raise ModelError(f"cannot load {place} ({expected}): {one_line(error)}") from None


@contextmanager
def _silence(_key: None) -> Iterator[None]:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = [diffusers_logging, transformers_logging]
    before = [logger.get_verbosity() for logger in loggers]
    bars = [logger.is_progress_bar_enabled() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
        logger.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of configs that diffusers finds old
            yield
    finally:
        for logger, verbosity, bar in zip(loggers, before, bars, strict=True):
            logger.set_verbosity(verbosity)
            if bar:
                logger.enable_progress_bar()


_SILENCE = Shared(_silence)


def quiet() -> AbstractContextManager[None]:
    """Silence the libraries' logs, warnings about old configs, and progress bars: what matters is raised."""
    return _SILENCE()
