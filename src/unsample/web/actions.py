"""What happens when something is pressed: what is on the page goes in, what is shown comes out."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..core.model import Model
from ..errors import UnsampleError
from ..pictures.decode import open_picture
from . import pictures, take
from .session import WAYS, Inverted, Session, StoppedError, Way, of_k, ways_of
from .visitors import Visitors

EVERY = 0.15
"""Seconds between two looks at a walk."""

OPACITY = 0.7

STOPPED = "Stopped. What was finished is kept."


def said(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose errors on purpose are a sentence on the page."""

    @functools.wraps(function)
    def told(*given: Any) -> Any:
        try:
            return function(*given)
        except UnsampleError as error:
            raise gr.Error(_sentence(error), title="That did not work", duration=None, print_exception=False) from None
        except StoppedError:
            raise gr.Error(STOPPED, title="Stopped", duration=5, print_exception=False) from None

    return told


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


class Actions:
    """All of them, on one model; `folder` is where files of visitors are."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.visitors = Visitors(model, folder)

    def choose(self, place: str | None) -> tuple[Any, str]:
        """Looks at a picture as soon as it is chosen; one that cannot be read is taken off the page, with the reason."""
        if place is None:
            return gr.skip(), gr.skip()
        try:
            width, height = Session.open(self.model, place).photo.original
        except UnsampleError as error:
            return None, f"**{_sentence(error).replace(f'{Path(place).parent}/', '')}**"
        size = self.model.image_size
        return gr.skip(), f"Your picture has {width} x {height} pixels; this model sees {size[1]} x {size[0]} of it."

    def wait(self, request: gr.Request) -> str:
        """Before a place in the queue is free."""
        self.visitors[_key(request)].stop.clear()
        return "Waiting for a free place ..."

    def stop(self, request: gr.Request) -> str:
        """Ends what goes on, or is to begin, for this visitor."""
        self.visitors[_key(request)].stop.set()
        return STOPPED

    def leave(self, request: gr.Request) -> None:
        """The page was closed or loaded again."""
        self.visitors.left(_key(request))

    def invert(self, place: str | None, steps: int, label: str | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Each way in turn; what is seen while it walks, then what came out.

        Yields what is said, whether results are shown, the plain areas, true noise, and noise, map and words of each way.
        """
        try:
            session = self.visitors.opened(_key(request), place, int(steps), label or None)
            yield from self._walks(session)
        except StoppedError:
            yield (STOPPED, *[gr.skip()] * (3 + 3 * len(WAYS)))
        except UnsampleError as error:
            yield (f"**{_sentence(error)}**", *[gr.skip()] * (3 + 3 * len(WAYS)))

    def _walks(self, session: Session) -> Iterator[tuple[Any, ...]]:
        shown: list[Any] = [None, None, ""] * len(WAYS)
        around = gr.update(visible=True), pictures.plain(session.pixels), pictures.true(session)
        yield ("Starting ...", *around, *shown)
        around, began = (gr.skip(),) * 3, time.monotonic()
        for i, way in enumerate(WAYS):
            for state, done, whole in watched(session, way):
                shown[3 * i] = pictures.state(state)
                share = (i + done / whole) / len(WAYS)
                left = (time.monotonic() - began) * (1 - share) / share
                where = "up to noise" if done <= whole - session.steps else "back to the picture"
                yield (f"{way.name}: {where}, move {done} of {whole}; about {left:.0f} s left", *around, *shown)
            shown[3 * i : 3 * i + 3] = _results(session, way)
            yield (f"{way.name}: {session.inverted(way).nfe} network evaluations", *around, *shown)
        yield (f"Done in {time.monotonic() - began:.0f} s. Now look below, and move the sliders.", *around, *shown)

    def maps(self, opacity: float, request: gr.Request) -> list[Any]:
        """The maps of what is there, more or less strong."""
        session, made = self._there(request)
        return [
            pictures.variance_map(each.latent, session.pixels, opacity) if each and session else gr.skip() for each in made
        ]

    def at(self, share: float, request: gr.Request) -> list[Any]:
        """The states at a share of the walk up."""
        _, made = self._there(request)
        states = [each.there.states if each else {} for each in made]
        return [
            pictures.state(each[sorted(each)[round(share / 100 * (len(each) - 1))]]) if each else gr.skip() for each in states
        ]

    def _there(self, request: gr.Request) -> tuple[Session | None, list[Inverted | None]]:
        """The visitor's session, and what was made of each way."""
        session = self.visitors[_key(request)].session
        return session, [session.made(way) if session else None for way in WAYS]

    def back(self, name: str, request: gr.Request) -> Any:
        """The picture, and what was sampled back."""
        session = self.visitors[_key(request)].session
        made = session.made(next(way for way in WAYS if way.name == name)) if session else None
        return pictures.pair(session.pixels, made.back) if made and session else gr.skip()

    @said
    def of_k(self, k: int, method: str, request: gr.Request) -> tuple[Any, Any, Any, str]:
        """Noise, map, way back and words of a start of `k` moves."""
        return self._shown(self._session(request), of_k(int(k), method))

    def _shown(self, session: Session, way: Way) -> tuple[Any, Any, Any, str]:
        latent, over, words = _results(session, way)
        return latent, over, pictures.picture(session.inverted(way).back), words

    def _session(self, request: gr.Request) -> Session:
        session = self.visitors.session(_key(request))
        session.stop.clear()
        return session

    @said
    def canvas(self, request: gr.Request) -> Any:
        """The picture, to draw a mask on."""
        session = self.visitors[_key(request)].session
        if session is None:
            return gr.skip()
        pixels = pictures.picture(session.pixels)
        return {"background": pixels, "layers": [], "composite": None}

    @said
    def edit(self, to: str, guidance: float, strength: float, drawn: Any, request: gr.Request) -> Any:
        """The picture, and what it became."""
        if not to:
            raise gr.Error("Choose what it shall become first.", title="What shall it be?", print_exception=False)
        session = self._session(request)
        return pictures.pair(session.pixels, session.edited(to, guidance, strength, mask_of(drawn)))

    @said
    def vary(self, share: float, request: gr.Request) -> list[tuple[Any, str]]:
        """Others like it, and how far they are."""
        made, apart = self._session(request).varied(8, f"{share:g}%")
        return [(pictures.picture(one[None]), f"distance {far:.2f}") for one, far in zip(made, apart, strict=True)]

    @said
    def between(self, place: str | None, frames: int, request: gr.Request) -> tuple[Any, list[Any]]:
        """The picture in the middle, and all of them, for the slider."""
        session, visitor = self._session(request), self.visitors[_key(request)]
        visitor.other = self.visitors.session_of(visitor, visitor.other, place, session.steps, session.label)
        made = [pictures.picture(one[None]) for one in session.between(visitor.other, int(frames))]
        return made[len(made) // 2], made

    @said
    def compare(self, methods: Sequence[str], nfe: int, request: gr.Request) -> tuple[Any, Any, Any]:
        """The plane of whiteness and reconstruction, and what can be looked at."""
        session = self._session(request)
        compared = session.compared(methods, int(nfe))
        plane = np.asarray(open_picture(compared.picture().png).convert("RGB"))
        ways = ways_of(compared)
        if not ways:
            raise gr.Error(compared.failures[0], title="That did not work", print_exception=False)
        return plane, gr.update(choices=[way.name for way in ways], value=ways[-1].name, visible=True), ways

    @said
    def compared(self, name: str, ways: Sequence[Way], request: gr.Request) -> tuple[Any, Any, Any, str]:
        """The pictures of one method of a comparison."""
        way = next((each for each in ways or () if each.name == name), None)
        return self._shown(self._session(request), way) if way else (gr.skip(),) * 4

    @said
    def take(self, request: gr.Request) -> tuple[str, str, str]:
        """The run directory, and the lines that make it."""
        session = self._session(request)
        return str(take.run_directory(session, self.folder)), take.command(session), take.python(session)


def _key(request: gr.Request) -> str:
    return str(request.session_hash)


def _results(session: Session, way: Way) -> tuple[Any, Any, str]:
    made = session.inverted(way)
    over = pictures.variance_map(made.latent, session.pixels, OPACITY)
    return pictures.state(made.latent), over, pictures.words(made.diagnosis)


def mask_of(drawn: Any) -> Image.Image | None:
    """What was drawn, white; None if nothing was."""
    layers = [np.asarray(layer)[..., 3] > 0 for layer in (drawn or {}).get("layers", ()) if layer is not None]
    where = np.logical_or.reduce(layers) if layers else np.zeros(())
    return Image.fromarray(where.astype(np.uint8) * 255) if where.any() else None


def watched(session: Session, way: Way) -> Iterator[tuple[Any, int, int]]:
    """What a walk in another thread is at, every now and then, until it has ended; what it raises is raised here."""
    seen: queue.Queue[tuple[Any, int, int]] = queue.Queue(1)
    failed: list[BaseException] = []

    def on_state(state: Any, done: int, whole: int) -> None:
        if seen.empty():
            seen.put((state, done, whole))

    def walk() -> None:
        try:
            session.inverted(way, on_state)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=walk, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(EVERY)
            if not seen.empty():
                yield seen.get()
    finally:
        if thread.is_alive():  # nobody looks any more
            session.stop.set()
            thread.join()
    for error in failed:
        raise error


def frame(share: float, frames: Sequence[Any]) -> Any:
    """One of the pictures between two."""
    return frames[round(share / 100 * (len(frames) - 1))] if frames else gr.skip()
