"""Models known by name: a card for each, and where its weights are if they are on this machine.

Small ones come with this package, and larger ones with its repository (`download`). The others are on the Hugging Face hub, or
files that their authors publish. Any but the bundled ones may lie in the folder that UNSAMPLE_MODELS names.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..core.files import expanded

BUNDLED = Path(str(resources.files(__package__) / "weights"))
"""The weights that come with this package."""

FOLDER = "UNSAMPLE_MODELS"
"""The environment variable with a folder of models: `NAME/` in diffusers layout, or a published file under its own name."""


@dataclass(frozen=True)
class Card:
    """What `unsample models` says of a model.

    Attributes:
        name: What it is called here.
        family: One of `unsample.models.families`.
        size: Height and width of its images.
        parameters: Of the network that denoises.
        conditions: What it can be conditioned on.
        licence: Of the weights.
        about: Who made it, and what to know.
        source: A hub name "owner/model", or the name of the published file; "" for one of our own.
        files: SHA-256 of the list of its files, if `unsample models fetch` puts it in place.
    """

    name: str
    family: str
    size: str
    parameters: str
    conditions: str
    licence: str
    about: str
    source: str = ""
    files: str = ""

    @property
    def path(self) -> Path | None:
        """The directory or file of its weights: bundled, fetched, in the folder of `FOLDER`, or a file in the current one."""
        if self.files:
            places = [folder / self.name for folder in (models_folder(), repository_weights()) if folder]
        elif not self.source:
            places = [BUNDLED / self.name]
        else:
            places = [models_folder() / (self.name if self.on_hub else self.source)] if os.environ.get(FOLDER) else []
            places += [] if self.on_hub else [Path(self.source)]
        return next((place for place in places if place.is_file() or (place / "model_index.json").is_file()), None)

    @property
    def on_hub(self) -> bool:
        """Whether it comes from the Hugging Face hub."""
        return "/" in self.source

    @property
    def present(self) -> bool:
        """Whether its weights are on this machine."""
        return self.path is not None or (self.on_hub and cached(self.source))


def models_folder() -> Path:
    """Where downloaded models are: the folder that `FOLDER` names, or `~/.cache/unsample/models`."""
    named, cache = os.environ.get(FOLDER), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(named or Path(cache, "unsample", "models"))


def repository_weights() -> Path | None:
    """The folder `weights` of the repository, if this package is read from there."""
    folder = Path(__file__).parents[3] / "weights"
    return folder if folder.is_dir() and (folder.parent / "pyproject.toml").is_file() else None


def cards() -> dict[str, Card]:
    """The models known by name."""
    text = (resources.files(__package__) / "cards.toml").read_text()
    return {name: Card(name=name, **entry) for name, entry in tomllib.loads(text).items()}


def cached(source: str) -> bool:
    """Whether the hub's cache holds the weights of `source`, "owner/model": its index, and safetensors beside it."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(source, "model_index.json")
    return isinstance(index, str) and any(Path(index).parent.rglob("*.safetensors"))
