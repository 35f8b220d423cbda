"""The shard, the unit of work: what is written of it, in which order, and how one sees that it is done.

First its rows, its sums and its pictures left out, each file whole or not at all; last its line, which names their digests.
A shard without a line, or with a file missing, is made again; the same files come out, so it does not matter who was how far.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ..core.reading import is_index
from ..errors import ArgumentError, RunError, one_line, printable
from .plan import DATA, DIGITS, DONE, REJECTED, SAMPLE, SUMS, Plan, shard_name
from .store import Store

ENDINGS = {DATA: ".parquet", SUMS: ".safetensors", REJECTED: ".parquet"}


def _a_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("expected a time with its zone")
    return text


Count = Annotated[int, Field(ge=0, le=2**62)]


class Line(BaseModel):
    """What is known of a shard that is done.

    Attributes:
        shard: Its number.
        rows: How many pictures it has.
        rejected: How many were left out.
        nfe: Network evaluations of all of them.
        condition: That of its first row, if rows have their own.
        seconds: Of work.
        finished: When.
        digests: SHA-256 of its files, by folder.
        sizes: Bytes of its files, by folder.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    shard: Count
    rows: Count
    rejected: Count
    nfe: Count
    condition: int | str | None = None
    seconds: float = Field(ge=0, le=1e9)
    finished: Annotated[str, AfterValidator(_a_time)]
    digests: dict[str, str]
    sizes: dict[str, Count]

    def fits(self, plan: Plan) -> bool:
        """Whether all pictures of its shard are done, or left out; of latents those that were left out are not sampled."""
        size, done = plan.rows(self.shard)[1], self.rows + self.rejected
        return done == size or (done < size and plan.command == SAMPLE)


def check_parquet() -> None:
    """Refuse to work without what writes parquet files.

    Raises:
        ArgumentError: It is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ArgumentError('datasets are parquet files, which need pyarrow: pip install "unsample[data]"')


def write_shard(store: Store, number: int, files: Mapping[str, bytes], *, seconds: float, **counts: Any) -> Line:
    """Write the files of a shard, by their folder, and then its line.

    Raises:
        RunError: They cannot be written.
    """
    name = shard_name(number)
    digests = {folder: store.write(f"{folder}/{name}{ENDINGS[folder]}", data) for folder, data in files.items()}
    line = Line(
        shard=number,
        **counts,
        seconds=round(seconds, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        digests=digests,
        sizes={folder: len(data) for folder, data in files.items()},
    )
    store.write(f"{DONE}/{name}.json", line.model_dump_json().encode())
    return line


def lines_of(store: Store, plan: Plan) -> dict[int, Line]:
    """The shards that are done, by number.

    Raises:
        RunError: The place cannot be read.
    """
    return {number: line for number, line in every_line(store, plan).items() if line}


def every_line(store: Store, plan: Plan) -> dict[int, Line | None]:
    """The shards that have a line, by number; None for one that is not done, or not any more. Each folder is listed once.

    Raises:
        RunError: The place cannot be read.
    """
    there = {folder: store.sizes(folder) for folder in (DONE, *ENDINGS)}
    names = {f"{DONE}/{shard_name(number)}.json": number for number in _shards_in(there[DONE], plan)}
    texts = store.read_all(list(names))
    return {number: _line(texts.get(name, b""), number, there, plan) for name, number in names.items()}


def _shards_in(names: Iterable[str], plan: Plan) -> list[int]:
    """The numbers of a plan's shards, in order, of which the files of `done` are called as lines."""
    numbers = (name.removeprefix("shard-").removesuffix(".json") for name in names)
    every = sorted(int(number) for number in numbers if is_index(number) and len(number) == DIGITS)
    return [number for number in every if number < plan.shards and f"{shard_name(number)}.json" in names]


def line_of(store: Store, number: int, plan: Plan) -> Line | None:
    """The line of a shard, if it is done.

    Raises:
        RunError: The place cannot be read.
    """
    text = store.read(f"{DONE}/{shard_name(number)}.json")
    return _line(text, number, {folder: store.sizes(folder) for folder in ENDINGS}, plan) if text else None


def _line(text: bytes, number: int, there: Mapping[str, Mapping[str, int]], plan: Plan) -> Line | None:
    """A line, if all its files are as long as they were written; `there` are the sizes of files by folder."""
    try:
        line = Line.model_validate_json(text)
    except (ValidationError, ValueError):
        return None
    folders, name = set(line.sizes), shard_name(number)
    if line.shard != number or not line.fits(plan):
        return None
    if not folders == set(line.digests) <= set(ENDINGS) or (line.rows and DATA not in folders):
        return None
    whole = all(there[folder].get(f"{name}{ENDINGS[folder]}") == size for folder, size in line.sizes.items())
    return line if whole else None


