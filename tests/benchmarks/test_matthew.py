"""The closed loop: its choice model by hand, two rounds with the real trainer on made data, and its report."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest

import matthew
from matthew_world import choose, frequent, likings, make_world, preferences, tastes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """60 users of two groups, each with 8 of its group's 12 items, as a folder of data sets."""
    rng = np.random.default_rng(0)
    events = [
        (user, 100 + 12 * (user % 2) + item, 1_000 * user + place)
        for user in range(60)
        for place, item in enumerate(rng.permutation(12)[:8])
    ]
    folder = tmp_path / "data" / "movietweetings"
    folder.mkdir(parents=True)
    schema = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(events, schema=schema, orient="row").write_parquet(folder / "interactions.parquet")
    items = {"item_id": range(100, 124), "title": "t", "category": "a|b", "top_category": "a", "year": 2000}
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    return folder.parent


def test_an_item_is_chosen_if_it_is_looked_at_and_liked() -> None:
    # looked at: 1, 1 / log2(3) = 0.631, 1 / log2(4) = 0.5; liked: 1, 0.5^4 = 0.0625, 0.9^4 = 0.6561
    # so p = 1, 0.0394, 0.3281
    liked = np.array([[1, 0.5, 0.9]] * 3)
    draws = np.array([[0.999, 0.039, 0.328], [0.999, 0.040, 0.329], [0, 0, 0]])
    assert choose(liked, draws).tolist() == [[True, True, True], [True, False, False], [True, True, True]]
    assert not choose(np.zeros((1, 3)), np.zeros((1, 3))).any()  # what is not there is never chosen


def test_likings_are_those_of_the_rows_shown() -> None:
    preference = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32)
    shown = np.array([[3, 1], [2, 0]])  # row 1 is the first column; the second list has ended
    np.testing.assert_array_equal(likings(shown, preference), np.float32([[0.3, 0.1], [0.5, 0]]))


def test_preferences_mix_places_by_taste_and_by_events() -> None:
    taste = np.array([[0.9, -5], [0.1, 7]])  # each item is liked by another of two users: places 1/4 and 3/4
    np.testing.assert_allclose(preferences(taste, np.array([3, 8]), 0), [[0.75, 0.25], [0.25, 0.75]])
    # by events the items are at 1/4 and 3/4
    np.testing.assert_allclose(preferences(taste, np.array([3, 8]), 0.5), [[0.5, 0.5], [0.25, 0.75]])


def test_tastes_tell_groups_apart_whatever_is_popular() -> None:
    chosen = np.zeros((20, 6), np.float32)
    chosen[:10, :2] = chosen[10:, 2:4] = 1  # two groups, two items each, chosen by all
    chosen[:2, 4] = chosen[10:12, 5] = 1  # and one that two of the ten have found
    taste = tastes(chosen, rank=1)
    own, other = taste[2:10, 4], taste[12:, 4]  # none of them has had it
    assert own.min() > other.max()


def test_only_users_and_items_of_five_events_are_left() -> None:
    full = [(user, item) for user in range(5) for item in range(5)]
    rare = [(user, 9) for user in range(4)] + [(7, item) for item in range(4)]
    # with user 8's event item 9 has five, until user 8 has gone
    events = pl.DataFrame([*full, *rare, (8, 9)], schema=["user_id", "item_id"], orient="row")
    assert frequent(events).rows() == full


def test_concentration_of_lists_by_hand() -> None:
    shown = np.array([[1, 2], [1, 3], [1, 2]])  # of 4 items: 3, 2, 1 and 0 times
    measured = matthew.concentration(shown, 4, np.array([2]))
    # sorted 0 1 2 3: (-3 * 0 - 1 * 1 + 1 * 2 + 3 * 3) / (4 * 6); the top 1 % is one item
    assert measured == {"gini": 10 / 24, "coverage": 0.75, "top_share": 0.5, "head_share": pytest.approx(1 / 3)}
    assert matthew.most_frequent(np.array([3, 3, 1]), 11).tolist() == [3, 1]  # a tenth, rounded up


def test_two_rounds_are_trained_on_what_was_shown(data, tmp_path, monkeypatch, capsys) -> None:
    out, figure = tmp_path / "out", tmp_path / "curves.svg"
    small = ["train.epochs=1", "model.embedding_dim=8", "train.device=cpu"]
    sizes = ["--users", "40", "--rounds", "2", "--k", "3", "--seeds", "0", "--qualities", "0", "--set", *small]
    monkeypatch.setattr(
        sys, "argv", ["matthew.py", *map(str, ["--data", data, "--out", out, "--figure", figure]), *sizes]
    )
    matthew.main()
    (raw,) = out.glob("matthew-*.json")
    results = json.loads(raw.read_text())
    (world,) = results["worlds"]
    assert (world["users"], world["items"], world["events"]) == (40, 24, 320)
    rounds = pl.DataFrame(results["rounds"])
    assert rounds["method"].unique(maintain_order=True).to_list() == list(matthew.METHODS)
    for (_,), loop in rounds.group_by("method"):
        events = [320, *loop.sort("round")["log_events"]]
        # what is added is what was chosen of 40 lists of 3
        np.testing.assert_allclose(np.diff(events) / 120, loop.sort("round")["chosen"])
    best = rounds.filter(method="oracle")["preference"].min()
    assert best > rounds.filter(pl.col("method") != "oracle")["preference"].max()
    assert "| oracle | 2 |" in capsys.readouterr().out
    assert "| oracle | 2 |" in raw.with_suffix(".md").read_text()
    ET.parse(figure)


def test_only_what_was_shown_and_chosen_is_added(data) -> None:
    tables = matthew.DATASETS["movietweetings"].read(data)
    world = make_world(*tables, 40, 0, seed=0)
    logs = []

    def first_items(store, queries, k):
        logs.append((store.item_counts, len(store.item)))
        return np.tile([1, 2, 3], (40, 1))

    measured = list(matthew.loop(world, first_items, 2, 3, seed=0))
    assert [one["log_events"] for one in measured[:-1]] == [size for _, size in logs[1:]]
    assert logs[1][1] > logs[0][1] == 320
    assert measured[0]["coverage"] == 3 / 24


def test_loops_repeat(data) -> None:
    lists = {"seeds": [0], "qualities": [0.0], "methods": ["random", "debiased"], "set": ["train.epochs=1"]}
    options = Namespace(data=data, dataset="movietweetings", users=20, rounds=1, k=3, **lists)
    first, second = (pl.DataFrame(matthew.simulate(options)["rounds"]).drop("seconds") for _ in range(2))
    assert first.equals(second)
