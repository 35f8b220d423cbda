"""What a visitor takes along: a run directory, and the lines that make exactly what was seen."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

from ..runs.invert import invert_photos
from ..runs.settings import InvertSettings
from .session import WAYS, Session


def command(session: Session) -> str:
    """The command line that makes it."""
    given = ["unsample", "invert", session.place.name, "--model", session.model.name, "--steps", str(session.steps)]
    given += ["--size", "{}x{}".format(*session.model.image_size), "--seed", str(session.seed), "--start", WAYS[-1].start]
    return shlex.join([*given, *(["--label", session.label] if session.label else [])])


def python(session: Session) -> str:
    """The Python lines that make it."""
    label = f", condition={session.label!r}" if session.label else ""
    return "\n".join(
        [
            "import unsample as us",
            "",
            f"model = us.load({session.model.name!r}, size={tuple(session.model.image_size)})",
            f"images = us.load_images([{session.place.name!r}], size=model.image_size)",
            f"there = us.invert(model, images, steps={session.steps}, start={WAYS[-1].start!r}, seed={session.seed},",
            f"                  items=[{session.photo.id!r}]{label})",
            f"back = us.sample(model, there{label}).images",
        ]
    )


def run_directory(session: Session, folder: Path) -> Path:
    """A zip file in `folder` of the run directory that the command line makes, with its report and pictures."""
    settings = InvertSettings.of(
        session.model, steps=session.steps, label=session.label, seed=session.seed, forward=(WAYS[-1].start,), batch_size=1
    )
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as made:
        run = Path(made) / "run"
        invert_photos(session.model, [session.photo], settings, run)
        place = Path(tempfile.mkdtemp(prefix="zip-", dir=folder))
        return Path(shutil.make_archive(str(place / "unsample-run"), "zip", run))
