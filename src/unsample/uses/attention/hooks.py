"""Attention of a U-Net of Stable Diffusion, changed for a while: its processors are replaced, and put back afterwards.

The batch is a source and its targets, in that order. Where an `AttentionChange` acts, it computes the targets' attention; the
source's is always the plain one, and elsewhere so is the targets'. A `Moment` tells the processors which call it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...core.denoiser import Denoiser, Guided, Wrapper
from ...core.model import Model
from ...core.schedule import Level
from ...errors import ModelError
from ...models.families.stable_diffusion import TextUNet
from .functions import Heads, attend

BLOCKS = ("down_blocks", "mid_block", "up_blocks")
"""In the order a U-Net runs them, which is not the one it lists them in."""

PLAIN = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor")
"""Processors that all compute softmax(q k / sqrt(d)) v; others add something that a change would lose."""


@dataclass(frozen=True)
class Layer:
    """An attention layer.

    Attributes:
        index: Its place among the layers of its kind, in the order the network runs them, from 0.
        count: Layers of its kind.
        is_cross: Whether its keys and values are the prompt's; else they are the picture's own.
    """

    index: int
    count: int
    is_cross: bool


@dataclass
class Moment:
    """Which network call of the way down is running.

    Attributes:
        steps: Moves of the whole grid.
        step: Moves above its level; 0 at the noisy end.
        is_conditional: Whether its conditions are the prompts, or what guidance moves away from.
    """

    steps: int
    step: int = 0
    is_conditional: bool = True


@runtime_checkable
class AttentionChange(Protocol):
    """What becomes of the targets' attention, and where."""

    def acts(self, layer: Layer, moment: Moment, cells: int) -> bool:
        """Whether it changes anything in a layer with so many queries."""

    def attend(self, layer: Layer, heads: Heads) -> Tensor:
        """The targets' attention, (targets, heads, cells, channels); the first row of `heads` is the source's."""


@dataclass(frozen=True)
class ChangedAttention:
    """A diffusers processor for one layer, which calls the one that was there before where the change does not act."""

    layer: Layer
    change: AttentionChange
    moment: Moment
    own: Any

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Attention of (batch, cells, channels), to the tokens of `encoder_hidden_states` or to itself, without a mask."""
        if not self.change.acts(self.layer, self.moment, hidden_states.shape[1]):
            plain: Tensor = self.own(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
            return plain
        heads = _project(attn, hidden_states, hidden_states if encoder_hidden_states is None else encoder_hidden_states)
        attended = torch.cat([attend(heads.take(slice(0, 1))), self.change.attend(self.layer, heads)])
        output: Tensor = attended.transpose(1, 2).flatten(2)
        for part in attn.to_out:  # a projection, and a dropout that does nothing in evaluation
            output = part(output)
        return output


def _project(attn: Any, x: Tensor, context: Tensor) -> Heads:
    q, k, v = (
        projected.unflatten(2, (attn.heads, -1)).transpose(1, 2)
        for projected in (attn.to_q(x), attn.to_k(context), attn.to_v(context))
    )
    return Heads(q, k, v, attn.scale)


@contextmanager
def changed_attention(unet: Any, change: AttentionChange, moment: Moment) -> Iterator[None]:
    """A context in which `change` acts on the attention of `unet`; afterwards it has its own processors again."""
    before = dict(unet.attn_processors)
    ours = {name: ChangedAttention(layer, change, moment, before[name]) for name, layer in layers_of(unet).items()}
    try:
        unet.set_attn_processor(dict(ours))  # which it empties
        yield
    finally:
        unet.set_attn_processor(before)


def layers_of(unet: Any) -> Mapping[str, Layer]:
    """The attention layers of a U-Net by the names of their processors, each kind in the order the network runs them."""
    names = sorted(unet.attn_processors, key=lambda name: BLOCKS.index(name.partition(".")[0]))
    layers: dict[str, Layer] = {}
    for is_cross in (False, True):
        kind = [name for name in names if unet.get_submodule(name.removesuffix(".processor")).is_cross_attention == is_cross]
        layers |= {name: Layer(i, len(kind), is_cross) for i, name in enumerate(kind)}
    return layers


def unet_of(model: Model) -> Any:
    """The U-Net of a model of Stable Diffusion 1, 2 or XL.

    Raises:
        ModelError: Another kind of network, or one whose attention already does more than the plain one.
    """
    network = model.network
    unet = network.unet if isinstance(network, TextUNet) else None
    if unet is None or any(".transformer_blocks." not in name for name in unet.attn_processors):
        kind = model.family or type(network).__name__
        raise ModelError(
            f"model {model.name!r} is one of {kind}: attention is edited in U-Nets of Stable Diffusion 1, 2 and XL; load one"
        )
    kinds = {type(processor).__name__ for processor in unet.attn_processors.values()}
    if strange := sorted(kinds - {*PLAIN}):
        raise ModelError(
            f"the attention of model {model.name!r} is already changed by {', '.join(strange)}: "
            "set it back with pipeline.unet.set_default_attn_processor()"
        )
    return unet


@dataclass(frozen=True)
class _Watched(Wrapper):
    """A denoiser that notes each call in `moment`."""

    denoiser: Denoiser
    moment: Moment
    is_conditional: bool

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """The eps of the wrapped denoiser, its level and branch noted."""
        self.moment.step, self.moment.is_conditional = self.moment.steps - level.index, self.is_conditional
        return self.denoiser(x, level)


def watched(denoiser: Denoiser, moment: Moment) -> Denoiser:
    """A model's denoiser that keeps `moment` up to date, in both branches of guidance or the only one."""
    if not isinstance(denoiser, Guided):
        return _Watched(denoiser, moment, True)
    return replace(
        denoiser,
        conditional=_Watched(denoiser.conditional, moment, True),
        unconditional=_Watched(denoiser.unconditional, moment, False),
    )
