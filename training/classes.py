"""Where class embeddings begin: related classes near each other.

Random rows say nothing of which classes are alike, so that each has to be learned from its own few hundred images. The last
layer of the bundled classifier knows; its rows, turned to their principal directions, are the table to begin with. The judge
of class alignment then had a hand in the model it judges: it said which classes are alike, not what they look like.
"""

from __future__ import annotations

import torch
from recipe import Recipe, RecipeError
from torch import Tensor, nn

from unsample.models.classifier import load_classifier


def related(directions: Tensor, width: int) -> Tensor:
    """A table (classes + 1, width) of standard deviation 1 with the angles of `directions`, (classes, features).

    The last row, "no class", is zero, where the mean of all classes is. Of more features than the table is wide, those
    that tell the classes apart least are left out.
    """
    centred = nn.functional.normalize(directions.double() - directions.double().mean(0), dim=1)
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[:width]
    found = centred @ basis.T
    table = torch.zeros(len(directions) + 1, width)
    table[:-1, : found.shape[1]] = (found / found.square().mean().sqrt()).float()
    return table


@torch.no_grad()
def relate_classes(network: nn.Module, recipe: Recipe) -> None:
    """Begin the tables of classes of `network` with `related` rows, each of the standard deviation it had.

    Raises:
        RecipeError: It has other classes than the bundled classifier.
    """
    directions = load_classifier(device="cpu").network.head.weight.detach()
    if len(directions) != recipe.no_class:
        raise RecipeError(
            f"related_classes needs the {len(directions)} classes of the bundled classifier, given {recipe.no_class}: "
            "leave it out"
        )
    for module in network.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == recipe.no_class + 1:
            module.weight.copy_(related(directions, module.embedding_dim) * module.weight.std())
