"""Files and directories that are replaced whole or not at all.

They are made under a temporary name beside their destination and take its place when complete and on the disk, so that
an error, a kill or a loss of power at any moment leaves the earlier one or the new one, whole. What a killed process
left is removed by the next that writes the same.
"""

import contextlib
import ctypes
import errno
import fcntl
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prismrec.errors import RankError

_TEMPORARY = ".tmp"
_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_ERRNO = re.compile(r"(?:\(os error |\[Errno )(\d+)[)\]]")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextlib.contextmanager
def replacing_directory(destination: Path, within: Path | None = None) -> Iterator[Path]:
    """Yield a temporary directory that replaces `destination` if the block ends without an error.

    It is made `within` another on the same file system, beside `destination` by default.

    Raises:
        OSError: it cannot be written; a full or read-only disk is named by `destination`.
    """
    put_back(destination)
    folder, prefix = within or destination.parent, f".{destination.name}."
    with naming_full_disk(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder, prefix, "?" * 8)
        temporary = Path(tempfile.mkdtemp(_TEMPORARY, prefix, folder))
        try:
            with _held(temporary):
                yield temporary
                for path in (*temporary.rglob("*"), temporary):
                    if path.is_file() or path.is_dir():
                        synchronize(path)
                temporary.chmod(0o755)
                _swap(temporary, destination)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def put_back(destination: Path) -> None:
    """Undo what a process that was killed as it replaced a directory had begun, or end it."""
    aside = _aside(destination)
    if aside.exists():
        shutil.rmtree(aside) if destination.exists() else aside.rename(destination)


@contextlib.contextmanager
def replacing_file(destination: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside `destination` that replaces it if the block ends without an error.

    Raises:
        OSError: it cannot be written; a full or read-only disk is named by `destination`.
    """
    prefix = f".{destination.name}."
    with naming_full_disk(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(destination.parent, prefix, "[0-9]*")
        temporary = destination.with_name(f"{prefix}{os.getpid()}{_TEMPORARY}")
        try:
            with temporary.open("wb"), _held(temporary):
                yield temporary
                synchronize(temporary)
                temporary.replace(destination)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_full_disk(destination: Path) -> Iterator[None]:
    """Let errors of a disk that takes no more say so, and name what was being written.

    Polars, safetensors, NumPy and copies of directories have errors of their own, others name a temporary or no file.

    Raises:
        OSError: instead of whatever was raised.
    """
    try:
        yield
    except RankError:
        raise  # it quotes the error of another rank, which is the one to say so
    except Exception as error:
        said = _ERRNO.search(str(error))
        number = int(said[1]) if said else getattr(error, "errno", None)
        if number in _TAKES_NO_MORE:
            raise OSError(number, os.strerror(number), str(destination)) from error
        if isinstance(error, OSError) and _SHORT_WRITE.fullmatch(str(error)):
            raise OSError(f"{destination}: not all could be written; is the disk full?") from error
        raise


def synchronize(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, sorted and indented so that two runs can be compared."""
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def _swap(temporary: Path, destination: Path) -> None:
    """Put a directory in the place of another, which is under the temporary name then, or gone."""
    if not destination.exists():
        temporary.rename(destination)
    elif not _exchange(temporary, destination):
        destination.rename(_aside(destination))
        temporary.rename(destination)
        shutil.rmtree(_aside(destination), ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths trade places at one stroke; false where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _aside(destination: Path) -> Path:
    """Where a directory is for a moment, if it cannot trade places."""
    return destination.with_name(f".{destination.name}.replaced{_TEMPORARY}")


def _remove_leftovers(folder: Path, prefix: str, pattern: str) -> None:
    """Remove temporary files and directories of killed processes; those of living ones are held."""
    for path in folder.glob(f"{glob.escape(prefix)}{pattern}{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keep others from taking a temporary file or directory for a leftover; the lock goes with the process."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, on which no leftover is removed either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
