"""Opens the page, on this machine alone unless told otherwise."""

from __future__ import annotations

import atexit
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.model import Model
from ..errors import ArgumentError

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

SHADES = {"": "*primary_700", "_hover": "*primary_800"}
"""Of buttons, dark enough for white letters."""


def serve(
    model: Model,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = True,
    block: bool = True,
    ready: Callable[[str], object] = lambda address: None,
) -> Any:
    """The page for a model, until it is stopped.

    Args:
        model: What `unsample.load` returns.
        host: Where to listen; another address than this machine's own lets others in, who may use the model, too.
        port: Default is the first that is free from 7860 on.
        browser: Open it in a browser.
        block: Wait until it is stopped; otherwise the running app is returned.
        ready: Called with the address when it is there.

    Raises:
        ArgumentError: Gradio is not installed, or the address cannot be listened on.
    """
    gr, folder = _gradio(), Path(os.environ["GRADIO_TEMP_DIR"])
    from .page import LAUNCH, page

    app = page(model, folder).queue(max_size=32)
    theme = gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")).set(
        **{f"button_primary_background_fill{when}{where}": shade for when, shade in SHADES.items() for where in ("", "_dark")}
    )
    try:
        _, address, _ = app.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            theme=theme,
            **LAUNCH,
        )
    except OSError:
        taken = f"port {port}" if port else "any port from 7860 on"
        raise ArgumentError(
            f"cannot listen on {taken} of {host}: taken, or not this machine's; choose another --port"
        ) from None
    ready(str(address))
    if block:
        app.block_thread()
    return app


def _gradio() -> Any:
    """Gradio, which is told first to be quiet, and to keep its files in a folder of its own that goes when Python ends."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = folder = tempfile.mkdtemp(prefix="unsample-web-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        import gradio
    except ImportError:
        raise ArgumentError('the page needs Gradio: pip install "unsample[web]"') from None
    return gradio


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
