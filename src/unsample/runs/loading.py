"""How a model is loaded again from what is written down of it: by a command, by who reads a run, by a worker elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from .. import models
from ..core.model import Model
from .manifest import Origin


@dataclass(frozen=True)
class Loading:
    """Where a model comes from, and how it is loaded; all of it text and numbers, which can be sent anywhere."""

    origin: Origin
    device: str = "auto"
    dtype: str = "float32"
    offload: bool = False
    tiling: bool = False

    def load(self) -> Model:
        """The model.

        Raises:
            ModelError: It cannot be loaded.
        """
        origin = self.origin
        return models.load(
            origin.source,
            size=origin.size,
            revision=origin.revision,
            variant=origin.variant,
            device=self.device,
            dtype=self.dtype,
            offload=self.offload,
            tiling=self.tiling,
        )
