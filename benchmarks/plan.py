"""Plans compared with what is measured: bytes of tables, ids looked up, bytes sent, activations and examples/s.

    python benchmarks/plan.py [--out benchmarks/results] [--steps 20]

Each case is planned, then trained for some steps in as many processes on this machine (gloo) on a year of grocery
purchases (Complete Journey, as in the demo). Every process counts, from the third step on,

- bytes of its tables and of their optimiser's state, as they are in memory;
- distinct ids that it looks up in a step, by feature;
- bytes that it writes to sockets (`wchar` of /proc/self/io), since gloo sends all it has to send by write calls;
- bytes of distinct tensors that a step keeps for its backward pass, without weights;
- examples and seconds, with the median step counted.

The rate that a plan starts from is that of one process alone with its part of every batch (`plan --measure`), right
after the case was measured. Prints tables, and with
--out also writes them to plan-<date>.md there.
"""

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from prismrec.data.datasets import complete_journey
from prismrec.data.prepare import prepare
from prismrec.data.store import Store
from prismrec.demo import PREPARE
from prismrec.model.embeddings import HashedEmbedding, HashedTables
from prismrec.toml import load_config
from prismrec.train.distributed import join_ranks
from prismrec.train.logs import Silence
from prismrec.train.placement import describe_cluster
from prismrec.train.plan import Plan, make_plan
from prismrec.train.rate import measure_rate
from prismrec.train.settings import size_tables
from prismrec.train.trainer import Trainer
from saying import header, say

QUIET, WARM_UP, MIB = Console(quiet=True), 2, 2**20
LARGE = ("model.hashing.rows_per_id=11",)  # item_id: 4 tables of 1,000,000 rows, the largest allowed


class Case(NamedTuple):
    """One training."""

    name: str
    ranks: int
    settings: tuple[str, ...] = ()


CASES = (
    Case("one process", 1),
    Case("two, as planned", 2),
    Case("two, by rows", 2, ("train.sharding=row_wise",)),
    Case("two, by tables", 2, ("train.sharding=table_wise",)),
    Case("one, tables of 1e6 rows", 1, LARGE),
    Case("two, tables of 1e6 rows by rows", 2, (*LARGE, "train.sharding=row_wise")),
    Case("four, by rows", 4, ("train.sharding=row_wise",)),
)
SETTINGS = ("history.before_target_time=true", "history.max_length=50", "train.validate_every=1000000")


