"""Recommendations from a bundle, without torch: histories -> interests -> items.

Takes users in original ids, known or given by their events; gives recommendations in original ids,
in batches, so that memory does not grow with the number of users.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track

from prismrec.data.history import HistoryBatch
from prismrec.data.schema import ITEM, TIME, USER
from prismrec.data.store import Store
from prismrec.errors import ConfigError
from prismrec.export.reader import Bundle, open_bundle
from prismrec.export.user_encoder import EncodedUsers
from prismrec.export.vectors import user_table
from prismrec.index.base import NO_ROW
from prismrec.index.merge import retrieve
from prismrec.parts import Tables, Written, write_tables
from prismrec.serve.events import merged
from prismrec.serve.histories import NEW_USER, batch_store, histories_until, stored_events
from prismrec.serve.requests import Requests, known_users, read_requests

_USERS_PER_BATCH = 256
_PROGRESS_FROM = 10_000  # users

_log = logging.getLogger(__name__)


class Recommender:
    """Serves one bundle; safe to use from several threads."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def open(cls, path: Path) -> "Recommender":
        """Open and check a bundle.

        Raises:
            ArtifactError: the bundle is missing, damaged or of another format.
            SearchIndexError: its index is not the one that its manifest describes.
        """
        return cls(open_bundle(path))

    def recommend(
        self, users: pl.DataFrame | None = None, *, k: int, include_seen: bool = False, now: int | None = None
    ) -> pl.DataFrame:
        """Recommend up to k items to each user.

        Args:
            users: None for every known user; a table of `user_id` for these; or a table of events
                (`user_id, item_id, timestamp`, optional dwell and context columns), which are added to
                what the store knows of these users. Items outside the catalogue are left out of them.
            k: items per user; fewer only where the catalogue has no more unseen ones.
            include_seen: also recommend items of the user's history.
            now: time of the request in seconds; by default that of the newest event, stored or given.
                Later events do not count as history, but their items count as seen.

        Returns:
            `user_id, item_id, rank, score, interest`: ids in their original type, rank from 1, the
            inner product with the user's closest interest and its number from 0; best first. Users
            without any event get no rows; a warning is logged with their number.

        Raises:
            ConfigError: k is below 1.
            DataError: the table breaks the schema, or names unknown users without events.
        """
        frames = list(self.stream(users, k=k, include_seen=include_seen, now=now))
        return pl.concat([self._frame(self.bundle.store.user_ids.clear()), *frames])

    def stream(
        self, users: pl.DataFrame | None = None, *, k: int, include_seen: bool = False, now: int | None = None
    ) -> Iterator[pl.DataFrame]:
        """The same as `recommend`, one frame per batch of users; bad input is refused before the first."""
        if k < 1:
            raise ConfigError(f"k={k}: expected at least 1")
        requests = self._requests(users)
        return self.batches(requests, k, include_seen, self._now(requests, now), aloud=True)

    def interests(self, users: pl.DataFrame | None = None, *, now: int | None = None) -> pl.DataFrame:
        """Which past events formed each interest.

        Returns:
            `user_id, interest, item_id, timestamp, weight, closeness`: the share of each event that the
            encoder saw in each interest, which sums to one over an interest, largest share first; and the
            cosine of the event's item with the interest.
        """
        requests = self._requests(users)
        frames = [
            self._explain(requests.user_ids[start : start + batch.num_users], histories, encoded)
            for start, batch, histories, encoded in self._encode(requests, self._now(requests, now))
        ]
        return pl.concat(frames)

    def encode(self, users: pl.DataFrame | None = None, *, now: int | None = None) -> pl.DataFrame:
        """Vectors of users, whose inner products with items' vectors are the scores.

        Returns:
            `user_id, vectors`: float32 [V, D], or [V, D + 1] where popularity counts; a row of zeros is no interest.
            Users without any event get no row.
        """
        requests = self._requests(users)
        frames = []
        for start, _, histories, encoded in self._encode(requests, self._now(requests, now)):
            present = np.flatnonzero(histories.item[:, 0] != NO_ROW)
            frames.append(pl.DataFrame(user_table(requests.user_ids[start + present], encoded.vectors[present])))
        return pl.concat(frames)

    def _requests(self, users: pl.DataFrame | None) -> Requests:
        store = self.bundle.store
        requests = known_users(store, 0, store.num_users) if users is None else read_requests(store, users)
        if requests.num_ignored:
            _log.warning("ignored %d given events of items that are not in the catalogue", requests.num_ignored)
        return requests

    def _now(self, requests: Requests, now: int | None) -> int:
        return max(self.bundle.store.manifest["max_time"], requests.newest) if now is None else now

    def _encode(
        self, requests: Requests, now: int, aloud: bool = True
    ) -> Iterator[tuple[int, Store, HistoryBatch, EncodedUsers]]:
        """First request, events, histories and interests of one batch of users after the other."""
        store, keys = self.bundle.store, self.bundle.store.users["key"].to_numpy()
        starts = range(0, len(requests.user_ids), _USERS_PER_BATCH)
        for start in _progress(starts) if aloud and len(requests.user_ids) >= _PROGRESS_FROM else starts:
            stop = min(start + _USERS_PER_BATCH, len(requests.user_ids))
            position = requests.position[start:stop]
            batch = batch_store(
                store,
                [
                    merged(stored_events(store, known), given) if len(given) else stored_events(store, known)
                    for known, given in zip(position.tolist(), requests.given(start, stop), strict=True)
                ],
            )
            user_keys = np.where(position == NEW_USER, 0, keys[position])
            moments = np.full(stop - start, now)
            histories = histories_until(batch, moments, user_keys, self.bundle.config.history)
            yield start, batch, histories, self.bundle.encoder.encode(histories, store.item_features)

    def batches(
        self, requests: Requests, k: int, include_seen: bool, now: int, *, aloud: bool = False
    ) -> Iterator[pl.DataFrame]:
        """What `stream` gives, of requests that were read; `aloud` with a bar of progress and warnings."""
        if not len(requests.user_ids):
            yield self._frame(requests.user_ids)
        num_empty, k = 0, min(k, self.bundle.index.num_vectors)
        for start, batch, histories, encoded in self._encode(requests, now, aloud):
            users = np.flatnonzero(histories.item[:, 0] != NO_ROW)
            num_empty += batch.num_users - len(users)
            seen = None if include_seen else [batch.item[batch.offsets[u] : batch.offsets[u + 1]] for u in users]
            found = retrieve(self.bundle.index, encoded.vectors[users], k, seen)
            place = found.item != NO_ROW
            yield self._frame(
                requests.user_ids[(start + users)[np.nonzero(place)[0]]],
                found.item[place],
                np.nonzero(place)[1] + 1,
                found.score[place],
                found.interest[place],
            )
        if num_empty and aloud:
            _log.warning("%d users without events in the catalogue got no recommendations", num_empty)

    def _frame(self, user_ids: pl.Series, *columns: np.ndarray) -> pl.DataFrame:
        """Recommendations in original ids; columns are catalogue row, rank, score and interest."""
        item, rank, score, interest = columns or [np.empty(0, np.int64)] * 4
        return pl.DataFrame(
            {
                USER: user_ids,
                ITEM: self.bundle.store.item_ids[item - 1],
                "rank": rank.astype(np.int32),
                "score": score.astype(np.float32),
                "interest": interest.astype(np.int32),
            }
        )

    def _explain(self, user_ids: pl.Series, histories: HistoryBatch, encoded: EncodedUsers) -> pl.DataFrame:
        mask = (histories.item != NO_ROW)[:, None] & np.any(encoded.vectors != 0, axis=-1, keepdims=True)
        user, interest, step = np.nonzero(mask)
        frame = pl.DataFrame(
            {
                USER: user_ids[user],
                "interest": interest.astype(np.int32),
                ITEM: self.bundle.store.item_ids[histories.item[user, step] - 1],
                TIME: histories.time[user, step],
                "weight": encoded.interest_weights[mask],
            }
        )
        distinct, place = np.unique(histories.item[user, step], return_inverse=True)
        dim = self.bundle.config.model.embedding_dim  # what follows it is popularity
        items = self.bundle.index.vectors(distinct)[place, :dim]
        length = np.maximum(np.linalg.norm(items, axis=1), np.finfo(np.float32).tiny)  # not 1 with item_norm="free"
        closeness = np.einsum("nd,nd->n", items, encoded.vectors[user, interest, :dim]) / length
        frame = frame.with_columns(closeness=closeness)
        order = np.lexsort((step, -encoded.interest_weights[mask], interest, user))
        return frame[order]


def write_recommendations(frames: Iterable[pl.DataFrame], out: Path | str) -> Written:
    """Write the frames of `Recommender.stream` to one Parquet file, here or at a URL, atomically."""
    return write_tables(as_tables(frames), str(out))


def as_tables(frames: Iterable[pl.DataFrame]) -> Tables:
    """Frames of recommendations as Arrow tables, each with its number of users."""
    for frame in frames:
        yield frame.to_arrow(compat_level=pl.CompatLevel.oldest()), int((frame["rank"] == 1).sum())


def _progress(starts: range) -> Iterable[int]:
    return track(starts, "recommend", console=Console(stderr=True))
