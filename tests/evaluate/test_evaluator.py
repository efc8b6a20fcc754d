"""Evaluation end to end, on a small generated data set and untrained or hand-made models."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from prismrec.config import PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.store import Split, Store
from prismrec.errors import ArtifactError, ConfigError, DataError
from prismrec.evaluate.candidates import find_candidates
from prismrec.evaluate.evaluator import evaluate, recalls_at_k
from prismrec.evaluate.labelled import labelled_auc
from prismrec.evaluate.queries import make_queries
from prismrec.index.exact import ExactIndex
from prismrec.index.merge import retrieve
from prismrec.model.encode import encode_items
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes
from prismrec.model.run import load_run, save_run
from prismrec.toml import parse_config

USERS, ITEMS, EVENTS = 40, 30, 12
QUIET = Console(quiet=True)


def make_data(path: Path, seed: int = 0) -> Path:
    """A store of users who buy within one of three groups of ten items."""
    rng = np.random.default_rng(seed)
    group = np.arange(USERS) % 3
    item = np.concatenate([rng.integers(0, 10, EVENTS) + 10 * g for g in group])
    events = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{user}" for user in range(USERS)], EVENTS),
            "item_id": item,
            "timestamp": np.tile(np.arange(EVENTS) * 3600, USERS) + 1_700_000_000,
        }
    )
    items = pl.DataFrame({"item_id": np.arange(ITEMS), "category": [f"c{i // 5}" for i in range(ITEMS)]})
    return prepare(events, items, path, PrepareConfig()).path


def make_run(path: Path, store_path: Path, num_interests: int = 2) -> Path:
    """An untrained run."""
    config = parse_config(
        {
            "history": {"max_length": 8},
            "model": {"embedding_dim": 8, "num_heads": 4, "num_interests": num_interests},
            "train": {"batch_size": 8, "device": "cpu"},
            "loss": {"queue_size": 16},
        }
    )
    store = Store.open(store_path)
    distinct = dict.fromkeys(store.schema.item_features, ITEMS)
    hashing = resolve_primes(config.model.hashing, distinct)
    model = config.model.model_copy(update={"hashing": hashing})
    config = config.model_copy(update={"model": model})
    torch.manual_seed(0)
    model = MultiInterestModel(config.model, store.schema, config.history.max_length)
    save_run(path, config, store, model.state_dict())
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate")
    store = make_data(path / "store")
    make_run(path / "multi", store)
    make_run(path / "single", store, num_interests=1)
    return path


def test_report_of_two_runs_and_the_baselines(root: Path) -> None:
    date = datetime(2024, 5, 6, tzinfo=UTC)
    report = evaluate(root / "multi", "test", [10, 5], [root / "single"], date=date, console=QUIET)
    names = ["multi (V=2)", "single (V=1)", "all-time popular", "recently popular", "co-visitation"]
    assert [method.name for method in report.methods] == names
    assert report.ks == [5, 10]
    assert report.settings["date"] == "2024-05-06T00:00:00+00:00"
    for method in report.methods:
        assert {f"{name}@{k}" for name in ("recall", "ndcg", "category_diversity") for k in (5, 10)} <= set(
            method.metrics
        )
        assert all(found.low <= found.value <= found.high for found in method.metrics.values())
        assert 0 < method.catalogue["coverage@10"] <= 1
    multi, single = report.methods[0].diagnostics, report.methods[1].diagnostics
    assert multi is not None
    assert single is not None
    assert sum(multi.head_usage) == pytest.approx(1, abs=1e-4)
    assert len(multi.recall_lost) == 2
    assert sum(multi.found) == pytest.approx(1)
    assert 1 <= multi.vectors_used <= 2
    assert (single.found, single.vectors_used) == ([1.0], 1.0)
    assert (single.recall_lost, single.cosine_mean) == ([], None)
    assert report == evaluate(root / "multi", "test", [10, 5], [root / "single"], date=date, console=QUIET)


def test_the_dial_gives_what_a_run_of_each_position_gives(root: Path) -> None:
    """The dial ranks one encoding; a run loaded at each position encodes anew. All users are on both."""
    report = evaluate(root / "multi", "test", [5, 10], popularity=[0.5, 0, 0.25, 0.75, 1], console=QUIET)
    by_position = {each.popularity: each for each in report.trade_offs if each.popularity is not None}
    assert list(by_position) == [0.0, 0.25, 0.5, 0.75, 1.0]
    as_they_are = [each for each in report.trade_offs if each.popularity is None]
    assert [each.method for each in as_they_are] == [method.name for method in report.methods]
    for position, each in zip([0.5, 0, 0.25, 0.75, 1], as_they_are, strict=False):
        update = {"popularity": position, "method": "multi (V=2, popularity 0.5)"}
        assert by_position[position] == each.model_copy(update=update)
    assert as_they_are[0].recall == report.methods[0].metrics["recall@10"]
    assert as_they_are[0].coverage == report.methods[0].catalogue["coverage@10"]


def test_dial_and_examples_may_be_left_out(root: Path) -> None:
    report = evaluate(root / "multi", "test", [5], dial=False, examples=0, console=QUIET)
    assert report.examples == []
    assert len(report.trade_offs) == len(report.methods)
    assert report.settings["command"].endswith("--k 5 --seed 0 --no-dial --examples 0")


def test_examples_are_drawn_from_the_best_and_from_the_worst(root: Path) -> None:
    report = evaluate(root / "multi", "test", [5], seed=3, console=QUIET)
    store = Store.open(root / "store")
    recalls = [example.recall for example in report.examples]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[0] > recalls[-1]
    assert len({example.user_id for example in report.examples}) == 4
    for example in report.examples:
        user = store.user_ids.to_list().index(example.user_id)
        events = store.item_ids[store.item[store.offsets[user] : store.test_start[user]] - 1].to_list()
        assert [item.item_id for item in example.history] == events[::-1][:8]
        ranks = {item.item_id: item.rank for item in example.recommended}
        assert [item.rank for item in example.recommended] == [1, 2, 3, 4, 5]
        assert {target.item_id: target.rank for target in example.targets} == {
            target.item_id: ranks.get(target.item_id) for target in example.targets
        }
        found = [target for target in example.targets if target.rank]
        assert example.recall == pytest.approx(len(found) / len(example.targets))
        assert {item.item_id for item in example.recommended if item.is_target} == {t.item_id for t in found}
        assert all(item.category == f"c{cast(int, item.item_id) // 5}" for item in example.history)


def test_the_data_in_a_few_numbers(root: Path) -> None:
    data = evaluate(root / "multi", "test", [5], console=QUIET).data
    assert data is not None
    assert (data.first_day, data.last_day) == ("2023-11-14", "2023-11-15")
    assert (data.train_events, data.valid_events, data.test_events) == (USERS * 10, USERS, USERS)
    assert data.events_per_user == [EVENTS] * 5
    assert sum(data.items_by_decile) == ITEMS
    assert data.categories == 6


def test_targets_that_came_of_exposure_at_random(tmp_path: Path) -> None:
    """Of 40 users each bought 12 items; of those in the test split the first thirty users' were shown at random."""
    store = Store.open(make_data(tmp_path / "all"))
    plain = [
        {"user_id": user, "item_id": item, "timestamp": time, "uniform": number < 30 and event >= EVENTS - 2}
        for number, user in enumerate(store.user_ids.to_list())
        for event, (item, time) in enumerate(
            zip(
                store.item_ids[store.item[number * EVENTS : (number + 1) * EVENTS] - 1].to_list(),
                store.time[number * EVENTS : (number + 1) * EVENTS].tolist(),
                strict=True,
            )
        )
    ]
    items = pl.DataFrame({"item_id": np.arange(ITEMS), "category": [f"c{i // 5}" for i in range(ITEMS)]})
    marked = prepare(pl.DataFrame(plain), items, tmp_path / "store", PrepareConfig(), QUIET)
    run = load_run(make_run(tmp_path / "run", marked.path))
    report = evaluate(run.path, "test", [10], console=QUIET)
    queries = make_queries(run.store, "test", exclude_seen=True)
    first = queries.user < 30
    found = find_candidates(run.model, run.store, queries, run.config.history, 10).merged()[first]
    hits = [target in row for target, row in zip(queries.targets.select(first).item, found, strict=True)]
    metric = report.methods[0].metrics["uniform_recall@10"]
    assert report.counts["uniform_targets"] == metric.users == first.sum() > 2
    assert metric.value == pytest.approx(np.mean(hits))
    assert "uniform_ndcg@10" in report.methods[-1].metrics
    everybody = evaluate(make_run(tmp_path / "other", store.path), "test", [10], console=QUIET)
    assert not any("uniform" in name for name in (*everybody.methods[0].metrics, *everybody.counts))


