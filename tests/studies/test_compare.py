"""Methods compared at equal cost: the search for steps, shared runs, failures that are reported."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import unsample as us
from unsample.methods.registry import METHODS, parse_method
from unsample.methods.starts import parse_start
from unsample.models.analytic import gaussian
from unsample.pictures.read import demo_photos, read_photos
from unsample.runs import invert as jobs
from unsample.studies import compare as comparison
from unsample.studies.compare.budget import methods_and_starts, most_steps


@pytest.fixture(scope="module")
def model():
    return us.load()


@pytest.fixture
def pictures():
    """Four pictures for the toy model: two grey ones, which are plain all over, and two of noise."""
    noise = torch.rand((4, 1, 4, 4), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.cat([0.01 * noise[:2], noise[2:]])


@given(st.lists(st.integers(1, 30) | st.none(), min_size=1, max_size=20), st.integers(0, 4), st.integers(2, 20))
def test_the_most_steps_that_fit_are_found(costs, first, budget):
    """Costs that need not rise, and numbers of steps without a grid. Reference: the largest of all that fit."""
    whole = us.Grid.of(us.Schedule.from_betas(us.Schedule.linear_betas(count=100)), 30)

    def grid(steps):
        if costs[steps - 1] is None:
            raise us.ArgumentError("no such grid")
        return us.Grid(whole.levels[: steps + 1])

    def cost(grid, moves):
        assert len(moves) == grid.steps - first
        return costs[grid.steps - 1]

    fits = [n for n, c in enumerate(costs, 1) if c is not None and c <= budget and first + 2 <= n <= first + budget]
    start = us.ForwardNoise(steps=first)
    assert most_steps(start, grid, cost, budget, len(costs)) == max(fits, default=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("forward", ["0", "2", "4%"])
def test_equal_cost_spends_the_budget_and_no_more(model, method, forward):
    """Reference: one step more would not fit."""
    (way,) = comparison.equal_cost([method], [forward], 60, model)

    def cost(steps: int) -> int:
        grid = model.grid(steps)
        return parse_method(method).evaluations_on(list(grid.up(parse_start(way.forward).level(grid))))

    assert cost(way.steps) <= 60 < cost(way.steps + 1)


def test_a_long_start_gets_a_longer_grid(model):
    """What is below timestep 580 is left out: the budget is for the rest. Reference: count the levels above."""
    (way,) = comparison.equal_cost(["ddim"], ["60%"], 50, model)
    assert sum(level.t > 580 for level in model.grid(way.steps).levels) == 50


def test_a_budget_too_small_for_all_is_refused(model):
    with pytest.raises(us.ArgumentError, match="too few for 2 moves of gradient"):
        comparison.equal_cost(["gradient"], ["0"], 10, model)


@pytest.mark.parametrize("forward", ["100%", "sigma=1e9"])
def test_a_start_that_leaves_no_way_to_go_is_refused(forward):
    """Every number of steps is tried, so the schedule is a short one."""
    model = gaussian(us.Schedule.from_betas(us.Schedule.linear_betas(count=100)), [0.1], shape=(1, 1, 1))
    with pytest.raises(us.ArgumentError, match="leaves fewer than 2 moves"):
        comparison.equal_cost(["ddim"], [forward], 10, model)


def test_methods_without_a_start_are_listed_once_and_methods_are_kept_together(model):
    ways = comparison.equal_cost(["ddim", "edit-friendly", "ab", "ddim"], ["0", "1", "0"], 10, model)
    known = [("ddim", "0"), ("ddim", "1"), ("edit-friendly", "0"), ("ab", "0"), ("ab", "1")]
    assert [(way.method, way.forward) for way in ways] == known
    assert ways[2].title == "edit-friendly, forward diffusion alone"


def test_a_method_too_expensive_is_listed_and_stops_nothing(toy, pictures):
    found = us.compare(toy(), pictures, methods=["gradient", "ddim"], starts="1", nfe=4)
    assert [way.steps for way in found.candidates] == [0, 5]
    assert "too expensive" in found.table().splitlines()[1]
    assert found.to_dict()["ways"][0]["failure"].startswith("too expensive")
    assert [way.method for way in found.pareto] == ["ddim"]


@pytest.mark.parametrize("wrong", [{"methods": "ddim,dimm"}, {"starts": "0,x"}, {"spacing": "x"}, {"nfe": 1}])
def test_a_mistake_fails_before_any_work(toy, pictures, monkeypatch, wrong):
    monkeypatch.setattr(jobs, "invert_run", None)
    with pytest.raises(us.ArgumentError):
        us.compare(toy(), pictures, **{"methods": "ddim", "nfe": 4} | wrong)


def test_what_is_written_in_two_ways_is_one_candidate():
    found = list(methods_and_starts(["auto", "look-ahead", "ddim:eval_at=target", "ddim"], ["2", "02", "4%", "4.0%"]))
    assert [pair[:2] for pair in found] == [
        *(("auto", start) for start in ("2", "4%")),
        *(("ddim:eval_at=target", start) for start in ("2", "4%")),
    ]


def test_a_bad_method_name_is_one_line(unsample, tmp_path):
    done = unsample("compare", demo_photos()[0], "--methods", "ddim,dimm", "--nfe", 4, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "did you mean 'ddim'" in done.err
    assert not (tmp_path / "out").exists()


def test_tensors_files_and_photos_give_the_same(model, tmp_path):
    """From the image itself there is no noise to depend on a photo's id; elsewhere files and photos agree."""
    places = demo_photos()[:2]
    photos = read_photos(places, model.image_size)
    images = torch.stack([photo.pixels for photo in photos])
    ways = {"methods": "ddim", "starts": ("0", "1"), "nfe": 2}
    given = (images, photos, places, [str(places[0]), photos[1]])
    found = [list(us.compare(model, one, **ways).candidates.values()) for one in given]
    for usual, started in found:
        assert torch.equal(usual.psnr.sort()[0], found[0][0].psnr.sort()[0])
        assert len(started.psnr) == 2
    assert torch.equal(found[1][1].psnr, found[2][1].psnr)


