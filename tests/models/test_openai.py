"""OpenAI's checkpoints: reference, the network and its parameters written again from the description, in plain steps.

`described` lists names and shapes, `described_output` computes the output, both from flags alone; checkpoints are made of what
`described` lists, so that nothing here comes from the network under test. diffusers' UNet2DModel, which can be the same
network, is a second reference.
"""

import json
import math
import os
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import unsample as us
from unsample.models.openai import FAMILY, load_openai
from unsample.models.openai.flags import IGNORED, PUBLISHED, Flags, flags_of, published
from unsample.models.openai.unet import OpenAIUNet

from .agreement import leads_back

TINY = {
    "image_size": 8,
    "num_channels": 32,
    "channel_mult": "1,2",
    "num_res_blocks": 1,
    "attention_resolutions": "4",
    "num_heads": 2,
    "learn_sigma": True,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "class_cond": False,
}
CLASSES = 5
"""Of the tiny class-conditional checkpoints."""


# The description


def levels(flags):
    """(width, attended) of each level, the finest first."""
    multipliers = [float(m) for m in flags["channel_mult"].split(",")]
    attended = {flags["image_size"] // int(r) for r in flags["attention_resolutions"].split(",")}
    return [(int(m * flags["num_channels"]), 2**i in attended) for i, m in enumerate(multipliers)]


def described_steps(flags):
    """(what happens, its name, channels in, channels out), in the order of computation.

    States on the way down are kept, and taken on the way up, the last one first.
    """
    plan, blocks = levels(flags), flags["num_res_blocks"]
    channels, kept, index = plan[0][0], [], 1
    yield "conv", "input_blocks.0.0", 3, channels
    kept.append(channels)
    yield "keep", "", channels, channels
    for level, (outputs, attended) in enumerate(plan):
        for _ in range(blocks):
            yield "residual", f"input_blocks.{index}.0", channels, outputs
            if attended:
                yield "attention", f"input_blocks.{index}.1", outputs, outputs
            channels, index = outputs, index + 1
            kept.append(channels)
            yield "keep", "", channels, channels
        if level < len(plan) - 1:
            yield "halve", f"input_blocks.{index}.0", channels, channels
            index += 1
            kept.append(channels)
            yield "keep", "", channels, channels
    yield "residual", "middle_block.0", channels, channels
    yield "attention", "middle_block.1", channels, channels
    yield "residual", "middle_block.2", channels, channels
    index = 0
    for level, (outputs, attended) in reversed(list(enumerate(plan))):
        for block in range(blocks + 1):
            yield "take", "", channels, channels
            yield "residual", f"output_blocks.{index}.0", channels + kept.pop(), outputs
            channels = outputs
            if attended:
                yield "attention", f"output_blocks.{index}.1", channels, channels
            if level and block == blocks:
                yield "double", f"output_blocks.{index}.{1 + attended}", channels, channels
            index += 1


def described(flags, classes=CLASSES):
    """Name -> shape of every parameter."""
    width, size = flags["num_channels"], 4 * flags["num_channels"]
    shapes = {}

    def layer(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def residual(name, inputs, outputs):
        layer(f"{name}.in_layers.0", inputs)
        layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        layer(f"{name}.emb_layers.1", outputs * (2 if flags["use_scale_shift_norm"] else 1), size)
        layer(f"{name}.out_layers.0", outputs)
        layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip_connection", outputs, inputs, 1, 1)

    def attention(name, channels):
        layer(f"{name}.norm", channels)
        layer(f"{name}.qkv", 3 * channels, channels, 1)
        layer(f"{name}.proj_out", channels, channels, 1)

    layer("time_embed.0", size, width)
    layer("time_embed.2", size, size)
    if flags["class_cond"]:
        shapes["label_emb.weight"] = (classes, size)
    for kind, name, inputs, channels in described_steps(flags):
        if kind == "attention":
            attention(name, channels)
        elif kind == "residual" or (kind in ("halve", "double") and flags["resblock_updown"]):
            residual(name, inputs, channels)
        elif name:
            layer(name + {"conv": "", "halve": ".op", "double": ".conv"}[kind], channels, inputs, 3, 3)
    layer("out.0", channels)
    layer("out.2", 6 if flags["learn_sigma"] else 3, channels, 3, 3)
    return shapes


def described_output(w, flags, x, t, labels=None):
    """The raw output of all channels, in the dtype of the weights `w` and the state `x`; t are the times it is given."""

    def silu(h):
        return h / (1 + torch.exp(-h))

    def norm(name, h):
        groups = h.reshape(len(h), 32, -1)
        spread = ((groups - groups.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
        unit = ((groups - groups.mean(-1, keepdim=True)) / torch.sqrt(spread + 1e-5)).reshape(h.shape)
        across = (1, -1, *[1] * (h.ndim - 2))
        return unit * w[f"{name}.weight"].reshape(across) + w[f"{name}.bias"].reshape(across)

    def conv(name, h, stride=1):
        kernel = w[f"{name}.weight"]
        return torch.nn.functional.conv2d(h, kernel, w[f"{name}.bias"], stride, padding=kernel.shape[-1] // 2)

    def linear(name, h):
        return h @ w[f"{name}.weight"].squeeze(-1).T + w[f"{name}.bias"]

    def halved(h):
        return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4

    def doubled(h):
        return h.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def residual(name, h, resample=lambda h: h):
        inner = conv(f"{name}.in_layers.2", resample(silu(norm(f"{name}.in_layers.0", h))))
        shifts = linear(f"{name}.emb_layers.1", silu(emb))[..., None, None]
        if flags["use_scale_shift_norm"]:
            scale, shift = shifts[:, : inner.shape[1]], shifts[:, inner.shape[1] :]
            inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
        else:
            inner = norm(f"{name}.out_layers.0", inner + shifts)
        skip = f"{name}.skip_connection"
        kept = conv(skip, resample(h)) if f"{skip}.weight" in w else resample(h)
        return kept + conv(f"{name}.out_layers.3", silu(inner))

    def attention(name, h):
        batch, channels, height, width = h.shape
        per_head = flags.get("num_head_channels", -1)
        heads = flags["num_heads"] if per_head == -1 else channels // per_head
        if "output" in name:
            heads = flags.get("num_heads_upsample", heads)
        size = channels // heads
        qkv = linear(f"{name}.qkv", norm(f"{name}.norm", h).flatten(2).transpose(1, 2))
        found = []
        for head in range(heads):
            if flags["use_new_attention_order"]:
                at = [part * channels + head * size for part in range(3)]
            else:
                at = [(head * 3 + part) * size for part in range(3)]
            q, k, v = (qkv[..., i : i + size] for i in at)
            found.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(size), dim=-1) @ v)
        mixed = linear(f"{name}.proj_out", torch.cat(found, dim=-1))
        return h + mixed.transpose(1, 2).reshape(batch, channels, height, width)

    half = flags["num_channels"] // 2
    phases = t.to(x.dtype)[:, None] * torch.tensor([10000 ** (-i / half) for i in range(half)], dtype=x.dtype)
    emb = linear("time_embed.2", silu(linear("time_embed.0", torch.cat([torch.cos(phases), torch.sin(phases)], dim=1))))
    if labels is not None:
        emb = emb + w["label_emb.weight"][labels]
    h, kept = x, []
    for kind, name, _, _ in described_steps(flags):
        if kind == "keep":
            kept.append(h)
        elif kind == "take":
            h = torch.cat([h, kept.pop()], dim=1)
        elif kind == "attention":
            h = attention(name, h)
        elif kind == "residual":
            h = residual(name, h)
        elif kind == "conv":
            h = conv(name, h)
        elif flags["resblock_updown"]:
            h = residual(name, h, halved if kind == "halve" else doubled)
        else:
            h = conv(f"{name}.op", h, stride=2) if kind == "halve" else conv(f"{name}.conv", doubled(h))
    return conv("out.2", silu(norm("out.0", h)))


# Checkpoints


def random_weights(flags, dtype=torch.float32, classes=CLASSES):
    generator = torch.Generator().manual_seed(0)

    def draw(shape, fan):
        return torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(fan)

    weights = {}
    for name, shape in described(flags, classes).items():
        if len(shape) > 1:
            weights[name] = draw(shape, math.prod(shape[1:])).to(dtype)
        else:
            weights[name] = (draw(shape, 25) + name.endswith(".weight")).to(dtype)  # around 1: the scale of a norm
    return weights


def checkpoint(folder, weights=None, /, stem="tiny", suffix=".pt", **changes):
    """A file of weights, and its flags beside it."""
    flags = {**TINY, **changes}
    weights = random_weights(flags) if weights is None else weights
    file = folder / f"{stem}{suffix}"
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    file.with_suffix(".json").write_text(json.dumps(flags))
    return file


def load(file, **settings):
    return us.load(str(file), device="cpu", **settings)


def states(dtype=torch.float32, size=8):
    return torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


TIMES = torch.tensor([3, 740])
LABELS = torch.tensor([4, 1])


# The architecture

DESCRIPTIONS = {  # of the READMEs of improved-diffusion (the first two and LSUN 1200K) and guided-diffusion
    "cifar10_uncond_50M_500K": (32, 128, "1,2,2,2", 3, "16,8", False, True, False, True, 4, -1, False),
    "imagenet64_uncond_100M_1500K": (64, 128, "1,2,3,4", 3, "16,8", False, True, False, True, 4, -1, False),
    "imagenet64_cond_270M_250K": (64, 192, "1,2,3,4", 3, "16,8", False, True, True, True, 4, -1, False),
    "lsun_uncond_100M_1200K_bs128": (256, 128, "1,1,2,2,4,4", 2, "16", False, False, False, True, 1, -1, False),
    "64x64_diffusion": (64, 192, "1,2,3,4", 3, "32,16,8", True, True, True, True, 4, 64, True),
    "128x128_diffusion": (128, 256, "1,1,2,3,4", 2, "32,16,8", True, True, True, True, 4, -1, False),
    "256x256_diffusion": (256, 256, "1,1,2,2,4,4", 2, "32,16,8", True, True, True, True, 4, 64, False),
    "256x256_diffusion_uncond": (256, 256, "1,1,2,2,4,4", 2, "32,16,8", True, True, False, True, 4, 64, False),
    "512x512_diffusion": (512, 256, "0.5,1,1,2,2,4,4", 2, "32,16,8", True, True, True, True, 4, 64, False),
}
NAMES = (
    *("image_size", "num_channels", "channel_mult", "num_res_blocks", "attention_resolutions"),
    *("resblock_updown", "use_scale_shift_norm", "class_cond", "learn_sigma"),
    *("num_heads", "num_head_channels", "use_new_attention_order"),
)


def untrained(name):
    with torch.device("meta"):
        return OpenAIUNet(published(name).architecture())


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_parameters_of_published_files(name):
    """Reference: `described`, from the flags that the READMEs give."""
    flags = dict(zip(NAMES, DESCRIPTIONS[name], strict=True))
    own = {key: tuple(value.shape) for key, value in untrained(name).state_dict().items()}
    assert own == described(flags, classes=1000)
    given = published(name)
    assert [getattr(given, key) for key in NAMES[-3:]] == [flags[key] for key in NAMES[-3:]]
    assert not given.predict_xstart


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("64x64_diffusion", 296),
        ("128x128_diffusion", 422),
        ("256x256_diffusion", 554),
        ("512x512_diffusion", 559),
    ],
)
def test_parameters_in_millions(name, millions):
    """Reference: Dhariwal and Nichol 2021, the tables of hyperparameters."""
    assert round(sum(value.numel() for value in untrained(name).parameters()) / 1e6) == millions


@pytest.mark.parametrize(("name", "size"), [("256x256_diffusion_uncond", 2211383297), ("256x256_diffusion", 2215479544)])
def test_parameters_fill_the_published_files(name, size):
    """Reference: the sizes of the files, which besides float32 numbers hold some 200 bytes on each parameter."""
    own = list(untrained(name).parameters())
    assert 100 < (size - 4 * sum(value.numel() for value in own)) / len(own) < 300


ARCHITECTURES = {
    "plain": {},
    "residual blocks resample": {"resblock_updown": True},
    "time is added": {"use_scale_shift_norm": False},
    "residual blocks resample, time is added": {"resblock_updown": True, "use_scale_shift_norm": False},
    "new attention order": {"use_new_attention_order": True},
    "channels of a head": {"num_head_channels": 16, "use_new_attention_order": True},
    "channels of a head, legacy order": {"num_head_channels": 16, "num_heads": 1},
    "other heads on the way up": {"num_heads_upsample": 8},
    "classes": {"class_cond": True},
    "no learned variance": {"learn_sigma": False},
    "attention at the top, halves": {
        **{"num_channels": 64, "channel_mult": "0.5,1,1.5", "attention_resolutions": "8,2", "num_res_blocks": 2}
    },
    "everything": {"class_cond": True, "resblock_updown": True, "use_new_attention_order": True, "num_head_channels": 32},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_output_is_the_described_one(name, dtype, tmp_path):
    """Reference: `described_output`; to 1e-10 in float64, 1e-4 in float32."""
    flags = {**TINY, **ARCHITECTURES[name]}
    w = random_weights(flags, dtype)
    model = load(checkpoint(tmp_path, w, **flags), dtype=dtype)
    labels = LABELS if flags["class_cond"] else None
    x = states(dtype)
    theirs = described_output(w, flags, x, TIMES, labels)
    assert theirs.shape[1] == (6 if flags["learn_sigma"] else 3)
    assert float(theirs.std()) > 0.1
    tolerance = {"rtol": 0, "atol": 1e-10 if dtype == torch.float64 else 1e-4}
    torch.testing.assert_close(model.network(x, TIMES, labels), theirs[:, :3], **tolerance)
    torch.testing.assert_close(model.network.unet(x, TIMES, labels), theirs, **tolerance)


@pytest.mark.parametrize("order", [False, True], ids=["legacy order", "new order"])
@pytest.mark.parametrize("updown", [False, True], ids=["convolutions", "residual blocks"])
@pytest.mark.parametrize("scales", [False, True], ids=["added", "scales"])
def test_output_is_that_of_diffusers(order, updown, scales, tmp_path):
    """Reference: UNet2DModel with the same weights, float64.

    diffusers takes the cosines and sines of the time in float32: at t = 0, where those are exact, all agree to 1e-10.
    """
    changes = {"use_new_attention_order": order, "resblock_updown": updown, "use_scale_shift_norm": scales, "class_cond": True}
    flags = {**TINY, **changes, "num_head_channels": 16}
    w = random_weights(flags, torch.float64)
    model = load(checkpoint(tmp_path, w, **flags), dtype="float64")
    x, diffusers = states(torch.float64), as_diffusers(w, flags)
    for times, tolerance in ((torch.zeros(2), 1e-10), (TIMES, 1e-4)):
        theirs = diffusers(x, times, class_labels=LABELS, return_dict=False)[0]
        torch.testing.assert_close(model.network.unet(x, times, LABELS), theirs, rtol=0, atol=tolerance)


def as_diffusers(w, flags):
    """UNet2DModel with the weights `w`, of TINY's levels."""
    from diffusers import UNet2DModel

    resample = "resnet" if flags["resblock_updown"] else "conv"
    unet = UNet2DModel(
        out_channels=6,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D" if flags["resblock_updown"] else "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D" if flags["resblock_updown"] else "UpBlock2D"),
        downsample_type=resample,
        upsample_type=resample,
        attention_head_dim=flags["num_head_channels"],
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift" if flags["use_scale_shift_norm"] else "default",
        num_class_embeds=CLASSES,
    ).double()
    blocks = {
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.downsamplers.0": "input_blocks.2.0",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0": "output_blocks.1.2",
        "up_blocks.1.resnets.0": "output_blocks.2.0",
        "up_blocks.1.resnets.1": "output_blocks.3.0",
    }
    parts = {
        **{"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"},
        **{"conv2": "out_layers.3", "conv_shortcut": "skip_connection", "group_norm": "norm", "to_out.0": "proj_out"},
    }
    ends = {
        **{
            "conv_in": "input_blocks.0.0",
            "time_embedding.linear_1": "time_embed.0",
            "time_embedding.linear_2": "time_embed.2",
        },
        **{"class_embedding": "label_emb", "conv_norm_out": "out.0", "conv_out": "out.2"},
    }
    found = {}
    for key, value in unet.state_dict().items():
        layer, kind = key.rsplit(".", 1)
        if layer in ends:
            found[key] = w[f"{ends[layer]}.{kind}"]
            continue
        theirs = next(name for name in blocks if layer.startswith(f"{name}."))
        part, ours = layer.removeprefix(f"{theirs}."), blocks[theirs]
        if part in ("to_q", "to_k", "to_v"):
            rows = w[f"{ours}.qkv.{kind}"]
            size, i = flags["num_head_channels"], ("to_q", "to_k", "to_v").index(part)
            split = (
                rows.unflatten(0, (3, -1))[i] if flags["use_new_attention_order"] else rows.unflatten(0, (-1, 3, size))[:, i]
            )
            found[key] = split.reshape(value.shape)
        else:
            name = parts.get(part, "conv" if "up_blocks" in theirs else "op")
            found[key] = w[f"{ours}.{name}.{kind}"].reshape(value.shape)
    unet.load_state_dict(found)
    return unet.eval().requires_grad_(False)


# Schedule, grid, and the times that the network is given


@pytest.mark.parametrize("count", [1000, 4000, 300])
def test_linear_schedule(count):
    """Reference: a loop; betas from 1e-4 to 0.02 of 1000 steps, scaled by 1000 / T."""
    kept, scale = [1.0], 1000 / count
    for t in range(count):
        kept.append(kept[-1] * (1 - scale * (1e-4 + (0.02 - 1e-4) * t / (count - 1))))
    assert Flags(diffusion_steps=count, rescale_timesteps=True).schedule().alpha_bar == pytest.approx(kept[1:], rel=1e-10)


def cosine(count):
    """alpha_bar by a loop over betas of cos^2, capped at 0.999."""
    kept = [1.0]
    for t in range(count):
        before, after = (math.cos((s / count + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (t, t + 1))
        kept.append(kept[-1] * (1 - min(1 - after / before, 0.999)))
    return kept[1:]


@pytest.mark.parametrize("count", [1000, 4000])
def test_cosine_schedule(count):
    """Reference: a loop."""
    flags = Flags(diffusion_steps=count, noise_schedule="cosine", rescale_timesteps=True)
    assert flags.schedule().alpha_bar == pytest.approx(cosine(count), rel=1e-10)


def test_schedules_of_published_files():
    """Reference: the READMEs, and the defaults of improved-diffusion (rescaled timesteps) and guided-diffusion (not)."""
    read = {name: (f.noise_schedule, f.diffusion_steps, bool(f.rescale_timesteps)) for name, f in PUBLISHED.items()}
    for name, value in read.items():
        if name.startswith(("cifar10", "imagenet64_uncond")):
            assert value == ("cosine", 4000, True)
        elif name == "imagenet64_cond_270M_250K":
            assert value == ("cosine", 4000, False)
        else:
            assert value == ("cosine" if name == "64x64_diffusion" else "linear", 1000, False)


@pytest.mark.parametrize(
    ("steps", "rescaled", "times"),
    [(4000, True, [750, 500, 250, 0]), (4000, False, [3000, 2000, 1000, 0]), (1000, True, [750, 500, 250, 0])],
)
def test_times_that_the_network_is_given(steps, rescaled, times, tmp_path):
    """Reference: t 1000 / T where timesteps are rescaled, else t."""
    model = load(checkpoint(tmp_path, diffusion_steps=steps, noise_schedule="cosine", rescale_timesteps=rescaled))
    heard = []

    def listening(x, t, condition):
        heard.extend(t.tolist())
        return model.network.unet(x, t, condition)

    us.sample(replace(model, network=replace(model.network, unet=listening)), us.draw_noise(model, 1), steps=4)
    assert heard == times


def test_sample_is_the_described_one(tmp_path):
    """Reference: `described_output` in a plain loop over ddim10's own timesteps, cosine of 4000 rescaled, float64."""
    flags = {**TINY, "diffusion_steps": 4000, "noise_schedule": "cosine", "rescale_timesteps": True, "class_cond": True}
    w = random_weights(flags, torch.float64)
    model = load(checkpoint(tmp_path, w, **flags), dtype="float64")
    x = noise = states(torch.float64)
    alpha_bar = cosine(4000)
    for t in range(3600, -1, -400):
        eps = described_output(w, flags, x, torch.tensor([t / 4, t / 4]), LABELS)[:, :3]
        x0 = (x - math.sqrt(1 - alpha_bar[t]) * eps) / math.sqrt(alpha_bar[t])
        before = alpha_bar[t - 400] if t else 1.0
        x = math.sqrt(before) * x0 + math.sqrt(1 - before) * eps
    ours = us.sample(model, noise, steps=10, condition=LABELS.tolist()).images
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)


# Loading


def test_what_a_model_says_of_itself(tmp_path):
    model = load(checkpoint(tmp_path, stem="mine", class_cond=True))
    assert (model.name, model.family, model.shape, model.prediction) == ("mine", FAMILY, (3, 8, 8), "epsilon")
    assert (model.spacing, model.steps_offset, model.clean) == ("leading", 0, "one")
    assert model.conditioner == us.ClassConditioner(tuple("01234"), null=None)
    assert any("clip_denoised" in note for note in model.notes)
    assert re.fullmatch("[0-9a-f]{12}", model.digest)
    assert load(checkpoint(tmp_path, stem="x0", predict_xstart=True)).prediction == "sample"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_kinds_of_file(suffix, tmp_path):
    first = load(checkpoint(tmp_path))
    again = load(checkpoint(tmp_path, stem="again", suffix=suffix))
    assert again.digest == first.digest


def test_a_file_of_before_zip(tmp_path):
    file = checkpoint(tmp_path)
    before = load(file).digest
    torch.save(random_weights(TINY), file, _use_new_zipfile_serialization=False)
    assert load(file).digest == before


def test_a_model_does_not_need_its_file_any_more(tmp_path):
    file = checkpoint(tmp_path)
    model = load(file)
    before = model.network(states(), TIMES, None)
    with file.open("r+b") as stream:
        stream.write(bytes(os.path.getsize(file)))
    assert torch.equal(model.network(states(), TIMES, None), before)


def test_weights_saved_in_half_precision(tmp_path):
    """Reference: `described_output` in float32 with the halves."""
    w = random_weights(TINY, torch.float16)
    model = load(checkpoint(tmp_path, w))
    assert {value.dtype for value in model.network.unet.parameters()} == {torch.float32}
    theirs = described_output({key: value.float() for key, value in w.items()}, TINY, states(), TIMES)
    torch.testing.assert_close(model.network(states(), TIMES, None), theirs[:, :3], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_that_of_inner_convolutions(dtype, tmp_path):
    """Reference: guided-diffusion's convert_to_fp16, which casts the convolutions of the three lists of blocks alone."""
    model = load(checkpoint(tmp_path), dtype=dtype)
    for key, value in model.network.unet.state_dict().items():
        is_inner = re.search(r"blocks\.\d+\.\d\.(weight|bias)|_layers\.[23]\.|\.op|\.conv|skip|qkv|proj", key)
        assert value.dtype == (getattr(torch, dtype) if is_inner else torch.float32), key
    output, wide = model.network(states(), TIMES, None), load(checkpoint(tmp_path)).network(states(), TIMES, None)
    assert output.dtype == torch.float32
    assert 0 < float((output - wide).abs().max()) < 0.1 * float(wide.std())


def test_sizes(tmp_path):
    model = load(checkpoint(tmp_path), size=(8, 12))
    assert us.sample(model, us.draw_noise(model, 1), steps=2).images.shape == (1, 3, 8, 12)
    with pytest.raises(us.ArgumentError, match="multiples of 2"):
        load(checkpoint(tmp_path), size=(8, 9))
    with pytest.raises(us.ArgumentError, match="leave out tiling"):
        load(checkpoint(tmp_path), tiling=True)


def test_offload(tmp_path):
    file = checkpoint(tmp_path)
    assert torch.equal(load(file, offload=True).network(states(), TIMES, None), load(file).network(states(), TIMES, None))


def test_flags_by_published_name(tmp_path):
    """A file of a published name needs no JSON; here its network is another, and that is what is refused."""
    file = tmp_path / "cifar10_uncond_50M_500K.pt"
    torch.save(random_weights({**TINY, "channel_mult": "1,2,2,2", "image_size": 32, "attention_resolutions": "16,8"}), file)
    refused(file, "num_channels is 128, the weights say 32; num_res_blocks is 3, the weights say 1; it lacks")
    model = load_openai(checkpoint(tmp_path), flags=replace(published("cifar10_uncond_50M_500K"), **tiny_flags()))
    assert (len(model.schedule), model.network.pace) == (4000, 0.25)
    with pytest.raises(us.UnknownNameError, match="did you mean '64x64_diffusion'"):
        published("64_diffusion")


def tiny_flags():
    rows = {"channel_mult": (1, 2), "attention_resolutions": (4,)}
    return {**{key: value for key, value in TINY.items() if key in NAMES}, **rows}


def test_a_class_as_an_embedding(tmp_path):
    model = load(checkpoint(tmp_path, class_cond=True))
    rows = model.embed([4, 1])
    assert torch.equal(rows, random_weights({**TINY, "class_cond": True})["label_emb.weight"][LABELS])
    assert torch.equal(model.network(states(), TIMES, rows), model.network(states(), TIMES, LABELS))


def test_unconditional_of_a_network_that_is_always_told(tmp_path):
    model = load(checkpoint(tmp_path, class_cond=True))
    with pytest.raises(us.ArgumentError, match="no unconditional class"):
        us.sample(model, us.draw_noise(model, 1), steps=2)


@pytest.mark.parametrize("condition", [None, 3])
def test_there_and_back(condition, tmp_path):
    w = random_weights({**TINY, "class_cond": condition is not None})
    w["out.2.weight"] *= 0.1  # these weights bend the path more than untrained ones do
    leads_back(load(checkpoint(tmp_path, w, class_cond=condition is not None)), condition)


# What is refused


def refused(file, says, **settings):
    with pytest.raises(us.ModelError, match=says) as caught:
        load(file, **settings)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_no_such_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("256x256_diffusion.pt", "models/256x256_diffusion.pt", str(tmp_path / "a.safetensors")):
        refused(name, "there is no such file")


def test_flags_that_nobody_knows(tmp_path):
    file = checkpoint(tmp_path)
    file.with_suffix(".json").unlink()
    refused(file, r"write those .* into tiny.json beside it, such as \{.image_size")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot use the flags in"),
        ("[]", "expected a JSON object"),
        ('{"num_chanels": 32}', "did you mean 'num_channels'"),
        ('{"image_size": "64"}', "image_size must be of the kind of 64"),
        ('{"class_cond": 1}', "class_cond must be of the kind of false, given 1"),
        ('{"image_size": true}', "image_size must be of the kind of 64, given true"),
        ('{"image_size": 48}', "image_size 48 has no channel_mult of its own"),
        ('{"image_size": 0, "channel_mult": "1"}', "image_size must be at least 1"),
        ('{"num_res_blocks": 0}', "num_res_blocks must be at least 1"),
        ('{"channel_mult": "1,-2"}', "must be positive"),
        ('{"channel_mult": "1,NaN"}', "must be positive"),
        ('{"channel_mult": "one"}', "channel_mult must be numbers such as"),
        ('{"attention_resolutions": {}}', "attention_resolutions must be numbers such as"),
        ('{"num_channels": 33}', "is 33: expected a multiple of 32"),
        ('{"num_heads": 3}', "cannot be split by 3"),
        ('{"num_head_channels": 48}', "cannot be split by 48"),
        ('{"num_head_channels": 0}', "num_head_channels must be at least 1, or -1"),
        ('{"noise_schedule": "sqrt"}', "noise_schedule must be linear or cosine, given 'sqrt'"),
        ('{"diffusion_steps": 10, "rescale_timesteps": true}', "too few for a linear noise_schedule"),
    ],
)
def test_flags_that_make_no_network(text, says, tmp_path):
    file = checkpoint(tmp_path)
    file.with_suffix(".json").write_text(text)
    refused(file, says)


COMMON = {
    **{"image_size": 64, "num_channels": 128, "num_res_blocks": 2, "num_heads": 4, "num_heads_upsample": -1},
    **{"attention_resolutions": "16,8", "dropout": 0.0, "learn_sigma": False, "class_cond": False, "diffusion_steps": 1000},
    **{"noise_schedule": "linear", "timestep_respacing": "", "use_kl": False, "predict_xstart": False},
    **{"use_checkpoint": False, "use_scale_shift_norm": True},
}
"""Defaults that `model_and_diffusion_defaults` of improved-diffusion and of guided-diffusion share."""

IMPROVED = {**COMMON, "sigma_small": False, "rescale_timesteps": True, "rescale_learned_sigmas": True}

GUIDED = {
    **COMMON,
    **{"num_head_channels": -1, "channel_mult": "", "resblock_updown": False, "use_fp16": False},
    **{"use_new_attention_order": False, "rescale_timesteps": False, "rescale_learned_sigmas": False},
}


def test_a_flag_whose_default_differs_between_the_codes_has_to_be_given(tmp_path):
    """Reference: both codes' own defaults. What a JSON file leaves out stands for them, where it makes a difference."""
    differ = {name for name in IMPROVED if IMPROVED[name] != GUIDED.get(name, IMPROVED[name])}
    assert differ - set(IGNORED) == {"rescale_timesteps"}
    (tmp_path / "all.json").write_text(json.dumps({**GUIDED, **IMPROVED, "rescale_timesteps": True}))
    assert flags_of(tmp_path / "all.pt") == Flags(rescale_timesteps=True)
    file = checkpoint(tmp_path, diffusion_steps=4000)
    refused(file, "tiny.json: rescale_timesteps is missing.* true, .* times below 1000; false, .* times up to 3999$")
    with pytest.raises(us.ModelError, match="rescale_timesteps is missing"):
        Flags(diffusion_steps=4000)
    for given, last in ((True, 900), (False, 3600)):
        model = load(checkpoint(tmp_path, diffusion_steps=4000, rescale_timesteps=given))
        assert model.grid(10)[10].t * model.network.pace == last
    assert load(checkpoint(tmp_path)).network.pace == 1  # of 1000 steps rescaling makes nothing else
    assert load(checkpoint(tmp_path, rescale_timesteps=True)).network.pace == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_channels": 64}, "num_channels is 64, the weights say 32; has"),
        ({"num_res_blocks": 2}, "num_res_blocks is 2, the weights say 1; it"),
        ({"channel_mult": "1,1"}, "channel_mult is 1,1, the weights say 1,2; has"),
        ({"channel_mult": "1,2,2"}, "channel_mult is 1,2,2, the weights say 1,2; it"),
        ({"attention_resolutions": "8"}, "attention_resolutions is 8, the weights say 4; it"),
        ({"class_cond": True}, "class_cond is True, the weights say False; it lacks label_emb.weight$"),
        ({"learn_sigma": False}, "learn_sigma is False, the weights say True; has in another shape out.2.weight out.2.bias$"),
        ({"use_scale_shift_norm": False}, "use_scale_shift_norm is False, the weights say True; has"),
        ({"resblock_updown": True}, "resblock_updown is True, the weights say False; it"),
        ({"conv_resample": False}, "conv_resample is False, the weights say True; has besides input_blocks.2.0.op.weight"),
    ],
    ids=str,
)
def test_flags_that_the_weights_contradict(changes, says, tmp_path):
    refused(checkpoint(tmp_path, random_weights(TINY), **changes), f"does not fit its flags: {says}")


