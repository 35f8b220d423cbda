"""The main job: a run directory that is whole, resumes, and refuses what it should."""

from __future__ import annotations

import json
import re
import resource
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.core.starts import ForwardNoise
from unsample.diagnostics.row import format_number
from unsample.methods import registry as methods
from unsample.methods import starts
from unsample.pictures.read import demo_photos, read_photo
from unsample.runs import invert as jobs
from unsample.runs.directory import Run
from unsample.runs.report import diagnose_run, start_place
from unsample.runs.settings import InvertSettings

from .conftest import start, tensors

QUICK = ("--steps", 4, "--batch-size", 2)


def settings_of(place):
    return json.loads((place / "manifest.json").read_text())["settings"]


def test_a_run_says_which_level_a_start_was(unsample, photos, tmp_path):
    """On standard output, in the manifest and in the report; of "auto" from the least to the most."""
    done = unsample("invert", photos[0], "--steps", 5, "--start", "0,1,4%", "--size", "8x8", "--out", tmp_path / "run")
    says = "timestep 20 of 1000, sigma/alpha 0.079, within move 2 of 5"
    says_all = f"look-ahead in 5 steps, forward start 4%: {says}; network evaluations per picture: up 5, down 5"
    assert f"{says_all}\n" in done.out
    assert says_all in (tmp_path / "run" / "report.html").read_text()
    starts = json.loads((tmp_path / "run" / "manifest.json").read_text())["results"]["starts"]
    assert starts == {"1": "timestep 0 of 1000, sigma/alpha 0.01, before move 2 of 5", "4%": says}


@pytest.mark.parametrize(
    ("command", "spent"),
    [
        (("edit", "--to", "lakeside"), "up 5, reconstruction 5, mask 0, edit 10"),
        (("variations", "--seeds", 2), "variation 2"),
        (("interpolate", "--frames", 2), "up 5, frame 5"),
    ],
    ids=lambda given: given[0],
)
def test_every_command_that_inverts_says_how_in_the_same_words(unsample, photos, tmp_path, command, spent):
    done = unsample(command[0], *photos[:2], *command[1:], "--steps", 5, "--start", "4%", "--out", tmp_path / "run")
    where = "timestep 20 of 1000, sigma/alpha 0.079, within move 2 of 5"
    assert f"look-ahead in 5 steps, forward start 4%: {where}; network evaluations per picture: {spent}" in done.out


def test_places_that_differ_are_told_from_the_least_to_the_most(toy):
    grid = toy().grid(5)
    places = [ForwardNoise(steps=1).level(grid), ForwardNoise(fraction=0.04).level(grid)]
    says = start_place("auto", places, grid)
    assert re.fullmatch(
        r"each picture its own, from timestep 0 of .*, before move 2 of 5, to timestep .*within move 2 of 5", says
    )


def test_rows_outside_true_noise_are_marked_and_named(unsample, photos, tmp_path):
    """For each start, in the terminal, in the report and by `diagnose`; those within are not."""
    done = unsample("invert", *photos[:2], *QUICK, "--start", "0,2", "--out", tmp_path / "run")
    again, page = unsample("diagnose", tmp_path / "run").out, (tmp_path / "run" / "report.html").read_text()
    diagnoses = diagnose_run(Run.load(tmp_path / "run"))
    for name, diagnosis in diagnoses.items():
        outside = [f"{row.name} {format_number(row.value)}" for row in diagnosis.rows if row.is_noise is False]
        assert outside, name
        for text in (done.out, again, page):
            assert f"{name}: outside true noise: {', '.join(outside)}" in text
            assert "* outside true noise: where" in text
    starred = sum(row.is_noise is False for diagnosis in diagnoses.values() for row in diagnosis.rows)
    assert page.count("*</td>") == starred
    assert sum(line.count("*") for line in again.splitlines() if not line.startswith("*")) == starred


