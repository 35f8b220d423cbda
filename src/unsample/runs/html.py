"""Reports: a list of blocks, written as Markdown and as one HTML page with everything inside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heading:
    """A heading, linked to the report in a folder if one is named."""

    words: str
    folder: str = ""


@dataclass(frozen=True)
class Code:
    """A command."""

    line: str


@dataclass(frozen=True)
class Bullets:
    """Sentences, a bullet each."""

    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A PNG file with its caption; in Markdown the file of that name, on a page its bytes."""

    caption: str
    png: bytes = field(repr=False)
    file: str


@dataclass(frozen=True)
class Footer:
    """Small print."""

    words: str


@dataclass(frozen=True)
class Table:
    """A heading and rows of text; a heading of empty cells is left out of a page."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a Markdown table."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


Block = Heading | Code | Bullets | Picture | Footer | Table | str
"""A string is a paragraph."""


def markdown(title: str, blocks: Iterable[Block]) -> str:
    """A title and blocks as Markdown.

    >>> print(markdown("Latents", [Heading("E1", "E1"), "White."]), end="")
    # Latents
    <BLANKLINE>
    ## [E1](E1/report.md)
    <BLANKLINE>
    White.
    """
    return "\n\n".join([f"# {title}", *map(_markdown, blocks)]) + "\n"


def page(title: str, blocks: Iterable[Block]) -> str:
    """A title and blocks as an HTML page, which loads nothing from anywhere."""
    return _PAGE.format(title=html.escape(title), body="\n".join(map(_html, blocks)))


def _markdown(block: Block) -> str:
    match block:
        case Heading(words, folder):
            return f"## [{words}]({folder}/report.md)" if folder else f"## {words}"
        case Code(line):
            return f"    {line}"
        case Bullets(sentences):
            return "\n".join(f"- {sentence}" for sentence in sentences)
        case Picture(caption, _, file):
            return f"![{caption}]({file})\n\n*{caption}*"
        case Footer(words):
            return f"*{words}*"
        case Table():
            return block.markdown()
        case _:
            return block


def _html(block: Block) -> str:
    match block:
        case Heading(words, folder):
            inside = html.escape(words)
            return f'<h2><a href="{folder}/report.html">{inside}</a></h2>' if folder else f"<h2>{inside}</h2>"
        case Code(line):
            return f"<pre>{html.escape(line)}</pre>"
        case Bullets(sentences):
            return f"<ul>{''.join(f'<li>{html.escape(sentence)}</li>' for sentence in sentences)}</ul>"
        case Picture(caption, png, _):
            words, data = html.escape(caption), base64.b64encode(png).decode()
            return f'<figure><img alt="{words}" src="data:image/png;base64,{data}"><figcaption>{words}</figcaption></figure>'
        case Footer(words):
            return f"<footer>{html.escape(words)}</footer>"
        case Table():
            return _html_table(block)
        case _:
            return f"<p>{html.escape(block)}</p>"


def _html_table(table: Table) -> str:
    """Scrolls by itself if it is wide."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = [(html.escape(first), "".join(f"<td>{html.escape(cell)}</td>" for cell in more)) for first, *more in table.rows]
    body = "".join(f"<tr><th>{first}</th>{more}</tr>" for first, more in rows)
    top = f"<thead><tr>{head}</tr></thead>" if any(table.head) else ""
    return f"<div class=wide><table>{top}<tbody>{body}</tbody></table></div>"


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
