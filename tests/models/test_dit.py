"""DiT: reference, diffusers' own DiTPipeline with its DDIMScheduler, from random weights."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import DiTPipeline, DiTTransformer2DModel

import unsample as us
from unsample.core.model import PixelCodec

from . import tiny
from .agreement import STEPS, agrees, load, same

LABELS = {0: "tench, Tinca tinca", 1: "goldfish", 2: "crane", 5: "drake, mallard", 7: "crane"}

CLASSES = [5, 1]


def dit(scheduler=None, labels=None, **transformer):
    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 2,
            "sample_size": 8,
            "num_embeds_ada_norm": 1000,
            **transformer,
        }
    ).eval()
    pipeline = DiTPipeline(network, tiny.autoencoder(), scheduler or tiny.ddim(), id2label=labels)
    if labels:
        pipeline.register_to_config(id2label={str(index): label for index, label in labels.items()})  # as the published ones
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline, model, noise, classes, guidance, steps=STEPS):
    """The pipeline draws noise of its own size only, and so is handed noise."""
    with tiny.starting_from(noise, pipeline):
        return pipeline(classes, guidance_scale=guidance, num_inference_steps=steps, output_type="pt").images


@pytest.mark.parametrize(
    ("steps", "scheduler", "transformer"),
    [
        (STEPS, {}, {"out_channels": 4}),  # no learned variance
        (STEPS, {"prediction_type": "v_prediction"}, {"patch_size": 4, "num_layers": 1}),
        (8, {"timestep_spacing": "trailing"}, {}),  # DDIMScheduler leaves other such grids
        (STEPS, {"prediction_type": "sample", "set_alpha_to_one": True, "steps_offset": 0}, {"patch_size": 1}),
    ],
)
def test_other_networks_and_schedulers(tmp_path, steps, scheduler, transformer):
    pipeline = dit(tiny.ddim(**scheduler), **transformer)
    agrees(theirs, pipeline, load(pipeline, tmp_path), CLASSES, 3.0, steps=steps)


def test_the_pipelines_own_seed():
    """The same noise by the same generator, nothing patched, and a pipeline that was never saved."""
    pipeline = dit()
    model = us.load(pipeline)
    generator = torch.Generator().manual_seed(5)
    images = pipeline(CLASSES, 3.0, generator, num_inference_steps=STEPS, output_type="pt").images
    noise = torch.randn((2, *model.shape), generator=torch.Generator().manual_seed(5))
    same(us.sample(model, noise, steps=STEPS, condition=CLASSES, guidance=3.0).images, images)


def test_sizes_that_are_not_square_are_refused():
    with pytest.raises(us.ArgumentError, match=r"16x24: a DiT makes square images only"):
        us.load(dit(), size=(16, 24))


def test_diffusers_takes_squares_only():
    """Why others are refused: 2 states of 8x12 come out as 3 of 8x8, without a word."""
    with torch.no_grad():
        output = dit().transformer(torch.zeros(2, 4, 8, 12), torch.tensor([5, 5]), torch.tensor([1, 2])).sample
    assert output.shape == (3, 8, 8, 8)


# Flow


@torch.no_grad()
def by_euler(pipeline, _model, noise, classes, guidance, steps=STEPS, **settings):
    """Images in [0, 1] by diffusers' FlowMatchEulerDiscreteScheduler in a naive loop, guided from the class after the last."""
    scheduler, network, x = pipeline.scheduler, pipeline.transformer, noise
    scheduler.set_timesteps(steps, **settings)
    for t in scheduler.timesteps:
        each, null = t.expand(len(x)), torch.full((len(x),), 1000)
        conditional, away = (network(x, each, labels).sample[:, : x.shape[1]] for labels in (torch.tensor(classes), null))
        x = scheduler.step(away + guidance * (conditional - away), t, x).prev_sample
    return (pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("steps", "transformer"), [(STEPS, {}), (50, {"out_channels": 4})])
def test_a_flow_is_sampled_by_eulers_steps(tmp_path, guidance, shift, steps, transformer):
    """Reference: `by_euler`; DiTPipeline itself does not take such a scheduler."""
    pipeline = dit(tiny.flow(shift=shift), **transformer)
    model = load(pipeline, tmp_path)
    assert model.prediction == "flow"
    agrees(by_euler, pipeline, model, CLASSES, guidance, steps=steps)


