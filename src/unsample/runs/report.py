"""The report of a run of `invert`: diagnoses, tables, sentences made from their numbers, pictures, an HTML page.

Everything here reads what the run left behind, its manifest and its tensors, so it can be written again at any time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from .. import pictures as plotting
from ..core.grid import Grid
from ..core.schedule import Level
from ..core.starts import FromImage
from ..diagnostics import Diagnosis, Row, diagnose, mae, plain_mask, psnr
from ..diagnostics.row import STAR, format_number, no_intervals, outside_noise
from ..errors import FEW, counted
from ..methods.starts import AUTO_SCORE, parse_start, whiteness_scores
from ..pictures.read import Rejected
from .directory import Run
from .html import Block, Bullets, Footer, Heading, Picture, Table, page
from .inversions import inverted_tensors, starts_of
from .names import slug

ROWS = {
    "mean": "of all values; noise has 0.",
    "std": "their standard deviation; noise has 1. Plain is where the photograph is nearly of one colour, other is the rest.",
    "lag-1": "how much a value is like those right of it and below it, as a correlation; noise has 0.",
    "excess kurtosis": "above 0 more values are far from the middle than noise has.",
    "KL to N(0, 1)": "how far mean and variance of all values are from those of noise, in nats; 0 is not at all.",
    "KL per coordinate": "the same at each place of the latent over all pictures, whose number noise's own value depends on.",
    "low-frequency power": "noise has 1; above it the latent holds broad shapes, as the photograph does.",
    "normality rejected": "the share of latents that a test (Shapiro-Wilk) tells from a normal distribution: 5 % of noise.",
    "top-20 patch correlation": "mean of the 20 largest correlations between places over all pictures; noise's is not 0.",
    "plain fraction": "the share of the photographs' pixels that are plain.",
    "MAE": "mean difference of a picture sampled back from its photograph, both in [-1, 1]; less is better.",
    "PSNR": "the same from the mean square, in dB; more is better, from 40 on it is hard to see.",
    "SSIM": "how like its photograph it is in structure; 1 is equal.",
}
"""What the rows of the table of diagnostics say, by how their names begin."""


def diagnose_run(run: Run) -> dict[str, Diagnosis]:
    """The diagnoses of a complete run of `invert`, one per start, from its tensors."""
    return diagnose_tensors(inverted_tensors(run), starts_of(run))


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
    blocks = _blocks(run, tensors, diagnoses, picture)
    run.write("report.html", page(f"unsample {run.manifest.command}: {counted(len(names), 'picture')}", blocks))


def _blocks(run: Run, tensors: Mapping[str, Tensor], diagnoses: Mapping[str, Diagnosis], picture: bytes) -> Iterator[Block]:
    """What `report.html` says."""
    manifest, count = run.manifest, len(run.manifest.items)
    more = f"; the first {plotting.ROWS} of {count} pictures" if count > plotting.ROWS else ""
    yield Bullets((*summary(run), *sentences(diagnoses), *outside_noise(diagnoses)))
    yield Picture(f"Each way of inverting, and true noise to compare with{more}", picture, "overview.png")
    yield Heading("Latents against true noise")
    yield (
        "An estimate with its 95\N{NO-BREAK SPACE}% interval over pictures; the last column is the same statistic on true "
        "noise of the same shape, count and areas. Images are measured in [-1, 1]."
    )
    yield table_of(run, diagnoses)
    names = [row.name for diagnosis in diagnoses.values() for row in diagnosis.rows]
    told = (f"{row}: {words}" for row, words in ROWS.items() if any(name.startswith(row) for name in names))
    yield Bullets((*no_intervals(count), *told))
    yield Heading("Photo by photo")
    yield _item_table(run, tensors, starts_of(run))
    yield from rejected_blocks(rejected_of(run))
    yield Heading("Settings")
    yield Table(("", ""), tuple((name, _setting(value)) for name, value in manifest.settings.items()))
    versions = ", ".join(f"{name} {value}" for name, value in manifest.versions.items())
    yield Footer(f"{versions}. Finished {manifest.finished or ''}.")


def rejected_of(run: Run) -> list[Rejected]:
    """The pictures that were left out of a run, as its manifest lists them."""
    try:
        return TypeAdapter(list[Rejected]).validate_python(run.manifest.results.get("rejected", []))
    except ValidationError:
        return []


def rejected_blocks(rejected: Iterable[Rejected]) -> list[Block]:
    """Pictures that were left out and why, as blocks of a report; nothing where there are none."""
    rows = tuple((one.name, one.reason) for one in rejected)
    return [Heading("Pictures that were left out"), Table(("picture", "why"), rows)] if rows else []


def _setting(value: object) -> str:
    """A setting as people type it.

    >>> _setting(None), _setting(["0", "auto"]), _setting(1.0), _setting(True)
    ('-', '0, auto', '1', 'yes')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_pictures(run: Run, tensors: Mapping[str, Tensor]) -> None:
    """`reconstructions/`, one folder per start: what was sampled back, picture by picture."""
    for text in starts_of(run):
        run.write_images(f"reconstructions/{slug(text)}", tensors[f"reconstruction.{text}"])


