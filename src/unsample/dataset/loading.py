"""The model that every worker loads for itself, where it is."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.model import Model
from ..errors import RunError
from ..models import load
from ..runs.manifest import Origin


@dataclass(frozen=True)
class Loading:
    """Where a model comes from, and how it is loaded; all of it text and numbers, which can be sent anywhere."""

    origin: Origin
    device: str = "auto"
    dtype: str = "float32"
    offload: bool = False
    tiling: bool = False

    def load(self, digest: str | None = None) -> Model:
        """The model.

        Raises:
            ModelError: It cannot be loaded.
            RunError: It is not the one with this digest.
        """
        origin = self.origin
        model = load(
            origin.source,
            size=origin.size,
            revision=origin.revision,
            variant=origin.variant,
            device=self.device,
            dtype=self.dtype,
            offload=self.offload,
            tiling=self.tiling,
        )
        if digest is not None and model.digest != digest:
            raise RunError(f"the dataset was made with other weights of {model.name!r}; give that model, or another --out")
        return model
