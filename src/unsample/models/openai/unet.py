"""The U-Net of improved-diffusion and guided-diffusion, its parameters named as in the published state dicts.

Residual blocks with a time embedding, self-attention at some resolutions, and skip connections from every state on the way
down to the way up (Nichol and Dhariwal 2021, arXiv 2102.09672; "ADM": Dhariwal and Nichol 2021, arXiv 2105.05233, appendix).
For inference alone: no dropout, no checkpointing of gradients.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError

GROUPS = 32
"""Groups of every group norm."""


@dataclass(frozen=True)
class Architecture:
    """What makes the network, under the names of guided-diffusion's flags.

    Attributes:
        num_channels: Width that the multipliers multiply.
        channel_mult: A multiplier per level, from the image's resolution down.
        num_res_blocks: Residual blocks per level; one more on the way up.
        attention: Levels with self-attention; 0 is the image's resolution.
        num_heads, num_heads_upsample: Heads on the way down, and on the way up.
        num_head_channels: Channels of a head; heads follow from it, unless it is None.
        use_scale_shift_norm: The time scales and shifts what is normalised, instead of being added before.
        resblock_updown: Residual blocks change the resolution, not convolutions.
        use_new_attention_order: Queries, keys and values are split before the heads.
        conv_resample: Where no residual block does, convolutions change the resolution, instead of plain averages and copies.
        classes: The number of classes; 0 for an unconditional network.
        outputs: Channels of its output; its input has 3.
    """

    num_channels: int
    channel_mult: tuple[float, ...]
    num_res_blocks: int
    attention: frozenset[int]
    num_heads: int = 4
    num_heads_upsample: int = 4
    num_head_channels: int | None = None
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    conv_resample: bool = True
    classes: int = 0
    outputs: int = 3

    def __post_init__(self) -> None:
        for level, width in enumerate(self.widths):
            if width < GROUPS or width % GROUPS:
                raise ModelError(
                    f"num_channels {self.num_channels} times channel_mult {self.channel_mult[level]} is {width}: "
                    f"expected a multiple of {GROUPS}, the groups of a norm"
                )
        attended = {self.widths[level] for level in self.attention} | {self.widths[-1]}
        for width in attended:
            for split in (self.num_head_channels,) if self.num_head_channels else (self.num_heads, self.num_heads_upsample):
                if width % split:
                    raise ModelError(f"attention of {width} channels cannot be split by {split}: change num_heads")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, from the image's resolution down."""
        return tuple(int(multiplier * self.num_channels) for multiplier in self.channel_mult)

    @property
    def embedding(self) -> int:
        """Size of the embedding of time and class that every residual block takes."""
        return 4 * self.num_channels


class OpenAIUNet(nn.Module):
    """The network, untrained; `device="meta"` as the default device makes it without any weights.

    In half precision (`narrow`) its convolutions alone are half, as there: the norms, the time and the output stay float32.
    """

    def __init__(self, of: Architecture) -> None:
        super().__init__()
        self.architecture, width, size = of, of.widths[0], of.embedding
        self.time_embed = nn.Sequential(nn.Linear(of.num_channels, size), nn.SiLU(), nn.Linear(size, size))
        if of.classes:
            self.label_emb = nn.Embedding(of.classes, size)
        self.input_blocks = nn.ModuleList(_way_down(of))
        self.middle_block = nn.ModuleList(
            [_residual(of, of.widths[-1]), _attention(of, of.widths[-1], of.num_heads), _residual(of, of.widths[-1])]
        )
        self.output_blocks = nn.ModuleList(_way_up(of))
        self.out = nn.Sequential(WideGroupNorm(GROUPS, width), nn.SiLU(), _conv3(width, of.outputs))

    def narrow(self, dtype: torch.dtype) -> OpenAIUNet:
        """Itself, cast to `dtype`; all but the inner convolutions stay float32 if that is half."""
        self.to(torch.promote_types(dtype, torch.float32))
        for blocks in (self.input_blocks, self.middle_block, self.output_blocks):
            for layer in blocks.modules():
                if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
                    layer.to(dtype)
        return self

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The raw output of states (batch, 3, height, width) at times (batch,), in the dtype of its last layer.

        `condition`, of a class-conditional network: class indices, (batch,), or their embeddings, (batch, 4 num_channels).
        """
        wide = next(self.time_embed.parameters()).dtype
        emb: Tensor = self.time_embed(timestep_embedding(t.to(wide), self.architecture.num_channels))
        if condition is not None:
            floating = condition.is_floating_point()
            emb = emb + (condition.to(emb) if floating else self.label_emb(condition.to(emb.device)))
        h, skips = x.to(next(self.input_blocks.parameters()).dtype), []
        for block in self.input_blocks:
            h = _through(block, h, emb)
            skips.append(h)
        h = _through(self.middle_block, h, emb)
        for block in self.output_blocks:
            h = _through(block, torch.cat([h, skips.pop()], dim=1), emb)
        output: Tensor = self.out(h.to(wide))
        return output


def timestep_embedding(t: Tensor, width: int, longest: float = 10000.0) -> Tensor:
    """Cosines, then sines, of floating times (batch,) at width / 2 falling frequencies: (batch, width), in t's dtype.

    >>> timestep_embedding(torch.zeros(1), 5)
    tensor([[1., 1., 0., 0., 0.]])
    """
    half = width // 2
    falling = torch.arange(half, device=t.device, dtype=t.dtype) * (-math.log(longest) / half)
    phases = t[:, None] * falling.exp()
    return functional.pad(torch.cat([phases.cos(), phases.sin()], dim=1), (0, width % 2))


class WideGroupNorm(nn.GroupNorm):
    """A group norm computed in the precision of its own weights, whatever that of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """The normalised input, in its dtype."""
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class ResBlock(nn.Module):
    """A residual block with an embedding of time; `resample` changes the resolution of both of its branches."""

    def __init__(self, inputs: int, outputs: int, embedding: int, scales: bool, resample: nn.Module | None) -> None:
        super().__init__()
        self.scales, self.resample = scales, resample
        self.in_layers = nn.Sequential(WideGroupNorm(GROUPS, inputs), nn.SiLU(), _conv3(inputs, outputs))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outputs if scales else outputs))
        # The identity takes the place of the dropout in training, which the numbers of the published parameters count.
        self.out_layers = nn.Sequential(WideGroupNorm(GROUPS, outputs), nn.SiLU(), nn.Identity(), _conv3(outputs, outputs))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """States of the block's outputs."""
        norm, activation, conv = self.in_layers
        h = activation(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)
        shifts = self.emb_layers(emb).to(h.dtype)[..., None, None]
        norm, activation, _, conv = self.out_layers
        if self.scales:
            scale, shift = shifts.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + shifts)
        result: Tensor = self.skip_connection(x) + conv(activation(h))
        return result


