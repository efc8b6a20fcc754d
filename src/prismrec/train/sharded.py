"""Embedding tables divided among ranks by TorchRec, row by row or table by table, as its planner finds best.

Takes a model; replaces the tables of its hashed embeddings. Their state is named and shaped as that of whole
tables, so that checkpoints and runs do not depend on how many ranks wrote them. Rows are updated during the backward
pass, by FBGEMM's fused row-wise Adagrad, which is `RowwiseAdagrad`.

Every lookup is of distinct ids, as a bag of one: on a CPU FBGEMM is five times as fast at bags as at sequences
(benchmarks/sharding.py).
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.distributed.comm_ops import set_gradient_division
from torchrec.distributed.shard import shard_modules
from torchrec.distributed.types import ShardingEnv
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from prismrec.config import TrainConfig
from prismrec.errors import ConfigError
from prismrec.loss.rows import select_rows
from prismrec.model.embeddings import HashedEmbedding, HashedTables
from prismrec.train.distributed import Ranks
from prismrec.train.planner import Sharder, plan_tables, topology

# TorchRec calls some of PyTorch's functions by their older names, and says so on every rank
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
for _name in ("torchrec", "torch.fx._symbolic_trace"):
    logging.getLogger(_name).setLevel(logging.ERROR)

EPSILON = 1e-8
_WIDTHS = 4  # FBGEMM's rows are multiples of so many numbers


class Piece(NamedTuple):
    """Rows of a table that one rank holds."""

    owner: int
    first: int
    rows: int


def shard_tables(model: nn.Module, config: TrainConfig, ranks: Ranks, device: torch.device) -> None:
    """Replace the tables of every hashed embedding of a model on the meta device, and make room for all other weights.

    All of them are to be loaded afterwards.

    Raises:
        ConfigError: tables cannot be sharded as configured, or do not fit into the memory of all ranks.
    """
    set_gradient_division(False)  # the gradients of all ranks are added up, not averaged
    embeddings = _embeddings(model)
    collections = make_collections(model, config)

    def plan_on_first() -> Any:
        check_shardable(model, config)
        return plan_tables(collections, config, topology(ranks, device))

    plan = ranks.on_first(plan_on_first)
    world = distributed.group.WORLD
    assert world is not None
    shard_modules(collections, ShardingEnv.from_process_group(world), device, plan, [Sharder()])
    for name, embedding in embeddings.items():
        embedding.tables = ShardedTables(name, collections[name], embedding.tables, ranks, device)  # type: ignore[assignment]
    model._apply(lambda x: torch.empty_like(x, device=device) if x.is_meta else x)


def make_collections(model: nn.Module, config: TrainConfig) -> nn.ModuleDict:
    """TorchRec's form of the tables of every hashed embedding of a model, on the meta device.

    By the embedding's path in the model, with `_` for dots.
    """
    collections = nn.ModuleDict({name: _collection(name, each.tables) for name, each in _embeddings(model).items()})
    for collection in collections.values():
        settings = {"lr": config.table_learning_rate, "eps": EPSILON}
        apply_optimizer_in_backward(RowWiseAdagrad, collection.parameters(), settings)
    return collections


def _embeddings(model: nn.Module) -> dict[str, HashedEmbedding]:
    modules = model.named_modules()
    return {name.replace(".", "_"): module for name, module in modules if isinstance(module, HashedEmbedding)}


def check_shardable(model: nn.Module, config: TrainConfig) -> None:
    """Check that several processes can train the tables of a model.

    Raises:
        ConfigError: they cannot.
    """
    if config.table_optimizer != "rowwise_adagrad":
        raise ConfigError(
            f"train.table_optimizer={config.table_optimizer!r}: several processes train tables by rowwise_adagrad only"
        )
    for embedding in _embeddings(model).values():
        if embedding.tables.width % _WIDTHS:
            raise ConfigError(
                f"model.embedding_dim / model.hashing.num_hashes is {embedding.tables.width}, expected a multiple of "
                f"{_WIDTHS} where several processes train; change either"
            )


def _collection(name: str, tables: HashedTables) -> EmbeddingBagCollection:
    configs = [
        EmbeddingBagConfig(
            name=f"{name}_{place}",  # the planner knows tables of all collections by name
            embedding_dim=tables.width,
            num_embeddings=rows,
            feature_names=[str(place)],
        )
        for place, rows in enumerate(_numbers_of_rows(tables))
    ]
    return EmbeddingBagCollection(tables=configs, device=torch.device("meta"))


class ShardedTables(nn.Module):
    """What `HashedTables` are to one process, for several: each looks up its own ids in the rows of all.

    Calls, `state_dict` and `load_state_dict` are made by all ranks together. The state is that of the whole tables
    on rank 0, and empty on the others; whole tables are loaded by all, of which each takes its part.
    """

    def __init__(self, name: str, collection: Any, tables: HashedTables, ranks: Ranks, device: torch.device) -> None:
        super().__init__()
        self.primes, self.width = tables.primes, tables.width
        self.rows = _numbers_of_rows(tables)
        self._collection = (collection,)  # not a child: its weights are no parameters of the model
        self._ranks, self._device = ranks, device
        weights = collection.state_dict()
        self._names = [f"embedding_bags.{name}_{place}.weight" for place in range(len(tables))]
        self._pieces = [_pieces(weights[name]) for name in self._names]
        self.squared_gradient = torch.zeros((), device=device)
        """Of what this rank looked up in this step."""

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 -> [..., tables * width]; zeros for id 0."""
        distinct, place = torch.unique(ids, return_inverse=True)
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():
                rows = self._look_up(distinct.clone())
        else:
            rows = self._look_up(distinct)
        if rows.requires_grad:
            rows.register_hook(self._count)
        return select_rows(rows, place)

    def _look_up(self, ids: Tensor) -> Tensor:
        """[n] -> [n, tables * width]; ranks with fewer ids than others ask for some empty bags too."""
        longest = torch.tensor(max(len(ids), 1), device=ids.device)
        distributed.all_reduce(longest, distributed.ReduceOp.MAX)
        padded = functional.pad(ids, (0, int(longest) - len(ids)))
        there = padded != 0
        values = torch.cat([padded[there] % prime + 1 for prime in self.primes])
        keys = [str(place) for place in range(len(self.primes))]
        found = self._collection[0](KeyedJaggedTensor(keys, values, lengths=there.repeat(len(keys)).int())).wait()
        return torch.cat([found[key] for key in keys], -1)[: len(ids)]

    @torch.no_grad()
    def _count(self, gradient: Tensor) -> None:
        self.squared_gradient += gradient.square().sum()

    def prepare(self, rate: float) -> None:
        """Set the learning rate of a step before its forward pass, which is when FBGEMM reads it."""
        self.squared_gradient.zero_()
        for group in self._collection[0].fused_optimizer.param_groups:
            group["lr"] = rate
        self._collection[0].fused_optimizer.step()  # hands it to the kernels, and does nothing else

    def squares(self) -> list[Tensor]:
        """Each row's sum of mean squared gradients, for every table, [rows]; whole on rank 0, empty on the others."""
        return [
            self._whole(pieces, own, (rows,))
            for pieces, own, rows in zip(self._pieces, self._own_squares(), self.rows, strict=True)
        ]

    @torch.no_grad()
    def load_squares(self, squares: Mapping[int, Tensor]) -> None:
        """Set what `squares` gives, by table; zero where there is none."""
        for place, own in enumerate(self._own_squares()):
            self._take(own, self._pieces[place], squares.get(place))

    def _own_weights(self) -> list[dict[int, Tensor]]:
        """Of each table the pieces that this rank holds, by first row."""
        state = self._collection[0].state_dict()
        return [_own_pieces(state[name]) for name in self._names]

    def _own_squares(self) -> list[dict[int, Tensor]]:
        state = self._collection[0].fused_optimizer.state_dict()["state"]
        found = [state.get(name, {}).values() for name in self._names]
        return [{} if not len(values) else _own_pieces(next(iter(values))) for values in found]

    def _whole(self, pieces: list[Piece], own: dict[int, Tensor], shape: tuple[int, ...]) -> Tensor:
        """The whole of what lies in pieces, on rank 0, in the memory of the host."""
        whole = torch.empty(shape if self._ranks.first else 0)
        for owner, first, rows in pieces:
            if self._ranks.first:
                piece = own[first] if owner == 0 else torch.empty((rows, *shape[1:]), device=self._device)
                if owner:
                    distributed.recv(piece, owner)
                whole[first : first + rows] = piece
            elif owner == self._ranks.rank:
                distributed.send(own[first].contiguous(), 0)
        return whole

    def _take(self, own: dict[int, Tensor], pieces: list[Piece], whole: Tensor | None) -> None:
        for owner, first, rows in pieces:
            if owner == self._ranks.rank:
                own[first].copy_(torch.zeros_like(own[first]) if whole is None else whole[first : first + rows])

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:  # noqa: ARG002
        tables = zip(self._pieces, self._own_weights(), self.rows, strict=True)
        for place, (pieces, own, rows) in enumerate(tables):
            destination[f"{prefix}{place}.weight"] = self._whole(pieces, own, (rows, self.width))

    @torch.no_grad()
    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,  # noqa: ARG002
        strict: bool,  # noqa: ARG002
        missing_keys: list[str],
        unexpected_keys: list[str],  # noqa: ARG002
        error_msgs: list[str],
    ) -> None:
        for place, own in enumerate(self._own_weights()):
            key, shape = f"{prefix}{place}.weight", (self.rows[place], self.width)
            if key not in state_dict:
                missing_keys.append(key)
            elif state_dict[key].shape != shape:
                error_msgs.append(f"{key}: expected {shape}, found {tuple(state_dict[key].shape)}")
            else:
                self._take(own, self._pieces[place], state_dict[key])


