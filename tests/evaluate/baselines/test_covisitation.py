"""Co-visitation by hand and against a count over all pairs in plain Python."""

from collections import Counter

import numpy as np
import pytest

from prismrec.evaluate.baselines import covisitation as module
from prismrec.evaluate.baselines.covisitation import covisitation, covisitation_scorer
from prismrec.evaluate.queries import make_queries
from prismrec.evaluate.retrieval import ranked_lists


def sequence(*items: int) -> list[tuple[int, int]]:
    return [(item, time) for time, item in enumerate(items)]


def similarities(neighbours, item: int) -> dict[int, float]:
    found = slice(neighbours.offsets[item], neighbours.offsets[item + 1])
    return dict(zip(neighbours.item[found].tolist(), neighbours.similarity[found].tolist(), strict=True))


def test_no_training_pairs(make_store) -> None:
    neighbours = covisitation(make_store([sequence(1, 2, 3)], 3))
    assert neighbours.offsets.tolist() == [0] * 5


def test_similarity_is_a_shrunk_cosine(make_store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHRINKAGE", 2.0)
    # training sequences 1 2 and 1 2 3; pairs 12 twice, 13 and 23 once; item totals 3, 3, 2
    neighbours = covisitation(make_store([sequence(1, 2, 4, 4), sequence(1, 2, 3, 4, 4)], 4))
    assert similarities(neighbours, 1) == pytest.approx({2: 2 / 5, 3: 1 / np.sqrt(5 * 4)})
    assert similarities(neighbours, 3) == pytest.approx({1: 1 / np.sqrt(20), 2: 1 / np.sqrt(20)})
    assert similarities(neighbours, 4) == {}


def test_pairs_end_at_the_window_and_at_the_user(make_store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 2)
    neighbours = covisitation(make_store([sequence(1, 2, 3, 4, 9, 9), sequence(5, 6, 9, 9)], 9))
    assert sorted(similarities(neighbours, 1)) == [2, 3]
    assert sorted(similarities(neighbours, 4)) == [2, 3]
    assert sorted(similarities(neighbours, 5)) == [6]


def test_counting_in_chunks_equals_counting_every_pair(make_store, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sequences = [sequence(*rng.integers(1, 9, size)) for size in rng.integers(0, 30, 40)]
    store = make_store(sequences, 9)
    expected: Counter[int] = Counter()
    for events in sequences:
        train = [item for item, _ in events[:-2]]
        for i, first in enumerate(train):
            for second in train[i + 1 : i + 1 + module.WINDOW]:
                if first != second:
                    expected[min(first, second) * 10 + max(first, second)] += 1
    for size in (1, 50, 10**6):
        monkeypatch.setattr(module, "_EVENTS_PER_CHUNK", size)
        keys, counts = module._count_pairs(store, 10)
        assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == expected


def test_only_the_most_similar_are_kept(make_store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEIGHBOURS", 1)
    neighbours = covisitation(make_store([sequence(1, 2, 1, 2, 3, 9, 9)], 9))
    assert list(similarities(neighbours, 1)) == [2]


def test_neighbours_of_recent_events_first_then_popular_items(make_store) -> None:
    store = make_store([sequence(1, 2, 9, 9), sequence(3, 4, 9, 9), sequence(5, 5, 5, 9, 9), sequence(1, 3, 8, 8)], 9)
    queries = make_queries(store, "valid", exclude_seen=True)
    items, _ = ranked_lists(covisitation_scorer(store, queries, covisitation(store)), queries.seen, 9, 5)
    # user 3 had 1, then 3: their neighbours 2 and 4, the newer event's first; then 5 by count, then by row
    assert items[3, 0].tolist() == [4, 2, 5, 6, 7]
