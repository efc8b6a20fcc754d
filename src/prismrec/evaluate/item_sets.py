"""One set of catalogue rows per user, flat in memory: targets, and items already seen.

Takes (user, item) pairs or literal lists; gives sorted rows with offsets, membership of whole
recommendation lists, and slices of users.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from prismrec.data.ranges import flat_ranges


@dataclass(frozen=True)
class ItemSets:
    """User b's set is `item[offsets[b]:offsets[b + 1]]`, rising and without repeats."""

    item: np.ndarray
    """int64 [M], catalogue rows."""
    offsets: np.ndarray
    """int64 [B + 1]."""

    @classmethod
    def from_pairs(cls, user: np.ndarray, item: np.ndarray, num_users: int) -> "ItemSets":
        """Collect pairs (user in [0, num_users), catalogue row), in any order and with repeats."""
        stride = int(item.max(initial=0)) + 1
        keys = np.unique(user.astype(np.int64) * stride + item)
        offsets = np.searchsorted(keys, np.arange(num_users + 1, dtype=np.int64) * stride)
        return cls(keys % stride, offsets)

    @classmethod
    def from_lists(cls, lists: Sequence[Iterable[int]]) -> "ItemSets":
        """Collect one list of catalogue rows per user."""
        pairs = np.array([(user, row) for user, rows in enumerate(lists) for row in rows], np.int64).reshape(-1, 2)
        return cls.from_pairs(pairs[:, 0], pairs[:, 1], len(lists))

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """Size of each user's set, int64 [B]."""
        return np.diff(self.offsets)

    @property
    def user(self) -> np.ndarray:
        """The user of each element, int64 [M]."""
        return np.repeat(np.arange(self.num_users), self.sizes)

    def __getitem__(self, users: slice) -> "ItemSets":
        """The sets of a contiguous range of users, renumbered from 0."""
        start, stop, _ = users.indices(self.num_users)
        bounds = self.offsets[start : max(stop, start) + 1]
        return ItemSets(self.item[bounds[0] : bounds[-1]], bounds - bounds[0])

    def select(self, users: np.ndarray) -> "ItemSets":
        """The sets of some users, rows or bool [B], renumbered from 0."""
        rows = np.arange(self.num_users)[users]
        offsets = np.concatenate([[0], np.cumsum(self.sizes[rows])])
        return ItemSets(self.item[flat_ranges(self.offsets[rows], self.offsets[rows + 1])], offsets)

    def minus(self, other: "ItemSets") -> "ItemSets":
        """Each user's set without the elements of the same user's set in `other`."""
        keep = ~other.contains(self.item, self.user)
        return ItemSets.from_pairs(self.user[keep], self.item[keep], self.num_users)

    def contains(self, item: np.ndarray, user: np.ndarray) -> np.ndarray:
        """Whether each catalogue row is in its user's set; `user` broadcasts against `item`."""
        if not len(self.item):
            return np.zeros(np.broadcast_shapes(item.shape, user.shape), bool)
        stride = max(int(self.item.max()), int(item.max(initial=0))) + 1
        keys = self.user * stride + self.item
        wanted = user * stride + item
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return keys[place] == wanted
