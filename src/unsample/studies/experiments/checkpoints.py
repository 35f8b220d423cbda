"""Networks on their way through training: snapshots of weights, as `training/train.py` writes them into `snapshots/`.

A snapshot holds weights alone. Everything else, the network's shape and schedule among it, is taken from the model that the
same training made, so `load_checkpoint` needs one. Snapshots are found at once and read one at a time.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.files import regular
from ...core.model import Model
from ...errors import ModelError
from ...models.digest import digest_of

PARTS = ("unet", "transformer")
"""What a network's one part may be called."""

NAME = re.compile(r"step-([0-9]+)\.safetensors")


def find_checkpoints(folder: str | Path) -> dict[int, Path]:
    """Training step -> file, in the order of training, of the `step-000100.safetensors` in a folder or in its `snapshots/`.

    Raises:
        ModelError: There are none, or two of one step.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "step-000200.safetensors").touch(), (folder / "step-000010.safetensors").touch()
    >>> [(step, file.name) for step, file in find_checkpoints(folder).items()]
    [(10, 'step-000010.safetensors'), (200, 'step-000200.safetensors')]
    """
    for place in (Path(folder), Path(folder) / "snapshots"):
        files = [(int(name[1]), file) for file in place.glob("*") if (name := NAME.fullmatch(file.name))]
        if files:
            break
    else:
        raise ModelError(f"no checkpoints in {folder}: expected step-000100.safetensors and so on, from training/train.py")
    if len({step for step, _ in files}) < len(files):
        raise ModelError(f"two checkpoints of one step in {place}: keep one of them")
    return dict(sorted(files))


def load_checkpoint(file: Path, model: Model) -> Model:
    """`model` with the weights of a snapshot in place of its own, in its precision and on its device, under its own digest.

    Raises:
        ModelError: `model` has no network of one part, the file is damaged, or it belongs to another network.
    """
    whole: Any = model.network
    part = next((part for part in PARTS if hasattr(whole, part)), None)
    if part is None:
        kinds = " or ".join(PARTS)
        raise ModelError(f"checkpoints are weights of a {kinds}, and model {model.name!r} has none: choose another --model")
    network = copy.deepcopy(getattr(whole, part))
    own: dict[str, Tensor] = network.state_dict()
    weights = _read(file)
    astray = sorted(set(own) ^ set(weights)) or [key for key in own if own[key].shape != weights[key].shape]
    if astray:
        raise ModelError(
            f"{file} does not fit model {model.name!r}: they differ at {', '.join(astray)[:200]}; give --model the folder "
            "model/ that the same training wrote"
        )
    network.load_state_dict({key: weights[key].to(own[key]) for key in own})
    changed = replace(whole, **{part: network})
    return replace(model, network=changed, name=f"{model.name}-{file.stem}", digest=digest_of(network))


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(regular(file))
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the checkpoint {file} is missing or damaged ({reason}); train it again or remove it") from None
    astray = [key for key, weight in weights.items() if not bool(weight.isfinite().all())]
    if astray:
        raise ModelError(f"the checkpoint {file} has values that are not finite in {', '.join(astray)[:200]}; remove it")
    return weights