def test_curves_are_those_of_the_log(root: Path) -> None:
    log = root / "multi" / "metrics.jsonl"
    lines = [
        {"kind": "train", "step": step, "epoch": 0, "loss": 1 / step, "nan": float("nan")} for step in range(1, 402)
    ]
    log.write_text(
        "".join(json.dumps(line) + "\n" for line in [*lines, {"kind": "valid", "step": 7, "recall@50": 0.5}])
    )
    curves = evaluate(root / "multi", "test", [5], [root / "single"], console=QUIET).curves
    log.unlink()
    assert [(curve.method, curve.kind, curve.metric) for curve in curves] == [
        ("multi", "train", "loss"),
        ("multi", "valid", "recall@50"),
    ]
    assert len(curves[0].steps) == 134  # every third
    assert curves[0].steps[-2:] == [398, 401]
    assert curves[0].values[-1] == 1 / 401


def test_covisitation_finds_the_groups_that_popularity_does_not_see(root: Path) -> None:
    report = evaluate(root / "multi", "test", [10], console=QUIET)
    recall = {method.name: method.metrics["recall@10"].value for method in report.methods}
    assert recall["co-visitation"] == 1  # at most ten items of a user's group are left
    assert recall["all-time popular"] < 0.8
    advantage = report.methods[-1].advantage
    assert advantage is not None
    assert advantage.value == pytest.approx(recall["multi (V=2)"] - recall["co-visitation"])


