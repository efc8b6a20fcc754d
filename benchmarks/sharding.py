"""How fast sharded tables are looked up and updated, as bags of one id (what training does) and as sequences.

    torchrun --nproc-per-node 2 benchmarks/sharding.py

Each row is one way to divide four tables: milliseconds of a lookup and of its backward pass with the update, medians
of 20 rounds on rank 0, which all ranks begin together. Without a GPU the processes share this machine's cores.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    KeyedJaggedTensor,
)
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.shard import shard_modules
from torchrec.distributed.types import ShardingEnv
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from prismrec.train.distributed import Ranks, choose_device, join_ranks
from prismrec.train.planner import Sharder, topology

TABLES, ROUNDS, WARM_UP = 4, 20, 5


def main() -> None:
    """Measure both shapes divided in both ways, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="of each table")
    parser.add_argument("--width", type=int, default=16, help="of each row")
    parser.add_argument("--ids", type=int, default=12_000, help="distinct ids that each rank looks up")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with join_ranks() as ranks:
        device = choose_device("auto", ranks.place)
        if ranks.first:
            print(
                f"{ranks.size} ranks on {device.type}, {TABLES} tables of {options.rows:,} x {options.width},", end=" "
            )
            print(f"{options.ids:,} ids a rank\n")
            print("| shape | divided | lookup ms | backward and update ms |\n|---|---|---|---|")
        for shape in ("bags", "sequences"):
            for kind in ("row_wise", "table_wise"):
                collection = sharded(shape, kind, options.rows, options.width, ranks, device)
                lookup, backward = measure(collection, options.rows, options.ids, ranks, device)
                if ranks.first:
                    print(f"| {shape} | {kind} | {lookup:.1f} | {backward:.1f} |", flush=True)


def sharded(shape: str, kind: str, rows: int, width: int, ranks: Ranks, device: torch.device) -> Any:
    """A collection of tables, divided in one way."""
    tables = [{"name": f"t{i}", "num_embeddings": rows, "embedding_dim": width} for i in range(TABLES)]
    meta = torch.device("meta")
    collection: Any
    sharder: Any
    if shape == "bags":
        bags = [EmbeddingBagConfig(**table, feature_names=[str(i)]) for i, table in enumerate(tables)]
        collection, sharder = EmbeddingBagCollection(tables=bags, device=meta), Sharder()
    else:
        sequences = [EmbeddingConfig(**table, feature_names=[str(i)]) for i, table in enumerate(tables)]
        collection, sharder = EmbeddingCollection(tables=sequences, device=meta), EmbeddingCollectionSharder()
    apply_optimizer_in_backward(RowWiseAdagrad, collection.parameters(), {"lr": 0.05, "eps": 1e-8})
    model = nn.ModuleDict({"tables": collection})
    one = ParameterConstraints(sharding_types=[kind], compute_kernels=["fused"], pooling_factors=[1.0])
    planner = EmbeddingShardingPlanner(
        topology=topology(ranks, device),
        storage_reservation=FixedPercentageStorageReservation(0.15),
        constraints={table["name"]: one for table in tables},
    )
    plan = ranks.on_first(lambda: planner.plan(model, [sharder]))
    world = distributed.group.WORLD
    assert world is not None, "start this by torchrun, with at least two processes"
    shard_modules(model, ShardingEnv.from_process_group(world), device, plan, [sharder])
    return model["tables"]


def measure(collection: Any, rows: int, count: int, ranks: Ranks, device: torch.device) -> tuple[float, float]:
    """Median milliseconds of a lookup and of its backward pass."""
    ids = torch.randint(0, rows, (count,), generator=torch.Generator().manual_seed(ranks.rank)).to(device)
    lookups, backwards = [], []
    for _ in range(WARM_UP + ROUNDS):
        distributed.barrier()
        start = time.perf_counter()
        found = look_up(collection, ids)
        wait(device)
        middle = time.perf_counter()
        found.backward(torch.ones_like(found))
        wait(device)
        lookups.append(middle - start)
        backwards.append(time.perf_counter() - middle)
    return 1000 * statistics.median(lookups[WARM_UP:]), 1000 * statistics.median(backwards[WARM_UP:])


def look_up(collection: Any, ids: Tensor) -> Tensor:
    """The same ids in every table, [n, tables * width]."""
    keys = [str(i) for i in range(TABLES)]
    lengths = torch.ones(TABLES * len(ids), dtype=torch.int32, device=ids.device)
    found = collection(KeyedJaggedTensor(keys, ids.repeat(TABLES), lengths=lengths)).wait()
    parts = [found[key] for key in keys]
    return torch.cat([part if isinstance(part, Tensor) else part.values() for part in parts], -1)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