def table_of(run: Run, diagnoses: Mapping[str, Diagnosis]) -> Table:
    """Diagnostics as rows, starts as columns, true noise last; and below what each start cost."""
    costs, rows = run.manifest.costs, []
    for name in dict.fromkeys(row.name for diagnosis in diagnoses.values() for row in diagnosis.rows):
        cells = [next((row for row in diagnosis.rows if row.name == name), None) for diagnosis in diagnoses.values()]
        rows.append((name, *map(_cell, cells), _noise(cells)))
    if costs:
        spent = {title(text): f"{cost['nfe']:g}" for text, cost in costs.items() if "nfe" in cost}
        rows.append(("network evaluations, up + down", *(spent.get(name, "") for name in diagnoses), ""))
    return Table(("", *diagnoses, "true noise"), tuple(rows))


def _noise(cells: Sequence[Row | None]) -> str:
    """The same diagnostic of true noise, or why there is none."""
    if all(row is None or math.isnan(row.value) for row in cells):
        return next((row.note for row in cells if row), "")
    null = next((row.null for row in cells if row and row.null), None)
    return f"{format_number(null.mean)} [{format_number(null.low)}, {format_number(null.high)}]" if null else ""


def _cell(row: Row | None) -> str:
    if row is None or math.isnan(row.value):
        return "-"
    return f"{row}{STAR if row.is_noise is False else ''}"


def summary(run: Run) -> list[str]:
    """How a run's pictures were inverted, in the same words for all commands, a line for each start; what came back; draws.

    "look-ahead in 50 steps, forward start 4%: timestep 20 of 1000 ...; network evaluations per picture: 49 up, 50 down".
    """
    settings, results = run.manifest.settings, run.manifest.results
    forward, places, spent = settings.get("forward"), results.get("starts"), results.get("nfe")
    texts = [str(text) for text in forward] if isinstance(forward, list) else []
    lines = []
    for text in texts if run.manifest.command == "invert" else texts[-1:]:
        where = places.get(text) if isinstance(places, dict) else None
        line = f"{settings.get('method')} in {settings.get('steps')} steps, {title(text)}{f': {where}' if where else ''}"
        cost = run.manifest.costs.get(text, {})
        counts = {"up": cost["nfe_up"], "down": cost["nfe"] - cost["nfe_up"]} if "nfe_up" in cost and "nfe" in cost else spent
        told = ", ".join(f"{name} {count}" for name, count in counts.items()) if isinstance(counts, dict) else ""
        told = f"at most {told}" if told and text.startswith("auto") else told
        lines.append(f"{line}; network evaluations per picture: {told}" if told else line)
    draws: Any = results.get("draws", [])
    if isinstance(back := results.get("psnr"), float):
        lines.append(f"sampled back unchanged: PSNR {back:.1f} dB{' on average' if len(run.manifest.items) > 1 else ''}")
    return lines + [_draws_text(row["picture"], row["to"], row["nearest"]) for row in draws]


def _draws_text(picture: str, to: str, nearest: Sequence[Sequence[float]]) -> str:
    """The draws of a picture that are nearest to it.

    >>> _draws_text("cat.jpg", "lion", [(2, 0.2), (0, 0.25)])
    'cat.jpg to lion, nearest first: seed 2 at 0.200, seed 0 at 0.250'
    """
    more = f" ... and {len(nearest) - FEW} more" if len(nearest) > FEW else ""
    shown = ", ".join(f"seed {seed:.0f} at {far:.3f}" for seed, far in nearest[:FEW])
    return f"{picture}{f' to {to}' if to else ''}, nearest first: {shown}{more}"


