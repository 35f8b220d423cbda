"""The record of a run: ``loss.csv`` and its picture."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any


class Log:
    """``loss.csv``, one row per report; rows that no checkpoint vouches for, of a run that was killed, are dropped."""

    columns = ("step", "loss", "held_out", "held_out_raw", "seconds")

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        rows = [row for row in read_log(path) if row["step"] <= done] if done else []
        self.spent = rows[-1]["seconds"] if rows else 0.0
        self.start = time.monotonic()
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, step: int, loss: float | str = "", held_out: float | str = "", held_out_raw: float | str = "") -> None:
        """Append a row; a loss that was not measured is an empty cell."""
        seconds = round(self.spent + time.monotonic() - self.start, 1)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([step, loss, held_out, held_out_raw, seconds])


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``loss.csv``; an empty cell is None."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [{key: float(cell) if cell else None for key, cell in row.items()} for row in csv.DictReader(file)]
    return [{**row, "step": int(row["step"] or 0)} for row in rows]


def plot(log: Path, picture: Path) -> None:
    """Draw the loss curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    rows = read_log(log)
    for key, label, style in (
        ("loss", "training", "-"),
        ("held_out_raw", "held out", "o-"),
        ("held_out", "held out, averaged weights", "o-"),
    ):
        points = [(row["step"], row[key]) for row in rows if row[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)
    axes.set(xlabel="step", ylabel="noise-prediction MSE")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=150)
    plt.close(figure)
