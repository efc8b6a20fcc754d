"""Sets of items per user against Python's sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prismrec.evaluate.item_sets import ItemSets

LISTS = st.lists(st.lists(st.integers(1, 12), max_size=6), max_size=6)


def as_lists(sets: ItemSets) -> list[list[int]]:
    return [sets.item[start:stop].tolist() for start, stop in zip(sets.offsets[:-1], sets.offsets[1:], strict=True)]


def test_empty() -> None:
    assert ItemSets.from_lists([]).num_users == 0
    assert as_lists(ItemSets.from_lists([[], []])) == [[], []]
    assert not ItemSets.from_lists([[]]).contains(np.array([[1, 0]]), np.array([[0]])).any()


@given(LISTS)
def test_holds_each_users_distinct_items_sorted(lists: list[list[int]]) -> None:
    sets = ItemSets.from_lists(lists)
    assert as_lists(sets) == [sorted(set(items)) for items in lists]
    assert sets.sizes.tolist() == [len(set(items)) for items in lists]


@given(LISTS)
def test_contains(lists: list[list[int]]) -> None:
    candidates = np.tile(np.arange(0, 15), (len(lists), 1))
    found = ItemSets.from_lists(lists).contains(candidates, np.arange(len(lists))[:, None])
    assert found.tolist() == [[item in items for item in range(15)] for items in lists]


@given(LISTS, st.data())
def test_minus_slice_and_select(lists: list[list[int]], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.lists(st.integers(1, 12)), min_size=len(lists), max_size=len(lists)))
    sets = ItemSets.from_lists(lists)
    difference = sets.minus(ItemSets.from_lists(others))
    assert as_lists(difference) == [sorted(set(a) - set(b)) for a, b in zip(lists, others, strict=True)]
    start, stop = sorted((data.draw(st.integers(0, len(lists))), data.draw(st.integers(0, len(lists)))))
    assert as_lists(sets[start:stop]) == as_lists(sets)[start:stop]
    chosen = np.array([data.draw(st.booleans()) for _ in lists], bool)
    assert as_lists(sets.select(chosen)) == [items for items, keep in zip(as_lists(sets), chosen, strict=True) if keep]
