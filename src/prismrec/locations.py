"""Files on this machine or in an object store, by path or by URL (`s3://`, `gs://`, `memory://`, ...).

Takes what a user wrote; gives open files, copies and lists. URLs are fsspec's business, credentials and endpoints
included; `file://` and everything without `://` is a path.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from prismrec.atomic import replacing_file
from prismrec.errors import DataError

_TABLES = (".parquet", ".csv")


def is_url(location: Path | str) -> bool:
    """Whether it is not on this machine's file system."""
    return "://" in str(location) and not str(location).startswith("file://")


def local(location: Path | str) -> Path:
    """The path that is meant."""
    return Path(str(location).removeprefix("file://"))


def names_folder(location: str) -> bool:
    """Whether a folder is meant: it is there, or its name ends with a slash."""
    return location.endswith("/") or (not is_url(location) and local(location).is_dir())


def joined(folder: str, name: str) -> str:
    """The location of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def names(folder: str) -> list[str]:
    """Names of what is in a folder; none if it is not there."""
    if not is_url(folder):
        return sorted(path.name for path in local(folder).iterdir()) if local(folder).is_dir() else []
    with _naming(folder):
        files, root = _files_of(folder)
        found = files.ls(root, detail=False) if files.isdir(root) else []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


def find_tables(location: str) -> list[str]:
    """Parquet and CSV files by rising name: those of a folder and the folders in it, those of a glob, or one file.

    Raises:
        DataError: there are none.
    """
    if is_url(location):
        with _naming(location):
            files, root = _files_of(location)
            prefix = location.rstrip("/").removesuffix(root)
            if files.isdir(root):
                found = files.find(root)
            else:
                found = files.glob(root) if "*" in root else [root] * files.exists(root)
        found = [prefix + path for path in found if path.endswith(_TABLES)]
    else:
        path = local(location)
        magic = not path.is_file() and any(character in path.name for character in "*?[")
        inside = path.rglob("*") if path.is_dir() else path.parent.glob(path.name) if magic else [path]
        found = [str(file) for file in inside if file.suffix in _TABLES and file.is_file()]
    if not found:
        raise DataError(f"{location}: expected a Parquet or CSV file, found nothing there")
    return sorted(found)


def stamp(location: str) -> str:
    """What changes when the file changes: of a path, size and moment of the last change."""
    if not is_url(location):
        try:
            status = local(location).stat()
        except (OSError, ValueError) as error:
            raise DataError(f"{location}: could not be read ({error})") from error
        return f"{status.st_size} {status.st_mtime_ns}"
    with _naming(location):
        files, path = _files_of(location)
        return str(files.ukey(path))


@contextlib.contextmanager
def fetched(location: str) -> Iterator[Path]:
    """A path with the content of a file, of a folder's tables or a glob's; a copy that is deleted, if it is a URL."""
    if not is_url(location):
        yield local(location)
        return
    with tempfile.TemporaryDirectory(prefix="prismrec-") as folder:
        found = find_tables(location)
        for place, file in enumerate(found):
            fetch(file, Path(folder) / f"{place:06d}-{file.rpartition('/')[2]}")
        yield Path(folder) if len(found) > 1 else next(Path(folder).iterdir())


def fetch(location: str, path: Path) -> None:
    """Copy the file of a URL to a path."""
    with _naming(location):
        files, source = _files_of(location)
        files.get_file(source, str(path))


@contextlib.contextmanager
def reading(location: str) -> Iterator[BinaryIO]:
    """Open a file."""
    if not is_url(location):
        with local(location).open("rb") as file:
            yield file
        return
    with _naming(location):
        files, path = _files_of(location)
        opened = files.open(path, "rb")
    with opened as file:
        yield file


@contextlib.contextmanager
def writing(location: Path | str) -> Iterator[Path]:
    """Yield a temporary path; what is there when the block ends without an error goes to the location, whole."""
    if not is_url(location):
        with replacing_file(local(location)) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory(prefix="prismrec-") as folder:
        temporary = Path(folder, str(location).rpartition("/")[2])
        yield temporary
        with _naming(str(location)):
            files, path = _files_of(str(location))
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.put_file(str(temporary), path)


def remove(location: str) -> None:
    """Delete a file, if it is there."""
    if not is_url(location):
        local(location).unlink(missing_ok=True)
        return
    with _naming(location), contextlib.suppress(FileNotFoundError):
        files, path = _files_of(location)
        files.rm_file(path)


def fingerprint(*parts: object) -> str:
    """A digest of the text of some values."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _files_of(location: str) -> tuple[Any, str]:
    files, path = fsspec.core.url_to_fs(location)
    files.invalidate_cache()  # others write there too
    return files, cast(str, path).rstrip("/")


@contextlib.contextmanager
def _naming(location: str) -> Iterator[None]:
    """Turn what goes wrong into an error that names the URL; every store has exceptions of its own."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{location}: could not be read or written ({reason})") from error
