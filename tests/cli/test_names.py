"""What commands and options are called, former names and those of diffusers too; and what is checked first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources

import pytest
import typer
from PIL import Image

import unsample as us
from unsample.cli import app, model_options, show
from unsample.runs.html import Table

from .conftest import one_line, tensors


def options(command: str) -> set[str]:
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    return {option for parameter in found.params for option in parameter.opts}


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails the test."""

    def load(*given, **named):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(model_options.Chosen, "loaded", load)


LOADS = ["invert", "demo", "sample", "reconstruct", "edit", "variations", "interpolate", "compare"]
LOADS += ["edit-benchmark run", "edit-benchmark make", "experiment run", "experiment all"]


@pytest.mark.parametrize("command", LOADS)
def test_every_command_that_loads_a_model_takes_the_same_options(command):
    size = "--image-size" if command.startswith("experiment") else "--size"
    assert {"--model", size, "--revision", "--variant", "--device", "--dtype", "--offload", "--tiling"} <= options(command)


@pytest.mark.parametrize("command", ["invert", "demo", "sample", "reconstruct", "variations", "interpolate", "compare"])
def test_a_condition_has_the_same_names_everywhere(command):
    assert {"--label", "--prompt", "--condition"} <= options(command)


@pytest.mark.parametrize("command", ["invert", "demo", "reconstruct", "edit", "variations", "interpolate", "compare"])
def test_a_start_has_one_name_and_its_former_one_a_warning(unsample, command):
    assert "--start" in options(command)
    assert "--forward" not in options(command)
    err = unsample(command, "no-such-place", "--forward=2").err.splitlines()
    assert err[0] == "unsample: --forward is --start now; its former name ends with version 0.2"
    assert len(err) == 2


def test_the_former_name_does_the_same(unsample, photos, tiny, tmp_path, without_overview):
    for name in ("--start", "--forward"):
        given = ("invert", *photos[:1], "--model", tiny, "--steps", 3, name, "1", "--out", tmp_path / name)
        assert unsample(*given).code == 0
    assert (tensors(tmp_path / "--start")["latent.1"] == tensors(tmp_path / "--forward")["latent.1"]).all()


def test_the_source_of_an_edit_has_two_names():
    assert {"--source", "--from"} <= options("edit")


HINTS = {
    "invert --guidance_scale 3": "it is --guidance here",
    "invert --num-inference-steps=3": "it is --steps here",
    "sample --negative-prompt cat": "it is --negative here",
    "sample --height 64": "it is --size here HEIGHTxWIDTH",
    "sample --batch_size 3": "it is --batch-size here",
    "edit --prompt cat": "it is --source and --to here",
    "edit --target_prompt cat": "it is --to here",
    "invert --image cat.jpg": "give pictures by their paths alone",
    "invert --negative_prompt cat": "this command has no --negative; `unsample sample` and `unsample reconstruct` have it",
    "invert --strength 0.3": "this command has no --strength; `unsample edit` and `unsample variations` have it",
    "edit --to cat --frames=9": "this command has no --frames; `unsample interpolate` has it",
    "invert --stepz 3": "--steps",
}


@pytest.mark.parametrize("typed", HINTS)
def test_names_of_diffusers_are_answered_with_ours(unsample, typed):
    command, *rest = typed.split()
    said = one_line(unsample(command, "x.jpg", *rest))
    assert HINTS[typed] in said
    assert "No such option" in said


def test_a_misspelt_class_begins_with_the_hint_and_lists_few(unsample):
    said = one_line(unsample("sample", "--label", "goldfisch"))
    assert said.startswith("unsample: unknown class 'goldfisch': did you mean 'goldfish'? Expected one of")
    assert said.endswith("... and 190 more; `unsample inspect MODEL --classes` lists them")
    names = unsample("inspect", "tiny-imagenet-32", "--classes").out.splitlines()
    assert len(names) == 200
    assert "goldfish" in names
    assert json.loads(unsample("inspect", "tiny-imagenet-32", "--classes", "--json").out) == names


def test_a_model_without_classes_lists_none(unsample, save_tiny, tmp_path):
    save_tiny(tmp_path / "plain")
    assert "has no classes" in one_line(unsample("inspect", tmp_path / "plain", "--classes"))


@pytest.mark.parametrize(
    "typed",
    [
        "invert no-such.jpg",
        "edit no-such.jpg --to bee",
        "variations no-such.jpg",
        "interpolate no-such.jpg b.jpg",
        "compare no-such.jpg",
        "experiment run E1 --data no-such.parquet",
        "invert {photo} --method dimm",
        "invert {photo} --start two",
        "edit {photo} --to bee --editor masa",
        "compare {photo} --methods ddim,dimm",
        "sample --count 1000000000000",
        "experiment run E99",
        "experiment run E1 --size huge",
    ],
)
def test_what_is_typed_is_checked_before_a_model_is_loaded(unsample, no_model, photos, typed):
    one_line(unsample(*(word.format(photo=photos[0]) for word in typed.split())))


def test_limits_have_a_reason(unsample):
    said = one_line(unsample("sample", "--count", 10**12))
    assert said == "unsample: --count: expected a whole number from 1 to 100,000 (all are held in memory), given 1000000000000"


