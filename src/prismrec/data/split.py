"""Which of each user's events are for training, validation and testing: always a prefix, a middle and a suffix.

Takes the sorted events of a store; gives, for each user, where validation and testing begin.
"""

import numpy as np

from prismrec.config import PrepareConfig
from prismrec.data.ranges import events_before
from prismrec.data.spliced import EventArray
from prismrec.errors import DataError

Moments = tuple[int, int]
"""Seconds: the first moment of validation, and that of testing."""


def split_starts(offsets: np.ndarray, time: EventArray, config: PrepareConfig) -> tuple[np.ndarray, np.ndarray]:
    """First validation and first test event of each user, int64 [U] each.

    Args:
        offsets: user u owns events offsets[u]:offsets[u + 1], oldest first and at least one, int64 [U + 1].
        time: seconds of each event, int64 [N].
        config: the kind of split and its boundaries.
    """
    return starts_at(offsets, time, split_moments(time, config))


def split_moments(time: EventArray, config: PrepareConfig) -> Moments | None:
    """The moments of a split by time; None for the other kind. Shares are of all events, whose times are then read."""
    if config.split == "leave_last_two_out":
        return None
    if config.valid_from is not None and config.test_from is not None:
        return config.valid_from, config.test_from
    return newest_shares(np.asarray(time), config.valid_share, config.test_share)


def starts_at(
    offsets: np.ndarray, time: EventArray, moments: Moments | None, trained: np.ndarray | int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """As `split_starts`, of what `split_moments` gave; for `trained` see `leave_last_two_out`."""
    return leave_last_two_out(offsets, trained) if moments is None else global_time(offsets, time, *moments)


def count_splits(
    offsets: np.ndarray, valid_start: np.ndarray, test_start: np.ndarray, config: PrepareConfig
) -> dict[str, int]:
    """Events in all and of each split, and users with events for training only.

    Raises:
        DataError: a split by time leaves one of them without events.
    """
    bounds_of = {
        "train": (offsets[:-1], valid_start),
        "valid": (valid_start, test_start),
        "test": (test_start, offsets[1:]),
    }
    counts = {f"{split}_events": int((end - start).sum()) for split, (start, end) in bounds_of.items()}
    if config.split == "global_time" and not all(counts.values()):
        raise DataError(
            f"split='global_time': expected events for training, validation and testing, found "
            f"{', '.join(map(str, counts.values()))}; choose other valid_from and test_from, or other shares"
        )
    users_only_in_training = int((valid_start == offsets[1:]).sum())
    return {"events": int(offsets[-1]), **counts, "users_only_in_training": users_only_in_training}


def leave_last_two_out(offsets: np.ndarray, trained: np.ndarray | int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The last event is for testing, the one before for validation; users with fewer than three only train.

    Args:
        offsets: user u owns events offsets[u]:offsets[u + 1], oldest first, int64 [U + 1].
        trained: each user's oldest events that have been for training, and stay so, int64 [U].
    """
    end = offsets[1:]
    enough = np.diff(offsets) >= 3
    valid_start = np.maximum(end - 2 * enough, offsets[:-1] + trained)
    return valid_start, np.maximum(end - enough, valid_start)


def global_time(
    offsets: np.ndarray, time: EventArray, valid_from: int, test_from: int
) -> tuple[np.ndarray, np.ndarray]:
    """Events from `valid_from` on are for validation, from `test_from` on for testing."""

    def first(moment: int) -> np.ndarray:
        return events_before(time, offsets[:-1], offsets[1:], np.full(len(offsets) - 1, moment))

    return first(valid_from), first(test_from)


def newest_shares(time: np.ndarray, valid_share: float, test_share: float) -> tuple[int, int]:
    """The moments from which on the newest events make up these shares; events of one second stay together."""
    last = len(time) - 1
    ranks = [min(round(len(time) * (1 - share)), last) for share in (valid_share + test_share, test_share)]
    valid_from, test_from = np.partition(time, ranks)[ranks]
    return int(valid_from), int(test_from)
