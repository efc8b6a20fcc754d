"""One object from events to recommendations: frames in and out, kept on disk, and never half fitted."""

import gc
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from rich.console import Console

import prismrec
from prismrec import Retriever
from prismrec.config import Config, ModelConfig, PrepareConfig
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError, DataError, TrainingError
from prismrec.model.run import load_run
from prismrec.retriever import RUN, STORE
from prismrec.toml import override

GROUPS, GROUP_SIZE, USERS, EVENTS = 8, 8, 96, 7
START = datetime(2024, 1, 1)
QUIET = Console(quiet=True)
SETTINGS = {
    "model.embedding_dim": 16,
    "model.encoder.num_layers": 1,
    "train.batch_size": 64,
    "train.epochs": 8,
    "train.warmup_steps": 5,
    "train.validate_k": 4,
    "train.device": "cpu",
    "popularity": 0.2,
}


def _events() -> pl.DataFrame:
    """Each user meets seven of the eight items of one group, in a frame as RecTools has them."""
    rng = np.random.default_rng(0)
    items = [rng.permutation(GROUP_SIZE)[:EVENTS] + GROUP_SIZE * (user % GROUPS) for user in range(USERS)]
    minutes = rng.permutation(USERS * EVENTS)
    return pl.DataFrame(
        {
            "user_id": 1000 + np.repeat(np.arange(USERS), EVENTS),
            "item_id": np.concatenate(items).astype(np.int32),
            "weight": rng.choice([0.5, 1.0], USERS * EVENTS),
            "datetime": [START + timedelta(minutes=int(minute)) for minute in minutes],
        }
    )


EVENTS_FRAME = _events()
LAST = EVENTS_FRAME["datetime"].max()
ITEMS_FRAME = pl.DataFrame(
    {
        "item_id": np.arange(GROUPS * GROUP_SIZE, dtype=np.int32),
        "category": [f"group {item // GROUP_SIZE}" for item in range(GROUPS * GROUP_SIZE)],
        "title": [f"Item {item}" for item in range(GROUPS * GROUP_SIZE)],
    }
)


def _as_text() -> pd.DataFrame:
    return EVENTS_FRAME.to_pandas().astype({"user_id": str, "item_id": str})


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fitted() -> Retriever:
    return Retriever(SETTINGS, console=QUIET).fit(EVENTS_FRAME, ITEMS_FRAME)


@pytest.fixture(scope="module")
def of_pandas() -> Retriever:
    """Of ids that are text, without a catalogue."""
    return Retriever({**SETTINGS, "train.epochs": 1}, console=QUIET).fit(_as_text())