def main() -> None:
    """Plan and measure every case, or, in a process of one, measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="that are measured")
    parser.add_argument("--out", type=Path, help="folder to write the tables to")
    parser.add_argument("--of", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.of is not None:
        store, out, *settings = options.of
        measure(Path(store), Path(out), settings, options.steps)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(*complete_journey(), Path(folder) / "store", PREPARE, QUIET)
        lines = list(tables(store, Path(folder), options.steps))
    if options.out is not None:
        top = header("plan", f"load {os.getloadavg()[0]:.1f} at the end")
        text = "\n".join([top, "", f"    python benchmarks/plan.py --steps {options.steps}", "", *lines, ""])
        (options.out / f"plan-{dt.date.today().isoformat()}.md").write_text(text)


def tables(store: Store, folder: Path, steps: int) -> Iterator[str]:
    """The lines of the tables, each printed as soon as it is known."""
    yield say("Planned / measured. Tables and their optimiser's state of each rank, activations of the rank with most,")
    yield say("ids of `item_id` of the rank with most in a step, bytes that a rank sends in a step, on average.")
    columns = ["case", "tables, MiB", "activations, MiB", "ids", "sent, MiB", "examples/s"]
    yield say(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for number, case in enumerate(CASES):
        settings = [*SETTINGS, *case.settings]
        found = start(case, store.path, folder / f"run-{number}", settings, steps)
        rate = found[0]["batch"] / max(each["seconds"] for each in found)
        config = load_config(None, settings)
        one_rank = measure_rate(store, config, steps, case.ranks)
        plan = make_plan(store, config, describe_cluster(case.ranks, 1, "cpu"), one_rank)
        yield say(f"| {case.name} | {' | '.join(compared(plan, found, rate))} |")


def compared(plan: Plan, found: list[dict[str, Any]], rate: float) -> Iterator[str]:
    """The cells of a case: what was planned, and what each process measured."""
    planned = [(each.tables + each.table_optimizer) / MIB for each in plan.memory]
    measured = [each["tables"] / MIB for each in found]
    yield f"{', '.join(f'{each:.2f}' for each in planned)} / {', '.join(f'{each:.2f}' for each in measured)}"
    kept = max(each["kept"] for each in found) / MIB
    yield f"{max(each.activations for each in plan.memory) / MIB:.0f} / {kept:.0f}"
    item = plan.features[0]
    yield f"{item.distinct_per_step:,.0f} / {statistics.mean(max_of_ranks(found, item.path)):,.0f}"
    sent = statistics.mean(each["sent"] for each in found) / MIB
    yield f"{plan.communication.total / MIB:.3f} / {sent:.3f}"
    yield f"{plan.speed.all_ranks:,.0f} / {rate:,.0f}"


def max_of_ranks(found: list[dict[str, Any]], path: str) -> list[int]:
    """Distinct ids of the rank with most, in each step."""
    return [max(counts) for counts in zip(*(each["distinct"][path] for each in found), strict=True)]


def start(case: Case, store: Path, out: Path, settings: list[str], steps: int) -> list[dict[str, Any]]:
    """Measure a case in processes of its own; what each of them found."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(case.ranks)] if case.ranks > 1 else []
    arguments = [__file__, "--steps", str(steps), "--of", str(store), str(out), *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    subprocess.run([sys.executable, *launcher, *arguments], check=True, env=environment)
    return [json.loads((out / f"measured-{rank}.json").read_text()) for rank in range(case.ranks)]


def measure(store_path: Path, out: Path, settings: list[str], steps: int) -> None:
    """Train some steps as one of the processes, and write what was counted into the run's directory."""
    torch.set_num_threads(1)
    store = Store.open(store_path, checksums=False)
    config = size_tables(load_config(None, settings), store)
    with join_ranks() as ranks:
        ranks.on_first(lambda: Trainer(store, out, config, QUIET, device=torch.device("cpu")).begin())
        trainer = Trainer(store, out, config, QUIET, ranks)
        trainer.restore()
        distinct = count_distinct(trainer.model)
        seconds, sent, kept = [], [], 0
        for number, batch in enumerate(islice(trainer.loader.batches(0), WARM_UP + steps)):
            kept = kept_bytes(trainer, batch) if number == WARM_UP - 1 else kept
            started, written = time.perf_counter(), bytes_written()
            if number != WARM_UP - 1:
                trainer._train_on(batch, Silence())
            seconds.append(time.perf_counter() - started)
            sent.append(bytes_written() - written)
        found = {
            "batch": config.train.batch_size,
            "seconds": statistics.median(seconds[WARM_UP:]),
            "sent": statistics.mean(sent[WARM_UP:]),
            "distinct": {path: counts[WARM_UP:] for path, counts in distinct.items()},
            "kept": kept,
            "tables": table_bytes(trainer),
        }
        (out / f"measured-{ranks.rank}.json").write_text(json.dumps(found))


def count_distinct(model: nn.Module) -> dict[str, list[int]]:
    """Filled with the number of distinct ids of every lookup of each hashed embedding, by its path."""
    counts: dict[str, list[int]] = defaultdict(list)

    def watch(path: str, tables: nn.Module) -> None:
        tables.register_forward_pre_hook(lambda _, ids: counts[path].append(len(torch.unique(ids[0]))))

    for path, module in model.named_modules():
        if isinstance(module, HashedEmbedding):
            watch(path, module.tables)
    return counts


def kept_bytes(trainer: Trainer, batch: Any) -> int:
    """Bytes of the distinct tensors that a step keeps for its backward pass, weights left out; it also trains."""
    weights = {each.untyped_storage().data_ptr() for each in [*trainer.step.parameters(), *sharded_pieces(trainer)]}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer._train_on(batch, Silence())
    return sum(storages.values())


def table_bytes(trainer: Trainer) -> int:
    """Of the tables and of their optimiser's state that this process holds."""
    states = trainer.optimizers._optimizers[1].state
    whole = [
        tensor
        for module in trainer.model.modules()
        if isinstance(module, HashedTables)
        for table in module.parameters()
        for tensor in (table, *states[table].values())
    ]
    return sum(each.nbytes for each in [*whole, *sharded_pieces(trainer)])


def sharded_pieces(trainer: Trainer) -> list[Tensor]:
    """What this process holds of tables that several share, and of their optimiser's state."""
    tables: list[Any] = [each.tables for each in trainer.model.modules() if isinstance(each, HashedEmbedding)]
    pieces = [
        piece
        for each in tables
        if not isinstance(each, HashedTables)
        for piece in (*each._own_weights(), *each._own_squares())
    ]
    return [tensor for piece in pieces for tensor in piece.values()]


def bytes_written() -> int:
    """By this process so far, to files and sockets."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


if __name__ == "__main__":
    main()
