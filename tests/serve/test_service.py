"""The service without HTTP: what the encoder is given of users who are new, and of events that come twice."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prismrec.data.history import HistoryBatch
from prismrec.export.reader import Bundle, open_bundle
from prismrec.export.user_encoder import EncodedUsers, OnnxUserEncoder
from prismrec.index.base import Filter
from prismrec.index.faiss_index import FaissIndex
from prismrec.serve.event_log import EventLog
from prismrec.serve.messages import AnyRecommendQuery, Event
from prismrec.serve.metrics import Metrics
from prismrec.serve.service import Service
from prismrec.serve.settings import ServeConfig

from .conftest import START


class Recording:
    """An encoder that remembers what it was given last."""

    def __init__(self, encoder: OnnxUserEncoder) -> None:
        self._encoder = encoder

    def encode(self, batch: HistoryBatch, item_features: np.ndarray) -> EncodedUsers:
        self.given = batch
        return self._encoder.encode(batch, item_features)


@pytest.fixture
def encoded(tmp_path: Path) -> Iterator[Callable[..., HistoryBatch]]:
    """What the encoder is given for a query to a bundle."""
    log = EventLog(tmp_path, ["shop"])

    def encoded(bundle: Bundle, **query: Any) -> HistoryBatch:
        encoder = Recording(bundle.encoder)
        recorded = dataclasses.replace(bundle, encoder=encoder)
        Service(recorded, bundle.index, log, ServeConfig(), Metrics()).recommend([AnyRecommendQuery(**query)])
        return encoder.given

    yield encoded
    log.close()


def _event(item: str, timestamp: int, **further: int) -> Event[Any]:
    return Event(item_id=item, timestamp=timestamp, **further)


def test_new_users_have_no_key_that_the_model_was_trained_on(bundle: Path, encoded: Any) -> None:
    opened, events = open_bundle(bundle), [_event("item 3", START)]
    assert encoded(opened, user_id=4, events=events).user.tolist() == [5]  # keys of numbers are one more
    assert encoded(opened, user_id=700, events=events).user.tolist() == [0]
    assert encoded(opened, events=events).user.tolist() == [0]


def test_an_event_of_the_bundle_counts_once_if_the_bundle_knows_no_dwell(bundle: Path, encoded: Any) -> None:
    opened = open_bundle(bundle)
    schema = opened.store.schema.model_copy(update={"has_dwell": False})
    without = dataclasses.replace(opened, store=dataclasses.replace(opened.store, schema=schema, dwell=None))
    before = encoded(without, user_id=0)
    newest, shop = without.store.item_ids[int(before.item[0, 0]) - 1], opened.store.context[opened.store.offsets[1] - 1]
    again = _event(newest, int(before.time[0, 0]), dwell=7, shop=int(shop[0]) - 1)
    assert encoded(without, user_id=0, events=[again]).item.tolist() == before.item.tolist()


class Counting:
    """An index that remembers how many vectors it searched for, and how many items of each it was asked for."""

    def __init__(self, index: FaissIndex) -> None:
        self._index, self.num_vectors, self.vectors = index, index.num_vectors, index.vectors
        self.searches: list[tuple[int, int]] = []

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> tuple[np.ndarray, np.ndarray]:
        self.searches.append((len(queries), k))
        return self._index.search(queries, k, where)


def test_a_long_list_is_not_searched_for_all_that_wait(bundle: Path, tmp_path: Path) -> None:
    """Of four vectors each: one of 4 * 5 diverse items, three of one, two of two and three."""
    opened = open_bundle(bundle)
    index = Counting(opened.index)
    wanted = [{"k": 1}, {"k": 5, "diversity": 0.5}, {"k": 2}, {"k": 1}, {"k": 3}, {"k": 1}]
    queries = [AnyRecommendQuery(user_id=user, include_seen=True, **each) for user, each in enumerate(wanted)]
    with contextlib.closing(EventLog(tmp_path, ["shop"])) as log:
        service = Service(opened, index, log, ServeConfig(), Metrics())
        answers = service.recommend(queries)
        assert sorted(index.searches) == [(4, 20), (8, 3), (12, 1)]
        assert answers == [service.recommend([query])[0] for query in queries]