def test_names_of_a_tensor_reach_the_reports(toy, pictures, monkeypatch):
    seen = []
    real = jobs.invert_run
    monkeypatch.setattr(jobs, "invert_run", lambda m, photos, *rest: seen.extend(photos) or real(m, photos, *rest))
    us.compare(toy(), pictures.double(), methods="ddim", starts="0", nfe=2, names=list("abcd"))
    assert [photo.name for photo in seen] == list("abcd")
    assert len({photo.id for photo in seen}) == 4
    assert seen[0].pixels.dtype == torch.float64


@pytest.mark.parametrize(
    ("photos", "more", "says"),
    [
        (torch.zeros(2, 1, 5, 5), {}, "expected images of shape"),
        (torch.zeros(2, 1, 4, 4), {"names": ["a"]}, "one name per image"),
        (torch.full((2, 1, 4, 4), 255.0), {}, "rescale bytes"),
        ([], {}, "at least one photo"),
        ([], {"names": ["a"]}, "names are for"),
        (torch.zeros(2, 1, 4, 4), {"out": "out"}, "has none"),
    ],
)
def test_what_cannot_be_compared_is_refused(toy, photos, more, says):
    with pytest.raises(us.ArgumentError, match=says):
        us.compare(toy(), photos, methods="ddim", nfe=4, **more)


def test_nothing_is_kept_without_a_folder(toy, pictures, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    us.compare(toy(), pictures, methods="ddim", starts="1", nfe=2)
    assert [path.name for path in tmp_path.rglob("*")] == ["scratch"]


def test_what_is_stored_is_counted_in_latents(toy, pictures):
    """DDIM keeps nothing, `exact` one map, `direct` one per move down that the path has a state for."""
    found = us.compare(toy(), pictures, methods="ddim,exact,direct", starts=["0"], nfe=12)
    assert {way.method: measured.stored for way, measured in found.candidates.items()} == {
        "ddim": 0,
        "exact": 1,
        "direct": next(way.steps for way in found.candidates if way.method == "direct"),
    }
    made = comparison.table(found.candidates)
    assert [row[made.head.index("stored")] for row in made.rows] == ["0", "1", "6", ""]


def test_the_table_tells_the_medians_their_photos_and_the_floor(model):
    found = us.compare(model, demo_photos(), methods="ddim", starts=("0", "1"), nfe=3)
    made = comparison.table(found.candidates)
    column = {name: [row[i] for row in made.rows] for i, name in enumerate(made.head)}
    usual = next(iter(found.candidates.values())).diagnosis
    assert column["inversion"] == ["ddim, usual inversion", "ddim, forward start 1", "true noise"]
    assert column["PSNR, dB (median)"][0].startswith(f"{usual['median PSNR'].value:.3f} [")
    (head,) = (name for name in made.head if name.startswith("std plain (median"))
    assert head == f"std plain (median of {usual['median std plain'].note})"
    assert "[" in column[head][2]
    assert column["PSNR, dB (median)"][2] == ""
    assert usual["median std plain"].null.low < 1.01


def test_a_table_says_what_its_columns_mean_and_why_cells_are_empty(model):
    few = us.compare(model, demo_photos()[:2], methods="ddim", nfe=3)
    assert [one.forward for one in few.candidates] == ["0", "4%"]
    said = few.table()
    assert "top-20 r has no value: it needs at least 32 images, given 2" in said
    assert "no intervals over images: 2 are too few" in said
    assert "front: * no other" in said
    assert "beyond the budget" not in said
    assert "±" not in "".join(comparison.table(few.candidates).rows[0])


def test_a_table_says_that_an_automatic_start_costs_more_than_its_first_level(model):
    found = us.compare(model, demo_photos()[:2], methods="ddim", starts="auto", nfe=3)
    assert next(iter(found.candidates.values())).nfe_up > 3
    assert "beyond the budget" in found.table()


def test_whiteness_is_told_twice_in_json(model):
    """Reference: by hand, from the rows."""
    found = us.compare(model, demo_photos()[:2], methods="ddim", starts="0", nfe=2)  # r takes 32 images
    assert found.photos < 32
    (way,) = found.to_dict()["ways"]
    rows = {row["name"]: row for row in way["rows"]}
    assert way["std_plain_distance"] == pytest.approx(abs(rows["std plain"]["value"] - 1))
    assert way["top_20_r_excess"] is None
    photos = read_photos(demo_photos()[:4], model.image_size) * 8
    (way,) = us.compare(model, photos, methods="ddim", starts="0", nfe=2).to_dict()["ways"]
    r = next(row for row in way["rows"] if row["name"] == "top-20 patch correlation")
    assert way["top_20_r_excess"] == pytest.approx(r["value"] - r["null"]["mean"])


def test_what_a_way_refuses_is_listed_and_if_all_refuse_raised(toy, pictures, monkeypatch):
    real = jobs.invert_run

    def picky(model, photos, settings, *rest):
        if settings.method == "ab":
            raise us.ArgumentError("not with me")
        return real(model, photos, settings, *rest)

    monkeypatch.setattr(jobs, "invert_run", picky)
    found = us.compare(toy(), pictures, methods="ab,ddim", starts="0", nfe=2)
    assert found.failures == ("ab, usual inversion: refused: not with me",)
    assert "refused: not with me\n" in found.table()
    with pytest.raises(us.ArgumentError, match=r"^not with me$"):
        us.compare(toy(), pictures, methods="ab", starts="0", nfe=2)


def test_compare_writes_table_picture_and_json(unsample, tmp_path):
    photos = [str(photo) for photo in demo_photos()[:2]]
    methods = ("ddim", "renoise:iterations=1:average=(0,1)", "bdia")
    done = unsample("compare", *photos, "--methods", ",".join(methods), "--nfe", 4, "--start", "0,1", "--out", tmp_path)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "comparison.json").read_text())["ways"]
    assert [(way["method"], way["forward"]) for way in found] == [(m, f) for m in methods for f in ("0", "1")]
    assert [way["steps"] for way in found] == [4, 5, 2, 3, 4, 5]
    assert all(way["nfe_up"] == 4 for way in found)
    assert "true noise" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_a_way_measured_before_is_read_back(model, tmp_path, monkeypatch):
    photos = read_photos(demo_photos()[:2], model.image_size)
    way = comparison.Candidate("ddim", "1", 3, "once")
    first = comparison.measure_candidate(model, photos, way, tmp_path)
    monkeypatch.setattr(jobs, "invert", None)
    again = comparison.measure_candidate(model, photos, way, tmp_path)
    assert torch.equal(first.psnr, again.psnr)


