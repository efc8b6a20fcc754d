import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prismrec.errors import ArtifactError, ConfigError, DataError
from prismrec.serve import recommender as module
from prismrec.serve.recommender import Recommender, write_recommendations

from .conftest import EVENTS, NUM_ITEMS, NUM_USERS, START

NEWEST = int(EVENTS["timestamp"].max())


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.open(bundle)


def _users(*user_ids: int) -> pl.DataFrame:
    return pl.DataFrame({"user_id": user_ids})


def _lists(recommendations: pl.DataFrame) -> dict[int, list[str]]:
    """The recommended items of each user, in order."""
    grouped = recommendations.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(grouped.iter_rows())


def _seen(user_id: int) -> set[str]:
    return set(EVENTS.filter(pl.col("user_id") == user_id)["item_id"])


def test_every_known_user_by_default(recommender: Recommender) -> None:
    found = recommender.recommend(k=5)
    assert found.schema == {
        "user_id": pl.Int64,
        "item_id": pl.String,
        "rank": pl.Int32,
        "score": pl.Float32,
        "interest": pl.Int32,
    }
    assert sorted(_lists(found)) == list(range(NUM_USERS))
    for _, rows in found.group_by("user_id"):
        assert rows["rank"].to_list() == [1, 2, 3, 4, 5]
        assert rows["score"].is_sorted(descending=True)
        assert rows["item_id"].n_unique() == 5
        assert rows["interest"].is_between(0, 3).all()


@pytest.mark.parametrize("include_seen", [False, True])
def test_equals_brute_force_over_the_exported_vectors(
    recommender: Recommender, bundle: Path, include_seen: bool
) -> None:
    items = pl.read_parquet(bundle / "item_vectors.parquet")
    users = pl.read_parquet(bundle / "user_vectors.parquet")
    found = _lists(recommender.recommend(k=7, include_seen=include_seen))
    for user_id, vectors in users.iter_rows():
        scores = (items["vector"].to_numpy() @ np.array(vectors).T).max(axis=1)
        ranked = [items["item_id"][int(row)] for row in np.argsort(-scores)]
        allowed = [item for item in ranked if include_seen or item not in _seen(user_id)]
        assert found[user_id] == allowed[:7]


def test_the_whole_rest_of_the_catalogue_if_asked(recommender: Recommender) -> None:
    found = _lists(recommender.recommend(k=1000))
    everything = {f"item {i}" for i in range(NUM_ITEMS)}
    assert {user: set(items) for user, items in found.items()} == {u: everything - _seen(u) for u in range(NUM_USERS)}
    assert {len(items) for items in _lists(recommender.recommend(k=1000, include_seen=True)).values()} == {NUM_ITEMS}


def test_users_asked_for_come_once_in_the_order_asked(recommender: Recommender) -> None:
    everyone = _lists(recommender.recommend(k=4))
    found = _lists(recommender.recommend(_users(7, 3, 7), k=4))
    assert list(found) == [7, 3]
    assert found == {user: everyone[user] for user in (7, 3)}


def test_a_new_user_with_the_events_of_a_known_one_gets_the_same(recommender: Recommender) -> None:
    known = EVENTS.filter(pl.col("user_id") == 10)
    new = known.with_columns(user_id=pl.lit(107)).sample(fraction=1, shuffle=True, seed=1)
    found = recommender.recommend(new, k=10, now=NEWEST).drop("user_id")
    expected = recommender.recommend(_users(10), k=10).drop("user_id")
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)


def test_events_that_the_store_already_holds_change_nothing(recommender: Recommender) -> None:
    given = EVENTS.filter(pl.col("user_id").is_in([4, 10]))
    assert recommender.recommend(given, k=10, now=NEWEST).equals(recommender.recommend(_users(4, 10), k=10))


def test_given_events_add_to_a_known_users_history(recommender: Recommender) -> None:
    before = _lists(recommender.recommend(_users(5), k=10))[5]
    given = pl.DataFrame({"user_id": [5], "item_id": [before[0]], "timestamp": [NEWEST + 60]})
    after = _lists(recommender.recommend(given, k=100))[5]
    assert set(after) == {f"item {i}" for i in range(NUM_ITEMS)} - _seen(5) - {before[0]}
    formed = recommender.interests(given)
    assert formed["timestamp"].max() == NEWEST + 60
    assert set(formed["item_id"]) == {before[0], *_seen(5)}


