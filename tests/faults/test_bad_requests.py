"""Strange users, items and pairs, as notebooks and `recommend --users` give them: answers, or one short line."""

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prismrec import Retriever
from prismrec.errors import DataError, PrismRecError
from prismrec.evaluate.labelled import labelled_auc
from prismrec.model.run import load_run
from prismrec.retriever import BUNDLE, RUN

from .strange import COLUMNS, MIXED, call, fuzzed, outcome

NUM_USERS, NUM_ITEMS = 8, 12
ROLES = ("user_id", "item_id", "timestamp", "dwell", "shop")
GIVEN = pl.DataFrame({"user_id": [0, 0, 1, 99], "item_id": [1, 2, 3, 4], "timestamp": [100, 101, 102, 103]})
ANSWER = ["user_id", "item_id", "rank", "score", "interest"]


@pytest.fixture(scope="module")
def fitted() -> Retriever:
    rows = [(user, (user + 2 * place) % NUM_ITEMS, place) for user in range(NUM_USERS) for place in range(6)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").with_columns(shop=pl.lit("a"))
    settings = {"model.embedding_dim": 16, "train.max_steps": 2, "train.device": "cpu", "train.validate_k": 4}
    return Retriever(settings, console=Console(quiet=True)).fit(events)


@fuzzed(150)
@given(
    changed=st.dictionaries(st.sampled_from(ROLES), COLUMNS, max_size=2), rows=st.integers(0, 4), pandas=st.booleans()
)
def test_strange_events_of_users(fitted, tried, changed, rows, pandas) -> None:
    users = GIVEN.with_columns(column.alias(name) for name, column in changed.items())[:rows]
    if pandas and pl.Object not in users.dtypes:
        try:
            users = users.to_pandas()
        except Exception:  # what pandas cannot hold never comes from there
            pandas = False
    found = outcome(lambda: fitted.recommend(users, k=3))
    if not isinstance(found, PrismRecError):
        assert list(found.columns) == ANSWER
        assert isinstance(found, pd.DataFrame if isinstance(users, pd.DataFrame) else pl.DataFrame)
        assert set(found["user_id"]) <= set(users["user_id"])
    tried("tables of users", 1)


@fuzzed(150)
@given(
    users=MIXED
    | st.sampled_from(
        [5, "a", b"a", None, {}, [], [[]], [None], [True], [1.0], object(), pd.MultiIndex.from_tuples([(1, 2)])]
    )
)
def test_strange_ids(fitted, tried, users) -> None:
    for ask in (fitted.recommend, fitted.similar):
        found = outcome(lambda ask=ask: ask(users, 3))
        assert isinstance(found, PrismRecError | pl.DataFrame)
    tried("tables of users", 2)


@fuzzed(60)
@given(name=st.sampled_from(["user_id", "item_id", "label"]), column=COLUMNS)
def test_strange_labelled_pairs(fitted, tried, name, column) -> None:
    run = load_run(fitted._fitted.path / RUN)
    pairs = pl.DataFrame({"user_id": [0, 1, 2, 3], "item_id": [1, 2, 3, 4], "label": [0, 1, 1, 0]})
    found = outcome(lambda: labelled_auc(run, pairs.with_columns(column.alias(name))))
    assert isinstance(found, PrismRecError) or 0 <= found <= 1
    tried("tables of labelled pairs", 1)


@pytest.mark.parametrize(
    "bad", [{"user_id": [1.5]}, {"user_id": [None]}, {"user_id": [[1]]}, {"user_id": [2**63 - 1]}, {"item_id": [1]}]
)
def test_recommend_says_it_in_one_line(fitted, tmp_path, bad) -> None:
    pl.DataFrame(bad).write_parquet(tmp_path / "users.parquet")
    for out in ("recs.parquet", "recs/"):
        arguments = ("--users", tmp_path / "users.parquet", "--out", f"{tmp_path}/{out}")
        status, said, err = call("recommend", fitted._fitted.path / BUNDLE, *arguments)
        assert (status, said, err.count("\n")) == (1, "", 1)
        assert err.startswith("prismrec: ")
        assert "user" in err
    assert not list(tmp_path.rglob("*.parquet"))[1:]


def test_a_fraction_is_no_id_of_a_pair(fitted) -> None:
    pairs = pl.DataFrame({"user_id": [0.5, 1.0], "item_id": [1, 2], "label": [0, 1]})
    with pytest.raises(
        DataError, match="labelled pairs: column 'user_id': expected integer or text ids, found Float64"
    ):
        labelled_auc(load_run(fitted._fitted.path / RUN), pairs)


def test_categories_are_text(fitted) -> None:
    pairs = pl.DataFrame({"user_id": ["0", "1"], "item_id": [1, 2], "label": [0, 1]})
    as_text, as_categories = (
        labelled_auc(load_run(fitted._fitted.path / RUN), pairs.cast({"user_id": dtype}))
        for dtype in (pl.String, pl.Categorical)
    )
    assert as_text == as_categories
