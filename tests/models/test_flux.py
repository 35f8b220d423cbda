"""FLUX dev and schnell: reference, diffusers' own pipeline with its flow-matching scheduler, from random weights."""

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

import unsample as us

from . import tiny
from .agreement import STEPS, leads_back, load, same

SIZES = [(16, 16), (16, 24)]


def flux(*, guided, scheduler=None, **transformer):
    """Dev, which is told its guidance, or schnell."""
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        **{
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "pooled_projection_dim": 16,
            "guidance_embeds": guided,
            "axes_dims_rope": (2, 2, 4),
            **transformer,
        }
    ).eval()
    pipeline = FluxPipeline(
        scheduler=tiny.flow(**(scheduler or {})),
        vae=tiny.autoencoder(scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=tiny.clip_encoder(16),
        tokenizer=tiny.clip_tokenizer(),
        text_encoder_2=tiny.t5_encoder(24),
        tokenizer_2=tiny.t5_tokenizer(),
        transformer=network,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def agree(pipeline, model, guidance, **told):
    noise = us.draw_noise(model, 2, seed=1)
    channels, rows, columns = model.shape
    height, width = model.image_size
    theirs = pipeline(
        list(tiny.PROMPTS),
        height=height,
        width=width,
        latents=pipeline._pack_latents(noise, 2, channels, rows, columns),
        num_inference_steps=STEPS,
        output_type="pt",
        **told,
    ).images
    sampled = us.sample(model, noise, steps=STEPS, condition=tiny.PROMPTS, guidance=guidance)
    same(sampled.images, theirs)
    return sampled


@pytest.mark.parametrize("guidance", [1.0, 3.5])
@pytest.mark.parametrize("size", SIZES)
def test_sample_of_dev_is_the_pipelines_own(tmp_path, guidance, size):
    """Reference: the pipeline's images from the same noise, guidance a number that the network is told."""
    pipeline = flux(guided=True, scheduler={"use_dynamic_shifting": True})
    model = load(pipeline, tmp_path, size=size)
    assert agree(pipeline, model, guidance, guidance_scale=guidance).nfe == STEPS


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("size", SIZES)
def test_sample_of_schnell_is_the_pipelines_own(tmp_path, guidance, size):
    """Reference: the pipeline's images from the same noise, its guidance the true one, away from an empty prompt."""
    pipeline = flux(guided=False, scheduler={"shift": 1.0})
    model = load(pipeline, tmp_path, size=size)
    sampled = agree(pipeline, model, guidance, true_cfg_scale=guidance, negative_prompt=["", ""])
    assert sampled.nfe == (STEPS if guidance == 1 else 2 * STEPS)


@pytest.mark.parametrize("scheduler", [{"shift": 3.0}, {"use_dynamic_shifting": True, "time_shift_type": "linear"}], ids=str)
def test_sample_is_the_pipelines_own_with_other_shifts(tmp_path, scheduler):
    """Reference: the pipeline's images, the shift a fixed one other than 1, or growing linearly with the number of patches."""
    pipeline = flux(guided=False, scheduler=scheduler)
    agree(pipeline, load(pipeline, tmp_path, size=SIZES[1]), 1.0)


@pytest.mark.parametrize(("guided", "guidance"), [(True, 3.5), (False, 3.0)])
def test_there_and_back(tmp_path, guided, guidance):
    leads_back(load(flux(guided=guided), tmp_path, size=SIZES[1]), tiny.PROMPTS, guidance=guidance)


def test_guidance_of_dev_costs_no_evaluation_and_moves_away_from_nothing(tmp_path):
    model = load(flux(guided=True), tmp_path, size=(8, 8))
    assert model.distilled
    images = torch.zeros((1, 3, 8, 8))
    found = us.reconstruct(model, images, steps=3, method=us.DDIM(), start=us.FromImage(), condition="a cat", guidance=3.5)
    assert (found.trajectory.nfe, found.nfe) == (3, 6)
    for away in ("a dog", {3: torch.zeros((1, 2))}):
        with pytest.raises(us.ArgumentError, match="leave out negative") as refusal:
            us.sample(model, found.trajectory.latent, steps=3, condition="a cat", guidance=3.5, negative=away)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("guided", [True, False])
def test_half_precision_is_the_networks_alone(tmp_path, guided):
    """Reference: the same weights in float32; bfloat16 has three digits."""
    narrow = load(flux(guided=guided).to(torch.bfloat16), tmp_path, dtype="bfloat16", size=(16, 16))
    wide = us.load(str(tmp_path), device="cpu", size=(16, 16))
    assert (narrow.network.transformer.dtype, wide.network.transformer.dtype) == (torch.bfloat16, torch.float32)
    noise = us.draw_noise(wide, 2)
    images, expected = (us.sample(m, noise, steps=3, condition=tiny.PROMPTS, guidance=3.0).images for m in (narrow, wide))
    assert images.dtype == torch.float32
    assert 0 < float((images - expected).abs().max()) < 0.05


def test_its_own_size_and_sizes_that_it_cannot_take(tmp_path):
    assert load(flux(guided=False), tmp_path).image_size == (256, 256)
    with pytest.raises(us.ArgumentError, match="multiples of 4"):
        us.load(str(tmp_path), device="cpu", size=(16, 18))


def test_a_network_with_more_inputs_is_refused(tmp_path):
    with pytest.raises(us.ModelError, match="24 to 16 channels"):
        load(flux(guided=True, in_channels=24, out_channels=16), tmp_path)
