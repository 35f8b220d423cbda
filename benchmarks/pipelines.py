"""What inverting with the networks of SD 1.5, SDXL and DiT-XL/2 costs beyond the network: full size, random weights, bfloat16.

    python benchmarks/pipelines.py [--networks sd-1.5 sdxl dit-xl-2] [--steps 50] [--batches 1 8] [--compile] [--out FILE.json]
    python benchmarks/pipelines.py --toy                 # a few layers of each, on any machine: does it run?

Random weights cost what trained ones do. The floor is NFE bare calls, timed in the same round; the peer is the loop everybody
writes with diffusers' inverse scheduler. Medians over rounds of alternating order [range]; peak memory above the weights.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMInverseScheduler, DiTTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

import unsample as us

SCHEDULE = us.Schedule.from_betas(us.Schedule.scaled_linear_betas())


@dataclass(frozen=True)
class Case:
    """A network as published, and what it is told besides state and time.

    `toy` are the changes that make it small enough to try.
    """

    make: Callable[..., nn.Module]
    config: Mapping[str, Any]
    toy: Mapping[str, Any]
    shape: tuple[int, int, int]
    told: Callable[[int, Mapping[str, Any]], dict[str, Any]]
    parameters: int


def _tokens(batch: int, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"encoder_hidden_states": torch.randn(batch, 77, config["cross_attention_dim"])}


def _tokens_and_size(batch: int, config: Mapping[str, Any]) -> dict[str, Any]:
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    size = torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]]).repeat(batch, 1)
    return {**_tokens(batch, config), "added_cond_kwargs": {"text_embeds": torch.randn(batch, pooled), "time_ids": size}}


def _classes(batch: int, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_labels": torch.arange(batch) % config["num_embeds_ada_norm"]}


CASES = {
    "sd-1.5": Case(
        UNet2DConditionModel,
        {"sample_size": 64, "cross_attention_dim": 768},
        {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 32},
        (4, 64, 64),
        _tokens,
        859_520_964,
    ),
    "sdxl": Case(
        UNet2DConditionModel,
        {
            "sample_size": 128,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        {"block_out_channels": (32, 32, 64), "transformer_layers_per_block": 1, "attention_head_dim": (2, 2, 4)},
        (4, 128, 128),
        _tokens_and_size,
        2_567_463_684,
    ),
    "dit-xl-2": Case(
        DiTTransformer2DModel,
        {
            "sample_size": 32,
            "num_attention_heads": 16,
            "attention_head_dim": 72,
            "num_layers": 28,
            "out_channels": 8,
            "num_embeds_ada_norm": 1000,
        },
        {"num_layers": 2, "num_attention_heads": 2},
        (4, 32, 32),
        _classes,
        749_826_464,  # 675 M as published, and an embedding of time and class for each block, as diffusers keeps them
    ),
}


@dataclass(frozen=True)
class Network:
    """One of the cases as a network of `unsample`: a learned variance is dropped."""

    module: Callable[..., Any]
    dtype: torch.dtype

    def __call__(self, x: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Raw prediction of `x`'s shape and dtype."""
        output: Tensor = self.module(x.to(self.dtype), timestep=t, return_dict=False, **condition)[0]
        return output[:, : x.shape[1]].to(x.dtype)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak(work: Callable[[], object], device: torch.device) -> float | None:
    """MiB of the device above what was there before; None on a CPU, whose allocator does not tell."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def moved(told: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(told, Mapping):
        return {name: moved(value, device, dtype) for name, value in told.items()}
    return told.to(device, dtype if told.is_floating_point() else None)


@torch.no_grad()
def measure(name: str, module: nn.Module, batch: int, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    case, dtype = CASES[name], torch.bfloat16
    called = torch.compile(module) if given.compile else module
    config = {**case.config, **(case.toy if given.toy else {})}
    told = moved(case.told(batch, config), device, dtype)
    shape = (4, 16, 16) if given.toy and case.make is UNet2DConditionModel else case.shape
    model = us.Model(Network(called, dtype), SCHEDULE, shape, conditioner=lambda _conditions, _device: told, device=device)
    x = us.draw_noise(model, batch)
    t = torch.full((batch,), 500, device=device)
    scheduler = DDIMInverseScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)

    def floor() -> None:
        for _ in range(given.steps):
            called(x.to(dtype), timestep=t, return_dict=False, **told)

    def peer() -> None:
        state = x.to(dtype)
        scheduler.set_timesteps(given.steps, device=device)
        for at in scheduler.timesteps:
            output = called(state, timestep=at.expand(batch), return_dict=False, **told)[0][:, :4]
            state = scheduler.step(output, at, state).prev_sample

    def ours() -> None:
        us.invert(model, x, steps=given.steps, method=us.DDIM(), start=us.FromImage())

    contenders = {"floor": floor, "unsample.invert": ours, "diffusers' inverse loop": peer}
    for work in contenders.values():  # compiles, and fills the caches of kernels
        work()
    taken: dict[str, list[float]] = {label: [] for label in contenders}
    for round_ in range(given.repeats):
        for label in list(contenders) if round_ % 2 == 0 else list(reversed(contenders)):
            taken[label].append(seconds(contenders[label], device))
    row: dict[str, Any] = {"network": name, "batch": batch, "mode": "compiled" if given.compile else "eager"}
    row["evaluation_ms"] = 1e3 * statistics.median(taken["floor"]) / given.steps
    for label in list(contenders)[1:]:
        values = [a / b for a, b in zip(taken[label], taken["floor"], strict=True)]
        row[label] = (statistics.median(values), min(values), max(values))
        row[f"{label}: peak MiB"] = peak(contenders[label], device)
    return row


def show(row: Mapping[str, Any]) -> None:
    head = f"{row['network']:9s} batch {row['batch']:2d} {row['mode']:8s} {row['evaluation_ms']:8.2f} ms an evaluation"
    for label in ("unsample.invert", "diffusers' inverse loop"):
        middle, least, most = row[label]
        memory = row[f"{label}: peak MiB"]
        head += f"   {label} / floor {middle:.3f} [{least:.3f}, {most:.3f}]"
        head += "" if memory is None else f" +{memory:.0f} MiB"
    print(head, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    diffusers.utils.logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not given.toy:
        print("no CUDA device: on a CPU an evaluation of these takes seconds; try fewer --steps, or --toy", flush=True)
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    print(f"torch {torch.__version__}, {where}, {given.steps} steps, bfloat16, median of {given.repeats} rounds [range]")
    rows = []
    for name in given.networks:
        case = CASES[name]
        with torch.device(device):
            torch.manual_seed(0)
            module = case.make(**{**case.config, **(case.toy if given.toy else {})}).to(torch.bfloat16).eval()
        module.requires_grad_(False)
        assert given.toy or sum(p.numel() for p in module.parameters()) == case.parameters, f"{name} is not as published"
        for batch in given.batches:
            rows.append(measure(name, module, batch, given, device))
            show(rows[-1])
        del module
    if given.out:
        given.out.write_text(
            json.dumps({"torch": torch.__version__, "device": where, "steps": given.steps, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
