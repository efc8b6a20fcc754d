"""Plans: numbers worked out by hand, and the same as what a model, a step and a table really have."""

import importlib.util
import json
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.errors import ConfigError
from prismrec.model.run import build_model
from prismrec.train.demand import sample_demand
from prismrec.train.objective import Objective
from prismrec.train.optimizers import Optimizers
from prismrec.train.placement import GIB, Cluster, Sharding, TablePlan, describe_cluster, divide_rows
from prismrec.train.plan import communication_per_step, count_dense, estimate_speed, make_plan
from prismrec.train.settings import size_tables

MakeConfig = Callable[..., Config]
TRANSFORMER = ("model.encoder.kind=transformer", "loss.in_batch_negatives=16", "loss.uniform_negatives=16")

TORCHREC = pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs `make distributed`")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of TorchRec's import


def table(sharding: str, ranks: int = 4) -> TablePlan:
    return TablePlan(
        feature="item_id",
        path="items.embeddings.0",
        place=0,
        rows=100,
        width=16,
        sharding=cast(Sharding, sharding),
        rows_of_rank=divide_rows(100, ranks),
        optimizer_bytes_per_row=4,
    )


def test_bytes_of_a_table_by_hand() -> None:
    assert (table("whole").weight_bytes, table("whole").optimizer_bytes) == (4 * 16 * 100, 4 * 100)


def test_rows_are_divided_as_evenly_as_torchrec_does() -> None:
    assert divide_rows(10, 4) == [3, 3, 3, 1]
    assert divide_rows(5, 4) == [2, 2, 1, 0]


def test_communication_by_hand() -> None:
    # 4 ranks, 10 ids each; 3/4 of what a rank has is for others
    distinct, machines, gpus = {"items.embeddings.0": 10.0}, Cluster(4, 4, GIB, "cpu"), Cluster(4, 4, GIB, "cuda")
    sent = communication_per_step([table("table_wise")], distinct, machines, dense_weights=100, targets=8)
    assert sent.ids == (8 + 4) * 10 * 3 / 4
    assert sent.rows_forward == sent.rows_backward == 4 * 10 * 16 * 3 / 4
    assert (sent.dense, sent.targets) == (8 * 100 * 3 / 4, 8 * 8 * 3 / 4)
    assert sent.total == 90 + 480 + 480 + 600 + 48
    by_rows = communication_per_step([table("row_wise")], distinct, gpus, dense_weights=100, targets=0)
    assert by_rows.ids == 8 * 10 * 3 / 4 + 4 * 10 * 3  # each rank is told of all ids whether they are its own
    assert (by_rows.rows_forward, by_rows.rows_backward, by_rows.targets) == (4 * 10 * 16 * 3, 4 * 10 * 16 * 3, 0)
    by_gloo = communication_per_step([table("row_wise")], distinct, machines, dense_weights=100, targets=0)
    assert (by_gloo.rows_forward, by_gloo.rows_backward) == (2 * 4 * 10 * 16 * 3, 4 * 10 * 16 * 3)


def test_one_rank_sends_nothing() -> None:
    alone = Cluster(1, 1, GIB, "cpu")
    assert communication_per_step([table("whole", 1)], {"items.embeddings.0": 10}, alone, 100, 8).total == 0


def test_speed_by_hand() -> None:
    # 1,000 examples by 2 ranks of 500/s: a second, and a second more to send 100 bytes
    assert estimate_speed(1000, 2, 500, 100, None, 6000).all_ranks == pytest.approx(1000)
    slower = estimate_speed(1000, 2, 500, 100, 100, 6000)
    assert (slower.all_ranks, slower.seconds_per_epoch) == (pytest.approx(500), pytest.approx(12))
    assert estimate_speed(1000, 2, None, 100, 100, 6000).all_ranks is None


def test_dense_weights_are_those_that_adamw_gets(store: Store, make_config: MakeConfig) -> None:
    config = size_tables(make_config("model.user_id=true", *TRANSFORMER), store)
    modules = [build_model(config, store.schema), Objective(config.loss, config.model)]
    optimizers = Optimizers(modules, config.train, 1)
    assert count_dense(modules) == sum(weight.numel() for weight in optimizers._dense)


