"""A page on this machine that does with the mouse what the command line does: `unsample web`.

`session` is what a visitor has: a picture, its inversions, and what is made of them; it knows no server. `pictures` draws
what is looked at. `page` puts both on a Gradio page, and `serve` opens it.
"""

from __future__ import annotations

from .serve import serve

__all__ = ["serve"]
