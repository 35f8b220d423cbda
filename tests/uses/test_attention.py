"""Attention editors on U-Nets of Stable Diffusion and XL with random weights, at sizes that are not square.

References: rows sampled apart by `us.sample`, with what the source's run showed to hooks put into the target's; naive loops;
diffusers' own processors.
"""

import copy
import functools
import math
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor

import unsample as us
from unsample.methods.stochastic import Ancestral
from unsample.models.families.prompts import tokens_of
from unsample.models.pipeline_files import quiet
from unsample.uses.attention import MasaCtrl, PromptToPrompt, StyleAligned, edit_attention
from unsample.uses.attention.functions import Heads, adain, injected, maps_of, mutual, realigned, shared
from unsample.uses.attention.hooks import ChangedAttention, Layer, Moment, changed_attention, layers_of, unet_of, watched
from unsample.uses.attention.words import aligned, weighed

from ..models import tiny
from ..models.test_deepfloyd import stage_one
from ..models.test_stable_diffusion import QUICK, stable_diffusion
from ..models.test_stable_diffusion_xl import stable_diffusion_xl
from .conftest import FAMILIES, close, far, photograph, picture

GUIDE = Path(__file__).parents[2] / "docs" / "attention.md"
STEPS = 5
SIZE = (16, 24)
SOURCE, TARGETS = "a cat", ("a dog", "a cow")
"""As many tokens each."""
ALL = {"cross_until": 1.0, "self_until": 1.0}
CASES = pytest.mark.parametrize(("name", "guidance"), [("SD", 1.0), ("SD", 3.0), ("XL", 3.0)])
PIPELINES = {"SD": stable_diffusion, "XL": stable_diffusion_xl}


def sharp(pipeline):
    """Random attention looks everywhere alike, and says little: here it looks somewhere, and its answer counts."""
    for name, weight in pipeline.unet.named_parameters():
        if "attn" in name and name.endswith("weight"):
            weight.data *= 3
    return pipeline


@functools.cache
def model_of(name):
    """One for all tests: each leaves it as it was."""
    return us.load(sharp(PIPELINES[name]()), size=SIZE)


def edit(model, latent, editor, *, source=SOURCE, to=TARGETS, **settings):
    settings = {"steps": STEPS, "tokenizer": tiny.clip_tokenizer(), **settings}
    return edit_attention(model, latent, editor=editor, source=source, to=to, **{"guidance": 1.0, **settings})


def alone(model, latent, prompt, **settings):
    return us.sample(model, latent, steps=STEPS, condition=prompt, **settings).images


def modules_of(unet):
    return {layer: unet.get_submodule(name.removesuffix(".processor")) for name, layer in layers_of(unet).items()}