def test_a_report_explains_its_rows_and_settings(unsample, photos, tmp_path):
    unsample("invert", *photos[:2], *QUICK, "--start", "0,4%", "--out", tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    for said in ("lag-1: ", "KL to N(0, 1): ", "SSIM: ", "no intervals over images: 2 are too few", "<td>0, 4%</td>"):
        assert said in page, said
    assert "None" not in page
    assert "[&#x27;" not in page


def test_a_run_holds_everything(unsample, photos, tmp_path):
    way = ("--method", "ddim", "--start", "0,2")
    done = unsample("invert", *photos, *QUICK, *way, "--keep", "all", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["settings"]["forward"] == ["0", "2"]
    assert [item["name"] for item in manifest["items"]] == [photo.name for photo in photos]
    assert manifest["results"]["cost"]["0"]["nfe"] == 4 + 4
    assert manifest["results"]["cost"]["2"]["nfe"] == 2 + 4
    assert manifest["results"]["cost"]["2"]["seconds"] > 0
    found = tensors(run)
    names = ("latent", "reconstruction", "start", "timestep", "nfe_up")
    assert set(found) == {"images", *(f"{name}.{start}" for name in names for start in ("0", "2"))}
    assert found["nfe_up.2"].tolist() == found["start.2"].tolist() == [2, 2, 2]
    assert found["latent.2"].shape == (3, 3, 32, 32)
    for place in ("reconstructions/0/0000-brushes.png", "reconstructions/2/0002-creek.png", "overview.png"):
        with Image.open(run / place) as picture:
            picture.verify()
    kept = us.Trajectory.load(run / "trajectories" / "2.000002.safetensors")
    assert sorted(kept.states) == [2, 3, 4]
    assert sorted(kept.eps) == [3, 4]
    assert not (run / "parts").exists()
    assert not list(run.rglob("*.part"))


def test_the_report_needs_nothing_else(unsample, photos, tmp_path):
    unsample("invert", *photos, *QUICK, "--out", tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page
    assert "brushes.jpg" in page
    assert "true noise" in page


@pytest.mark.usefixtures("without_overview")
def test_latents_equal_the_library(unsample, photos, tmp_path):
    unsample("invert", *photos, *QUICK, "--start", "2", "--seed", 7, "--label", "goldfish", "--out", tmp_path / "run")
    model = us.load()
    read = [read_photo(photo, model.image_size) for photo in photos]
    latent = us.invert(
        model,
        torch.stack([photo.pixels for photo in read]),
        steps=4,
        start=us.ForwardNoise(steps=2),
        seed=7,
        condition="goldfish",
        items=[photo.id for photo in read],
    ).latent
    assert torch.allclose(tensors(tmp_path / "run")["latent.2"], latent, atol=1e-4)


@pytest.mark.usefixtures("without_overview")
@pytest.mark.parametrize(
    ("asked", "method", "forward", "python"),
    [
        ((), "look-ahead", "4%", (methods.DEFAULT_METHOD, methods.DEFAULT_START)),
        (("--paper",), "ddim", "4%", (methods.PAPER_METHOD, methods.PAPER_START)),
    ],
    ids=["default", "paper"],
)
def test_the_command_lines_settings_are_pythons_and_the_manifest_names_them(
    unsample, photos, tmp_path, asked, method, forward, python
):
    done = unsample("invert", photos[0], *QUICK, *asked, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    made = settings_of(tmp_path / "run")
    assert (made["method"], made["forward"]) == (method, [forward])
    assert (methods.parse_method(method), starts.parse_start(forward)) == python


@pytest.mark.usefixtures("without_overview")
def test_the_defaults_give_the_same_latents_in_python(unsample, photos, tmp_path):
    unsample("invert", photos[0], *QUICK, "--out", tmp_path / "run")
    model = us.load()
    photo = read_photo(photos[0], model.image_size)
    latent = us.invert(model, photo.pixels[None], steps=4, items=[photo.id]).latent
    assert torch.allclose(tensors(tmp_path / "run")["latent.4%"], latent, atol=1e-4)


@pytest.mark.usefixtures("without_overview")
@pytest.mark.parametrize(
    ("asked", "method", "eval_at"),
    [
        (("--method", "auto"), methods.AUTO, None),
        (("--eval-at", "source"), "ddim", "source"),
        (("--paper", "--eval-at", "source"), "ddim", "source"),
    ],
)
def test_the_manifest_names_what_auto_stood_for(unsample, photos, tmp_path, asked, method, eval_at):
    done = unsample("invert", photos[0], *QUICK, *asked, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    made = settings_of(tmp_path / "run")
    assert (made["method"], made["eval_at"]) == (method, eval_at)


def test_options_of_auto_are_those_of_what_it_stands_for(toy, monkeypatch):
    monkeypatch.setattr("unsample.methods.registry.AUTO", "fixed-point")
    assert InvertSettings.of(toy(), method="auto:iterations=2").method == "fixed-point:iterations=2"


@pytest.mark.usefixtures("without_overview")
def test_json_is_one_document(unsample, photos, tmp_path):
    done = unsample("invert", photos[0], *QUICK, "--out", tmp_path / "run", "--json")
    assert json.loads(done.out)["run"] == str(tmp_path / "run")


@pytest.mark.usefixtures("without_overview")
def test_a_rerun_of_a_complete_run_does_no_work(unsample, photos, tmp_path, monkeypatch):
    arguments = ("invert", *photos, *QUICK, "--out", tmp_path / "run")
    first = unsample(*arguments)
    monkeypatch.setattr(jobs, "invert", None)
    again = unsample(*arguments)
    assert again.code == 0
    assert again.out == first.out


def test_a_run_stopped_before_its_report_gets_it_on_a_rerun(unsample, photos, tmp_path):
    arguments = ("invert", photos[0], *QUICK, "--out", tmp_path / "run")
    unsample(*arguments)
    (tmp_path / "run" / "report.html").unlink()
    assert unsample(*arguments).code == 0
    assert "true noise" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.usefixtures("without_overview")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--steps", 5), "steps"),
        (("--seed", 1), "seed"),
        (("--start", "0"), "forward"),
        (("--method", "heun"), "method"),
        (("--eval-at", "source"), "eval_at"),
    ],
)
def test_other_settings_are_refused(unsample, photos, tmp_path, change, named):
    base = {"--steps": 4, "--batch-size": 2, "--method": "ddim", "--out": tmp_path / "run"}
    unsample("invert", photos[0], *(word for pair in base.items() for word in pair))
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    base[change[0]] = change[1]
    done = unsample("invert", photos[0], *(word for pair in base.items() for word in pair))
    assert done.code == 2
    assert f"was made with other {named}" in done.err
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before


@pytest.mark.usefixtures("without_overview")
def test_other_photos_are_refused(unsample, photos, tmp_path):
    unsample("invert", photos[0], *QUICK, "--out", tmp_path / "run")
    done = unsample("invert", photos[1], *QUICK, "--out", tmp_path / "run")
    assert (done.code, "other items" in done.err) == (2, True)


def test_somebodys_folder_is_refused(unsample, photos, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    done = unsample("invert", photos[0], *QUICK, "--out", tmp_path / "letters")
    assert done.code == 2
    assert [file.name for file in (tmp_path / "letters").iterdir()] == ["love.txt"]


def test_an_error_on_the_way_keeps_what_was_done_and_a_rerun_ends_bit_identical(unsample, photos, tmp_path, interrupt):
    arguments = ("invert", *photos, *QUICK, "--start", "0,2", "--out")
    unsample(*arguments, tmp_path / "whole")
    calls = interrupt(jobs, "invert", 3)
    stopped = unsample(*arguments, tmp_path / "resumed")
    assert stopped.code == 130
    assert "interrupted" in stopped.err
    assert sorted(file.name for file in (tmp_path / "resumed" / "parts").iterdir()) == [
        "0.000000.safetensors",
        "0.000002.safetensors",
    ]
    assert unsample("diagnose", tmp_path / "resumed").code == 2
    assert unsample(*arguments, tmp_path / "resumed").code == 0
    assert len(calls) == 3 + 2
    for name in ("latents.safetensors", "overview.png", "reconstructions/2/0001-cat.png"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.usefixtures("without_overview")
def test_a_damaged_part_is_made_again(unsample, photos, tmp_path, interrupt):
    arguments = ("invert", *photos, *QUICK, "--start", "2", "--out")
    unsample(*arguments, tmp_path / "whole")
    interrupt(Run, "finish", 1)
    unsample(*arguments, tmp_path / "run")
    part = tmp_path / "run" / "parts" / "2.000002.safetensors"
    part.write_bytes(part.read_bytes()[:-100])
    assert unsample(*arguments, tmp_path / "run").code == 0
    assert (tmp_path / "run" / "latents.safetensors").read_bytes() == (tmp_path / "whole" / "latents.safetensors").read_bytes()


WAITS_AT_THE_SECOND_PART = """
import signal, sys

def wait(event, given):
    if event == "os.rename" and str(given[1]).endswith("4pc.000001.safetensors"):
        print("waiting", flush=True)
        signal.pause()

sys.addaudithook(wait)
"""


def test_ctrl_c_in_a_real_process(tmp_path):
    """It comes while the second part is about to appear, which is when the process waits for it."""
    arguments = ["invert", *demo_photos()[:2], "--steps", 2, "--batch-size", 1, "--out", tmp_path / "run"]
    process = start(arguments, WAITS_AT_THE_SECOND_PART)
    assert process.stdout.readline() == "waiting\n", process.communicate()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert [file.name for file in (tmp_path / "run" / "parts").iterdir()] == ["4pc.000000.safetensors"]


def test_a_full_disk_is_one_line_and_loses_nothing(photos, tmp_path):
    """The limit on file size makes the writes of this process fail as a full disk does."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # noqa: E731
    process = start(["invert", *photos, "--steps", 2, "--out", tmp_path / "run"], preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "cannot write" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "run").rglob("*.part"))
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "running"


def test_divergence_is_told(unsample, photos, tmp_path, monkeypatch):
    real = jobs.invert

    def spoiled(*given, **named):
        trajectory = real(*given, **named)
        trajectory.latent[1] = torch.nan
        return trajectory

    monkeypatch.setattr(jobs, "invert", spoiled)
    done = unsample("invert", *photos, *QUICK, "--out", tmp_path / "run")
    assert done.code == 2
    assert "the inversion of cat.jpg left the finite numbers" in done.err


@pytest.mark.usefixtures("without_overview")
def test_batch_size_changes_rounding_only(unsample, photos, tmp_path):
    for size in (1, 3):
        unsample("invert", *photos, "--steps", 4, "--start", "2", "--batch-size", size, "--out", tmp_path / str(size))
    one, three = (tensors(tmp_path / size)["latent.2"] for size in ("1", "3"))
    assert torch.allclose(one, three, atol=1e-4)


@pytest.mark.usefixtures("without_overview")
def test_manifest_paths_are_not_trusted(unsample, photos, tmp_path, rewrite):
    unsample("invert", photos[0], *QUICK, "--out", tmp_path / "run")
    rewrite(tmp_path / "run", lambda manifest: manifest["items"][0].update(name="../../../evil.jpg"))
    done = unsample("reconstruct", tmp_path / "run", "--out", tmp_path / "back")
    assert done.code == 0, done.err
    assert [file.name for file in (tmp_path / "back" / "samples").iterdir()] == ["0000-evil.png"]
    assert not list(tmp_path.parent.glob("evil*"))


@pytest.mark.parametrize("text", ["0", "2", "4%", "sigma=0.1", "2@next"])
def test_starts_people_type(text):
    assert starts.parse_start(text).level(us.load().grid(50)).index <= 3


@pytest.mark.usefixtures("without_overview")
def test_the_plain_area_of_a_flat_picture_is_repaired(unsample, tmp_path):
    """The claim of the product, at its smallest: a grey wall, with and without the start, at 20 steps."""
    wall = np.full((64, 64, 3), 128, np.uint8)
    wall[:8, :8] = np.random.default_rng(0).integers(0, 255, (8, 8, 3))
    Image.fromarray(wall).save(tmp_path / "wall.png")
    way = ("--method", "ddim", "--start", "0,2")
    unsample("invert", tmp_path / "wall.png", "--steps", 20, *way, "--out", tmp_path / "run")
    done = json.loads(unsample("diagnose", tmp_path / "run", "--json").out)
    std = {name: next(row["value"] for row in found["rows"] if row["name"] == "std plain") for name, found in done.items()}
    assert std["usual inversion"] < 0.8
    assert 0.85 < std["forward start 2"] < 1.1


@pytest.mark.usefixtures("without_overview")
def test_an_implicit_method_reports_its_worst_residual_per_picture(unsample, photos, tmp_path):
    """Reference: the residuals of the same inversion in Python."""
    done = unsample(
        "invert", *photos, "--steps", 5, "--method", "fixed-point:iterations=2", "--start", 1, "--out", tmp_path / "run"
    )
    assert done.code == 0, done.err
    stored = tensors(tmp_path / "run")
    model = us.load()
    read = us.pictures.read.read_photos(photos, model.image_size)
    found = us.invert(
        model,
        torch.stack([photo.pixels for photo in read]),
        steps=5,
        method=us.parse_method("fixed-point:iterations=2"),
        start=us.ForwardNoise(steps=1),
        items=[photo.id for photo in read],
    )
    worst = torch.stack([found.residuals[i] for i in (2, 3, 4, 5)]).amax(0)
    torch.testing.assert_close(stored["residual.1"], worst, rtol=1e-3, atol=1e-6)
    assert "worst residual" in (tmp_path / "run" / "report.html").read_text()