@pytest.mark.parametrize("name", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", "sample", "models fetch", "experiment run"])
def test_help_has_two_names(unsample, name, command):
    done = unsample(*command.split(), name)
    assert done.code == 0
    assert "Usage" in done.out


def test_version_and_module():
    done = subprocess.run([sys.executable, "-m", "unsample", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"unsample {us.__version__}\n"


def test_a_shell_completes_commands():
    words = {"_UNSAMPLE_COMPLETE": "complete_bash", "COMP_WORDS": "unsample in", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "from unsample.cli import main; main()"]
    done = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["invert", "interpolate", "inspect"]
    assert done.stderr == ""


def test_the_package_says_that_it_is_typed():
    assert resources.files("unsample").joinpath("py.typed").is_file()


def test_names_in_tables_are_not_broken(monkeypatch, capsys):
    """In 40 columns the last ones are left out, and said to be."""
    monkeypatch.setattr(show, "WIDE", 40)
    show.print_table(Table(("name", "kind", "about"), (("a-model-of-a-long-name", "U-Net", "w" * 20),)), words=True)
    captured = capsys.readouterr()
    assert "a-model-of-a-long-name  U-Net" in captured.out
    assert captured.err == "a wider terminal, or a file, shows also: about\n"


def test_words_of_a_wide_table_are_never_cut(monkeypatch, capsys):
    """One column has far longer words than the last."""
    rows = (("name", "a/very-long-source-without-a-space", "some words about it, more than there is room for"),) * 2
    for width in range(60, 90, 7):
        monkeypatch.setattr(show, "WIDE", width)
        show.print_table(Table(("name", "source", "about"), rows), words=True)
        out = capsys.readouterr().out
        assert sorted(out.split()) == sorted(
            " ".join(cell for row in (("name", "source", "about"), *rows) for cell in row).split()
        )
        assert max(map(len, out.splitlines())) <= width


def test_an_edit_to_none_is_the_reconstruction_at_any_guidance(unsample, photos, tiny, tmp_path, save_tiny):
    save_tiny(tmp_path / "plain")
    for model in (tiny, tmp_path / "plain"):
        out = tmp_path / f"run-{model.name}"
        done = unsample("edit", photos[0], "--model", model, "--steps", 3, "--to", "none", "--out", out)
        assert done.code == 0, done.err
        assert (tensors(out)["edit0.0"] == tensors(out)["reconstruction.0"]).all()


def test_fetching_from_nowhere_says_what_to_give(unsample, monkeypatch, tmp_path):
    monkeypatch.setenv("UNSAMPLE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("unsample.models.download.repository_weights", lambda: None)
    assert "--from" in one_line(unsample("models", "fetch", "tiny-imagenet-64"))
    assert "--from" in one_line(unsample("models", "fetch", "tiny-imagenet-64", "--from", "http://[::1"))


def test_a_run_is_read_with_its_model_where_it_is_now(unsample, photos, tiny, tmp_path, without_overview):
    """`reconstruct` and `edit` alike; size and precision are the run's own."""
    import shutil

    place = tmp_path / "model"
    shutil.copytree(tiny, place)
    run, steps = tmp_path / "run", ("--steps", 3, "--start", 1)
    assert unsample("invert", photos[0], "--model", place, *steps, "--out", run).code == 0
    place.rename(tmp_path / "moved")
    for command in (("reconstruct", run), ("edit", run, "--to", "bee")):
        one_line(unsample(*command, "--out", tmp_path / command[0]))
        moved = ("--model", tmp_path / "moved", "--device", "cpu")
        assert unsample(*command, *moved, "--out", tmp_path / command[0]).code == 0
        refused = one_line(unsample(*command, "--size", "8x8", "--dtype", "float32"))
        assert all(words in refused for words in ("a run has its own", "--size", "--dtype"))


def test_one_picture_is_one(unsample, photos, tiny, tmp_path):
    assert unsample("invert", photos[0], "--model", tiny, "--steps", 2, "--start", 1, "--out", tmp_path / "run").code == 0
    assert "1 picture<" in (tmp_path / "run" / "report.html").read_text()


def test_compare_under_a_condition(unsample, photos, tiny, tmp_path):
    given = ("compare", photos[0], "--model", tiny, "--methods", "ddim", "--start", "0", "--nfe", 8, "--out", tmp_path / "c")
    done = unsample(*given, "--prompt", "bee", "--guidance", 2, "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)["ways"]
    assert (found["label"], found["guidance"], found["steps"], found["nfe_up"]) == ("bee", 2.0, 4, 8)


def test_pictures_to_compare_may_be_pil(tiny, photos):
    model = us.load(str(tiny))
    pictures = []
    for photo in photos[:2]:
        with Image.open(photo) as opened:
            pictures.append(opened.convert("RGB"))
    found = us.compare(model, pictures, methods=us.DDIM(), starts=[us.FromImage(), "1"], nfe=4)
    assert [(one.method, one.forward) for one in found.candidates] == [("ddim", "0"), ("ddim", "1")]
    files = us.compare(str(tiny), photos[:2], methods=["ddim"], starts=us.FromImage(), nfe=4)
    first, other = (next(iter(each.candidates.values())) for each in (found, files))
    assert first.psnr.tolist() == other.psnr.tolist()
