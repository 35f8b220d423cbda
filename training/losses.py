"""The record of a run: ``loss.csv``, ``levels.csv`` (held-out loss by noise level) and a picture of both."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Log:
    """``loss.csv``, one row per report; rows that no checkpoint vouches for, of a run that was killed, are dropped."""

    columns = ("step", "loss", "held_out", "held_out_raw", "seconds")

    def __init__(self, path: Path, done: int) -> None:
        self.path, self.levels = path, path.with_name("levels.csv")
        rows = [row for row in read_log(path) if row["step"] <= done] if done else []
        self.spent = rows[-1]["seconds"] if rows else 0.0
        self.start = time.monotonic()
        _write(path, self.columns, rows)
        if self.levels.exists():
            kept = [row for row in read_log(self.levels) if row["step"] <= done] if done else []
            _write(self.levels, list(kept[0]) if kept else ["step"], kept)

    @property
    def seconds(self) -> float:
        """Time spent so far, that of earlier parts of the run included."""
        return round(self.spent + time.monotonic() - self.start, 1)

    def add(self, step: int, loss: float | str = "", held_out: float | str = "", held_out_raw: float | str = "") -> None:
        """Append a row; a loss that was not measured is an empty cell."""
        _append(self.path, [step, loss, held_out, held_out_raw, self.seconds])

    def add_levels(self, step: int, losses: Sequence[float | None]) -> None:
        """Append the held-out loss in each band of noise levels, from clean to noisy; None where there is none."""
        if not self.levels.exists() or not read_log(self.levels):
            _write(self.levels, ["step", *range(len(losses))], [])
        _append(self.levels, [step, *("" if loss is None else loss for loss in losses)])


def _write(path: Path, columns: Sequence[Any], rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _append(path: Path, cells: Sequence[Any]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(cells)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``loss.csv`` or ``levels.csv``; an empty cell is None."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [{key: float(cell) if cell else None for key, cell in row.items()} for row in csv.DictReader(file)]
    return [{**row, "step": int(row["step"] or 0)} for row in rows]


def plot(log: Path, picture: Path, target: str = "the noise") -> None:
    """Draw the loss curve, and beside it the held-out loss by noise level at the first, a middle and the last look."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    levels = read_log(log.with_name("levels.csv"))
    figure, axes = plt.subplots(1, 2 if levels else 1, figsize=(11 if levels else 7, 4), layout="constrained", squeeze=False)
    _curve(axes[0, 0], read_log(log))
    axes[0, 0].set(xlabel="step", ylabel=f"MSE of {target}")
    if levels:
        _by_level(axes[0, 1], levels)
    for axis in axes.flat:
        axis.grid(alpha=0.2)
        axis.legend(frameon=False)
    figure.savefig(picture, dpi=150)
    plt.close(figure)


def _curve(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    for key, label, style in (
        ("loss", "training", "-"),
        ("held_out_raw", "held out", "o-"),
        ("held_out", "held out, averaged weights", "o-"),
    ):
        points = [(row["step"], row[key]) for row in rows if row[key] is not None]
        if points:
            axis.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)


def _by_level(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    for row in {row["step"]: row for row in (rows[0], rows[len(rows) // 2], rows[-1])}.values():
        bands = [key for key in row if key != "step" and row[key] is not None]
        places = [(float(key) + 0.5) / (len(row) - 1) for key in bands]
        axis.plot(places, [row[key] for key in bands], "o-", label=f"step {row['step']}", markersize=3, linewidth=1)
    axis.set(xlabel="noise level, share of the range", ylabel="held out, averaged weights", yscale="log")