class ShardedAdagrad(torch.optim.Optimizer):
    """The learning rate and the state of sharded tables, whose rows are updated in the backward pass.

    Its state is that of `RowwiseAdagrad` on whole tables, which is made and loaded by all ranks together.
    """

    def __init__(self, tables: list[ShardedTables], lr: float, epsilon: float = EPSILON) -> None:
        self._tables = tables
        places = [torch.zeros(0) for each in tables for _ in each.rows]  # one for each table, in their order
        super().__init__(places, {"lr": lr, "epsilon": epsilon})

    def prepare(self) -> None:
        """Hand the learning rate of this step to the tables."""
        for tables in self._tables:
            tables.prepare(self.param_groups[0]["lr"])

    def squared_gradient(self) -> Tensor:
        """Sum of the squared gradients of all that this rank looked up in this step."""
        return torch.stack([tables.squared_gradient for tables in self._tables]).sum()

    def step(self) -> None:  # type: ignore[override]
        """Nothing is left to do."""

    def state_dict(self) -> dict[str, Any]:
        squares = [found for tables in self._tables for found in tables.squares()]
        return super().state_dict() | {"state": {place: {"squares": found} for place, found in enumerate(squares)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"state": {}})
        squares = {place: state["squares"] for place, state in state_dict["state"].items()}
        for tables, start in zip(self._tables, self._starts(), strict=True):
            tables.load_squares(
                {place: squares[start + place] for place in range(len(tables.rows)) if start + place in squares}
            )

    def _starts(self) -> Iterator[int]:
        start = 0
        for tables in self._tables:
            yield start
            start += len(tables.rows)


def _numbers_of_rows(tables: HashedTables) -> list[int]:
    return [len(table) for table in tables.parameters()]


def _pieces(sharded: Any) -> list[Piece]:
    shards = sharded.metadata().shards_metadata
    pieces = [Piece(each.placement.rank(), each.shard_offsets[0], each.shard_sizes[0]) for each in shards]
    return [piece for piece in pieces if piece.rows]  # with more ranks than rows some have none


def _own_pieces(sharded: Any) -> dict[int, Tensor]:
    return {each.metadata.shard_offsets[0]: each.tensor for each in sharded.local_shards() if len(each.tensor)}
