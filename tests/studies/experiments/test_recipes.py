"""Recipes, and the command that runs them."""

from __future__ import annotations

import json

import pytest

import unsample as us
from unsample import models
from unsample.studies.experiments import EXPERIMENTS, recipe
from unsample.studies.experiments.registry import SIZES


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("size", SIZES)
def test_every_experiment_has_every_size(name, size):
    found = recipe(name)
    assert found.id == name
    assert isinstance(found.make(size), EXPERIMENTS[name])
    assert found.title
    assert found.paper


def test_numbers_are_in_order():
    numbers = [int(name[1:]) for name in EXPERIMENTS]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "missing or empty"),
        ("id = ", "is not a recipe"),
        ('id = "E1"\n', "is not a recipe"),
        ('id = "E99"\ntitle = ""\nquestion = ""\npaper = ""\n[sizes.smoke]\ncount = 1\n', "experiment"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, says):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(us.UnsampleError, match=says):
        recipe(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("values", "says"),
    [("count = 32", "steps: field required"), ('count = "many"\nsteps = 2', "count: "), ("x = 1", "recipe E1")],
)
def test_values_that_do_not_fit_are_one_line(tmp_path, values, says):
    text = f'id = "E1"\ntitle = ""\nquestion = ""\npaper = ""\n[sizes.smoke]\n{values}\n'
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(us.ArgumentError, match=says) as error:
        recipe(str(tmp_path / "mine.toml")).make("smoke")
    assert "\n" not in str(error.value)


@pytest.fixture
def quick(halves, monkeypatch):
    monkeypatch.setattr(models, "load", lambda *names, **options: halves)


def test_run_then_report(unsample, quick, tmp_path):
    where = ("--out", tmp_path / "out", "--cache", tmp_path / "cache")
    done = unsample("experiment", "run", "e1", "--size", "smoke", "--json", *where)
    assert done.code == 0, done.err
    claims = json.loads(done.out)["claims"]
    assert {claim["id"] for claim in claims} == {"E1"}
    assert "E1 (1 of 1)" in done.err
    again = unsample("experiment", "report", "--out", tmp_path / "out", "--json")
    assert json.loads(again.out)["claims"] == claims
    assert "The paper:" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "index.html").read_text().startswith("<!doctype html>")


def test_two_runs_side_by_side(unsample, quick, tmp_path):
    for name in ("one", "two"):
        where = ("--out", tmp_path / name, "--cache", tmp_path / "cache")
        assert unsample("experiment", "run", "E1", "--size", "smoke", *where).code == 0
    file = tmp_path / "two" / "E1" / "metrics.json"
    reported = json.loads(file.read_text())
    last, first = reported["claims"][-1], reported["claims"][0]
    reported["claims"] = [{**last, "holds": not last["holds"], "numbers": "other numbers"}]
    file.write_text(json.dumps(reported))
    done = unsample("experiment", "compare", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both.md", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [row["differs"] for row in rows] == ["differs"] + [""] * (len(rows) - 1)
    assert rows[0]["claim"] == last["sentence"]
    *_, one, two = rows[0].values()
    assert one.endswith(last["numbers"])
    assert two.endswith("other numbers")
    assert next(list(row.values())[-1] for row in rows if row["claim"] == first["sentence"]) == ""
    assert last["sentence"] in (tmp_path / "both.md").read_text()


def test_one_run_beside_nothing_is_one_line(unsample, tmp_path):
    done = unsample("experiment", "compare", tmp_path)
    assert done.code == 2
    assert "expected two folders" in done.err
    done = unsample("experiment", "compare", tmp_path, tmp_path)
    assert done.code == 2
    assert "no experiments in" in done.err


def test_list_names_them_all(unsample):
    reported = unsample("experiment", "list", "--json")
    assert [one["id"] for one in json.loads(reported.out)] == list(EXPERIMENTS)
    assert recipe("E10").title in unsample("experiment", "list").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "E99"), "unknown experiment"),
        (("run", "E1", "--size", "huge"), "size"),
        (("report",), "no experiments in"),
        (("run", "E1", "--data", "nowhere.png", "--size", "smoke"), "nowhere.png"),
    ],
)
def test_mistakes_are_one_line_and_cost_nothing(unsample, quick, tmp_path, arguments, says):
    cache = ("--cache", tmp_path / "cache") if arguments[0] == "run" else ()
    done = unsample("experiment", *arguments, "--out", tmp_path / "out", *cache)
    assert done.code == 2
    assert says in done.err.splitlines()[-1]
    assert not (tmp_path / "cache").exists()


def test_a_damaged_report_is_one_line(unsample, tmp_path):
    (tmp_path / "E1").mkdir()
    (tmp_path / "E1" / "metrics.json").write_text("{")
    done = unsample("experiment", "report", "--out", tmp_path)
    assert done.code == 2
    assert "run that experiment again" in done.err