@contextmanager
def hooked(modules, hook):
    """`hook(key, output, module, inputs, kwargs)` is told of every call, and may return another output."""
    handles = [
        module.register_forward_hook(lambda m, i, k, o, key=key: hook(key, o, m, i, k), with_kwargs=True)
        for key, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def processing(unet, processors):
    """With processors of ours for a while."""
    before = dict(unet.attn_processors)
    unet.set_attn_processor(processors)
    try:
        yield
    finally:
        unet.set_attn_processor(before)


# Layers


@pytest.mark.parametrize("name", PIPELINES)
def test_layers_are_numbered_as_the_network_runs_them(name):
    """Reference: hooks, in the order they fire. diffusers lists the middle block last."""
    model = model_of(name)
    found = []
    with hooked(modules_of(model.network.unet), lambda layer, *_: found.append(layer)):
        alone(model, us.draw_noise(model, 1), SOURCE)
    for kind in (False, True):
        own = [layer.index for layer in found if layer.is_cross == kind]
        count = len(own) // STEPS
        assert own == list(range(count)) * STEPS
        assert {layer.count for layer in found if layer.is_cross == kind} == {count}


# Switched off

OFF = {
    "MasaCtrl": MasaCtrl(from_step=STEPS, from_layer=0),
    "StyleAligned": StyleAligned(share=0.0),
    "prompt-to-prompt": PromptToPrompt(cross_until=0.0, self_until=0.0),
    "prompt-to-prompt, weights": PromptToPrompt("reweight", 0.0, 0.0, words=("a",), weights=(3.0,)),
}


@CASES
@pytest.mark.parametrize("editor", OFF)
def test_switched_off_each_row_is_the_plain_pipelines(name, editor, guidance):
    """Reference: each row sampled alone."""
    model = model_of(name)
    latent = us.draw_noise(model, 1, seed=1)
    done = edit(model, latent, OFF[editor], guidance=guidance)
    assert done.nfe == STEPS * (1 if guidance == 1 else 2)
    for image, prompt in zip(done.images, (SOURCE, *TARGETS), strict=True):
        close(image[None], alone(model, latent, prompt, guidance=guidance))


# Where an editor acts

WHERE = {
    "MasaCtrl": (
        MasaCtrl(from_step=2, from_layer=1),
        lambda step, branch, layer: not layer.is_cross and step >= 2 and layer.index,
    ),
    "StyleAligned": (StyleAligned(), lambda step, branch, layer: not layer.is_cross),
    "prompt-to-prompt": (
        PromptToPrompt(cross_until=0.8, self_until=0.4),
        lambda step, branch, layer: branch and step < (4 if layer.is_cross else 2),
    ),
    "prompt-to-prompt, small maps": (
        PromptToPrompt(cross_until=0.4, self_until=1.0, self_cells=1),
        lambda step, branch, layer: branch and step < 2 and layer.is_cross,
    ),
    "prompt-to-prompt, refine": (
        PromptToPrompt("refine", cross_until=0.2, self_until=0.0),
        lambda step, branch, layer: branch and step < 1 and layer.is_cross,
    ),
}


@pytest.mark.parametrize("editor", WHERE)
@pytest.mark.parametrize("name", PIPELINES)
def test_it_changes_the_targets_in_its_layers_and_steps_alone(name, editor):
    """Reference: AttnProcessor2_0 on the same input of every layer, at every step, in both branches of guidance.

    By hooks on the layers, which count the steps themselves: the unconditional branch is asked first.
    """
    model = model_of(name)
    options, wanted = WHERE[editor]
    layers, calls, changed = modules_of(model.network.unet), dict.fromkeys(modules_of(model.network.unet), 0), set()

    def look(layer, output, module, inputs, kwargs):
        step, branch = divmod(calls[layer], 2)
        calls[layer] += 1
        plain = AttnProcessor2_0()(module, *inputs, **kwargs)
        close(output[:1], plain[:1])
        difference = (output[1:] - plain[1:]).abs().amax((1, 2))
        assert bool((difference > 1e-3).all()) or bool((difference < 1e-5).all())
        if bool((difference > 1e-3).all()):
            changed.add((step, branch, layer))

    with hooked(layers, look):
        edit(model, us.draw_noise(model, 3, seed=2), options, guidance=3.0)
    everywhere = [(step, branch, layer) for step in range(STEPS) for branch in range(2) for layer in layers]
    assert changed == {where for where in everywhere if wanted(*where)}
    assert changed


@pytest.mark.parametrize("editor", [MasaCtrl(1, 1), StyleAligned(shift=1.0), PromptToPrompt()])
def test_the_source_comes_back_as_if_alone(editor):
    """Reference: the source sampled alone; the targets differ from theirs."""
    model = model_of("SD")
    latent = us.draw_noise(model, 1, seed=1)
    done = edit(model, latent, editor, guidance=3.0)
    close(done.source, alone(model, latent, SOURCE, guidance=3.0))
    for image, prompt in zip(done.targets, TARGETS, strict=True):
        far(image[None], alone(model, latent, prompt, guidance=3.0))


# Each editor against rows that are walked apart


def recorded(model, latent, names=("to_q", "to_k", "to_v"), **settings):
    """What the source's projections gave in self-attention, one list for each of them, run alone."""
    kept = {}
    modules = {
        (layer, name): getattr(module, name)
        for layer, module in modules_of(model.network.unet).items()
        for name in names
        if not layer.is_cross
    }
    with hooked(modules, lambda key, output, *_: kept.setdefault(key, []).append(output)):
        alone(model, latent, SOURCE, **settings)
    return modules, kept


@CASES
def test_masactrl_is_the_sources_keys_and_values_put_into_a_run_of_the_target(name, guidance):
    """Reference: the source alone, its keys and values recorded by hooks; the target alone, with these put in by hooks."""
    model = model_of(name)
    latent, (first_step, first_layer) = us.draw_noise(model, 1, seed=1), (2, 1)
    modules, kept = recorded(model, latent, ("to_k", "to_v"), guidance=guidance)
    calls = dict.fromkeys(modules, 0)

    def put(key, output, *_):
        calls[key] += 1
        step = (calls[key] - 1) // (1 if guidance == 1 else 2)
        return kept[key][calls[key] - 1] if step >= first_step and key[0].index >= first_layer else output

    with hooked(modules, put):
        expected = alone(model, latent, TARGETS[0], guidance=guidance)
    done = edit(model, latent, MasaCtrl(first_step, first_layer), guidance=guidance)
    close(done.targets[:1], expected)
    far(expected, alone(model, latent, TARGETS[0], guidance=guidance))


class Naively:
    """Shared attention of one row with recorded queries, keys and values, loops over heads and channels."""

    def __init__(self, kept, scale, shift):
        self.kept, self.scale, self.shift = kept, scale, shift

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        q, k, v = attn.to_q(hidden_states)[0], attn.to_k(hidden_states)[0], attn.to_v(hidden_states)[0]
        rq, rk, rv = (self.kept[name].pop(0)[0] for name in ("to_q", "to_k", "to_v"))
        q, k = self.renormalised(q, rq), self.renormalised(k, rk)
        width, heads = q.shape[1] // attn.heads, []
        for h in range(attn.heads):
            own = slice(h * width, (h + 1) * width)
            scores = torch.cat([self.scale * q[:, own] @ rk[:, own].T, q[:, own] @ k[:, own].T], 1) / math.sqrt(width)
            scores[:, : len(rk)] += self.shift
            heads.append(scores.softmax(1) @ torch.cat([rv[:, own], v[:, own]]))
        return attn.to_out[0](torch.cat(heads, 1))[None]

    def renormalised(self, x, source):
        columns = zip(x.T, source.T, strict=True)
        spread = lambda column: math.sqrt(float(column.var(correction=0)) + 1e-5)  # noqa: E731
        return torch.stack([(a - a.mean()) / spread(a) * spread(b) + b.mean() for a, b in columns], 1)


@pytest.mark.parametrize(("name", "scale", "shift"), [("SD", 1.0, 0.0), ("SD", 0.7, math.log(2)), ("XL", 1.0, -0.5)])
def test_style_aligned_is_a_naive_loop_over_recorded_features(name, scale, shift):
    """Reference: the source alone, its queries, keys and values recorded; the target alone with a naive processor."""
    model = model_of(name)
    unet, latent = model.network.unet, us.draw_noise(model, 2, seed=1)
    _, kept = recorded(model, latent[:1])
    naive = {
        key: Naively({name: kept[layer, name] for name in ("to_q", "to_k", "to_v")}, scale, shift)
        for key, layer in layers_of(unet).items()
        if not layer.is_cross
    }
    with processing(unet, {**unet.attn_processors, **naive}):
        expected = alone(model, latent[1:], TARGETS[0])
    done = edit(model, latent, StyleAligned(scale=scale, shift=shift), to=TARGETS[:1])
    close(done.targets, expected, 2e-5)
    far(expected, alone(model, latent[1:], TARGETS[0]))


@contextmanager
def maps_seen(unet, look):
    """diffusers' AttnProcessor, which makes maps; `look(layer, maps)` may return others."""
    modules = modules_of(unet)
    for layer, module in modules.items():
        own = module.get_attention_scores
        module.get_attention_scores = lambda q, k, mask=None, own=own, layer=layer: look(layer, own(q, k, mask))
    try:
        with processing(unet, AttnProcessor()):
            yield
    finally:
        for module in modules.values():
            del module.get_attention_scores


@CASES
@pytest.mark.parametrize("kind", ["replace", "refine", "reweight"])
def test_prompt_to_prompt_is_the_sources_maps_put_into_a_run_of_the_target(name, kind, guidance):
    """Reference: the source alone, its maps recorded from diffusers' AttnProcessor; the target alone, with these put in."""
    model = model_of(name)
    unet, latent = model.network.unet, us.draw_noise(model, 1, seed=1)
    target = "a big cat" if kind == "refine" else "a dog"
    weights = {"words": ("dog",), "weights": (-1.5,)} if kind == "reweight" else {}
    editor = PromptToPrompt(kind, cross_until=0.6, self_until=0.4, **weights)
    kept, calls = {}, dict.fromkeys(layers_of(unet).values(), 0)
    per_step = 1 if guidance == 1 else 2
    # start, "a", "b" "i" "g</w>", "c" "a" "t</w>", end, padding; those after the new word lie three places on
    from_source = [0, 1, -1, -1, -1, 2, 3, 4, 5, *range(9, tiny.LENGTH)] if kind == "refine" else list(range(tiny.LENGTH))

    def record(layer, maps):
        kept.setdefault(layer, []).append(maps)
        return maps

    def put(layer, maps):
        step, branch = divmod(calls[layer], per_step)
        source, calls[layer] = kept[layer][calls[layer]], calls[layer] + 1
        if branch != per_step - 1 or step >= (3 if layer.is_cross else 2):
            return maps
        if not layer.is_cross:
            return source
        new = torch.stack([source[..., i] if i >= 0 else maps[..., j] for j, i in enumerate(from_source)], -1)
        if kind == "reweight":
            new[..., 2:5] *= -1.5
        return new

    with maps_seen(unet, record):
        alone(model, latent, SOURCE, guidance=guidance)
    with maps_seen(unet, put):
        expected = alone(model, latent, target, guidance=guidance)
    done = edit(model, latent, editor, to=(target,), guidance=guidance)
    close(done.targets, expected)
    far(expected, alone(model, latent, target, guidance=guidance))


# What must be the source itself


@pytest.mark.parametrize(("name", "guidance"), [("SD", 3.0), ("XL", 1.0)])
@pytest.mark.parametrize(
    "editor",
    [
        MasaCtrl(0, 0),
        PromptToPrompt(**ALL),
        PromptToPrompt("refine", **ALL),
        PromptToPrompt("reweight", **ALL, words=("cat",), weights=(1.0,)),
        StyleAligned(),  # each cell twice over, with its own statistics
    ],
)
def test_the_sources_own_prompt_gives_the_source(name, editor, guidance):
    """Reference: the source."""
    model = model_of(name)
    done = edit(model, us.draw_noise(model, 1, seed=1), editor, to=(SOURCE, SOURCE), guidance=guidance)
    close(done.targets, done.source.expand_as(done.targets), 2e-5)


def test_words_are_weighed():
    """Reference: a weight of 1 is `replace`; another is told apart, and is the same for both kinds."""
    model = model_of("SD")
    latent = us.draw_noise(model, 1, seed=1)
    plain = edit(model, latent, PromptToPrompt(**ALL)).targets
    one = PromptToPrompt("reweight", **ALL, words=("a",), weights=(1.0,))
    close(edit(model, latent, one).targets, plain, 1e-6)
    far(edit(model, latent, replace(one, weights=(3.0,))).targets, plain)
    assert torch.equal(
        edit(model, latent, replace(one, kind="replace", weights=(3.0,))).targets,
        edit(model, latent, replace(one, weights=(3.0,))).targets,
    )


# Functions of queries, keys and values


def heads(rows=3, cells=6, tokens=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, 2, cells, 4), *[(rows, 2, tokens or cells, 4)] * 2]
    return Heads(*(torch.randn(shape, generator=generator).to(dtype) for shape in shapes), 0.5)


