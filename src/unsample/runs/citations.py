"""What to cite: the works behind a method or a run, and their BibTeX.

The manifest of a run says what ran: the method and the methods among its options, the starts, the spacing, the guidance, the
model. Each has its keys, a method's in `METHODS`; `references.bib` has the entries. The software itself always comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import resources
from typing import Any

from ..core.ddim import DDIM
from ..core.starts import ForwardNoise
from ..errors import UnknownNameError
from ..methods.registry import METHODS, parse_method
from ..methods.starts import AutoStart, PlainNoise, parse_start
from .manifest import Manifest

SOFTWARE = "unsample"
FORWARD = "staniszewski2026there"
SAMPLING = "song2021ddim"
GUIDANCE = "ho2022cfg"
NEGATIVE = "miyake2023negative"
PART_OF_THE_WAY = "meng2022sdedit"
DIFFERENCE_MASK = "couairon2023diffedit"
PINNED = "ju2024pnp"
EDITORS = {"masactrl": "cao2023masactrl", "stylealigned": "hertz2024stylealigned", "p2p": "hertz2023prompt"}
"""Attention editor -> its work."""
SPACINGS = {"trdi": "sun2026trdi", "karras": "karras2022edm"}
MODELS = {
    "tiny-imagenet-32": ("ho2020ddpm", "le2015tiny"),
    "tiny-imagenet-32-v": ("ho2020ddpm", "salimans2022progressive", "le2015tiny"),
    "tiny-imagenet-64": ("ho2020ddpm", "salimans2022progressive", "le2015tiny"),
    "tiny-imagenet-64-latent": ("rombach2022latent", "salimans2022progressive", "le2015tiny"),
    "tiny-imagenet-64-dit": ("peebles2023dit", "salimans2022progressive", "le2015tiny"),
    "tiny-imagenet-64-flow": ("peebles2023dit", "lipman2023flow", "le2015tiny"),
}
"""Our own model -> its network and noise schedule, and its data."""


def entries() -> dict[str, str]:
    """Key -> BibTeX entry, of all there are.

    >>> print(entries()["le2015tiny"].splitlines()[1].strip())
    title = {Tiny {ImageNet} Visual Recognition Challenge},
    """
    text = (resources.files(__package__) / "references.bib").read_text(encoding="ascii")
    return {match[1]: match[0] for match in re.finditer(r"^@\w+\{([^,\s]+),$.*?^\}$", text, re.MULTILINE | re.DOTALL)}


def bibtex(keys: Sequence[str], version: str | None = None) -> str:
    """The entries of `keys`, in their order, an empty line between; `version` is that of the software, if not this one.

    Raises:
        UnknownNameError: No such key.
    """
    known = entries()
    for key in keys:
        if key not in known:
            raise UnknownNameError("reference", key, known)
    if version is not None:
        known[SOFTWARE] = re.sub(r"(?<=Software, version )[^}]+", lambda _: version, known[SOFTWARE])
    return "\n\n".join(known[key] for key in keys)


def keys_of_method(text: str) -> tuple[str, ...]:
    """Keys of the software, of a method as people type it, of the methods among its options, and of what samples back.

    Raises:
        UnknownNameError: No such method, or no such option of it.
        ArgumentError: An option whose value is not one.

    >>> keys_of_method("direct:method=damped/iterations=10")
    ('unsample', 'ju2024pnp', 'hong2024exact', 'song2021ddim')
    """
    method = parse_method(text)
    keys = [SOFTWARE, *_behind(method)]
    sampler = method.sampler
    if isinstance(sampler, DDIM):
        keys.append(SAMPLING)
    elif sampler is not method:
        keys.extend(_behind(sampler))
    return tuple(dict.fromkeys(keys))


def keys_of_run(manifest: Manifest) -> tuple[str, ...]:
    """Keys of all that ran: the software, the forward start, the method and its sampler, spacing, guidance, edit and model.

    For latents of another run the method is named if it also samples back; what else was up to that run is not known here.

    Raises:
        UnknownNameError: The run's method is not one of this version.
    """
    settings: dict[str, Any] = manifest.settings
    keys = [SOFTWARE]
    for inversion in _inversions(settings):
        keys += _keys_of_inversion(inversion)
    keys += [GUIDANCE] if settings.get("guidance", 1) != 1 else []
    keys += _keys_of_edit(manifest.command, settings)
    keys += MODELS.get(settings.get("model", ""), ())
    return tuple(dict.fromkeys(keys))


def _inversions(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """How pictures were inverted: by each candidate of an editing benchmark, or as any other run has it."""
    if "ways" not in settings:
        return [settings]
    return [
        {"method": method, "forward": [start], "spacing": spacing, "editor": editor[0] if editor else ""}
        for method, start, _, spacing, *editor in settings["ways"]
    ]


def _keys_of_inversion(how: dict[str, Any]) -> Iterator[str]:
    """Keys of a method and its sampler, of its start, the spacing, and the editor."""
    if how.get("method"):
        walks = parse_method(how["method"]).inversion is not None  # without an inversion no start is used
        yield from [FORWARD] if walks and any(map(_noises, how.get("forward", ()))) else []
        yield from keys_of_method(how["method"])
    else:
        yield SAMPLING
    spacing, editor = ((how.get(name) or "").partition(":")[0] for name in ("spacing", "editor"))
    yield from [SPACINGS[spacing]] if spacing in SPACINGS else []
    yield from [EDITORS[editor], PINNED] if editor in EDITORS else []  # it puts the picture on the states of its inversion


def _keys_of_edit(command: str, settings: dict[str, Any]) -> Iterator[str]:
    """Keys of what an edit or variations did on the way down, or to find where."""
    if command == "variations" or (command == "edit" and settings.get("strength", 1) < 1):
        yield PART_OF_THE_WAY
    if settings.get("edit_guidance", 1) != 1:
        yield GUIDANCE
        if settings.get("negative") is not None:  # guidance moves away from what the picture is
            yield NEGATIVE
    if settings.get("mask") == "auto":
        yield DIFFERENCE_MASK
    if command == "edit-benchmark":
        yield PINNED  # the same work: PIE-Bench is its


def gaps(manifest: Manifest) -> tuple[str, ...]:
    """What ran but `keys_of_run` cannot know, in sentences: a model that is not ours, an inversion in another run."""
    settings, notes = manifest.settings, []
    if settings.get("model") not in MODELS:
        notes.append(f"the model {settings.get('model')!r} has no entry here; cite it as its card says")
    if settings.get("source"):
        unknown = "" if settings.get("method") else ", and the manifest does not name its method"
        notes.append(f"the latents came from another run{unknown}; cite that run as well")
    return tuple(notes)


def _noises(start: str) -> bool:
    """Whether a start replaces moves by forward diffusion; one of 0 moves does not."""
    made = parse_start(start)
    if isinstance(made, ForwardNoise):
        return bool(made.steps or made.fraction or made.sigma)
    return isinstance(made, (AutoStart, PlainNoise))


def _inside(method: Any) -> Iterator[str]:
    """Keys of the methods among the options of a method."""
    for option in fields(method):
        yield from _behind(getattr(method, option.name))


def _behind(value: Any) -> Iterator[str]:
    """Keys of a method and of those among its options; none of any other value."""
    if is_dataclass(value):
        known: dict[Any, tuple[str, ...]] = {method.make: method.references for method in METHODS.values()}
        yield from known.get(type(value), ())
        yield from _inside(value)
