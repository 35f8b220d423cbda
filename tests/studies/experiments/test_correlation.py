"""E1 on independent pixels: nothing correlates, and the experiment must say so."""

from __future__ import annotations

from unsample.diagnostics import top_k_correlation
from unsample.studies.experiments.e01_correlation import Correlation


def test_independent_pixels_do_not_correlate(lab):
    found = Correlation(64, 5).run(lab)
    rows = found.metrics["generated"]
    pictures = lab.generated(64, 5)
    for name, x in {"noise": pictures.noise, "image": pictures.pixels}.items():
        assert abs(rows[name]["value"] - top_k_correlation(x)) < 1e-6
    assert [claim.holds for claim in found.claims] == [False, None]  # latents and images share their intervals
    assert rows["latent"]["null"]["low"] < rows["latent"]["value"] < rows["latent"]["null"]["high"]


def test_too_few_images_cannot_tell(lab):
    assert [claim.holds for claim in Correlation(8, 3).run(lab).claims] == [None, None]