def start_place(text: str, levels: Sequence[Level], grid: Grid) -> str:
    """Where pictures started, for people; "" at the clean end.

    "timestep 20 of 1000, sigma/alpha 0.08, within move 2 of 20", of a level between two of the grid; from the least to the
    most where they differ.
    """
    if isinstance(parse_start(text), FromImage):
        return ""

    least, most = min(levels, key=lambda level: level.ratio), max(levels, key=lambda level: level.ratio)
    trained = len(grid.schedule) if grid.schedule else 0

    def told(level: Level) -> str:
        where = "before" if level.t == grid[level.index].t else "within"
        time = f"timestep {level.t:.4g} of {trained}, sigma/alpha {level.ratio:.2g}"
        return f"{time}, {where} move {level.index + 1} of {grid.steps}"

    return told(least) if least == most else f"each picture its own, from {told(least)}, to {told(most)}"


def sentences(diagnoses: Mapping[str, Diagnosis]) -> list[str]:
    """What the numbers say of plain areas, a sentence each start; nothing is said that was not measured."""
    said = [
        "An inversion should end in Gaussian noise: everywhere standard deviation 1, and neighbours that do not correlate."
    ]
    usual: float | None = None
    for name, diagnosis in diagnoses.items():
        rows = {row.name: row for row in diagnosis.rows}
        std, lag, psnr = rows.get("std plain"), rows.get("lag-1 plain"), rows.get("PSNR")
        if std is None or lag is None or math.isnan(std.value):
            continue
        text = f"{name}: in plain areas standard deviation {std.value:.2f}, {_neighbours(lag.value)}"
        missing = abs(std.value - 1)
        if usual is not None and missing < usual:
            text += f"; {1 - missing / usual:.0%} of the missing noise is repaired"
        usual = missing if usual is None else usual
        said.append(f"{text}; sampled back at {psnr.value:.1f} dB." if psnr else f"{text}.")
    return said if len(said) > 1 else []


def _neighbours(lag: float) -> str:
    """How neighbours correlate; in a small plain area the estimate may be more than a correlation can.

    >>> _neighbours(0.5), _neighbours(1.09)
    ('neighbours correlate +0.50', 'neighbours are as good as equal (their covariance is +1.09 of the variance)')
    """
    if abs(lag) <= 1:
        return f"neighbours correlate {lag:+.2f}"
    return f"neighbours are as good as {'equal' if lag > 0 else 'opposite'} (their covariance is {lag:+.2f} of the variance)"


def _item_table(run: Run, tensors: Mapping[str, Tensor], starts: Sequence[str]) -> Table:
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
            kind = "timestep" if f"timestep.{text}" in tensors else "start"  # which earlier versions counted in moves
            columns += [
                [f"{k:.4g}" for k in tensors[f"{kind}.{text}"].tolist()],
                _whiteness(images, tensors[f"latent.{text}"]),
            ]
            head += [f"{title(text)}: {kind}", "white where plain"]
        if f"residual.{text}" in tensors:
            columns += [[f"{v:.1e}" for v in tensors[f"residual.{text}"].tolist()]]
            head += [f"{title(text)}: worst residual"]
        columns += [[f"{v:.4f}" for v in mae(images, back).tolist()], [f"{v:.2f}" for v in psnr(images, back).tolist()]]
        head += [f"{title(text)}: MAE", "PSNR, dB"]
    items = run.manifest.items
    rows = zip((item.name for item in items), *columns, ("; ".join(item.notes) for item in items), strict=True)
    return Table(("picture", *head, "note"), tuple(rows))


def _whiteness(images: Tensor, latents: Tensor) -> list[str]:
    """What the automatic start went by: yes or no, and the scores of variance and neighbours."""
    scores = whiteness_scores(images, latents)
    fine = scores.abs().amax(1) < AUTO_SCORE
    return [
        f"{'yes' if white else 'no'} ({spread:+.1f}, {pairs:+.1f})"
        for white, (spread, pairs) in zip(fine.tolist(), scores.tolist(), strict=True)
    ]
