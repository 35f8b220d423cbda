"""What a visitor has: latents of the command line, kept inversions, limits."""

from __future__ import annotations

import math
import os
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unsample as us
from unsample.cli import main
from unsample.pictures.read import demo_photos
from unsample.web import pictures, visitors
from unsample.web import session as sessions
from unsample.web.session import WAYS, Session, StoppedError, of_k, ways_of
from unsample.web.take import command, python, run_directory

PHOTO = demo_photos()[1]


@pytest.fixture(scope="module")
def model():
    return us.load(device="cpu", size=(16, 16))


@pytest.fixture
def session(model):
    return Session.open(model, PHOTO, steps=4)


def test_latents_are_those_of_the_command_line(session, tmp_path, monkeypatch):
    """Reference: `unsample invert`, bit for bit; and the line that the page gives."""
    monkeypatch.chdir(PHOTO.parent)
    given = command(session).split()[1:]
    with pytest.raises(SystemExit) as left:
        main([*given, "--device", "cpu", "--out", str(tmp_path / "run")])
    assert left.value.code == 0
    there = load_file(tmp_path / "run" / "latents.safetensors")
    made = session.inverted(WAYS[-1])
    assert torch.equal(there[f"latent.{WAYS[-1].start}"], made.latent)
    assert torch.equal(there[f"reconstruction.{WAYS[-1].start}"], made.back)


def test_the_python_lines_make_it(session, model, monkeypatch):
    monkeypatch.chdir(PHOTO.parent)
    monkeypatch.setattr(us, "load", lambda name, size: model)
    lines: dict[str, object] = {}
    exec(python(session), lines)
    made = session.inverted(WAYS[-1])
    assert torch.equal(lines["there"].latent, made.latent)
    assert torch.equal(lines["back"], made.back)


def test_what_was_made_is_kept(session, monkeypatch):
    made = [session.inverted(way) for way in WAYS]
    monkeypatch.setattr(sessions, "invert", None)
    assert [session.inverted(way) for way in WAYS] == made
    assert made[0].diagnosis["std plain"].null is not None


def test_the_walk_is_seen_and_can_be_stopped(session):
    seen = []
    session.inverted(WAYS[0], lambda state, done, whole: seen.append((tuple(state.shape), done, whole)))
    assert [done for _, done, _ in seen] == list(range(1, 9))
    assert {(shape, whole) for shape, _, whole in seen} == {((1, 3, 16, 16), 8)}
    session.stop.set()
    with pytest.raises(StoppedError):
        session.inverted(WAYS[1])
    for use in (
        lambda: session.varied(2, "20%"),
        lambda: session.compared(["ddim"], 4),
        lambda: session.edited("goldfish", 3, 1),
    ):
        with pytest.raises(StoppedError):
            use()
    session.stop.clear()
    assert session.inverted(WAYS[1]).nfe > 0


def test_uses_are_those_of_the_library(session, model):
    """Reference: `us.edit`, `us.variations` and `us.interpolate`."""
    there = session.inverted(WAYS[-1]).there
    assert torch.equal(session.edited("goldfish", 3.0, 1.0), us.edit(model, there, to="goldfish").images)
    made, apart = session.varied(3, "20%")
    given = {"seeds": 3, "start": "20%", "steps": 4, "items": [session.photo.id]}
    expected = us.variations(model, session.pixels, **given)
    assert torch.equal(made, expected.nearest_first[0])
    assert apart == sorted(expected.distances[0].tolist())
    other = Session.open(model, demo_photos()[0], steps=4)
    keys = torch.cat([each.inverted(WAYS[-1]).latent for each in (session, other)])
    assert torch.equal(session.between(other, 3), us.interpolate(model, keys, frames=3, steps=4).images)


