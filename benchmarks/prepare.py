"""Speed and peak memory of `prepare`: generated events, prepared in a process of their own.

    python benchmarks/prepare.py --events 2000000 20000000 --ids integer text [--out benchmarks/results]

Users and items are drawn with frequency falling as 1 / rank, a tenth as many users as events and
200,000 items; times span a year. Text ids look like "user-000000123". Prints a table, and with --out
also writes it to prepare-<date>.md there.
"""

import argparse
import datetime as dt
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import psutil
import pyarrow.parquet as pq

ITEMS, EVENTS_PER_USER, CHUNK = 200_000, 10, 2_000_000
YEAR, START = 365 * 86_400, 1_700_000_000
GIB = 1024**3

PREPARE = """
import resource, sys
from pathlib import Path
from prismrec.data.prepare import prepare
prepare(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


class Measured(NamedTuple):
    """One run of `prepare`."""

    ids: str
    events: int
    users: int
    input_bytes: int
    store_bytes: int
    seconds: float
    peak_bytes: int


def main() -> None:
    """Generate, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[20_000_000])
    parser.add_argument("--ids", choices=["integer", "text"], nargs="+", default=["integer"])
    parser.add_argument("--out", type=Path, help="folder to write the table to")
    parser.add_argument("--scratch", type=Path, help="folder for the generated data; the system's by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        measured = [measure(Path(scratch), ids, number) for ids in arguments.ids for number in arguments.events]
    text = report(measured)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"prepare-{dt.date.today().isoformat()}.md").write_text(text + "\n")


def measure(scratch: Path, ids: str, events: int) -> Measured:
    """Generate so many events and prepare them."""
    source, catalogue, store = scratch / "events.parquet", scratch / "items.parquet", scratch / "store"
    generate(source, catalogue, ids, events)
    started = time.perf_counter()
    command = [sys.executable, "-c", PREPARE, str(source), str(catalogue), str(store)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    users = len(np.load(store / "offsets.npy", mmap_mode="r")) - 1
    store_bytes = sum(file.stat().st_size for file in store.iterdir())
    return Measured(ids, events, users, source.stat().st_size, store_bytes, seconds, int(done.stdout))


def generate(source: Path, catalogue: Path, ids: str, events: int) -> None:
    """Write the events, in order of time and in chunks, and the catalogue."""
    rng = np.random.default_rng(0)
    users = max(events // EVENTS_PER_USER, 1)
    writer = None
    for start in range(0, events, CHUNK):
        size = min(CHUNK, events - start)
        times = np.sort(rng.integers(YEAR * start // events, YEAR * (start + size) // events + 1, size)) + START
        chunk = pl.DataFrame(
            {"user_id": _skewed(rng, users, size), "item_id": _skewed(rng, ITEMS, size), "timestamp": times}
        )
        table = (_as_text(chunk) if ids == "text" else chunk).to_arrow()
        writer = writer or pq.ParquetWriter(source, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    items = pl.DataFrame({"item_id": np.arange(ITEMS), "category": np.arange(ITEMS) % 1000})
    (_as_text(items) if ids == "text" else items).write_parquet(catalogue)


def _skewed(rng: np.random.Generator, size: int, number: int) -> np.ndarray:
    """Ids from 0 up whose frequency falls about as 1 / rank."""
    return np.minimum(np.exp(rng.random(number) * np.log(size + 1)).astype(np.int64) - 1, size - 1)


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    names = [name for name in ("user_id", "item_id") if name in frame.columns]
    return frame.with_columns(
        pl.format(f"{name[:4]}-{{}}", pl.col(name).cast(pl.String).str.zfill(9)).alias(name) for name in names
    )


def report(measured: list[Measured]) -> str:
    """The table, with the machine and the date."""
    memory = psutil.virtual_memory().total / GIB
    lines = [
        f"`prepare`, {dt.date.today().isoformat()}, {platform.processor() or platform.machine()}, "
        f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, Polars {pl.__version__}, "
        f"load average {psutil.getloadavg()[0]:.1f} at the end",
        "",
        "| ids | events | users | Parquet, GB | store, GB | seconds | events/s | peak memory, GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in measured:
        lines.append(
            f"| {run.ids} | {run.events:,} | {run.users:,} | {run.input_bytes / 1e9:.2f} | {run.store_bytes / 1e9:.2f} "
            f"| {run.seconds:.1f} | {run.events / run.seconds:,.0f} | {run.peak_bytes / GIB:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
