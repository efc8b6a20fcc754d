"""Vectors and neighbours of items; see also `tests/test_retriever.py`."""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prismrec.errors import DataError
from prismrec.export.reader import Bundle, open_bundle
from prismrec.index.faiss_index import FaissIndex
from prismrec.serve import item_vectors
from prismrec.serve.item_vectors import ItemVectors

from .conftest import NUM_ITEMS


@pytest.fixture(scope="module")
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle)


def with_vectors(bundle: Bundle, vectors: np.ndarray) -> ItemVectors:
    """Item vectors of our own: the catalogue's order is that of its rows."""
    return ItemVectors(dataclasses.replace(bundle, index=FaissIndex.build(vectors, np.empty((0, 1, vectors.shape[1])))))


def test_those_of_the_bundle(opened: Bundle, bundle: Path) -> None:
    exported = pl.read_parquet(bundle / "item_vectors.parquet")
    found = ItemVectors(opened).encode()
    assert found["item_id"].equals(exported["item_id"])
    np.testing.assert_array_equal(found["vector"].to_numpy(), exported["vector"].to_numpy())


def test_length_is_no_likeness(opened: Bundle) -> None:
    """Ten times as long, a vector is as near as it was."""
    dim = opened.config.model.embedding_dim
    vectors = np.eye(NUM_ITEMS, dim, dtype=np.float32) + 0.01
    vectors[1] = 10 * (vectors[0] + 0.5 * vectors[1])
    vectors[2] = vectors[0] + 0.1 * vectors[2]
    ids = opened.store.item_ids
    found = with_vectors(opened, vectors).similar(pl.DataFrame({"item_id": [ids[0]]}), k=2)
    assert found["item_id"].to_list() == [ids[2], ids[1]]


def test_of_many_that_are_the_same_none_is_its_own_neighbour(opened: Bundle) -> None:
    dim = opened.config.model.embedding_dim
    same = with_vectors(opened, np.ones((NUM_ITEMS, dim), np.float32))
    ids = opened.store.item_ids
    found = same.similar(k=2)
    assert len(found) == 2 * NUM_ITEMS
    assert found["rank"].to_list() == [1, 2] * NUM_ITEMS
    assert not (found["item_id"] == found["target_item_id"]).any()
    neighbours = dict(found.group_by("target_item_id").agg("item_id").iter_rows())
    assert neighbours[ids[0]] == [ids[1], ids[2]]
    assert neighbours[ids[NUM_ITEMS - 1]] == [ids[0], ids[1]]  # equal ones by their row


def test_many_items_go_in_batches_and_say_how_far_they_are(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_once = ItemVectors(opened).similar(k=3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(item_vectors, "_ITEMS_PER_BATCH", 7)  # the last of five is not full
    monkeypatch.setattr(item_vectors, "_PROGRESS_FROM", NUM_ITEMS)
    in_batches = ItemVectors(opened).similar(k=3)
    assert in_batches.drop("score").equals(at_once.drop("score"))
    np.testing.assert_allclose(in_batches["score"], at_once["score"], rtol=1e-5)
    assert "similar" in capsys.readouterr().err


def test_cosines_of_pairs(opened: Bundle) -> None:
    dim = opened.config.model.embedding_dim
    vectors = np.eye(NUM_ITEMS, dim, dtype=np.float32)
    vectors[2] = [3, 4, *[0] * (dim - 2)]
    ids = opened.store.item_ids
    found = with_vectors(opened, vectors).closeness(ids[[0, 1, 2, 0]], ids[[2, 2, 2, 1]])
    assert found.tolist() == pytest.approx([0.6, 0.8, 1, 0])


def test_items_that_are_not_there(opened: Bundle) -> None:
    asked = pl.DataFrame({"item_id": ["item 1", "item 77", "item 78"]})
    with pytest.raises(DataError, match="items: expected items of the catalogue, found 2 unknown, the first 'item 77'"):
        ItemVectors(opened).similar(asked, k=1)
