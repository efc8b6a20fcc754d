import numpy as np

from prismrec.data.ranges import flat_ranges


def test_flat_ranges() -> None:
    assert flat_ranges(np.array([2, 5, 9]), np.array([4, 5, 12])).tolist() == [2, 3, 9, 10, 11]
    assert flat_ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