def test_lists_are_those_that_would_be_served(root: Path) -> None:
    run = load_run(root / "multi")
    queries = make_queries(run.store, "test", exclude_seen=True)
    found = find_candidates(run.model, run.store, queries, run.config.history, 10)
    seen = np.split(queries.seen.item, queries.seen.offsets[1:-1])
    served = retrieve(ExactIndex(encode_items(run.model, run.store)), found.interests, 10, seen)
    np.testing.assert_array_equal(found.merged(), served.item)


def test_recall_for_validation_equals_the_report(root: Path) -> None:
    run = load_run(root / "multi")
    report = evaluate(root / "multi", "valid", [10], console=QUIET)
    value = np.mean(recalls_at_k(run.model, run.store, "valid", 10, run.config.history, True, 1000, 0))
    assert value == pytest.approx(report.methods[0].metrics["recall@10"].value)
    whole = np.mean(recalls_at_k(run.model, run.store, "valid", 10_000, run.config.history, True, 1000, 0))
    assert whole == 1  # k is cut to the catalogue
    parts = [
        recalls_at_k(run.model, run.store, "valid", 10, run.config.history, True, 1000, 0, part=(part, 3))
        for part in range(3)
    ]
    assert np.mean(np.concatenate(parts)) == pytest.approx(value)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("ks", [[0], [ITEMS + 1], []])
def test_k_beyond_the_catalogue_is_refused(root: Path, ks: list[int]) -> None:
    with pytest.raises(ConfigError, match=f"from 1 to {ITEMS}"):
        evaluate(root / "multi", "test", ks, console=QUIET)


def test_unknown_split_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="found 'train'"):
        evaluate(root / "multi", cast(Split, "train"), [5], console=QUIET)


def test_run_on_another_store_is_refused(root: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", make_data(tmp_path / "store", seed=1))
    with pytest.raises(ArtifactError, match="same store"):
        evaluate(root / "multi", "test", [5], [other], console=QUIET)


def test_auc_of_labelled_pairs(root: Path) -> None:
    run = load_run(root / "multi")
    pairs = pl.DataFrame({"user_id": ["u0", "u0", "u1", "u2"], "item_id": [1, 2, 11, 1], "label": [1, 0, 1, 0]})
    value = labelled_auc(run, pairs)
    swapped = labelled_auc(run, pairs.with_columns(label=1 - pl.col("label")))
    assert value + swapped == pytest.approx(1)
    report = evaluate(root / "multi", "test", [5], pairs=pairs, console=QUIET)
    assert report.methods[0].diagnostics is not None
    assert report.methods[0].diagnostics.auc == pytest.approx(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": "nobody"}, "row 1: user_id 'nobody' is not in the store"),
        ({"item_id": 999}, "row 1: item_id 999 is not in the store"),
        ({"label": 2}, "labels 0 or 1"),
    ],
)
def test_bad_labelled_pairs_are_located(root: Path, change: dict[str, object], message: str) -> None:
    pair = pl.DataFrame([{"user_id": "u0", "item_id": 1, "label": 1} | change])
    with pytest.raises(DataError, match=message):
        labelled_auc(load_run(root / "multi"), pair)
    with pytest.raises(DataError, match="label missing"):
        labelled_auc(load_run(root / "multi"), pair.drop("label"))


def test_the_popularity_dial_adds_weighted_log_popularity_to_scores(root: Path) -> None:
    """The lists at each position equal ranking by cosine + temperature * dial * log(share / mean share)."""
    plain = load_run(root / "multi")
    queries = make_queries(plain.store, "test", exclude_seen=True)
    unit = encode_items(plain.model, plain.store)
    interests = find_candidates(plain.model, plain.store, queries, plain.config.history, 10).interests
    counts = plain.store.item_counts[1:] + 1
    for dial in (0.5, 1.0):
        run = load_run(root / "multi", popularity=dial)
        found = find_candidates(run.model, run.store, queries, run.config.history, 10)
        np.testing.assert_allclose(found.interests, interests, atol=1e-6)
        scores = (interests @ unit.T).max(axis=1) + 0.07 * dial * np.log(counts / counts.mean())
        scores[queries.seen.user, queries.seen.item - 1] = -np.inf
        np.testing.assert_array_equal(found.merged(), np.argsort(-scores, axis=1)[:, :10] + 1)


def test_each_position_of_the_dial_is_a_method(root: Path) -> None:
    report = evaluate(root / "multi", "test", [5], popularity=[0, 1], console=QUIET)
    assert [method.name for method in report.methods[:2]] == ["multi (V=2)", "multi (V=2, popularity 1)"]
    plain, dialled = report.methods[:2]
    assert dialled.catalogue["mean_popularity@5"] > plain.catalogue["mean_popularity@5"]
    assert plain.diagnostics is not None
    assert dialled.diagnostics is not None
    assert dialled.diagnostics.cosine_mean == pytest.approx(plain.diagnostics.cosine_mean)
    with pytest.raises(ConfigError, match=r"popularity=1\.5"):
        evaluate(root / "multi", "test", [5], popularity=[1.5], console=QUIET)
