"""DiT (Peebles and Xie 2023): a class-conditional transformer on patches of a KL codec's latents, of noise or of a flow.

The class after the last is "no class". Guidance moves all channels of the latents away from it, as in diffusers; the authors'
own code guides only the first three, "for exact reproducibility".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...core.model import ClassConditioner, Condition, Model
from ...core.reading import is_index
from ...errors import ArgumentError, ModelError, UnknownNameError
from ..scheduler_config import read_scheduler
from .autoencoder import AutoencoderCodec
from .live import LookedUp, evaluated
from .shapes import Size, noise_channels, state_shape


@dataclass(frozen=True)
class ClassTransformer:
    """A diffusers `DiTTransformer2DModel` as a network: casts to its own dtype and back, drops a learned variance."""

    transformer: Any
    channels: int

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Raw prediction of `x`'s shape and dtype; a floating condition is embeddings, (batch, blocks, dim), as of `embed`."""
        state = x.to(self.transformer.dtype)
        output: Tensor
        if condition.is_floating_point():  # tables of classes in which item i is class i
            rows = condition.to(self.transformer.dtype).unbind(1)
            labels = torch.arange(len(condition), device=condition.device)
            with LookedUp({id(table.weight): row for table, row in zip(self._tables(), rows, strict=True)}):
                output = evaluated(self.transformer, state, t, labels, return_dict=False)[0]
        else:
            output = evaluated(self.transformer, state, t, condition, return_dict=False)[0]
        return output[:, : self.channels].to(x.dtype)

    def embed(self, labels: Tensor) -> Tensor:
        """The embeddings of class indices, (batch, blocks, dim), in the network's dtype: each block looks up its own."""
        return torch.stack([table.weight.detach()[labels] for table in self._tables()], dim=1)

    def _tables(self) -> list[torch.nn.Embedding]:
        return [block.norm1.emb.class_embedder.embedding_table for block in self.transformer.transformer_blocks]


@dataclass(frozen=True)
class LabelConditioner:
    """Classes that go by several labels each: one of them, all of them as one name, or an index; (batch,), as a LongTensor.

    >>> classes = ClassConditioner(("Tinca tinca, tench", "goldfish"), null=2)
    >>> conditioner = LabelConditioner(classes, {"Tinca tinca": 0, "goldfish": 1, "tench": 0})
    >>> conditioner(["tench", "goldfish", None, 0], torch.device("cpu"))
    tensor([0, 1, 2, 0])
    """

    classes: ClassConditioner
    labels: Mapping[str, int] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class, all its labels in one."""
        return self.classes.names

    def __call__(self, conditions: Sequence[Condition], device: torch.device) -> Tensor:
        """Class indices; the null index for None."""
        return self.classes([self._known(condition) for condition in conditions], device)

    def _known(self, condition: Condition) -> Condition:
        if not isinstance(condition, str) or condition in self.names or is_index(condition.removeprefix("-")):
            return condition
        if condition not in self.labels:
            raise UnknownNameError("class", condition, self.labels, see="`unsample inspect MODEL --classes` lists them")
        return self.labels[condition]


def adapt(pipeline: Any, size: Size | None) -> Model:
    """The model of a `DiTPipeline`; another size than its own stretches the position embedding.

    Raises:
        ArgumentError: A size that is not square: the network puts patches together as a square, whatever they were.
    """
    transformer, codec = pipeline.transformer, AutoencoderCodec.of(pipeline.vae)
    config = transformer.config
    channels = noise_channels(config.in_channels, transformer.out_channels)
    shape = state_shape(size, channels, config.sample_size, multiple=config.patch_size, scale=codec.scale)
    height, width = (side * codec.scale for side in shape[1:])
    if height != width:
        raise ArgumentError(f"size {height}x{width}: a DiT makes square images only; give the same height and width")
    return Model(
        network=ClassTransformer(transformer, channels),
        shape=shape,
        codec=codec,
        conditioner=_conditioner(config.num_embeds_ada_norm, pipeline.labels),
        **read_scheduler(pipeline.scheduler, flow=None, tokens=(shape[1] // config.patch_size) ** 2),
    )


def _conditioner(count: int, labels: Mapping[str, int]) -> ClassConditioner | LabelConditioner:
    """Classes by the labels that `model_index.json` gives them; those that it gives none, by number."""
    beyond = [f"{label!r} ({index})" for label, index in labels.items() if not 0 <= index < count]
    if beyond:
        raise ModelError(f"id2label names classes that the network lacks, {', '.join(beyond[:5])}: expected 0..{count - 1}")
    groups: list[list[str]] = [[] for _ in range(count)]
    for label, index in labels.items():
        groups[index].append(label)
    classes = ClassConditioner(tuple(", ".join(group) or str(i) for i, group in enumerate(groups)), null=count)
    return LabelConditioner(classes, labels) if labels else classes
