"""E14: every method of inversion, ours too, at equal cost, with and without a forward start (Table 7 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ... import pictures as plotting
from ...diagnostics import Interval, bootstrap
from ...diagnostics.medians import PSNR_MEDIAN
from ...diagnostics.row import PATCH_ROW, Row
from ...methods.registry import METHODS, parse_method
from ...pictures import Column
from ...pictures.read import Photo
from ..compare import COLUMNS, Candidate, Comparison, Measured, equal_cost, measure_candidate, table
from .findings import Figure, Findings, Judged, bar, judged
from .lab import Lab, Pictures
from .paired import PSNR_CAP
from .verdicts import Verdict, above, at_floor, both, exceeds, nearer, signed

USUAL, BASELINE, OURS = "0", "ddim", "unsample"

LITTLE = 2.0
"""The loss in dB that we call little."""

SHOWN = ("top-20 r", "std plain", "std other", "lag-1 plain", "PSNR, dB (median)", "MAE (mean)", "MAE plain")

CHART: Mapping[str, tuple[str, tuple[float, float]]] = {
    PATCH_ROW: ("top-20 r", (0.0, 1.0)),
    "std plain": ("std plain", (0.0, 1.5)),
    "lag-1 plain": ("lag-1 plain", (-1.0, 1.0)),
    PSNR_MEDIAN: ("median PSNR, dB", (0.0, PSNR_CAP)),
}
"""Diagnostic -> its title in the figure, and what is drawn of it."""

Found = Mapping[Candidate, Measured]


@dataclass(frozen=True)
class PriorMethods:
    """Methods side by side at the same number of network evaluations on the way up.

    Attributes:
        count: Images.
        nfe: Evaluations per image on the way up.
        methods: As on the command line; `all` for every method. DDIM is among them in any case.
        starts: Likewise; 0, the usual inversion, is among them in any case.
    """

    count: int
    nfe: int
    methods: tuple[str, ...]
    starts: tuple[str, ...]

    def run(self, lab: Lab) -> Findings:
        """A table and two pictures of all ways."""
        pictures = lab.photographs(self.count) if lab.data else _clamped(lab.generated(self.count, self.nfe))
        methods = METHODS if "all" in self.methods else self.methods
        candidates = equal_cost((BASELINE, *methods), (USUAL, *self.starts), self.nfe, lab.model)
        settings = {"batch_size": lab.batch_size, "seed": lab.seed}
        results = {one: measure_candidate(lab.model, pictures.photos, one, lab.cache, **settings) for one in candidates}
        compared = Comparison(results, self.nfe, len(pictures))
        failed = f" Not measured: {'; '.join(compared.failures)}." if compared.failures else ""
        return Findings(
            f"{len(pictures)} {_named(pictures)}. Each method has as many steps N as {self.nfe} network evaluations on the "
            "way up allow, and samples back on the same grid by DDIM; a reversible one by itself, with what it stores (in "
            "latents). A forward start of k steps is k of the method's own N: a larger share where N is small. 95 % intervals "
            f"over images (bootstrap; jackknife for r). PSNR above {PSNR_CAP:g} dB counts as that in claims, which leave out "
            f"methods that are forward diffusion alone.{failed}",
            {f"Every way at {self.nfe} evaluations": table(results, {name: COLUMNS[name] for name in SHOWN})},
            (
                Figure("methods", "Every method with and without a forward start, at the same cost.", _chart(results)),
                Figure("tradeoff", "Whiteness against reconstruction, and the ways that no other beats.", compared.picture()),
            ),
            judged(pictures.name, *_claims(results, dict.fromkeys(self.starts))),
            compared.to_dict(),
        )


def _clamped(pictures: Pictures) -> Pictures:
    """Generated images as photographs are: in [-1, 1]."""
    photos = zip(pictures.shown, pictures.photos, strict=True)
    return replace(pictures, photos=tuple(Photo.of(pixels, photo.name) for pixels, photo in photos))


def _named(pictures: Pictures) -> str:
    return "photographs" if pictures.noise is None else "generated images, clamped to [-1, 1]"


def _chart(results: Found) -> plotting.Drawing:
    def column(name: str, title: str, limits: tuple[float, float]) -> Column:
        rows: dict[str, dict[str, plotting.Bar]] = {}
        spans: dict[str, tuple[float, float]] = {}
        for candidate, diagnosis in ((one, measured.diagnosis) for one, measured in results.items()):
            if diagnosis is not None:
                rows.setdefault(candidate.method, {})[_start(candidate)] = bar(diagnosis[name])
                null = diagnosis[name].null
                spans |= {candidate.method: (null.low, null.high)} if null and not math.isnan(null.low) else {}
        return Column(title, rows, spans or None, limits)

    return plotting.forest([column(name, *how) for name, how in CHART.items()])


def _start(candidate: Candidate) -> str:
    return "usual inversion" if candidate.forward == USUAL else f"forward start, k = {candidate.forward}"


def _claims(results: Found, starts: Iterable[str]) -> list[Judged]:
    """Of all prior methods, counted; those that are forward diffusion alone have no start to compare, and are left out."""
    by_start: dict[str, dict[str, Measured]] = {}
    for candidate, measured in results.items():
        if measured.diagnosis is not None and parse_method(candidate.method).inversion is not None:
            by_start.setdefault(candidate.forward, {})[candidate.method] = measured
    usual = by_start.get(USUAL, {})
    prior = {method: measured for method, measured in usual.items() if _is_prior(method)}
    better = {m: _change(measured, usual.get(BASELINE)) for m, measured in prior.items()}
    correlated = {m: _row(measured, PATCH_ROW) for m, measured in prior.items()}
    claims = [
        _counted(
            "Every prior method reconstructs better than DDIM at equal cost.",
            {m: (exceeds(change, 0), signed(change, " dB")) for m, change in better.items()},
            "paired change of PSNR against DDIM",
        ),
        _counted(
            "... and without a forward start its latents stay correlated.",
            {m: (_correlated(r), str(r)) for m, r in correlated.items()},
            f"top-20 r; noise {next(iter(correlated.values())).noise}" if correlated else "",
        ),
    ]
    for start in starts:
        if start != USUAL and start in by_start:
            claims += _claims_of_start(start, usual, by_start[start])
    return claims


def _claims_of_start(start: str, usual: Mapping[str, Measured], started: Mapping[str, Measured]) -> list[Judged]:
    """Of every method, DDIM and ours too."""
    r = {m: _row(measured, PATCH_ROW) for m, measured in started.items()}
    pairs = {m: (_row(usual[m], "std plain"), _row(started[m], "std plain")) for m in started if m in usual}
    cost = {m: _change(started[m], usual[m]) for m in pairs}
    return [
        _counted(
            f"With a forward start of k = {start} the correlation of every method, DDIM and ours too, is at its floor.",
            {m: (at_floor(row), str(row)) for m, row in r.items()},
            f"top-20 r; noise {next(iter(r.values())).noise}",
        ),
        _counted(
            "... the standard deviation in plain areas of every method is nearer to noise's,",
            {m: (nearer(after, before, to=1), f"{before} becomes {after}") for m, (before, after) in pairs.items()},
            "std plain",
        ),
        _counted(
            "... and is noise's,",
            {m: (after.is_noise, str(after)) for m, (_, after) in pairs.items()},
            f"std plain; noise {next(iter(pairs.values()))[1].noise}" if pairs else "",
        ),
        _counted(
            f"... at little cost in reconstruction (less than {LITTLE:g} dB; the bound is ours).",
            {m: (exceeds(change, -LITTLE), signed(change, " dB")) for m, change in cost.items()},
            "paired change of PSNR",
        ),
    ]


def _counted(sentence: str, verdicts: Mapping[str, tuple[Verdict, str]], what: str) -> Judged:
    """A claim about every method: how many of how many, and the exceptions by name."""
    true, false, unknown = ([m for m, (holds, _) in verdicts.items() if holds is value] for value in (True, False, None))
    numbers = f"{len(true)} of {len(verdicts)} ({what})"
    for words, methods in (("not", false), ("cannot be told", unknown)):
        numbers += f"; {words}: {', '.join(f'{m} {verdicts[m][1]}' for m in methods)}" if methods else ""
    return sentence, numbers, both(*(holds for holds, _ in verdicts.values())) if verdicts else None


def _is_prior(method: str) -> bool:
    """Published by others, and not DDIM itself in either convention."""
    name = method.partition(":")[0]
    return name != BASELINE and name in METHODS and OURS not in METHODS[name].references


def _row(measured: Measured, name: str) -> Row:
    assert measured.diagnosis is not None  # only ways that were measured get here
    return measured.diagnosis[name]


def _change(ours: Measured, theirs: Measured | None) -> Interval:
    if theirs is None or ours.psnr is None or theirs.psnr is None:
        return Interval(math.nan, math.nan, math.nan)
    return bootstrap(ours.psnr.clamp(max=PSNR_CAP) - theirs.psnr.clamp(max=PSNR_CAP))


def _correlated(row: Row) -> Verdict:
    """Above the floor with its whole interval; None where only the value is."""
    return above(row) or (False if at_floor(row) else None)
