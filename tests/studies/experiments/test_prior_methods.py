"""E14 on data of known variance: the ways it measures, against inversions made one by one, and its counts by hand."""

from __future__ import annotations

import pytest

import unsample as us
from unsample.diagnostics import area_sums, plain_area, psnr
from unsample.methods.registry import METHODS, parse_method
from unsample.studies.experiments.e14_prior_methods import PriorMethods, _counted, _is_prior

COUNT, NFE = 36, 8
METHODS_HERE = ("ddim:eval_at=source", "heun", "edict", "edit-friendly", "gradient-first", "look-ahead")


@pytest.fixture(scope="module")
def found(kept_lab):
    return PriorMethods(COUNT, NFE, METHODS_HERE, ("2",)).run(kept_lab)


def rows_of(found, method, forward):
    (way,) = (way for way in found.metrics["ways"] if (way["method"], way["forward"]) == (method, forward))
    return way, {row["name"]: row for row in way["rows"]}


def test_every_way_is_what_it_says_at_no_more_than_its_cost(found, kept_lab):
    """Reference: each way by `invert` and `sample`, with the steps it was given."""
    images = kept_lab.generated(COUNT, NFE).shown
    for method in ("ddim", "ddim:eval_at=source", "heun", "edict", "look-ahead"):
        way, rows = rows_of(found, method, "0")
        assert way["nfe_up"] <= NFE
        stepper, steps = parse_method(method), way["steps"]
        there = us.invert(kept_lab.model, images, method=stepper, start=us.FromImage(), steps=steps)
        back = us.sample(kept_lab.model, there.latent, method=stepper.sampler, stored=there.stored, steps=steps)
        assert there.nfe == way["nfe_up"]
        std = area_sums(there.latent, plain_area(images, there.latent)).std
        assert rows["std plain"]["value"] == pytest.approx(std, rel=1e-4), method
        error = psnr(images, back.images.clamp(-1, 1)).mean()
        assert rows["PSNR"]["value"] == pytest.approx(float(error), rel=1e-2), method


def test_the_usual_inversion_and_ddim_are_always_among_them(found):
    assert rows_of(found, "ddim", "0")[0]["steps"] == NFE
    assert rows_of(found, "ddim", "2")[0]["steps"] == NFE + 2


def test_counts_are_those_of_the_rows(found):
    """By hand: prior methods are Heun and EDICT here; forward diffusion alone and a method too expensive do not count."""
    better, correlated, floor, nearer, white, cheap = found.claims
    usual = {m: rows_of(found, m, "0")[1] for m in ("ddim", "heun", "edict")}
    wins = [m for m in ("heun", "edict") if usual[m]["PSNR"]["value"] > usual["ddim"]["PSNR"]["value"]]
    assert better.numbers.startswith(f"{len(wins)} of 2")
    assert better.holds is (len(wins) == 2)
    rs = {m: usual[m]["top-20 patch correlation"] for m in ("heun", "edict")}
    assert correlated.numbers.startswith(f"{sum(r['low'] > r['null']['high'] for r in rs.values())} of 2")
    started = {m: rows_of(found, m, "2")[1] for m in ("ddim", *METHODS_HERE) if METHODS[m.partition(":")[0]].family in KINDS}
    at_floor = [m for m, rows in started.items() if is_floor(rows["top-20 patch correlation"])]
    assert floor.numbers.startswith(f"{len(at_floor)} of {len(started)}")
    assert all((m in floor.numbers) is (m not in at_floor) for m in ("heun", "edict"))
    for claim in (nearer, white, cheap):
        assert f" of {len(started)} (" in claim.numbers
    noise = [m for m, rows in started.items() if in_null(rows["std plain"])]
    assert white.numbers.startswith(f"{len(noise)} of")
    assert "gradient-first, usual inversion: too expensive" in found.setting


KINDS = ("explicit", "reversible", "flow")


def is_floor(row):
    return row["value"] <= row["null"]["high"]


def in_null(row):
    return row["null"]["low"] <= row["value"] <= row["null"]["high"]


@pytest.mark.parametrize(
    ("verdicts", "holds", "numbers"),
    [
        ({"a": (True, "1"), "b": (True, "2")}, True, "2 of 2 (r)"),
        ({"a": (True, "1"), "b": (False, "2"), "c": (None, "3")}, False, "1 of 3 (r); not: b 2; cannot be told: c 3"),
        ({"a": (True, "1"), "c": (None, "3")}, None, "1 of 2 (r); cannot be told: c 3"),
        ({}, None, "0 of 0 (r)"),
    ],
)
def test_one_exception_refutes_and_is_named(verdicts, holds, numbers):
    assert _counted("All.", verdicts, "r") == ("All.", numbers, holds)


def test_prior_methods_are_others_and_not_ddim():
    assert [m for m in METHODS if not _is_prior(m)] == ["ddim", "contraction-aware", "exact", "look-ahead"]
    assert not _is_prior("ddim:eval_at=source")


def test_too_few_images_judge_no_correlation(kept_lab):
    found = PriorMethods(4, 4, ("heun",), ("1",)).run(kept_lab)
    assert [claim.holds for claim in found.claims if "correlat" in claim.sentence] == [None, None]
    assert rows_of(found, "heun", "0")[1]["top-20 patch correlation"]["value"] is None
