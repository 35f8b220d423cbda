"""Put the weights of a U-Net inside one with a level more around it, to begin with: progressive growing (Karras et al. 2018).

    python training/grow.py MODEL_DIR training/recipes/tiny-imagenet-64.toml training/grown
    python training/train.py training/recipes/tiny-imagenet-64.toml --init training/grown --data DATA --out OUT

What the small network knows of images of 32x32, and of classes, then serves those of 64x64, of which it sees half the
resolution. The outermost level begins at random.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from diffusers import ModelMixin
from networks import build, read_network, save_pipeline
from recipe import Recipe, RecipeError
from rich.console import Console


def place(name: str) -> str:
    """Where a weight of the small network is in the large one: a level further in.

    Levels are counted from the outside on the way down and from the inside on the way up.
    """
    match name.split("."):
        case ["down_blocks", level, *rest]:
            return ".".join(["down_blocks", str(int(level) + 1), *rest])
    return name


def grow(small: ModelMixin, recipe: Recipe) -> ModelMixin:
    """The recipe's network, with the weights of `small` inside.

    Raises:
        RecipeError: The recipe's network is not `small` with a level more around it.
    """
    torch.manual_seed(recipe.seed)
    network = build(recipe)
    weights = network.state_dict()
    for name, weight in small.state_dict().items():
        known = weights.get(place(name))
        if known is None or known.shape != weight.shape:
            raise RecipeError(
                f"the recipe's network does not hold the small one: it has no {place(name)} of {tuple(weight.shape)}"
            )
        weights[place(name)] = weight.to(known)
    network.load_state_dict(weights)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description="Put the weights of a U-Net inside one with a level more around it.")
    parser.add_argument(
        "small", type=Path, help="folder of a model on images, such as src/unsample/models/weights/tiny-imagenet-32-v"
    )
    parser.add_argument("recipe", type=Path, help="of the network with a level more")
    parser.add_argument("out", type=Path, help="directory to write, for train.py --init")
    given = parser.parse_args()
    try:
        recipe = Recipe.load(given.recipe)
        network = grow(read_network(recipe.kind, given.small), recipe)
    except RecipeError as error:
        Console().print(f"[red]{error}[/red]", highlight=False)
        sys.exit(2)
    save_pipeline(given.out, recipe, network, dict(network.named_parameters()))


if __name__ == "__main__":
    main()
