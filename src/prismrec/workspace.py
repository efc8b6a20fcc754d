"""Where long work keeps what is done until all is done, so that it goes on after a kill.

Takes the destination and a fingerprint of everything that the work depends on; gives a directory beside the
destination, in which an earlier call of the same fingerprint may have left files. What is beside its own SHA-256 there
is whole, and was not damaged since.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from prismrec.artifact import sha256
from prismrec.atomic import replacing_file
from prismrec.engine import Engine
from prismrec.errors import ArtifactError, PrismRecError

Work = Callable[[int, Path], None]
"""Writes the file of a number, counted from 0, to a path."""


@dataclass(frozen=True)
class Workshop:
    """The directory, and who works on what goes there."""

    work: Path
    engine: Engine
    console: Console

    def make(self, files: list[Path], open_work: Callable[[], Work], label: str) -> list[Path]:
        """Make the files that are not there yet, or damaged; gives back all.

        Args:
            files: in the directory.
            open_work: opens the work; called by every process that works.
            label: of the progress bar.
        """
        for folder in {file.parent for file in files}:
            folder.mkdir(parents=True, exist_ok=True)

        def open_maker() -> Callable[[int], None]:
            work = open_work()

            def make_one(place: int) -> None:
                with replacing_file(files[place]) as temporary:
                    work(place, temporary)
                with replacing_file(_checksum_file(files[place])) as temporary:
                    temporary.write_text(sha256(files[place]))

            return make_one

        left = [place for place, file in enumerate(files) if not _is_whole(file)]
        self.engine.map(open_maker, left, label, self.console)
        return files

    def make_numbered(self, label: str, number: int, open_work: Callable[[], Work]) -> list[Path]:
        """Make so many files in a folder that is named like the progress bar."""
        return self.make([self.work / label / f"{place:05d}" for place in range(number)], open_work, label)


def _is_whole(file: Path) -> bool:
    checksum = _checksum_file(file)
    return file.is_file() and checksum.is_file() and checksum.read_text() == sha256(file)


def _checksum_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


@contextlib.contextmanager
def workshop(destination: Path, fingerprint: str | None, engine: Engine, console: Console) -> Iterator[Workshop]:
    """Open the directory; it is deleted when the block ends, or ends with an error that going on would not mend.

    Args:
        destination: what is being made.
        fingerprint: of the inputs and settings; None keeps nothing.
        engine: who works.
        console: where progress is shown.

    Raises:
        ArtifactError: another process is making the same.
    """
    folder = destination.parent / f".{destination.name}.parts"
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArtifactError(f"{destination}: another process is writing it; wait for it to end") from None
        mark = folder / "made-of"
        kept = mark.is_file() and mark.read_text() == fingerprint
        for path in folder.iterdir():
            if not (kept or path.name == "lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if fingerprint is not None:
            with replacing_file(mark) as temporary:
                temporary.write_text(fingerprint)
        try:
            yield Workshop(folder, engine, console)
        except PrismRecError:
            shutil.rmtree(folder)
            raise
        except BaseException:
            if fingerprint is None:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
