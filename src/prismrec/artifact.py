"""Directories that PrismRec writes (store, run, bundle), each described by a manifest.

`manifest.json` names the kind, the format version, and the size and SHA-256 of every file, and of itself; readers check
all of it. Of files over 64 MiB it also has the SHA-256 of samples, of which a reader may be content
(PRISMREC_CHECKSUMS=sampled): that finds another version and a file cut short, but a changed byte only where it looks.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from polars.exceptions import PanicException

from prismrec.atomic import put_back, replacing_directory, write_json
from prismrec.errors import ArtifactError, ConfigError, PrismRecError, listed_names

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_CHECKSUM = "sha256"  # of all else in the manifest
_SAMPLES, _SAMPLE_BYTES = 64, 2**20


@contextlib.contextmanager
def replacing_artifact(destination: Path, kind: str, within: Path | None = None) -> Iterator[Path]:
    """Yield a temporary directory that becomes `destination` if the block ends without an error.

    An existing `destination` is replaced only if it is an artifact of the same kind, or empty. The temporary directory
    is made `within` another on the same file system, beside `destination` by default.

    Raises:
        ArtifactError: `destination` exists and is something else.
        OSError: it cannot be written; a full or read-only disk is named by `destination`.
    """
    put_back(destination)
    if os.path.lexists(destination) and not _replaceable(destination, kind):
        raise ArtifactError(
            f"{destination}: expected a new path or an earlier {kind}, found {_found(destination)}; choose another "
            "--out"
        )
    with replacing_directory(destination, within) as temporary:
        yield temporary


@contextlib.contextmanager
def alone(directory: Path, kind: str) -> Iterator[None]:
    """Keep other processes from changing a directory; the lock goes with the process, whatever ends it.

    Raises:
        ArtifactError: there is no such directory, or another process changes it now.
    """
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        reason = error.strerror
        raise ArtifactError(f"{directory}: expected a {kind} directory, could not open it ({reason})") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArtifactError(
                f"{directory}: expected a {kind} that nobody is changing, but another process is; wait for it, and try "
                "again"
            ) from error
        yield
    finally:
        os.close(lock)


def write_manifest(directory: Path, kind: str, files: Iterable[Path] | None = None, **content: Any) -> None:
    """Write the manifest: size and checksums of `files` (default: all below), and `content` (settings, counts)."""
    if files is None:
        files = (path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST)
    described = describe_files(directory, files)
    replace_manifest(directory, {"kind": kind, "format_version": FORMAT_VERSION, "files": described, **content})


def replace_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest as it is, atomically, with a checksum of its own."""
    plain = json.loads(json.dumps(manifest, default=str))
    plain.pop(_CHECKSUM, None)
    write_json(directory / MANIFEST, {**plain, _CHECKSUM: _checksum(plain)})


def describe_files(directory: Path, files: Iterable[Path]) -> dict[str, Any]:
    """Size and checksums of files by their path below `directory`, as a manifest lists them."""
    return {path.relative_to(directory).as_posix(): _describe(path) for path in sorted(files)}


def copy_files(directory: Path, manifest: dict[str, Any], destination: Path) -> None:
    """Copy the files of a manifest, and nothing else that may be there, such as links to other places."""
    for name in manifest["files"]:
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / name, destination / name)