def test_divergence_is_shown_not_hidden(model, tmp_path, monkeypatch):
    real = jobs.invert

    def spoiled(*given, **named):
        trajectory = real(*given, **named)
        trajectory.latent[0] = torch.inf
        return trajectory

    monkeypatch.setattr(jobs, "invert", spoiled)
    found = comparison.compare(model, demo_photos()[:2], methods="ddim,ab", starts="1", nfe=2, out=tmp_path)
    assert all(measured.failure.startswith("diverged: ") for measured in found.candidates.values())
    assert "diverged" in comparison.table(found.candidates).markdown()
    assert "left the finite numbers" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert found.pareto == ()


def test_a_reversible_method_reconstructs_exactly_with_its_memory(unsample, tmp_path):
    """A run samples back with the method's own memory: to rounding error, whatever the latent is like."""
    unsample("invert", demo_photos()[0], "--method", "bdia", "--steps", 10, "--start", "1", "--out", tmp_path / "run")
    rows = json.loads(unsample("diagnose", tmp_path / "run", "--json").out)["forward start 1"]["rows"]
    mae = next(row["value"] for row in rows if row["name"] == "MAE")
    x1_noise = us.load().grid(10)[1].sigma  # what remains is the forward start's own noise, undone by the last move
    assert mae < 5 * x1_noise
    assert unsample("reconstruct", tmp_path / "run", "--out", tmp_path / "back").code == 0
    again = load_file(tmp_path / "back" / "latents.safetensors")["samples"]
    assert torch.equal(again, load_file(tmp_path / "run" / "latents.safetensors")["reconstruction.1"])


def test_methods_lists_every_method(unsample):
    listed = json.loads(unsample("methods", "--json").out)
    assert [row["method"] for row in listed] == list(METHODS)
    assert all(row["source"] for row in listed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ddim:eval_at", "options like"),
        ("ddim:speed=3", "unknown option"),
        ("heun:order=1", "unknown option"),
        ("nope", "unknown"),
    ],
)
def test_methods_people_mistype(text, says):
    with pytest.raises(us.ArgumentError, match=says):
        parse_method(text)


def test_a_spacing_that_the_finest_grids_do_not_have_is_fine(model):
    """Leading timesteps from 3 on fit 50 steps, but not 1000."""
    (way,) = comparison.equal_cost(["look-ahead"], ["1"], 20, model, "leading:offset=3")
    assert (way.steps, way.spacing) == (20, "leading:offset=3")