def test_now_is_the_newest_event_stored_or_given(recommender: Recommender) -> None:
    times = [START, NEWEST + 90_000]
    given = pl.DataFrame({"user_id": [107, 108], "item_id": ["item 1", "item 2"], "timestamp": times})
    assert recommender.recommend(given, k=5).equals(recommender.recommend(given, k=5, now=NEWEST + 90_000))
    assert recommender.recommend(_users(4), k=5).equals(recommender.recommend(_users(4), k=5, now=NEWEST))


def test_later_events_are_no_history_but_seen(recommender: Recommender) -> None:
    times = EVENTS.filter(pl.col("user_id") == 11)["timestamp"].sort()
    now = int(times[4])
    formed = recommender.interests(_users(11), now=now)
    assert formed["timestamp"].unique().sort().to_list() == times[:5].to_list()
    found = _lists(recommender.recommend(_users(11), k=100, now=now))[11]
    assert not _seen(11) & set(found)


def test_times_as_datetimes(recommender: Recommender) -> None:
    given = EVENTS.filter(pl.col("user_id") == 6).with_columns(user_id=pl.lit(101))
    start = datetime.fromtimestamp(START, UTC)
    moments = pl.Series([start + timedelta(seconds=time - START) for time in given["timestamp"]])
    assert recommender.recommend(given.with_columns(timestamp=moments), k=5).equals(recommender.recommend(given, k=5))


def test_values_as_a_csv_file_has_them(recommender: Recommender) -> None:
    given = EVENTS.filter(pl.col("user_id") == 6).with_columns(user_id=pl.lit(101))
    moments = [datetime.fromtimestamp(time, UTC).isoformat() for time in given["timestamp"]]
    text = given.with_columns(pl.Series("timestamp", moments), pl.col("dwell").cast(pl.String))
    assert recommender.recommend(text, k=5).equals(recommender.recommend(given, k=5))


def test_a_user_of_whose_events_no_item_is_known_gets_nothing(recommender: Recommender) -> None:
    given = GOOD.with_columns(item_id=pl.Series([1, 2]))  # numbers may stand for text; no item is called so
    assert recommender.recommend(given, k=5).is_empty()
    assert recommender.interests(given).is_empty()


