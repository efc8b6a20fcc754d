"""Examples: users whose lists came out well, and users whose lists did not, with all that a person needs to judge.

Takes a model's candidates; gives `Example`s. Who is shown depends on the seed alone, not on how it looks.
"""

from typing import Any

import numpy as np

from prismrec.data.schema import CATEGORY_FEATURES, ITEM
from prismrec.data.store import Store
from prismrec.evaluate.candidates import Candidates
from prismrec.evaluate.findings import Example, ItemName, Recommended, Target
from prismrec.evaluate.measure import recall_of
from prismrec.evaluate.queries import Queries

_HISTORY, _TARGETS, _RECOMMENDED = 8, 10, 10  # items shown


def choose_examples(
    store: Store, queries: Queries, candidates: Candidates, k: int, seed: int, each: int
) -> list[Example]:
    """Draw `each` users among the tenth of best recall@k, then as many among the tenth of worst."""
    recall = recall_of(candidates.merged(), queries.targets, k)
    order = np.random.default_rng(seed).permutation(queries.num_users)
    order = order[np.argsort(-recall[order], kind="stable")]
    tenth = max(len(order) // 10, each)
    rng = np.random.default_rng(seed)
    best, worst = (rng.permutation(users) for users in (order[:tenth], order[tenth:][-tenth:]))
    users = [*best[:each], *worst[:each]]
    return [_example(store, queries, candidates, int(user), k, float(recall[user])) for user in users]


def _example(store: Store, queries: Queries, candidates: Candidates, user: int, k: int, recall: float) -> Example:
    events = store.item[queries.start[user] : queries.end[user]]
    items, finders = candidates.merged()[user, :k], candidates.finders()[user, :k]
    ranks = {row: rank for rank, row in enumerate(items.tolist(), 1) if row}
    targets = queries.targets.select(np.array([user])).item.tolist()
    found_first = sorted(targets, key=lambda row: ranks.get(row, k + 1))
    recommended = [
        Recommended(**_name(store, row), rank=rank, interest=int(finders[rank - 1]), is_target=row in targets)
        for row, rank in list(ranks.items())[:_RECOMMENDED]
    ]
    return Example(
        user_id=store.user_ids[int(queries.user[user])],
        recall=recall,
        history=[ItemName(**_name(store, row)) for row in events[::-1][:_HISTORY].tolist()],
        targets=[Target(**_name(store, row), rank=ranks.get(row)) for row in found_first[:_TARGETS]],
        recommended=recommended,
    )


def _name(store: Store, row: int) -> dict[str, Any]:
    """Fields of `ItemName` of a catalogue row."""
    shown = store.items.row(row - 1, named=True)
    category = next((shown[name] for name in CATEGORY_FEATURES if shown.get(name) is not None), None)
    if isinstance(category, list):
        category = ", ".join(map(str, category))
    title = shown.get("title")
    return {
        ITEM: shown[ITEM],
        "title": None if title is None else str(title),
        "category": None if category is None else str(category),
    }
