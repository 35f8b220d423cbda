"""E18 on data of known variance: every way's spread from scalar gains, computed from the betas alone."""

from __future__ import annotations

import math

import pytest
import torch

from unsample.diagnostics import plain_mask, psnr
from unsample.studies.experiments.e18_conventions import PATHS, STARTS, TIMES, Conventions

from .closed_form import gain, scales

COUNT, STEPS = 40, 10


def latent_std(v: float, time: str, start: str) -> float:
    """Of a generated image, placed at level k or k + 1, and moved on as if at level k."""
    alpha, sigma = scales(STEPS)
    k = int(start[0])
    placed = k + start.endswith("@next")
    x0 = math.prod(gain(v, level, level - 1, level, STEPS) for level in range(STEPS, 0, -1))
    up = math.prod(gain(v, i, i + 1, i if time == "matched" else i + 1, STEPS) for i in range(k, STEPS))
    return up * math.sqrt((alpha[placed] * x0) ** 2 + sigma[placed] ** 2)


def pooled(lab, time: str, start: str, plain: bool) -> float:
    """In the plain or the other areas, which hold pixels of both halves."""
    mask = plain_mask(lab.generated(COUNT, STEPS).shown) == plain
    variances = torch.full((16,), latent_std(0.1, time, start) ** 2, dtype=torch.float64)
    variances[:8] = latent_std(1e-5, time, start) ** 2
    return float(variances.expand(mask.shape)[mask].mean().sqrt())


@pytest.fixture(scope="module")
def lab(kept_lab):
    return kept_lab


@pytest.fixture(scope="module")
def found(lab):
    return Conventions(COUNT, STEPS).run(lab)


def test_the_spread_of_every_way_is_the_closed_form(found, lab):
    for time in TIMES:
        for start in STARTS:
            rows = {row["name"]: row["value"] for row in found.metrics["generated"]["ways"][f"{time}, {start}"]["rows"]}
            for area, plain in (("plain", True), ("other", False)):
                assert rows[f"std {area}"] == pytest.approx(pooled(lab, time, start, plain), rel=0.03, abs=5e-3), (
                    time,
                    start,
                )


def test_shares_are_those_of_the_closed_form(found, lab):
    """Each change's part of the distance from the usual inversion to 1."""
    usual = pooled(lab, "shifted", "0", True)
    for path, changes in PATHS.items():
        before = usual
        for what, (time, start) in changes:
            after = pooled(lab, time, start, True)
            share = found.metrics["generated"]["parts"][path][what]["std plain"]
            assert share["estimate"] == pytest.approx((after - before) / (1 - usual), abs=0.04), (path, what)
            assert share["low"] < share["estimate"] < share["high"]
            before = after


def test_the_changes_of_a_path_add_up(found, lab):
    """To the way at its end: reconstructions exactly, and the deviation to the tables' own values."""
    pictures, ways = lab.generated(COUNT, STEPS), found.metrics["generated"]["ways"]
    rows = {name: {row["name"]: row for row in way["rows"]} for name, way in ways.items()}
    usual = rows["shifted, 0"]["std plain"]
    for path, changes in PATHS.items():
        time, start = changes[-1][1]
        parts = found.metrics["generated"]["parts"][path]
        back = [lab.inverted(pictures, *way, steps=STEPS).reconstruction for way in ((TIMES[time], start), ("ddim", "0"))]
        db = [psnr(pictures.shown, images).clamp(max=60) for images in back]
        assert sum(part["PSNR"]["estimate"] for part in parts.values()) == pytest.approx(float((db[0] - db[1]).mean()))
        whole = (rows[f"{time}, {start}"]["std plain"]["value"] - usual["value"]) / (usual["null"]["mean"] - usual["value"])
        assert sum(part["std plain"]["estimate"] for part in parts.values()) == pytest.approx(whole)


def test_claims_follow_from_the_closed_form(found, lab):
    verdicts = {claim.sentence: claim for claim in found.claims}
    std = {
        key: pooled(lab, *key, True) for key in (("shifted", "0"), ("matched", "0"), ("shifted", "2"), ("shifted", "2@next"))
    }
    whiter = verdicts["Matched time alone makes DDIM latents of plain areas whiter."]
    assert whiter.holds is (std["matched", "0"] > std["shifted", "0"])
    share = (std["shifted", "2"] - std["shifted", "0"]) / (std["shifted", "2@next"] - std["shifted", "0"])
    (most,) = (claim for sentence, claim in verdicts.items() if sentence.startswith("Most of what a start"))
    assert most.holds is (share > 0.5)
    assert float(most.numbers.split("; ")[1].split(" %")[0]) == pytest.approx(100 * share, abs=3)


def test_the_error_is_told_where_the_noise_is_known(found):
    (columns,) = (table.head for title, table in found.tables.items() if title.startswith("The ways"))
    assert "error, plain" in columns
