"""The evaluator against lists whose metrics are known by hand."""

import numpy as np
import pytest
from lists import write_lists
from score import score


def test_metrics_of_known_lists(make_task) -> None:
    task = make_task()
    queries, store = task.queries["test"], task.store
    users = queries.num_users
    rows = np.zeros((users, 2), np.int64)
    for query in range(users):
        seen, target = set(queries.seen[query : query + 1].item), queries.targets.item[query]
        other = next(row for row in range(1, store.num_items + 1) if row not in seen and row != target)
        rows[query] = (target, other) if query % 2 else (other, target)
    rows[0] = (rows[0, 0], 0)  # one list without its target
    write_lists(task.lists_path("test"), store, queries.user, rows)
    found = score(task.lists_path("test"), store, queries, (1, 2))
    first, second = users / 2, users / 2 - 1
    assert found["recall@1"]["value"] == pytest.approx(first / users)
    assert found["hit_rate@2"]["value"] == pytest.approx((first + second) / users)
    assert found["ndcg@2"]["value"] == pytest.approx((first + second / np.log2(3)) / users)
    assert found["coverage@2"]["value"] == pytest.approx(len(np.unique(rows[rows > 0])) / store.num_items)
    assert found["recall@1"]["low"] < found["recall@1"]["value"] < found["recall@1"]["high"]
    assert set(found["gini@2"]) == {"value"}
    assert "tail_recall@2" in found
