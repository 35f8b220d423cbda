"""The options of each attention editor; bound to prompts and layers they become an `AttentionChange` (`hooks.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from ...core.specs import Checked
from ...errors import ArgumentError, UnknownNameError
from .functions import Heads, injected, mutual, shared
from .hooks import AttentionChange, Layer, Moment
from .words import aligned, one_to_one, weighed

Kind = Literal["replace", "refine", "reweight"]


@runtime_checkable
class Editor(Protocol):
    """Options of an editor."""

    def bound(self, prompts: Sequence[str], tokenizer: Any, layers: Sequence[Layer], device: torch.device) -> AttentionChange:
        """The edit for these prompts, the source's first."""


@dataclass(frozen=True)
class MasaCtrl(Checked):
    """Mutual self-attention (Cao et al. 2023): the targets' queries attend to the source's keys and values.

    The contents stay the source's; the layout follows the target's prompt. In both branches of guidance.

    Attributes:
        from_step: Moves from the noisy end that are left unchanged.
        from_layer: Self-attention layers that are left unchanged, in the order the network runs them. Stable Diffusion 1 and 2
            have 16, of which 7 lie before the decoder; XL has 70, and 34 before it.
    """

    from_step: int = 4
    from_layer: int = 10

    def __post_init__(self) -> None:
        if min(self.from_step, self.from_layer) < 0:
            raise ArgumentError(f"steps and layers are counted from 0, given {self}")

    def bound(self, prompts: Sequence[str], tokenizer: Any, layers: Sequence[Layer], device: torch.device) -> AttentionChange:
        """Itself; the network must have a layer `from_layer`."""
        count = sum(not layer.is_cross for layer in layers)
        if self.from_layer >= count:
            raise ArgumentError(f"from_layer={self.from_layer}: this network has self-attention layers 0..{count - 1}")
        return self

    def acts(self, layer: Layer, moment: Moment, cells: int) -> bool:
        """In self-attention, from a step and a layer on."""
        return not layer.is_cross and moment.step >= self.from_step and layer.index >= self.from_layer

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        """Attention to the source."""
        return mutual(heads)


@dataclass(frozen=True)
class StyleAligned(Checked):
    """Shared self-attention (Hertz et al. 2024): the targets attend to the source's cells and to their own.

    Pictures of different things in the source's style. At every step, in both branches of guidance.

    Attributes:
        share: Of the self-attention layers, spread evenly over the network; 0 is none.
        adain: Give the targets' queries and keys the source's mean and deviation.
        scale: Multiplies the scores with the source's cells; below 1 they are weighted more evenly.
        shift: Added to those scores; log 2 counts each of these cells twice, negative numbers count them for less.
    """

    share: float = 1.0
    adain: bool = True
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        _shares(share=self.share)

    def bound(self, prompts: Sequence[str], tokenizer: Any, layers: Sequence[Layer], device: torch.device) -> AttentionChange:
        """Itself."""
        return self

    def acts(self, layer: Layer, moment: Moment, cells: int) -> bool:
        """In `share` of the self-attention layers, rounded."""
        wanted = round(self.share * layer.count)
        return not layer.is_cross and (layer.index + 1) * wanted // layer.count > layer.index * wanted // layer.count

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        """Attention to the source and to the target itself."""
        return shared(heads, normalise=self.adain, scale=self.scale, shift=self.shift)


@dataclass(frozen=True)
class PromptToPrompt(Checked):
    """Injected attention maps (Hertz et al. 2023): the targets' words attend where the source's words did.

    In the conditional branch alone; the branch that guidance moves away from is left unchanged.

    Attributes:
        kind: `replace` takes the source's maps token by token, of prompts of as many tokens; `refine` takes those of the
            tokens that both prompts have; `reweight` is `replace` with the maps of some `words` made stronger or weaker.
        cross_until: Share of the moves, from the noisy end, with the source's cross-attention maps.
        self_until: Share of the moves with its self-attention maps.
        self_cells: Of self-attention layers with at most so many cells; larger ones hold texture, and take much memory.
        words: Words of every target's prompt to weight; any kind can.
        weights: One per word; 1 is no change; they may be negative. They act as long as `cross_until`.
    """

    kind: Kind = "replace"
    cross_until: float = 0.8
    self_until: float = 0.4
    self_cells: int = 1024
    words: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _shares(cross_until=self.cross_until, self_until=self.self_until)
        if self.kind not in get_args(Kind):
            raise UnknownNameError("kind of prompt-to-prompt", self.kind, get_args(Kind))
        if len(self.words) != len(self.weights):
            raise ArgumentError(f"expected one weight per word, given {len(self.words)} words, {len(self.weights)} weights")
        if self.kind == "reweight" and not self.words:
            raise ArgumentError("kind='reweight' needs words and weights, for example words=('red',), weights=(2.0,)")

    def bound(self, prompts: Sequence[str], tokenizer: Any, layers: Sequence[Layer], device: torch.device) -> AttentionChange:
        """What is injected for each target."""
        if tokenizer is None:
            raise ArgumentError("prompt-to-prompt compares prompts token by token: give tokenizer=pipeline.tokenizer")
        source, *targets = prompts
        align = aligned if self.kind == "refine" else one_to_one
        weights = dict(zip(self.words, self.weights, strict=True))
        return _Injection(
            self,
            torch.tensor([align(tokenizer, source, target) for target in targets], device=device),
            torch.tensor([weighed(tokenizer, target, weights) for target in targets], device=device),
        )


@dataclass(frozen=True, eq=False)
class _Injection:
    """`PromptToPrompt` for certain prompts; `alignment` and `weights` are as of `functions.realigned`."""

    options: PromptToPrompt
    alignment: Tensor
    weights: Tensor

    def acts(self, layer: Layer, moment: Moment, cells: int) -> bool:
        """In the conditional branch, for a share of the steps."""
        until = self.options.cross_until if layer.is_cross else self.options.self_until
        is_time = moment.is_conditional and moment.step < round(until * moment.steps)
        return is_time and (layer.is_cross or cells <= self.options.self_cells)

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        """The targets' values under the source's maps."""
        return injected(heads, self.alignment, self.weights) if layer.is_cross else injected(heads)


def _shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ArgumentError(f"{name} is a share, 0 to 1, given {share}")
