"""Latent diffusion with a vector-quantised codec: reference, diffusers' own LDMPipeline with DDIMScheduler, random weights."""

import json
import re

import pytest
import torch
from diffusers import LDMPipeline, UNet2DModel, VQModel

import unsample as us

from . import tiny
from .agreement import STEPS, agrees, load, pictures, same


def quantised(blocks=(8, 16), **config):
    """A VQ autoencoder with few codes, far enough apart to tell, and a state of three channels."""
    torch.manual_seed(4)
    vqvae = VQModel(
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        norm_num_groups=4,
        num_vq_embeddings=16,
        **config,
    ).eval()
    torch.nn.init.normal_(vqvae.quantize.embedding.weight)
    return vqvae


def latent_diffusion(vqvae=None, scheduler=None, **unet):
    torch.manual_seed(0)
    network = UNet2DModel(
        **{
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 8,
            "norm_num_groups": 4,
            **unet,
        }
    ).eval()
    pipeline = LDMPipeline(vqvae=vqvae or quantised(), unet=network, scheduler=scheduler or tiny.ddim())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline, model, noise, _conditions, _guidance, steps=STEPS):
    """The pipeline draws noise of its own size only, and so is handed noise."""
    with tiny.starting_from(noise, pipeline):
        images = pipeline(batch_size=len(noise), num_inference_steps=steps, output_type="np").images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (STEPS, {"prediction_type": "v_prediction", "beta_schedule": "linear"}),
        (8, {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),  # DDIMScheduler leaves other such grids
        (STEPS, {"prediction_type": "sample", "set_alpha_to_one": True, "steps_offset": 0}),
    ],
)
def test_sample_is_the_pipelines_own_with_any_prediction(tmp_path, steps, options):
    """Reference: the pipeline's call; with its plain scheduler, and of another size: test_families.py."""
    pipeline = latent_diffusion(scheduler=tiny.ddim(**options))
    agrees(theirs, pipeline, load(pipeline, tmp_path), [None, None], steps=steps)


def test_the_pipelines_own_seed(tmp_path):
    """The same noise by the same generator, nothing patched."""
    pipeline = latent_diffusion()
    model = load(pipeline, tmp_path)
    theirs = pipeline(2, torch.Generator().manual_seed(5), num_inference_steps=STEPS, output_type="np").images
    noise = torch.randn((2, *model.shape), generator=torch.Generator().manual_seed(5))
    same(us.sample(model, noise, steps=STEPS).images, torch.from_numpy(theirs).permute(0, 3, 1, 2))


def test_a_size_too_small_to_halve_is_refused():
    with pytest.raises(us.ArgumentError, match=r"multiples of 4$"):
        us.load(latent_diffusion(), size=(2, 16))


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2),
        ({"blocks": (8, 8, 16), "scaling_factor": 1.0}, 4),
        ({"blocks": (32, 32), "latent_channels": 4, "vq_embed_dim": 4, "norm_type": "spatial"}, 2),
        ({"latent_channels": 6, "vq_embed_dim": 2}, 2),
    ],
)
def test_codec(config, scale):
    """Reference: the autoencoder's own parts and its own forward pass."""
    vqvae = quantised(**config)
    channels = config.get("vq_embed_dim", 3)
    model = us.load(latent_diffusion(vqvae, in_channels=channels, out_channels=channels))
    assert model.codec.scale == scale
    assert model.image_size == (8 * scale, 8 * scale)
    images = pictures(model)
    with torch.no_grad():
        latents, back = vqvae.quant_conv(vqvae.encoder(images)), vqvae(images).sample
        encoded = model.codec.encode(images)
        assert encoded.shape == (2, *model.shape)
        torch.testing.assert_close(encoded, latents * vqvae.config.scaling_factor)
        torch.testing.assert_close(model.codec.decode(encoded), back)
        assert float(back.std()) > 1e-3
        assert float((vqvae.decode(latents, force_not_quantize=True).sample - back).std()) > 1e-3, "quantised when decoded"


def test_a_codec_without_a_factor_is_noted(tmp_path):
    """A config as old as that of CompVis/ldm-celebahq-256; its reference is what diffusers reads."""
    stated = load(latent_diffusion(), tmp_path)
    assert stated.notes == ()
    file = tmp_path / "vqvae" / "config.json"
    config = json.loads(file.read_text())
    del config["scaling_factor"]
    file.write_text(json.dumps(config))
    model = us.load(str(tmp_path), device="cpu")
    assert model.codec.factor == LDMPipeline.from_pretrained(tmp_path).vqvae.config.scaling_factor == 0.18215
    assert len(model.notes) == 1
    assert re.search("states no scaling_factor", model.notes[0])


def test_it_takes_no_condition():
    model = us.load(latent_diffusion())
    with pytest.raises(us.ArgumentError, match="takes no condition"):
        us.sample(model, us.draw_noise(model, 1), steps=2, condition=1)
