"""What `unsample dataset invert` costs besides the network, and how much memory it takes.

    OMP_NUM_THREADS=1 python benchmarks/dataset.py                       # engines over the network alone
    python benchmarks/dataset.py --peak 1000,10000,100000 SOURCE... --size 16x16 --steps 2 --batch-size 256

The floor is the network called as often, at the same batch, by nothing but a loop, before and after each engine's turn. An
engine's time a picture is that from its first report, when all is under way, to its last; start-up, and the end of a Ray that
was started, stand apart: the whole command for one batch, less the floor of that batch. Ray has one worker. Peak memory is
that of a fresh process for each number of images.
"""

import argparse
import gc
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import unsample as us
from unsample.cli.model_options import size_of
from unsample.dataset import tasks
from unsample.runs.loading import Loading
from unsample.runs.manifest import Origin

MODEL = "tiny-imagenet-32-v"
UNSAMPLE = ("-m", "unsample", "dataset", "invert")
COMMANDS = {
    "local": UNSAMPLE,
    "torchrun": ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", *UNSAMPLE, "--engine", "torchrun"),
    "ray": (*UNSAMPLE, "--engine", "ray", "--workers", "1"),
}


TOGETHER = 0.01
"""Seconds in which Ray reports the shards of one task."""


def write_source(path: Path, count: int) -> Path:
    """A parquet file of pictures of 64x64 pixels as Tiny-ImageNet has them."""
    import pyarrow
    from pyarrow import parquet

    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=90)
        files.append({"bytes": buffer.getvalue(), "path": None})
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    parquet.write_table(pyarrow.table({"image": pyarrow.array(files, kind)}), path, row_group_size=1000)
    return path


@torch.no_grad()
def floor(model: us.Model, batch: int, images: int, evaluations: int) -> float:
    """Seconds a picture of the network alone."""
    unet, x = model.network.unet, torch.randn(batch, 3, *model.image_size)  # type: ignore[attr-defined]
    t, labels = torch.zeros(batch, dtype=torch.long), torch.full((batch,), 200)
    gc.collect()
    began = time.perf_counter()
    for _ in range(max(1, images // batch) * evaluations):
        unet(x, t, class_labels=labels, return_dict=False)
    return (time.perf_counter() - began) / (max(1, images // batch) * batch)


def engine_seconds(engine: str, source: Path, given: argparse.Namespace) -> float:
    """Seconds a picture of an engine, from its first report to its last."""
    reports: list[tuple[float, int]] = []

    def on_images(done: int, _total: int) -> None:
        if done:
            reports.append((time.perf_counter(), done))

    started_by = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"} if engine == "torchrun" else {}
    os.environ |= started_by  # as torchrun tells the process that it starts
    settings: dict[str, Any] = {"engine": engine, "workers": 1 if engine == "ray" else None, "shard": given.shard}
    settings |= {"steps": given.steps, "batch_size": given.batch_size}
    loading = Loading(Origin(source=MODEL, size=size_of(given.size)), "cpu")
    gc.collect()
    with tempfile.TemporaryDirectory() as out:
        status = tasks.invert("", source, out, loading=loading, on_images=on_images, **settings)
    for name in started_by:
        del os.environ[name]
    began, ended = reports[0][0], reports[-1][0]
    done = max(done for when, done in reports if when < began + TOGETHER)
    return (ended - began) / (status.rows - done)


def overheads(given: argparse.Namespace) -> None:
    """Each engine over the network alone, and start-up."""
    model = us.load(MODEL, size=size_of(given.size), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        source = write_source(Path(folder) / "train.parquet", given.images)
        evaluations = us.invert(model, torch.zeros(1, 3, *model.image_size), steps=given.steps).nfe
        size = "x".join(map(str, model.image_size))
        print(
            f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.images} pictures of {size}, {evaluations} "
            f"evaluations each, batch {given.batch_size}, shards of {given.shard}, median of {given.repeats} rounds [range]"
        )
        per_image = floor(model, given.batch_size, given.images // 4, evaluations)
        taken: dict[str, list[float]] = {name: [] for name in given.engines}
        for round_ in range(given.repeats):
            for name in given.engines if round_ % 2 == 0 else reversed(given.engines):
                before = floor(model, given.batch_size, given.images // 2, evaluations)
                seconds = engine_seconds(name, source, given)
                per_image = (before + floor(model, given.batch_size, given.images // 2, evaluations)) / 2
                taken[name].append(seconds / per_image)
        for name, values in taken.items():
            spread = f"[{min(values):.3f}, {max(values):.3f}]"
            start = started(COMMANDS[name], source, given) - per_image * given.batch_size
            print(f"{name:9s} / floor  {statistics.median(values):.3f}  {spread}   start-up {start:.1f} s")


def started(command: tuple[str, ...], source: Path, given: argparse.Namespace) -> float:
    """Seconds of the whole command for one batch."""
    with tempfile.TemporaryDirectory() as out:
        options = ["--out", out, "--limit", given.batch_size, "--steps", given.steps, "--batch-size", given.batch_size]
        options += ["--size", given.size] if given.size else []
        return wall([sys.executable, *command, str(source), *map(str, options)])


def wall(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def peak(images: int, given: argparse.Namespace) -> None:
    """One row: a fresh process with so many images."""
    settings: dict[str, Any] = {"steps": given.steps, "batch_size": given.batch_size, "shard": given.shard}
    with tempfile.TemporaryDirectory() as out:
        loading = Loading(Origin(source=MODEL, size=size_of(given.size)), "cpu")
        began = time.perf_counter()
        status = tasks.invert("", given.source, out, loading=loading, limit=images, latents=given.latents, **settings)
        seconds = time.perf_counter() - began
        sums = sum(line.sizes["sums"] for line in status.lines.values())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {status.rows:,} | {seconds:.0f} s | {status.rows / seconds:.0f} | {memory:.0f} MiB "
        f"| {status.bytes / status.rows:.0f} | {sums / status.rows:.0f} |",
        flush=True,
    )


def peaks(counts: str, given: argparse.Namespace) -> None:
    """A row for each number of images."""
    print(
        "| pictures | time | pictures a second | peak memory | bytes a row | bytes of sums a row |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for count in counts.split(","):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", count], check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", nargs="*", help="for --peak; else pictures are made")
    parser.add_argument("--engines", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--size")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--shard", type=int, default=128)
    parser.add_argument("--latents", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", metavar="COUNTS", help="peak memory at these numbers of images")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        peak(given.one, given)
    elif given.peak:
        peaks(given.peak, given)
    else:
        overheads(given)


if __name__ == "__main__":
    main()