@pytest.mark.parametrize("size", [None, (24, 24)])
def test_a_flow_whose_shift_depends_on_the_size(size):
    """Reference: `by_euler` with the mu of so many tokens, as other pipelines compute it: 16 of them, or 36."""
    pipeline = dit(tiny.flow(use_dynamic_shifting=True))
    model = us.load(pipeline, size=size)
    tokens = (model.shape[1] // 2) ** 2
    mu = 0.5 + (1.15 - 0.5) * (tokens - 4) / (64 - 4)
    agrees(by_euler, pipeline, model, CLASSES, 3.0, mu=mu)


def test_diffusers_own_pipeline_takes_no_flow():
    """Why the reference is a loop."""
    with pytest.raises(AttributeError, match="scale_model_input"):
        dit(tiny.flow())(CLASSES, num_inference_steps=2)


# Classes


def test_no_condition_is_the_null_class(tmp_path):
    """Reference: the pipeline at class 1000, which is one past the last."""
    pipeline = dit()
    model = load(pipeline, tmp_path)
    noise = us.draw_noise(model, 2, seed=1)
    null = theirs(pipeline, model, noise, [1000, 1000], 1.0)
    same(us.sample(model, noise, steps=STEPS).images, null)
    same(us.sample(model, noise, steps=STEPS, condition=[None, 3]).images[:1], null[:1])
    assert float((theirs(pipeline, model, noise, [3, 3], 1.0) - null).abs().max()) > 1e-3, "classes that matter"


def test_another_number_of_classes():
    """Reference: the network itself; the pipeline knows only 1000 classes."""
    pipeline = dit(num_embeds_ada_norm=10)
    model = us.load(pipeline)
    x, level = us.draw_noise(model, 2), model.grid(STEPS)[4]
    t, null = torch.full((2,), level.t), torch.tensor([10, 10])
    with torch.no_grad():
        torch.testing.assert_close(model.denoiser()(x, level), pipeline.transformer(x, t, null).sample[:, :4])
    with pytest.raises(us.ArgumentError, match=r"classes 0\.\.9"):
        model.denoiser([10])


@pytest.mark.parametrize("source", ["saved", "live"])
def test_classes_by_any_of_their_labels(tmp_path, source):
    """Reference: the pipeline's own get_label_ids, of an index as the published ones have."""
    pipeline = dit(labels=LABELS, num_embeds_ada_norm=10)
    model = load(pipeline, tmp_path) if source == "saved" else us.load(pipeline)
    labels = ["tench", "Tinca tinca", "goldfish", "mallard", "crane"]
    expected = pipeline.get_label_ids(labels)
    assert expected == [0, 0, 1, 5, 7]
    encoded = model.conditioner([*labels, "Tinca tinca, tench", "3", 4, None], torch.device("cpu"))
    assert encoded.tolist() == [*expected, 0, 3, 4, 10]
    names = model.conditioner.names
    assert names == ("Tinca tinca, tench", "goldfish", "2", "3", "4", "drake, mallard", "6", "crane", "8", "9")
    assert model.conditioner(names, torch.device("cpu")).tolist() == list(range(10))
    with pytest.raises(us.UnknownNameError, match="did you mean 'goldfish'"):
        us.sample(model, us.draw_noise(model, 1), steps=2, condition="gold fish")


def test_labels_of_classes_that_it_lacks_are_refused(tmp_path):
    with pytest.raises(
        us.ModelError, match=r"id2label names classes that the network lacks, 'axolotl' \(10\): expected 0\.\.9"
    ):
        load(dit(labels={10: "axolotl"}, num_embeds_ada_norm=10), tmp_path)


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("null", [4, 10])
def test_a_file_of_names_renames_the_classes(tmp_path, labels, null):
    (tmp_path / "classes.json").write_text(json.dumps({"names": ["ant", "bee"], "null": null}))
    model = load(dit(labels=labels, num_embeds_ada_norm=10), tmp_path)
    assert model.conditioner(["bee", None, 0], torch.device("cpu")).tolist() == [1, null, 0]
    with pytest.raises(us.UnknownNameError):
        model.conditioner(["goldfish"], torch.device("cpu"))


# Embeddings


def test_an_embedding_in_place_of_its_class():
    """Reference: the same network given the classes; the blocks of a network of random weights have tables that differ."""
    model = us.load(dit())
    embedded = model.embed([5, None])
    assert embedded.shape == (2, 2, 16)
    assert not torch.equal(embedded[:, 0], embedded[:, 1])
    x, t = us.draw_noise(model, 2), torch.tensor([500, 20])
    with torch.no_grad():
        by_class = model.network(x, t, torch.tensor([5, 1000]))
        torch.testing.assert_close(model.network(x, t, embedded), by_class)
        torch.testing.assert_close(model.network(x, t, embedded.flip(0)), model.network(x, t, torch.tensor([1000, 5])))
    assert float((by_class[0] - model.network(x, t, torch.tensor([1000, 5]))[0]).detach().abs().max()) > 1e-3


def test_null_text_finds_its_way_back():
    """Guided sampling strays from the inversion; with fitted embeddings in place of the null class it strays far less."""
    model = replace(us.load(dit()), codec=PixelCodec())
    latents = torch.rand((2, *model.shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = {"condition": CLASSES, "grid": model.grid(4)}
    pivots = us.invert(model, latents, start=us.FromImage(), method=us.DDIM(), keep=us.Keep("states"), **settings)
    found = us.null_text(model, latents, pivots, guidance=3.0, rate=0.1, tolerance=0.0, **settings)
    assert found.embeddings[4].shape == (2, 2, 16)
    plain, fitted = (
        (us.sample(model, pivots.latent, guidance=3.0, negative=negative, **settings).images - latents).square().mean()
        for negative in (None, found.embeddings)
    )
    assert fitted < 0.2 * plain


# Checkpoints


def test_a_checkpoint_is_the_same_model_with_other_weights(tmp_path):
    """Reference: the pipeline saved with those weights."""
    from safetensors.torch import save_file

    from unsample.studies.experiments.checkpoints import load_checkpoint

    pipeline = dit()
    before = load(pipeline, tmp_path / "before")
    with torch.no_grad():
        for weight in pipeline.transformer.parameters():
            weight += 0.1 * torch.randn_like(weight)
    weights = {name: weight.contiguous() for name, weight in pipeline.transformer.state_dict().items()}
    save_file(weights, tmp_path / "step-000010.safetensors")
    found, after = load_checkpoint(tmp_path / "step-000010.safetensors", before), load(pipeline, tmp_path / "after")
    noise = us.draw_noise(before, 2)
    images = [us.sample(model, noise, steps=2, condition=CLASSES).images for model in (before, found, after)]
    torch.testing.assert_close(images[1], images[2])
    assert (images[0] - images[1]).abs().max() > 1e-3
    assert (found.name, found.digest != before.digest) == ("before-step-000010", True)
