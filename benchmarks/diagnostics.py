"""The diagnostics beside straightforward loops that compute the same numbers: time and peak memory.

    python benchmarks/diagnostics.py [--count 4096] [--side 32]

Each runs in a process of its own: the least processor time of three runs, which other work on the machine hardly changes, and
the peak memory above that of the process with its data made. Processor time adds up over threads: for a fair ratio set
OMP_NUM_THREADS=1. A loop that would take minutes does its first items only, and its time is scaled up by the share that the
table states. Before that, all are compared on a few items. Loops are in float32, as such loops usually are, but for the
correlation; the geometry here is in float64.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from unsample.diagnostics import top_k_correlation, top_k_jackknife, true_noise
from unsample.diagnostics.assignment import nearest
from unsample.diagnostics.geometry import line_distances, triangle

DIVISION = 1024
SHARE = 16


def data(count: int, side: int) -> list[torch.Tensor]:
    """Images, their noise, and latents between noise and image, made bit by bit so that making them sets no peak of memory."""
    images, noise, latent = (torch.empty(count, 3, side, side) for _ in range(3))
    for start in range(0, count, 64):
        part = slice(start, min(start + 64, count))
        noise[part] = true_noise(noise[part].shape, draw=start)
        images[part] = 0.1 * noise[part] + 0.4 * true_noise(noise[part].shape, draw=start, seed=1)
        latent[part] = 0.8 * noise[part] + 0.3 * images[part] + 0.5 * true_noise(noise[part].shape, draw=start, seed=2)
    return [images, noise, latent]


def divisions(count: int) -> list[slice]:
    return [slice(start, min(start + DIVISION, count)) for start in range(0, count, DIVISION)]


def correlation_loop(images: torch.Tensor, noise: torch.Tensor, latent: torch.Tensor, share: int) -> torch.Tensor:
    """Patch by patch."""
    values = []
    for i in range(0, latent.shape[2], 8):
        for j in range(0, latent.shape[3], 8):
            r = torch.corrcoef(latent[:, :, i : i + 8, j : j + 8].flatten(1).double().T)
            upper = torch.triu_indices(len(r), len(r), 1)
            values.append(r[upper[0], upper[1]].abs().sort().values[-20:].mean())
    return torch.stack(values).mean()


def assignment(images: torch.Tensor, noise: torch.Tensor, latent: torch.Tensor, share: int) -> torch.Tensor:
    pairs = [(noise[part], images[part]) for part in divisions(len(noise))]
    return torch.stack([torch.cat([nearest(n, x) for n, x in pairs]), torch.cat([nearest(x, n) for n, x in pairs])])


def assignment_loop(images: torch.Tensor, noise: torch.Tensor, latent: torch.Tensor, share: int) -> torch.Tensor:
    """Item by item, each against all of its division."""
    found = []
    for a, b in ((noise, images), (images, noise)):
        for part in divisions(len(a)):
            for item in a[part][: math.ceil((part.stop - part.start) / share)]:
                found.append(int((b[part] - item).square().sum(dim=(1, 2, 3)).argmin()))
    return torch.tensor(found).reshape(2, -1)


def line_loop(images: torch.Tensor, noise: torch.Tensor, latent: torch.Tensor, share: int) -> torch.Tensor:
    """Item by item and point by point."""
    rows = []
    for x, n, z in zip(images, noise, latent, strict=True):
        rows.append([(x - (n + a * (z - n))).norm().item() for a in torch.linspace(0, 1, 25).tolist()])
    return torch.tensor(rows)


def angle(u: torch.Tensor, v: torch.Tensor) -> float:
    return torch.rad2deg(torch.acos((torch.dot(u, v) / (u.norm() * v.norm())).clamp(-1, 1))).item()


def triangle_loop(images: torch.Tensor, noise: torch.Tensor, latent: torch.Tensor, share: int) -> torch.Tensor:
    """Item by item: the arc cosine at each vertex."""
    rows = []
    for x, n, z in zip(images.flatten(1), noise.flatten(1), latent.flatten(1), strict=True):
        rows.append([angle(n - x, z - x), angle(x - n, z - n), angle(x - z, n - z)])
    return torch.tensor(rows)


Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Contest:
    """A diagnostic, a loop that computes the same, and the share of its items that the loop does: 1 in `share`."""

    ours: Way
    loop: Way
    share: int = 1


def top_k(images: torch.Tensor, noise: torch.Tensor, latent: torch.Tensor, share: int) -> torch.Tensor:
    return torch.tensor(top_k_correlation(latent))


def jackknife(images: torch.Tensor, noise: torch.Tensor, latent: torch.Tensor, share: int) -> torch.Tensor:
    return torch.tensor(top_k_jackknife(latent).value)


CONTESTS = {
    "top-20 correlation": Contest(top_k, correlation_loop),
    "top-20 correlation with a jackknife error": Contest(jackknife, correlation_loop),
    f"nearest neighbours both ways, divisions of {DIVISION}": Contest(assignment, assignment_loop, SHARE),
    "distances to 25 points of the line": Contest(lambda x, n, z, _: line_distances(x, n, z), line_loop),
    "angles of the triangle, with its sides": Contest(lambda x, n, z, _: triangle(x, n, z).angles, triangle_loop),
}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check() -> None:
    few = data(64, 16)
    for name, contest in CONTESTS.items():
        ours, loop = (way(*few, 1).double() for way in (contest.ours, contest.loop))
        if not torch.allclose(ours, loop, rtol=1e-4):
            raise SystemExit(f"{name}: expected what the loop finds; they differ by up to {(ours - loop).abs().max():.3g}")


def measure(name: str, way: str, count: int, side: int) -> None:
    points, contest = data(count, side), CONTESTS[name]
    work, share = (contest.ours, 1) if way == "ours" else (contest.loop, contest.share)
    work(*(t[:64, :, :8, :8] for t in points), share)
    before, seconds = peak_mib(), []
    for _ in range(3):
        start = time.process_time()
        work(*points, share)
        seconds.append(time.process_time() - start)
    print(json.dumps({"seconds": min(seconds) * share, "mib": peak_mib() - before}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--measure", nargs=2)
    given = parser.parse_args()
    if given.measure:
        measure(*given.measure, given.count, given.side)
        return
    check()
    threads = torch.get_num_threads()
    print(f"{given.count} items of 3x{given.side}x{given.side} in float32, torch {torch.__version__}, {threads} thread(s)\n")
    print("| what | a loop | here | times faster | memory of the loop | here |\n|---|---|---|---|---|---|")
    for name, contest in CONTESTS.items():
        found = {}
        for way in ("loop", "ours"):
            run = [sys.executable, __file__, "--count", str(given.count), "--side", str(given.side), "--measure", name, way]
            found[way] = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout)
        loop, ours = found["loop"], found["ours"]
        note = f" (1 in {contest.share} done)" if contest.share > 1 else ""
        print(
            f"| {name} | {loop['seconds']:.2f} s{note} | {ours['seconds']:.2f} s | {loop['seconds'] / ours['seconds']:.1f} | "
            f"+{loop['mib']:.0f} MiB | +{ours['mib']:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