def naive(q, k, v, scale):
    """One query at a time."""
    out = torch.zeros_like(q)
    for i, query in enumerate(q):
        scores = [math.exp(scale * float(query @ key)) for key in k]
        out[i] = sum(s * value for s, value in zip(scores, v, strict=True)) / sum(scores)
    return out


def test_mutual_and_shared_attention_are_naive_loops():
    """Reference: `naive`, for each target and head."""
    x = heads()
    for row in (1, 2):
        for h in range(2):
            q, k, v = x.q[row, h], x.k[row, h], x.v[row, h]
            close(mutual(x)[row - 1, h], naive(q, x.k[0, h], x.v[0, h], 0.5))
            both = torch.cat([x.k[0, h], k]), torch.cat([x.v[0, h], v])
            close(shared(x, normalise=False)[row - 1, h], naive(q, *both, 0.5))
            twice = torch.cat([x.k[0, h], x.k[0, h], k]), torch.cat([x.v[0, h], x.v[0, h], v])
            close(shared(x, normalise=False, shift=math.log(2))[row - 1, h], naive(q, *twice, 0.5))


def test_injected_maps_are_naive_loops():
    """Reference: `naive` with the source's queries and keys and the target's values."""
    x, cross = heads(), heads(tokens=5)
    same, ones = torch.arange(5).expand(2, 5), torch.ones(2, 5)
    for row in (1, 2):
        for h in range(2):
            close(injected(x)[row - 1, h], naive(x.q[0, h], x.k[0, h], x.v[row, h], 0.5))
            ours = injected(cross, same, ones)[row - 1, h]
            close(ours, naive(cross.q[0, h], cross.k[0, h], cross.v[row, h], 0.5))
            ours = injected(cross, same * 0 - 1, ones)[row - 1, h]
            close(ours, naive(cross.q[row, h], cross.k[row, h], cross.v[row, h], 0.5))


