"""Small sets in the layout of PIE-Bench, and benchmarks on them, shared by the tests of editing benchmarks."""

from __future__ import annotations

import json

import pytest
import torch

from unsample.pictures.read import png_bytes
from unsample.runs.directory import Run
from unsample.studies import pie_bench
from unsample.studies.pie_bench.metrics import eight_bit

KEYS = [f"{i:012d}" for i in range(5)]


def pictures(count, side=16, seed=0):
    """8-bit pictures in [-1, 1]."""
    return eight_bit(torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(seed)) * 2 - 1)


def write_parquet(path, images, **columns):
    """A parquet file of pictures in the Hugging Face layout."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"image": [{"bytes": png_bytes(x), "path": None} for x in images], **columns}), path)
    return path


def change(folder, index, **fields):
    """Change fields of an entry by its index."""
    path = folder / "mapping_file.json"
    mapping = json.loads(path.read_text())
    mapping[KEYS[index]] |= fields
    path.write_text(json.dumps(mapping))


def bench_of(model, folder, *candidates, limit=None, **fields):
    fields = {"batch_size": 2, "networks": False} | fields
    return pie_bench.Benchmark(model, pie_bench.editable(model, folder, limit), candidates, **fields)


def result_of(bench, place):
    """Scores and costs of a benchmark, run or resumed in a folder."""
    run = Run.open(place, "edit-benchmark", bench.settings, bench.editable.items)
    return pie_bench.benchmarked(bench, run, lambda *given: None)


def scores_of(place):
    return json.loads((place / "scores.json").read_text())


def refusal(done):
    """The one line that a command was refused with."""
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
    return done.err


def check_resumed(unsample, arguments, place, monkeypatch, owner, name, *, stop_at, calls_in_all):
    """A run interrupted in a call of `owner.name` and resumed has every number and picture of one that was not."""
    assert unsample(*arguments, place / "whole").code == 0
    real, calls = getattr(owner, name), []

    def interrupted(*given, **named):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(owner, name, interrupted)
    assert [unsample(*arguments, place / "run").code for _ in range(2)] == [130, 0]
    assert len(calls) == calls_in_all
    assert scores_of(place / "whole") | {"cost": 0} == scores_of(place / "run") | {"cost": 0}
    files = list((place / "whole").rglob("edits/**/*.png"))
    assert files
    for file in files:
        assert file.read_bytes() == (place / "run" / file.relative_to(place / "whole")).read_bytes()
    monkeypatch.setattr(owner, name, None)  # a complete run does no work


def check_divergence(bench, place, monkeypatch, owner, name, is_bad, row, tolerance):
    """If the edit of the second entry diverges, the others have the numbers of the run in which none does."""
    whole, _ = result_of(bench, place / "whole")
    real = getattr(owner, name)

    def diverging(*given, **named):
        if is_bad(*given, **named):
            raise pie_bench.benchmark.DivergenceError("left the finite numbers")
        return real(*given, **named)

    monkeypatch.setattr(owner, name, diverging)
    found, _ = result_of(bench, place / "run")
    (failure,) = found.failed
    assert (failure.key, failure.row) == (KEYS[1], row)
    assert "finite" in failure.reason
    kept = {key: value for key, value in whole.values[row]["MSE"].items() if key != KEYS[1]}
    assert found.values[row]["MSE"] == pytest.approx(kept, rel=tolerance)
    assert found.values["source, unedited"]["MSE"].keys() == whole.values["source, unedited"]["MSE"].keys()
