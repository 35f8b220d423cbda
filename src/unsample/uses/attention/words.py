"""Prompts compared token by token, for CLIP's tokenizers: matching tokens of two prompts, and the tokens of a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ArgumentError, UnknownNameError
from ...models.families.prompts import tokens_of


def one_to_one(tokenizer: Any, source: str, target: str) -> list[int]:
    """For each of the target's tokens, padding included, the same place in the source.

    Raises:
        ArgumentError: Prompts of different lengths.
    """
    lengths = [len(tokens_of(tokenizer, prompt)) for prompt in (source, target)]
    if lengths[0] != lengths[1]:
        raise ArgumentError(
            f"expected prompts of as many tokens, given {source!r} of {lengths[0]} and {target!r} of {lengths[1]}; "
            "use words of the same length, or kind='refine'"
        )
    return list(range(tokenizer.model_max_length))


def aligned(tokenizer: Any, source: str, target: str) -> list[int]:
    """For each of the target's tokens the place of the same token in the source, or -1; padding matches padding."""
    ours, theirs = tokens_of(tokenizer, source), tokens_of(tokenizer, target)
    pairs = matched(ours, theirs)
    padding = [place if place >= len(ours) else -1 for place in range(len(theirs), tokenizer.model_max_length)]
    return [pairs.get(place, -1) for place in range(len(theirs))] + padding


def matched(source: Sequence[int], target: Sequence[int]) -> dict[int, int]:
    """The longest common subsequence: place in `target` -> place in `source`.

    >>> matched([7, 1, 2, 8], [7, 2, 3, 8])
    {0: 0, 1: 2, 3: 3}
    """
    longest = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]  # of what follows (i, j)
    for i in reversed(range(len(source))):
        for j in reversed(range(len(target))):
            skipped = max(longest[i + 1][j], longest[i][j + 1])
            longest[i][j] = longest[i + 1][j + 1] + 1 if source[i] == target[j] else skipped
    pairs, i, j = {}, 0, 0
    while i < len(source) and j < len(target):
        if source[i] == target[j]:
            pairs[j] = i
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def weighed(tokenizer: Any, prompt: str, weights: Mapping[str, float]) -> list[float]:
    """For each of a prompt's tokens, padding included, the weight of the word it belongs to; 1 for the others.

    Raises:
        UnknownNameError: A word that is not in the prompt, or lies in the part that is cut off.
    """
    tokens, per_token = tokens_of(tokenizer, prompt), [1.0] * tokenizer.model_max_length
    written, whole = tokenizer.convert_ids_to_tokens(tokens), set(tokenizer.added_tokens_encoder)  # of textual inversions
    starts = [1, *(i + 1 for i in range(1, len(tokens)) if written[i].endswith("</w>") or written[i] in whole)]
    for word, weight in weights.items():
        own = tokens_of(tokenizer, word)[1:-1]
        places = [start for start in starts if own and tokens[start : start + len(own)] == own]
        if not places:
            ends = [*starts[1:], len(tokens)]
            words = ("".join(written[start:end]).removesuffix("</w>") for start, end in zip(starts, ends, strict=True))
            raise UnknownNameError("word", word, {word for word in words if word and word != written[-1]})
        for start in places:
            per_token[start : start + len(own)] = [weight] * len(own)
    return per_token
