"""What a dataset in noise is to be: its settings, the pictures of its source, and the shards that they are cut into.

The plan is made and written before any work, as a pure function of settings and source, so that every process makes the same
one. Whatever is in the place already must be of the same plan.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from ..core.reading import json_of
from ..errors import RunError, one_line, printable
from ..runs.manifest import Origin, first_fault, identity, own_digest
from .rows import Columns, Piece
from .source import Source, opened_place
from .store import Store

PLAN, PIECES = "plan.json", "pieces.parquet"

DATA, SUMS, REJECTED, DONE = "data", "sums", "rejected", "done"
"""Folders, each with a file a shard: rows; sums for diagnostics; pictures left out; what is written when all are there."""

CARD = "README.md"

INVERT: Final = "dataset invert"
SAMPLE: Final = "dataset sample"

DIGITS = 6
"""Of the number in the names of a shard's files."""

MOST = 1_000_000
"""Shards of a dataset, and pictures of a shard, which is made in memory: no plan has more."""

NOT_COMPARED = ("origin", "places", "pieces", "settings", "versions", "digest")
"""By which plans may differ; settings and versions are compared one by one."""

OPTIONS = {"images": "--limit", "dtype": "--latents", "shard": "--shard", "psnr": "--psnr", "source": "source"}
OPTIONS |= {"--forward": "--start", "--image-size": "--size", "--model-digest": "--model (its weights)"}
OPTIONS |= {"columns": "--image-column, --id-column or --condition-column", "--schedule-digest": "--model (its schedule)"}
"""Of a plan or its settings -> what people type."""

OURS = frozenset({PLAN, PIECES, DATA, SUMS, REJECTED, DONE, CARD})


