"""Live pipelines as people leave them: in train mode, in half precision, cached, compiled, in several threads at once."""

import copy
import threading
from dataclasses import replace

import diffusers
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

import unsample as us
from unsample.models.families.prompts import KEPT, PromptConditioner

from . import tiny
from .agreement import pictures
from .test_dit import dit
from .test_flux import flux
from .test_pixart import pixart
from .test_stable_diffusion import QUICK, stable_diffusion


def quick(**unet):
    return stable_diffusion(tiny.ddim(), **{**QUICK, **unet})


def pixel(**config):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(16, block_out_channels=(32, 64), norm_num_groups=4, **blocks, **config).eval()
    pipeline = DDIMPipeline(unet, DDIMScheduler(clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def in_threads(work, count=4):
    """Each thread's results, `work()` twenty times; whatever was raised is raised here."""
    results, raised = [], []

    def run():
        try:
            results.extend(work() for _ in range(20))
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return results


# Autoencoders narrower than float32

NARROW = {
    "float16": lambda vae: vae.to(torch.float16),
    "bfloat16": lambda vae: vae.to(torch.bfloat16),
    "float8": lambda vae: vae.enable_layerwise_casting(torch.float8_e4m3fn, torch.float16),
}


@pytest.mark.parametrize("kind", NARROW)
@torch.no_grad()
def test_a_narrow_autoencoder_works_in_float32_and_stays_as_it_is(kind):
    """Reference: the same weights in float32."""
    pipeline = quick()
    NARROW[kind](pipeline.vae)
    before = {name: (weight.dtype, weight.clone()) for name, weight in pipeline.vae.state_dict().items()}
    wide = tiny.autoencoder()
    wide.load_state_dict({name: weight.float() for name, (_, weight) in before.items()})
    codec = us.load(pipeline).codec
    images, latents = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 4, 8, 8)
    expected = replace(codec, vae=wide)
    assert torch.equal(codec.encode(images), expected.encode(images))
    assert torch.equal(codec.decode(latents), expected.decode(latents))
    assert codec.vae is pipeline.vae
    after = pipeline.vae.state_dict()
    assert all(after[name].dtype == dtype and torch.equal(after[name], weight) for name, (dtype, weight) in before.items())


@torch.no_grad()
def test_threads_share_a_narrow_autoencoder():
    """More than half of such calls raised, and one was wrong without a word: the module was cast to and fro."""
    codec = us.load(quick().to(torch.float16)).codec
    latents = torch.randn(2, 4, 8, 8)
    expected = codec.decode(latents)
    assert all(torch.equal(found, expected) for found in in_threads(lambda: codec.decode(latents)))
    fresh = us.load(quick().to(torch.float16)).codec  # whose copy is made by one of the threads
    assert all(torch.equal(found, expected) for found in in_threads(lambda: fresh.decode(latents)))


@torch.no_grad()
def test_the_copy_follows_the_autoencoder():
    """Its weights, where it is, and whether it works in tiles; and it is made once."""
    pipeline = quick().to(torch.bfloat16)
    codec, latents = us.load(pipeline).codec, torch.randn(1, 4, 32, 32)
    whole, kept = codec.decode(latents), codec._widened._copy
    assert torch.equal(codec.decode(latents), whole)
    assert codec._widened._copy is kept
    pipeline.vae.enable_tiling()
    pipeline.vae.tile_latent_min_size = 16
    tiles = codec.decode(latents)
    assert not torch.equal(tiles, whole)
    pipeline.vae.disable_tiling()
    pipeline.vae.post_quant_conv.weight.mul_(2)
    assert not torch.equal(codec.decode(latents), whole)
    assert torch.equal(codec.decode(latents), us.load(pipeline).codec.decode(latents))


@torch.no_grad()
def test_a_compiled_autoencoder_that_is_narrow():
    pipeline = quick().to(torch.float16)
    expected, latents = us.load(pipeline).codec, torch.randn(1, 4, 8, 8)
    wanted = expected.decode(latents)
    pipeline.vae.decoder = torch.compile(pipeline.vae.decoder, backend="eager")
    pipeline.vae.decode = torch.compile(pipeline.vae.decode, backend="eager")
    assert torch.equal(us.load(pipeline).codec.decode(latents), wanted)


def test_a_narrow_autoencoder_whose_weights_are_not_in_memory():
    pipeline = quick().to(torch.float16)
    pipeline.vae.to("meta")
    with pytest.raises(us.ModelError, match="not in memory, as under enable_sequential_cpu_offload"):
        us.load(pipeline).codec.decode(torch.zeros(1, 4, 8, 8))


# Train mode

DROPPING = {
    "pixel U-Net": (lambda: pixel(dropout=0.3), "unet", None),
    "Stable Diffusion": (lambda: quick(dropout=0.3), "unet", "a cat"),
    "PixArt": (lambda: pixart(dropout=0.3), "transformer", "a cat"),
    "DiT": (lambda: dit(dropout=0.3), "transformer", 1),
}


@pytest.mark.parametrize("name", DROPPING)
def test_a_network_left_in_train_mode_answers_as_in_evaluation(name):
    make, part, condition = DROPPING[name]
    pipeline = make()
    network = pipeline.components[part]
    model = us.load(pipeline)
    settings = {"steps": 3, "condition": condition}
    noise = us.draw_noise(model, 1)
    expected = us.sample(model, noise, **settings).images
    network.train()
    modes = [module.training for module in network.modules()]
    for model_again in (model, us.load(pipeline)):
        assert torch.equal(us.sample(model_again, noise, **settings).images, expected)
    assert [module.training for module in network.modules()] == modes


def test_parts_in_train_mode_are_refused():
    """Of a network in evaluation: a LoRA's dropout that was loaded into it, for example."""
    pipeline = quick(dropout=0.3)
    next(part for part in pipeline.unet.modules() if isinstance(part, torch.nn.Dropout) and part.p > 0).train()
    with pytest.raises(us.ModelError, match=r"parts of the UNet2DConditionModel are in train mode.*eval\(\)"):
        us.load(pipeline)
    pipeline.unet.eval()
    assert us.load(pipeline).family == "Stable Diffusion"


def test_text_encoders_left_in_train_mode():
    """T5 drops out a tenth."""
    pipeline = pixart()
    expected = us.load(pipeline).conditioner(["a cat"], torch.device("cpu"))
    pipeline.text_encoder.train()
    found = us.load(pipeline).conditioner(["a cat"], torch.device("cpu"))
    assert all(torch.equal(found[name], rows) for name, rows in expected.items())
    assert pipeline.text_encoder.training


def test_threads_share_a_network_left_in_train_mode():
    pipeline = pixel(dropout=0.3)
    model, x = us.load(pipeline), torch.randn(1, 3, 16, 16)
    denoiser, level = model.denoiser(), model.grid(4)[2]
    with torch.no_grad():
        expected = denoiser(x, level)
        pipeline.unet.train()

        def work():
            with torch.no_grad():
                return denoiser(x, level)

        assert all(torch.equal(found, expected) for found in in_threads(work))
    assert all(module.training for module in pipeline.unet.modules())


def test_threads_with_embeddings_of_classes_share_a_network():
    """Embeddings in place of a class were written into the module for the time of a call."""
    model = us.load(pixel(num_class_embeds=5))
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([500])
    with torch.no_grad():
        plain = model.network(x, t, torch.tensor([1]))
        other = model.network(x, t, model.network.embed(torch.tensor([2])))
    assert torch.equal(other, model.network(x, t, torch.tensor([2])))
    turn = iter(range(10**6))

    def work():
        is_plain = next(turn) % 2
        with torch.no_grad():
            condition = torch.tensor([1]) if is_plain else model.network.embed(torch.tensor([2]))
            return torch.equal(model.network(x, t, condition), plain if is_plain else other)

    assert all(in_threads(work))


def test_threads_share_the_encodings_of_prompts():
    """Of more prompts than are kept."""
    conditioner = PromptConditioner(lambda prompt: torch.full((1, 1), float(prompt)))
    turn = iter(range(10**6))

    def work():
        prompts = [str(next(turn) % 100) for _ in range(50)]
        return torch.equal(conditioner(prompts, torch.device("cpu"))[:, 0], torch.tensor([float(p) for p in prompts]))

    assert all(in_threads(work))
    assert len(conditioner._kept) == KEPT


# What a pipeline answers afterwards


def test_the_pipelines_own_images_are_the_same_after_loading():
    """Bit for bit: the layout of a live network's weights is left alone."""
    pipeline = pixel()

    def draw():
        return pipeline(generator=torch.Generator().manual_seed(1), num_inference_steps=4, output_type="np").images

    before, strides = draw(), [weight.stride() for weight in pipeline.unet.parameters()]
    model = us.load(pipeline)
    us.invert(model, torch.zeros(1, 3, 16, 16), steps=3)
    assert [weight.stride() for weight in pipeline.unet.parameters()] == strides
    assert (draw() == before).all()


# Sizes


@pytest.mark.parametrize(
    "make", [quick, pixel, lambda **config: pixart(**config)], ids=["Stable Diffusion", "pixel", "PixArt"]
)
def test_a_network_without_a_size_of_its_own(make):
    pipeline = make()
    for part in ("unet", "transformer"):
        if part in pipeline.components:
            pipeline.components[part].register_to_config(sample_size=None)
    with pytest.raises(us.ArgumentError, match="states no sample_size: give the size of the images"):
        us.load(pipeline)
    assert us.load(pipeline, size=(16, 16)).image_size == (16, 16)


# What is refused


def with_ip_adapter():
    pipeline, weights, place = stable_diffusion(tiny.ddim()), {}, 1
    for name in [name.removesuffix(".processor") for name in pipeline.unet.attn_processors if "attn2" in name]:
        width = pipeline.unet.get_submodule(name).to_q.weight.shape[0]
        weights |= {f"{place}.to_{letter}_ip.weight": torch.randn(width, 16) for letter in "kv"}
        place += 2
    proj = {"proj.weight": torch.randn(64, 8), "proj.bias": torch.zeros(64)}
    norm = {"norm.weight": torch.ones(16), "norm.bias": torch.zeros(16)}
    pipeline.unet._load_ip_adapter_weights([{"image_proj": {**proj, **norm}, "ip_adapter": weights}])
    return pipeline


def test_an_ip_adapter_is_refused():
    pipeline = with_ip_adapter()
    with pytest.raises(us.ModelError, match=r"has an IP-Adapter.*unload_ip_adapter") as caught:
        us.load(pipeline)
    assert "\n" not in str(caught.value)
    pipeline.config.image_encoder = None
    pipeline.image_encoder = None
    pipeline.unload_ip_adapter()
    assert us.load(pipeline).family == "Stable Diffusion"


CACHES = {
    "first block": lambda: diffusers.FirstBlockCacheConfig(threshold=0.2),
    "pyramid": lambda: diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    ),
    "faster": lambda: diffusers.FasterCacheConfig(current_timestep_callback=lambda: 500),
    "Taylor": lambda: diffusers.TaylorSeerCacheConfig(),
}


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_is_refused(name):
    pipeline = flux(guided=True, num_layers=2, num_single_layers=2)
    pipeline.transformer.enable_cache(CACHES[name]())
    with pytest.raises(us.ModelError, match=r"has the hooks .*disable_cache") as caught:
        us.load(pipeline)
    assert "\n" not in str(caught.value)
    pipeline.transformer.disable_cache()
    assert us.load(pipeline).family == "FLUX"


