"""A folder of Parquet files, each made of one part of something larger; what is there already is not made again.

Takes parts and the work that turns one into tables; gives `part-00000.parquet` and so on, here or in an object store,
and `_SUCCESS` when all are whole. Each file's footer says what it was made of, and a Parquet file without a footer is
none: that is how a later call finds what an earlier one, killed or not, has left it to do. It reads all of a file that
it keeps, whose pages have checksums.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from prismrec.engine import Engine
from prismrec.errors import ArtifactError
from prismrec.locations import joined, names, reading, remove, writing

_DONE, _MARK = "_SUCCESS", b"prismrec"
_PART = re.compile(r"part-\d{5,}\.parquet")

Tables = Iterator[tuple[pa.Table, int]]
"""Tables of one schema, at least one, and the number of users in each."""


class Part(NamedTuple):
    """One file to be."""

    source: Any
    """What the work takes."""
    fingerprint: str
    """Of everything that the file depends on."""


class Written(NamedTuple):
    """What is in the files."""

    users: int
    rows: int


def write_tables(tables: Iterable[tuple[pa.Table, int]], out: str, **mark: str) -> Written:
    """Write tables to one Parquet file, atomically, with their number of users and `mark` in its footer."""
    users = rows = 0
    with writing(out) as temporary:
        writer = None
        try:
            for table, number in tables:
                writer = writer or pq.ParquetWriter(temporary, table.schema, write_page_checksum=True)
                writer.write_table(table)
                users, rows = users + number, rows + len(table)
            if writer is not None:
                writer.add_key_value_metadata({_MARK: json.dumps({**mark, "users": users})})
        finally:
            if writer is not None:
                writer.close()
    return Written(users, rows)


def write_parts(
    out: str,
    parts: list[Part],
    open_work: Callable[[], Callable[[Any], Tables]],
    engine: Engine,
    label: str,
    console: Console,
) -> Written:
    """Write every part that is not there yet, or damaged, to a folder of its own; other parts there are deleted.

    Raises:
        ArtifactError: there is something else in the folder.
    """
    wanted = {f"part-{place:05d}.parquet": part for place, part in enumerate(parts)}
    found = _found(out)
    same = [name for name, mark in found.items() if name in wanted and mark[0] == wanted[name].fingerprint]
    checked = engine.map(lambda: _has_checksums, [joined(out, name) for name in same], "check", console)
    whole = {name for name, good in zip(same, checked, strict=True) if good}
    left = [(joined(out, name), part) for name, part in wanted.items() if name not in whole]
    for name in {*found, _DONE} - whole if left or len(found) > len(whole) else ():
        remove(joined(out, name))

    def open_writer() -> Callable[[tuple[str, Part]], Written]:
        work = open_work()
        return lambda part: write_tables(work(part[1].source), part[0], fingerprint=part[1].fingerprint)

    written = [Written(*found[name][1:]) for name in whole] + engine.map(open_writer, left, label, console)
    with writing(joined(out, _DONE)) as temporary:
        temporary.touch()
    return Written(sum(part.users for part in written), sum(part.rows for part in written))


def _found(out: str) -> dict[str, tuple[str, int, int]]:
    """Fingerprint, users and rows of the parts in a folder; of no fingerprint, if a file is not whole."""
    found = {}
    for name in names(out):
        if name == _DONE or name.startswith("."):
            continue
        mark = _mark(joined(out, name)) if _PART.fullmatch(name) else None
        if mark is None:
            raise ArtifactError(
                f"{out}: expected an empty folder or one of earlier parts, found {name}; choose another --out"
            )
        found[name] = mark
    return found


def _mark(location: str) -> tuple[str, int, int] | None:
    """What a part says of itself; None if it is not ours."""
    with reading(location) as file:
        try:
            metadata = pq.read_metadata(file)
        except pa.ArrowInvalid:
            return "", 0, 0
    try:
        mark = json.loads((metadata.metadata or {}).get(_MARK, b"{}"))
        return str(mark["fingerprint"]), int(mark["users"]), metadata.num_rows
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _has_checksums(location: str) -> bool:
    """Whether all pages of a file have the checksums that were written with them."""
    with reading(location) as file:
        try:
            for _ in pq.ParquetFile(file, page_checksum_verification=True).iter_batches():
                pass
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # not of Arrow
                raise
            return False
    return True
