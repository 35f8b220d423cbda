"""Make a trained model one that `unsample models fetch` puts in place: copy it, list its files, print its card's line.

python training/publish.py training/out/release training/out/card.md weights/NAME
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

from unsample.models.download import LIST, list_files

LARGEST = 15_000_000
"""Bytes of the largest file that a repository should hold."""


def publish(model: Path, card: Path, target: Path, pictures: tuple[Path, ...] = ()) -> str:
    """Copy a model's directory, its card and the card's pictures; return the SHA-256 of the list of the files.

    Raises:
        ValueError: A file is larger than `LARGEST`: save it in shards.
    """
    large = [path for path in model.rglob("*") if path.is_file() and path.stat().st_size > LARGEST]
    if large:
        raise ValueError(f"{large[0]} is larger than {LARGEST} bytes: save the model in shards")
    shutil.copytree(model, target)
    shutil.copyfile(card, target / "README.md")
    for picture in pictures:
        shutil.copyfile(picture, target / picture.name)
    text = list_files(target)
    (target / LIST).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a trained model one that `unsample models fetch` puts in place.")
    parser.add_argument("model", type=Path, help="a directory that unsample.load takes, in half precision")
    parser.add_argument("card", type=Path, help="its model card, in Markdown")
    parser.add_argument("target", type=Path, help="weights/NAME")
    parser.add_argument("pictures", type=Path, nargs="*", help="what the card shows")
    arguments = parser.parse_args()
    print(f'files = "{publish(arguments.model, arguments.card, arguments.target, tuple(arguments.pictures))}"')


if __name__ == "__main__":
    main()