def test_adain_has_the_references_mean_and_deviation():
    """Reference: each channel of each head by itself."""
    x, source = 3 * torch.randn(2, 2, 50, 4) + 1, torch.randn(1, 2, 50, 4) * 0.5 - 2
    ours = adain(x, source)
    for row in range(2):
        for h in range(2):
            for c in range(4):
                close(ours[row, h, :, c].mean(), source[0, h, :, c].mean(), 1e-4)
                close(ours[row, h, :, c].std(), source[0, h, :, c].std(), 1e-4)
    close(adain(source, source), source)


def test_weights_scale_the_maps_of_those_tokens_alone():
    """Reference: the maps without weights, of two targets whose weights differ."""
    maps = maps_of(heads(tokens=4))
    alignment = torch.tensor([[0, 1, 2, 3], [0, -1, 1, 3]])
    plain = realigned(maps, alignment, torch.ones(2, 4))
    weights = torch.tensor([[1, 2.0, 1, 1], [1, 1, 1, -3.0]])
    close(realigned(maps, alignment, weights) / plain, weights[:, None, None].expand_as(plain))
    assert torch.equal(plain[0], maps[0])
    assert torch.equal(plain[1], torch.stack([maps[0][..., 0], maps[2][..., 1], maps[0][..., 1], maps[0][..., 3]], -1))


class Plainly:
    """An edit that acts everywhere and changes nothing."""

    def acts(self, layer, moment, cells):
        return True

    def attend(self, layer, heads):
        return maps_of(heads.take(slice(1, None))).to(heads.v.dtype) @ heads.v[1:]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("is_cross", [False, True])