def manifest_content(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what `write_manifest` adds."""
    return {name: value for name, value in manifest.items() if name not in ("kind", "format_version", "files")}


def read_manifest(directory: Path, kind: str, *, checksums: bool = True) -> dict[str, Any]:
    """Read a manifest and check all that it says of itself and of its files.

    Args:
        directory: the artifact.
        kind: what it is expected to be.
        checksums: check those of files, all of their bytes or samples of large files, as PRISMREC_CHECKSUMS says;
            otherwise only sizes.

    Raises:
        ArtifactError: the directory is not a `kind` of this format, or a file is missing, changed or outside of it.
        ConfigError: PRISMREC_CHECKSUMS is something else.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{directory}: expected a {kind} directory, found no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        found = (manifest["kind"], manifest["format_version"])
        described = [(name, dict(expected)) for name, expected in manifest["files"].items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path}: expected a PrismRec manifest, could not read it ({error!r})") from error
    if found != (kind, FORMAT_VERSION):
        what, version = (" ".join(listed_names([value]).split()) for value in found)
        raise ArtifactError(
            f"{directory}: expected a {kind} of format {FORMAT_VERSION}, found {what} of {version}; make it again with "
            "this release, or use the release that made it"
        )
    if manifest.pop(_CHECKSUM, None) != _checksum(manifest):
        raise ArtifactError(f"{path}: does not match its own checksum; make the {kind} again")
    within, sampled = directory.resolve(), checksums and _sampling()
    for name, expected in described:
        _check_file(directory / name, within, expected, kind, checksums=checksums, sampled=sampled)
    return manifest


def listed_file(directory: Path, manifest: dict[str, Any], name: str) -> Path:
    """A file of an artifact that is about to be opened: its manifest was read, so what it lists was checked.

    Raises:
        ArtifactError: the manifest does not list it, so that nobody knows where it comes from.
    """
    if name not in manifest["files"]:
        raise ArtifactError(f"{directory / name}: expected in {MANIFEST}, which does not list it; do not trust it")
    return directory / name


@contextlib.contextmanager
def fitting_parts(directory: Path, kind: str) -> Iterator[None]:
    """Let whatever goes wrong while the parts of an artifact are put together be an error of that artifact.

    Raises:
        ArtifactError: its files are those of its manifest, but not what a `kind` is made of.
    """
    try:
        yield
    except (PrismRecError, MemoryError):
        raise
    except (Exception, PanicException) as error:  # safetensors, Polars and ONNX have exceptions of their own
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{directory}: expected a whole {kind}, could not put its parts together ({type(error).__name__}: "
            f"{reason}); make the {kind} again"
        ) from error


def _check_file(
    file: Path, within: Path, expected: dict[str, Any], kind: str, *, checksums: bool, sampled: bool
) -> None:
    try:
        leaves = not file.resolve().is_relative_to(within)
    except (OSError, ValueError, RuntimeError):  # no name that a file can have, or links in a circle
        leaves = True
    if leaves:
        raise ArtifactError(f"{file}: expected files of the {kind} only, found a path that leaves it; do not trust it")
    if not file.is_file():
        raise ArtifactError(f"{file}: expected by the {kind}'s manifest, but missing; make the {kind} again")
    if file.stat().st_size != expected.get("bytes") or (checksums and not _has_checksum(file, expected, sampled)):
        raise ArtifactError(f"{file}: does not match its checksum in the manifest; make the {kind} again")


def _has_checksum(file: Path, expected: dict[str, Any], sampled: bool) -> bool:
    if sampled and "sampled" in expected:
        return bool(_sample_sha256(file) == expected["sampled"])
    return bool(sha256(file) == expected.get("sha256"))


def _sampling() -> bool:
    """Whether samples of large files are enough to check."""
    found = os.environ.get("PRISMREC_CHECKSUMS", "full")
    if found not in ("full", "sampled"):
        raise ConfigError(f"PRISMREC_CHECKSUMS: expected full or sampled, found {found!r}")
    return found == "sampled"


def _replaceable(destination: Path, kind: str) -> bool:
    if destination.is_symlink() or not destination.is_dir():
        return False
    if not any(destination.iterdir()):
        return True
    try:
        return bool(json.loads((destination / MANIFEST).read_text())["kind"] == kind)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _found(destination: Path) -> str:
    return "a link" if destination.is_symlink() else "something else"


def _describe(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    samples = {"sampled": _sample_sha256(path)} if size > _SAMPLES * _SAMPLE_BYTES else {}
    return {"bytes": size, "sha256": sha256(path), **samples}


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sample_sha256(path: Path) -> str:
    """Of the first, the last and evenly spaced pieces between."""
    digest, last = hashlib.sha256(), path.stat().st_size - _SAMPLE_BYTES
    with path.open("rb") as file:
        for place in range(_SAMPLES):
            file.seek(last * place // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
