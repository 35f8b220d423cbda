"""What `invert` costs beyond the network: wall time over NFE x the bare call, against a plain diffusers loop, and memory.

    python benchmarks/invert_overhead.py [--steps 50] [--repeats 5]

Each ratio is taken within one round, the order of its parts alternating, and the median over rounds is printed with its range,
so that a machine whose speed drifts does not decide. Peak memory is that of a fresh process per number of images.
"""

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

import unsample as us
from unsample.uses.sample import draw_noise


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@torch.no_grad()
def bare(model: us.Model, x: torch.Tensor, steps: int) -> None:
    unet = model.network.unet  # type: ignore[attr-defined]
    t, labels = torch.zeros(len(x), dtype=torch.long), torch.full((len(x),), 200)
    for _ in range(steps):
        unet(x, t, class_labels=labels, return_dict=False)


@torch.no_grad()
def diffusers_loop(
    model: us.Model, x: torch.Tensor, scheduler: DDIMScheduler | DDIMInverseScheduler, steps: int
) -> torch.Tensor:
    unet, labels = model.network.unet, torch.full((len(x),), 200)  # type: ignore[attr-defined]
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t, class_labels=labels).sample, t, x).prev_sample
    return x


def ratios(batch: int, steps: int, repeats: int) -> None:
    model = us.load()
    config = {"beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    up, down = DDIMInverseScheduler(**config), DDIMScheduler(**config)
    x = draw_noise(model, batch)
    contenders: dict[str, Callable[[], object]] = {
        "floor": lambda: bare(model, x, steps),
        "unsample invert": lambda: us.invert(model, x, steps=steps, start=us.FromImage()),
        "diffusers inverse loop": lambda: diffusers_loop(model, x, up, steps),
        "unsample sample": lambda: us.sample(model, x, steps=steps),
        "diffusers sampling loop": lambda: diffusers_loop(model, x, down, steps),
    }
    bare(model, x, 3)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(repeats):
        names = list(contenders) if round_ % 2 == 0 else list(reversed(contenders))
        for name in names:
            taken[name].append(seconds(contenders[name]))
    for name in list(contenders)[1:]:
        values = [a / b for a, b in zip(taken[name], taken["floor"], strict=True)]
        print(f"batch {batch:3d}  {name:24s} / floor  {statistics.median(values):.3f}  [{min(values):.3f}, {max(values):.3f}]")


def peak(images: int) -> None:
    """Peak resident memory of one inversion in batches of 16, in MiB."""
    model = us.load()
    us.invert(model, draw_noise(model, images), steps=2, batch_size=16)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", type=int)
    given = parser.parse_args()
    if given.peak:
        peak(given.peak)
        return
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {given.steps} steps, median of {given.repeats} rounds [range]")
    for batch in (1, 16):
        ratios(batch, given.steps, given.repeats)
    for images in (16, 128, 1024):
        done = subprocess.run([sys.executable, __file__, "--peak", str(images)], capture_output=True, text=True, check=True)
        print(f"{images:5d} images of 3x32x32 in batches of 16: peak memory {done.stdout.strip()} MiB")


if __name__ == "__main__":
    main()