def test_items_outside_the_catalogue_are_counted_and_ignored(
    recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    given = pl.DataFrame({"user_id": [101, 101, 102], "item_id": ["item 3", "none", "such"], "timestamp": [5, 6, 7]})
    with caplog.at_level(logging.WARNING):
        found = recommender.recommend(given, k=3)
    assert found["user_id"].to_list() == [101, 101, 101]
    assert found.equals(recommender.recommend(given[:1], k=3))
    assert caplog.messages[:2] == [
        "ignored 2 given events of items that are not in the catalogue",
        "1 users without events in the catalogue got no recommendations",
    ]


def test_interests_share_out_the_newest_events(recommender: Recommender) -> None:
    formed = recommender.interests(_users(11))
    newest = EVENTS.filter(pl.col("user_id") == 11).sort("timestamp", descending=True)[:8]  # max_length is 8
    for _, rows in formed.group_by("interest"):
        assert rows["weight"].sum() == pytest.approx(1, abs=1e-5)
        assert rows["weight"].is_sorted(descending=True)
        expected = newest.select("item_id", "timestamp").sort("timestamp")
        assert rows.select("item_id", "timestamp").sort("timestamp").equals(expected)
    assert formed["interest"].unique().sort().to_list() == [0, 1, 2, 3]


def test_closeness_is_the_cosine_of_event_and_interest(recommender: Recommender, bundle: Path) -> None:
    items = dict(pl.read_parquet(bundle / "item_vectors.parquet").iter_rows())
    users = dict(pl.read_parquet(bundle / "user_vectors.parquet").iter_rows())
    formed = recommender.interests(_users(11))
    expected = [
        np.dot(users[11][interest], items[item])
        for interest, item in zip(formed["interest"], formed["item_id"], strict=True)
    ]
    np.testing.assert_allclose(formed["closeness"], expected, atol=1e-5)


def test_vectors_are_the_exported_ones(recommender: Recommender, bundle: Path) -> None:
    exported = pl.read_parquet(bundle / "user_vectors.parquet")
    encoded = recommender.encode()
    assert encoded["user_id"].equals(exported["user_id"])
    np.testing.assert_allclose(encoded["vectors"].to_numpy(), np.array(exported["vectors"].to_list()), atol=1e-6)
    given = GOOD.with_columns(user_id=pl.Series([7, 107]), item_id=pl.Series(["item 1", "none"]))
    assert recommender.encode(given)["user_id"].to_list() == [7]  # of the other no event is known


def test_batches_do_not_change_the_result(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    given = pl.concat([EVENTS, EVENTS[:5].with_columns(user_id=pl.lit(103, pl.Int64))])
    known, mixed = recommender.recommend(k=6), recommender.recommend(given, k=6)
    monkeypatch.setattr(module, "_USERS_PER_BATCH", 5)
    for found, expected in ((recommender.recommend(k=6), known), (recommender.recommend(given, k=6), mixed)):
        assert found.drop("score").equals(expected.drop("score"))
        np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)
    assert len(list(recommender.stream(k=6))) == 3


def test_ids_of_another_integer_width_are_the_same_ids(recommender: Recommender) -> None:
    narrow = recommender.recommend(_users(4).cast(pl.UInt16), k=3)
    assert narrow.equals(recommender.recommend(_users(4), k=3))


GOOD = pl.DataFrame({"user_id": [101, 102], "item_id": ["item 1", "item 2"], "timestamp": [10, 20]})


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (GOOD[:0], r"users: expected at least one row, found an empty table"),
        (GOOD.drop("user_id"), r"users: expected a column 'user_id', found only item_id, timestamp"),
        (GOOD.drop("item_id"), r"users: expected a column 'item_id', found only user_id, timestamp"),
        (GOOD.drop("timestamp"), r"users: expected a column 'timestamp', found only user_id, item_id"),
        (GOOD.with_columns(user_id=pl.Series([1, None])), r"column 'user_id', row 2: expected an id .*, found None"),
        (GOOD.with_columns(item_id=pl.Series([None, "item 1"])), r"column 'item_id', row 1: expected an id .*None"),
        (GOOD.with_columns(user_id=pl.Series(["1", "2"])), r"column 'user_id': expected Int64 ids .*, found String"),
        (GOOD.with_columns(item_id=pl.Series([1.0, 2.0])), r"column 'item_id': expected String ids .*, found Float64"),
        (GOOD.with_columns(timestamp=pl.Series([3, -5])), r"column 'timestamp', row 2: expected seconds .*, found -5"),
        (GOOD.with_columns(timestamp=pl.Series([None, 5])), r"column 'timestamp', row 1: expected seconds .* None"),
        (GOOD.with_columns(timestamp=pl.Series(["a", "b"])), r"column 'timestamp', row 1: expected seconds .* 'a'"),
        (GOOD.with_columns(timestamp=pl.Series([1.5, 2.5])), r"column 'timestamp': expected whole seconds, datetimes"),
        (GOOD.with_columns(timestamp=1_600_000_000_000), r"row 1: expected seconds from 0 up \(not milliseconds\)"),
        (GOOD.with_columns(dwell=pl.Series([3, -5])), r"column 'dwell', row 2: expected seconds .*, found -5"),
        (_users(4, 105, 4, 106), r"expected users of the store, found 2 unknown, the first 105; leave them out"),
    ],
)
def test_bad_input_is_located(recommender: Recommender, users: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recommender.recommend(users, k=3)


def test_bad_input_is_refused_before_the_first_batch(recommender: Recommender) -> None:
    with pytest.raises(ConfigError, match="k=0: expected at least 1"):
        recommender.stream(k=0)
    with pytest.raises(DataError, match="empty table"):
        recommender.stream(GOOD[:0], k=1)


def test_only_bundles_open(bundle: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a bundle"):
        Recommender.open(bundle / "store")


def test_recommendations_are_written_as_one_file(recommender: Recommender, tmp_path: Path) -> None:
    assert write_recommendations(recommender.stream(k=3), tmp_path / "recs.parquet") == (NUM_USERS, 3 * NUM_USERS)
    assert pl.read_parquet(tmp_path / "recs.parquet").equals(recommender.recommend(k=3))
    assert [path.name for path in tmp_path.iterdir()] == ["recs.parquet"]


def test_serving_needs_no_torch(bundle: Path, recommender: Recommender) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from prismrec.serve.recommender import Recommender\n"
        "print(*Recommender.open(Path(sys.argv[1])).recommend(k=2)['item_id'], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(bundle)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == recommender.recommend(k=2)["item_id"].to_list()