def test_our_attention_is_diffusers(is_cross, dtype, tolerance):
    """Reference: AttnProcessor2_0 in single precision, every layer of XL; bfloat16 is about 2^-8 of outputs below 1."""
    unet = stable_diffusion_xl().unet
    moment = Moment(STEPS)
    for layer, module in modules_of(unet).items():
        if layer.is_cross != is_cross:
            continue
        x = torch.randn(3, 6, module.to_q.in_features)
        context = torch.randn(3, 5, module.to_k.in_features) if is_cross else None
        with torch.no_grad():
            expected = AttnProcessor2_0()(module.float(), x, context)
            ours = ChangedAttention(layer, Plainly(), moment, None)(
                module.to(dtype), x.to(dtype), None if context is None else context.to(dtype)
            )
        assert ours.dtype == dtype
        assert float(expected.abs().max()) < 1
        close(ours.float(), expected, tolerance)


# The walk


@pytest.mark.parametrize("editor", [MasaCtrl(0, 0), StyleAligned(), PromptToPrompt(**ALL), PromptToPrompt("refine", **ALL)])
def test_in_bfloat16_edits_are_those_of_single_precision(editor):
    """Reference: the same in single precision. Measured 2 % of the deviation, and without any editor 2.6 %."""
    pipeline = sharp(stable_diffusion())
    model = us.load(pipeline, size=SIZE)
    latent = us.draw_noise(model, 1, seed=1)
    expected = edit(model, latent, editor).images
    pipeline.unet.to(torch.bfloat16)
    ours = edit(model, latent, editor).images
    assert ours.dtype == torch.float32
    assert float((ours - expected).abs().max()) < 0.05 * float(expected.std())


@pytest.mark.parametrize("editor", [MasaCtrl(1, 1), StyleAligned(), PromptToPrompt()])
def test_targets_do_not_know_of_each_other(editor):
    """Reference: each target by itself."""
    model = model_of("SD")
    latent = us.draw_noise(model, 3, seed=1)
    both = edit(model, latent, editor, guidance=2.0).targets
    for i, prompt in enumerate(TARGETS):
        one = edit(model, latent[[0, i + 1]], editor, to=(prompt,), guidance=2.0).targets
        close(both[i : i + 1], one)


