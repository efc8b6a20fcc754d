from collections.abc import Iterator

import numpy as np
import pytest

from prismrec.errors import SearchIndexError
from prismrec.index import loading
from prismrec.index.loading import ItemBlocks, check_name, check_same

VECTORS = np.arange(14, dtype=np.float32).reshape(7, 2)


def _blocks(*sizes: int) -> Iterator[np.ndarray]:
    start = 0
    for size in sizes:
        yield VECTORS[start : start + size]
        start += size


@pytest.mark.parametrize(
    ("row", "expected"),
    [(0, [[1, 2, 3], [4], [5, 6, 7]]), (2, [[3], [4], [5, 6, 7]]), (3, [[4], [5, 6, 7]]), (6, [[7]]), (7, []), (9, [])],
)
def test_only_the_items_beyond_a_row_are_given(row: int, expected: list[list[int]]) -> None:
    items = ItemBlocks(_blocks(3, 1, 0, 3), None)
    blocks = list(items.beyond(row))
    assert [block.rows.tolist() for block in blocks] == expected
    for block in blocks:
        np.testing.assert_array_equal(block.vectors, VECTORS[block.rows - 1])
        assert block.categories == [[] for _ in block.rows]
    assert (items.dimension, items.num_read) == (2, 7)


def test_an_array_is_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_ROWS_PER_BLOCK", 3)
    assert [block.rows.tolist() for block in ItemBlocks(VECTORS, None).beyond(0)] == [[1, 2, 3], [4, 5, 6], [7]]


def test_categories_go_with_their_items_without_the_places_that_hold_none() -> None:
    categories = np.array([[1, 0], [0, 0], [2, 3], [0, 4], [5, 0], [6, 0], [7, 8]])
    blocks = list(ItemBlocks(_blocks(3, 4), categories).beyond(1))
    assert [block.categories for block in blocks] == [[[], [2, 3]], [[4], [5], [6], [7, 8]]]


def test_no_vectors_are_refused() -> None:
    with pytest.raises(SearchIndexError, match=r"item vectors: expected shape \[I, D\] with I, D >= 1, found none"):
        ItemBlocks(iter([]), None)


def test_a_block_of_another_dimension_is_refused() -> None:
    items = ItemBlocks(iter([VECTORS, np.zeros((2, 3), np.float32)]), None)
    with pytest.raises(SearchIndexError, match=r"item vectors: expected shape \[N, 2\], found \[2, 3\]"):
        list(items.beyond(0))


@pytest.mark.parametrize("num_categories", [6, 8])
def test_categories_of_another_number_of_items_are_refused(num_categories: int) -> None:
    items = ItemBlocks(VECTORS, np.ones((num_categories, 1), np.int64))
    with pytest.raises(SearchIndexError, match=rf"categories: expected shape \[7, C\], found \[{num_categories}, 1\]"):
        list(items.beyond(0))


@pytest.mark.parametrize("name", ["", "Items", "1st", "a-b", 'a"; DROP TABLE x', "a" * 41, "é"])
def test_names_that_would_need_quoting_are_refused(name: str) -> None:
    with pytest.raises(SearchIndexError, match="index name: expected a lower-case letter"):
        check_name(name)


def test_a_difference_is_named_and_what_agrees_is_not() -> None:
    with pytest.raises(SearchIndexError, match=r"^here: expected b 2, found b 3; do this$"):
        check_same("here", {"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}, "do this")
