"""The recipe files, and what is refused."""

import dataclasses
import itertools
import tomllib

import networks
import pytest
import throughput
import torch
from conftest import DIT, ROOT
from grow import grow
from recipe import Recipe, RecipeError
from train import main

FOLDER = ROOT / "training" / "recipes"
FILES = sorted(FOLDER.rglob("*.toml"))
RECIPES = [file for file in FILES if "diffusion" in tomllib.loads(file.read_text())]

LIMIT = 60e6
"""Bytes of a network in half precision."""


def test_every_bundled_model_has_its_recipe():
    larger = {"tiny-imagenet-64", *(f"tiny-imagenet-64-{kind}" for kind in ("latent", "dit", "flow"))}
    assert {file.stem for file in RECIPES if file.parent == FOLDER} == {"tiny-imagenet-32", *larger}
    assert {file.stem for file in RECIPES if file.parent != FOLDER} == larger


def test_the_64_grows_from_the_32():
    small, larger = (Recipe.load(FOLDER / f"tiny-imagenet-{side}.toml") for side in (32, 64))
    with torch.device("meta"):
        inside, outside = networks.build(small), networks.build(larger)
        grown = grow(inside, larger)
    assert len(outside.down_blocks) == len(inside.down_blocks) + 1
    assert {name for name, _ in grown.named_parameters()} == {name for name, _ in outside.named_parameters()}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_a_recipe_makes_a_network_of_the_size_it_says(file):
    """Reference: the first line of the file, and a forward pass without values."""
    recipe = Recipe.load(file)
    with torch.device("meta"):
        network = networks.build(recipe)
        count = sum(weight.numel() for weight in network.parameters())
        x, t = torch.empty(2, *recipe.shape), torch.zeros(2)
        assert networks.ask(network, x, t, torch.full((2,), recipe.no_class)).shape == x.shape
    assert f"{count / 1e6:.1f}" in file.read_text().splitlines()[0] or f"{count / 1e6:.2f}" in file.read_text().splitlines()[0]
    assert 2 * count < LIMIT
    assert recipe.no_class == 200
    assert 0 < recipe.cooldown < recipe.steps


@pytest.mark.parametrize("folder", ["", "large/"])
def test_the_flow_differs_from_the_dit_in_what_is_taught_alone(folder):
    dit, flow = (Recipe.load(FOLDER / f"{folder}tiny-imagenet-64-{name}.toml") for name in ("dit", "flow"))
    assert dataclasses.replace(dit, prediction="flow") == flow


def test_the_dit_differs_from_the_unet_in_the_network_alone():
    unet, dit = (Recipe.load(FOLDER / f"tiny-imagenet-64-{name}.toml") for name in ("latent", "dit"))
    assert dataclasses.replace(unet, model=dit.model) == dit


def test_rate(recipe):
    recipe = dataclasses.replace(recipe, steps=100, warmup=10, cooldown=20, learning_rate=1.0)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[80:]))
    assert 0 < rates[-1] < 0.05
    longer = dataclasses.replace(recipe, steps=1000)
    assert [longer.rate(step) for step in range(80)] == rates[:80]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("batch = 64", "batch = 64\nbtach = 3", "no btach"),
        ("batch = 64\n", "", "lacks batch"),
        ("batch = 64", 'batch = "64"', "batch is '64': expected a whole number"),
        ("batch = 64", "batch = 0", "at least 1"),
        ("balance = true", "balance = 1", "expected true or false"),
        ("batch = 64", "batch = true", "batch is True"),
        ('"v_prediction"', '"velocity"', "one of epsilon, v_prediction, flow"),
        ("cooldown = 2000", "cooldown = 20000", "within steps"),
        ("[0.05,", "[5,", "shares of the run"),
        ("beta_end = 0.02", "beta_end = 2", "betas"),
        ("[diffusion]", "[defusion]", "expected the tables"),
        ("sample_size = 32", "sample_sizes = 32", "no sample_sizes"),
        ("sample_size = 32\n", "", "lacks sample_size"),
        ('kind = "UNet2DModel"', 'kind = "UNet3DModel"', "UNet2DModel or DiTTransformer2DModel"),
        ("norm_num_groups = 16", "norm_num_groups = 7", "makes no UNet2DModel"),
        ("layers_per_block = 1", "layers_per_block = ", "cannot read"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(tmp_path, old, new, says):
    text = (ROOT / "training" / "recipes" / "tiny-imagenet-32.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError, match=says) as error:
        networks.build(Recipe.load(tmp_path / "bad.toml"))
    assert "\n" not in str(error.value)


def test_the_command_line_says_it_in_a_line_and_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", f"train {tmp_path}/none.toml --data {tmp_path} --out {tmp_path}/out".split())
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "cannot read the recipe" in capsys.readouterr().out


def test_a_transformer_starts_as_the_identity_and_drops_no_labels_itself(recipe):
    """Reference: Peebles and Xie 2023: gates, and with them the output, are zero at the start; embeddings differ by class."""
    recipe = dataclasses.replace(recipe, model=DIT)
    network = networks.build(recipe).train()
    x, t, labels = torch.randn(2, 4, 8, 8), torch.tensor([3.5, 900.0]), torch.tensor([0, recipe.no_class])
    assert torch.equal(networks.ask(network, x, t, labels), torch.zeros_like(x))
    patches = network.pos_embed(x)
    assert torch.equal(network.transformer_blocks[0](patches, timestep=t, class_labels=labels), patches)
    embed = network.transformer_blocks[0].norm1.emb
    found = torch.stack([embed(t, torch.tensor([1, 1]), hidden_dtype=torch.float32) for _ in range(20)])
    assert torch.equal(found, found[:1].expand_as(found))


@pytest.mark.parametrize("compiled", [False, True])
def test_throughput(recipe, compiled, monkeypatch):
    """Reference: images per second is the batch over the time of a step; compilation is replaced, for it takes a minute."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model: asked.append(model) or model)
    speed = throughput.measure(recipe, 6, compiled, steps=2, device=torch.device("cpu"))
    assert (speed.batch, speed.compiled, len(asked)) == (6, compiled, int(compiled))
    assert speed.images == pytest.approx(6000 / speed.milliseconds)
    assert speed.minutes == pytest.approx(recipe.steps * speed.milliseconds / 60000)
    grid = throughput.table(recipe, [speed, throughput.Speed(12, False)])
    assert grid.row_count == 2
