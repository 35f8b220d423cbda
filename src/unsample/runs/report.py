"""A run of `invert` told to people: diagnoses, tables, pictures, the report.

Everything here reads what the run left behind, its manifest and its tensors, so it can be told again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import pictures as plotting
from ..core.starts import FromImage
from ..diagnostics import Diagnosis, diagnose, mae, plain_mask, psnr
from ..methods.starts import AUTO_SCORE, parse_start, whiteness_scores
from ..pictures.read import png_bytes
from . import html as report
from .directory import Run, slug
from .read_back import starts_of, way_back

__all__ = ["diagnose_run", "diagnose_tensors", "starts_of", "table_of", "title", "way_back", "write_pictures", "write_report"]


def diagnose_run(run: Run) -> dict[str, Diagnosis]:
    """The diagnoses of a complete run of `invert`, one per start, from its tensors."""
    return diagnose_tensors(run.tensors(), starts_of(run))


def diagnose_tensors(tensors: Mapping[str, Tensor], starts: Sequence[str]) -> dict[str, Diagnosis]:
    """One diagnosis per start of what an inversion left behind; reconstructions are clamped as a viewer would."""
    return {
        title(text): diagnose(
            tensors[f"latent.{text}"],
            images=tensors["images"],
            reconstruction=tensors[f"reconstruction.{text}"].clamp(-1, 1),
            codec=tensors["codec"].clamp(-1, 1) if "codec" in tensors else None,
        )
        for text in starts
    }


def title(text: str) -> str:
    """A start for people.

    >>> title("0"), title("4%")
    ('usual inversion', 'forward start 4%')
    """
    return "usual inversion" if isinstance(parse_start(text), FromImage) else f"forward start {text}"


def write_report(run: Run, tensors: Mapping[str, Tensor], diagnoses: Mapping[str, Diagnosis]) -> None:
    """`overview.png` and `report.html` of a complete run of `invert`."""
    starts = starts_of(run)
    names = [item.name for item in run.manifest.items]
    shown = {text: (tensors[f"latent.{text}"], tensors[f"reconstruction.{text}"]) for text in starts}
    columns = [plotting.LatentColumns(title(text), *pictures) for text, pictures in shown.items()]
    picture = plotting.overview(tensors["images"], names, columns)
    run.write("overview.png", picture)
    more = f"; the first {plotting.ROWS} of {len(names)} pictures" if len(names) > plotting.ROWS else ""
    page = report.html_page(
        run.manifest,
        table_of(run, diagnoses),
        report.sentences(diagnoses),
        {f"Each way of inverting, and true noise to compare with{more}": picture},
        _item_table(run, tensors, starts),
    )
    run.write("report.html", page)


def write_pictures(run: Run, tensors: Mapping[str, Tensor]) -> None:
    """`reconstructions/`, one folder per start: what was sampled back, picture by picture."""
    for text in starts_of(run):
        for index, (item, image) in enumerate(zip(run.manifest.items, tensors[f"reconstruction.{text}"], strict=True)):
            run.write(f"reconstructions/{slug(text)}/{index:04d}-{slug(Path(item.name).stem)}.png", png_bytes(image))


def table_of(run: Run, diagnoses: Mapping[str, Diagnosis]) -> report.Table:
    """The table of a run, with what it cost."""
    costs: Any = run.manifest.results.get("cost", {})
    return report.compare(diagnoses, {title(text): str(cost["nfe"]) for text, cost in costs.items()})


def _item_table(run: Run, tensors: Mapping[str, Tensor], starts: Sequence[str]) -> report.Table:
    """Plain share and reconstruction error of each picture."""
    images = tensors["images"]
    columns = [[f"{share:.0%}" for share in plain_mask(images).float().mean((1, 2)).tolist()]]
    head = ["plain"]
    if "codec" in tensors:
        columns.append([f"{value:.2f}" for value in psnr(images, tensors["codec"].clamp(-1, 1)).tolist()])
        head.append("PSNR of the codec")
    for text in starts:
        back = tensors[f"reconstruction.{text}"].clamp(-1, 1)
        if text.startswith("auto"):
            columns += [[str(k) for k in tensors[f"start.{text}"].tolist()], _whiteness(images, tensors[f"latent.{text}"])]
            head += [f"{title(text)}: steps", "white where plain"]
        if f"residual.{text}" in tensors:
            columns += [[f"{v:.1e}" for v in tensors[f"residual.{text}"].tolist()]]
            head += [f"{title(text)}: worst residual"]
        columns += [[f"{v:.4f}" for v in mae(images, back).tolist()], [f"{v:.2f}" for v in psnr(images, back).tolist()]]
        head += [f"{title(text)}: MAE", "PSNR, dB"]
    items = run.manifest.items
    rows = zip((item.name for item in items), *columns, ("; ".join(item.notes) for item in items), strict=True)
    return report.Table(("picture", *head, "note"), tuple(rows))


def _whiteness(images: Tensor, latents: Tensor) -> list[str]:
    """What the automatic start went by: yes or no, and the scores of variance and neighbours."""
    scores = whiteness_scores(images, latents)
    fine = scores.abs().amax(1) < AUTO_SCORE
    return [
        f"{'yes' if white else 'no'} ({spread:+.1f}, {pairs:+.1f})"
        for white, (spread, pairs) in zip(fine.tolist(), scores.tolist(), strict=True)
    ]
