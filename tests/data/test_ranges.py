import numpy as np

from prismrec.data.ranges import events_before, flat_ranges


def test_flat_ranges() -> None:
    assert flat_ranges(np.array([2, 5, 9]), np.array([4, 5, 12])).tolist() == [2, 3, 9, 10, 11]
    assert flat_ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_events_before_is_a_search_in_each_range() -> None:
    time = np.array([1, 3, 3, 7, 2, 2])
    result = events_before(time, np.array([0, 4, 6]), np.array([4, 6, 6]), np.array([3, 9, 0]))
    assert result.tolist() == [1, 6, 6]