def test_a_mask_keeps_the_rest(session, model):
    """Reference: `us.edit` of the picture itself; what may not change is the picture."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:, 8:] = True
    white = Image.fromarray(np.asarray(mask.repeat_interleave(20, 0).repeat_interleave(20, 1), np.uint8) * 255)
    made = session.edited("goldfish", 3.0, 1.0, white)
    assert torch.allclose(made[..., :8], session.pixels[..., :8], atol=1e-5)
    assert not torch.allclose(made[..., 8:], session.pixels[..., 8:], atol=0.1)


def test_methods_compared_are_shown_with_their_own_steps(session):
    """Reference: what `us.compare` says of each."""
    compared = session.compared(["ddim", "heun"], 4)
    ways = ways_of(compared)
    assert len(ways) == 4
    for way, measured in zip(ways, compared.candidates.values(), strict=True):
        assert session.inverted(way).diagnosis["std plain"].value == pytest.approx(measured.place[0].value, abs=1e-6)
    with pytest.raises(us.ArgumentError, match="tick one"):
        session.compared([], 4)


def test_moves_of_noise_beyond_the_grid_are_one_sentence(session):
    with pytest.raises(us.ArgumentError, match="use a smaller start"):
        session.inverted(of_k(8))


def test_what_is_taken_along_is_a_run(session, tmp_path):
    with zipfile.ZipFile(run_directory(session, tmp_path)) as file:
        file.extractall(tmp_path / "run")
    run = us.read_run(tmp_path / "run")
    assert torch.equal(run.trajectory.latent, session.inverted(WAYS[-1]).latent)
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000


def test_visitors_are_forgotten_and_their_work_ends(model):
    now = [0.0]
    there = visitors.Visitors(model, clock=lambda: now[0])
    first = there.opened("a", str(PHOTO), 4, None)
    assert there.opened("a", str(PHOTO), 4, None) is first is there.session("a")
    assert there.opened("a", str(PHOTO), 5, None) is not first
    for key, known in (("b", ""), ("a", None)):
        with pytest.raises(us.ArgumentError, match="there is no"):
            there.opened(key, known, 4, None)
    stop = there["a"].stop
    now[0] = visitors.KEPT + 1
    there["c"]
    assert stop.is_set()
    assert len(there) == 1
    stop = there["c"].stop
    there.left("c")
    assert stop.is_set()
    for i in range(visitors.MOST + 5):
        there[str(i)]
    assert len(there) == visitors.MOST


def test_the_oldest_files_go_first(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}").write_bytes(bytes(100))
        os.utime(tmp_path / f"{i}", (i, i))
    visitors.sweep(tmp_path, 250, tmp_path / "0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "4"]


def test_what_is_too_large_is_refused_before_it_is_decoded(model, tmp_path, monkeypatch):
    (tmp_path / "no.jpg").write_text("no")
    with pytest.raises(us.ImageError, match="not a picture"):
        Session.open(model, tmp_path / "no.jpg")
    for steps in (0, 1000):
        with pytest.raises(us.ArgumentError):
            Session.open(model, PHOTO, steps=steps)
    monkeypatch.setattr(sessions, "MOST_PIXELS", 100)
    with pytest.raises(us.ImageError, match="pixels: expected at most"):
        Session.open(model, PHOTO)
    monkeypatch.setattr(sessions, "MOST_BYTES", 100)
    with pytest.raises(us.ImageError, match="MB: expected at most"):
        Session.open(model, PHOTO)


def test_pictures_are_enlarged_cell_by_cell(session):
    made = session.inverted(WAYS[0])
    assert pictures.state(made.latent).shape == pictures.picture(session.pixels).shape == (320, 320, 3)
    alone, all_map = (pictures.variance_map(made.latent, session.pixels, opacity) for opacity in (0.0, 1.0))
    assert (alone == pictures.picture(session.pixels)).all()
    assert not (alone == all_map).all()


@pytest.mark.parametrize(("value", "says"), [(0.5, "50% of the noise is missing"), (1.0, "as much noise"), (1.2, "too much")])
def test_numbers_in_words(session, value, says):
    diagnosis = session.inverted(WAYS[0]).diagnosis
    rows = tuple(replace(row, value=value) if row.name == "std plain" else row for row in diagnosis.rows)
    assert says in pictures.words(replace(diagnosis, rows=rows))
    nothing = tuple(replace(row, value=math.nan) if row.name == "std plain" else row for row in diagnosis.rows)
    assert "no plain area" in pictures.words(replace(diagnosis, rows=nothing))


def test_without_gradio_the_page_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as left:
        main(["web", "--no-browser", "--size", "16x16", "--device", "cpu", "--host", "0.0.0.0"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "there is no password" in said
    assert 'pip install "unsample[web]"' in said
    assert "Traceback" not in said
