"""Shares of categories, of one each and of lists."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prismrec.serve.catalogue import Catalogue

from .conftest import ITEMS, NUM_ITEMS, make_store

ROWS = np.array([3, 0, 1, 2, 4])
"""Of items 2, 0, 1 and 3; 0 is no item."""


@pytest.mark.parametrize(
    ("first_four", "expected"),
    [
        (["a", "b", "b", None], {"b": 1 / 2, "a": 1 / 4}),
        ([7, 7, 3, 5], {7: 1 / 2, 3: 1 / 4, 5: 1 / 4}),
        ([["a", "b"], ["b"], [], None], {"b": 1 / 2, "a": 1 / 4}),
        ([["a", "b"], ["b", "a"], ["c", "b", "c"], ["d"]], {"b": 3 / 4, "a": 1 / 2, "c": 1 / 4, "d": 1 / 4}),
        ([[2, 1], [2, 1], [1, 4], [1]], {1: 1.0, 2: 1 / 2, 4: 1 / 4}),
    ],
)
def test_every_category_of_an_item_counts(first_four: list[object], expected: dict[object, float], tmp_path: Path):
    """Of equal shares, in the order in which the items have them."""
    column = pl.Series("category", [*first_four, *(NUM_ITEMS - 4) * first_four[:1]])
    catalogue = Catalogue(make_store(tmp_path / "store", ITEMS.with_columns(column)))
    shares = {each["category"]: each["share"] for each in catalogue.category_shares(ROWS[None], 10)[0]}
    assert list(shares.items()) == list(expected.items())
    assert [each["category"] for each in catalogue.category_shares(ROWS[None], 1)[0]] == list(expected)[:1]
    assert catalogue.category_shares(np.stack([0 * ROWS, ROWS]), 10)[0] == []


def test_without_categories_there_are_no_shares(tmp_path: Path) -> None:
    catalogue = Catalogue(make_store(tmp_path / "store", ITEMS.drop("category")))
    assert catalogue.category_shares(ROWS[None], 10) == [[]]