def test_flags_that_the_weights_contradict_without_convolutions(tmp_path):
    w = {key: value for key, value in random_weights(TINY).items() if not re.search(r"\.(op|conv)\.", key)}
    assert load(checkpoint(tmp_path, w, conv_resample=False)).network(states(), TIMES, None).isfinite().all()
    refused(
        checkpoint(tmp_path, w), "flags: conv_resample is True, the weights say False; it lacks input_blocks.2.0.op.weight"
    )


def test_parameters_that_are_missing_or_too_many(tmp_path):
    w = random_weights(TINY)
    lacking = {key: value for key, value in w.items() if key != "middle_block.1.qkv.bias"}
    refused(checkpoint(tmp_path, lacking), "does not fit its flags: it lacks middle_block.1.qkv.bias$")
    refused(checkpoint(tmp_path, {**w, "ema": torch.zeros(1)}), "does not fit its flags: has besides ema$")
    refused(
        checkpoint(tmp_path, {**w, "label_emb.weight": torch.tensor(0.0)}, class_cond=True), "another shape label_emb.weight$"
    )
    refused(checkpoint(tmp_path, {**w, "time_embed.0.weight": torch.zeros(128, 0)}), "another shape time_embed.0.weight$")
    refused(checkpoint(tmp_path, {"weight": torch.zeros(1)}), "it lacks time_embed.0.weight .*, has besides weight$")
    refused(
        checkpoint(tmp_path, {**w, "input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}),
        "another shape input_blocks.0.0.weight$",
    )


def test_numbers_that_are_not_finite(tmp_path):
    w = random_weights(TINY)
    refused(
        checkpoint(tmp_path, {**w, "out.2.bias": torch.full((6,), float("nan"))}), "not finite in torch.float32 in out.2.bias$"
    )
    large = {**w, "middle_block.1.qkv.bias": torch.full((192,), 1e5)}
    assert load(checkpoint(tmp_path, large), dtype="bfloat16")
    refused(checkpoint(tmp_path, large), "not finite in torch.float16 in middle_block.1.qkv.bias$", dtype="float16")


class Trap:
    """A pickle of it runs a command."""

    def __reduce__(self):
        return os.system, ("echo trapped > trapped",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Trap(), "it names posix.system, which could run code$"),
        ({"out.2.bias": Trap()}, "it names posix.system, which could run code$"),
        (torch.nn.Linear(2, 2), "it names torch.nn.modules.linear.Linear, which could run code$"),
        ({}, "given an empty one$"),
        ([torch.zeros(2)], "given list$"),
        ({"step": 3}, "given int at 'step'$"),
        ({3: torch.zeros(2)}, "at 3$"),
        ({"state_dict": {"out.2.bias": torch.zeros(2)}}, "given dict at 'state_dict'$"),
        ({"out.2.bias": torch.zeros(2, dtype=torch.int8)}, "given torch.int8 at 'out.2.bias'$"),
        ({"out.2.bias": torch.zeros(2, device="meta")}, "at 'out.2.bias'$"),
        ({"out.2.bias": torch.zeros(2).to_sparse()}, "at 'out.2.bias'$"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # no addresses: they differ between processes
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
def test_pickles_with_anything_but_tensors(content, says, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = checkpoint(tmp_path)
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    refused(file, f"expected a state dict of floating tensors alone.*{says}")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("kind", ["zip", "before zip", "safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 0.5, -1], ids=["empty", "5 bytes", "half", "last byte"])
def test_truncated_files(kind, keep, tmp_path):
    file = checkpoint(tmp_path, suffix=".safetensors" if kind == "safetensors" else ".pt")
    if kind == "before zip":
        torch.save(random_weights(TINY), file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refused(file, "cannot load .*; it is truncated, damaged or of another kind$")


def test_files_of_another_kind(tmp_path):
    file = checkpoint(tmp_path)
    for data in (b"not a checkpoint", b"PK\x05\x06" + bytes(18), json.dumps(TINY).encode()):
        file.write_bytes(data)
        refused(file, "truncated, damaged or of another kind$")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    refused(file, "truncated, damaged or of another kind$")
