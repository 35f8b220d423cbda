"""E10 on data of known variance: the latent's std follows from scalar gains, here computed from the betas alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from unsample.diagnostics import plain_mask, psnr
from unsample.runs.directory import Run
from unsample.studies.experiments import recipe, write
from unsample.studies.experiments.e10_forward_start import ForwardStart

from .closed_form import gain, scales

COUNT, STEPS, STARTS = 40, 10, (0, 2, 10)


def latent_std(v: float, k: int) -> float:
    """Std of the latent of a generated image: sampled from unit noise, forward to level k, inverted at the target's time."""
    alpha, sigma = scales(STEPS)
    x0 = math.prod(gain(v, level, level - 1, level, STEPS) for level in range(STEPS, 0, -1))
    up = math.prod(gain(v, level, level + 1, level + 1, STEPS) for level in range(k, STEPS))
    return up * math.sqrt((alpha[k] * x0) ** 2 + sigma[k] ** 2)


@pytest.fixture
def found(lab):
    return ForwardStart(COUNT, STEPS, STARTS).run(lab)


def test_the_spread_of_latents_is_the_closed_form(found, lab):
    """Each area holds pixels of both halves; its variance is the mean of theirs."""
    plain = plain_mask(lab.generated(COUNT, STEPS).shown)
    for k in STARTS:
        rows = {row["name"]: row for row in found.metrics["generated"][f"k={k}"]["rows"]}
        variances = torch.full((16,), latent_std(0.1, k) ** 2)
        variances[:8] = latent_std(1e-5, k) ** 2
        variances = variances.expand(plain.shape)
        assert rows["std other"]["value"] == pytest.approx(float(variances[~plain].mean().sqrt()), rel=0.02), k
        if not plain[..., 8:].any():
            assert rows["std plain"]["value"] == pytest.approx(float(variances[plain].mean().sqrt()), rel=0.02), k


def test_claims_follow_from_the_numbers(found, lab):
    verdicts = {claim.sentence: claim.holds for claim in found.claims}
    assert verdicts["DDIM latents of plain areas have too little noise."] is True
    pictures = lab.generated(COUNT, STEPS)
    plain, mended = (lab.inverted(pictures, forward=str(k), steps=STEPS).reconstruction for k in (0, 2))
    change = float((psnr(pictures.shown, mended) - psnr(pictures.shown, plain)).mean())
    assert any(f"{change:+.2f} dB" in claim.numbers for claim in found.claims)


def test_the_report_holds_everything(found, lab, tmp_path):
    page = write(Run.open(tmp_path / "run", "experiment", {}, []), recipe("E10"), "smoke", lab, found)
    assert page.read_text().count("<img") == len(found.figures)
    text = (tmp_path / "run" / "E10" / "report.md").read_text()
    for figure in found.figures:
        assert (tmp_path / "run" / "E10" / f"{figure.name}.svg").read_bytes().startswith(b"<?xml")
        assert f"({figure.name}.png)" in text
    assert all(claim.numbers in text for claim in found.claims)
    reported = json.loads((tmp_path / "run" / "E10" / "metrics.json").read_text())
    assert len(reported["claims"]) == len(found.claims)


def test_pictures_of_the_data_are_left_out_on_request(found, lab, tmp_path):
    shown = found.figures[0]
    two = replace(found, figures=(shown, replace(shown, name="hidden", shows_data=True)))
    page = write(Run.open(tmp_path / "run", "experiment", {}, []), recipe("E10"), "smoke", lab, two, shows_data=False)
    assert page.read_text().count("<img") == 1
    assert {file.stem for file in page.parent.glob("*.png")} == {shown.name}
    assert "left out here" in (tmp_path / "run" / "E10" / "report.md").read_text()


def test_without_the_papers_k_only_the_flaw_is_judged(lab):
    assert len(ForwardStart(COUNT, 4, (0, 1)).run(lab).claims) == 1


def test_generated_images_are_the_same_for_any_count(lab):
    few, many = lab.generated(3, 2), lab.generated(5, 2)
    assert torch.equal(few.noise, many.noise[:3])
    assert torch.allclose(few.pixels, many.pixels[:3], atol=1e-6)
