"""Directories that PrismRec writes (store, run, bundle): written whole or not at all, described by a manifest.

A directory is built under a temporary name beside its destination and renamed when complete, so
that a crash or an error leaves whatever was there before untouched. `manifest.json` names the kind,
the format version, and the size and SHA-256 of every file; readers check all of it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prismrec.errors import ArtifactError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@contextlib.contextmanager
def replacing_directory(destination: Path, kind: str, within: Path | None = None) -> Iterator[Path]:
    """Yield a temporary directory that becomes `destination` if the block ends without an error.

    An existing `destination` is replaced only if it is an artifact of the same kind, or empty. The temporary directory
    is made `within` another on the same file system, beside `destination` by default.

    Raises:
        ArtifactError: `destination` exists and is something else.
    """
    if destination.exists() and not _replaceable(destination, kind):
        raise ArtifactError(
            f"{destination}: expected a new path or an earlier {kind}, found something else; choose another --out"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=within or destination.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        _swap(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replacing_file(destination: Path) -> Iterator[Path]:
    """Yield a temporary path beside `destination` that replaces it if the block ends without an error."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        synchronize(temporary)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


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


def write_manifest(directory: Path, kind: str, files: Iterable[Path] | None = None, **content: Any) -> None:
    """Write the manifest: size and checksum of `files` (default: all below), and `content` (settings, counts)."""
    if files is None:
        files = (path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST)
    described = describe_files(directory, files)
    write_json(directory / MANIFEST, {"kind": kind, "format_version": FORMAT_VERSION, "files": described, **content})


def describe_files(directory: Path, files: Iterable[Path]) -> dict[str, Any]:
    """Size and checksum of files by their path below `directory`, as a manifest lists them."""
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(files)
    }


def manifest_content(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what `write_manifest` adds."""
    return {name: value for name, value in manifest.items() if name not in ("kind", "format_version", "files")}


def read_manifest(directory: Path, kind: str, *, checksums: bool = True) -> dict[str, Any]:
    """Read a manifest and check kind, format version, and the size and, unless told not to, checksum of every file.

    Raises:
        ArtifactError: the directory is not a `kind` of this format, or a file is missing or changed.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{directory}: expected a {kind} directory, found no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        files = manifest["files"].items()
        found = (manifest["kind"], manifest["format_version"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: expected a PrismRec manifest, could not read it ({error!r})") from error
    if found != (kind, FORMAT_VERSION):
        raise ArtifactError(
            f"{directory}: expected a {kind} of format {FORMAT_VERSION}, found {found[0]} of {found[1]}"
        )
    for name, expected in files:
        _check_file(directory / name, expected, kind, checksums)
    return manifest


def _check_file(file: Path, expected: dict[str, Any], kind: str, checksums: bool) -> None:
    if not file.is_file():
        raise ArtifactError(f"{file}: expected by the {kind}'s manifest, but missing; make the {kind} again")
    if file.stat().st_size != expected["bytes"] or (checksums and _sha256(file) != expected["sha256"]):
        raise ArtifactError(f"{file}: does not match its checksum in the manifest; make the {kind} again")


def _replaceable(destination: Path, kind: str) -> bool:
    if not destination.is_dir():
        return False
    if not any(destination.iterdir()):
        return True
    try:
        return bool(json.loads((destination / MANIFEST).read_text())["kind"] == kind)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _swap(temporary: Path, destination: Path) -> None:
    if not destination.exists():
        temporary.rename(destination)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{destination.name}-old-", dir=destination.parent))
    destination.replace(old)
    temporary.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