def read_file(store: Store, line: Line, folder: str) -> bytes:
    """A file of a shard, as it was written.

    Raises:
        RunError: It is missing or damaged.
    """
    return store.checked(f"{folder}/{shard_name(line.shard)}{ENDINGS[folder]}", line.digests[folder])


def table_bytes(columns: Mapping[str, Any], notes: Mapping[str, str]) -> bytes:
    """A parquet file of columns, each a tensor (one row an item), a sequence or an arrow array; `notes` are in its schema.

    A tensor of several dimensions is a column of nested lists of fixed length, which pandas, DuckDB and Hugging Face's
    datasets open as they are. (Arrow's own type for tensors is one that datasets refuses.) Noise does not compress.
    """
    import pyarrow
    from pyarrow import parquet

    arrays = {name: tensor_column(each) if isinstance(each, Tensor) else pyarrow.array(each) for name, each in columns.items()}
    table = pyarrow.table(arrays).replace_schema_metadata(dict(notes))
    large = {name for name, each in columns.items() if isinstance(each, Tensor) and each.ndim > 1}
    buffer = io.BytesIO()
    parquet.write_table(
        table,
        buffer,
        compression={path: "none" if path.partition(".")[0] in large else "snappy" for path in _leaves(table.schema)},
        use_dictionary=[name for name in table.schema.names if pyarrow.types.is_string(table.schema.field(name).type)],
        row_group_size=max(1, GROUP_BYTES // max(1, table.nbytes // max(1, table.num_rows))),
    )
    return buffer.getvalue()


GROUP_BYTES = 2**25
"""Of a row group, so that a reader of a few rows does not read all."""


def tensor_column(tensor: Tensor) -> Any:
    """Nested lists of fixed length, one for each dimension after the first."""
    import pyarrow

    values = np.ascontiguousarray(tensor.numpy())
    array = pyarrow.array(values.reshape(-1))
    for side in reversed(tensor.shape[1:]):
        array = pyarrow.FixedSizeListArray.from_arrays(array, int(side))
    return array


def condition_column(conditions: Sequence[Any], kind: type) -> Any:
    """Classes or captions, of which any may be missing."""
    import pyarrow

    return pyarrow.array(conditions, pyarrow.int64() if kind is int else pyarrow.string())


def picture_column(files: Sequence[bytes]) -> Any:
    """Files of pictures, as Hugging Face's datasets have them."""
    import pyarrow

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.array([{"bytes": data, "path": None} for data in files], kind)


def column_tensor(column: Any) -> npt.NDArray[Any]:
    """The inverse of `tensor_column`."""
    array = column.combine_chunks()
    shape = [len(array)]
    while hasattr(array.type, "list_size"):
        shape.append(array.type.list_size)
        array = array.flatten()
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)


def _leaves(schema: Any) -> Iterable[str]:
    """The paths of all columns as a parquet file has them."""
    for each in schema:
        kind, path = each.type, each.name
        while hasattr(kind, "list_size"):
            kind, path = kind.value_type, f"{path}.list.element"
        yield path


def read_rows(store: Store, line: Line, folder: str, count: int, *texts: str) -> Any:
    """The rows of a shard as an arrow table, so many of them, in which some columns are of text.

    Raises:
        RunError: They are missing or damaged, or others.
    """
    table = read_table(read_file(store, line, folder))
    kinds = {name: str(table.schema.field(name).type) for name in texts if table.schema.names.count(name) == 1}
    if table.num_rows != count or kinds != dict.fromkeys(texts, "string") or any(table[name].null_count for name in texts):
        raise damaged(store, line, f"expected {count} rows with {' and '.join(texts)}")
    return table


def damaged(store: Store, line: Line, what: str) -> RunError:
    """An error that says what is wrong with a shard."""
    return RunError(
        f"shard {line.shard} of {printable(store.place)} is damaged ({what}): delete its files, and give the command "
        "that made it again"
    )


def read_table(data: bytes) -> Any:
    """The rows of a shard as an arrow table.

    Raises:
        RunError: No such file.
    """
    check_parquet()
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_table(io.BytesIO(data))
    except (ArrowException, OSError, ValueError) as error:
        raise RunError(f"a shard cannot be read: {one_line(error, 200)}") from None
