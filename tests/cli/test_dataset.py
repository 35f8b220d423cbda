"""`unsample dataset`: what the four commands print, and what they refuse in one line, most of it before a model is loaded."""

from __future__ import annotations

import importlib.util
import json

import pytest
from PIL import Image

from unsample import models

from ..dataset.conftest import COUNT, picture, write_parquet
from .conftest import one_line

SMALL = ("--model", "tiny-imagenet-32-v", "--size", "8x8", "--device", "cpu", "--steps", 2, "--shard", 4, "--batch-size", 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eleven pictures, of which two cannot be read."""
    path = tmp_path_factory.mktemp("files") / "train.parquet"
    pictures = [picture(i) for i in range(COUNT)]
    pictures[3], pictures[7] = b"no picture", pictures[7][:90]
    return write_parquet(path, pictures, label=list(range(COUNT)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_parquet(tmp_path_factory.mktemp("whole") / "train.parquet", [picture(i) for i in range(6)])


@pytest.fixture(scope="module")
def out(whole, tmp_path_factory):
    """A dataset that is complete."""
    from unsample import cli

    place = tmp_path_factory.mktemp("out") / "noise"
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, ("dataset", "invert", whole, "--out", place, *SMALL))))
    assert stop.value.code == 0
    return place


@pytest.fixture
def without_a_model(monkeypatch):
    """A model that would be loaded ends the test."""
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("a model was loaded"))


def test_invert_says_what_is_done_where_it_is_and_what_comes_next(unsample, whole, tmp_path):
    done = unsample("dataset", "invert", whole, "--out", tmp_path / "new", *SMALL)
    assert (done.code, done.out) == (0, f"6 of 6 pictures done, 2 of 2 shards\n{tmp_path / 'new'}\n")
    assert done.err.strip().splitlines()[-1] == f"next: unsample dataset diagnose {tmp_path / 'new'}"


def test_pictures_left_out_are_counted_in_the_last_line_and_in_the_exit_code(unsample, files, tmp_path):
    for _ in range(2):  # the second time nothing is left to be made
        done = unsample("dataset", "invert", files, "--out", tmp_path, *SMALL)
        assert done.code == 1
        assert "11 of 11 pictures done, 3 of 3 shards; 2 pictures left out" in done.out
        assert done.err.strip().splitlines()[-1].startswith("unsample: 2 of 11 pictures left out, the rest is done: see")
    shown = unsample("dataset", "status", tmp_path)
    assert shown.code == 0
    assert [line.split(":")[1] for line in shown.out.splitlines()[1:]] == [f" cannot read train-0000{i}" for i in (3, 7)]
    there = json.loads(unsample("dataset", "status", tmp_path, "--json").out)
    assert [each["id"] for each in there["rejected_rows"]] == ["train-00003", "train-00007"]
    assert all(each["reason"] for each in there["rejected_rows"])


def test_strict_stops_at_the_first_picture(unsample, files, tmp_path):
    done = unsample("dataset", "invert", files, "--out", tmp_path, *SMALL, "--strict")
    assert "train-00003" in one_line(done)


def test_status_of_a_dataset_that_is_not_complete(unsample, out, whole, tmp_path):
    place = tmp_path / "cut"
    place.mkdir()
    for path in out.rglob("*"):
        if path.is_file():
            (place / path.relative_to(out)).parent.mkdir(exist_ok=True)
            (place / path.relative_to(out)).write_bytes(path.read_bytes())
    (place / "data" / "shard-000001.parquet").unlink()
    shown = unsample("dataset", "status", place)
    assert "4 of 6 pictures done, 1 of 2 shards (1 damaged)" in shown.out
    assert "pictures a second" in shown.out
    assert "missing: shard 1\ndamaged: shard 1\nto go on, give the command that made it again\n" in shown.out
    there = json.loads(unsample("dataset", "status", place, "--json").out)
    assert there["shards"] == {"all": 2, "done": 1, "missing": [1], "damaged": [1]}
    assert there["seconds_left"] is not None
    assert "is not complete" in one_line(unsample("dataset", "sample", place))
    again = unsample("dataset", "invert", whole, "--out", place, *SMALL)
    assert (again.code, again.out.splitlines()[0]) == (0, "6 of 6 pictures done, 2 of 2 shards")


def test_json_is_one_document(unsample, whole, out, tmp_path):
    for arguments in (
        ("invert", whole, "--out", tmp_path / "new", *SMALL),
        ("status", out),
        ("diagnose", out),
        ("sample", out, "--out", tmp_path / "back", "--batch-size", 2),
    ):
        done = unsample("dataset", *arguments, "--json")
        assert done.code == 0, done.err
        assert isinstance(json.loads(done.out), dict)


def test_diagnose_and_sample(unsample, out, tmp_path):
    table = unsample("dataset", "diagnose", out).out
    assert table.split()[:5] == ["diagnostic", "6", "latents", "true", "noise"]
    assert "std plain" in table
    done = unsample("dataset", "sample", out, "--out", tmp_path / "back", "--label", "goldfish")
    assert (done.code, done.out) == (0, f"6 of 6 pictures done, 2 of 2 shards\n{tmp_path / 'back'}\n")
    assert "holds pictures" in one_line(unsample("dataset", "diagnose", tmp_path / "back"))


REFUSED = [
    (("--engine", "dask"), "--engine: expected one of local, torchrun, ray, given 'dask'"),
    (("--engine", "torchrun"), "started by neither torchrun nor srun"),
    (("--shard", 0), "--shard: expected a whole number from 1 to 1,000,000"),
    (("--latents", "float8"), "--latents: expected one of float32, float16, given 'float8'"),
    (("--start", "2,4"), "expected a forward start"),
    (("--start", "two"), "expected a forward start"),
    (("--method", "dimm"), "did you mean 'ddim'"),
    (("--condition-column", "kind"), "has no column 'kind': expected one of image"),
    (("--image-column", "picture"), "has no column 'picture'"),
    (("--condition-column", "image", "--label", "goldfish"), "expected one condition for all or a column of them"),
    (("--condition-column", "image"), "expected classes or captions, given struct"),
    (("--id-column", "name"), "has no column 'name'"),
    (("--workers", 2), "--address and --workers are of --engine ray, not local"),
    (("--limit", 0), "--limit: expected a whole number from 1"),
    (("--engine", "ray", "--workers", 10**6), "--workers: expected a whole number from 1 to 100,000 (each is a process)"),
]


@pytest.mark.parametrize(("options", "says"), REFUSED, ids=lambda given: " ".join(map(str, given))[:30])
def test_settings_that_cannot_be_are_refused_before_a_model_is_loaded(
    options, says, unsample, whole, tmp_path, without_a_model, monkeypatch
):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert says in one_line(unsample("dataset", "invert", whole, "--out", tmp_path / "new", *options))
    assert not (tmp_path / "new").exists()


def test_sources_and_places_that_cannot_be_are_refused_before_a_model_is_loaded(
    unsample, whole, out, tmp_path, without_a_model
):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    for arguments, says in (
        (("invert", tmp_path / "missing", "--out", tmp_path / "new"), "no pictures in"),
        (("invert", tmp_path / "*.parquet", "--out", tmp_path / "new"), "no pictures in"),
        (("invert", tmp_path / "other", "--out", tmp_path / "new"), "no pictures in"),
        (("invert", "nowhere://pictures", "--out", tmp_path / "new"), "cannot open nowhere://pictures"),
        (("invert", "", "--out", tmp_path / "new"), "expected a"),
        (("invert", whole, "--out", ""), "expected a"),
        (("invert", whole), "Missing option '--out'"),
        (("invert", whole, "--out", "memory://x"), "--out: expected a place that is there when this command has ended"),
        (("invert", whole, "--out", f"simplecache::memory://{tmp_path}"), "--out: expected a place that is there"),
        (("sample", out, "--out", "memory://x"), "--out: expected a place that is there when this command has ended"),
        (("invert",), "Missing argument 'SOURCE...'"),
        (("invert", whole, "--out", tmp_path / "other"), "holds files that are no dataset of unsample"),
        (("sample", tmp_path / "other"), "no dataset in"),
        (("sample", out, "--size", "8x8"), "leave out --size"),
        (("status", tmp_path / "other"), "no dataset in"),
        (("diagnose", tmp_path / "missing"), "no dataset in"),
        (("status", ""), "expected a"),
        (("status",), "Missing argument 'OUT'"),
    ):
        assert says in one_line(unsample("dataset", *arguments)), arguments
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_another_setting_or_source_is_refused(unsample, whole, out, files):
    for arguments, says in (
        ((whole, "--out", out, *SMALL, "--seed", 1), "was made with another --seed: 0 there, 1 asked for"),
        ((whole, "--out", out, *SMALL, "--latents", "float16"), "was made with another --latents"),
        ((files, "--out", out, *SMALL), "was made with another source"),
    ):
        assert says in one_line(unsample("dataset", "invert", *arguments))


@pytest.mark.parametrize(("library", "options"), [("pyarrow", ()), ("ray", ("--engine", "ray"))])
def test_a_library_that_is_not_installed_is_one_line(library, options, unsample, tmp_path, monkeypatch, without_a_model):
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == library else there(name, *more))
    line = one_line(unsample("dataset", "invert", tmp_path / "a.png", "--out", tmp_path / "new", *options))
    assert 'pip install "unsample[' in line


def test_help(unsample):
    every = unsample("dataset", "--help").out
    assert all(name in every for name in ("invert", "sample", "diagnose", "status"))
    for name in ("invert", "sample", "diagnose", "status"):
        assert f"Usage: unsample dataset {name}" in unsample("dataset", name, "--help").out


def test_the_first_of_several_processes_speaks(unsample, whole, tmp_path, monkeypatch):
    """It has progress, and says whether others may be at work."""
    for number, says in ((0, "this process has done its part"), (1, ""), (0, "next: unsample dataset diagnose")):
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", "2")
        done = unsample("dataset", "invert", whole, "--out", tmp_path, *SMALL, "--engine", "torchrun")
        assert done.code == 0, done.err
        assert (says in done.err, bool(done.out)) == (True, number == 0)


def test_shards_are_named_in_few_words():
    from unsample.cli.show import SPANS, spans

    assert spans(list(range(0, 100, 2))).count(",") == SPANS