def test_a_pipeline_of_a_controlnet_is_refused():
    pipeline = quick()
    controlnet = diffusers.ControlNetModel.from_unet(stable_diffusion().unet)
    parts = {name: part for name, part in pipeline.components.items() if name != "image_encoder"}
    guided = diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=controlnet, requires_safety_checker=False)
    with pytest.raises(us.ModelError, match="no adapter for the pipeline class 'StableDiffusionControlNetPipeline'"):
        us.load(guided)


# What is not

CHANGES = {
    "weights in float8": lambda p: p.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
    "projections in one": lambda p: p.fuse_qkv_projections(),
    "compiled": lambda p: setattr(p, "unet", torch.compile(p.unet, backend="eager")),
    "FreeU": lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4),
    "slices": lambda p: p.enable_attention_slicing(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_pipelines_that_are_changed_otherwise_answer(name):
    """Reference: the pipeline's own network."""
    pipeline = stable_diffusion(tiny.ddim())
    CHANGES[name](pipeline)
    model = us.load(pipeline)
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    with torch.no_grad():
        tokens = model.conditioner(["a cat"], torch.device("cpu"))
        assert torch.equal(model.network(x, t, tokens), pipeline.unet(x, t, tokens).sample)
    assert us.invert(model, pictures(model, 1), steps=2, condition="a cat").latent.isfinite().all()


def test_a_model_can_be_copied():
    """With its copy of a narrow autoencoder."""
    model = us.load(quick().to(torch.bfloat16))
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(model).codec.decode(latents), model.codec.decode(latents))