@pytest.fixture(scope="module")
def moved(fitted: Retriever, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved, and moved afterwards."""
    folder = tmp_path_factory.mktemp("saved")
    saved = fitted.save(folder / "here")
    return saved.rename(folder / "there")


@pytest.mark.parametrize(
    "use",
    [
        lambda retriever: retriever.recommend(k=3),
        lambda retriever: retriever.encode_users(),
        lambda retriever: retriever.encode_items(),
        lambda retriever: retriever.similar([1]),
        lambda retriever: retriever.explain([1000]),
        lambda retriever: retriever.evaluate(),
        lambda retriever: retriever.update(EVENTS_FRAME),
    ],
)
def test_before_fit_everything_says_what_to_do(use) -> None:
    with pytest.raises(ArtifactError, match=r"expected a fitted one; call fit\(events\) first"):
        use(Retriever())


def test_an_unfitted_one_leaves_nothing_where_it_is_saved(tmp_path: Path) -> None:
    assert repr(Retriever()) == "Retriever(not fitted)"
    with pytest.raises(ArtifactError, match="expected a fitted one"):
        Retriever().save(tmp_path / "new" / "shop")
    assert list(tmp_path.iterdir()) == []


def test_settings_whole_or_by_key() -> None:
    config = Config(model=ModelConfig(num_interests=2))
    assert Retriever({"model.num_interests": 2}).config == config == Retriever(config).config
    assert Retriever().config == Config()
    with pytest.raises(ConfigError, match=r"model\.num_interest=2: Extra inputs"):
        Retriever({"model.num_interest": 2})
    with pytest.raises(ConfigError, match="num_heads=4 must be a multiple of num_interests=3"):
        Retriever({"model.num_interests": 3})


def test_the_package_has_it_and_nothing_else() -> None:
    assert prismrec.Retriever is Retriever
    with pytest.raises(AttributeError, match="has no attribute 'Retrieval'"):
        prismrec.Retrieval  # type: ignore[attr-defined]  # noqa: B018


def test_a_fitted_one_says_what_it_holds(fitted: Retriever) -> None:
    assert repr(fitted).startswith(f"Retriever({USERS} users, 64 items, 4 vectors of 16 dimensions, ")


def test_it_learns(fitted: Retriever) -> None:
    """Of 64 items, the one of a user's group that is left comes first, or nearly."""
    first = fitted.recommend(k=2)
    group = first.select((pl.col("user_id") - 1000) % GROUPS == pl.col("item_id") // GROUP_SIZE).to_series()
    assert group.filter(first["rank"] == 1).mean() > 0.9  # by chance 1 of 57
    assert not group.filter(first["rank"] == 2).any()  # there is no second


def test_recommendations_as_the_metrics_of_others_want_them(fitted: Retriever) -> None:
    found = fitted.recommend([1005, 1002], k=3)
    assert found.schema == {
        "user_id": pl.Int64,
        "item_id": pl.Int32,  # as given
        "rank": pl.Int32,
        "score": pl.Float32,
        "interest": pl.Int32,
    }
    assert found["user_id"].to_list() == [1005] * 3 + [1002] * 3
    assert found["rank"].to_list() == [1, 2, 3] * 2
    seen = EVENTS_FRAME.filter(pl.col("user_id").is_in([1002, 1005]))
    assert found.join(seen, on=["user_id", "item_id"]).is_empty()
    assert fitted.recommend([1005], k=64, include_seen=True)["item_id"].n_unique() == 64
    assert set(fitted.recommend(k=1)["user_id"]) == set(EVENTS_FRAME["user_id"])


USERS_ASKED = {
    "array": np.array([1005, 1002]),
    "tuple": (1005, 1002),
    "series": pl.Series([1005, 1002]),
    "frame": pl.DataFrame({"user_id": [1005, 1002]}),
    "query": pl.LazyFrame({"user_id": [1005, 1002]}),
}
PANDAS_ASKED = {
    "series": pd.Series([1005, 1002], index=[7, 8]),
    "index": pd.Index([1005, 1002]),
    "frame": pd.DataFrame({"user_id": [1005, 1002]}, index=[7, 8]),
}


@pytest.mark.parametrize("users", USERS_ASKED.values(), ids=USERS_ASKED)
def test_users_by_polars_and_others(fitted: Retriever, users) -> None:
    assert fitted.recommend(users, k=3).equals(fitted.recommend([1005, 1002], k=3))


@pytest.mark.parametrize("users", PANDAS_ASKED.values(), ids=PANDAS_ASKED)
def test_pandas_in_pandas_out(fitted: Retriever, users) -> None:
    pd.testing.assert_frame_equal(fitted.recommend(users, k=3), fitted.recommend([1005, 1002], k=3).to_pandas())


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([999], "found 1 unknown, the first 999"),
        (["1000"], "expected Int64 ids as in the store, found String"),
        ([1000, "a"], "expected ids of one type"),
        (1000, "expected a list, array or series of ids, or a frame, found 1000; put a single id in a list"),
        ("1000", "expected a list, array or series of ids, or a frame, found '1000'"),
        (pl.DataFrame({"customer": [1]}), "expected a column 'user_id', found only customer"),
    ],
)
def test_users_that_nobody_can_answer_for(fitted: Retriever, users, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fitted.recommend(users)


def test_text_ids_of_pandas_keep_their_type(of_pandas: Retriever) -> None:
    given, found = _as_text(), of_pandas.recommend(["1005", "1002"], k=3)
    assert isinstance(found, pd.DataFrame)
    assert found["user_id"].tolist() == ["1005"] * 3 + ["1002"] * 3
    for name in ("user_id", "item_id"):
        assert found[name].dtype == given[name].dtype
    assert set(found["item_id"]) <= set(given["item_id"])
    polars = of_pandas.recommend(pl.Series(["1005", "1002"]), k=3)
    pd.testing.assert_frame_equal(polars.to_pandas(), found)


def test_a_frame_of_rectools_is_read_whole(fitted: Retriever) -> None:
    store = Store.open(fitted._fitted.path / STORE)
    assert store.num_events == USERS * EVENTS
    assert store.manifest["max_time"] == int(LAST.replace(tzinfo=UTC).timestamp())
    assert store.weight is not None
    assert sorted(set(store.weight.tolist())) == [0.5, 1.0]
    assert store.schema.context_features == ()


def test_new_users_by_their_events(fitted: Retriever) -> None:
    known = EVENTS_FRAME.filter(user_id=1005)
    found = fitted.recommend(known.with_columns(user_id=pl.lit(7)).to_pandas(), k=3)
    assert isinstance(found, pd.DataFrame)
    assert found["user_id"].tolist() == [7, 7, 7]
    expected = fitted.recommend([1005], k=3)
    assert found["item_id"].tolist() == expected["item_id"].to_list()


def test_scores_are_products_of_vectors(fitted: Retriever) -> None:
    users, items = fitted.encode_users([1005, 1002]), fitted.encode_items()
    assert users["vectors"].dtype == pl.Array(pl.Float32, (4, 17))  # the last is of popularity
    products = users["vectors"].to_numpy() @ items["vector"].to_numpy().T  # [2, V, I]
    for user, scores in zip((1005, 1002), products.max(axis=1), strict=True):
        found = fitted.recommend([user], k=64, include_seen=True)
        assert found["item_id"].to_list() == items["item_id"].gather(np.argsort(-scores)).to_list()
        np.testing.assert_allclose(found["score"], np.sort(scores)[::-1], atol=1e-6)


def test_vectors_in_pandas_are_arrays(fitted: Retriever, of_pandas: Retriever) -> None:
    users = of_pandas.encode_users(["1005", "1002"])
    assert [vectors.shape for vectors in users["vectors"]] == [(4, 17)] * 2
    items = fitted.encode_items(pd.Series([5, 3], dtype="int32"))
    assert items["item_id"].tolist() == [5, 3]
    expected = fitted.encode_items([5, 3])["vector"].to_numpy()
    np.testing.assert_array_equal(np.stack(items["vector"]), expected)


def test_new_items_by_their_features(fitted: Retriever) -> None:
    new = pl.DataFrame({"item_id": [900, 901], "category": ["group 3", "group 3"]})
    vectors = fitted.encode_items(new)
    assert vectors["item_id"].to_list() == [900, 901]
    one, other = vectors["vector"].to_numpy()
    np.testing.assert_array_equal(one, other)
    cosines = fitted.encode_items()["vector"].to_numpy()[:, :16] @ one[:16]
    assert set(np.argsort(-cosines)[:4] // GROUP_SIZE) == {3}
    with pytest.raises(DataError, match="expected items of the catalogue, found 1 unknown, the first 900"):
        fitted.encode_items([3, 900])


def test_similar_items_are_those_of_the_largest_cosine(fitted: Retriever) -> None:
    found = fitted.similar([12, 60], k=5)
    assert found.columns == ["target_item_id", "item_id", "rank", "score"]
    vectors = fitted.encode_items()["vector"].to_numpy()[:, :16]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for item in (12, 60):
        rows, cosines = found.filter(target_item_id=item), unit @ unit[item]
        expected = [other for other in np.argsort(-cosines) if other != item][:5]
        assert rows["item_id"].to_list() == expected
        assert rows["rank"].to_list() == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(rows["score"], cosines[expected], atol=1e-6)
    assert len(fitted.similar([12], k=1000)) == 63
    assert len(fitted.similar(k=2)) == 128
    with pytest.raises(ConfigError, match="k=0: expected at least 1"):
        fitted.similar([12], k=0)


def test_explained_by_past_events_with_their_titles(fitted: Retriever, of_pandas: Retriever) -> None:
    formed = fitted.explain([1005])
    assert formed.columns[-2:] == ["title", "category"]
    mine = EVENTS_FRAME.filter(user_id=1005)
    for _, rows in formed.group_by("interest"):
        assert rows["weight"].sum() == pytest.approx(1, abs=1e-5)
        assert set(rows["item_id"]) == set(mine["item_id"])
    assert formed["title"].to_list() == [f"Item {item}" for item in formed["item_id"]]
    assert set(formed["category"]) == {"group 5"}
    bare = of_pandas.explain(["1005"])
    assert bare.columns.tolist() == ["user_id", "interest", "item_id", "timestamp", "weight", "closeness"]


def test_reasons_are_the_events_nearest_to_a_recommendation(fitted: Retriever) -> None:
    found = fitted.recommend([1005, 1002], k=3)
    reasons = fitted.reasons(found, num_events=2)
    assert (
        reasons.select("user_id", "item_id", "interest")
        .unique(maintain_order=True)
        .equals(found.select("user_id", "item_id", "interest"))
    )
    vectors = fitted.encode_items()["vector"].to_numpy()[:, :16]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for (user, item), rows in reasons.group_by("user_id", "item_id"):
        mine = EVENTS_FRAME.filter(user_id=user)["item_id"].to_numpy()
        cosines = unit[mine] @ unit[item]
        assert rows["event_item_id"].to_list() == mine[np.argsort(-cosines)[:2]].tolist()
        np.testing.assert_allclose(rows["closeness"], np.sort(cosines)[::-1][:2], atol=1e-6)
        assert rows["event_title"].to_list() == [f"Item {event}" for event in rows["event_item_id"]]
    with pytest.raises(DataError, match="expected columns user_id, item_id, interest, as recommend gives them"):
        fitted.reasons(found.drop("interest"))


def test_reasons_of_new_users(fitted: Retriever) -> None:
    events = EVENTS_FRAME.filter(user_id=1005).with_columns(user_id=pl.lit(7))
    reasons = fitted.reasons(fitted.recommend(events, k=2), events, num_events=1)
    expected = fitted.reasons(fitted.recommend([1005], k=2), num_events=1)
    assert reasons.drop("user_id", "closeness").equals(expected.drop("user_id", "closeness"))


def test_saved_moved_and_loaded_it_answers_the_same(fitted: Retriever, moved: Path) -> None:
    loaded = Retriever.load(moved, console=QUIET)
    assert loaded.recommend(k=5).equals(fitted.recommend(k=5))
    assert loaded.explain([1005]).equals(fitted.explain([1005]))
    assert loaded.encode_users().equals(fitted.encode_users())
    assert loaded.encode_items().equals(fitted.encode_items())
    assert (loaded.config, loaded.prepare) == (fitted.config, fitted.prepare)
    ours, theirs = loaded.evaluate(ks=[2, 5]), fitted.evaluate(ks=[2, 5])
    assert (ours.counts, ours.methods) == (theirs.counts, theirs.methods)
    assert ours.methods[0].kind == "model"


def test_answers_stay_of_pandas_when_loaded(of_pandas: Retriever, tmp_path: Path) -> None:
    loaded = Retriever.load(of_pandas.save(tmp_path / "shop"))
    pd.testing.assert_frame_equal(loaded.recommend(k=2), of_pandas.recommend(k=2))


def test_the_verbs_find_what_was_saved(moved: Path) -> None:
    assert load_run(moved / RUN).store.num_users == USERS


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: shutil.rmtree(path / RUN), "run/manifest.json: expected by the retriever's manifest"),
        (lambda path: (path / "bundle/index.faiss").write_bytes(b""), "index.faiss: does not match its checksum"),
        (lambda path: shutil.move(path / "store/manifest.json", path / "manifest.json"), "found store of 2"),
        (lambda path: (path / "manifest.json").unlink(), "expected a retriever directory, found no manifest.json"),
    ],
)
def test_damaged_or_something_else(moved: Path, tmp_path: Path, spoil, message: str) -> None:
    copy = shutil.copytree(moved, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(ArtifactError, match=message):
        Retriever.load(copy)


def test_other_files_are_not_replaced(fitted: Retriever, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="expected a new path or an earlier retriever, found something else"):
        fitted.save(tmp_path)
    with pytest.raises(ArtifactError, match="expected a new path or an earlier retriever"):
        Retriever(SETTINGS, path=tmp_path, console=QUIET).fit(EVENTS_FRAME)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_fit_replaces_the_first_and_a_failed_one_does_not(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loaded = Retriever.load(moved, console=QUIET)
    before = loaded.recommend(k=5)
    with pytest.raises(DataError, match="expected a column 'item_id'"):
        loaded.fit(EVENTS_FRAME.drop("item_id"))
    with pytest.raises(TrainingError, match="nothing to learn from"):  # the store was written already
        loaded.fit(EVENTS_FRAME.unique("user_id"))
    assert loaded.recommend(k=5).equals(before)
    loaded.config = override(loaded.config, {"train.max_steps": 2})
    assert loaded.fit(EVENTS_FRAME.filter(pl.col("user_id") < 1016)) is loaded
    assert loaded.recommend(k=1)["user_id"].n_unique() == 16
    assert Retriever.load(moved).recommend(k=5).equals(before)  # what it was loaded from stays
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["retriever"]
    del loaded
    gc.collect()
    assert list(tmp_path.iterdir()) == []  # a temporary directory goes with its retriever


def test_updated_with_newer_events(moved: Path) -> None:
    loaded = Retriever.load(moved, console=QUIET)
    before = loaded.recommend(k=5)
    day = pl.DataFrame(
        {
            "user_id": [7] * 4,
            "item_id": pl.Series([16, 17, 18, 19], dtype=pl.Int32),
            "weight": [1.0] * 4,
            "datetime": [LAST + timedelta(hours=hour) for hour in range(1, 5)],
        }
    )
    with pytest.raises(DataError, match="expected a moment after the user's newest event"):
        loaded.update(EVENTS_FRAME[:1])
    assert loaded.recommend(k=5).equals(before)
    loaded.update(day)
    assert repr(loaded).startswith(f"Retriever({USERS + 1} users, 64 items")
    assert not set(loaded.recommend([7], k=5)["item_id"]) & {16, 17, 18, 19}
    assert loaded.evaluate(ks=[5]).counts["users"] == USERS + 1
    assert Retriever.load(moved).recommend(k=5).equals(before)


def test_files_and_own_names_of_columns(tmp_path: Path) -> None:
    EVENTS_FRAME.rename({"user_id": "customer"}).write_parquet(tmp_path / "events.parquet")
    prepare = PrepareConfig(columns={"user": "customer", "time": "datetime"})
    short = {**SETTINGS, "train.max_steps": 2}
    retriever = Retriever(short, prepare=prepare, path=tmp_path / "shop", console=QUIET)
    retriever.fit(tmp_path / "events.parquet")
    found = retriever.recommend(pl.DataFrame({"customer": [1005]}), k=2)
    assert found["user_id"].to_list() == [1005, 1005]
    assert Retriever.load(tmp_path / "shop").recommend([1005], k=2).equals(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet", "shop"]


def test_pandas_need_not_be_installed(moved: Path) -> None:
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "from prismrec import Retriever\n"
        f"print(len(Retriever.load({str(moved)!r}).recommend([1005], k=3)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
