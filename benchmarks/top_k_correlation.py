"""Top-k correlation beside the straightforward loop over patches (numpy.corrcoef and a sort): time and peak memory.

    PYTHONPATH=src python benchmarks/top_k_correlation.py [images] [channels] [side]

Each runs in a process of its own: the best of three times, and the peak memory above that of the process with its data made.
On a machine at work on other things set OMP_NUM_THREADS=1, or waiting threads are what is measured.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from unsample.diagnostics import top_k_correlation, top_k_jackknife, true_noise


def loop(x: torch.Tensor, k: int = 20, patch: int = 8) -> float:
    data = x.double().numpy()
    upper = np.triu_indices(data.shape[1] * patch**2, 1)
    values = []
    for i in range(0, data.shape[2], patch):
        for j in range(0, data.shape[3], patch):
            window = data[:, :, i : i + patch, j : j + patch].reshape(len(data), -1)
            r = np.abs(np.corrcoef(window, rowvar=False)[upper])
            values.append(np.sort(r)[-k:].mean())
    return float(np.mean(values))


def jackknife(x: torch.Tensor) -> float:
    return top_k_jackknife(x).value


WAYS: dict[str, Callable[[torch.Tensor], float]] = {
    "loop over patches": loop,
    "top_k_correlation": top_k_correlation,
    "top_k_jackknife": jackknife,
}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(way: str, shape: tuple[int, ...]) -> None:
    x = true_noise(shape)
    WAYS[way](x[:64, :, :8, :8])
    before, seconds = peak_mib(), []
    for _ in range(3):
        start = time.perf_counter()
        value = WAYS[way](x)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"value": value, "seconds": min(seconds), "mib": peak_mib() - before}))


def main(images: int = 2048, channels: int = 3, side: int = 32) -> None:
    print(f"{images} images of {channels} x {side} x {side}, {torch.get_num_threads()} threads")
    baseline = 0.0
    for way in WAYS:
        run = [sys.executable, __file__, "measure", way, *map(str, (images, channels, side, side))]
        found = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
        baseline = baseline or found["seconds"]
        ratio = baseline / found["seconds"]
        print(f"{way:20} {found['value']:.6f}  {found['seconds']:7.2f} s  {ratio:5.1f} x  +{found['mib']:6.0f} MiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2], tuple(map(int, sys.argv[3:])))
    else:
        main(*map(int, sys.argv[1:]))
