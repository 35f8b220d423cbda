"""What attention editors compute, as functions of queries, keys and values.

The first row is the source's, the others its targets'; each function returns the targets' attention alone.
Maps and statistics are computed in single precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._tensors import brief

VARIANCE = 1e-5
"""Added to the variance of a channel, which may be 0."""


@brief
@dataclass(frozen=True, eq=False)
class Heads:
    """Queries, keys and values of one layer.

    Attributes:
        q: (batch, heads, cells, channels).
        k: (batch, heads, cells or tokens, channels).
        v: The shape of `k`.
        scale: Multiplies q k, usually 1 / sqrt(channels).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float

    def take(self, rows: slice) -> Heads:
        """Those of some rows."""
        return Heads(self.q[rows], self.k[rows], self.v[rows], self.scale)


def attend(heads: Heads, bias: Tensor | None = None) -> Tensor:
    """softmax(scale q k + bias) v, the shape of q.

    >>> x = torch.tensor([[[[0.0], [2.0]]]])
    >>> attend(Heads(0 * x, x, x, 1.0)).flatten().tolist()
    [1.0, 1.0]
    """
    return torch.nn.functional.scaled_dot_product_attention(
        heads.q, heads.k, heads.v, attn_mask=None if bias is None else bias.to(heads.q.dtype), scale=heads.scale
    )


def mutual(heads: Heads) -> Tensor:
    """Attention of the targets' queries to the source's keys and values (Cao et al. 2023)."""
    return attend(Heads(heads.q[1:], heads.k[:1].expand_as(heads.k[1:]), heads.v[:1].expand_as(heads.v[1:]), heads.scale))


def shared(heads: Heads, *, normalise: bool = True, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """The targets attend to the source's cells and their own (Hertz et al. 2024).

    Args:
        heads: Queries, keys and values of a self-attention layer.
        normalise: Give the targets' queries and keys the source's mean and deviation first.
        scale: Multiplies their scores with the source's cells.
        shift: Added to those scores.
    """
    q, k = (adain(x[1:], x[:1]) if normalise else x[1:] for x in (heads.q, heads.k))
    k = torch.cat([scale * heads.k[:1].expand_as(k), k], dim=2)
    v = torch.cat([heads.v[:1].expand_as(heads.v[1:]), heads.v[1:]], dim=2)
    is_source = torch.arange(k.shape[2], device=k.device) < k.shape[2] // 2
    bias = (shift * is_source).expand(q.shape[2], -1) if shift else None
    return attend(Heads(q, k, v, heads.scale), bias)


def adain(x: Tensor, source: Tensor) -> Tensor:
    """`x` with the mean and deviation of `source` over cells, channel by channel (Huang and Belongie 2017, eq. 8).

    >>> adain(torch.tensor([[[[0.0], [2.0]]]]), torch.tensor([[[[5.0], [11.0]]]])).flatten().round().tolist()
    [5.0, 11.0]
    """
    (mean, deviation), (new_mean, new_deviation) = _statistics(x), _statistics(source)
    return ((x.float() - mean) / deviation * new_deviation + new_mean).to(x.dtype)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x.float(), dim=2, keepdim=True, correction=0)
    return mean, (variance + VARIANCE).sqrt()


def injected(heads: Heads, alignment: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """The targets' values under the source's maps where tokens are aligned (Hertz et al. 2023).

    Args:
        heads: Queries, keys and values.
        alignment: For a cross-attention layer, as of `realigned`; without it the source's maps are used as they are.
        weights: As of `realigned`.
    """
    if alignment is None or weights is None:
        source = maps_of(heads.take(slice(0, 1)))
        return source.to(heads.v.dtype) @ heads.v[1:]
    return realigned(maps_of(heads), alignment, weights).to(heads.v.dtype) @ heads.v[1:]


def maps_of(heads: Heads) -> Tensor:
    """softmax(scale q k), (batch, heads, cells, cells or tokens), in single precision."""
    return (heads.scale * heads.q.float() @ heads.k.float().transpose(2, 3)).softmax(dim=3)


def realigned(maps: Tensor, alignment: Tensor, weights: Tensor) -> Tensor:
    """The targets' maps, token by token: the source's where it has that token, else their own, times the token's weight.

    Rows are not normalised again, as in the paper.

    Args:
        maps: Of the source and its targets, (1 + targets, heads, cells, tokens).
        alignment: (targets, tokens): the source's token, or -1 for none.
        weights: (targets, tokens).

    >>> maps = torch.tensor([[0.9, 0.1], [0.3, 0.7]])[:, None, None]
    >>> realigned(maps, torch.tensor([[-1, 0]]), torch.tensor([[1.0, 2.0]])).flatten()
    tensor([0.3000, 1.8000])
    """
    aligned = alignment[:, None, None].expand_as(maps[1:])
    source = maps[:1].expand_as(maps[1:]).gather(3, aligned.clamp(min=0))
    return torch.where(aligned >= 0, source, maps[1:]) * weights[:, None, None]
