"""Reports of experiments E1 to E19: one folder each, all on one page beside the paper's numbers, and two runs side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ...core.reading import read_json
from ...errors import RunError, counted
from ...runs.directory import Run
from ...runs.html import Block, Code, Heading, Picture, Table, markdown, page
from ...runs.manifest import identity, short_hash
from ...runs.names import place_of
from ...runs.report import rejected_blocks
from ...runs.settings import precision_of
from .findings import Claim, Findings
from .lab import Lab
from .registry import EXPERIMENTS, Recipe, recipe

METRICS = "metrics.json"

_LEFT_OUT = "Pictures that show photographs of the data are left out here; the command draws them."


class _Stored(BaseModel):
    """What `join` reads back of an experiment."""

    model_config = ConfigDict(extra="ignore")

    id: str
    size: str
    model: str
    digest: str
    about: str
    claims: list[dict[str, Any]]


def open_reports(out: Path | None, size: str, lab: Lab, *, shows_data: bool = True) -> Run:
    """The folder of the reports of this model, size, seed and data, new or to be added to; by default named after them.

    Raises:
        RunError: `out` holds something else, or reports of another model, size, seed or data.
    """
    places: list[str | Path] = [*lab.data, *([lab.checkpoints] if lab.checkpoints else [])]
    given = [str(Path(place).expanduser().resolve()) for place in places]
    settings = {
        "model": lab.model.name,
        "model_digest": lab.model.digest,
        "dtype": precision_of(lab.model),
        "size": size,
        "seed": lab.seed,
        "data": short_hash(*given) if given else None,  # no names, for reports are passed on
        "shows_data": shows_data,
        "batch_size": lab.batch_size,
    }
    return Run.open(place_of(out, "experiment", json.dumps(identity(settings))), "experiment", settings, [])


def write(run: Run, chosen: Recipe, size: str, lab: Lab, findings: Findings, *, shows_data: bool = True) -> Path:
    """`report.md`, `report.html`, `metrics.json`, and each figure as PNG and SVG, below `run`; the path of the report.

    Without `shows_data`, figures in which photographs of the data can be seen are left out, and the report says so.
    """
    figures = [figure for figure in findings.figures if shows_data or not figure.shows_data]
    about = f"{findings.setting} {_made_with(lab, size)}"
    blocks: list[Block] = [chosen.question, about, Code(_command(chosen, size, lab)), f"The paper: {chosen.paper}"]
    blocks += [Heading("Claims"), _claims_table(findings.claims)] if findings.claims else []
    for title, table in findings.tables.items():
        blocks += [Heading(title), table]
    blocks += [Picture(figure.caption, figure.drawing.png, f"{figure.name}.png") for figure in figures]
    blocks += [_LEFT_OUT] if len(figures) < len(findings.figures) else []
    if lab.rejected and shows_data:  # no names otherwise, for reports are passed on
        blocks += rejected_blocks(lab.rejected.values())
    elif lab.rejected:
        blocks += [f"Left out, for they cannot be read: {counted(len(lab.rejected), 'photograph')}."]
    title = f"{chosen.id}. {chosen.title}"
    metrics = {
        "id": chosen.id,
        "size": size,
        "model": lab.model.name,
        "digest": lab.model.digest,
        "about": about,
        "claims": [asdict(claim) for claim in findings.claims],
        "metrics": findings.metrics,
    }
    for figure in figures:
        run.write(f"{chosen.id}/{figure.name}.png", figure.drawing.png)
        run.write(f"{chosen.id}/{figure.name}.svg", figure.drawing.svg)
    run.write(f"{chosen.id}/report.md", markdown(title, blocks))
    run.write(f"{chosen.id}/report.html", page(title, blocks))
    run.write(f"{chosen.id}/{METRICS}", json.dumps(_plain(metrics), indent=1, allow_nan=False) + "\n")
    run.finish({}, {})
    return run.path / chosen.id / "report.html"


def join(out: Path) -> tuple[Path, Table]:
    """One page of all experiments that were run into `out`, as `README.md` and `index.html`; the page and all claims.

    Raises:
        RunError: There are none, or one is damaged.
    """
    stored, rows = _stored_in(out), []
    blocks: list[Block] = [
        f"{counted(len(stored), 'experiment')}. Each claim as measured, beside the paper's numbers or shape."
    ]
    for one in stored:
        chosen, claims = recipe(one.id), [Claim(**claim) for claim in one.claims]
        blocks += [
            Heading(f"{one.id}. {chosen.title}", one.id),
            f"{chosen.question} {one.about}",
            f"The paper: {chosen.paper}",
        ]
        blocks += [_claims_table(claims)] if claims else []
        rows += [(one.id, claim.verdict, claim.sentence, claim.images, claim.numbers) for claim in claims]
    title = "The paper, measured"
    run = Run.load(out)
    run.write("README.md", markdown(title, blocks))
    run.write("index.html", page(title, blocks))
    run.finish({}, {})
    return out / "index.html", Table(("", "", "claim", "images", "measured"), tuple(rows))


def side_by_side(folders: Sequence[Path]) -> Table:
    """The claims of several runs of the experiments, as of several models; those first on which their verdicts differ.

    Claims belong together by experiment, sentence and images; one that a run does not make is an empty cell. Experiments
    that only one of them has are left out.

    Raises:
        RunError: A folder without experiments, or a damaged one.
    """
    columns, heads = list[dict[tuple[str, str, str], Claim]](), list[str]()
    for folder in folders:
        stored = _stored_in(folder)
        claims = {one.id: [Claim(**claim) for claim in one.claims] for one in stored}
        columns.append({(id, claim.sentence, claim.images): claim for id, made in claims.items() for claim in made})
        heads.append(", ".join(dict.fromkeys(f"{one.model} ({one.digest}), {one.size}" for one in stored)))
    if len(set(heads)) < len(heads):
        heads = [f"{folder}: {head}" for folder, head in zip(folders, heads, strict=True)]
    made = [{id for id, _, _ in column} for column in columns]
    keys = dict.fromkeys(key for column in columns for key in column if sum(key[0] in ids for ids in made) > 1)
    rows = []
    for key in sorted(keys, key=lambda key: int(key[0][1:])):
        judged = [column.get(key) for column in columns]
        differ = len({claim.verdict for claim in judged if claim}) > 1
        rows.append(
            ("differs" if differ else "", *key, *(f"{claim.verdict}: {claim.numbers}" if claim else "" for claim in judged))
        )
    return Table(("", "", "claim", "images", *heads), tuple(sorted(rows, key=lambda row: not row[0])))


def _stored_in(out: Path) -> list[_Stored]:
    stored = [_read(out / name / METRICS) for name in EXPERIMENTS if (out / name / METRICS).is_file()]
    if not stored:
        raise RunError(f"no experiments in {out}: run some with `unsample experiment run E1 --out {out}`")
    return stored


def _made_with(lab: Lab, size: str) -> str:
    model = lab.model
    return f"Model {model.name} (weights {model.digest}, schedule {model.schedule.digest}), seed {lab.seed}, size {size}."


def _command(chosen: Recipe, size: str, lab: Lab) -> str:
    data = " --data PHOTOGRAPHS" if lab.data else ""
    checkpoints = " --checkpoints FOLDER" if lab.checkpoints else ""
    return f"unsample experiment run {chosen.id} --size {size} --model {lab.model.name}{data}{checkpoints}"


def _claims_table(claims: Sequence[Claim]) -> Table:
    rows = tuple((claim.verdict, claim.sentence, claim.images, claim.numbers) for claim in claims)
    return Table(("", "claim", "images", "measured"), rows)


def _read(path: Path) -> _Stored:
    try:
        return _Stored.model_validate(read_json(path))
    except (OSError, ValueError, ValidationError) as error:
        raise RunError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); run that experiment again") from None


def _plain(value: Any) -> Any:
    """For JSON: tuples as lists, NaN as null, infinities as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