def test_a_plan_names_every_table_of_the_model(store: Store, make_config: MakeConfig) -> None:
    config = make_config("model.user_id=true")
    plan = make_plan(store, config, describe_cluster(1, 1, "cpu", memory=1))
    model = build_model(size_tables(config, store), store.schema)
    weights = {name: weight for name, weight in model.named_parameters() if ".tables." in name}
    planned = {f"{each.path}.tables.{each.place}.weight": (each.rows, each.width) for each in plan.tables}
    assert planned == {name: tuple(weight.shape) for name, weight in weights.items()}
    assert plan.memory[0].tables == sum(weight.nbytes for weight in weights.values())
    assert {each.feature: each.ids for each in plan.features} == {
        "item_id": 64,
        "category": 8,
        "shop": 5,
        "user_id": 160,
    }
    assert plan.fits
    assert plan.steps_per_epoch == 160 * 4 / 32  # of each user's 5 training events the first follows none


@pytest.mark.parametrize("settings", [(), TRANSFORMER, (*TRANSFORMER, "loss.negatives_scope=local")])
def test_distinct_ids_are_at_most_what_there_is(
    store: Store, make_config: MakeConfig, settings: tuple[str, ...]
) -> None:
    config = size_tables(make_config("model.user_id=true", *settings), store)
    alone, shared = (sample_demand(store, config, ranks) for ranks in (1, 2))
    for path, most in {
        "items.embeddings.0": 65,
        "items.embeddings.1": 9,
        "users.context.0": 6,
        "users.user": 160,
    }.items():
        assert 0 < alone.distinct[path] <= most
        assert 0 < shared.distinct[path] <= most
    assert alone.histories < 2 * shared.histories + 1


def test_tables_larger_than_this_machine_are_planned(store: Store, make_config: MakeConfig) -> None:
    config = make_config("model.hashing.rows_per_id=1e9", "model.hashing.max_rows=1000000000000")
    plan = make_plan(store, config, describe_cluster(1, 1, "cpu", memory=64))
    assert plan.tables[0].rows > 64 * 10**9
    assert plan.memory[0].tables > 1000 * GIB
    assert not plan.fits
    assert "ranks or more, or set model.hashing.rows_per_id=" in plan.notes[-1]


def test_a_gpu_that_is_not_here_needs_its_memory() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--memory: expected the memory of a GPU"):
            describe_cluster(8, 1, "cuda")
    assert describe_cluster(8, 2, "cuda", 80, 10) == Cluster(16, 8, 80 * GIB, "cuda", 10e9)


def test_it_is_json(store: Store, make_config: MakeConfig) -> None:
    plan = make_plan(store, make_config(), describe_cluster(1, 1, "cpu", memory=1), 100.0)
    read = json.loads(plan.model_dump_json())
    assert read["speed"]["all_ranks"] == pytest.approx(100)
    assert np.sum([sum(each["rows_of_rank"]) for each in read["tables"]]) == sum(each.rows for each in plan.tables)


@TORCHREC
@pytest.mark.parametrize("sharding", ["row_wise", "table_wise"])
def test_several_ranks_hold_every_row_once(store: Store, make_config: MakeConfig, sharding: str) -> None:
    plan = make_plan(store, make_config(f"train.sharding={sharding}"), describe_cluster(2, 2, "cpu", memory=1))
    for each in plan.tables:
        assert each.sharding == sharding
        assert sum(each.rows_of_rank) == each.rows
        assert len(each.rows_of_rank) == 4
        if sharding == "row_wise":
            assert each.rows_of_rank == divide_rows(each.rows, 4)
        else:
            assert sorted(each.rows_of_rank)[:3] == [0, 0, 0]
    assert sum(each.tables for each in plan.memory) == sum(each.weight_bytes for each in plan.tables)


@TORCHREC
def test_what_several_ranks_cannot_train_is_refused(store: Store, make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="train tables by rowwise_adagrad only"):
        make_plan(store, make_config("train.table_optimizer=sparse_adam"), describe_cluster(2, 1, "cpu", memory=1))


@TORCHREC
def test_no_room_is_said(store: Store, make_config: MakeConfig) -> None:
    config = make_config("model.hashing.rows_per_id=100000")
    plan = make_plan(store, config, describe_cluster(2, 1, "cpu", memory=0.01))
    assert not plan.fits
    assert plan.notes[0].startswith("TorchRec's planner finds no room")
