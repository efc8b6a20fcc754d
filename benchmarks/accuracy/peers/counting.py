"""Methods that only count: all-time popularity and item-to-item co-visitation, by PrismRec's own code."""

from protocol import Fitted, Stopwatch, Task, answer

from prismrec.evaluate.baselines.covisitation import covisitation, covisitation_scorer
from prismrec.evaluate.baselines.popular import item_counts, popularity_scorer


def popularity(task: Task) -> Fitted:
    """Everybody gets the items with the most training events that they do not have yet."""
    stopwatch = Stopwatch()
    counts = item_counts(task.store)
    taken = stopwatch.read()
    answer(task, lambda queries: popularity_scorer(counts))
    return Fitted(len(counts), *taken)


def covisit(task: Task) -> Fitted:
    """Items that stood near those of the history in others' training sequences."""
    stopwatch = Stopwatch()
    neighbours = covisitation(task.store)
    taken = stopwatch.read()
    answer(task, lambda queries: covisitation_scorer(task.store, queries, neighbours))
    return Fitted(len(neighbours.item), *taken)