class AttentionBlock(nn.Module):
    """Self-attention over the positions of a state, added to it; `splits_first`: q, k and v are split before the heads."""

    def __init__(self, channels: int, heads: int, splits_first: bool) -> None:
        super().__init__()
        self.heads, self.splits_first = heads, splits_first
        self.norm = WideGroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """States of x's shape."""
        flat = x.flatten(2)
        split, at = ((3, self.heads, -1), 1) if self.splits_first else ((self.heads, 3, -1), 2)
        q, k, v = (part.mT for part in self.qkv(self.norm(flat)).unflatten(1, split).unbind(at))
        h = functional.scaled_dot_product_attention(q, k, v)  # (batch, heads, positions, channels of a head)
        result: Tensor = x + self.proj_out(h.mT.flatten(1, 2)).view_as(x)
        return result


def _way_down(of: Architecture) -> list[nn.ModuleList]:
    width = of.widths[0]
    blocks = [nn.ModuleList([_conv3(3, width)])]
    for level, outputs in enumerate(of.widths):
        for _ in range(of.num_res_blocks):
            blocks.append(_block(of, level, width, outputs, of.num_heads))
            width = outputs
        if level < len(of.widths) - 1:
            blocks.append(nn.ModuleList([_halved(of, width)]))
    return blocks


def _way_up(of: Architecture) -> list[nn.ModuleList]:
    skips = _skip_widths(of)
    width, blocks = of.widths[-1], []
    for level, outputs in reversed(list(enumerate(of.widths))):
        for i in range(of.num_res_blocks + 1):
            block = _block(of, level, width + skips.pop(), outputs, of.num_heads_upsample)
            if level and i == of.num_res_blocks:
                block.append(_doubled(of, outputs))
            blocks.append(block)
            width = outputs
    return blocks


def _skip_widths(of: Architecture) -> list[int]:
    """Channels of every state on the way down, in its order."""
    widths = [of.widths[0]]
    for level, width in enumerate(of.widths):
        widths += [width] * (of.num_res_blocks + (level < len(of.widths) - 1))
    return widths


def _block(of: Architecture, level: int, inputs: int, outputs: int, heads: int) -> nn.ModuleList:
    block = nn.ModuleList([_residual(of, inputs, outputs)])
    if level in of.attention:
        block.append(_attention(of, outputs, heads))
    return block


def _residual(of: Architecture, inputs: int, outputs: int | None = None, resample: nn.Module | None = None) -> ResBlock:
    return ResBlock(inputs, outputs or inputs, of.embedding, of.use_scale_shift_norm, resample)


def _attention(of: Architecture, channels: int, heads: int) -> AttentionBlock:
    heads = channels // of.num_head_channels if of.num_head_channels else heads
    return AttentionBlock(channels, heads, of.use_new_attention_order)


def _halved(of: Architecture, width: int) -> nn.Module:
    if of.resblock_updown:
        return _residual(of, width, resample=nn.AvgPool2d(2))
    return nn.Sequential(OrderedDict(op=nn.Conv2d(width, width, 3, 2, 1) if of.conv_resample else nn.AvgPool2d(2)))


def _doubled(of: Architecture, width: int) -> nn.Module:
    copies = nn.Upsample(scale_factor=2, mode="nearest")
    if of.resblock_updown:
        return _residual(of, width, resample=copies)
    return nn.Sequential(OrderedDict(copies=copies, conv=_conv3(width, width))) if of.conv_resample else copies


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _through(block: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    for layer in block.children():
        h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
    return h
