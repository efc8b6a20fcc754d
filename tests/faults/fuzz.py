"""Coverage-guided fuzzing of whatever reads bytes: python tests/faults/fuzz.py TARGET [CORPUS] [-max_total_time=60]

A target takes any bytes; what it raises beyond an error of PrismRec's own is a defect, which Atheris reports with the
bytes. Further options are those of libFuzzer; `test_fuzz.py` runs every target for a moment.
"""

import contextlib
import json
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["prismrec", "tomllib", "json"], enable_loader_override=False):
    from prismrec.artifact import read_manifest, replace_manifest
    from prismrec.data.schema import stable_keys
    from prismrec.errors import PrismRecError
    from prismrec.serve.event_segments import read_segment
    from prismrec.serve.redis_events import _is_event, _unpack
    from prismrec.toml import load_config

_FEATURES = stable_keys(["page", "shop"])


def _with_file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    path = Path(tempfile.mkdtemp(prefix="prismrec-fuzz-")) / name

    def target(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return target


def _segment(path: Path) -> object:
    """The first line is what the header says, with its right checksum, which nobody guesses; records follow."""
    names, _, records = path.read_bytes().partition(b"\n")
    checked = struct.pack("<II", 1, len(names)) + names
    path.write_bytes(b"PRISMLOG" + checked[:8] + struct.pack("<I", zlib.crc32(checked)) + names + records)
    return read_segment(path)


def _manifest(path: Path) -> object:
    """With a right checksum where it is a mapping, or nothing behind that would be read."""
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            replace_manifest(path.parent, content)
    return read_manifest(path.parent, "store")


def _settings(content: bytes) -> object:
    """Every line is one `--set`."""
    return load_config(None, content.decode(errors="surrogateescape").split("\n"))


def _values(content: bytes) -> object:
    """Values of one user in Redis."""
    return _unpack([value for value in content.split(b"\n") if _is_event(len(value))], _FEATURES)


TARGETS = {
    "segment": _with_file(_segment, "events-000001.log"),
    "manifest": _with_file(_manifest, "manifest.json"),
    "toml": _with_file(load_config, "c.toml"),
    "settings": _settings,
    "values": _values,
}


def main() -> None:
    """Fuzz the target that is named; ends the process."""
    target = TARGETS[sys.argv.pop(1)]

    def once(content: bytes) -> None:
        with contextlib.suppress(PrismRecError):
            target(content)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