def test_from_a_forward_start_and_put_on_known_states_the_source_is_its_image_with_guidance():
    """Reference: the states of the inversion, and for a start at the image, what the codec alone makes of it."""
    model = us.load(stable_diffusion(**QUICK), size=SIZE)
    image = torch.rand((1, 3, *SIZE), generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = {"condition": SOURCE, "steps": STEPS, "keep": us.Keep("states")}
    there = us.invert(model, image, start=us.FromImage(), **settings)
    done = edit_attention(
        model, there, editor=MasaCtrl(1, 1), source=SOURCE, to=TARGETS, guidance=5.0, source_latents=there.states
    )
    assert done.nfe == 2 * STEPS
    close(done.source, model.codec.decode(model.codec.encode(image)).detach())
    free = edit_attention(model, there, editor=MasaCtrl(1, 1), source=SOURCE, to=TARGETS, guidance=5.0)
    far(free.source, done.source)
    started = us.invert(model, image, start=us.ForwardNoise(steps=2), **settings)
    ticks = []
    done = edit(model, started, MasaCtrl(1, 1), on_step=lambda *tick: ticks.append(tick), source_latents=started.states)
    assert (ticks[0], ticks[-1]) == ((3, 15), (15, 15))
    close(done.source, us.sample(model, started.states[2], steps=STEPS, index=2, condition=SOURCE).images)


def test_part_of_the_way_counts_steps_from_the_noisy_end():
    """Reference: MasaCtrl is off above level 3 of 5, so from there its two settings agree, and it is on below."""
    model = model_of("SD")
    part = us.Trajectory(us.draw_noise(model, 1), 0, 3, 0)
    early, late, off = (edit(model, part, MasaCtrl(from_step, 0)).targets for from_step in (0, 2, 5))
    assert torch.equal(early, late)
    far(late, off)
    close(off[:1], us.sample(model, part.latent, steps=STEPS, index=3, condition=TARGETS[0]).images)


def test_guidance_moves_away_from_a_prompt_or_from_embeddings():
    """Reference: switched off, `us.sample` with the same negative; embeddings of one row are everybody's."""
    model = model_of("SD")
    latent = us.draw_noise(model, 1)
    settings = {"guidance": 3.0, "negative": "ugly"}
    done = edit(model, latent, OFF["MasaCtrl"], **settings)
    close(done.targets[:1], alone(model, latent, TARGETS[0], **settings))
    ugly = model.conditioner(["ugly"], model.device)
    by_level = {**settings, "negative": dict.fromkeys(range(1, STEPS + 1), ugly)}
    close(edit(model, latent, OFF["MasaCtrl"], **by_level).images, done.images, 1e-6)


@pytest.mark.parametrize("own", [AttnProcessor(), SlicedAttnProcessor(1)])
def test_processors_come_back_also_after_an_exception(own):
    pipeline = sharp(stable_diffusion())
    pipeline.unet.set_attn_processor(own)
    model, before = us.load(pipeline, size=SIZE), dict(pipeline.unet.attn_processors)
    done = edit(model, us.draw_noise(model, 1), MasaCtrl(1, 1))

    def stop(done, total):
        kinds = {type(processor) for processor in pipeline.unet.attn_processors.values()}
        assert kinds == {ChangedAttention}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit(model, us.draw_noise(model, 1), MasaCtrl(1, 1), on_step=stop)
    after = pipeline.unet.attn_processors
    assert list(after) == list(before)
    assert all(after[name] is processor for name, processor in before.items())
    default = edit(model_of("SD"), us.draw_noise(model, 1), MasaCtrl(1, 1))
    close(done.images, default.images)


def test_the_share_of_layers_is_spread_evenly():
    def where(share, count):
        acts = StyleAligned(share=share).acts
        return [i for i in range(count) if acts(Layer(i, count, False), Moment(STEPS), 4)]

    assert where(1.0, 16) == list(range(16))
    assert where(0.5, 16) == list(range(1, 16, 2))
    assert [len(where(share, 70)) for share in (0.0, 0.1, 0.3, 0.9)] == [0, 7, 21, 63]


# Words


def test_tokens_are_aligned_and_weighed():
    tokenizer = tiny.clip_tokenizer()
    assert aligned(tokenizer, "a cat", "a cat") == list(range(tiny.LENGTH))
    longer = aligned(tokenizer, "a cat", "a red cat")  # start a r e d c a t end
    assert longer == [0, 1, -1, -1, -1, 2, 3, 4, 5, *range(9, tiny.LENGTH)]
    shorter = aligned(tokenizer, "a red cat", "a cat")
    assert shorter == [0, 1, 5, 6, 7, 8, -1, -1, -1, *range(9, tiny.LENGTH)]
    weights = weighed(tokenizer, "bobcat cat", {"cat": 2.0})  # not the end of the first
    assert weights == [1.0] * 7 + [2.0] * 3 + [1.0] * 6
    assert weighed(tokenizer, "a b a", {"a": 3.0})[:6] == [1.0, 3.0, 1.0, 3.0, 1.0, 1.0]
    assert len(tokens_of(tokenizer, "words " * 9)) == tiny.LENGTH


def inverted(count, *, as_one):
    """A pipeline with a textual inversion of three vectors: the word <t>, or the words <w0> to <w2>."""
    pipeline = sharp(stable_diffusion(tiny.ddim()))
    pipeline.tokenizer = copy.deepcopy(pipeline.tokenizer)
    vectors = torch.randn(count, 16, generator=torch.Generator().manual_seed(3))
    with quiet():
        for i in range(1 if as_one else count):
            rows = vectors if as_one else vectors[i : i + 1]
            pipeline.load_textual_inversion(rows, token="<t>" if as_one else f"<w{i}>")
    return us.load(pipeline, size=SIZE)


@pytest.mark.parametrize("kind", ["replace", "refine", "reweight"])
def test_a_textual_inversion_of_several_vectors_is_as_many_words(kind):
    """Reference: a word for each of its vectors. The words after it lay beside where the text encoder has them."""
    one, three = inverted(3, as_one=True), inverted(3, as_one=False)
    assert torch.equal(one.embed(["a red <t> sun"]), three.embed(["a red <w0> <w1> <w2> sun"]))
    editor = PromptToPrompt(kind, words=("sun",), weights=(3.0,), **ALL)
    settings = {"tokenizer": None, "guidance": 3.0}
    noise, added = us.draw_noise(one, 1), "red " if kind == "refine" else ""
    found, expected = (
        edit(model, noise, editor, source=f"a {word} sun", to=[f"a {added}{word} sun"], **settings).images
        for model, word in ((one, "<t>"), (three, "<w0> <w1> <w2>"))
    )
    assert torch.equal(found, expected)


def test_words_beside_and_of_a_textual_inversion():
    tokenizer = inverted(3, as_one=True).conditioner.tokenizer
    prompt = "a <t> sun"  # start a <t> <t>_1 <t>_2 s u n end
    assert len(tokens_of(tokenizer, prompt)) == 9
    assert weighed(tokenizer, prompt, {"sun": 2.0, "<t>": 3.0})[:9] == [1.0, 1.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0]
    assert aligned(tokenizer, prompt, "a red <t> sun")[:12] == [0, 1, -1, -1, -1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(us.UnknownNameError, match="did you mean 'sun'"):
        weighed(tokenizer, prompt, {"suns": 2.0})


def test_the_tokenizer_is_the_pipelines_own_unless_there_is_none():
    model = model_of("SD")
    noise, settings = us.draw_noise(model, 1), {"tokenizer": None}
    assert edit(model, noise, PromptToPrompt(), **settings).images.shape[0] > 1
    bare = replace(model, conditioner=replace(model.conditioner, tokenizer=None))
    with pytest.raises(us.errors.ArgumentError, match=r"give tokenizer=pipeline.tokenizer"):
        edit(bare, noise, PromptToPrompt(), **settings)


# Refused

REFUSED = {
    "unknown word": (PromptToPrompt(words=("dgo",), weights=(2.0,)), {"to": ("a dog",)}, "did you mean 'dog'"),
    "other length": (PromptToPrompt(), {"to": ("a bird",)}, "of 6 and 'a bird' of 7; use .* kind='refine'"),
    "layer": (MasaCtrl(), {}, "from_layer=10: this network has self-attention layers 0..3"),
    "no target": (MasaCtrl(0, 0), {"to": ()}, "a prompt for each target"),
    "noise": (MasaCtrl(0, 0), {"method": Ancestral()}, "adds noise"),
    "two rows": (
        MasaCtrl(0, 0),
        {"source_latents": {1: torch.zeros(2, 4, 8, 12)}},
        "one row, the source's, given 2 at level 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_told_in_one_line(name):
    editor, settings, said = REFUSED[name]
    model = model_of("SD")
    with pytest.raises(us.errors.ArgumentError, match=said) as error:
        edit(model, us.draw_noise(model, 1), editor, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PromptToPrompt("swap"), "unknown kind"),
        (lambda: PromptToPrompt(words=("cat",)), "1 words, 0 weights"),
        (lambda: PromptToPrompt("reweight"), "needs words"),
        (lambda: PromptToPrompt(self_until=1.1), "self_until is a share"),
        (lambda: StyleAligned(share=-0.1), "share is a share"),
        (lambda: MasaCtrl(from_step=-1), "counted from 0"),
    ],
)
def test_options_out_of_range(make, said, untyped):
    with pytest.raises(us.errors.ArgumentError, match=said):
        make()


@pytest.mark.parametrize("shape", [(2, 4, 8, 12), (1, 4, 12, 8), (4, 8, 12)])
def test_latents_of_other_shapes(shape):
    with pytest.raises(us.errors.ArgumentError, match="one source at a time"):
        edit(model_of("SD"), torch.zeros(shape), MasaCtrl(0, 0))
    with pytest.raises(us.errors.DivergenceError):
        edit(model_of("SD"), torch.full((1, 4, 8, 12), math.nan), MasaCtrl(0, 0))


def test_other_networks_are_refused(toy):
    strange = stable_diffusion()
    strange.unet.set_attn_processor(Naively({}, 1.0, 0.0))
    plain = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16,),
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    other = us.load(stable_diffusion())
    other = replace(other, network=replace(other.network, unet=plain))
    for model, said in [
        (toy(), "attention is edited in U-Nets of Stable Diffusion 1, 2 and XL"),
        (us.load(stage_one()), "is one of DeepFloyd IF"),
        (other, "attention is edited in U-Nets"),
        (us.load(strange), "already changed by Naively"),
    ]:
        with pytest.raises(us.errors.ModelError, match=said):
            unet_of(model)


def test_a_moment_follows_the_denoiser():
    model = model_of("SD")
    moment, seen = Moment(STEPS), []
    unet, grid = unet_of(model), model.grid(STEPS)

    class Spy(Plainly):
        def acts(self, layer, moment, cells):
            seen.append((moment.step, moment.is_conditional, cells if not layer.is_cross else None))
            return False

    denoiser = watched(model.denoiser([SOURCE], 3.0), moment)
    with torch.no_grad(), changed_attention(unet, Spy(), moment):
        denoiser(us.draw_noise(model, 1), grid[2])
    assert {one[:2] for one in seen} == {(3, True), (3, False)}
    assert 8 * 12 in {cells for *_, cells in seen}


# Pictures, which are inverted first

INVERTED = {"steps": 4, "start": us.ForwardNoise(steps=1)}
EDITORS = {
    "MasaCtrl": us.MasaCtrl(from_step=1, from_layer=0),
    "StyleAligned": us.StyleAligned(),
    "prompt-to-prompt": us.PromptToPrompt(),
}
ATTENTION = {"source": "a cat", "to": ["a dog", "a cow"], "guidance": 3.0}


@pytest.mark.parametrize(
    ("make", "name"), [*((stable_diffusion, name) for name in EDITORS), (stable_diffusion_xl, "StyleAligned")]
)
def test_a_picture_is_inverted_and_its_states_are_kept(make, name, tmp_path):
    """Reference: `invert` with its states kept, and `edit_attention` of that, by the Model of that size."""
    pipe, told = sharp(make(sample_size=16)), {"editor": EDITORS[name], **ATTENTION}
    model, images = us.load(pipe, size=(16, 32)), us.load_images([photograph(tmp_path / "a.png")], size=(16, 32))
    there = us.invert(model, images, condition="a cat", keep=us.Keep("states"), seed=2, **INVERTED)
    wanted = us.edit_attention(model, there, source_latents=there.states, **told)
    before = dict(pipe.unet.attn_processors)
    found = us.edit_attention(pipe, tmp_path / "a.png", seed=2, **told, **INVERTED)
    assert torch.equal(found.images, wanted.images)
    assert found.nfe == wanted.nfe + there.nfe
    assert pipe.unet.attn_processors == before
    free = us.edit_attention(pipe, picture(), seed=2, source_latents={}, **told, **INVERTED)
    assert torch.equal(free.images, us.edit_attention(model, there, **told).images)
    far(free.source, found.source)
    again = us.edit_attention(pipe, there.latent, steps=4, source_latents=there.states, **told)
    assert torch.equal(again.images, wanted.images)
    assert again.nfe == wanted.nfe


def test_the_source_comes_back_whatever_the_guidance(pipe):
    """Reference: the picture through the codec; from the picture itself its states end there."""
    told = {**ATTENTION, "editor": us.MasaCtrl(from_layer=0), "guidance": 7.5, "steps": 4, "start": us.FromImage()}
    found = us.edit_attention(pipe, picture(), **told)
    codec = us.edit(pipe, picture(), to="a dog", strength=0, **INVERTED).images
    close(found.source, codec)
    far(us.edit_attention(pipe, picture(), source_latents={}, **told).source, codec)


def test_the_guide_runs_as_printed_and_both_its_ways_are_the_same(tmp_path, monkeypatch):
    """Reference: one block of docs/attention.md for the other; a small network has no layer 10."""
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path / "cat.jpg")
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    found, names = [], {"pipe": stable_diffusion(**QUICK)}
    for block in blocks:
        exec(compile(block.replace("MasaCtrl()", "MasaCtrl(from_layer=0)"), GUIDE, "exec"), names)
        found.append(names["done"])
    assert torch.equal(found[0].images, found[1].images)
    assert found[0].nfe == found[1].nfe + names["there"].nfe


