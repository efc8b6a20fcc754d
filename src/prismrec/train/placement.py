"""Which rank holds which rows of the embedding tables of a training that is only planned.

Takes a model on the meta device and the settings; gives tables with their sizes. Where several ranks train, TorchRec
decides as it would in training, if it is installed; otherwise every table is divided evenly by rows.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from prismrec.config import Config
from prismrec.errors import ConfigError
from prismrec.model.embeddings import HashedEmbedding
from prismrec.train.distributed import memory_of_rank

Sharding = Literal["whole", "row_wise", "table_wise"]
FLOAT, GIB = 4, 2**30  # bytes


class Cluster(NamedTuple):
    """Where a training is to run."""

    ranks: int
    """N, of all machines."""
    ranks_per_machine: int
    memory: int
    """Bytes of each rank."""
    device: str
    """cpu or cuda."""
    bandwidth: float | None = None
    """Bytes a second that each rank can send, if known."""


def describe_cluster(
    ranks_per_machine: int, machines: int, device: str, memory: float | None = None, bandwidth: float | None = None
) -> Cluster:
    """A cluster of machines that are alike.

    Args:
        ranks_per_machine: processes of each.
        machines: how many.
        device: as in `train.device`; cuda need not be here.
        memory: GiB of each rank; by default what it would have on this machine.
        bandwidth: GB a second that each rank can send, if known.

    Raises:
        ConfigError: GPUs are asked for, there is none here, and their memory is not given.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if memory is None and device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--memory: expected the memory of a GPU in GiB, since train.device='cuda' and none is here")
    size = memory_of_rank(torch.device(device), ranks_per_machine) if memory is None else int(memory * GIB)
    sent = None if bandwidth is None else bandwidth * 1e9
    return Cluster(ranks_per_machine * machines, ranks_per_machine, size, device, sent)


class TablePlan(BaseModel):
    """One table."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    feature: str
    path: str
    """Of its embedding in the model."""
    place: int
    """Of it among the tables of the feature, from 0."""
    rows: int
    width: int
    sharding: Sharding
    rows_of_rank: list[int]
    """On each rank."""
    optimizer_bytes_per_row: int

    @property
    def bytes_per_row(self) -> int:
        """Of weights and of the optimiser's state."""
        return FLOAT * self.width + self.optimizer_bytes_per_row

    @property
    def weight_bytes(self) -> int:
        return FLOAT * self.width * self.rows

    @property
    def optimizer_bytes(self) -> int:
        return self.optimizer_bytes_per_row * self.rows


class Placement(NamedTuple):
    """All tables."""

    tables: list[TablePlan]
    refused: bool
    """The planner found no room for them."""
    notes: list[str]
    """What is to be said of how they were divided."""


def place_tables(model: nn.Module, features: dict[str, str], config: Config, cluster: Cluster) -> Placement:
    """Divide the tables of a model on the meta device.

    Args:
        model: it.
        features: name of the feature by the path of its embedding.
        config: full settings.
        cluster: where.

    Raises:
        ConfigError: several processes cannot train such tables.
    """
    place, refused, notes = (_whole, False, []) if cluster.ranks == 1 else _divided(model, config, cluster)
    tables = []
    for path, name in features.items():
        embedding = model.get_submodule(path)
        assert isinstance(embedding, HashedEmbedding)
        for number, table in enumerate(embedding.tables.parameters()):
            rows, width = table.shape
            sharding, rows_of_rank = place(path, number, rows)
            tables.append(
                TablePlan(
                    feature=name,
                    path=path,
                    place=number,
                    rows=rows,
                    width=width,
                    sharding=sharding,
                    rows_of_rank=rows_of_rank,
                    # one sum of squares a row, or two moments a number
                    optimizer_bytes_per_row=FLOAT
                    * (1 if config.train.table_optimizer == "rowwise_adagrad" else 2 * width),
                )
            )
    return Placement(tables, refused, notes)


_Place = Callable[[str, int, int], tuple[Sharding, list[int]]]
"""Path of an embedding, number of a table, its rows -> how it is divided, and the rows of each rank."""


def _whole(_path: str, _number: int, rows: int) -> tuple[Sharding, list[int]]:
    return "whole", [rows]


def divide_rows(rows: int, ranks: int) -> list[int]:
    """Rows of each rank where a table is divided evenly: as many for each, less for the last ones."""
    block = -(-rows // ranks)
    return [max(min(block, rows - rank * block), 0) for rank in range(ranks)]


def _divided(model: nn.Module, config: Config, cluster: Cluster) -> tuple[_Place, bool, list[str]]:
    def evenly(_path: str, _number: int, rows: int) -> tuple[Sharding, list[int]]:
        return "row_wise", divide_rows(rows, cluster.ranks)

    if importlib.util.find_spec("torchrec") is None:
        return evenly, False, ["TorchRec is not installed (make distributed): tables are divided evenly by rows here."]
    from prismrec.train.planner import describe_machines, plan_tables
    from prismrec.train.sharded import check_shardable, make_collections

    check_shardable(model, config.train)
    machines = describe_machines(cluster.ranks, cluster.ranks_per_machine, cluster.memory, cluster.device)
    try:
        planned = plan_tables(make_collections(model, config.train), config.train, machines).plan
    except ConfigError:
        return evenly, True, ["TorchRec's planner finds no room for the tables: they are divided evenly by rows here."]

    def as_planned(path: str, number: int, _rows: int) -> tuple[Sharding, list[int]]:
        name = path.replace(".", "_")
        found: Any = planned[name][f"{name}_{number}"]
        rows_of_rank = [0] * cluster.ranks
        for shard in found.sharding_spec.shards:
            rows_of_rank[shard.placement.rank()] += shard.shard_sizes[0]
        return found.sharding_type, rows_of_rank

    return as_planned, False, []
