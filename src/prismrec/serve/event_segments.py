"""The files of an event log: a header that names the context features, then records of one width.

Takes events of users as rows; gives them as bytes, and reads them back. All integers are little-endian:

header    "PRISMLOG", uint32 format version, uint32 length of the names, uint32 CRC-32 of version, length and names,
          names of the context features as JSON
record    int64 user, item, time, dwell and one per context feature, uint32 CRC-32 of all these

Whatever is written is a prefix of what was meant when a process is killed, and may end in zeros or in part of it when a
machine is; so a file is torn where its last bytes are no whole records. Anything else is damage. What is missing from
the end of a file up to a whole record cannot be told.
"""

import json
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prismrec.errors import ArtifactError

_MAGIC, _VERSION = b"PRISMLOG", 1
_HEADER = struct.Struct("<8sIII")
_CHECKED = struct.Struct("<II")
_CRC_BYTES = 4
_CRC_OF_WHOLE = 0x2144DF1C  # of any bytes followed by their own CRC-32


class Segment(NamedTuple):
    """What a file holds."""

    context_features: tuple[str, ...]
    rows: np.ndarray
    """int64 [N, 4 + C]: user, then the columns of `Events.rows`, in the order in which they were written."""
    size: int
    """Bytes of header and whole records; the file is torn where it has more."""
    width: int
    """Bytes of a record."""


def header_bytes(context_features: tuple[str, ...]) -> bytes:
    """The header of a new file."""
    names = json.dumps(context_features).encode()
    checked = _CHECKED.pack(_VERSION, len(names)) + names
    return _HEADER.pack(_MAGIC, _VERSION, len(names), zlib.crc32(checked)) + names


def record_bytes(rows: np.ndarray) -> bytes:
    """The records of rows: user, then the columns of `Events.rows`; int64 [N, 4 + C]."""
    records = (row.tobytes() for row in rows.astype("<i8", copy=False))
    return b"".join(record + zlib.crc32(record).to_bytes(_CRC_BYTES, "little") for record in records)


def read_segment(path: Path) -> Segment:
    """Read a file up to where it is torn.

    Raises:
        ArtifactError: the file is not of this format, or damaged before its end.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ArtifactError(f"{path}: expected a file of events, found something else; move it away")
    content = path.read_bytes()
    features, start = _read_header(path, content)
    width = 8 * (4 + len(features)) + _CRC_BYTES
    count = (len(content) - start) // width
    records = memoryview(content)[start : start + count * width]
    crc = np.fromiter((zlib.crc32(record) for (record,) in struct.iter_unpack(f"{width}s", records)), np.uint32, count)
    whole = np.flatnonzero(crc == _CRC_OF_WHOLE)
    if len(whole) and whole[-1] + 1 != len(whole):
        broken = start + width * int(np.argmax(crc != _CRC_OF_WHOLE))
        raise damage(path, broken, "a record whose checksum is wrong, with whole records after it")
    fields = np.frombuffer(records, np.dtype([("row", "<i8", (4 + len(features),)), ("crc", "<u4")]))
    return Segment(features, fields["row"][: len(whole)].astype(np.int64), start + len(whole) * width, width)


def damage(path: Path, offset: int, found: str) -> ArtifactError:
    """The error of a file whose bytes are not those that were written."""
    return ArtifactError(
        f"{path}: damaged at byte {offset}: {found}; put back a copy of the file, or move it away to serve without the "
        "events in it"
    )


def _read_header(path: Path, content: bytes) -> tuple[tuple[str, ...], int]:
    """Names of the context features, and where the records begin."""
    if len(content) < _HEADER.size or not content.startswith(_MAGIC):
        raise damage(path, 0, "expected the header of an event log")
    _, version, length, crc = _HEADER.unpack_from(content)
    names = content[_HEADER.size : _HEADER.size + length]
    if len(names) < length or zlib.crc32(_CHECKED.pack(version, length) + names) != crc:
        raise damage(path, 0, "a header whose checksum is wrong")
    if version != _VERSION:
        raise ArtifactError(
            f"{path}: expected an event log of format {_VERSION}, found {version}; "
            "serve it with the version of PrismRec that wrote it"
        )
    return _features(path, names), _HEADER.size + length


def _features(path: Path, names: bytes) -> tuple[str, ...]:
    try:
        features = json.loads(names)
    except (ValueError, RecursionError) as error:
        raise damage(path, _HEADER.size, "names of context features that are no JSON") from error
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise damage(path, _HEADER.size, "names of context features that are no list of text")
    if len(set(features)) < len(features):
        raise damage(path, _HEADER.size, "a context feature that is named twice")
    return tuple(features)
