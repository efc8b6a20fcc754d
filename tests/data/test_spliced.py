"""Pieces read as one array, against the same array put together in memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.data.spliced import SplicedArray, splice

# Users 0, 1 and 2 have 2, 1 and 3 events in the first piece; user 1 has two more, and 3 is new, in the second.
USERS = [np.array([0, 1, 2]), np.array([3, 1])]
OFFSETS = [np.array([0, 2, 3, 6]), np.array([0, 1, 3])]
PIECES = [np.array([10, 11, 20, 30, 31, 32]), np.array([40, 21, 22])]


def test_by_hand() -> None:
    order, offsets = splice(USERS, OFFSETS, 4)
    assert offsets.tolist() == [0, 2, 5, 8, 9]
    assert [order.start.tolist(), order.piece.tolist(), order.row.tolist()] == [
        [0, 3, 5, 8],
        [0, 1, 0, 1],
        [0, 1, 3, 0],
    ]
    array = SplicedArray(PIECES, order)
    assert array[:].tolist() == [10, 11, 20, 21, 22, 30, 31, 32, 40]
    assert array[np.array([[4, 0], [8, -2]])].tolist() == [[22, 10], [40, 32]]
    assert (array[3], len(array), array.shape, array.dtype) == (21, 9, (9,), np.int64)
    assert np.asarray(array, np.float32).dtype == np.float32


@st.composite
def _pieces(draw: st.DrawFn) -> tuple[list[list[list[int]]], int, int]:
    """Events of each user in each piece, of which users come in any order, and two positions."""
    num_users = draw(st.integers(1, 5))
    lengths = st.lists(st.integers(0, 3), min_size=num_users, max_size=num_users)
    pieces = draw(st.lists(lengths, min_size=1, max_size=4))
    pieces[0] = [length or 1 for length in pieces[0]]
    total = sum(map(sum, pieces))
    return pieces, draw(st.integers(0, total)), draw(st.integers(0, total))


@given(_pieces(), st.randoms())
def test_like_an_array_in_memory(case, random) -> None:
    lengths, first, last = case
    num_users, value = len(lengths[0]), 0
    events: list[list[list[int]]] = [[] for _ in range(num_users)]  # of each user, rows of two numbers
    users, offsets, pieces = [], [], []
    for number, of_piece in enumerate(lengths):
        chosen = [user for user in range(num_users) if of_piece[user] or number == 0]
        if number:
            random.shuffle(chosen)
        rows = []
        for user in chosen:
            for _ in range(of_piece[user]):
                value += 1
                rows.append([value, -value])
                events[user].append(rows[-1])
        users.append(np.array(chosen, np.int64))
        offsets.append(np.cumsum([0, *(of_piece[user] for user in chosen)]))
        pieces.append(np.array(rows, np.int64).reshape(-1, 2))
    order, bounds = splice(users, offsets, num_users)
    array, expected = SplicedArray(pieces, order), np.array([row for user in events for row in user])
    assert bounds.tolist() == np.cumsum([0, *map(len, events)]).tolist()
    np.testing.assert_array_equal(np.asarray(array), expected)
    np.testing.assert_array_equal(array[first:last], expected[first:last])
    np.testing.assert_array_equal(array[first:last:2], expected[first:last:2])
    positions = np.array([random.randrange(len(expected)) for _ in range(7)])
    np.testing.assert_array_equal(array[positions], expected[positions])
    assert (np.diff(order.start) > 0).all()


def test_empty_stretches() -> None:
    order, _ = splice(USERS, OFFSETS, 4)
    array = SplicedArray(PIECES, order)
    assert array[4:4].tolist() == array[7:2].tolist() == array[np.zeros(0, np.int64)].tolist() == []
    with pytest.raises(IndexError):
        array[np.array([12])]
