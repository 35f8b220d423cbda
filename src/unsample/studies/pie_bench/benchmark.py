"""The settings of a benchmark, and its edits: 8-bit pictures of a batch of entries by one candidate.

With an attention editor the batch is inverted together, and each picture then walks down beside its own target. An edit that
diverges, or prompts that an editor cannot compare, lose no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ..._tensors import Images
from ...core.batching import OnStep
from ...core.model import Model
from ...errors import ArgumentError, DivergenceError
from ...methods.registry import parse_method
from ...methods.starts import parse_start
from ...pictures.read import quantised
from ...runs.names import slugs
from ...uses.attention import PROMPT, Named, SourcePicture, bound, inverted_with_states, parse_editor
from ...uses.edit import Edit, edit
from .candidates import EditCandidate
from .controls import rows_of
from .entries import Editable
from .metrics import METRICS, TARGET_CLASS, Metric, Perception, judge

NETWORKS = ("structure distance", "LPIPS", "CLIP whole", "CLIP edited")


@dataclass(frozen=True)
class Benchmark:
    """What is edited, and how.

    Attributes:
        model: The model that edits.
        editable: The entries.
        candidates: Methods, starts and editors, with titles that differ.
        guidance: On the way down, as `unsample.edit`.
        seed: Of the starts' noise, together with each picture's content.
        batch_size: Entries per network call; with an attention editor on the way up alone.
        use_mask: Whether an edit is confined to the region; otherwise the region is for measuring alone.
        networks: Whether the numbers of DINO, LPIPS and CLIP are computed.
        perception: Those networks.
    """

    model: Model
    editable: Editable
    candidates: tuple[EditCandidate, ...]
    guidance: float = 3.0
    seed: int = 0
    batch_size: int = 16
    use_mask: bool = False
    networks: bool = True
    perception: Perception = field(default_factory=Perception)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on, for a manifest."""
        model = self.model
        return {
            "model": model.name,
            "model_digest": model.digest,
            "schedule_digest": model.schedule.digest,
            "image_size": list(model.image_size),
            "device": str(model.device),
            "ways": [candidate.settings for candidate in self.candidates],
            "guidance": self.guidance,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "use_mask": self.use_mask,
            "networks": self.networks,
            "entries": self.editable.digest,
        }

    @property
    def has_codec(self) -> bool:
        """Whether its images pass a lossy codec."""
        return self.model.codec.scale > 1

    @property
    def rows(self) -> list[str]:
        """Rows of the table, as `rows_of`."""
        return rows_of((candidate.title for candidate in self.candidates), codec=self.has_codec)

    @property
    def metrics(self) -> list[Metric]:
        """The numbers to compute; that of the class only where a target is one."""
        seven = [metric for metric in METRICS if self.networks or metric.name not in NETWORKS]
        _, targets = self.editable.prompts(slice(None))
        return [*seven, *([TARGET_CLASS] if set(targets) & set(judge().classes) else [])]

    def check(self) -> None:
        """Check that every attention editor can make an edit of these entries, before any work.

        Raises:
            ArgumentError: One can make none.
        """
        for editor, reasons in self.refused.items():
            if len(reasons) == len(self.editable.entries):
                raise ArgumentError(f"editor {editor!r} can edit no entry: {next(iter(reasons.values()))}")

    @cached_property
    def refused(self) -> Mapping[str, Mapping[str, str]]:
        """Attention editor -> key of an entry -> why it cannot make that edit."""
        editors = dict.fromkeys(one.editor for one in self.candidates if one.editor != PROMPT)
        return {editor: self._refused(editor) for editor in editors}

    def _refused(self, editor: str) -> dict[str, str]:
        named, refused = parse_editor(editor), dict[str, str]()
        for entry, source, target in zip(self.editable.entries, *self.editable.prompts(slice(None)), strict=True):
            try:
                if named is not None:
                    bound(self.model, named.editor, source, [target])
            except ArgumentError as error:
                refused[entry.key] = str(error)
        return refused

    @cached_property
    def folders(self) -> dict[str, str]:
        """Title of a candidate -> the folder of its pictures."""
        return {title: f"edits/{name}" for title, name in slugs(candidate.title for candidate in self.candidates).items()}

    @cached_property
    def files(self) -> dict[str, str]:
        """Key of an entry -> the file of its picture in each folder."""
        return {key: f"{name}.png" for key, name in slugs(entry.key for entry in self.editable.entries).items()}

    def edited(self, candidate: EditCandidate, batch: slice, on_step: OnStep | None = None) -> dict[str, Tensor]:
        """A batch: pictures of 8 bits, `edited`, uint8 [B, 3, H, W]; which are `fine`, Bool [B]; `nfe` and `nfe_up`."""
        try:
            return self._edit(candidate, batch, on_step)
        except DivergenceError:
            parts = [self._alone(candidate, slice(i, i + 1)) for i in range(batch.start, batch.stop)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _alone(self, candidate: EditCandidate, batch: slice) -> dict[str, Tensor]:
        try:
            return self._edit(candidate, batch)
        except DivergenceError:
            return self._tensors(torch.tensor([False], device="cpu"), None)

    def _edit(self, candidate: EditCandidate, batch: slice, on_step: OnStep | None = None) -> dict[str, Tensor]:
        refused = self.refused.get(candidate.editor, {})
        fine = torch.tensor([entry.key not in refused for entry in self.editable.entries[batch]], device="cpu")
        return self._tensors(fine, self._made(candidate, batch, fine, on_step) if bool(fine.any()) else None)

    def _tensors(self, fine: Bool[Tensor, " batch"], made: Edit | None) -> dict[str, Tensor]:
        """The edits of those that are fine as 8-bit pictures, black elsewhere."""
        pixels = torch.zeros((len(fine), 3, *self.model.image_size), dtype=torch.uint8, device="cpu")
        if made is not None:
            pixels[fine] = quantised(made.images).cpu()
        nfe, up = (made.nfe, made.nfe_up) if made else (0, 0)
        return {"edited": pixels, "fine": fine, "nfe": fine * nfe, "nfe_up": fine * up}

    def _made(self, candidate: EditCandidate, batch: slice, chosen: Bool[Tensor, " batch"], on_step: OnStep | None) -> Edit:
        """The edits of the chosen entries of a batch."""
        images, regions = self.editable.load(batch, self.model.image_size, border=False)
        places = chosen.nonzero().flatten().tolist()
        source, target = ([prompts[i] for i in places] for prompts in self.editable.prompts(batch))
        shared: dict[str, Any] = {
            "source": source,
            "method": parse_method(candidate.method),
            "start": parse_start(candidate.forward),
            "seed": self.seed,
            "items": [self.editable.items[batch][i].id for i in places],
            "grid": self.model.grid(candidate.steps, candidate.spacing),
        }
        mask = regions[chosen] if self.use_mask else None
        if (named := parse_editor(candidate.editor)) is not None:
            return self._attended(named, images[chosen], target, mask, on_step, shared)
        given = {"guidance": self.guidance, "mask": mask, "on_step": on_step, **shared}
        return edit(self.model, images[chosen], to=target, **given)

    def _attended(
        self,
        named: Named,
        images: Images,
        target: Sequence[str],
        mask: Bool[Tensor, "batch height width"] | None,
        on_step: OnStep | None,
        shared: Mapping[str, Any],
    ) -> Edit:
        """Each beside its source; what that costs is counted, too."""
        there = inverted_with_states(self.model, images, **shared)
        steps, made = shared["grid"].steps, list[Edit]()
        for i, (source, item) in enumerate(zip(shared["source"], shared["items"], strict=True)):
            own = there.take(torch.tensor([i], device="cpu"))
            picture = SourcePicture(self.model, own, source, shared["grid"], shared["method"], item, self.seed)
            made.append(picture.edit(named, [target[i]], self.guidance, None if mask is None else mask[i]))
            if on_step is not None:
                on_step((i + 1) * steps, len(images) * steps)
        spent = 2 * max(one.nfe_down for one in made)
        return Edit(torch.cat([one.images for one in made]), there, None, there.nfe, spent)