def test_a_mask_holds_the_targets_on_the_picture(pipe):
    """Reference: where the mask is false everywhere, and every state known, the targets are the source."""
    told = {**ATTENTION, "editor": us.MasaCtrl(from_layer=0), "steps": 4, "start": us.FromImage()}
    with pytest.warns(UserWarning, match="lets nothing change"):
        found = us.edit_attention(pipe, picture(), mask=torch.zeros(1, 8, 16, dtype=torch.bool), **told)
    close(found.targets, found.source.expand_as(found.targets))
    far(us.edit_attention(pipe, picture(), mask=torch.ones(1, 8, 16, dtype=torch.bool), **told).targets, found.targets)


def test_progress_counts_both_ways(pipe):
    seen = []
    told = {**ATTENTION, "editor": us.MasaCtrl(from_layer=0)}
    us.edit_attention(pipe, picture(), on_step=lambda *step: seen.append(step), **told, **INVERTED)
    total = 3 + 3 * 4  # one picture up from level 1 of 4, three rows down from level 4
    assert seen == [(done, total) for done in (1, 2, 3, 6, 9, 12, 15)]


@pytest.mark.parametrize(
    ("latent", "settings", "kind", "says"),
    [
        ([picture(), picture()], {}, us.ArgumentError, "expected one picture, the source, given 2: edit one source at a time"),
        (picture(), {"to": []}, us.ArgumentError, "a prompt for each target, given none"),
        (picture(), {"editor": us.MasaCtrl(from_layer=99)}, us.ArgumentError, "self-attention layers 0.."),
        (picture(), {"to": ["a large dog"], "editor": us.PromptToPrompt()}, us.ArgumentError, "refine"),
        (picture(), {"inversion": us.parse_method("edit-friendly")}, us.ArgumentError, "passes no states on a way up"),
        (picture(), {"size": (9, 9)}, us.ArgumentError, "multiples of"),
        ("missing.png", {}, us.ImageError, "no such picture"),
    ],
)
def test_what_cannot_be_edited_is_refused_before_any_work(pipe, monkeypatch, latent, settings, kind, says):
    monkeypatch.setattr("unsample.uses.attention.edit.invert_first", None)
    with pytest.raises(kind, match=says) as caught:
        us.edit_attention(pipe, latent, **{"editor": us.MasaCtrl(from_layer=0), **ATTENTION, **INVERTED, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["FLUX dev", "DiT"])
def test_a_family_without_such_attention_is_refused_before_any_work(monkeypatch, name):
    make, _, _ = FAMILIES[name]
    monkeypatch.setattr("unsample.uses.attention.edit.invert_first", None)
    with pytest.raises(us.ModelError) as caught:
        us.edit_attention(make(), picture(), editor=us.StyleAligned(), **ATTENTION, **INVERTED)
    assert "\n" not in str(caught.value)


def test_a_picture_is_encoded_once(counted):
    model, calls = counted
    us.edit_attention(model, picture(32, 32), editor=us.MasaCtrl(from_layer=0), **ATTENTION, **INVERTED)
    assert calls == [1]
