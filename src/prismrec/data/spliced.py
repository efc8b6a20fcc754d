"""Arrays of events that lie in several files, read as if each user's events stood together.

A store that grows keeps what it has: every day's events are a further piece, sorted by user and time like
the first. Readers want one range of positions for each user. A `Splice` translates: positions fall into
runs, each of which is a stretch of one piece; all users between two with later events are one run, so
there are about twice as many runs as users with later events. Reading costs a binary search among them.

Two other layouts were weighed. Merging into memory on open is shorter, but every process would hold all
events. Room left behind each user's events keeps them in one range, but is a rewrite as soon as it is full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from prismrec.data.ranges import flat_ranges


@dataclass(frozen=True)
class Splice:
    """Where R runs of positions are: position `start[r] + i` of run r is row `row[r] + i` of piece `piece[r]`."""

    start: np.ndarray
    """int64 [R], rising from 0."""
    piece: np.ndarray
    """int64 [R]."""
    row: np.ndarray
    """int64 [R]."""

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Piece and row of each position, both of the shape of `positions`."""
        run = np.searchsorted(self.start, positions, side="right") - 1
        return self.piece[run], self.row[run] + positions - self.start[run]


def splice(users: Sequence[np.ndarray], offsets: Sequence[np.ndarray], num_users: int) -> tuple[Splice, np.ndarray]:
    """Put each user's events of all pieces behind one another, in the order of the pieces.

    Args:
        users: of each piece, its users, each once, int64 [P].
        offsets: of each piece, where its users' events begin, and their number, int64 [P + 1].
        num_users: U; users are 0 to U - 1.

    Returns:
        The splice, and where each user's events begin in it, and their number, int64 [U + 1].
    """
    user, row = np.concatenate(users), np.concatenate([bounds[:-1] for bounds in offsets])
    length = np.concatenate([np.diff(bounds) for bounds in offsets])
    piece = np.repeat(np.arange(len(users)), [len(each) for each in users])
    order = np.flatnonzero(length)[np.argsort(user[length > 0], kind="stable")]
    user, row, length, piece = user[order], row[order], length[order], piece[order]
    start = np.cumsum(length) - length
    begins = np.ones(len(row), dtype=bool)
    begins[1:] = (piece[1:] != piece[:-1]) | (row[1:] != row[:-1] + length[:-1])
    events = np.bincount(user, length, num_users).astype(np.int64)
    return Splice(start[begins], piece[begins], row[begins]), np.concatenate([[0], np.cumsum(events)])


class SplicedArray:
    """A read-only array [N, ...] of events in pieces; indexing by positions, a slice or one number gives arrays."""

    def __init__(self, pieces: Sequence[np.ndarray], order: Splice) -> None:
        self.pieces = pieces
        self._order = order
        self.shape = (sum(map(len, pieces)), *pieces[0].shape[1:])
        self.dtype = pieces[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray | slice | SupportsIndex) -> Any:
        if isinstance(index, slice):
            return self._stretch(*index.indices(len(self)))
        positions = np.asarray(index)
        if not positions.ndim:
            return self[positions[None]][0]
        piece, row = self._order.locate(np.where(positions < 0, positions + len(self), positions))
        found = self.pieces[0][np.where(piece == 0, row, 0)]
        for number in range(1, len(self.pieces)):
            inside = piece == number
            if inside.any():
                found[inside] = self.pieces[number][row[inside]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole array, in memory."""
        return np.asarray(self[:], dtype)

    def _stretch(self, first: int, last: int, step: int) -> np.ndarray:
        """Positions `first:last:step`, copied run by run piece by piece: quicker than by each position."""
        if step != 1 or last <= first:
            return np.asarray(self[np.arange(first, last, step)])
        order = self._order
        runs = slice(int(np.searchsorted(order.start, first, "right")) - 1, int(np.searchsorted(order.start, last)))
        start = np.maximum(order.start[runs], first)
        row = order.row[runs] + start - order.start[runs]
        size = np.diff(np.append(start, last))
        out = np.empty((int(size.sum()), *self.shape[1:]), self.dtype)
        for number, piece in enumerate(self.pieces):
            mine = order.piece[runs] == number
            to, source = start[mine] - first, row[mine]
            out[flat_ranges(to, to + size[mine])] = piece[flat_ranges(source, source + size[mine])]
        return out


EventArray = np.ndarray | SplicedArray
"""A column of a store's events."""


def pieces_of(column: EventArray) -> Sequence[np.ndarray]:
    """What a column consists of, in the order in which it was appended."""
    return [column] if isinstance(column, np.ndarray) else column.pieces
