"""`unsample web`: the page on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from .model_options import Chosen, loads_a_model
from .options import whole
from .show import say

PORTS = 65_535, "there are no others"


@loads_a_model
def web(
    chosen: Chosen,
    host: Annotated[str, typer.Option(help="Where to listen; default: this machine alone.")] = "127.0.0.1",
    port: Annotated[int | None, whole(PORTS, "--port", help="Default: the first free one from 7860 on.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Open a page in the browser: a picture there and back, its noise, and what can be done with it."""
    from ..web.serve import is_loopback, serve

    if not is_loopback(host):
        say(f"listening on {host}: whoever reaches this machine can use the page and its model; there is no password")
    model = chosen.load()

    def ready(address: str) -> None:
        print(f"{address}   (Ctrl-C stops it)", flush=True)

    serve(model, host=host, port=port, browser=browser, ready=ready)
