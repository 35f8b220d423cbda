"""Prompts as conditions: each is encoded once, by the pipeline's own text encoders, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...core.model import Condition
from ...errors import ArgumentError

UNCLEANED = (
    "the pipeline's cleaning of prompts is left out, as the pipeline itself does without beautifulsoup4 and ftfy: "
    "install both (unsample[text]) for the prompts it was trained on"
)

Embedding = Tensor | dict[str, Tensor]
"""The encoding of a prompt that a network takes, the batch first: one tensor, or several by name."""

KEPT = 64
"""The number of prompts whose encodings are kept; the oldest goes first."""

_LOCK = threading.Lock()


@dataclass(frozen=True)
class PromptConditioner:
    """Prompts to embeddings, stacked; None is the pipeline's own unconditional.

    Attributes:
        encode: A prompt, or None, to its embedding, a batch of one.
        tokenizer: What cuts prompts into tokens, for editors that compare them; of several, the first.

    >>> conditioner = PromptConditioner(lambda prompt: torch.full((1, 2), float(len(prompt or ""))))
    >>> conditioner(["cat", None], torch.device("cpu"))
    tensor([[3., 3.],
            [0., 0.]])
    """

    encode: Callable[[str | None], Embedding] = field(repr=False)
    tokenizer: Any = field(default=None, repr=False)
    _kept: dict[str | None, Embedding] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, conditions: Sequence[Condition], device: torch.device) -> Embedding:
        """One row per prompt."""
        rows = [self._embedding(condition) for condition in conditions]
        first = rows[0]
        if isinstance(first, Tensor):
            return torch.cat([row for row in rows if isinstance(row, Tensor)]).to(device)
        return {name: torch.cat([row[name] for row in rows if isinstance(row, dict)]).to(device) for name in first}

    def _embedding(self, prompt: Condition) -> Embedding:
        if not (prompt is None or isinstance(prompt, str)):
            raise ArgumentError(f"this model takes prompts, given {prompt!r}: write what the picture shows")
        embedding = self._kept.get(prompt)
        if embedding is None:
            with torch.no_grad():
                embedding = self.encode(prompt)
            with _LOCK:
                self._kept[prompt] = embedding
                if len(self._kept) > KEPT:
                    self._kept.pop(next(iter(self._kept)))
        return embedding


def tokens_of(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a prompt that a pipeline's text encoder is given: start, words, end, no padding.

    They are cut where the pipeline cuts them, and the word of a textual inversion is as many as it has vectors.
    """
    from diffusers.loaders import TextualInversionLoaderMixin

    prompt = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, tokenizer)
    tokens: list[int] = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
    return tokens


def cleaning() -> tuple[bool, tuple[str, ...]]:
    """Whether prompts can be cleaned as T5 pipelines do by default (of links, file names and the like), and a note if not."""
    from diffusers import utils

    clean = bool(utils.is_bs4_available() and utils.is_ftfy_available())
    return clean, () if clean else (UNCLEANED,)
