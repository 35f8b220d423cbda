"""Configs of models, as they come from others: read as JSON, and refused where they ask for more than any model is.

A network is made from its config before a weight is read, and a schedule has a number for every timestep: a config of a few
bytes could take all time and memory. `LIMITS` lie far above every published model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.reading import read_json as json_from
from ..errors import ModelError, one_line

LIMITS = {
    "layers": 10_000,  # product of all numbers of layers and of blocks; FLUX has 19 * 38, T5-XXL 24 * 24
    "timesteps": 100_000,  # of training; ADM has 4000
    "positions": 1024,  # cells along a side of a transformer's states, a table of whose squares is computed; 2K PixArt has 256
    "size": 2**20,  # any other width, count of channels, heads or words; the largest vocabularies have 2^18 words
}
"""The most that a config may ask for."""

_SIZES = re.compile(r"layers|depth|blocks|channels|groups|dim|size|width|heads|embed|timesteps|positions")
"""Numbers of such names are counts, never negative."""

_LAYERS = re.compile(r"layers|depth|num_.*blocks")

ATTENTION = ("eager", "sdpa")
"""Implementations of attention that come with torch; transformers downloads others as code ("owner/kernel")."""

_ATTENTION_KEY = "_implementation"
"""The end of the names under which a config states one, or one for each network in it."""


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ModelError: It is missing or damaged, or holds anything else.
    """
    try:
        config = json_from(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is missing or damaged ({one_line(error, 200)}); download it again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file} is damaged: expected a JSON object; save or download the model again")
    return config


def check_config(file: Path, part: str = "") -> dict[str, Any]:
    """The config that a file of a model's part holds, once it asks for nothing that a model does not need.

    Raises:
        ModelError: As for `read_json`; a number beyond `LIMITS`, negative or no number, or attention that is downloaded.
    """
    config = read_json(file)
    for name, value in _entries(config):
        _check_entry(file, name, value, _limit(name, part))
    layers = math.prod(max(1, value) for value in _layers(config))
    if layers > LIMITS["layers"]:
        raise ModelError(f"{file} asks for more than {LIMITS['layers']} layers in all: no model has them; download it again")
    return config


def _check_entry(file: Path, name: str, value: Any, limit: int | None) -> None:
    if name.endswith(_ATTENTION_KEY) and value not in (None, *ATTENTION):
        raise ModelError(
            f"{file} says {name} = {str(value)[:60]!r}: expected {' or '.join(ATTENTION)}, for code that comes with a model "
            "is never run; take the line out"
        )
    if isinstance(value, (int, float)) and limit is not None and not 0 <= value <= limit:
        raise ModelError(f"{file} says {name} = {str(value)[:20]}: expected 0 to {limit}; download the model again")


def _entries(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config that is no collection, beside the name that it or its list has."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _entries(value, name if name.endswith(_ATTENTION_KEY) else str(key))
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _entries(value, name)
    else:
        yield name, config


def _limit(name: str, part: str) -> int | None:
    """The most that a number of this name may be; None for one that is no count."""
    if not _SIZES.search(name):
        return None
    if "timesteps" in name:
        return LIMITS["timesteps"]
    if name in ("sample_size", "pos_embed_max_size") and part == "transformer":
        return LIMITS["positions"]
    return LIMITS["size"]


def _layers(config: Mapping[str, Any]) -> Iterator[int]:
    """The largest of each setting that multiplies layers: numbers of layers, and lists with one entry for each block."""
    lists = [value for name, value in config.items() if isinstance(value, list) and re.search("block|width", name)]
    yield max(map(len, lists), default=1)
    for name, value in config.items():
        if _LAYERS.search(name):
            yield max((one for _, one in _entries(value) if isinstance(one, int)), default=1)
        if isinstance(value, Mapping):
            yield from _layers(value)
