"""Related classes begin near each other."""

import dataclasses

import pytest
import torch
from classes import relate_classes, related
from conftest import DIT, UNET
from networks import build
from recipe import RecipeError

from unsample.models.classifier import load_classifier


def cosines(rows):
    return torch.nn.functional.cosine_similarity(rows[:, None].double(), rows[None].double(), dim=2)


def test_a_table_wide_enough_keeps_every_angle():
    """Reference: the cosines of the centred directions."""
    directions = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) + 3
    table = related(directions, 9)
    torch.testing.assert_close(cosines(table[:-1]), cosines(directions - directions.mean(0)), rtol=0, atol=1e-6)
    assert table.shape == (7, 9)
    assert (table[-1] == 0).all()


def test_the_table_has_the_spread_of_a_random_one():
    table = related(torch.randn(200, 192, generator=torch.Generator().manual_seed(0)), 128)
    assert float(table[:-1].square().mean()) == pytest.approx(1)


def test_dogs_are_near_dogs():
    names = load_classifier(device="cpu").classes
    like = cosines(related(load_classifier(device="cpu").network.head.weight.detach(), 128)[:-1])
    retriever, labrador, pizza = (names.index(name) for name in ("golden retriever", "Labrador retriever", "pizza"))
    assert like[retriever, labrador] > like[retriever].median() + 0.1
    assert like[retriever, labrador] > like[retriever, pizza]


@pytest.mark.parametrize("model", [UNET | {"num_class_embeds": 201}, DIT | {"num_embeds_ada_norm": 200}], ids=["unet", "dit"])
def test_every_table_of_a_network_begins_so(model, recipe):
    changed = dataclasses.replace(recipe, model=model)
    torch.manual_seed(0)
    network = build(changed)
    before = [one.weight.std() for one in tables(network)]
    relate_classes(network, changed)
    assert len(before) == (1 if "kind" not in model else model["num_layers"])
    for table, std in zip(tables(network), before, strict=True):
        assert (table.weight[-1] == 0).all()
        assert float(table.weight.detach()[:-1].square().mean().sqrt()) == pytest.approx(float(std.detach()), rel=1e-3)


def tables(network):
    return [one for one in network.modules() if isinstance(one, torch.nn.Embedding)]


def test_other_classes_are_refused(recipe):
    with pytest.raises(RecipeError, match="200 classes of the bundled classifier, given 3: leave it out"):
        relate_classes(build(recipe), recipe)
