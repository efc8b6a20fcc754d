"""Which of each user's events are for training, validation and testing: always a prefix, a middle and a suffix.

Takes the sorted events of a store; gives, for each user, where validation and testing begin.
"""

import numpy as np

from prismrec.config import PrepareConfig


def split_starts(offsets: np.ndarray, time: np.ndarray, config: PrepareConfig) -> tuple[np.ndarray, np.ndarray]:
    """First validation and first test event of each user, int64 [U] each.

    Args:
        offsets: user u owns events offsets[u]:offsets[u + 1], oldest first and at least one, int64 [U + 1].
        time: seconds of each event, int64 [N].
        config: the kind of split and its boundaries.
    """
    if config.split == "leave_last_two_out":
        return leave_last_two_out(offsets)
    if config.valid_from is not None and config.test_from is not None:
        return global_time(offsets, time, config.valid_from, config.test_from)
    return global_time(offsets, time, *newest_shares(time, config.valid_share, config.test_share))


def leave_last_two_out(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last event is for testing, the one before for validation; users with fewer than three only train."""
    end = offsets[1:]
    enough = np.diff(offsets) >= 3
    return end - 2 * enough, end - enough


def global_time(
    offsets: np.ndarray, time: np.ndarray, valid_from: int, test_from: int
) -> tuple[np.ndarray, np.ndarray]:
    """Events from `valid_from` on are for validation, from `test_from` on for testing."""

    def first(moment: int) -> np.ndarray:
        return offsets[:-1] + np.add.reduceat(time < moment, offsets[:-1], dtype=np.int64)

    return first(valid_from), first(test_from)


def newest_shares(time: np.ndarray, valid_share: float, test_share: float) -> tuple[int, int]:
    """The moments from which on the newest events make up these shares; events of one second stay together."""
    last = len(time) - 1
    ranks = [min(round(len(time) * (1 - share)), last) for share in (valid_share + test_share, test_share)]
    valid_from, test_from = np.partition(time, ranks)[ranks]
    return int(valid_from), int(test_from)
