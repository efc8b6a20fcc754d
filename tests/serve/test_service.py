"""The service without HTTP: what the encoder is given of users who are new, and of events that come twice."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prismrec.data.history import HistoryBatch
from prismrec.export.reader import Bundle, open_bundle
from prismrec.export.user_encoder import EncodedUsers, OnnxUserEncoder
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
