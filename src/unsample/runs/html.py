"""A run told to people: one table of several diagnoses, sentences made from its numbers, and a self-contained HTML page."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..diagnostics import Diagnosis, Row
from ..diagnostics.row import format_number as number
from .directory import Manifest

__all__ = ["Table", "compare", "html_page", "html_table", "page", "picture", "sentences", "text"]


@dataclass(frozen=True)
class Table:
    """A heading and rows of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a Markdown table."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compare(diagnoses: Mapping[str, Diagnosis], nfe: Mapping[str, str] | None = None) -> Table:
    """Diagnostics as rows, ways of inverting as columns, true noise last."""
    names = list(dict.fromkeys(row.name for diagnosis in diagnoses.values() for row in diagnosis.rows))
    rows = []
    for name in names:
        found = [next((row for row in diagnosis.rows if row.name == name), None) for diagnosis in diagnoses.values()]
        null = next((row.null for row in found if row and row.null), None)
        noise = f"{number(null.mean)} [{number(null.low)}, {number(null.high)}]" if null else ""
        if all(row is None or math.isnan(row.value) for row in found):
            noise = next((row.note for row in found if row), "")
        rows.append((name, *(_cell(row) for row in found), noise))
    if nfe:
        rows.append(("network evaluations, up + down", *(nfe.get(name, "") for name in diagnoses), ""))
    return Table(("", *diagnoses, "true noise"), tuple(rows))


def sentences(diagnoses: Mapping[str, Diagnosis]) -> list[str]:
    """What the numbers say of plain areas, a sentence each way; nothing is said that was not measured."""
    said = [
        "An inversion should end in Gaussian noise: everywhere standard deviation 1, and neighbours that do not correlate."
    ]
    usual: float | None = None
    for name, diagnosis in diagnoses.items():
        rows = {row.name: row for row in diagnosis.rows}
        std, lag, psnr = rows.get("std plain"), rows.get("lag-1 plain"), rows.get("PSNR")
        if std is None or lag is None or math.isnan(std.value):
            continue
        text = f"{name}: in plain areas standard deviation {std.value:.2f}, neighbours correlate {lag.value:+.2f}"
        missing = abs(std.value - 1)
        if usual is not None and missing < usual:
            text += f"; {1 - missing / usual:.0%} of the missing noise is repaired"
        usual = missing if usual is None else usual
        said.append(f"{text}; sampled back at {psnr.value:.1f} dB." if psnr else f"{text}.")
    return said if len(said) > 1 else []


def html_page(
    manifest: Manifest,
    table: Table,
    said: Sequence[str],
    pictures: Mapping[str, bytes],
    items: Table | None = None,
) -> str:
    """One page with everything inside it; it loads nothing from anywhere."""
    settings = "".join(f"<tr><th>{text(k)}</th><td>{text(str(v))}</td></tr>" for k, v in manifest.settings.items())
    versions = ", ".join(f"{name} {value}" for name, value in manifest.versions.items())
    body = [
        f"<ul>{''.join(f'<li>{text(sentence)}</li>' for sentence in said)}</ul>",
        *(picture(title, data) for title, data in pictures.items()),
        "<h2>Latents against true noise</h2>",
        "<p>An estimate with its 95&nbsp;% interval over pictures; the last column is the same statistic on true noise of the "
        "same shape, count and areas. Images are measured in [-1, 1].</p>",
        html_table(table),
        f"<h2>Photo by photo</h2>{html_table(items)}" if items else "",
        f"<h2>Settings</h2><div class=wide><table><tbody>{settings}</tbody></table></div>",
        f"<footer>{text(versions)}. Finished {text(manifest.finished or '')}.</footer>",
    ]
    return page(f"unsample {manifest.command}: {len(manifest.items)} pictures", body)


def page(title: str, body: Sequence[str]) -> str:
    """A page with everything inside it, from a title and pieces of HTML."""
    return _PAGE.format(title=text(title), body="\n".join(body))


def picture(caption: str, png: bytes) -> str:
    """A PNG file as HTML."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _cell(row: Row | None) -> str:
    if row is None or math.isnan(row.value):
        return "-"
    if row.low is None or row.high is None:
        return number(row.value)
    return f"{number(row.value)} [{number(row.low)}, {number(row.high)}]"


def text(words: str) -> str:
    """Words as HTML."""
    return html.escape(words)


def html_table(table: Table) -> str:
    """A table as HTML, which scrolls by itself if it is wide."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in table.head)
    body = "".join(
        f"<tr><th>{text(row[0])}</th>{''.join(f'<td>{text(cell)}</td>' for cell in row[1:])}</tr>" for row in table.rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2330; background: #fff; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #dde3ea; white-space: nowrap; }}
tbody th, thead th:first-child {{ text-align: left; font-weight: 600; }}
.wide {{ overflow-x: auto; }} figure {{ margin: 1rem 0; }} img {{ max-width: 100%; image-rendering: auto; }}
figcaption, footer {{ color: #5a6575; font-size: .85rem; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