class Plan(BaseModel):
    """What is to be made, in JSON.

    Attributes:
        command: `dataset invert` or `dataset sample`.
        settings: All that a row depends on besides its picture.
        origin: Where the model comes from.
        places: Where the source is, as given.
        columns: What is read of a row of the source.
        source: Digest of the names of all files of the source, of the numbers of their rows, and of when they were written.
        pieces: Digest of the list of them, which also says where they are.
        images: How many pictures.
        shard: How many pictures a shard is of; the last may be shorter.
        dtype: Of the latents that are kept, `float32` or `float16`.
        psnr: Each picture is sampled back, too, and compared.
        versions: Of what the numbers depend on.
        digest: Of all the rest; what is read has one, and it is right.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = 1
    command: Literal["dataset invert", "dataset sample"]
    settings: dict[str, JsonValue]
    origin: Origin | None = None
    places: list[str]
    columns: Columns
    source: str
    pieces: str = ""
    images: int = Field(ge=1, le=MOST * MOST)
    shard: int = Field(ge=1, le=MOST)
    dtype: str = Field(default="float32", pattern="^float(32|16)$")
    psnr: bool = False
    versions: dict[str, str] = {}
    digest: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Plan:
        if self.shards > MOST:
            raise ValueError(f"--shard: {self.images:,} pictures of {self.shard:,} a shard are more than {MOST:,} shards")
        if not self.places:
            raise ValueError("places: expected at least one")
        return self

    @property
    def shards(self) -> int:
        """How many."""
        return -(-self.images // self.shard)

    def rows(self, number: int) -> tuple[int, int]:
        """The first picture of a shard, and how many there are."""
        first = number * self.shard
        return first, min(self.shard, self.images - first)

    @property
    def text(self) -> str:
        """What is written."""
        plain = json.loads(self.model_dump_json(exclude={"digest"}))
        return json.dumps({**plain, "digest": own_digest(plain)}, indent=2, ensure_ascii=False) + "\n"

    @property
    def key(self) -> str:
        """A digest of all by which plans are the same."""
        return hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()

    @property
    def _identity(self) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(self.model_dump_json(exclude=set(NOT_COMPARED)))
        plain |= {f"version of {name}": self.versions.get(name) for name in ("unsample", "torch")}
        return plain | {f"--{name.replace('_', '-')}": value for name, value in identity(self.settings).items()}

    @classmethod
    def read(cls, store: Store) -> Plan:
        """The plan of a place.

        Raises:
            RunError: There is none, or it is damaged.
        """
        data = store.read(PLAN)
        if data is None:
            raise RunError(
                f"no dataset in {store.place}: expected a folder with a {PLAN}, as `unsample dataset invert` makes it"
            )
        try:
            plain, made = json_of(data), cls.model_validate_json(data)
            if made.digest != own_digest(plain):
                raise ValueError("it is not what was written")
        except (ValidationError, ValueError) as error:
            fault = first_fault(error) if isinstance(error, ValidationError) else one_line(error)
            raise RunError(
                f"{printable(store.path(PLAN))} is damaged or was edited ({fault}): give the folder another name, and "
                "the command that made it again"
            ) from None
        return made

    @classmethod
    def find(cls, store: Store) -> Plan | None:
        """The plan of a place where a dataset may be made; None if there is none yet.

        Raises:
            RunError: The place holds something else, or its plan is damaged.
        """
        names = set(store.sizes(is_file=False))
        if PLAN in names:
            return cls.read(store)
        if names - OURS:
            raise RunError(
                f"{store.place} holds files that are no dataset of unsample; choose another --out, or an empty folder"
            )
        return None

    def open(self, store: Store, pieces: bytes | None = None) -> None:
        """Write the plan, with the list of its source's files if it has one, or see that it is the one that is there.

        Raises:
            RunError: The place holds something else, or was made with other settings or of another source.
        """
        if (there := Plan.find(store)) is not None:
            self._refuse_other(there, store)
            return
        if pieces is not None:
            store.write(PIECES, pieces)
        store.write(PLAN, self.text.encode())

    def _refuse_other(self, there: Plan, store: Store) -> None:
        before, now = there._identity, self._identity
        for name in {**now, **before}:
            if before.get(name) != now.get(name):
                shown = f": {before.get(name)!r} there, {now.get(name)!r} asked for" if name != "source" else ""
                raise RunError(
                    f"{printable(store.place)} was made with another {OPTIONS.get(name, name)}{shown}; a dataset cannot be "
                    "changed: choose another --out, or delete it"
                )

    def read_source(self, store: Store) -> Source:
        """The files that were listed when the plan was made.

        Raises:
            RunError: Their list is missing or damaged.
        """
        from pyarrow import ArrowException, parquet

        path = printable(store.path(PIECES))
        try:
            data = store.read(PIECES) or b""
            if hashlib.sha256(data).hexdigest() != self.pieces:
                raise ValueError("not the list of files that the plan was made of")
            pieces = [PIECE.validate_python(each) for each in parquet.read_table(io.BytesIO(data)).to_pylist()]
        except (ArrowException, OSError, ValueError) as error:
            fault = first_fault(error) if isinstance(error, ValidationError) else one_line(error, 200)
            raise RunError(f"{path} is missing or damaged ({fault}); start again in another --out") from None
        source = Source(opened_place(self.places[0])[0], pieces, self.columns)
        if digest_of(source) != self.source or len(source) < self.images:
            raise RunError(f"{path} is damaged: not the files that the plan was made of; start again in another --out")
        return source


PIECE = TypeAdapter(Piece)


def digest_of(source: Source) -> str:
    """Of all that tells a source from another, wherever it lies."""
    made = hashlib.sha256(json.dumps(asdict(source.columns)).encode())
    for piece in source.pieces:
        made.update(json.dumps([piece.name, piece.rows, piece.size, piece.mark]).encode())
    return made.hexdigest()


def pieces_bytes(source: Source) -> bytes:
    """The list of a source's files, as it is written."""
    import pyarrow
    from pyarrow import parquet

    names: Mapping[str, Any] = {name: [getattr(piece, name) for piece in source.pieces] for name in Piece.__dataclass_fields__}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(names), buffer)
    return buffer.getvalue()


def shard_name(number: int) -> str:
    """What files of a shard are called, without an ending."""
    return f"shard-{number:0{DIGITS}d}"
